package lab

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Boot is how a machine boots from the network.
type Boot string

// The ways to boot. All of them find what to boot by DHCP, on each NIC in turn.
const (
	// UEFIHTTP is the firmware's own HTTP boot over IPv4 (DHCP vendor class
	// HTTPClient).
	UEFIHTTP Boot = ""
	// UEFIHTTPv6 is the same over IPv6 (DHCPv6 options 16 and 59).
	UEFIHTTPv6 Boot = "UEFI HTTP over IPv6"
	// UEFIPXE is the firmware's own PXE over IPv4 (vendor class PXEClient): it
	// gets an EFI application by TFTP.
	UEFIPXE Boot = "UEFI PXE"
	// UEFIIPXE is the iPXE in the NIC's option ROM, started by UEFI firmware. It
	// knows only that NIC, as net0; under a BIOS it knows all.
	UEFIIPXE Boot = "UEFI, iPXE in ROM"
	// BIOS is SeaBIOS, on amd64 only. The only network ROM that QEMU has for it
	// is iPXE, so there is no other PXE client. What firmware and iPXE say passes
	// through a screen of 80 columns, and longer lines are broken.
	BIOS Boot = "BIOS, iPXE in ROM"
)

var boots = []Boot{UEFIHTTP, UEFIHTTPv6, UEFIPXE, UEFIIPXE, BIOS}

// check tells what of the options no machine can do.
func (o MachineOptions) check() error {
	if !slices.Contains(boots, o.Boot) {
		return fmt.Errorf("no such way to boot: %q", o.Boot)
	}
	if o.Boot == BIOS && o.Arch != "amd64" {
		return fmt.Errorf("a BIOS is for amd64 only, not %s", o.Arch)
	}
	if o.Boot == BIOS && o.HTTPSCA != nil {
		return errors.New("a BIOS knows no CAs")
	}
	for _, i := range o.Unplugged {
		if i < 0 || i > len(o.MoreMACs) {
			return fmt.Errorf("no NIC %d to unplug: the machine has %d", i, 1+len(o.MoreMACs))
		}
	}
	return nil
}

// ipxeROM tells whether the NICs keep the option ROM that QEMU gives them.
func (b Boot) ipxeROM() bool { return b == UEFIIPXE || b == BIOS }

// entry is the device path of the firmware's boot entry for a NIC.
func (b Boot) entry(slot byte, mac net.HardwareAddr, url string) DevicePath {
	switch b {
	case UEFIHTTPv6:
		return nicPath6(slot, mac).URI(url)
	case UEFIPXE:
		return NICPath(slot, mac)
	case UEFIIPXE:
		return macPath(slot, mac)
	default:
		return NICPath(slot, mac).URI(url)
	}
}

// firmwareArguments are QEMU's. Where PXE is left on, firmware spends a minute on
// each NIC and version of IP before it goes on to the next entry.
func (v *VM) firmwareArguments() []string {
	if v.options.Boot == BIOS {
		// Without graphics SeaBIOS, iPXE and boot sectors talk on the serial port.
		return []string{"-machine", "graphics=off"}
	}
	pxe4 := "n"
	if v.options.Boot == UEFIPXE {
		pxe4 = "y"
	}
	args := []string{
		"-drive", "if=pflash,format=raw,readonly=on,file=" + v.firmware.code,
		"-drive", "if=pflash,format=raw,file=" + v.varsPath(),
		"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=" + pxe4,
		"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
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

// writeVars makes a variable store whose boot order is the NICs, then the disk.
// The firmware appends what it finds itself.
func (v *VM) writeVars(template []byte) error {
	s, err := newVarStore(template, v.varsPath())
	if err != nil {
		return err
	}
	var order []uint16
	for i, text := range v.macs() {
		mac, err := net.ParseMAC(text)
		if err != nil {
			return fmt.Errorf("reading the MAC of NIC %d: %w", i, err)
		}
		path := v.options.Boot.entry(byte(nicSlot+i), mac, v.entryURL())
		if err := s.SetEntry(uint16(nicEntry+i), fmt.Sprintf("network boot on NIC %d", i), path); err != nil {
			return err
		}
		order = append(order, uint16(nicEntry+i))
	}
	if v.options.NextBoot != nil {
		if err := s.SetEntry(diskEntry, "disk", PCIPath(diskSlot)); err != nil {
			return err
		}
		order = append(order, diskEntry)
	}
	if v.options.DiskFirst {
		slices.Sort(order)
	}
	return errors.Join(s.SetBootOrder(order...), s.Save())
}

// entryURL is what the boot entry names; without one DHCP does.
func (v *VM) entryURL() string {
	if v.options.Network == nil && strings.HasPrefix(v.options.BootURL, "https:") {
		return v.options.BootURL
	}
	return ""
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
