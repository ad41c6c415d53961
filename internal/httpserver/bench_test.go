package httpserver

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// sinkAttempts forgets observations: what recording them costs is the
// observer's to measure.
type sinkAttempts struct{ *fakeAttempts }

func (sinkAttempts) Observe(boot.Observation) {}

// BenchmarkAnswers compares short answers with those of a bare handler that
// writes the same bytes, over keep-alive connections.
func BenchmarkAnswers(b *testing.B) {
	w := newWorld(b, func(w *world) {
		w.options.Logger = logr.Discard()
		w.options.Attempts = sinkAttempts{w.attempts}
	})
	base := w.bootServer()
	for _, c := range []struct{ name, path, accept string }{
		{"JSON", "/httpboot", "application/json"},
		{"Ignition", "/ignition", "application/vnd.coreos.ignition+json"},
	} {
		want := get(b, base+c.path, "Accept", c.accept)
		require.Equal(b, 200, want.StatusCode)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		bare := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:gosec // a benchmark's
			w.Header().Set("Content-Type", want.Header.Get("Content-Type"))
			w.Header().Set("Content-Length", strconv.Itoa(len(want.body)))
			_, _ = w.Write(want.body)
		})}
		go func() { _ = bare.Serve(ln) }()
		b.Cleanup(func() { _ = bare.Close() })
		b.Run(c.name+"/bare", func(b *testing.B) { load(b, "http://"+ln.Addr().String()+c.path, c.accept) })
		b.Run(c.name+"/ours", func(b *testing.B) { load(b, base+c.path, c.accept) })
	}
}

func load(b *testing.B, url, accept string) {
	tr := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	defer tr.CloseIdleConnections()
	b.ReportAllocs()
	before := processorTime(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r, err := http.NewRequest(http.MethodGet, url, nil)
			if err != nil {
				b.Error(err)
				return
			}
			r.Header.Set("Accept", accept)
			resp, err := tr.RoundTrip(r)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
				b.Error(resp.StatusCode, err)
			}
			_ = resp.Body.Close()
		}
	})
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// processorTime is what this process used, client and server: on a busy
// machine it says more than the time that passed.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
