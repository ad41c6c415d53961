// Package cache keeps what is slow to make and safe to keep: the control plane's
// binaries, the tools of the Makefile, the lab's kernels and initrds. It lives
// outside the checkout, so that a fresh clone finds what an older one made.
package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Dir returns the directory for one kind of cached thing, below
// $BOOT_OPERATOR_CACHE or, without it, the user's cache directory. What is in it
// may be deleted at any time; it is made again when it is needed.
func Dir(name string) string {
	if root := os.Getenv("BOOT_OPERATOR_CACHE"); root != "" {
		return filepath.Join(root, name)
	}
	root, err := os.UserCacheDir()
	if err != nil { // no home, as in some containers
		root = os.TempDir()
	}
	return filepath.Join(root, "boot-operator", name)
}

// Make fills path, a file or a directory, by calling fill with a temporary path
// beside it and renaming what fill left there. Where path exists, nothing
// happens. Of several processes that ask at once, one fills and the others wait.
func Make(path string, fill func(tmp string) error) error {
	if exists(path) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	unlock, err := lock(path + ".lock")
	if err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	defer unlock()
	if exists(path) {
		return nil
	}
	tmp := path + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := fill(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Repo returns the root of the checkout that the working directory is in.
func Repo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/boot-operator/boot-operator\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside a checkout of boot-operator")
		}
		dir = parent
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, err
		}
	}
}
