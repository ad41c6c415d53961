package httpserver

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// sendfileWriter notes what ReadFrom is handed: only a limited *os.File can be
// given to sendfile(2).
type sendfileWriter struct {
	*httptest.ResponseRecorder
	sources []io.Reader
	largest int64
}

func (w *sendfileWriter) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		w.sources = append(w.sources, l.R)
		w.largest = max(w.largest, l.N)
	} else {
		w.sources = append(w.sources, r)
	}
	return io.Copy(w.ResponseRecorder, r)
}

func TestFilesAreHandedOnToTheKernel(t *testing.T) {
	for name, policy := range map[string]boot.Policy{"Always": boot.Always, "Once": boot.Once} {
		w := newWorld(t, func(w *world) {
			w.data = randomBytes(3<<20 + 17)
			w.plan.Artifacts = []boot.Artifact{w.blobs.add(w.t, w.data)}
			w.plan.Policy = policy
		})
		r := httptest.NewRequest(http.MethodGet, "/httpboot", nil)
		r.RemoteAddr = "127.0.0.1:1"
		rec := &sendfileWriter{ResponseRecorder: httptest.NewRecorder()}
		w.server.BootHandler().ServeHTTP(rec, r)
		require.Equal(t, w.data, rec.Body.Bytes(), name)
		require.GreaterOrEqual(t, len(rec.sources), 4, "in chunks, so that a client's time can be renewed")
		require.LessOrEqual(t, rec.largest, int64(chunk))
		for _, src := range rec.sources {
			require.IsType(t, (*os.File)(nil), src, name)
		}
	}

	// The control: what is still arriving cannot be.
	w := newWorld(t, func(w *world) {
		w.blobs.wrap = func(b boot.Blob) boot.Blob { return &arriving{Blob: b} }
	})
	r := httptest.NewRequest(http.MethodGet, "/httpboot", nil)
	r.RemoteAddr = "127.0.0.1:1"
	rec := &sendfileWriter{ResponseRecorder: httptest.NewRecorder()}
	w.server.BootHandler().ServeHTTP(rec, r)
	require.Equal(t, w.data, rec.Body.Bytes())
	require.Empty(t, rec.sources)
}

// readFromListener notes what connections are handed, below everything that
// this package puts between.
type readFromListener struct {
	net.Listener
	files chan int64
}

func (l *readFromListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &readFromConn{TCPConn: c.(*net.TCPConn), files: l.files}, nil
}

type readFromConn struct {
	*net.TCPConn
	files chan int64
}

func (c *readFromConn) ReadFrom(r io.Reader) (int64, error) {
	l, ok := r.(*io.LimitedReader)
	if ok {
		if _, ok := l.R.(*os.File); ok {
			n, err := c.TCPConn.ReadFrom(r)
			c.files <- n
			return n, err
		}
	}
	return c.TCPConn.ReadFrom(r)
}

func TestFilesReachTheSocketAsFiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("sendfile is looked at on Linux")
	}
	w := newWorld(t, func(w *world) {
		w.data = randomBytes(4 << 20)
		w.plan.Artifacts = []boot.Artifact{w.blobs.add(w.t, w.data)}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	files := make(chan int64, 100)
	done := make(chan error, 1)
	go func() {
		done <- w.server.Serve(t.Context(), &readFromListener{Listener: ln, files: files}, w.server.BootHandler(), ServeOptions{DrainTime: time.Millisecond})
	}()
	a := get(t, "http://"+ln.Addr().String()+"/httpboot")
	require.Equal(t, w.data, a.body)
	var sum int64
	for sum < int64(len(w.data))-512 { // net/http copies the first 512 itself
		select {
		case n := <-files:
			sum += n
		case <-time.After(5 * time.Second):
			t.Fatalf("only %d bytes were sent from the file", sum)
		}
	}
}

// FuzzRange holds our answer to any Range against the standard library's, and
// against the bytes themselves.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=5-9", "bytes=-7", "bytes=99-", "bytes=3-1", "bytes=0-0,2-3", "bytes=,", "bytes=-0", "items=0-1",
		"bytes=0-18446744073709551616", "bytes= 4 - 6 ", "bytes=--1", "bytes=\x00-", ""} {
		f.Add(s, true)
		f.Add(s, false)
	}
	w := newWorld(f, func(w *world) {
		w.data = randomBytes(100)
		w.plan.Artifacts = []boot.Artifact{w.blobs.add(w.t, w.data)}
	})
	h := w.server.BootHandler()
	f.Fuzz(func(t *testing.T, header string, get bool) {
		ours, theirs := httptest.NewRecorder(), httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodHead, "/httpboot", nil)
		if get {
			r.Method = http.MethodGet
		}
		r.RemoteAddr = "127.0.0.1:1"
		if header != "" {
			r.Header.Set("Range", header)
		}
		reference := r.Clone(t.Context())
		if strings.Contains(header, ",") {
			reference.Header.Del("Range") // several ranges: we send the whole
		}
		h.ServeHTTP(ours, r)
		http.ServeContent(theirs, reference, "x.efi", time.Time{}, strings.NewReader(string(w.data)))
		require.Equal(t, theirs.Code, ours.Code)
		require.Equal(t, theirs.Header().Get("Content-Range"), ours.Header().Get("Content-Range"))
		if ours.Code == http.StatusRequestedRangeNotSatisfiable {
			return
		}
		require.Equal(t, theirs.Body.Bytes(), ours.Body.Bytes())
		require.Equal(t, theirs.Header().Get("Content-Length"), ours.Header().Get("Content-Length"))
		require.Equal(t, "application/efi", ours.Header().Get("Content-Type"))
	})
}

// FuzzSpans holds the union of ranges against a map of bytes.
func FuzzSpans(f *testing.F) {
	f.Add([]byte{0, 5, 5, 10})
	f.Add([]byte{10, 20, 0, 5, 4, 11})
	f.Add([]byte{3, 3, 2, 1, 0, 255})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s spans
		var bytes [256]bool
		for i := 0; i+1 < len(raw) && i < 2*maxSpans; i += 2 {
			s.add(int64(raw[i]), int64(raw[i+1]))
			for b := int(raw[i]); b < int(raw[i+1]); b++ {
				bytes[b] = true
			}
		}
		prefix := 0
		for prefix < len(bytes) && bytes[prefix] {
			prefix++
		}
		one := true
		for _, set := range bytes[prefix:] {
			one = one && !set
		}
		for size := 1; size <= 255; size++ {
			// covers only has to be right when it says yes, and when all that
			// was sent is one piece.
			if s.covers(int64(size)) {
				require.GreaterOrEqual(t, prefix, size)
			} else if one {
				require.Less(t, prefix, size)
			}
		}
		require.LessOrEqual(t, len(s.list), maxSpans)
		for i := 1; i < len(s.list); i++ {
			require.Greater(t, s.list[i].start, s.list[i-1].end)
		}
	})
}

func TestScatteredRangesDoNotFillMemory(t *testing.T) {
	var s spans
	for i := range int64(10_000) {
		s.add(3*i, 3*i+1)
	}
	require.Len(t, s.list, maxSpans)
	s.add(0, 30_000)
	require.True(t, s.covers(30_000), "a client that asks for the whole after all completes")
}
