package ironcore

import (
	"context"
	"fmt"
	"sync"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// registry is a Resolver that knows three images.
type registry struct {
	mu     sync.Mutex
	images map[string][]boot.Role
	fails  map[string]error
	hangs  map[string]bool
	asked  map[string]int
	archs  map[string]boot.Architecture
}

func newRegistry() *registry {
	pxe := []boot.Role{boot.RoleKernel, boot.RoleInitrd, boot.RoleSquashfs}
	return &registry{
		images: map[string][]boot.Role{ukiImage: {boot.RoleUKI}, pxeImage: pxe, bothImage: append([]boot.Role{boot.RoleUKI}, pxe...)},
		fails:  map[string]error{}, hangs: map[string]bool{}, asked: map[string]int{}, archs: map[string]boot.Architecture{},
	}
}

func (r *registry) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *registry) count(reference string) (n int) {
	r.set(func() { n = r.asked[reference] })
	return n
}

func (r *registry) Resolve(ctx context.Context, reference string, arch boot.Architecture, _ artifact.Credentials) (artifact.Image, error) {
	var hangs bool
	r.set(func() { hangs = r.hangs[reference]; r.asked[reference]++; r.archs[reference] = arch })
	if hangs {
		<-ctx.Done()
		return artifact.Image{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	roles, ok := r.images[reference]
	err := r.fails[reference]
	if err == nil && !ok {
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
