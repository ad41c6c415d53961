package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// blobs keeps what was pushed or added; slices are shared, never copied.
type blobs struct {
	mu  sync.Mutex
	all map[string]content
}

// content is in memory, or in a file.
type content struct {
	data []byte
	path string
	size int64
}

func newBlobs() *blobs { return &blobs{all: map[string]content{}} }

func (b *blobs) get(digest string) (content, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.all[digest]
	return c, ok
}

func (b *blobs) add(digest string, c content) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[digest] = c
}

func (c content) open() (io.ReadSeekCloser, error) {
	if c.path != "" {
		return os.Open(c.path)
	}
	return readSeekNopCloser{bytes.NewReader(c.data)}, nil
}

type readSeekNopCloser struct{ io.ReadSeeker }

func (readSeekNopCloser) Close() error { return nil }

// Get is for the wrapped registry.
func (b *blobs) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	c, ok := b.get(h.String())
	if !ok {
		return nil, ggcr.ErrNotFound
	}
	return c.open()
}

// Stat is for the wrapped registry.
func (b *blobs) Stat(_ context.Context, _ string, h v1.Hash) (int64, error) {
	c, ok := b.get(h.String())
	if !ok {
		return 0, ggcr.ErrNotFound
	}
	return c.size, nil
}

// Put is for the wrapped registry, whose reader checks the digest.
func (b *blobs) Put(_ context.Context, _ string, h v1.Hash, rc io.ReadCloser) error {
	data, err := io.ReadAll(rc)
	if err := errors.Join(err, rc.Close()); err != nil {
		return err
	}
	b.add(h.String(), content{data: data, size: int64(len(data))})
	return nil
}

// AddBlob makes data a blob and returns its digest. The data is not copied.
func (r *Registry) AddBlob(data []byte) (digest string) {
	sum := sha256.Sum256(data)
	digest = "sha256:" + hex.EncodeToString(sum[:])
	r.blobs.add(digest, content{data: data, size: int64(len(data))})
	return digest
}

// AddFile makes a file a blob, which is served from where it is.
func (r *Registry) AddFile(file string) (digest string, size int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", 0, fmt.Errorf("adding a blob: %w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, fmt.Errorf("adding a blob: %w", err)
	}
	digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	r.blobs.add(digest, content{path: file, size: size})
	return digest, size, nil
}

// serveBlob answers GET and HEAD for a blob, with Range, and with the faults.
func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, f Faults) {
	c, ok := r.blobs.get(path.Base(req.URL.Path))
	if !ok {
		http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"unknown blob"}]}`, http.StatusNotFound)
		return
	}
	if to, ok := f.redirect(req); ok {
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	in, err := c.open()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = in.Close() }()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", path.Base(req.URL.Path))
	if f.NoRange {
		req.Header.Del("Range")
	}
	if r.mayServePlainly(f) {
		http.ServeContent(w, req, "", time.Time{}, in)
		return
	}
	r.serveBadly(w, req, f, c, in)
}

func (f Faults) redirect(req *http.Request) (string, bool) {
	switch {
	case f.RedirectLoop:
		return req.URL.RequestURI(), true
	case f.RedirectTo != "":
		return f.RedirectTo + "/cdn" + req.URL.Path + "?signature=secret", true
	}
	return "", false
}

func (r *Registry) mayServePlainly(f Faults) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hold == nil && f.BytesPerSecond == 0 && f.CutAfter == 0 && !f.WrongDigest && f.WrongSize == 0 && !f.Chunked && !f.NoRange
}

// serveBadly sends a blob by hand, in chunks, so that it can go wrong.
func (r *Registry) serveBadly(w http.ResponseWriter, req *http.Request, f Faults, c content, in io.ReadSeeker) {
	size := c.size + f.WrongSize
	start, ok := rangeStart(req.Header.Get("Range"), size)
	if !ok {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	if !f.Chunked {
		w.Header().Set("Content-Length", strconv.FormatInt(size-start, 10))
	}
	if !f.NoRange {
		w.Header().Set("Accept-Ranges", "bytes")
	}
	if req.Header.Get("Range") != "" {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, size-1, size))
		w.WriteHeader(http.StatusPartialContent)
	}
	if f.Chunked {
		// A short answer would get its length otherwise.
		_ = http.NewResponseController(w).Flush()
	}
	if req.Method == http.MethodHead {
		return
	}
	if f.WrongSize > 0 {
		in = readSeekNopCloser{longer(in, c.size, size)}
	}
	if _, err := in.Seek(start, io.SeekStart); err != nil {
		panic(http.ErrAbortHandler)
	}
	r.send(w, req, f, in, start, size)
}

// longer appends zeros up to size.
func longer(in io.ReadSeeker, have, size int64) io.ReadSeeker {
	return io.NewSectionReader(padded{in, have}, 0, size)
}

type padded struct {
	in   io.ReadSeeker
	have int64
}

func (p padded) ReadAt(b []byte, off int64) (int, error) {
	if off >= p.have {
		clear(b)
		return len(b), nil
	}
	if _, err := p.in.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	return io.ReadFull(p.in, b[:min(int64(len(b)), p.have-off)])
}

func rangeStart(header string, size int64) (int64, bool) {
	if header == "" {
		return 0, true
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, err == nil && n >= 0 && n < size
}

const chunk = 16 << 10

// send writes the body in chunks from start to size.
func (r *Registry) send(w http.ResponseWriter, req *http.Request, f Faults, in io.Reader, start, size int64) {
	buf := make([]byte, chunk)
	sent := int64(0)
	for start+sent < size {
		n := min(int64(len(buf)), size-start-sent)
		if at := r.heldAt(); at > sent {
			n = min(n, at-sent)
		}
		if f.CutAfter > 0 && r.mayCut(f) {
			n = min(n, f.CutAfter-sent)
		}
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			panic(http.ErrAbortHandler)
		}
		if f.WrongDigest && start+sent == 0 {
			buf[0] ^= 0xff
		}
		if _, err := w.Write(buf[:n]); err != nil {
			panic(http.ErrAbortHandler)
		}
		sent += n
		r.pause(w, req, f, sent)
	}
}

func (r *Registry) heldAt() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hold == nil {
		return 0
	}
	return r.holdAt
}

func (r *Registry) mayCut(f Faults) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return f.Cuts == 0 || r.cuts < f.Cuts
}

// pause cuts, holds or slows a response after so many bytes.
func (r *Registry) pause(w http.ResponseWriter, req *http.Request, f Faults, sent int64) {
	if f.CutAfter > 0 && sent >= f.CutAfter && r.mayCut(f) {
		r.mu.Lock()
		r.cuts++
		r.mu.Unlock()
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	r.mu.Lock()
	hold := r.hold
	if sent < r.holdAt {
		hold = nil
	}
	r.mu.Unlock()
	var wait <-chan time.Time
	if f.BytesPerSecond > 0 {
		wait = time.After(time.Duration(chunk * int64(time.Second) / f.BytesPerSecond))
	}
	if hold == nil && wait == nil {
		return
	}
	_ = http.NewResponseController(w).Flush()
	if hold != nil {
		select {
		case <-hold:
		case <-req.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if wait != nil {
		select {
		case <-wait:
		case <-req.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}
