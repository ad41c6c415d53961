package redfish

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	sysPath  = "/redfish/v1/Systems/1"
	resetURL = sysPath + "/Actions/ComputerSystem.Reset"
	sdPath   = sysPath + "/SD"
	biosPath = sysPath + "/Bios"
	uuidA    = "00112233-4455-6677-8899-aabbccddeeff"
	bootURL  = "https://10.0.0.1/httpboot/t/secret-token"
	password = "correct horse"
)

type doc = map[string]any

// seen is one request that the fake got, without credentials.
type seen struct {
	Method, Path, IfMatch, Body string
	Auth                        string
}

func (s seen) String() string { return strings.TrimSpace(s.Method + " " + s.Path + " " + s.Body) }

// fakeBMC is a BMC of documents: GET shows them, PATCH merges into them, and
// hooks misbehave.
type fakeBMC struct {
	t    *testing.T
	http *httptest.Server

	mu   sync.Mutex
	docs map[string]doc
	// tags count the writes to a document; noTags sends no ETag.
	tags   map[string]int
	noTags bool
	log    []seen
	// hooks answer before everything else, by "METHOD path", if they return true.
	hooks    map[string]func(w http.ResponseWriter, body string) bool
	sessions map[string]bool
	opened   int
}

func ref(path string) doc { return doc{"@odata.id": path} }

func collection(paths ...string) doc {
	members := []doc{}
	for _, p := range paths {
		members = append(members, ref(p))
	}
	return doc{"Members": members, "Members@odata.count": len(members)}
}

// newFake starts a BMC with one machine that is off.
func newFake(t *testing.T) *fakeBMC {
	f := &fakeBMC{t: t, tags: map[string]int{}, hooks: map[string]func(http.ResponseWriter, string) bool{}, sessions: map[string]bool{}}
	f.docs = map[string]doc{
		"/redfish/v1/": {
			"RedfishVersion": "1.15.0", "Systems": ref("/redfish/v1/Systems"), "Managers": ref("/redfish/v1/Managers"),
			"Links": doc{"Sessions": ref(sessionsPath)},
		},
		"/redfish/v1/Systems":    collection(sysPath),
		"/redfish/v1/Managers":   collection("/redfish/v1/Managers/1"),
		"/redfish/v1/Managers/1": {"Id": "1", "Model": "Some BMC", "FirmwareVersion": "1.0"},
		sysPath: {
			"@odata.id": sysPath, "Id": "1", "UUID": uuidA, "SerialNumber": "S-1", "PowerState": "Off", "Manufacturer": "Maker",
			"Actions": doc{"#ComputerSystem.Reset": doc{"target": resetURL, "ResetType@Redfish.AllowableValues": []string{"On", "ForceOff", "GracefulShutdown", "ForceRestart", "PushPowerButton"}}},
			"Boot": doc{
				"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None", "BootSourceOverrideMode": "UEFI",
				"BootSourceOverrideTarget@Redfish.AllowableValues": []string{"None", "Pxe", "Hdd", "UefiHttp"}, "HttpBootUri": nil,
			},
		},
	}
	f.http = httptest.NewUnstartedServer(f)
	f.http.StartTLS()
	t.Cleanup(f.http.Close)
	return f
}

// boot is the system's Boot object, to be changed by a test.
func (f *fakeBMC) boot() doc { return f.docs[sysPath]["Boot"].(doc) }

// vendor makes the fake say that it is someone's.
func (f *fakeBMC) vendor(vendor, model string) {
	f.docs["/redfish/v1/"]["Vendor"] = vendor
	f.docs["/redfish/v1/Managers/1"]["Model"] = model
}

func (f *fakeBMC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	s := seen{Method: r.Method, Path: r.URL.Path, IfMatch: r.Header.Get("If-Match"), Body: string(body)}
	user, pass, basic := r.BasicAuth()
	switch {
	case basic && user == "admin" && pass == password:
		s.Auth = "basic"
	case basic:
		s.Auth = "wrong"
	case f.sessions[r.Header.Get("X-Auth-Token")]:
		s.Auth = "session"
	}
	f.log = append(f.log, s)
	if hook := f.hooks[r.Method+" "+r.URL.Path]; hook != nil && hook(w, string(body)) {
		return
	}
	if r.URL.Path == sessionsPath && r.Method == http.MethodPost {
		f.login(w, body)
		return
	}
	if r.URL.Path != "/redfish/v1/" && (s.Auth == "" || s.Auth == "wrong") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f.serve(w, r, body)
}

func (f *fakeBMC) login(w http.ResponseWriter, body []byte) {
	var c struct{ UserName, Password string }
	_ = json.Unmarshal(body, &c)
	if c.UserName != "admin" || c.Password != password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f.opened++
	token := fmt.Sprintf("token-%d", f.opened)
	f.sessions[token] = true
	w.Header().Set("X-Auth-Token", token)
	w.Header().Set("Location", sessionsPath+"/"+token)
	w.WriteHeader(http.StatusCreated)
}

