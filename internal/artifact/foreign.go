package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// reserveStep is how much room a transfer of unknown size takes at a time.
	reserveStep = 32 << 20
	// maxKnownURLs bounds what is remembered of URLs.
	maxKnownURLs = 4096
)

// PullURL pulls the UKI at a URL of an allowed host into the store and returns
// what it is. What has not changed since the last call, by ETag or date, is
// not moved or hashed again. It returns ErrInvalidReference, ErrNotAllowed,
// ErrNotFound, ErrUnauthorized, ErrTooLarge, ErrFull or ErrNotAUKI; any other
// error is transient.
func (s *Store) PullURL(ctx context.Context, rawURL string) (boot.Artifact, error) {
	u, err := s.allow.foreign(rawURL)
	if err != nil {
		return boot.Artifact{}, fmt.Errorf("pulling a UKI: %w", err)
	}
	// The transfer outlives the caller that began it, for those who joined.
	c := s.urls.DoChan(u.String(), func() (any, error) { return s.flyURL(u) })
	select {
	case <-ctx.Done():
		return boot.Artifact{}, fmt.Errorf("pulling a UKI: %w", context.Cause(ctx))
	case r := <-c:
		if r.Err != nil {
			return boot.Artifact{}, fmt.Errorf("pulling a UKI from %s: %w", redact(u.String()), r.Err)
		}
		a, _ := r.Val.(boot.Artifact)
		a.Source = rawURL
		return a, nil
	}
}

// flyURL runs one download, as long as the store lives.
func (s *Store) flyURL(u *url.URL) (a boot.Artifact, err error) {
	done := make(chan struct{})
	s.mu.Lock()
	closed := s.run(func() {
		defer close(done)
		a, err = s.pullURL(s.life, u)
	})
	s.mu.Unlock()
	if closed != nil {
		return a, closed
	}
	s.metrics.inFlight.Inc()
	<-done
	s.metrics.inFlight.Dec()
	s.metrics.pulls.WithLabelValues(result(err)).Inc()
	return a, err
}

func (s *Store) pullURL(ctx context.Context, u *url.URL) (boot.Artifact, error) {
	leave, err := s.slots.enter(ctx, u.Host)
	if err != nil {
		return boot.Artifact{}, err
	}
	defer leave()
	d := &download{store: s, url: u, known: s.known.get(u.String())}
	if !s.Has(d.known.digest) {
		d.known = validators{}
	}
	if err := d.run(ctx); err != nil {
		s.metrics.registryError(u.Host, err)
		return boot.Artifact{}, err
	}
	s.known.put(u.String(), d.found)
	return boot.Artifact{Role: boot.RoleUKI, Digest: d.found.digest, Size: d.found.size}, nil
}

// validators tell whether a URL has the content that it had before.
type validators struct {
	etag, modified string
	digest         boot.Digest
	size           int64
}

type urlCache struct {
	mu  sync.Mutex
	all map[string]validators
}

func (c *urlCache) get(u string) validators {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[u]
}

func (c *urlCache) put(u string, v validators) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil || len(c.all) >= maxKnownURLs {
		c.all = map[string]validators{}
	}
	c.all[u] = v
}

// download is the transfer of a file whose digest is not known before its end.
// Nobody reads it meanwhile, so that a broken one begins anew unless the
// server promises, by a strong ETag, that the file is the same.
type download struct {
	store *Store
	url   *url.URL
	// known is what the URL had at the last call, found what it has now.
	known, found validators

	file    *os.File
	hash    hash.Hash
	written int64
	// expected is how long the server says that the file is; 0 if it does not.
	expected int64
	etag     string
	reserved int64
	moved    atomic.Int64
}

func (d *download) run(ctx context.Context) error {
	f, err := os.CreateTemp(d.store.ingestDir(), "url-*")
	if err != nil {
		return diskError("making the file of a pull", err)
	}
	d.file = f
	defer d.cleanUp()
	d.restart()
	retry := retries{first: d.store.opts.RetryDelay}
	for {
		before := d.written
		unchanged, err := d.once(ctx)
		if unchanged {
			return nil
		}
		if err == nil {
			return d.keep(ctx)
		}
		if err := retry.wait(ctx, err, d.written-before); err != nil {
			return err
		}
	}
}

func (d *download) cleanUp() {
	d.store.unreserve(d.reserved)
	_ = d.file.Close()
	if err := os.Remove(d.file.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.store.log.Error(err, "did not remove an unfinished pull")
	}
}

