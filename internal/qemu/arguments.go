package qemu

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// PCI slots of a machine's devices.
const (
	nicSlot  = 0x10
	diskSlot = 0x18

	maxNICs = diskSlot - nicSlot
)

func (v *VM) command(ctx context.Context, args []string) *exec.Cmd {
	if v.options.Network != nil {
		return v.options.Network.CommandContext(ctx, v.platform.emulator, args...)
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
	args = append(args, monitorArguments()...)
	return append(args, v.options.ExtraArgs...), nil
}

// nic is QEMU's arguments for NIC i; romfile= switches its iPXE off, so that the
// firmware's own network stack boots.
func (v *VM) nic(i int, mac string) ([]string, error) {
	backend := fmt.Sprintf("user,id=nic%d", i)
	if v.options.BootURL != v.entryURL() {
		backend += ",bootfile=" + strings.ReplaceAll(v.options.BootURL, ",", ",,") // QEMU's way to escape it
	}
	if v.options.Network != nil {
		tap, err := v.options.Network.Tap(v.options.Name, i)
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

// firmwareArguments are QEMU's. Where PXE is left on, firmware spends a minute on
// each NIC and version of IP before it goes on to the next entry.
func (v *VM) firmwareArguments() []string {
	if v.options.Boot == BIOS {
		// Without graphics SeaBIOS, iPXE and boot sectors talk on the serial port.
		return []string{"-machine", "graphics=off"}
	}
	pxe4 := "n"
	if v.wantsPXE() {
		pxe4 = "y"
	}
	args := []string{
		"-drive", "if=pflash,format=raw,readonly=on,file=" + v.firmware.code,
		"-drive", "if=pflash,format=raw,file=" + v.varsPath(),
		"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=" + pxe4,
		"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
	}
	if v.options.SecureBoot != nil {
		args = append(args, v.platform.secureMachine...)
	}
	if v.options.Boot == UEFIHTTPv6 {
		// HTTP boot does not wait until its link-local address is known to be
		// unique, and fails: so the firmware waits for a key before it boots.
		args = append(args, "-boot", "menu=on,splash-time=4000")
	}
	if v.options.HTTPSCA != nil {
		args = append(args, "-fw_cfg", "name=etc/edk2/https/cacerts,file="+v.caPath())
	}
	return args
}

// bootIndex is a device's place in a BIOS's boot order, as QEMU passes it on;
// UEFI firmware has its variables.
func (v *VM) bootIndex(place int) string {
	if v.options.Boot != BIOS {
		return ""
	}
	return fmt.Sprintf(",bootindex=%d", place)
}

func (v *VM) diskArguments() []string {
	if v.options.NextBoot == nil {
		return nil
	}
	place := 1 + len(v.macs())
	if v.options.DiskFirst {
		place = 0
	}
	file := "fat:rw:" + v.diskPath()
	if v.options.Boot == BIOS {
		file = v.diskPath()
	}
	return []string{
		"-drive", "if=none,id=disk,format=raw,file=" + file,
		"-device", fmt.Sprintf("virtio-blk-pci,drive=disk,addr=%#x%s", diskSlot, v.bootIndex(place)),
	}
}
