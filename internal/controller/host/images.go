package host

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// resolveTimeout bounds one question to a registry.
const resolveTimeout = 30 * time.Second

// images remembers what the images of hosts hold, so that a registry is asked once
// for each provisioning and not at every step of it.
type images struct {
	Options
	mu    sync.Mutex
	known map[types.UID]known
}

type known struct {
	reference string
	arch      boot.Architecture
	artifacts []boot.Artifact
}

func newImages(o Options) *images { return &images{Options: o, known: map[types.UID]known{}} }

// of returns what a host's image holds. Its errors are those of Resolver.
func (i *images) of(ctx context.Context, host types.UID, reference string, arch boot.Architecture, auth artifact.Credentials) ([]boot.Artifact, error) {
	i.mu.Lock()
	k := i.known[host]
	i.mu.Unlock()
	if k.reference == reference && k.arch == arch {
		return k.artifacts, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	img, err := i.Resolver.Resolve(ctx, reference, arch, auth)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known[host] = known{reference, arch, img.Artifacts}
	return img.Artifacts, nil
}

func (i *images) forget(host types.UID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.known, host)
}
