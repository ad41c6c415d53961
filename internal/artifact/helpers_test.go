package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

// deadline ends a test that would hang.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func serve(t *testing.T, o registry.Options) *registry.Server {
	t.Helper()
	s, err := registry.Serve("127.0.0.1:0", o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// options are those of a store that may use these registries.
func options(t *testing.T, regs ...*registry.Server) Options {
	t.Helper()
	o := Options{Dir: t.TempDir(), StallTimeout: 5 * time.Second, RetryDelay: time.Millisecond, Registerer: prometheus.NewRegistry()}
	for _, r := range regs {
		o.AllowedRegistries = append(o.AllowedRegistries, r.Host)
		if r.CA == nil {
			o.PlainHTTPRegistries = append(o.PlainHTTPRegistries, r.Host)
		}
		o.CABundle = append(o.CABundle, r.CA...)
	}
	return o
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = r.Read(b)
	return b
}

func digestOf(b []byte) boot.Digest {
	sum := sha256.Sum256(b)
	return boot.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// artifactIn is a UKI of this content in the repository os/images.
func artifactIn(reg *registry.Server, content []byte) boot.Artifact {
	d := boot.Digest(reg.AddBlob(content))
	return boot.Artifact{Role: boot.RoleUKI, Digest: d, Size: int64(len(content)), Source: reg.Host + "/os/images@" + string(d)}
}

// read opens a blob and reads it all.
func read(t *testing.T, s *Store, d boot.Digest) []byte {
	t.Helper()
	b, err := s.Open(deadline(t), d)
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	data, err := io.ReadAll(b)
	require.NoError(t, err)
	return data
}

// requireHolds says that a store holds exactly this content and nothing unfinished.
func requireHolds(t *testing.T, s *Store, content []byte) {
	t.Helper()
	d := digestOf(content)
	require.True(t, s.Has(d))
	require.True(t, bytes.Equal(content, read(t, s, d)))
	info, err := os.Stat(s.blobPath(d))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o444), info.Mode().Perm())
	requireEmpty(t, s.ingestDir())
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// eventually polls a condition that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, 2*time.Millisecond, what)
}

func metric(t *testing.T, s *Store, name string, labels ...string) float64 {
	t.Helper()
	all, err := s.opts.Registerer.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, f := range all {
		if f.GetName() != "boot_operator_artifact_"+name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for i, l := range m.GetLabel() {
				if i < len(labels) && l.GetValue() != labels[i] {
					continue next
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// serveHandler serves any handler and returns its host:port.
func serveHandler(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
