package httpserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// bodyTimeout bounds how long net/http drains the body of a request, which
// none of our routes reads.
const bodyTimeout = time.Second

// Values of headers, shared by all answers.
var (
	contentEFI      = []string{"application/efi"}
	contentBinary   = []string{"application/octet-stream"}
	contentJSON     = []string{"application/json"}
	contentIgnition = []string{"application/vnd.coreos.ignition+json"}
	contentText     = []string{"text/plain; charset=utf-8"}
	noStore         = []string{"no-store"}
	noCache         = []string{"no-cache"}
	immutable       = []string{"public, max-age=31536000, immutable"}
)

// exchange is one request and its answer. It is an http.ResponseWriter that
// counts, and an io.ReaderFrom that hands its source on as it is: what stands
// between a file and the socket must not keep the kernel from sending it.
type exchange struct {
	w     http.ResponseWriter
	r     *http.Request
	s     *Server
	start time.Time

	route routeID
	arg   string
	file  string
	peer  peer
	// token is the proof in the URL; hasToken also when it is empty, which is
	// an invalid one.
	token    string
	hasToken bool

	code  int
	bytes int64
	err   error
	abort bool
	// boot is set where boot bytes of a proven machine were served, secret where a
	// document of it was.
	boot   *delivery
	secret *secretDelivery
	// plan is the machine's that asks, as far as that is known; for the log.
	plan *boot.Plan
}

// Header implements http.ResponseWriter.
func (x *exchange) Header() http.Header { return x.w.Header() }

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(code int) {
	if x.code == 0 {
		x.code = code
	}
	x.w.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(p []byte) (int, error) {
	if x.code == 0 {
		x.code = http.StatusOK
	}
	n, err := x.w.Write(p)
	x.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	if rf, ok := x.w.(io.ReaderFrom); ok {
		if x.code == 0 {
			x.code = http.StatusOK
		}
		n, err := rf.ReadFrom(src)
		x.bytes += n
		return n, err
	}
	return io.Copy(struct{ io.Writer }{x}, src)
}

// flush hands what is buffered to the kernel and tells whether it took it.
func (x *exchange) flush() error {
	if f, ok := x.w.(interface{ FlushError() error }); ok {
		if err := f.FlushError(); err != nil {
			return fmt.Errorf("flushing: %w", err)
		}
	}
	return nil
}

// extend gives the client this long for the bytes that come next.
func (x *exchange) extend(d time.Duration) {
	if w, ok := x.w.(interface{ SetWriteDeadline(t time.Time) error }); ok {
		_ = w.SetWriteDeadline(time.Now().Add(d)) // a broken connection shows at the next write
	}
}

// boundBody keeps a client that sends a body slowly from holding the
// connection: net/http drains bodies without any time limit of its own.
func (x *exchange) boundBody() {
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return
	}
	x.Header()["Connection"] = connectionClose
	if w, ok := x.w.(interface{ SetReadDeadline(t time.Time) error }); ok {
		_ = w.SetReadDeadline(time.Now().Add(bodyTimeout)) // as above
	}
}

// readToken finds the token of the path or the query. One that is there twice is
// an invalid one, as is one that is there but empty.
func (x *exchange) readToken(fromPath string) {
	if fromPath != "" {
		x.token, x.hasToken = fromPath, true
	}
	if x.r.URL.RawQuery == "" {
		return
	}
	values, err := url.ParseQuery(x.r.URL.RawQuery)
	tokens, ok := values["token"]
	switch {
	case !ok:
	case err != nil || len(tokens) != 1 || x.hasToken:
		x.token, x.hasToken = "", true
	default:
		x.token, x.hasToken = tokens[0], true
	}
}

func (x *exchange) head() bool { return x.r.Method == http.MethodHead }

// reply writes a whole answer from memory.
func (x *exchange) reply(status int, contentType []string, body []byte) {
	h := x.Header()
	h["Content-Type"] = contentType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.WriteHeader(status)
	if !x.head() {
		_, _ = x.Write(body) // a client that is gone needs no answer
	}
}

