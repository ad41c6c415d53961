package qemu

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"
)

// End is why a power cycle has ended.
type End string

// The ends of a power cycle.
const (
	// NotEnded is for a machine that is on, or was never.
	NotEnded End = ""
	// GuestShutdown: the guest has switched the machine off.
	GuestShutdown End = "shut down by the guest"
	// GuestReset: the guest has reset the machine, and nobody said that it goes on;
	// see OnReset.
	GuestReset End = "reset by the guest"
	// GuestPanic: the guest told QEMU that it crashed.
	GuestPanic End = "crashed"
	// Unplugged: by Stop, by Start's context, or at the end of its life.
	Unplugged End = "unplugged"
	// Failed: QEMU has failed, or the function of OnReset has.
	Failed End = "failed"
)

// maxComplaint bounds what is kept of QEMU's standard error, in bytes.
const maxComplaint = 16 << 10

// cycle is one power cycle: QEMU runs in it once, and anew after each reset from
// inside that OnReset's function allows.
type cycle struct {
	console *Console
	cancel  context.CancelFunc
	done    chan struct{} // closed when the machine is off; then end and err are set
	end     End
	err     error

	mu      sync.Mutex
	monitor *monitor // of the QEMU that runs
}

// run is one run of QEMU.
type run struct {
	process *Process
	monitor *monitor
	stderr  *complaint
}

// complaint keeps the beginning of what QEMU says on its standard error. It is read
// when QEMU has ended.
type complaint struct{ text []byte }

func (c *complaint) Write(p []byte) (int, error) {
	c.text = append(c.text, p[:min(len(p), maxComplaint-len(c.text))]...)
	return len(p), nil
}

// OnReset says what happens when the guest resets the machine: f is called when
// QEMU has ended, and may write the variable store; it must return when its context
// ends, and must not start or stop the machine. Then the machine goes on in the same
// power cycle, and with the same console; an error of f leaves it off. Without a
// function a reset ends the power cycle. It is for a machine that is off.
func (v *VM) OnReset(f func(context.Context) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.onReset = f
}

// Start switches the machine on. Ending ctx switches it off, as does the end of
// its life. The error says what QEMU complained of when it did not start.
func (v *VM) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, v.options.Life)
	c := &cycle{console: newConsole(v.options.Output), cancel: cancel, done: make(chan struct{})}
	v.mu.Lock()
	if v.isOn() {
		v.mu.Unlock()
		cancel()
		return fmt.Errorf("%s is already on", v.options.Name)
	}
	v.cycle = c
	onReset := v.onReset
	v.mu.Unlock()
	r, err := v.launch(ctx, c)
	if err != nil {
		c.end, c.err = Failed, err
		c.finish()
		return err
	}
	go v.live(ctx, c, r, onReset)
	return nil
}

func (c *cycle) finish() {
	c.cancel()
	c.console.end()
	close(c.done)
}

// live follows a power cycle to its end.
func (v *VM) live(ctx context.Context, c *cycle, r *run, onReset func(context.Context) error) {
	defer c.finish()
	for {
		<-r.process.Done()
		c.end, c.err = v.endOf(ctx, r)
		if c.end != GuestReset || onReset == nil {
			return
		}
		err := onReset(ctx)
		if err == nil {
			r, err = v.launch(ctx, c)
		}
		switch {
		case ctx.Err() != nil:
			c.end = Unplugged
			return
		case err != nil:
			c.end, c.err = Failed, fmt.Errorf("going on after a reset: %w", err)
			return
		}
	}
}

// endOf tells why a run of QEMU has ended.
func (v *VM) endOf(ctx context.Context, r *run) (End, error) {
	switch err := r.process.Err(); {
	case ctx.Err() != nil && err != nil:
		return Unplugged, v.complain(r)
	case err != nil:
		return Failed, v.complain(r)
	case r.monitor.ended == NotEnded:
		return Unplugged, nil
	default:
		return r.monitor.ended, nil
	}
}

