package lab

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// What a machine is made of; see internal/qemu.
type (
	// MachineOptions describe a machine; the zero value is an amd64 one on user
	// networking. NextBoot may be demoimage.Greeting, or demoimage.BootSector for a
	// BIOS.
	MachineOptions = qemu.MachineOptions
	// Boot is how a machine boots from the network.
	Boot = qemu.Boot
	// VarStore is the content of a firmware's variable store.
	VarStore = qemu.VarStore
)

// The ways to boot.
const (
	UEFIHTTP   = qemu.UEFIHTTP
	UEFIHTTPv6 = qemu.UEFIHTTPv6
	UEFIPXE    = qemu.UEFIPXE
	UEFIIPXE   = qemu.UEFIIPXE
	BIOS       = qemu.BIOS
)

// UserGateway is where a machine on user networking finds this host's loopback.
const UserGateway = qemu.UserGateway

// VM is a machine for programs, with a console that is driven by go-expect; tests
// take a Machine.
type VM struct {
	*qemu.VM

	mu      sync.Mutex
	console *qemu.Console // that reading is of
	reading *reading
}

// NewVM makes a machine whose files (variable store, disk) are in dir; a
// variable store that is already there is kept. Its error wraps fs.ErrNotExist
// when firmware is not installed.
func NewVM(dir string, options MachineOptions) (*VM, error) {
	v, err := qemu.NewVM(dir, options)
	if err != nil {
		return nil, err
	}
	return &VM{VM: v}, nil
}

// Stop pulls the plug. Stopping a machine that is off does nothing; what it said
// remains in its transcript.
func (v *VM) Stop() {
	v.VM.Stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.reading != nil {
		v.reading.close()
	}
}

// Expect reads the console on from where the last Expect ended, until it says
// text, and returns what it read. The error wraps ErrNotSaid or ErrOff. A reset
// from inside that the machine comes back from is no end of its console.
func (v *VM) Expect(text string, timeout time.Duration) (string, error) {
	return v.expect(matchText(text), timeout)
}

// ExpectLine is Expect for a whole line that pattern matches; it returns the
// line's submatches as regexp.FindStringSubmatch does.
func (v *VM) ExpectLine(pattern *regexp.Regexp, timeout time.Duration) ([]string, error) {
	read, err := v.expect(matchLine(pattern), timeout)
	if err != nil {
		return nil, err
	}
	return pattern.FindStringSubmatch(string(lastLine([]byte(read)))), nil
}

func (v *VM) expect(m *matcher, timeout time.Duration) (string, error) {
	r, err := v.current()
	if err != nil {
		return "", err
	}
	read, err := r.wait(m, timeout)
	if errors.Is(err, ErrOff) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if complaint := v.Wait(ctx); complaint != nil {
			err = fmt.Errorf("%w (%w)", err, complaint)
		}
	}
	return read, err
}

// current returns the reading of the current power cycle.
func (v *VM) current() (*reading, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	console := v.Console()
	switch {
	case console == nil:
		return nil, fmt.Errorf("%w: %s was never switched on", ErrOff, v.Name())
	case console == v.console:
		return v.reading, nil
	case v.reading != nil:
		v.reading.close()
	}
	r, err := newReading(console.Reader())
	if err != nil {
		return nil, err
	}
	v.console, v.reading = console, r
	return r, nil
}
