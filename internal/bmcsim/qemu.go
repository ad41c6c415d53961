package bmcsim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// QEMU is a Machine of QEMU with UEFI firmware. What it is to boot next is written
// into the firmware's variable store, as BootNext or OsIndications, so that real
// firmware consumes it: at its next start and whatever comes of it. It has a boot
// entry for HTTP and one for PXE on each NIC, and one for its disk.
type QEMU struct {
	vm  *qemu.VM
	ctx context.Context // of all its power cycles

	mu      sync.Mutex
	onReset func() NextBoot
	pending []qemu.Target // a boot order that waits until the store may be written
	keys    *newKeys      // what waits likewise; nil: nothing
}

// newKeys are what firmware is to trust at its next start.
type newKeys struct {
	enable bool
	keys   qemu.Keys
}

// NewQEMU makes a Machine of one that is off, and appends what its boot order does
// not have yet. Ending ctx switches the machine off, as does each time the end of
// its MachineOptions.Life. A machine with a BIOS or with iPXE in its ROM is refused.
func NewQEMU(ctx context.Context, vm *qemu.VM) (*QEMU, error) {
	if boot := vm.Options().Boot; boot == qemu.BIOS || boot == qemu.UEFIIPXE {
		return nil, fmt.Errorf("%s boots by %q: a BMC can tell only firmware that boots by UEFI HTTP or UEFI PXE what to boot next", vm.Name(), boot)
	}
	q := &QEMU{vm: vm, ctx: ctx}
	if err := q.completeOrder(); err != nil {
		return nil, fmt.Errorf("completing the boot order of %s: %w", vm.Name(), err)
	}
	vm.OnReset(q.reset)
	return q, nil
}

// completeOrder appends the targets that have no boot entry yet; one that was left
// out of the order has.
func (q *QEMU) completeOrder() error {
	store, err := q.vm.VarStore()
	if err != nil {
		return err
	}
	order, err := q.vm.BootOrder()
	if err != nil {
		return err
	}
	for _, t := range q.targets() {
		_, err := store.Entry(t.Number())
		switch {
		case errors.Is(err, qemu.ErrNoVariable):
			order = append(order, t)
		case err != nil:
			return err
		}
	}
	return q.vm.SetBootOrder(order...)
}

// targets are all that the machine can boot.
func (q *QEMU) targets() []qemu.Target {
	var http, pxe []qemu.Target
	for i := range q.vm.MACs() {
		http = append(http, qemu.Target{Kind: qemu.HTTP, NIC: i})
		pxe = append(pxe, qemu.Target{Kind: qemu.PXE, NIC: i})
	}
	all := slices.Concat(http, pxe)
	if q.vm.Options().NextBoot != nil {
		all = append(all, qemu.Target{Kind: qemu.Disk})
	}
	return all
}

// On implements Machine.
func (q *QEMU) On(ctx context.Context, next NextBoot) error {
	if q.vm.IsOn() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.prepare(next); err != nil {
		return err
	}
	return q.vm.Start(q.ctx)
}

