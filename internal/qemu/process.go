package qemu

import (
	"fmt"
	"os/exec"
	"runtime"
	"sync"
)

// Process is a child that ends by itself, by Kill, with its command's context, or
// (on Linux) with us.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and err is set
	err  error
}

// StartProcess starts cmd; ended, which may be nil, is called when it has ended and
// all its output was read.
func StartProcess(cmd *exec.Cmd, ended func()) (*Process, error) {
	if err := startBound(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		if ended != nil {
			ended()
		}
		close(p.done)
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended, as exec.Cmd's Wait does; nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Kill ends the process, as pulling the plug does, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

var (
	starterOnce sync.Once
	starter     = make(chan func())
)

// startBound starts cmd so that the kernel kills it when this process dies. The
// kernel ties that to the thread that started it: so one thread starts them all,
// and never ends.
func startBound(cmd *exec.Cmd) error {
	starterOnce.Do(func() {
		go func() {
			runtime.LockOSThread()
			for start := range starter {
				start()
			}
		}()
	})
	bindToParent(cmd)
	result := make(chan error)
	starter <- func() { result <- cmd.Start() }
	return <-result
}
