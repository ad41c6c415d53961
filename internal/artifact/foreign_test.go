package artifact

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

// web serves one file at every path, with an ETag if there is one.
type web struct {
	mu       sync.Mutex
	data     []byte
	etag     string
	cut      int
	requests []*http.Request
}

func (w *web) set(data []byte, etag string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.data, w.etag, w.requests = data, etag, nil
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.requests = append(w.requests, r)
	data, etag, cut := w.data, w.etag, w.cut
	w.cut = 0
	w.mu.Unlock()
	if etag != "" {
		rw.Header().Set("ETag", etag)
	}
	to := rw
	if cut > 0 {
		to = &cutting{ResponseWriter: rw, left: cut}
	}
	http.ServeContent(to, r, "", time.Time{}, bytes.NewReader(data))
}

type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

func foreignStore(t *testing.T, h http.Handler, change func(*Options)) (*Store, string) {
	t.Helper()
	host := serveHandler(t, h)
	o := options(t)
	o.AllowedURLHosts = []string{"http://" + host}
	if change != nil {
		change(&o)
	}
	return open(t, o), "http://" + host
}

func TestAForeignUKIIsPulledAndPinned(t *testing.T) {
	w := &web{}
	s, base := foreignStore(t, w, nil)
	data := random(1 << 20)
	w.set(data, `"v1"`)
	a, err := s.PullURL(deadline(t), base+"/os.efi?sig=hunter2")
	require.NoError(t, err)
	require.Equal(t, boot.Artifact{Role: boot.RoleUKI, Digest: digestOf(data), Size: 1 << 20, Source: base + "/os.efi?sig=hunter2"}, a)
	requireHolds(t, s, data)

	// What did not change is neither moved nor hashed again.
	before := metric(t, s, "pulled_bytes_total")
	again, err := s.PullURL(deadline(t), base+"/os.efi?sig=hunter2")
	require.NoError(t, err)
	require.Equal(t, a, again)
	require.Equal(t, before, metric(t, s, "pulled_bytes_total"))
	require.Equal(t, `"v1"`, w.requests[1].Header.Get("If-None-Match"))

	// What changed is.
	w.set(random(500), `"v2"`)
	again, err = s.PullURL(deadline(t), base+"/os.efi?sig=hunter2")
	require.NoError(t, err)
	require.Equal(t, digestOf(random(500)), again.Digest)

	// Another replica pulls it by its digest.
	other, _ := foreignStore(t, w, func(o *Options) { o.AllowedURLHosts = s.opts.AllowedURLHosts })
	require.NoError(t, other.Pull(deadline(t), again, Credentials{}))
	requireHolds(t, other, random(500))
	require.ErrorIs(t, other.Pull(deadline(t), a, Credentials{}), ErrDigestMismatch, "the URL has other content by now")
}

func TestABrokenDownloadIsResumedOnlyIfTheFileIsTheSame(t *testing.T) {
	for name, c := range map[string]struct{ etag, second string }{
		"a strong ETag": {`"v1"`, "bytes=400000-"},
		"a weak ETag":   {`W/"v1"`, ""},
		"no ETag":       {"", ""},
	} {
		w := &web{}
		s, base := foreignStore(t, w, nil)
		data := random(1 << 20)
		w.set(data, c.etag)
		w.cut = 400_000
		_, err := s.PullURL(deadline(t), base+"/os.efi")
		require.NoError(t, err, name)
		requireHolds(t, s, data)
		require.Len(t, w.requests, 2, name)
		require.Equal(t, c.second, w.requests[1].Header.Get("Range"), name)
	}
}

func TestForeignUKIsThatAreRefused(t *testing.T) {
	w := &web{}
	w.set(random(5000), "")
	s, base := foreignStore(t, w, func(o *Options) {
		o.MaxBytes = 4000
		o.Check = func(boot.Role, *os.File) error { return errors.New("an HTML page") }
	})
	_, err := s.PullURL(deadline(t), base+"/os.efi?sig=hunter2")
	require.ErrorIs(t, err, ErrTooLarge)
	require.NotContains(t, err.Error(), "hunter2")
	w.set(random(300), "")
	_, err = s.PullURL(deadline(t), base+"/os.efi")
	require.ErrorIs(t, err, ErrNotAUKI)
	require.ErrorContains(t, err, "an HTML page")
	w.set(nil, "")
	_, err = s.PullURL(deadline(t), base+"/os.efi")
	require.ErrorIs(t, err, ErrNotAUKI)
	_, err = s.PullURL(deadline(t), "http://other.example.com/os.efi")
	require.ErrorIs(t, err, ErrNotAllowed)
	requireEmpty(t, s.ingestDir())
	requireEmpty(t, s.blobDir())
	require.Zero(t, s.reserved)

	for status, want := range map[int]error{404: ErrNotFound, 403: ErrUnauthorized} {
		s, base := foreignStore(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }), nil)
		_, err := s.PullURL(deadline(t), base+"/os.efi")
		require.ErrorIs(t, err, want)
	}
}

func TestAnEndlessFileIsCutOff(t *testing.T) {
	s, base := foreignStore(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}), func(o *Options) { o.MaxBytes = 1 << 20 })
	_, err := s.PullURL(deadline(t), base+"/os.efi")
	require.ErrorIs(t, err, ErrTooLarge)
	requireEmpty(t, s.ingestDir())
}

func TestRedirectsOfForeignUKIs(t *testing.T) {
	inside := serve(t, registry.Options{})
	s, base := foreignStore(t, http.RedirectHandler(inside.URL+"/cdn/x", http.StatusFound), nil)
	_, err := s.PullURL(deadline(t), base+"/os.efi")
	require.ErrorIs(t, err, ErrNotAllowed)
	require.Empty(t, inside.Requests())
}

func TestManyCallersCauseOneDownload(t *testing.T) {
	gate := make(chan struct{})
	var requests atomic.Int64
	s, base := foreignStore(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		requests.Add(1)
		<-gate
		w.Header().Set("ETag", `"v1"`)
		_, _ = io.WriteString(w, "content")
	}), nil)
	var all sync.WaitGroup
	for range 50 {
		all.Add(1)
		go func() {
			defer all.Done()
			if _, err := s.PullURL(deadline(t), base+"/os.efi"); err != nil {
				t.Error(err)
			}
		}()
	}
	eventually(t, "it is asked for", func() bool { return requests.Load() == 1 })
	close(gate)
	all.Wait()
	require.Equal(t, int64(1), requests.Load())
}

// A store that is nearly full takes a file that fits: how long it is, the server
// says.
func TestAForeignUKITakesNoMoreRoomThanItNeeds(t *testing.T) {
	w := &web{}
	s, base := foreignStore(t, w, func(o *Options) { o.MaxBytes = 1_000_000 })
	kept := map[boot.Digest]struct{}{}
	s.Keep(func() map[boot.Digest]struct{} { return kept })
	for n := range 3 {
		w.set(random(300_000+n), "")
		a, err := s.PullURL(deadline(t), base+"/os.efi")
		require.NoError(t, err)
		kept[a.Digest] = struct{}{}
	}
	w.set(random(300_004), "")
	_, err := s.PullURL(deadline(t), base+"/os.efi")
	require.ErrorIs(t, err, ErrFull)
}
