package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// attempts is how often a request is sent before its failure is told.
const attempts = 4

// Progress is told of every step of a transfer.
type Progress func(Event)

// Step is what happens to a blob.
type Step string

// The steps. Reading, Sending and Receiving come often, the others once.
const (
	// Reading: a file is read for its digest.
	Reading Step = "reading"
	// Sending and Receiving: bytes are on their way.
	Sending   Step = "sending"
	Receiving Step = "receiving"
	// Present: the other side has it already.
	Present Step = "present"
	// Repeating: it broke, and is tried again.
	Repeating Step = "repeating"
	// Done: it is there.
	Done Step = "done"
)

// Event is one step.
type Event struct {
	Step Step
	// Name of the blob for people, such as "amd64 uki.efi".
	Name string
	// Size is that of the whole blob, At how much of it is through, in bytes.
	Size, At int64
	// Err is why it is repeated.
	Err error
}

// again runs f until it succeeds, or fails in a way that will not change, or has
// failed often enough; name is of the blob that is transferred, for the progress.
func (r *Repository) again(ctx context.Context, name string, f func() error) error {
	delay := r.opts.RetryDelay
	for n := 1; ; n++ {
		err := f()
		switch {
		case err == nil || ctx.Err() != nil || !transient(err):
			return err
		case n == attempts:
			return &triedError{err, n}
		}
		if name != "" {
			r.opts.Progress(Event{Step: Repeating, Name: name, Err: r.explain(ctx, err)})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
		delay *= 2
	}
}

// triedError is a failure that stayed.
type triedError struct {
	error
	times int
}

func (e *triedError) Unwrap() error { return e.error }

// counter passes bytes on, tells how far it is, and ends the context of the
// transfer when nothing moves for too long.
type counter struct {
	io.Reader
	event Event
	tell  Progress
	stall time.Duration
	timer *time.Timer
	at    atomic.Int64
	// ended keeps quiet what the HTTP client still reads of a request that is over.
	ended atomic.Bool
}

// count makes a counter, whose Reader its caller sets. When nothing moves for too long
// it cancels the transfer. stop ends that.
func (r *Repository) count(e Event, cancel context.CancelCauseFunc) *counter {
	c := &counter{event: e, tell: r.opts.Progress, stall: r.opts.StallTimeout}
	c.timer = time.AfterFunc(c.stall, func() {
		cancel(fmt.Errorf("%w: nothing moved for %s", errStalled, c.stall))
	})
	return c
}

func (c *counter) stop() {
	c.ended.Store(true)
	c.timer.Stop()
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if c.ended.Load() {
		return n, err
	}
	c.event.At = c.at.Add(int64(n))
	c.tell(c.event)
	if err != nil || c.event.At >= c.event.Size {
		// What comes now is the other side's answer, which has a limit of its own.
		c.timer.Stop()
	} else {
		c.timer.Reset(c.stall)
	}
	return n, err
}

// exact reads exactly size bytes and, with the last of them, compares their
// SHA-256: what was pushed under a digest must not have changed since.
type exact struct {
	in   io.Reader
	left int64
	hash hash.Hash
	want boot.Digest
	name string
}

func newExact(in io.Reader, name string, want boot.Digest, size int64) *exact {
	return &exact{in: in, left: size, hash: sha256.New(), want: want, name: name}
}

func (e *exact) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.in.Read(p[:min(int64(len(p)), e.left)])
	e.hash.Write(p[:n])
	e.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && e.left > 0:
		return n, fmt.Errorf("%w: %s became shorter while it was read", ErrChanged, e.name)
	case e.left == 0 && hex.EncodeToString(e.hash.Sum(nil)) != e.want.Hex():
		return 0, fmt.Errorf("%w: %s has other content than when it was first read", ErrChanged, e.name)
	}
	return n, err
}