// reset is for a machine that its guest has reset: the BMC says what comes next.
// The BMC may be busy switching the machine off, which ends ctx: then its answer is
// not waited for.
func (q *QEMU) reset(ctx context.Context) error {
	q.mu.Lock()
	ask := q.onReset
	q.mu.Unlock()
	if ask == nil {
		return q.prepare(NextBoot{})
	}
	answer := make(chan NextBoot, 1)
	go func() { answer <- ask() }()
	select {
	case next := <-answer:
		return q.prepare(next)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepare writes the variable store of a machine that is about to start.
func (q *QEMU) prepare(next NextBoot) error {
	if err := q.writePending(); err != nil {
		return err
	}
	if next.Kind == KindDefault {
		return q.vm.ClearBootNext()
	}
	target, err := q.target(next)
	if err != nil {
		return fmt.Errorf("booting %s from %q: %w", q.vm.Name(), next.Kind, err)
	}
	if err := q.vm.ClearBootNext(); err != nil {
		return err
	}
	return q.vm.SetBootNext(target)
}

// target translates what a BMC says.
func (q *QEMU) target(next NextBoot) (qemu.Target, error) {
	switch next.Kind {
	case KindDisk:
		return qemu.Target{Kind: qemu.Disk}, nil
	case KindSetup:
		return qemu.Target{Kind: qemu.Setup}, nil
	case KindHTTP:
		nic, err := q.nic(next.MAC)
		return qemu.Target{Kind: qemu.HTTP, NIC: nic, URL: next.URL}, err
	case KindPXE:
		nic, err := q.nic(next.MAC)
		return qemu.Target{Kind: qemu.PXE, NIC: nic}, err
	default:
		return qemu.Target{}, errors.New("it has no such device")
	}
}

// nic is the NIC with this MAC or, for any, the first that has a cable.
func (q *QEMU) nic(mac string) (int, error) {
	if mac == "" {
		unplugged := q.vm.Options().Unplugged
		for i := range q.vm.MACs() {
			if !slices.Contains(unplugged, i) {
				return i, nil
			}
		}
		return 0, errors.New("none of its NICs has a cable")
	}
	wanted, err := net.ParseMAC(mac)
	if err != nil {
		return 0, err
	}
	for i, has := range q.vm.MACs() {
		if address, err := net.ParseMAC(has); err == nil && slices.Equal(address, wanted) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("it has no NIC with the MAC %s", wanted)
}

// Off implements Machine.
func (q *QEMU) Off() error {
	q.vm.Stop()
	return q.writePending()
}

// Shutdown implements Machine.
func (q *QEMU) Shutdown(ctx context.Context) error {
	if err := q.vm.Shutdown(ctx); err != nil && q.vm.IsOn() {
		return err
	}
	return nil
}

// IsOn implements Machine.
func (q *QEMU) IsOn() bool { return q.vm.IsOn() }

// OnReset implements Machine.
func (q *QEMU) OnReset(next func() NextBoot) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.onReset = next
}

// BootOrder implements Machine. An order that was written while the machine is on
// is shown at once, and in force at its next start.
func (q *QEMU) BootOrder() []BootOption {
	var options []BootOption
	for _, t := range q.order() {
		options = append(options, q.option(t))
	}
	return options
}

// order is nil where the variable store cannot be read.
func (q *QEMU) order() []qemu.Target {
	q.mu.Lock()
	pending := q.pending
	q.mu.Unlock()
	if pending != nil {
		return pending
	}
	order, err := q.vm.BootOrder()
	if err != nil {
		return nil
	}
	return order
}

func (q *QEMU) option(t qemu.Target) BootOption {
	o := BootOption{Reference: t.Reference(), Name: t.String(), URL: t.URL}
	switch t.Kind {
	case qemu.HTTP:
		o.Kind = KindHTTP
	case qemu.PXE:
		o.Kind = KindPXE
	default:
		o.Kind = KindDisk
		return o
	}
	o.MAC = q.vm.MACs()[t.NIC]
	if address, err := net.ParseMAC(o.MAC); err == nil {
		o.MAC = address.String()
	}
	o.DevicePath = q.vm.PathText(t)
	return o
}

// SetBootOrder implements Machine.
func (q *QEMU) SetBootOrder(references []string) error {
	known := slices.Concat(q.order(), q.targets())
	order := make([]qemu.Target, 0, len(references))
	for _, r := range references {
		i := slices.IndexFunc(known, func(t qemu.Target) bool { return t.Reference() == r })
		if i < 0 {
			return fmt.Errorf("ordering the boot entries of %s: there is no %q", q.vm.Name(), r)
		}
		if slices.Contains(order, known[i]) {
			return fmt.Errorf("ordering the boot entries of %s: %s is there twice", q.vm.Name(), r)
		}
		order = append(order, known[i])
	}
	q.mu.Lock()
	q.pending = order
	q.mu.Unlock()
	if q.vm.IsOn() {
		return nil
	}
	return q.writePending()
}

// writePending writes a boot order and keys that wait; the machine does not run.
func (q *QEMU) writePending() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending != nil {
		if err := q.vm.SetBootOrder(q.pending...); err != nil {
			return fmt.Errorf("writing the boot order of %s: %w", q.vm.Name(), err)
		}
		q.pending = nil
	}
	if q.keys != nil {
		if err := q.vm.SetKeys(q.keys.keys, q.keys.enable); err != nil {
			return fmt.Errorf("writing the keys of %s: %w", q.vm.Name(), err)
		}
		q.keys = nil
	}
	return nil
}

// HasSecureBoot implements SecureBooter.
func (q *QEMU) HasSecureBoot() bool { return q.vm.Options().SecureBoot != nil }

// SecureBoot implements SecureBooter. Keys that were written while the machine is on
// are shown at once, and in force at its next start; that Secure Boot is on is what
// the firmware itself has written into its variable store as it started.
func (q *QEMU) SecureBoot() (SecureBoot, error) {
	store, err := q.vm.VarStore()
	if err != nil {
		return SecureBoot{}, err
	}
	s := SecureBoot{Current: store.SecureBootEnabled()}
	q.mu.Lock()
	pending := q.keys
	q.mu.Unlock()
	if pending != nil {
		s.Enable, s.Keys = pending.enable, maps.Clone(pending.keys)
		return s, nil
	}
	if s.Keys, err = store.Keys(); err != nil {
		return s, err
	}
	s.Enable = len(s.Keys[qemu.PK]) > 0 && !store.SecureBootSwitchedOff()
	return s, nil
}

// SetSecureBoot implements SecureBooter.
func (q *QEMU) SetSecureBoot(enable bool, keys qemu.Keys) error {
	q.mu.Lock()
	q.keys = &newKeys{enable, maps.Clone(keys)}
	q.mu.Unlock()
	if q.vm.IsOn() {
		return nil
	}
	return q.writePending()
}

// DefaultKeys implements SecureBooter.
func (q *QEMU) DefaultKeys() qemu.Keys {
	keys, err := q.vm.Options().SecureBoot.Keys()
	if err != nil {
		return nil // a machine with such options was not made
	}
	return keys
}