// complain is the error of a run that has ended badly.
func (v *VM) complain(r *run) error {
	return fmt.Errorf("running %s: %w: %s", v.platform.emulator, r.process.Err(), bytes.TrimSpace(r.stderr.text))
}

// launch runs QEMU until its guest runs.
func (v *VM) launch(ctx context.Context, c *cycle) (*run, error) {
	args, err := v.arguments()
	if err != nil {
		return nil, err
	}
	cmd := v.command(ctx, args)
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.console.connect(input)
	r := &run{stderr: &complaint{}}
	cmd.Stdout, cmd.Stderr = c.console, r.stderr
	m, theirs, err := attachMonitor(cmd)
	if err != nil {
		return nil, err
	}
	r.monitor = m
	r.process, err = StartProcess(cmd, func() { <-m.finished })
	_ = theirs.Close() // QEMU has its copy
	if err != nil {
		return nil, err
	}
	c.setMonitor(m)
	if err := m.run(ctx, v.options.Unplugged); err != nil {
		r.process.Kill()
		return nil, fmt.Errorf("%w (%w)", v.complain(r), err)
	}
	return r, nil
}

func (c *cycle) setMonitor(m *monitor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.monitor = m
}

func (c *cycle) current() *monitor {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.monitor
}

// isOn wants v.mu.
func (v *VM) isOn() bool {
	if v.cycle == nil {
		return false
	}
	select {
	case <-v.cycle.done:
		return false
	default:
		return true
	}
}

// IsOn tells whether the machine is on; while it resets, it is.
func (v *VM) IsOn() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.isOn()
}

// Ended tells why the last power cycle has ended.
func (v *VM) Ended() End {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cycle == nil || v.isOn() {
		return NotEnded
	}
	return v.cycle.end
}

// Stop pulls the plug, and waits until the machine is off. Stopping a machine that
// is off does nothing.
func (v *VM) Stop() {
	v.mu.Lock()
	c := v.cycle
	v.mu.Unlock()
	if c != nil {
		c.cancel()
		<-c.done
	}
}

// shutdownPatience is how long QEMU may take to press the button.
const shutdownPatience = 10 * time.Second

// Shutdown presses the power button (ACPI), and returns when it was pressed: an
// operating system switches the machine off then; firmware takes no notice. The
// error wraps ErrOff for a machine that is off.
func (v *VM) Shutdown(ctx context.Context) error {
	v.mu.Lock()
	on, c := v.isOn(), v.cycle
	v.mu.Unlock()
	if !on {
		return fmt.Errorf("pressing the power button of %s: %w", v.options.Name, ErrOff)
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownPatience)
	defer cancel()
	if m := c.current(); m != nil { // else QEMU is only starting, and nothing listens
		return m.execute(ctx, "system_powerdown", nil)
	}
	return nil
}

// Off is closed when the current power cycle has ended.
func (v *VM) Off() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cycle == nil {
		off := make(chan struct{})
		close(off)
		return off
	}
	return v.cycle.done
}

// Wait waits until the machine is off. Its error is ctx's, or says what QEMU
// complained of.
func (v *VM) Wait(ctx context.Context) error {
	v.mu.Lock()
	c := v.cycle
	v.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s to switch off: %w", v.options.Name, ctx.Err())
	}
}

// Console returns the console of the last power cycle, nil before the first.
func (v *VM) Console() *Console {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cycle == nil {
		return nil
	}
	return v.cycle.console
}

// Send types text on the console; a shell wants "\r" at the end.
func (v *VM) Send(text string) error {
	if c := v.Console(); c != nil {
		return c.Send(text)
	}
	return fmt.Errorf("%w: %s was never switched on", ErrOff, v.options.Name)
}

// Transcript returns what the console said since the machine was last switched
// on, without escape sequences.
func (v *VM) Transcript() string {
	if c := v.Console(); c != nil {
		return c.Transcript()
	}
	return ""
}
