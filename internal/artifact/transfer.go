package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	// maxTries is how often in a row a transfer may break after less than
	// tryCounts bytes.
	maxTries  = 5
	tryCounts = 1 << 20
	// leastRate, in bytes per second, is what a transfer must reach within each
	// StallTimeout.
	leastRate = 1 << 10
	// copyBuffer is how much of a response is read at once.
	copyBuffer = 128 << 10
)

// errShort: the response ended in good order, but too early.
var errShort = errors.New("the response ends before the blob does")

// transfer moves the bytes of one blob, over as many connections as it takes.
type transfer struct {
	store *Store
	from  origin
	to    *arrival
	// joined says that the bytes come from more than one response.
	joined bool
	// skipped counts bytes that a server without Range sent again.
	skipped atomic.Int64
}

// run returns nil when as many bytes are there as there should be.
func (t *transfer) run(ctx context.Context) error {
	retry := retries{first: t.store.opts.RetryDelay}
	for {
		before := t.to.progress()
		if before == t.to.size {
			return nil
		}
		err := t.once(ctx, before)
		if err == nil {
			return nil
		}
		t.store.log.V(1).Info("a transfer broke", "source", t.from.name(), "bytes", t.to.progress(), "error", err.Error())
		if err := retry.wait(ctx, err, t.to.progress()-before); err != nil {
			return err
		}
	}
}

// retries decides whether a broken transfer is tried again, and waits for it.
type retries struct {
	first, delay time.Duration
	tries        int
}

// wait returns nil when it is time to try again after err and gained bytes,
// and the error to end with when it is not.
func (r *retries) wait(ctx context.Context, err error, gained int64) error {
	if permanent(err) || ctx.Err() != nil {
		return err
	}
	if gained >= tryCounts || r.tries == 0 {
		r.tries, r.delay = 0, r.first
	}
	if r.tries++; r.tries >= maxTries {
		if errors.Is(err, errShort) {
			err = fmt.Errorf("%w: %w", ErrDigestMismatch, err)
		}
		return fmt.Errorf("after %d tries: %w", r.tries, err)
	}
	select {
	case <-time.After(r.delay):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r.delay *= 2
	return nil
}

// permanent says that asking the same again at once cannot help.
func permanent(err error) bool {
	return Terminal(err) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrFull)
}

// once reads one response to its end, under the watch of the stall time-out.
func (t *transfer) once(ctx context.Context, offset int64) error {
	window := t.store.opts.StallTimeout
	ctx, stop := watch(ctx, window, func() int64 { return t.to.progress() + t.skipped.Load() })
	defer stop()
	return cause(ctx, t.read(ctx, offset))
}

// cause tells why a context ended, where that is what an error is about.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (t *transfer) read(ctx context.Context, offset int64) error {
	body, at, err := t.from.open(ctx, offset, t.to.size)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if offset > 0 {
		t.joined = true
	}
	if at > 0 {
		t.store.metrics.resumes.Inc()
	}
	buf := make([]byte, copyBuffer)
	// What the server sends again was hashed the first time.
	n, err := io.CopyBuffer(counter(t.skipped.Add), io.LimitReader(body, offset-at), buf)
	if err == nil && n < offset-at {
		err = fmt.Errorf("%w: after %d of %d bytes", errShort, at+n, t.to.size)
	}
	if err == nil {
		n, err = io.CopyBuffer(t.to, body, buf)
		t.store.metrics.bytes.Add(float64(n))
	}
	if err == nil && t.to.progress() < t.to.size {
		err = fmt.Errorf("%w: after %d of %d bytes", errShort, t.to.progress(), t.to.size)
	}
	if err != nil {
		return fmt.Errorf("reading from %s: %w", t.from.name(), err)
	}
	return nil
}

// counter is a writer that only counts.
type counter func(int64) int64

func (c counter) Write(p []byte) (int, error) {
	c(int64(len(p)))
	return len(p), nil
}
