package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/lab"
)

// greeting is what the demo image says on the console; greetingTimeout is
// generous for a slow host without KVM.
const (
	greeting        = "Hello from a UKI that boot-operator served."
	greetingTimeout = 3 * time.Minute
)

// bootMachine boots the sample's machine in QEMU, shows its console, and what
// the object says of it afterwards.
func (s *site) bootMachine(ctx context.Context) error {
	dir := s.workdir.file("machine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// QEMU's user networking: the guest finds our loopback at its gateway, and
	// comes from 127.0.0.1.
	bootURL := fmt.Sprintf("http://%s:%d/httpboot", lab.UserGateway, s.ports.boot)
	console := &timedLines{out: s.out, started: time.Now()}
	vm, err := lab.NewVM(dir, lab.MachineOptions{Name: sampleName, UUID: machineUUID, Output: console, BootURL: bootURL})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\nswitching a machine on: QEMU and UEFI firmware, no disk, DHCP says %s\n\n", bootURL)
	if err := vm.Start(ctx); err != nil {
		return err
	}
	defer vm.Stop()
	if _, err := vm.Expect(greeting, greetingTimeout); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("the machine did not greet: %w; the last lines of the operator's log:\n%s", err, s.operator.logTail())
	}
	took := time.Since(console.started)
	if err := vm.Wait(ctx); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\nthe machine booted in %.1f s and switched itself off; its object says:\n\n", took.Seconds())
	return s.showFetched(ctx)
}

// showFetched waits until the object tells of the boot, and shows what it tells.
func (s *site) showFetched(ctx context.Context) error {
	return poll(ctx, 10*time.Second, s.operator.failure, func(ctx context.Context) (bool, string) {
		config, err := s.sample(ctx)
		if err != nil {
			return false, err.Error()
		}
		said := describe(config.Status, v1alpha1.ConditionUKIFetched)
		boot := config.Status.Boot
		if boot == nil || !isTrue(config.Status, v1alpha1.ConditionUKIFetched) {
			return false, said
		}
		fmt.Fprintf(s.out, "  %s\n  attempt %d, from %s, proof %s\n\n", said, boot.Attempt, boot.LastClientAddress, boot.Proof)
		return true, ""
	})
}

// timedLines writes each line that a console says with the time since power-on
// before it.
type timedLines struct {
	out     io.Writer
	started time.Time
	rest    []byte // of a line that is not finished
}

// progress is what firmware writes over and over in one line.
var progress = regexp.MustCompile(`( *Downloading\.\.\.\d+%)* *Downloading\.\.\.100%`)

func (t *timedLines) Write(p []byte) (int, error) {
	t.rest = append(t.rest, p...)
	for {
		line, rest, ok := bytes.Cut(t.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		t.rest = rest
		line = progress.ReplaceAll(line, []byte("  Downloading...100%\n"))
		for part := range bytes.Lines(line) {
			if part = bytes.TrimRight(part, " \n"); len(part) > 0 {
				fmt.Fprintf(t.out, "%5.1fs | %s\n", time.Since(t.started).Seconds(), part)
			}
		}
	}
}
