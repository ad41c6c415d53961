package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// UserGateway is where a machine on user networking finds this host's loopback.
const UserGateway = "10.0.2.2"

const defaultLife = 10 * time.Minute

// PCI slots and boot entries of a machine's devices.
const (
	nicSlot  = 0x10
	diskSlot = 0x18

	diskEntry = 0x00D0
	nicEntry  = 0x00E0
)

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
	Network *Network
	// BootURL is what user networking's DHCP server offers; as that one can offer
	// only http://, an https:// URL becomes part of the boot entry. On a Network
	// it is DHCPOptions that say what to boot.
	BootURL string
	// HTTPSCA is a PEM bundle of the CAs that the firmware trusts for HTTPS.
	HTTPSCA []byte
	// NextBoot is an EFI application on a disk, which the firmware tries after
	// the network; see demoimage.Greeting. For a BIOS it is the disk itself; see
	// demoimage.BootSector.
	NextBoot []byte
	// DiskFirst makes the firmware try NextBoot before the network, as on an
	// installed machine, which boots from the network only by BootNext.
	DiskFirst bool
	// Output gets a copy of the console as it comes, without escape sequences.
	Output io.Writer
	// Life is after how long a power cycle is ended, by default 10 minutes.
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

// VM is a machine for programs; tests take a Machine. It is off at first.
type VM struct {
	options  MachineOptions
	platform platform
	firmware firmware
	dir      string

	mu      sync.Mutex
	process *process // of the last power cycle, nil before the first
	console *console
	stderr  bytes.Buffer // QEMU's, complete when the process has ended
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
		if v.firmware, err = p.find(); err != nil {
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

// nicPath is how the firmware names NIC i with IPv4.
func (v *VM) nicPath(i int) (DevicePath, error) {
	mac, err := net.ParseMAC(v.macs()[i])
	if err != nil {
		return nil, fmt.Errorf("reading the MAC of NIC %d: %w", i, err)
	}
	return NICPath(byte(nicSlot+i), mac), nil
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

// Start switches the machine on. Ending ctx switches it off.
func (v *VM) Start(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.process != nil {
		select {
		case <-v.process.done:
			v.console.close()
		default:
			return fmt.Errorf("%s is already on", v.options.Name)
		}
	}
	args, err := v.arguments()
	if err != nil {
		return err
	}
	cmd := v.command(ctx, args)
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	// A pipe of our own: exec.Cmd's closes when the process ends, before all of
	// its output was read.
	output, writer := io.Pipe()
	v.stderr.Reset()
	cmd.Stdout, cmd.Stderr = writer, &v.stderr
	c, err := newConsole(output, input, v.options.Output)
	if err != nil {
		return err
	}
	p, err := v.startProcess(cmd, func() {
		_ = writer.Close()
		<-c.finished
	})
	if err != nil {
		_ = writer.Close()
		c.close()
		return err
	}
	v.process, v.console = p, c
	return nil
}

func (v *VM) startProcess(cmd *exec.Cmd, ended func()) (*process, error) {
	if len(v.options.Unplugged) == 0 {
		return startProcess(cmd, v.options.Life, ended)
	}
	ours, theirs, err := v.monitor(cmd)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p, err := startProcess(cmd, v.options.Life, func() {
		_ = ours.Close()
		ended()
	})
	if err != nil {
		_ = ours.Close()
	}
	return p, err
}

func (v *VM) command(ctx context.Context, args []string) *exec.Cmd {
	if v.options.Network != nil {
		return v.options.Network.command(ctx, v.platform.emulator, args...)
	}
	return exec.CommandContext(ctx, v.platform.emulator, args...)
}

// arguments are QEMU's.
func (v *VM) arguments() ([]string, error) {
	args := append([]string{}, v.platform.machine...)
	args = append(args,
		"-name", v.options.Name, "-uuid", v.options.UUID, "-m", strconv.Itoa(v.options.MemoryMiB),
		"-display", "none", "-nodefaults", "-no-user-config", "-no-reboot",
		"-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial",
		"-device", "virtio-rng-pci")
	args = append(args, v.firmwareArguments()...)
	for i, mac := range v.macs() {
		nic, err := v.nic(i, mac)
		if err != nil {
			return nil, err
		}
		args = append(args, nic...)
	}
	args = append(args, v.diskArguments()...)
	args = append(args, v.monitorArguments()...)
	return append(args, v.options.ExtraArgs...), nil
}

// nic is QEMU's arguments for NIC i; romfile= switches its iPXE off, so that the
// firmware's own network stack boots.
func (v *VM) nic(i int, mac string) ([]string, error) {
	backend := fmt.Sprintf("user,id=nic%d", i)
	if v.options.BootURL != v.entryURL() {
		backend += ",bootfile=" + v.options.BootURL
	}
	if v.options.Network != nil {
		tap, err := v.options.Network.tap(v.options.Name, i)
		if err != nil {
			return nil, err
		}
		backend = fmt.Sprintf("tap,id=nic%d,ifname=%s,script=no,downscript=no", i, tap)
	}
	rom := ",romfile="
	if v.options.Boot.ipxeROM() {
		rom = ""
	}
	device := fmt.Sprintf("virtio-net-pci,netdev=nic%d,mac=%s,addr=%#x%s%s", i, mac, nicSlot+i, rom, v.bootIndex(1+i))
	return []string{"-netdev", backend, "-device", device}, nil
}

// Stop pulls the plug. Stopping a machine that is off does nothing.
func (v *VM) Stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.process != nil {
		v.process.kill()
		v.console.close()
	}
}

// Off is closed when the current power cycle has ended.
func (v *VM) Off() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.process == nil {
		off := make(chan struct{})
		close(off)
		return off
	}
	return v.process.done
}

// Wait waits until the machine is off. Its error is ctx's, or says what QEMU
// complained of.
func (v *VM) Wait(ctx context.Context) error {
	select {
	case <-v.Off():
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s to switch off: %w", v.options.Name, ctx.Err())
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.process != nil && v.process.err != nil {
		return fmt.Errorf("running %s: %w: %s", v.platform.emulator, v.process.err, bytes.TrimSpace(v.stderr.Bytes()))
	}
	return nil
}

// Expect reads the console on from where the last Expect ended, until it says
// text, and returns what it read. The error wraps ErrNotSaid or ErrOff.
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
	c := v.current()
	if c == nil {
		return "", fmt.Errorf("%w: %s was never switched on", ErrOff, v.options.Name)
	}
	read, err := c.wait(m, timeout)
	if errors.Is(err, ErrOff) {
		select { // QEMU may have refused to start at all
		case <-v.Off():
			v.mu.Lock()
			defer v.mu.Unlock()
			if said := bytes.TrimSpace(v.stderr.Bytes()); len(said) > 0 {
				err = fmt.Errorf("%w (QEMU: %s)", err, said)
			}
		default:
		}
	}
	return read, err
}

// Send types text on the console; a shell wants "\r" at the end.
func (v *VM) Send(text string) error {
	if c := v.current(); c != nil {
		return c.send(text)
	}
	return fmt.Errorf("%w: %s was never switched on", ErrOff, v.options.Name)
}

// Transcript returns what the console said since the machine was last switched
// on, without escape sequences.
func (v *VM) Transcript() string {
	if c := v.current(); c != nil {
		return c.transcript()
	}
	return ""
}

func (v *VM) current() *console {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.console
}

// SetBootNext makes the next start boot url, once, over IPv4 on the first NIC, as
// a BMC's override does. The machine must be off.
func (v *VM) SetBootNext(url string) error {
	s, err := v.VarStore()
	if err != nil {
		return err
	}
	nic, err := v.nicPath(0)
	if err != nil {
		return err
	}
	return errors.Join(s.SetHTTPBootNext(url, nic), s.Save())
}

// VarStore reads the machine's variable store, which a BIOS has not. Write it
// only while the machine is off.
func (v *VM) VarStore() (*VarStore, error) { return OpenVarStore(v.varsPath()) }
