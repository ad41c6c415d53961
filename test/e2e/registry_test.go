package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/registry"
)

// siteRegistry is an OCI registry inside a site's network.
type siteRegistry struct {
	*registry.Registry
	t       *testing.T
	host    string
	digests map[string]string
}

func (s *site) registry() *siteRegistry {
	s.t.Helper()
	return s.registryAt("127.0.0.1:0", registry.Options{})
}

func (s *site) registryAt(address string, o registry.Options) *siteRegistry {
	s.t.Helper()
	l := s.network.Listen("tcp", address)
	r := &siteRegistry{Registry: registry.New(o), t: s.t, host: l.Addr().String(), digests: map[string]string{}}
	server := &http.Server{Handler: r.Registry, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	s.t.Cleanup(func() { _ = server.Close() })
	return r
}

// publish makes an image index with a UKI for each architecture, and returns
// its reference.
func (r *siteRegistry) publish(repository, tag string, ukis map[string][]byte) string {
	r.t.Helper()
	_, err := r.Publish(repository, tag, ukis)
	require.NoError(r.t, err)
	for arch, uki := range ukis {
		sum := sha256.Sum256(uki)
		r.digests[arch] = "sha256:" + hex.EncodeToString(sum[:])
	}
	return r.host + "/" + repository + ":" + tag
}

// publishKernel makes an image with the lab's kernel and initrd for amd64, and
// returns its reference.
func (r *siteRegistry) publishKernel(repository string) string {
	r.t.Helper()
	_, err := r.PublishImage(repository, "1", registry.Image{Architecture: "amd64", Layers: []registry.Layer{
		{MediaType: registry.Kernel, Data: lab.Kernel(r.t, "amd64")},
		{MediaType: registry.Initramfs, Data: lab.Initrd(r.t, "amd64")},
	}})
	require.NoError(r.t, err)
	return r.host + "/" + repository + ":1"
}

// digest is the digest of the UKI that was published for an architecture.
func (r *siteRegistry) digest(arch string) string { return r.digests[arch] }

// slow bounds the speed of blobs; 0 does not.
func (r *siteRegistry) slow(bytesPerSecond int64) {
	r.Set(registry.Faults{BytesPerSecond: bytesPerSecond})
}