func (f *fakeBMC) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	d, ok := f.docs[r.URL.Path]
	switch {
	case r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, sessionsPath+"/"):
		delete(f.sessions, strings.TrimPrefix(r.URL.Path, sessionsPath+"/"))
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost && r.URL.Path == resetURL:
		var reset struct{ ResetType string }
		_ = json.Unmarshal(body, &reset)
		f.docs[sysPath]["PowerState"] = map[bool]string{true: "Off", false: "On"}[reset.ResetType == "ForceOff" || reset.ResetType == "GracefulShutdown"]
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusNoContent)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPatch:
		var change doc
		_ = json.Unmarshal(body, &change)
		merge(d, change)
		f.tags[r.URL.Path]++
		w.WriteHeader(http.StatusNoContent)
	default:
		if !f.noTags {
			w.Header().Set("ETag", fmt.Sprintf(`W/"%d"`, f.tags[r.URL.Path]))
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(d)
	}
}

func merge(to, from doc) {
	for k, v := range from {
		if sub, ok := v.(doc); ok {
			if _, there := to[k].(doc); !there {
				to[k] = doc{}
			}
			merge(to[k].(doc), sub)
			continue
		}
		to[k] = v
	}
}

// fail answers with a status and one message.
func fail(w http.ResponseWriter, code int, id, text string, about ...string) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(doc{"error": doc{"code": id, "@Message.ExtendedInfo": []doc{{"MessageId": "Base.1.8." + id, "Message": text, "MessageArgs": about}}}})
	return true
}

// refuseWith refuses a request as often as given.
func (f *fakeBMC) refuseWith(request string, times, code int, id, text string, about ...string) {
	f.hooks[request] = func(w http.ResponseWriter, _ string) bool {
		if times == 0 {
			return false
		}
		times--
		return fail(w, code, id, text, about...)
	}
}

// refuseIf refuses a request whose body holds a text.
func (f *fakeBMC) refuseIf(request, holds string, code int, id, text string, about ...string) {
	f.hooks[request] = func(w http.ResponseWriter, body string) bool {
		return strings.Contains(body, holds) && fail(w, code, id, text, about...)
	}
}

// writes are the requests that were no reads, without log-ins and log-outs.
func (f *fakeBMC) writes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, s := range f.log {
		if s.Method != http.MethodGet && !strings.HasPrefix(s.Path, sessionsPath) {
			all = append(all, s.String())
		}
	}
	return all
}

// matched are the If-Match headers of the writes.
func (f *fakeBMC) matched() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, s := range f.log {
		if s.Method == http.MethodPatch {
			all = append(all, s.IfMatch)
		}
	}
	return all
}

func (f *fakeBMC) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.log)
}

func (f *fakeBMC) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.http.Certificate().Raw})
}

func (f *fakeBMC) connection() Connection {
	a, err := ParseAddress(f.http.URL)
	require.NoError(f.t, err)
	return Connection{Address: a, Username: "admin", Password: password, CA: f.ca()}
}

// clock is a clock that only sleeping moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.advance(d)
	return ctx.Err()
}

func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }

func newClients(l Limits) (*Clients, *clock) {
	k := &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	return New(Options{Limits: l, Now: k.Now, Sleep: k.Sleep, Random: func() float64 { return 0 }}), k
}

// do runs f with the fake's BMC.
func (f *fakeBMC) do(run func(ctx context.Context, b BMC) error) error {
	c, _ := newClients(Limits{})
	return c.Do(f.t.Context(), f.connection(), run)
}

func (f *fakeBMC) arm(r BootRequest) (armed Armed, err error) {
	err = f.do(func(ctx context.Context, b BMC) error {
		armed, err = b.Arm(ctx, r)
		return err
	})
	return armed, err
}

func (f *fakeBMC) disarm(pinnedBy string) error {
	return f.do(func(ctx context.Context, b BMC) error { return b.Disarm(ctx, pinnedBy) })
}

// requireWrites compares requests, whose bodies are JSON.
func requireWrites(t *testing.T, f *fakeBMC, want ...string) {
	t.Helper()
	got := f.writes()
	normal := func(s string) string {
		head, body, ok := strings.Cut(s, " {")
		if !ok {
			return s
		}
		var v doc
		if json.Unmarshal([]byte("{"+body), &v) != nil {
			return s
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		_ = e.Encode(v)
		return head + " " + strings.TrimSpace(b.String())
	}
	for i := range got {
		got[i] = normal(got[i])
	}
	wanted := slices.Clone(want)
	for i := range wanted {
		wanted[i] = normal(wanted[i])
	}
	require.Equal(t, wanted, got)
}
