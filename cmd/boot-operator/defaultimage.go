package main

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// defaultImage keeps the UKI that unknown machines get, where the operator was
// told to give them one. Every replica resolves it for itself, since no status
// names it; the old one stays until the new one is complete.
type defaultImage struct {
	reference    string
	architecture boot.Architecture
	interval     time.Duration
	// url is told for unknown machines while there is no image.
	url     string
	store   *artifact.Store
	auth    artifact.Credentials
	logger  logr.Logger
	current atomic.Pointer[defaultUKI]
}

type defaultUKI struct {
	artifact boot.Artifact
	image    string
}

// Get returns the UKI and the name of its image; false while there is none.
func (d *defaultImage) Get() (boot.Artifact, string, bool) {
	u := d.current.Load()
	if u == nil {
		return boot.Artifact{Role: boot.RoleUKI, Source: d.url}, "", d.url != ""
	}
	return u.artifact, u.image, true
}

// Run resolves and pulls the image at every interval until ctx ends.
func (d *defaultImage) Run(ctx context.Context) error {
	if d.reference == "" {
		return nil
	}
	for ctx.Err() == nil {
		wait := d.interval
		if err := d.refresh(ctx); err != nil && ctx.Err() == nil {
			d.logger.Error(err, "default image not refreshed", "image", d.reference)
			wait = min(wait, 15*time.Second)
		}
		pause(ctx, wait)
	}
	return nil
}

func (d *defaultImage) refresh(ctx context.Context) error {
	image, err := d.store.Resolve(ctx, d.reference, d.architecture, d.auth)
	if err != nil {
		return err
	}
	for _, a := range image.Artifacts {
		if a.Role != boot.RoleUKI {
			continue
		}
		if err := d.store.Pull(ctx, a, d.auth); err != nil {
			return err
		}
		is, err := madeFor(ctx, d.store, a.Digest)
		if err != nil {
			return err
		}
		if is != d.architecture {
			return fmt.Errorf("%w: UKI %s of %s is a program for %s, and unknown machines are %s", artifact.ErrNoPlatform, a.Digest, image.Source, is, d.architecture)
		}
		d.current.Store(&defaultUKI{artifact: a, image: image.Name})
		return nil
	}
	return fmt.Errorf("default image %s: %w", d.reference, artifact.ErrNoArtifact)
}

// keep adds the default image to what must not be evicted.
func (d *defaultImage) keep(digests map[boot.Digest]struct{}) map[boot.Digest]struct{} {
	u := d.current.Load()
	if u == nil {
		return digests
	}
	all := maps.Clone(digests)
	if all == nil {
		all = map[boot.Digest]struct{}{}
	}
	all[u.artifact.Digest] = struct{}{}
	return all
}
