package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// VM is a machine. It is off at first.
type VM struct {
	options  MachineOptions
	platform platform
	firmware firmware
	dir      string

	mu      sync.Mutex
	cycle   *cycle // the last one, nil before the first
	onReset func(context.Context) error
}

// NewVM makes a machine whose files (variable store, disk) are in dir; a
// variable store that is already there is kept. Its error wraps fs.ErrNotExist
// when firmware is not installed.
func NewVM(dir string, options MachineOptions) (*VM, error) {
	options.complete()
	p, err := platformOf(options.Arch)
	if err != nil {
		return nil, err
	}
	if err := options.check(); err != nil {
		return nil, fmt.Errorf("reading the options of %s: %w", options.Name, err)
	}
	v := &VM{options: options, platform: p, dir: dir}
	if options.Boot != BIOS {
		if v.firmware, err = p.find(options.SecureBoot != nil); err != nil {
			return nil, err
		}
	}
	if options.MemoryMiB == 0 {
		v.options.MemoryMiB = p.memory
	}
	return v, v.writeFiles()
}

func (v *VM) writeFiles() error {
	if v.options.Boot == BIOS {
		if v.options.NextBoot == nil {
			return nil
		}
		return os.WriteFile(v.diskPath(), v.options.NextBoot, 0o600)
	}
	if _, err := os.Stat(v.varsPath()); errors.Is(err, fs.ErrNotExist) {
		template, err := os.ReadFile(v.firmware.vars)
		if err == nil {
			err = v.writeVars(template)
		}
		if err != nil {
			return fmt.Errorf("making a variable store: %w", err)
		}
	}
	if v.options.HTTPSCA != nil {
		list, err := SignatureList(v.options.HTTPSCA)
		if err != nil {
			return err
		}
		if err := os.WriteFile(v.caPath(), list, 0o600); err != nil {
			return err
		}
	}
	if v.options.NextBoot == nil {
		return nil
	}
	boot := filepath.Join(v.diskPath(), "EFI", "BOOT")
	if err := os.MkdirAll(boot, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(boot, v.platform.bootFile), v.options.NextBoot, 0o600)
}

func (v *VM) macs() []string { return append([]string{v.options.MAC}, v.options.MoreMACs...) }

func (v *VM) varsPath() string { return filepath.Join(v.dir, v.options.Name+"-vars.fd") }

func (v *VM) caPath() string { return filepath.Join(v.dir, v.options.Name+"-ca.esl") }

func (v *VM) diskPath() string { return filepath.Join(v.dir, v.options.Name+"-disk") }

// Name returns the machine's name.
func (v *VM) Name() string { return v.options.Name }

// UUID returns the machine's SMBIOS UUID, in the order that Linux shows.
func (v *VM) UUID() string { return v.options.UUID }

// MAC returns the address of the machine's first NIC.
func (v *VM) MAC() string { return v.options.MAC }

// MACs returns the addresses of all NICs, in their order.
func (v *VM) MACs() []string { return v.macs() }

// Options returns the machine's options, with defaults filled in.
func (v *VM) Options() MachineOptions { return v.options }
