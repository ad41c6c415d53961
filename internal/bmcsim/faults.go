package bmcsim

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// knobs are states that are wrong for as long as they are set.
type knobs struct {
	refuse     bool
	ignoreOnce bool
	denials    int
	keys       KeyChanges
	frozen     string
	slowOff    time.Duration
	shared     time.Duration
	postUntil  time.Time
	awayUntil  time.Time
}

func (b *BMC) locked(set func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	set()
}

// RefuseCredentials says whether all credentials and sessions are refused.
func (b *BMC) RefuseCredentials(refuse bool) { b.locked(func() { b.knobs.refuse = refuse }) }

// SetPassword changes the account's password.
func (b *BMC) SetPassword(password string) { b.locked(func() { b.password = password }) }

// SetUUID says that another machine is behind this BMC now.
func (b *BMC) SetUUID(uuid string) { b.locked(func() { b.uuid = uuid }) }

// IgnoreOnce makes an override that is used up be used again at every boot, until it
// is cleared.
func (b *BMC) IgnoreOnce(ignore bool) { b.locked(func() { b.knobs.ignoreOnce = ignore }) }

// SlowPowerOff shows the machine as PoweringOff for a time after it was switched
// off; until then it cannot be switched on.
func (b *BMC) SlowPowerOff(d time.Duration) { b.locked(func() { b.knobs.slowOff = d }) }

// FreezePowerState shows the power state as it is now, whatever happens.
func (b *BMC) FreezePowerState(freeze bool) {
	b.locked(func() {
		b.knobs.frozen = ""
		if freeze {
			b.knobs.frozen = b.powerState()
		}
	})
}

// InPOST refuses changes for a time, as when the machine is in POST.
func (b *BMC) InPOST(d time.Duration) {
	b.locked(func() { b.knobs.postUntil = b.options.Now().Add(d) })
}

// GoAway takes the BMC off the network for a time, as when it reboots: its sessions
// end, connections are reset. 0 brings it back.
func (b *BMC) GoAway(d time.Duration) {
	b.locked(func() {
		b.knobs.awayUntil = b.options.Now().Add(d)
		b.sessions = nil
	})
}

// SharePort is a BMC that shares its port with the host (NC-SI): after each
// power-off it is off the network for a time. 0: it does not.
func (b *BMC) SharePort(d time.Duration) { b.locked(func() { b.knobs.shared = d }) }

// DenyAfterChange answers the next n PATCH requests that change something with 400.
func (b *BMC) DenyAfterChange(n int) { b.locked(func() { b.knobs.denials = n }) }

// Keys says what becomes of changes of the Secure Boot databases, in place of what the
// profile does.
func (b *BMC) Keys(changes KeyChanges) { b.locked(func() { b.knobs.keys = changes }) }

func (b *BMC) away() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.options.Now().Before(b.knobs.awayUntil)
}

// Fault is something that goes wrong with requests. One of Answer, Hang, Reset and
// LoseReply says what.
type Fault struct {
	// Method and Path choose the requests: the method, and what the path contains.
	// Empty: any.
	Method, Path string
	// Skip is how many of them go well before; Times how many do not (0: all).
	Skip, Times int
	// For ends the fault after a time; 0: it does not end by itself.
	For time.Duration

	// Answer is sent; the request is not executed.
	Answer *Answer
	// Hang: the request is not executed and never answered.
	Hang bool
	// Reset: the connection is reset; the request is not executed.
	Reset bool
	// LoseReply: the request is executed, then the connection is reset.
	LoseReply bool
}

// Answer is what a BMC says in place of what it should.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	// Filler is how many bytes of a JSON string come after Body.
	Filler int64
}

type fault struct {
	Fault
	until   time.Time
	seen    int
	removed chan struct{}
}

// Inject adds a fault; the first one that matches a request and is not used up
// happens. Remove ends it, and with it what hangs.
func (b *BMC) Inject(f Fault) (remove func()) {
	added := &fault{Fault: f, removed: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.For > 0 {
		added.until = b.options.Now().Add(f.For)
	}
	b.faults = append(b.faults, added)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if i := slices.Index(b.faults, added); i >= 0 {
			b.faults = slices.Delete(b.faults, i, i+1)
			close(added.removed)
		}
	}
}

