package httpserver

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
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
		compare(b, c.name, base+c.path, c.accept)
	}
}

// compare loads a URL, and a bare handler that writes the same bytes.
func compare(b *testing.B, name, url, accept string) {
	want := get(b, url, "Accept", accept)
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
	b.Run(name+"/bare", func(b *testing.B) { load(b, "http://"+ln.Addr().String()+"/", accept) })
	b.Run(name+"/ours", func(b *testing.B) { load(b, url, accept) })
}

// manySource finds plans by MAC address in a map, as the inventory does.
type manySource struct {
	boot.Source
	byMAC map[boot.MAC][]*boot.Plan
}

func (s manySource) ByMAC(m boot.MAC) ([]*boot.Plan, error) {
	if plans, ok := s.byMAC[m]; ok {
		return plans, nil
	}
	return nil, boot.ErrNotFound
}

func (s manySource) ByAddr(netip.Addr) ([]*boot.Plan, error) { return nil, boot.ErrNotFound }

func (s manySource) ProvesNothing(netip.Addr) bool { return false }

// BenchmarkScripts compares the script of a machine that only says its MAC
// address, among many, with a bare handler that writes the same bytes.
func BenchmarkScripts(b *testing.B) {
	for _, machines := range []int{1_000, 50_000} {
		w := newWorld(b, func(w *world) {
			w.options.Logger = logr.Discard()
			source := manySource{Source: w.source, byMAC: map[boot.MAC][]*boot.Plan{}}
			kernel, initrd := w.blobs.add(b, []byte("kernel")), w.blobs.add(b, []byte("initrd"))
			kernel.Role, initrd.Role = boot.RoleKernel, boot.RoleInitrd
			for i := range machines {
				p := *w.plan
				p.Object.Kind, p.Object.Name = kindIPXE, strconv.Itoa(i)
				p.Artifacts = []boot.Artifact{kernel, initrd}
				p.Machine.MACs = []boot.MAC{boot.MAC(fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255))}
				source.byMAC[p.Machine.MACs[0]] = []*boot.Plan{&p}
			}
			w.options.Source = source
		})
		name := strconv.Itoa(machines)
		compare(b, name+"/path", w.bootServer()+"/ipxe/52-54-00-00-02-03", "*/*")
		compare(b, name+"/query", w.bootServer()+"/ipxe?uuid=&serial=X1&buildarch=x86_64&platform=efi&mac=52-54-00-00-02-03", "*/*")
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
