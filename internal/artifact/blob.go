package artifact

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// blob is one reader's view of a blob, with one file of its own.
type blob struct {
	ctx     context.Context //nolint:containedctx // it bounds reads, as boot.Blobs says
	store   *Store
	digest  boot.Digest
	size    int64
	arrival *arrival

	mu     sync.Mutex
	file   *os.File
	whole  bool
	pos    int64
	closed bool
}

var _ boot.Blob = (*blob)(nil)

// Size in bytes.
func (b *blob) Size() int64 { return b.size }

// File returns the verified file, or nil while the blob is arriving. It is the
// blob's: closing the blob closes it. Its offset is its own.
func (b *blob) File() *os.File {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	if !b.whole {
		if _, verified, _, _ := b.arrival.readable(); !verified || b.openFile() != nil {
			return nil
		}
		b.whole = true
	}
	return b.file
}

// openFile opens the reader's file once. b.mu is held.
func (b *blob) openFile() (err error) {
	if b.file == nil {
		b.file, err = b.arrival.open()
	}
	return err
}

// Read waits for bytes that have not arrived. Its error, when the pull fails
// or the context of Open ends, means that the rest never comes.
func (b *blob) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, os.ErrClosed
	}
	if b.pos >= b.size {
		return 0, io.EOF
	}
	end := b.size
	if !b.whole {
		n, verified, err := b.arrival.wait(b.ctx, b.pos)
		if err == nil {
			err = b.openFile()
		}
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", b.digest, err)
		}
		end, b.whole = n, verified
	}
	if rest := end - b.pos; int64(len(p)) > rest {
		p = p[:rest]
	}
	n, err := b.file.ReadAt(p, b.pos)
	b.pos += int64(n)
	if n > 0 {
		return n, nil
	}
	if err == io.EOF {
		// The file is shorter than it was when it was opened.
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

// Seek never waits.
func (b *blob) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += b.pos
	case io.SeekEnd:
		offset += b.size
	default:
		return 0, fmt.Errorf("%w: whence %d", boot.ErrInvalid, whence)
	}
	if offset < 0 {
		return 0, fmt.Errorf("%w: a position before the beginning", boot.ErrInvalid)
	}
	b.pos = offset
	return offset, nil
}

// Close ends this reader's interest: a pull that nobody else waits for stops.
func (b *blob) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return os.ErrClosed
	}
	b.closed = true
	b.store.release(b.digest)
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}
