package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Content is read more than once: for its digest, and for each time it is sent.
type Content struct {
	parts []part
}

// part is a file, or bytes, and how many zeroes follow.
type part struct {
	path    string
	data    []byte
	size    int64
	padding int64
}

// Bytes is content that is in memory.
func Bytes(data []byte) Content { return Content{parts: []part{{data: data, size: int64(len(data))}}} }

// Files are the contents of files one after the other, each but the last followed by
// zeroes up to a multiple of 4 bytes: so the kernel reads several initrds. It returns
// ErrFile for what is no file, or is empty.
func Files(paths ...string) (Content, error) {
	var c Content
	for i, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return Content{}, fmt.Errorf("%w: %w", ErrFile, err)
		case !info.Mode().IsRegular():
			return Content{}, fmt.Errorf("%w: %s is not a file", ErrFile, path)
		case info.Size() == 0:
			return Content{}, fmt.Errorf("%w: %s is empty", ErrFile, path)
		}
		p := part{path: path, size: info.Size()}
		if i < len(paths)-1 {
			p.padding = (4 - p.size%4) % 4
		}
		c.parts = append(c.parts, p)
	}
	return c, nil
}

// Size in bytes.
func (c Content) Size() int64 {
	var n int64
	for _, p := range c.parts {
		n += p.size + p.padding
	}
	return n
}

// Open opens it from the beginning. What fits no longer is found by whoever compares
// digests.
func (c Content) Open() (io.ReadCloser, error) {
	var all joined
	for _, p := range c.parts {
		if p.path == "" {
			all.add(bytes.NewReader(p.data))
			continue
		}
		f, err := os.Open(p.path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %w", ErrFile, err), all.Close())
		}
		all.files = append(all.files, f)
		// A file that shrank is not made up for by its padding.
		all.add(f, bytes.NewReader(make([]byte, p.padding)))
	}
	all.Reader = io.MultiReader(all.readers...)
	return &all, nil
}

// joined are several readers, and the files among them.
type joined struct {
	io.Reader
	readers []io.Reader
	files   []*os.File
}

func (j *joined) add(r ...io.Reader) { j.readers = append(j.readers, r...) }

func (j *joined) Close() error {
	var errs []error
	for _, f := range j.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// digest hashes the content and tells how far it is.
func (c Content) digest(ctx context.Context, name string, tell Progress) (boot.Digest, error) {
	in, err := c.Open()
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	h, buf, e := sha256.New(), make([]byte, 1<<20), Event{Step: Reading, Name: name, Size: c.Size()}
	for {
		n, err := in.Read(buf)
		h.Write(buf[:n])
		e.At += int64(n)
		tell(e)
		switch {
		case ctx.Err() != nil:
			return "", errInterrupted
		case errors.Is(err, io.EOF) && e.At == e.Size:
			return boot.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
		case errors.Is(err, io.EOF):
			return "", fmt.Errorf("%w: %s has %d bytes, and had %d", ErrChanged, name, e.At, e.Size)
		case err != nil:
			return "", fmt.Errorf("reading %s: %w", name, err)
		}
	}
}
