package prefetch

import (
	"context"
	"errors"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Attempts returns inner with one addition: a machine that begins to boot gets
// its documents read ahead.
func (p *Prefetch) Attempts(inner boot.Attempts) boot.Attempts {
	return warmingAttempts{inner, p}
}

type warmingAttempts struct {
	boot.Attempts
	prefetch *Prefetch
}

// Begin is inner's, and warms.
func (a warmingAttempts) Begin(p *boot.Plan, c boot.Client) (boot.Attempt, error) {
	attempt, err := a.Attempts.Begin(p, c)
	if err == nil {
		a.prefetch.pulls.await(p, attempt.Number)
		a.prefetch.Warm(p)
	}
	return attempt, err
}

// Blobs returns inner with one addition: a blob that a machine asks for and
// that a status names is pulled before all others, and waited for, at most a
// second, until it begins to arrive.
func (p *Prefetch) Blobs(inner boot.Blobs) boot.Blobs {
	return hurryingBlobs{inner, p}
}

type hurryingBlobs struct {
	inner    boot.Blobs
	prefetch *Prefetch
}

// openable is what a store says cheaply: that Open would find a blob.
type openable interface{ Openable(d boot.Digest) bool }

const (
	// Five idle seconds end a firmware's boot: answer well before.
	hurryWait = time.Second
	hurryPoll = 20 * time.Millisecond
)

// Open is inner's, again and again while a hurried pull is about to begin.
func (b hurryingBlobs) Open(ctx context.Context, d boot.Digest) (boot.Blob, error) {
	blob, err := b.inner.Open(ctx, d)
	if !errors.Is(err, boot.ErrNotReady) || !b.prefetch.pulls.hurry(d) {
		return blob, err
	}
	deadline := time.NewTimer(hurryWait)
	defer deadline.Stop()
	poll := time.NewTicker(hurryPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
			if s, ok := b.inner.(openable); ok && !s.Openable(d) {
				continue // each Open is counted
			}
			if blob, err = b.inner.Open(ctx, d); !errors.Is(err, boot.ErrNotReady) {
				return blob, err
			}
		case <-deadline.C:
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}