// match finds the fault that happens to a request.
func (b *BMC) match(r *http.Request) *fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.options.Now()
	for _, f := range b.faults {
		over := !f.until.IsZero() && !now.Before(f.until)
		if over || (f.Method != "" && f.Method != r.Method) || !strings.Contains(r.URL.Path, f.Path) {
			continue
		}
		f.seen++
		if f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times) {
			return f
		}
	}
	return nil
}

// instead does what a fault does in place of serving a request; false: it is served.
// Lose drops the connection, and does not return.
func (f *fault) instead(w http.ResponseWriter, r *http.Request, b *BMC, entry *Request, lose func()) bool {
	switch {
	case f.Hang:
		select {
		case <-r.Context().Done():
		case <-f.removed:
		case <-b.ctx.Done():
		}
		lose()
	case f.Reset:
		lose()
	case f.Answer != nil:
		entry.Status = f.Answer.Status
		f.Answer.write(w)
		return true
	}
	return false
}

func (a *Answer) write(w http.ResponseWriter) {
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Body) // a client that has gone needs no answer
	if a.Filler <= 0 {
		return
	}
	chunk := bytes.Repeat([]byte("a"), 32<<10)
	_, _ = io.WriteString(w, `{"Name":"`)
	for left := a.Filler; left > 0; left -= int64(len(chunk)) {
		if _, err := w.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
			return
		}
	}
	_, _ = io.WriteString(w, `"}`)
}

// LostReset is the fault that executes the nth reset of the machine from now on (1:
// the next) and loses its reply.
func LostReset(n int) Fault {
	return Fault{Method: http.MethodPost, Path: "/Actions/ComputerSystem.Reset", Skip: n - 1, Times: 1, LoseReply: true}
}

// Busy is the fault of a BMC that answers 503 for a time, with Retry-After.
func Busy(d, retry time.Duration) Fault {
	h := jsonHeader()
	h.Set("Retry-After", strconv.Itoa(int(retry.Seconds())))
	return Fault{For: d, Answer: &Answer{Status: http.StatusServiceUnavailable, Header: h, Body: errorText("Base.1.18.ServiceTemporarilyUnavailable", "The service is temporarily unavailable.")}}
}

// HTML is the fault of a BMC that answers with a page for people.
func HTML() Fault {
	h := http.Header{}
	h.Set("Content-Type", "text/html")
	return Fault{Answer: &Answer{Status: http.StatusOK, Header: h, Body: "<!DOCTYPE html><html><body>Please log in</body></html>"}}
}

// Huge is the fault of a BMC whose answers are JSON of n bytes.
func Huge(n int64) Fault {
	return Fault{Answer: &Answer{Status: http.StatusOK, Header: jsonHeader(), Filler: n}}
}

// Redirect is the fault of a BMC that sends its clients to another URL.
func Redirect(url string) Fault {
	h := http.Header{}
	h.Set("Location", url)
	return Fault{Answer: &Answer{Status: http.StatusTemporaryRedirect, Header: h}}
}

// HostileID is the fault of a BMC whose Systems collection has a member elsewhere.
func HostileID(id string) Fault {
	body, _ := json.Marshal(object{
		"@odata.id": root + "/Systems", "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection", "Name": "Systems",
		"Members": []object{link(id)}, "Members@odata.count": 1,
	})
	return Fault{Method: http.MethodGet, Path: "/Systems", Answer: &Answer{Status: http.StatusOK, Header: jsonHeader(), Body: string(body)}}
}

func jsonHeader() http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("OData-Version", "4.0")
	return h
}

// errorText is a Redfish error with one message.
func errorText(id, text string) string {
	body, _ := json.Marshal(object{"error": object{
		"code": id, "message": text,
		"@Message.ExtendedInfo": []object{{"@odata.type": "#Message.v1_1_2.Message", "MessageId": id, "Message": text, "MessageArgs": []string{}, "Severity": "Warning", "Resolution": "Retry later."}},
	}})
	return string(body)
}
