package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/boot-operator/boot-operator/test/fleet"
)

// fleetMachines is how many machines boot at once, each every fifteen seconds.
const fleetMachines = 300

// fleetPhase is how long each phase of the figure takes, at least.
const fleetPhase = 30 * time.Second

// rollout measures 300 machines that boot again and again from real replicas beside a
// real API server: from one replica to which nothing is done, which is the reference,
// then from three, also while each of them is drained and started again.
func rollout(ctx context.Context, binary, dir string) error {
	ctrllog.SetLogger(logr.Discard()) // envtest has something to say to nobody
	f, err := fleet.New(ctx, fleet.Options{Dir: dir, Binary: binary, Machines: fleetMachines, Flags: []string{"--drain-delay=2s", "--drain-timeout=20s"}})
	if err != nil {
		return fmt.Errorf("building a fleet: %w", err)
	}
	defer f.Close()
	if err := f.Up(ctx, f.Replicas[0]); err != nil {
		return err
	}
	if err := f.AwaitConfigs(ctx); err != nil {
		return err
	}
	load := f.Begin(ctx, "warm-up")
	sleep(ctx, fleetPhase)
	one, err := phaseOf(ctx, f, load, "1-replica", func() error { sleep(ctx, fleetPhase); return nil })
	if err != nil {
		return err
	}
	load.Phase("growing", 1)
	if err := f.Up(ctx, f.Replicas...); err != nil {
		return err
	}
	sleep(ctx, fleetPhase/2) // every machine has found its replica
	for _, p := range []struct {
		name string
		do   func() error
	}{
		{"3-replicas", func() error { sleep(ctx, fleetPhase); return nil }},
		{"3-replicas-rolling-drain", func() error { return drainEach(ctx, f) }},
	} {
		got, err := phaseOf(ctx, f, load, p.name, p.do)
		if err != nil {
			return err
		}
		ratio(fmt.Sprintf("fleet-%d-%s-boots-vs-1-replica", fleetMachines, p.name), got.PerSecond()/one.PerSecond(), ">=0.90")
	}
	load.End()
	return nil
}

// drainEach ends each replica as Kubernetes does, and starts it again.
func drainEach(ctx context.Context, f *fleet.Fleet) error {
	for _, r := range f.Replicas {
		if _, err := r.Drain(ctx); err != nil {
			return err
		}
		if err := f.Up(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// phaseOf prints what a phase took of replicas and API server, and how many boots
// failed in it.
func phaseOf(ctx context.Context, f *fleet.Fleet, load *fleet.Load, name string, do func() error) (fleet.Tally, error) {
	before, err := expensesOf(f)
	if err != nil {
		return fleet.Tally{}, err
	}
	p := load.Phase(name, 0)
	if err := do(); err != nil {
		return fleet.Tally{}, err
	}
	after, err := expensesOf(f)
	if err != nil {
		return fleet.Tally{}, err
	}
	t := load.Tally(p)
	if ctx.Err() != nil || t.Booted == 0 {
		return t, fmt.Errorf("no machine booted in phase %s: %w", name, ctx.Err())
	}
	name = fmt.Sprintf("fleet-%d-%s", fleetMachines, name)
	ratio(name+"-failed-boots", float64(len(t.Failed)), "=0")
	for _, failed := range t.Failed {
		fmt.Println("  ", failed)
	}
	boots := float64(t.Booted)
	figure(name+"-boots-per-second", t.PerSecond())
	figure(name+"-cpu-ms-per-boot", (after.cpu-before.cpu)*1000/boots)
	figure(name+"-cores-of-all-replicas", (after.cpu-before.cpu)/t.Duration.Seconds())
	figure(name+"-peak-MiB-of-the-largest-replica", after.peak)
	writes, events, reads := requestsOf(t)
	figure(name+"-api-writes-per-boot", writes/boots)
	figure(name+"-api-events-per-boot", events/boots)
	figure(name+"-api-reads-per-boot", reads/boots)
	return t, nil
}

// figure prints something that has no goal: it is for sizing.
func figure(name string, value float64) { fmt.Printf("FIGURE %s %.2f\n", name, value) }

// requestsOf sums up what was asked of the API server in a phase; Leases and watches
// do not depend on boots.
func requestsOf(t fleet.Tally) (writes, events, reads float64) {
	for kind, n := range t.Requests {
		verb, resource, _ := strings.Cut(kind, " ")
		switch {
		case resource == "leases", verb == "WATCH":
		case resource == "events":
			events += float64(n)
		case verb == "GET":
			reads += float64(n)
		default:
			writes += float64(n)
		}
	}
	return writes, events, reads
}

// expenses are what replicas took so far: CPU seconds, and memory in MiB.
type expenses struct{ cpu, peak float64 }

func expensesOf(f *fleet.Fleet) (u expenses, err error) {
	for _, r := range f.Replicas {
		if !r.Running() {
			continue
		}
		cpu, err := r.CPU()
		if err != nil {
			return u, err
		}
		peak, err := r.Peak()
		if err != nil {
			return u, err
		}
		u.cpu, u.peak = u.cpu+cpu.Seconds(), max(u.peak, peak)
	}
	return u, nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
