package httpserver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// chunk is how much is sent between two looks at the clock, in bytes.
	chunk = 1 << 20
	// chunkTimeout is how long a client may take for one chunk: 17 KiB/s is
	// slower than any link that machines boot over.
	chunkTimeout = time.Minute
	// pipeSize is the buffer for a blob that is still arriving, in bytes.
	pipeSize = 32 << 10
	// strictWait is how long a blob of which no byte may flow before all of it was
	// verified is waited for: five idle seconds end a firmware's boot.
	strictWait = 1500 * time.Millisecond
)

// serveBlob answers with an artifact as http.ServeContent does: Range, If-Range,
// a HEAD with the true length. g is nil where nobody is booted by it.
func (s *Server) serveBlob(x *exchange, a boot.Artifact, cache []string, g *gate) error {
	blob, err := s.blobs.Open(x.r.Context(), a.Digest)
	if err != nil {
		return fmt.Errorf("opening %s: %w", a.Digest, err)
	}
	defer func() { _ = blob.Close() }() // it was only read
	if (a.Strict || g != nil && g.plan.Strict) && !x.head() {
		if _, err := boot.Verified(x.r.Context(), blob, strictWait); err != nil {
			return fmt.Errorf("opening %s: %w", a.Digest, err)
		}
	}
	return s.sendBlob(x, a, cache, g, blob)
}

// sendBlob answers with a blob that is open.
func (s *Server) sendBlob(x *exchange, a boot.Artifact, cache []string, g *gate, blob boot.Blob) error {
	h := x.Header()
	h["Content-Type"] = contentType(a.Role)
	h["Cache-Control"] = cache
	h["Etag"] = []string{`"` + string(a.Digest) + `"`}
	// Several ranges at once would be one multipart answer, which no firmware
	// asks for; a server may ignore a Range (RFC 9110, section 14.2).
	if len(x.r.Header["Range"]) > 1 || strings.Contains(x.r.Header.Get("Range"), ",") {
		x.r.Header.Del("Range")
	}
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	t := &transfer{x: x, gate: g, content: blob}
	t.parts, _ = blob.(boot.Segmented)
	if f := blob.File(); f != nil {
		t.content = f // only a file can be sent by the kernel itself
	}
	defer t.close()
	http.ServeContent(t, x.r, "", time.Time{}, t.content)
	return t.result()
}

// contentType is what firmware insists on for a UKI, whatever a registry called
// it.
func contentType(r boot.Role) []string {
	if r == boot.RoleUKI {
		return contentEFI
	}
	return contentBinary
}

// transfer stands between http.ServeContent and the exchange: it sees which
// bytes are going to be sent before the head of the answer leaves, and sends
// them in chunks.
type transfer struct {
	x       *exchange
	gate    *gate
	content io.ReadSeeker
	// parts is the content, where it is made of several that are sent one by one.
	parts boot.Segmented

	start, length int64
	sent          int64
	began         bool
	err           error
}

// Header implements http.ResponseWriter.
func (t *transfer) Header() http.Header { return t.x.Header() }

// WriteHeader implements http.ResponseWriter. ServeContent has set the position
// of the content and Content-Length by now.
func (t *transfer) WriteHeader(code int) {
	switch {
	case code == http.StatusRequestedRangeNotSatisfiable:
		t.err = errRange
	case !carriesBlob(code):
		t.x.WriteHeader(code)
	default:
		if t.err = t.open(); t.err == nil {
			t.x.WriteHeader(code)
		}
	}
}

func (t *transfer) open() error {
	var err error
	if t.start, err = t.content.Seek(0, io.SeekCurrent); err != nil {
		return fmt.Errorf("finding the position in a blob: %w", err)
	}
	if t.length, err = strconv.ParseInt(t.Header().Get("Content-Length"), 10, 64); err != nil {
		return fmt.Errorf("finding the length of an answer: %w", err)
	}
	if t.x.head() {
		return nil
	}
	if t.gate != nil {
		if err := t.gate.open(t.start, t.start+t.length); err != nil {
			return err
		}
		t.x.boot = t.gate.d
	}
	t.began = true
	return nil
}

// Write implements http.ResponseWriter. ServeContent writes nothing by it but
// the text of an error, and that is ours to tell.
func (t *transfer) Write(p []byte) (int, error) {
	if t.err == nil {
		t.err = errors.New("ServeContent wrote an answer of its own")
	}
	return len(p), nil
}

// ReadFrom implements io.ReaderFrom: it is how ServeContent sends. Each chunk
// is handed on as a limited *os.File, which net/http gives to sendfile(2).
func (t *transfer) ReadFrom(src io.Reader) (int64, error) {
	if t.err != nil {
		return 0, t.err
	}
	if limited, ok := src.(*io.LimitedReader); ok {
		src = limited.R
	}
	part := &io.LimitedReader{}
	for t.sent < t.length && t.err == nil {
		n := min(t.length-t.sent, chunk)
		if t.gate != nil {
			if n, t.err = t.gate.hold(t.start+t.sent, n); t.err != nil {
				break
			}
		}
		if part.R, part.N, t.err = t.next(src, n); t.err == nil {
			t.err = t.send(part)
		}
		if t.err == nil && t.gate != nil {
			t.err = t.gate.progress(t.start, t.sent)
		}
	}
	if t.err == nil {
		t.err = t.x.flush()
	}
	return t.sent, t.err
}

// next returns what the next n bytes are read from, or the first of them.
func (t *transfer) next(src io.Reader, n int64) (io.Reader, int64, error) {
	if t.parts == nil {
		return src, n, nil
	}
	part, err := t.parts.Segment(t.start + t.sent)
	if err != nil {
		return nil, 0, fmt.Errorf("reading a blob: %w", err)
	}
	n = min(n, part.Size)
	if part.File != nil {
		return part.File, n, nil
	}
	return bytes.NewReader(part.Data), n, nil
}

// send sends one chunk.
func (t *transfer) send(part *io.LimitedReader) error {
	want := part.N
	if _, ok := part.R.(*os.File); !ok {
		return t.pipe(part)
	}
	t.x.extend(chunkTimeout)
	n, err := t.x.ReadFrom(part)
	t.sent += n
	if err == nil && n < want {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// pipe sends a chunk that is in memory, or of a blob that is still arriving. The client's time runs
// only while we write to it, not while we wait for the blob.
func (t *transfer) pipe(part *io.LimitedReader) error {
	b, _ := pipes.Get().(*[pipeSize]byte)
	defer pipes.Put(b)
	for part.N > 0 {
		n, err := part.Read(b[:])
		if n > 0 {
			t.x.extend(chunkTimeout)
			w, werr := t.x.Write(b[:n])
			t.sent += int64(w)
			if werr != nil {
				return fmt.Errorf("sending: %w", werr)
			}
		}
		if err != nil && part.N > 0 {
			return fmt.Errorf("reading a blob: %w", err)
		}
	}
	return nil
}

var pipes = sync.Pool{New: func() any { return new([pipeSize]byte) }}

// close reports the delivery; it runs when a handler panics, too.
func (t *transfer) close() {
	if t.gate != nil {
		t.gate.close(t.start, t.sent, t.length, t.began)
	}
}

// result is the error to answer with, or errAborted when the head is out.
func (t *transfer) result() error {
	if t.err != nil && t.began {
		return fmt.Errorf("%w: %w", errAborted, t.err)
	}
	return t.err
}
