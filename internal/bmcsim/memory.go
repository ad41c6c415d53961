package bmcsim

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// MemoryMachine is a Machine that has a power state and a boot order and nothing
// else. It is safe for concurrent use.
type MemoryMachine struct {
	boots func(NextBoot)

	mu      sync.Mutex
	on      bool
	deaf    bool
	onReset func() NextBoot
	options []BootOption // all there are
	order   []BootOption // those that are tried
	last    NextBoot
	count   int
}

// NewMemoryMachine returns a machine that is off. Boots, which may be nil, is
// called at each power-on and reset, after it, with what the firmware tries first:
// a test plays the firmware there. It must not wait for the BMC. Without options
// the machine has no boot order.
func NewMemoryMachine(boots func(NextBoot), options ...BootOption) *MemoryMachine {
	return &MemoryMachine{boots: boots, options: slices.Clone(options), order: slices.Clone(options)}
}

// On implements Machine.
func (m *MemoryMachine) On(ctx context.Context, next NextBoot) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	if m.on {
		m.mu.Unlock()
		return nil
	}
	m.on = true
	m.started(next)
	m.mu.Unlock()
	m.boot(next)
	return nil
}

// started notes a boot. The lock is held.
func (m *MemoryMachine) started(next NextBoot) {
	m.last = next
	m.count++
}

func (m *MemoryMachine) boot(next NextBoot) {
	if m.boots != nil {
		m.boots(next)
	}
}

// Off implements Machine.
func (m *MemoryMachine) Off() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on = false
	return nil
}

// Shutdown implements Machine: its operating system obeys at once, or never.
func (m *MemoryMachine) Shutdown(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.deaf {
		m.on = false
	}
	return nil
}

// IgnoreShutdown says whether the operating system ignores Shutdown, as one that
// hangs does.
func (m *MemoryMachine) IgnoreShutdown(deaf bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = deaf
}

// IsOn implements Machine.
func (m *MemoryMachine) IsOn() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on
}

// OnReset implements Machine.
func (m *MemoryMachine) OnReset(next func() NextBoot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onReset = next
}

// Reboot resets the machine from inside, as its operating system does. A machine
// that is off stays off.
func (m *MemoryMachine) Reboot() {
	m.mu.Lock()
	if !m.on {
		m.mu.Unlock()
		return
	}
	ask := m.onReset
	m.mu.Unlock()
	var next NextBoot
	if ask != nil {
		next = ask()
	}
	m.mu.Lock()
	m.started(next)
	m.mu.Unlock()
	m.boot(next)
}

// Boots is how often the machine was switched on or reset, and what it was told
// to try first the last time.
func (m *MemoryMachine) Boots() (int, NextBoot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count, m.last
}

// BootOrder implements Machine.
func (m *MemoryMachine) BootOrder() []BootOption {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.order)
}

// SetBootOrder implements Machine.
func (m *MemoryMachine) SetBootOrder(references []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.options) == 0 {
		return ErrNoBootOrder
	}
	order := make([]BootOption, 0, len(references))
	for _, r := range references {
		i := slices.IndexFunc(m.options, func(o BootOption) bool { return o.Reference == r })
		if i < 0 {
			return fmt.Errorf("ordering boot options: there is no %q", r)
		}
		order = append(order, m.options[i])
	}
	m.order = order
	return nil
}
