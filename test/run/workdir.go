package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// workdir is the directory of one run. While the run lives it is locked, so
// that what a second one finds in it is either another's or nobody's.
type workdir struct {
	path string
	lock *os.File
}

// openWorkdir makes the directory, or empties what an earlier run left of it.
func openWorkdir(path string) (*workdir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	w := &workdir{path: path}
	if w.lock, err = os.OpenFile(w.file("lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(w.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = w.lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("another run uses %s: end it first, with ctrl-C where it runs", path)
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return w, w.empty(false)
}

// empty removes what is in the directory, with or without the operator's log.
func (w *workdir) empty(keepLog bool) error {
	entries, err := os.ReadDir(w.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == "lock" || keepLog && entry.Name() == operatorLog {
			continue
		}
		if err := os.RemoveAll(w.file(entry.Name())); err != nil {
			return fmt.Errorf("removing what an earlier run left: %w", err)
		}
	}
	return nil
}

// remove ends the use of the directory and leaves nothing of it.
func (w *workdir) remove() error {
	err := os.RemoveAll(w.path)
	return errors.Join(err, w.lock.Close())
}

func (w *workdir) file(name string) string { return filepath.Join(w.path, name) }

// short is a file's path as one would type it here.
func (w *workdir) short(name string) string {
	path := w.file(name)
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, path); err == nil && !strings.HasPrefix(rel, "..") {
			return rel
		}
	}
	return path
}
