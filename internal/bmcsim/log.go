package bmcsim

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// What is kept, at most.
const (
	maxLog     = 4096      // requests; the oldest are forgotten
	maxResets  = 1024      // resets, the same
	maxBody    = 256 << 10 // bytes of a request's body
	maxLogBody = 2 << 10   // bytes of it in the log
)

// Request is one request as the BMC saw it. It holds no credentials.
type Request struct {
	Time         time.Time
	Method, Path string
	// IfMatch is that header. Auth is basic, session, or none.
	IfMatch, Auth string
	// Body is what was sent, bounded; that of a log-in is left out.
	Body string
	// Status is what the BMC answered, also where the answer was lost; 0: it did not.
	Status int
}

// log is what was asked, and how much at once.
type log struct {
	requests     []*Request
	flying, most int
}

// begin notes a request, before it is answered.
func (b *BMC) begin(r *http.Request) *Request {
	entry := &Request{Time: b.options.Now(), Method: r.Method, Path: r.URL.RequestURI(), IfMatch: bounded(r.Header.Get("If-Match"), 200), Auth: "none"}
	entry.Path = bounded(entry.Path, 500)
	if r.Header.Get("X-Auth-Token") != "" {
		entry.Auth = "session"
	} else if _, _, ok := r.BasicAuth(); ok {
		entry.Auth = "basic"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log.flying++
	b.log.most = max(b.log.most, b.log.flying)
	return entry
}

// end keeps a request in the log, when it was answered.
func (b *BMC) end(entry *Request) {
	if b.options.Logged != nil {
		b.options.Logged(*entry)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log.flying--
	if len(b.log.requests) >= maxLog {
		b.log.requests = slices.Delete(b.log.requests, 0, maxLog/4)
	}
	b.log.requests = append(b.log.requests, entry)
}

// Log returns the latest requests that were answered, oldest first.
func (b *BMC) Log() []Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Request, 0, len(b.log.requests))
	for _, r := range b.log.requests {
		list = append(list, *r)
	}
	return list
}

// ClearLog forgets the requests, and how many were in flight.
func (b *BMC) ClearLog() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log.requests, b.log.most = nil, b.log.flying
}

// MaxInFlight is the most requests that there were at once.
func (b *BMC) MaxInFlight() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.most
}

// OpenSessions is how many sessions are open.
func (b *BMC) OpenSessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire()
	return len(b.sessions)
}

// Resets returns the latest changes of power that were executed, oldest first.
func (b *BMC) Resets() []Reset {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.resets)
}

// note keeps a reset. The lock is held.
func (b *BMC) note(r Reset) {
	if len(b.resets) >= maxResets {
		b.resets = slices.Delete(b.resets, 0, maxResets/4)
	}
	r.Time = b.options.Now()
	b.resets = append(b.resets, r)
}

// readBody reads what a client sent, and says whether it was too much.
func readBody(w http.ResponseWriter, r *http.Request) (body []byte, tooLarge bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	return body, errors.As(err, &large)
}

// logged is a request's body as the log keeps it.
func logged(r *http.Request, body []byte) string {
	if strings.Contains(strings.ToLower(r.URL.Path), "/sessions") && len(body) > 0 {
		return "(credentials)"
	}
	return bounded(string(body), maxLogBody)
}

// discard reads at most n bytes to their end.
func discard(r io.Reader, n int64) error {
	_, err := io.Copy(io.Discard, io.LimitReader(r, n))
	return err
}