// fail answers with an error, or cuts the connection where the head of the
// answer is already out.
func (x *exchange) fail(err error) {
	x.err = err
	if errors.Is(err, errAborted) || x.code != 0 {
		x.abort = true
		return
	}
	failureOf(err).write(x, err)
}

// end counts and logs the exchange. It keeps a panic of a handler from ending
// the process, and passes on the one that cuts the connection.
func (x *exchange) end() {
	if p := recover(); p != nil {
		x.panicked(p)
	}
	x.s.metrics.observe(x)
	x.logLine()
	if x.abort {
		panic(http.ErrAbortHandler)
	}
}

func (x *exchange) panicked(p any) {
	x.s.metrics.panics.Inc()
	x.s.log.Error(fmt.Errorf("panic: %v", p), "Handler panicked", "route", routeNames[x.route], "stack", string(debug.Stack()))
	x.fail(errPanic)
}

var errPanic = errors.New("handler panicked")

// reason is the failure's, for logs and metrics; empty when there was none.
func (x *exchange) reason() string {
	switch {
	case x.err == nil:
		return ""
	case errors.Is(x.err, errAborted):
		return "Aborted"
	case errors.Is(x.err, errPanic):
		return "Panic"
	case errors.Is(x.err, errRefused):
		return "Unproven"
	case errors.Is(x.err, errUnknown):
		return "UnknownMachine"
	case errors.Is(x.err, boot.ErrAmbiguous):
		return "AmbiguousIdentity"
	}
	return failureOf(x.err).reason
}

// logLine writes one short line: at the info level for boot deliveries and
// refusals, and at most as many as the limiters let through.
func (x *exchange) logLine() {
	now := time.Now()
	switch {
	case x.boot != nil && !x.head():
		if n, ok := x.s.served.allow(now); ok {
			x.s.log.Info("Served boot bytes", x.boot.fields(x, now, n)...)
		}
	case x.secret != nil:
		if n, ok := x.s.served.allow(now); ok {
			x.s.log.Info("Served a machine's document", x.secret.fields(x, now, n)...)
		}
	case x.err != nil:
		if n, ok := x.s.refused.allow(now); ok {
			x.s.log.Info("Refused request", append(x.bootFields(), "client", x.client(), "method", clip(x.r.Method, 16), "path", loggable(x.r.URL.Path),
				"code", x.code, "reason", x.reason(), "error", clip(x.err.Error(), 200), "suppressed", n)...)
		}
	default:
		if v := x.s.log.V(1); v.Enabled() {
			v.Info("Served request", append(x.bootFields(), "client", x.peer.addr.String(), "method", clip(x.r.Method, 16), "path", loggable(x.r.URL.Path),
				"code", x.code, "bytes", x.bytes, "duration", now.Sub(x.start).String())...)
		}
	}
}

// bootFields name the boot that a request belongs to, where its machine is known.
func (x *exchange) bootFields() []any {
	if x.plan == nil {
		return nil
	}
	f := []any{"object", x.plan.Object.String()}
	if a := x.s.attempts.Current(x.plan); a.Number > 0 {
		f = append(f, "boot", boot.NewID(x.plan.Object.UID, a.Number).String())
	}
	return f
}

// client is the address to log: the connection's, where nobody asked whom it
// stands for, since what was asked for does not exist.
func (x *exchange) client() string {
	if x.peer.addr.IsValid() {
		return x.peer.addr.String()
	}
	host, _, err := net.SplitHostPort(x.r.RemoteAddr)
	if err != nil {
		return "unknown"
	}
	return host
}

// appendJSON appends s as a JSON string.
func appendJSON(b []byte, s string) []byte {
	return append(appendEscaped(append(b, '"'), s), '"')
}

// appendEscaped appends s as a part of a JSON string. What needs no escape, as
// nearly all that we tell, costs no allocation.
func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always marshals
				return b
			}
			return append(b, quoted[1:len(quoted)-1]...)
		}
	}
	return append(b, s...)
}
