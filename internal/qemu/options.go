package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"sync/atomic"
	"time"
)

// UserGateway is where a machine on user networking finds this host's loopback.
const UserGateway = "10.0.2.2"

const defaultLife = 10 * time.Minute

// Network is a LAN that NICs are plugged into, other than QEMU's user networking.
type Network interface {
	// CommandContext returns a command that runs where the network's devices are.
	// It passes on the files that it is given, and is killed when ctx ends.
	CommandContext(ctx context.Context, name string, args ...string) *exec.Cmd
	// Tap returns the name of the tap device for NIC i of a machine, the same one
	// each time.
	Tap(machine string, i int) (string, error)
}

// MachineOptions describe a machine; the zero value is an amd64 one on user
// networking.
type MachineOptions struct {
	// Name is used in messages and file names; by default machine-<n>.
	Name string
	// Arch is amd64 (the default) or arm64.
	Arch string
	// UUID is the SMBIOS UUID. The default is 00112233-4455-6677-8899-aabbccddxxxx,
	// different for each machine: it changes when its bytes are swapped.
	UUID string
	// MAC is the first NIC's address, by default a different one for each machine.
	MAC string
	// MoreMACs are the addresses of further NICs on the same network, at most 7.
	MoreMACs []string
	// MemoryMiB is 1024 by default.
	MemoryMiB int
	// Unplugged are the NICs without a cable, the first one being 0: UEFI firmware
	// and the OS see that there is no link. Debian's iPXE of 2019 does not, and
	// gives each of them some 10 s for DHCP.
	Unplugged []int
	// Boot is how the firmware boots from the network, by default UEFIHTTP.
	Boot Boot
	// Network is where the machine's NICs are; nil is QEMU's user networking,
	// which needs no privilege.
	Network Network
	// BootURL is what user networking's DHCP server offers; as that one can offer
	// only http://, an https:// URL becomes part of the boot entry. On a Network
	// it is that network's DHCP server that says what to boot.
	BootURL string
	// HTTPSCA is a PEM bundle of the CAs that the firmware trusts for HTTPS.
	HTTPSCA []byte
	// SecureBoot is firmware with UEFI Secure Boot, and its keys at first; nil is
	// firmware that knows nothing of it.
	SecureBoot *SecureBoot
	// NextBoot is an EFI application on a disk, which the firmware tries after
	// the network. For a BIOS it is the disk itself, a boot sector.
	NextBoot []byte
	// DiskFirst makes the firmware try NextBoot before the network, as on an
	// installed machine, which boots from the network only by BootNext.
	DiskFirst bool
	// Output gets a copy of the console as it comes, without escape sequences.
	Output io.Writer
	// Life is after how long a power cycle is ended, resets from inside included;
	// by default 10 minutes.
	Life time.Duration
	// ExtraArgs are passed on to QEMU.
	ExtraArgs []string
}

var machineCount atomic.Uint32

func (o *MachineOptions) complete() {
	n := machineCount.Add(1)
	if o.Name == "" {
		o.Name = fmt.Sprintf("machine-%d", n)
	}
	if o.Arch == "" {
		o.Arch = "amd64"
	}
	if o.UUID == "" {
		o.UUID = fmt.Sprintf("00112233-4455-6677-8899-aabbccdd%04x", n&0xffff)
	}
	if o.MAC == "" {
		o.MAC = fmt.Sprintf("52:54:00:77:%02x:%02x", n>>8&0xff, n&0xff)
	}
	if o.Life == 0 {
		o.Life = defaultLife
	}
}

// check tells what of the options no machine can do.
func (o *MachineOptions) check() error {
	if !slices.Contains(boots, o.Boot) {
		return fmt.Errorf("no such way to boot: %q", o.Boot)
	}
	if o.Boot == BIOS && o.Arch != "amd64" {
		return fmt.Errorf("a BIOS is for amd64 only, not %s", o.Arch)
	}
	if o.Boot == BIOS && o.HTTPSCA != nil {
		return errors.New("a BIOS knows no CAs")
	}
	if o.Boot == BIOS && o.SecureBoot != nil {
		return errors.New("a BIOS has no Secure Boot")
	}
	if len(o.MoreMACs) >= maxNICs {
		return fmt.Errorf("a machine has at most %d NICs, not %d", maxNICs, 1+len(o.MoreMACs))
	}
	for _, i := range o.Unplugged {
		if i < 0 || i > len(o.MoreMACs) {
			return fmt.Errorf("no NIC %d to unplug: the machine has %d", i, 1+len(o.MoreMACs))
		}
	}
	return nil
}
