package lab

import (
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// process is a child that ends by itself, by kill, at its time-out, or (on
// Linux) with us.
type process struct {
	cmd   *exec.Cmd
	timer *time.Timer
	done  chan struct{} // closed when it has ended and err is set
	err   error
}

// startProcess starts cmd and kills it after timeout; ended is called when it
// has ended and all its output was read.
func startProcess(cmd *exec.Cmd, timeout time.Duration, ended func()) (*process, error) {
	if err := startBound(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	p.timer = time.AfterFunc(timeout, func() { _ = cmd.Process.Kill() })
	go func() {
		p.err = cmd.Wait()
		p.timer.Stop()
		ended()
		close(p.done)
	}()
	return p, nil
}

// kill ends the process, as pulling the plug does, and waits until it is gone.
func (p *process) kill() {
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
