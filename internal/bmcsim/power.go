package bmcsim

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"
)

const (
	// machineTimeout bounds what a machine is asked to do.
	machineTimeout = 2 * time.Minute
	// graceful is how long GracefulRestart waits for the operating system.
	graceful = 5 * time.Minute
)

// resetTypes are the values of ResetType that are taken.
var resetTypes = []string{"On", "ForceOn", "ForceOff", "GracefulShutdown", "GracefulRestart", "ForceRestart", "PowerCycle", "PushPowerButton"}

// resetAction is #ComputerSystem.Reset.
func (b *BMC) resetAction(c *call) reply {
	const action = "ComputerSystem.Reset"
	for name := range c.body {
		if name != "ResetType" {
			return b.refuse(say("ActionParameterUnknown", action, bounded(name, 100)))
		}
	}
	value, given := c.body["ResetType"]
	kind, isText := value.(string)
	switch {
	case !given:
		return b.refuse(say("ActionParameterMissing", action, "ResetType"))
	case !isText:
		return b.refuse(say("ActionParameterValueTypeError", show(value), "ResetType", action))
	case !slices.Contains(resetTypes, kind):
		return b.refuse(say("ActionParameterValueNotInList", bounded(kind, 100), "ResetType", action))
	}
	b.writes.Lock()
	defer b.writes.Unlock()
	if m := b.resetRefusal(kind); m != nil {
		return b.refuse(*m)
	}
	if err := b.reset(kind, false); err != nil {
		return b.fail(err)
	}
	if b.profile.acted == http.StatusOK {
		return b.refuse(say("Success"))
	}
	return reply{status: http.StatusNoContent}
}

// resetRefusal is why a reset cannot be executed now. The lock writes is held.
func (b *BMC) resetRefusal(kind string) *message {
	on := b.machine.IsOn()
	b.mu.Lock()
	defer b.mu.Unlock()
	var m message
	wantsOn := kind == "On" || kind == "ForceOn"
	switch {
	case (wantsOn || kind == "PushPowerButton") && !on && b.options.Now().Before(b.offShown):
		m = say("ResourceInStandby")
	case b.profile.already != nil && kind != "PushPowerButton" && on == wantsOn:
		m = *b.profile.already
	default:
		return nil
	}
	return &m
}

// reset executes a reset. The lock writes is held.
func (b *BMC) reset(kind string, byHand bool) error {
	ctx, cancel := b.boundedContext()
	defer cancel()
	on := b.machine.IsOn()
	if kind == "PushPowerButton" {
		kind = "On"
		if on {
			kind = "GracefulShutdown"
		}
	}
	r := Reset{Type: kind, ByHand: byHand}
	switch kind {
	case "On", "ForceOn":
		if on {
			return nil
		}
		return b.start(ctx, r)
	case "ForceOff":
		return b.stop(r)
	case "GracefulShutdown":
		b.record(r)
		return b.shutdown(ctx)
	case "GracefulRestart":
		return b.restart(ctx, r)
	default:
		if err := b.machine.Off(); err != nil {
			return err
		}
		return b.start(ctx, r)
	}
}

func (b *BMC) record(r Reset) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(r)
}

// start switches the machine on with what the override says.
func (b *BMC) start(ctx context.Context, r Reset) error {
	b.mu.Lock()
	before, repeat, pending := b.override, b.repeat, b.pending
	extra := b.extraBoot
	b.extraBoot = false
	b.mu.Unlock()
	if extra {
		if err := b.boot(ctx, Reset{Type: "BIOSJob", ByHand: r.ByHand, Boots: true}); err != nil {
			return err
		}
		if err := b.machine.Off(); err != nil {
			return err
		}
	}
	b.mu.Lock()
	r.Boots, r.Next = true, b.consume()
	b.mu.Unlock()
	err := b.boot(ctx, r)
	if err != nil {
		b.mu.Lock()
		b.override, b.repeat, b.pending = before, repeat, pending
		b.mu.Unlock()
	}
	return err
}

// boot notes a boot and begins it: whatever the machine's firmware asks of this
// BMC then, it finds the boot begun.
func (b *BMC) boot(ctx context.Context, r Reset) error {
	b.mu.Lock()
	b.note(r)
	b.booted()
	b.mu.Unlock()
	return b.machine.On(ctx, r.Next)
}

