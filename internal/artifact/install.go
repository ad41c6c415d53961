package artifact

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// install makes a verified file a blob: on disk, visible, read-only. The room
// that was reserved for it becomes room that is used.
func (s *Store) install(a *arrival, d boot.Digest, role boot.Role, reserved *int64) error {
	if err := a.file.Sync(); err != nil {
		return diskError("writing the blob to disk", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.blobPath(d)
	if err := a.rename(to); err != nil {
		return err
	}
	if old := s.blobs[d]; old != nil {
		s.used -= old.size
	}
	now := s.now()
	s.blobs[d] = &entry{size: a.size, lastUsed: now, persisted: now, verified: true, checked: map[boot.Role]bool{role: true}}
	s.used += a.size
	s.reserved -= *reserved
	*reserved = 0
	if err := a.file.Chmod(0o444); err != nil {
		s.log.Error(err, "did not make a blob read-only", "digest", d)
	}
	return syncDir(filepath.Dir(to))
}

// syncDir makes a rename outlast a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return diskError("writing the directory to disk", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return diskError("writing the directory to disk", err)
	}
	return nil
}

// discard closes the file of a flight that ended, and removes or keeps what is
// left of it under its name in the ingest directory.
func (s *Store) discard(a *arrival, name string, remove bool) {
	if a.file != nil {
		if err := a.file.Close(); err != nil {
			s.log.V(1).Info("did not close the file of a pull", "name", name, "error", err.Error())
		}
	}
	path := filepath.Join(s.ingestDir(), name)
	if remove {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Error(err, "did not remove an unfinished pull", "name", name)
		}
		return
	}
	info, err := os.Stat(path)
	if err != nil {
		return // it is a blob now, or nothing arrived
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stale[name] = info.Size()
}

// check asks Options.Check about a verified file, from its beginning.
func (s *Store) check(role boot.Role, f *os.File) error {
	if s.opts.Check == nil {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return diskError("reading the blob", err)
	}
	if err := s.opts.Check(role, f); err != nil {
		return fmt.Errorf("%w: %w", ErrNotAUKI, err)
	}
	return nil
}
