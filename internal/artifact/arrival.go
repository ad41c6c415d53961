package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Readers are woken after so many bytes, or after so long: waking hundreds of
// them for every packet would cost more than the transfer.
const (
	announceEvery = 256 << 10
	announceAfter = 10 * time.Millisecond
)

// arrival is a file that is being written, and those who read it meanwhile.
// One goroutine writes; any number wait.
type arrival struct {
	size int64
	file *os.File
	hash hash.Hash

	mu        sync.Mutex
	path      string
	written   int64
	announced int64
	// timed says that an announcement is on its way.
	timed    bool
	verified bool
	err      error
	// changed is closed, and replaced, whenever there is news.
	changed chan struct{}
}

func newArrival(size int64) *arrival {
	return &arrival{size: size, hash: sha256.New(), changed: make(chan struct{})}
}

// start opens the file and takes over what an interrupted pull left in it.
func (a *arrival) start(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return diskError("making the file of a pull", err)
	}
	a.file = f
	n, err := io.Copy(a.hash, contextReader{ctx, io.LimitReader(f, a.size)})
	if err == nil {
		err = f.Truncate(n)
	}
	if err != nil {
		return diskError("reading an unfinished pull", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.path, a.written = path, n
	a.announce()
	return nil
}

// Write appends, hashes, and wakes the readers now and then. It returns
// ErrDigestMismatch at the first byte too many.
func (a *arrival) Write(p []byte) (int, error) {
	at := a.progress()
	if at+int64(len(p)) > a.size {
		return 0, fmt.Errorf("%w: more than %d bytes arrive", ErrDigestMismatch, a.size)
	}
	n, err := a.file.WriteAt(p, at)
	a.hash.Write(p[:n])
	a.mu.Lock()
	defer a.mu.Unlock()
	a.written += int64(n)
	switch {
	case a.written-a.announced >= announceEvery:
		a.announce()
	case !a.timed:
		a.timed = true
		time.AfterFunc(announceAfter, a.announceLate)
	}
	if err != nil {
		return n, diskError("writing the blob", err)
	}
	return n, nil
}

// announce wakes all who wait. a.mu is held.
func (a *arrival) announce() {
	a.announced = a.written
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *arrival) announceLate() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timed = false
	if a.written > a.announced {
		a.announce()
	}
}

func (a *arrival) progress() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.written
}

// check compares all that was written with its digest.
func (a *arrival) check(d boot.Digest) error {
	if n := a.progress(); n != a.size {
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrDigestMismatch, n, a.size)
	}
	if got := hex.EncodeToString(a.hash.Sum(nil)); got != d.Hex() {
		return fmt.Errorf("%w: it has the digest sha256:%s", ErrDigestMismatch, got)
	}
	return nil
}

// release lets the readers have the last bytes.
func (a *arrival) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.verified = true
	a.announce()
}

// fail ends all reads with err, unless the bytes are verified already.
func (a *arrival) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
	a.announce()
}

// rename moves the file; nobody opens it meanwhile.
func (a *arrival) rename(to string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := os.Rename(a.path, to); err != nil {
		return diskError("moving the blob into place", err)
	}
	a.path = to
	return nil
}

// readable says how many bytes may be read, and what to wait for if those are
// not enough. All but the last boot.HeldBack bytes may be before verification.
func (a *arrival) readable() (n int64, verified bool, changed <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.verified:
		return a.size, true, a.changed, nil
	case a.err != nil:
		return 0, false, a.changed, a.err
	}
	return max(0, min(a.written, a.size-boot.HeldBack)), false, a.changed, nil
}

// wait blocks until more than pos bytes may be read.
func (a *arrival) wait(ctx context.Context, pos int64) (n int64, verified bool, err error) {
	for {
		n, verified, changed, err := a.readable()
		if err != nil {
			return 0, false, fmt.Errorf("waiting for the rest of a blob: %w", err)
		}
		if n > pos || verified {
			return n, verified, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false, fmt.Errorf("waiting for the rest of a blob: %w", context.Cause(ctx))
		}
	}
}

// open returns a file of the reader's own.
func (a *arrival) open() (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil && !a.verified {
		return nil, a.err
	}
	return os.Open(a.path)
}
