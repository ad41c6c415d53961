package host

import (
	"context"
	"fmt"
	"sync"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// registry is a Resolver that knows three images, all of them for amd64.
type registry struct {
	mu     sync.Mutex
	images map[string][]boot.Role
	fails  map[string]error
	asked  map[string]int
}

func newRegistry() *registry {
	pxe := []boot.Role{boot.RoleKernel, boot.RoleInitrd}
	return &registry{
		images: map[string][]boot.Role{ukiImage: {boot.RoleUKI}, pxeImage: pxe, bothImage: append([]boot.Role{boot.RoleUKI}, pxe...)},
		fails:  map[string]error{}, asked: map[string]int{},
	}
}

func (r *registry) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// Resolve implements Resolver.
func (r *registry) Resolve(_ context.Context, reference string, arch boot.Architecture, _ artifact.Credentials) (artifact.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[reference]++
	roles, ok := r.images[reference]
	err := r.fails[reference]
	if err == nil && (!ok || arch != boot.AMD64) {
		err = artifact.ErrNotFound
	}
	if err != nil {
		return artifact.Image{}, fmt.Errorf("resolving %s for %s: %w", reference, arch, err)
	}
	img := artifact.Image{Source: reference, Name: reference}
	for _, role := range roles {
		img.Artifacts = append(img.Artifacts, boot.Artifact{Role: role, Digest: "sha256:1", Size: 1, Source: reference})
	}
	return img, nil
}