// booted is the state just after a boot began. The lock is held.
func (b *BMC) booted() {
	now := b.options.Now()
	b.lastReset = now
	b.offShown = time.Time{}
	b.progress = ""
	b.postUntil = now.Add(b.options.POST)
}

// stop pulls the plug.
func (b *BMC) stop(r Reset) error {
	on := b.machine.IsOn()
	if on {
		b.mu.Lock()
		b.note(r)
		b.offShown = b.options.Now().Add(b.knobs.slowOff)
		b.mu.Unlock()
	}
	if err := b.machine.Off(); err != nil {
		return err
	}
	if on {
		b.vanish()
	}
	return nil
}

// shutdown asks the operating system.
func (b *BMC) shutdown(ctx context.Context) error {
	if !b.machine.IsOn() {
		return nil
	}
	if err := b.machine.Shutdown(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	b.offShown = b.options.Now().Add(b.knobs.slowOff)
	b.mu.Unlock()
	if !b.machine.IsOn() {
		b.vanish()
	}
	return nil
}

// restart asks the operating system to switch off, and switches on again when it
// has. One that does not obey goes on running.
func (b *BMC) restart(ctx context.Context, r Reset) error {
	if !b.machine.IsOn() {
		return b.start(ctx, r)
	}
	if err := b.machine.Shutdown(ctx); err != nil {
		return err
	}
	if !b.machine.IsOn() {
		return b.start(ctx, r)
	}
	go b.startWhenOff(r)
	return nil
}

func (b *BMC) startWhenOff(r Reset) {
	ctx, cancel := context.WithTimeout(b.ctx, graceful)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for b.machine.IsOn() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	b.writes.Lock()
	defer b.writes.Unlock()
	_ = b.start(ctx, r) // nobody waits for it; the power state says it
}

// insideReset is called by the machine when it resets from inside.
func (b *BMC) insideReset() NextBoot {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.consume()
	b.note(Reset{Type: "Inside", Boots: true, Next: next})
	b.booted()
	return next
}

// vanish takes the BMC off the network, where it shares the host's port.
func (b *BMC) vanish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.knobs.shared > 0 {
		b.knobs.awayUntil = b.options.Now().Add(b.knobs.shared)
	}
}

// PressPower presses the power button on the panel, shortly: a machine that is off
// starts, with the override if there is one; one that is on is asked to switch off.
func (b *BMC) PressPower() error { return b.byHand("PushPowerButton") }

// HoldPower holds it for four seconds: the machine is off.
func (b *BMC) HoldPower() error { return b.byHand("ForceOff") }

// PressReset presses the reset button; a machine that is off stays off.
func (b *BMC) PressReset() error {
	if !b.machine.IsOn() {
		return errors.New("pressing reset: the machine is off")
	}
	return b.byHand("ForceRestart")
}

func (b *BMC) byHand(kind string) error {
	b.writes.Lock()
	defer b.writes.Unlock()
	return b.reset(kind, true)
}

// powerState is ComputerSystem.PowerState. The lock is held.
func (b *BMC) powerState() string {
	on := b.machine.IsOn()
	switch {
	case b.knobs.frozen != "":
		return b.knobs.frozen
	case on:
		return "On"
	case b.options.Now().Before(b.offShown):
		return "PoweringOff"
	default:
		return "Off"
	}
}

// inPOST says whether the machine is in POST. The lock is held.
func (b *BMC) inPOST() bool {
	now := b.options.Now()
	return now.Before(b.knobs.postUntil) || (now.Before(b.postUntil) && b.machine.IsOn())
}

// bootProgress is ComputerSystem.BootProgress. The lock is held.
func (b *BMC) bootProgress() object {
	state := b.progress
	switch {
	case !b.machine.IsOn():
		state = "None"
	case state != "":
	case b.inPOST():
		state = "SystemHardwareInitializationComplete"
	default:
		state = "OSBootStarted"
	}
	return object{"LastState": state, "LastStateTime": stamp(b.lastReset)}
}

// Progress says how far the machine is: a BootProgressTypes value such as
// OSRunning, shown until the next boot.
func (b *BMC) Progress(state string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress = state
}
