package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespaces is where ip(8) keeps named network namespaces.
const namespaces = "/run/netns"

// inNamespace calls fn on a thread that is in the named network namespace. A
// socket that fn makes stays there. fn must not start goroutines that do.
func inNamespace(name string, fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		back, err := enter(name)
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		failed := fn()
		if back() == nil { // else the thread ends with the goroutine, and nobody is led astray
			runtime.UnlockOSThread()
		}
		result <- failed
	}()
	return <-result
}

// enter moves the calling thread to a namespace; back returns it.
func enter(name string) (back func() error, err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	there, err := os.Open(filepath.Join(namespaces, name))
	if err == nil {
		err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
		_ = there.Close()
	}
	if err != nil {
		_ = home.Close()
		return nil, fmt.Errorf("entering network namespace %s: %w", name, err)
	}
	return func() error {
		defer home.Close()
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
	}, nil
}
