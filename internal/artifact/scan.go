package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// scan reads what an earlier process left: blobs, which Run hashes again, and
// unfinished files, which a pull of the same digest resumes. Whatever else lies
// in the two directories is removed.
func (s *Store) scan() error {
	blobs, err := os.ReadDir(s.blobDir())
	if err != nil {
		return fmt.Errorf("reading the blobs: %w", err)
	}
	for _, f := range blobs {
		if err := s.scanBlob(f); err != nil {
			return fmt.Errorf("reading the blobs: %w", err)
		}
	}
	unfinished, err := os.ReadDir(s.ingestDir())
	if err != nil {
		return fmt.Errorf("reading unfinished pulls: %w", err)
	}
	for _, f := range unfinished {
		if err := s.scanIngest(f); err != nil {
			return fmt.Errorf("reading unfinished pulls: %w", err)
		}
	}
	return nil
}

func (s *Store) scanBlob(f os.DirEntry) error {
	d, err := boot.ParseDigest("sha256:" + f.Name())
	info, ierr := f.Info()
	if err != nil || ierr != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return os.RemoveAll(filepath.Join(s.blobDir(), f.Name()))
	}
	s.blobs[d] = &entry{size: info.Size(), lastUsed: info.ModTime(), persisted: info.ModTime(), checked: map[boot.Role]bool{}}
	s.used += info.Size()
	return nil
}

func (s *Store) scanIngest(f os.DirEntry) error {
	_, err := boot.ParseDigest("sha256:" + f.Name())
	info, ierr := f.Info()
	if err != nil || ierr != nil || !info.Mode().IsRegular() {
		return os.RemoveAll(filepath.Join(s.ingestDir(), f.Name()))
	}
	s.stale[f.Name()] = info.Size()
	return nil
}

// unverified returns the blobs that this process has not hashed.
func (s *Store) unverified() map[boot.Digest]*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[boot.Digest]*entry{}
	for d, e := range s.blobs {
		if !e.verified {
			all[d] = e
		}
	}
	return all
}

// verifyAll hashes, one at a time, what an earlier process left, and drops
// what is damaged, so that it is pulled again.
func (s *Store) verifyAll(ctx context.Context) {
	for d, e := range s.unverified() {
		if ctx.Err() != nil {
			return
		}
		if err := s.verify(ctx, d, e); err != nil && ctx.Err() == nil {
			s.drop(d, e, err)
		}
	}
}

// verify hashes one blob. A nil error means that it is whole.
func (s *Store) verify(ctx context.Context, d boot.Digest, e *entry) error {
	f, err := os.Open(s.blobPath(d))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != d.Hex() {
		return fmt.Errorf("%w: the file has the digest sha256:%s", ErrDigestMismatch, got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.verified = true
	return nil
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context //nolint:containedctx // it lives for one copy
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Run hashes what an earlier process left, and then sweeps now and then, until
// ctx ends. Pulls and Open work without it.
func (s *Store) Run(ctx context.Context) error {
	s.verifyAll(ctx)
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		if err := s.sweep(0); err != nil {
			s.log.V(1).Info("did not bring the store within its budget", "error", err.Error())
		}
		s.expireStale()
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
