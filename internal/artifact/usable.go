package artifact

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// probeBytes is more than what a file system keeps beside a file's name: on a full
// disk it has to find room.
const probeBytes = 8 << 10

// Usable says whether blobs can be written to the store's directory and read from it
// now, by writing and reading a small file. Its error says why not: the disk is full
// or read-only, or another directory is where the store's was, as when a mount has
// gone. It may take as long as the disk does.
func (s *Store) Usable() error {
	if err := s.sameDir(); err != nil {
		return err
	}
	name := filepath.Join(s.opts.Dir, ".probe")
	want := make([]byte, probeBytes)
	_, _ = rand.Read(want) // never fails (crypto/rand)
	err := os.WriteFile(name, want, 0o600)
	if err != nil {
		return errors.Join(fmt.Errorf("writing to the artifact store: %w", err), removed(name))
	}
	got, err := os.ReadFile(name)
	switch {
	case err != nil:
		return fmt.Errorf("reading from the artifact store: %w", err)
	case !bytes.Equal(got, want):
		return errors.Join(fmt.Errorf("reading from the artifact store: %s does not hold what was written to it", name), removed(name))
	}
	return removed(name)
}

// sameDir says whether the directory is still the one that was opened.
func (s *Store) sameDir() error {
	opened, err := s.lock.Stat()
	if err != nil {
		return fmt.Errorf("looking at the artifact store: %w", err)
	}
	now, err := os.Stat(s.lock.Name())
	if err != nil {
		return fmt.Errorf("looking at the artifact store: %w", err)
	}
	if !os.SameFile(opened, now) {
		return fmt.Errorf("%s is not the directory that was opened: was its volume unmounted?", s.opts.Dir)
	}
	return nil
}

func removed(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a file from the artifact store: %w", err)
	}
	return nil
}