func (d *download) restart() {
	d.hash, d.written, d.etag = sha256.New(), 0, ""
}

// once reads one response; unchanged says that nothing had to be read.
func (d *download) once(ctx context.Context) (unchanged bool, err error) {
	ctx, stop := watch(ctx, d.store.opts.StallTimeout, d.moved.Load)
	defer stop()
	resp, err := getURL(ctx, d.store.client.http, d.url, d.header())
	if err != nil {
		return false, cause(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusNotModified {
		if d.known.digest == "" {
			return false, errors.New("the server says that nothing changed, which it was not asked")
		}
		d.found = d.known
		return true, nil
	}
	if err := d.begin(resp); err != nil {
		return false, err
	}
	_, err = io.CopyBuffer(d, resp.Body, make([]byte, copyBuffer))
	if err == nil && d.written == 0 {
		err = fmt.Errorf("%w: the file is empty", ErrNotAUKI)
	}
	return false, cause(ctx, err)
}

// header asks for the rest of a broken transfer, or for news.
func (d *download) header() http.Header {
	h := http.Header{"Accept": {"*/*"}}
	if d.written > 0 && (d.etag == "" || strings.HasPrefix(d.etag, "W/")) {
		d.restart() // nothing says that the rest would be of the same file
	}
	switch {
	case d.written > 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-", d.written))
		h.Set("If-Range", d.etag)
	case d.known.etag != "":
		h.Set("If-None-Match", d.known.etag)
	case d.known.modified != "":
		h.Set("If-Modified-Since", d.known.modified)
	}
	return h
}

// begin prepares for the body of a response.
func (d *download) begin(resp *http.Response) error {
	if resp.StatusCode == http.StatusPartialContent {
		var at int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &at); err != nil || at != d.written {
			d.restart()
			return errors.New("the server answers with another range than the one asked for")
		}
	} else {
		d.restart()
	}
	if resp.ContentLength > 0 && d.written+resp.ContentLength > d.store.opts.MaxBlobBytes {
		return fmt.Errorf("%w: the file has %d bytes; the store takes blobs of at most %d", ErrTooLarge, d.written+resp.ContentLength, d.store.opts.MaxBlobBytes)
	}
	d.expected = 0
	if resp.ContentLength > 0 {
		d.expected = d.written + resp.ContentLength
	}
	d.etag = resp.Header.Get("ETag")
	d.known = validators{} // it changed
	d.found = validators{etag: d.etag, modified: resp.Header.Get("Last-Modified")}
	return nil
}

// Write takes room in steps: how much will come is known too late, or never.
func (d *download) Write(p []byte) (int, error) {
	end := d.written + int64(len(p))
	if end > d.store.opts.MaxBlobBytes {
		return 0, fmt.Errorf("%w: more than %d bytes arrive; the store takes blobs of at most that", ErrTooLarge, d.store.opts.MaxBlobBytes)
	}
	for end > d.reserved {
		step := min(reserveStep, d.store.opts.MaxBlobBytes-d.reserved)
		if left := d.expected - d.reserved; left > 0 {
			step = min(step, left)
		}
		if err := d.store.reserve(step); err != nil {
			return 0, err
		}
		d.reserved += step
	}
	n, err := d.file.WriteAt(p, d.written)
	d.hash.Write(p[:n])
	d.written += int64(n)
	d.moved.Add(int64(n))
	d.store.metrics.bytes.Add(float64(n))
	if err != nil {
		return n, diskError("writing the blob", err)
	}
	return n, nil
}

// keep checks the whole file and makes it a blob.
func (d *download) keep(ctx context.Context) error {
	s := d.store
	if err := d.file.Truncate(d.written); err != nil {
		return diskError("writing the blob", err)
	}
	d.found.size = d.written
	d.found.digest = boot.Digest("sha256:" + hex.EncodeToString(d.hash.Sum(nil)))
	a := boot.Artifact{Role: boot.RoleUKI, Digest: d.found.digest, Size: d.written}
	if here, err := s.present(ctx, a); here || err != nil {
		return err
	}
	if err := s.check(boot.RoleUKI, d.file); err != nil {
		return err
	}
	whole := newArrival(d.written)
	whole.file, whole.path = d.file, d.file.Name()
	return s.install(whole, a.Digest, boot.RoleUKI, &d.reserved)
}
