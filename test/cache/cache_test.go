package cache_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/boot-operator/boot-operator/test/cache"
)

func TestDirFollowsTheEnvironment(t *testing.T) {
	t.Setenv("BOOT_OPERATOR_CACHE", "/somewhere")
	if got := cache.Dir("lab"); got != "/somewhere/lab" {
		t.Errorf("got %s", got)
	}
	t.Setenv("BOOT_OPERATOR_CACHE", "")
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	if got := cache.Dir("lab"); !filepath.IsAbs(got) {
		t.Errorf("without a home: got %s", got)
	}
}

func TestManyWhoAskAtOnceMakeItOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "thing")
	var made atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			err := cache.Make(path, func(tmp string) error {
				made.Add(1)
				return os.WriteFile(tmp, []byte("whole"), 0o600)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
	if got, _ := os.ReadFile(path); string(got) != "whole" {
		t.Errorf("got %q", got)
	}
}

func TestWhatCouldNotBeMadeIsMadeTheNextTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "thing")
	broken := errors.New("broken")
	err := cache.Make(path, func(tmp string) error {
		_ = os.WriteFile(tmp, []byte("half"), 0o600)
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("half a thing is visible")
	}
	err = cache.Make(path, func(tmp string) error { return os.Mkdir(tmp, 0o700) })
	if info, serr := os.Stat(path); err != nil || serr != nil || !info.IsDir() {
		t.Errorf("made again: %v, %v", err, serr)
	}
}

func TestRepoIsFoundFromBelow(t *testing.T) {
	root, err := cache.Repo()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "test", "cache", "cache_test.go")); err != nil {
		t.Error(err)
	}
}
