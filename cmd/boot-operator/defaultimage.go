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
	"github.com/boot-operator/boot-operator/internal/controller/bootconfig"
)

// defaultImage keeps the UKI that unknown machines get, where the operator was
// told to give them one. Every replica resolves it for itself, since no status
// names it; the old one stays until the new one is complete.
type defaultImage struct {
	reference    string
	architecture boot.Architecture
	interval     time.Duration
	// url is told for unknown machines while there is no image.
	url   string
	store *artifact.Store
	auth  artifact.Credentials
	// verifier knows the operator's policy, which counts for this image too.
	verifier bootconfig.Verifier
	logger   logr.Logger
	current  atomic.Pointer[defaultUKI]
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

// refresh makes the image what its reference says now, if that may be booted: it is
// signed as the operator's policy asks, and for the architecture.
func (d *defaultImage) refresh(ctx context.Context) error {
	image, err := d.store.Resolve(ctx, d.reference, d.architecture, d.auth)
	if err != nil {
		return err
	}
	a, err := image.Artifact(boot.RoleUKI)
	if err != nil {
		return fmt.Errorf("default image %s: %w", d.reference, err)
	}
	if _, err := d.verifier.Image(ctx, image, bootconfig.Demands{}, d.auth); err != nil {
		return fmt.Errorf("image %s: %w", image.Source, err)
	}
	if err := d.store.Pull(ctx, a, d.auth); err != nil {
		return err
	}
	if _, err := d.verifier.File(ctx, a, image.Name, bootconfig.Demands{}); err != nil {
		return fmt.Errorf("UKI %s of %s: %w", a.Digest, image.Source, err)
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
