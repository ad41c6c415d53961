package compose

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// blob is an open composed UKI, of one reader.
type blob struct {
	open   openParts
	pieces []piece
	size   int64
	pos    int64
	closed bool
}

// piece is a run of a UKI's bytes, in a file or in memory.
type piece struct {
	start, end int64
	file       *os.File
	data       []byte
}

var _ boot.Segmented = (*blob)(nil)

// newBlob puts a UKI together. open are its parts without the stub, and become the
// blob's own.
func newBlob(l *uki.Layout, open openParts, tail, table []byte) *blob {
	b := &blob{open: open}
	for _, data := range l.Head(len(table)) {
		b.addData(data)
	}
	for i, part := range l.Parts {
		b.addData(zeroes[:part.Offset-b.size])
		if part.Size > 0 {
			b.add(piece{end: b.size + part.Size, file: open[i].file})
		}
	}
	b.addData(zeroes[:l.Tail-b.size])
	b.addData(tail)
	b.addData(table)
	return b
}

func (b *blob) addData(data []byte) {
	if len(data) > 0 {
		b.add(piece{end: b.size + int64(len(data)), data: data})
	}
}

func (b *blob) add(p piece) {
	p.start = b.size
	b.size = p.end
	b.pieces = append(b.pieces, p)
}

// Size in bytes.
func (b *blob) Size() int64 { return b.size }

// File returns nil: no file has these bytes.
func (b *blob) File() *os.File { return nil }

// Segment implements boot.Segmented.
func (b *blob) Segment(pos int64) (boot.Segment, error) {
	p, err := b.at(pos)
	if err != nil {
		return boot.Segment{}, err
	}
	s := boot.Segment{File: p.file, Size: p.end - pos}
	if p.file == nil {
		s.Data = p.data[pos-p.start:]
		return s, nil
	}
	if _, err := p.file.Seek(pos-p.start, io.SeekStart); err != nil {
		return boot.Segment{}, fmt.Errorf("finding the position in a part of a UKI: %w", err)
	}
	return s, nil
}

func (b *blob) at(pos int64) (piece, error) {
	switch {
	case b.closed:
		return piece{}, os.ErrClosed
	case pos < 0:
		return piece{}, fmt.Errorf("%w: a position before the beginning", boot.ErrInvalid)
	case pos >= b.size:
		return piece{}, io.EOF
	}
	return b.pieces[sort.Search(len(b.pieces), func(i int) bool { return b.pieces[i].end > pos })], nil
}

// Read implements io.Reader.
func (b *blob) Read(to []byte) (int, error) {
	p, err := b.at(b.pos)
	if err != nil {
		return 0, err
	}
	if left := p.end - b.pos; int64(len(to)) > left {
		to = to[:left]
	}
	n := 0
	if p.file == nil {
		n = copy(to, p.data[b.pos-p.start:])
	} else if n, err = p.file.ReadAt(to, b.pos-p.start); n > 0 {
		err = nil
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // it is shorter than when it was opened
	}
	b.pos += int64(n)
	return n, err //nolint:wrapcheck // who reads wraps it
}

// Seek implements io.Seeker.
func (b *blob) Seek(offset int64, whence int) (int64, error) {
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

// Close implements io.Closer.
func (b *blob) Close() error {
	if b.closed {
		return os.ErrClosed
	}
	b.closed = true
	b.open.close()
	return nil
}
