package qemu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Kind is what UEFI firmware boots from.
type Kind string

// The kinds.
const (
	// HTTP is UEFI HTTP boot: over IPv6 where MachineOptions.Boot says so, else
	// over IPv4.
	HTTP Kind = "HTTP"
	// PXE is the firmware's PXE over IPv4.
	PXE Kind = "PXE"
	// ROM is the iPXE in a NIC's option ROM.
	ROM Kind = "iPXE in ROM"
	// Disk is MachineOptions.NextBoot.
	Disk Kind = "disk"
	// Setup is the firmware's setup menu; only BootNext takes it.
	Setup Kind = "setup"
)

// Target is something that a machine's firmware can boot.
type Target struct {
	Kind Kind
	// NIC is that of a network boot, the first one being 0.
	NIC int
	// URL is for HTTP; without one DHCP says what to boot.
	URL string
}

// Numbers of a machine's boot entries; NIC i adds i to its kind's.
const (
	diskEntry = 0x00D0
	nicEntry  = 0x00E0 // HTTP, or the ROM
	pxeEntry  = 0x00E8
	nextEntry = 0x00F0 // what BootNext alone names
)

// osIndications is the variable by which firmware is asked for something at its
// next start, bootToSetup the bit for its menu (UEFI 2.10, section 8.5.4).
const (
	osIndications = "OsIndications"
	bootToSetup   = 1
)

// Number returns the number n of the target's Boot#### in the boot order.
func (t Target) Number() uint16 {
	switch t.Kind {
	case Disk:
		return diskEntry
	case PXE:
		return pxeEntry + uint16(t.NIC)
	default:
		return nicEntry + uint16(t.NIC)
	}
}

// Reference returns the name of the target's variable, such as Boot00E0.
func (t Target) Reference() string { return entryName(t.Number()) }

func (t Target) String() string {
	switch {
	case t.Kind == Disk || t.Kind == Setup:
		return string(t.Kind)
	case t.URL != "":
		return fmt.Sprintf("%s on NIC %d: %s", t.Kind, t.NIC, t.URL)
	default:
		return fmt.Sprintf("%s on NIC %d", t.Kind, t.NIC)
	}
}

// kind is how MachineOptions.Boot boots.
func (b Boot) kind() Kind {
	switch b {
	case UEFIPXE:
		return PXE
	case UEFIIPXE:
		return ROM
	default:
		return HTTP
	}
}

// path is how the firmware names a target.
func (v *VM) path(t Target) (DevicePath, error) {
	if t.Kind == Disk {
		if v.options.NextBoot == nil {
			return nil, fmt.Errorf("%s has no disk", v.options.Name)
		}
		return PCIPath(diskSlot), nil
	}
	if t.NIC < 0 || t.NIC >= len(v.macs()) {
		return nil, fmt.Errorf("%s has no NIC %d: it has %d", v.options.Name, t.NIC, len(v.macs()))
	}
	mac, err := net.ParseMAC(v.macs()[t.NIC])
	if err != nil {
		return nil, fmt.Errorf("reading the MAC of NIC %d: %w", t.NIC, err)
	}
	slot := byte(nicSlot + t.NIC)
	switch {
	case t.Kind == PXE:
		return NICPath(slot, mac), nil
	case t.Kind == ROM:
		return macPath(slot, mac), nil
	case t.Kind != HTTP:
		return nil, fmt.Errorf("no boot entry is of kind %q", t.Kind)
	case t.URL == "":
		t.URL = v.entryURL()
	}
	if v.options.Boot == UEFIHTTPv6 {
		return nicPath6(slot, mac).URI(t.URL), nil
	}
	return NICPath(slot, mac).URI(t.URL), nil
}

// PathText is the device path of a NIC's target as text (UEFI 2.10, section
// 10.6.1.4), with which firmware names it.
func (v *VM) PathText(t Target) string {
	mac := strings.ToUpper(strings.NewReplacer(":", "", "-", "").Replace(v.macs()[t.NIC]))
	address := "IPv4(0.0.0.0)"
	if t.Kind == HTTP && v.options.Boot == UEFIHTTPv6 {
		address = "IPv6(0000:0000:0000:0000:0000:0000:0000:0000)"
	}
	text := fmt.Sprintf("PciRoot(0x0)/Pci(%#x,0x0)/MAC(%s,0x1)/%s", nicSlot+t.NIC, mac, address)
	if t.Kind == HTTP {
		text += "/Uri(" + t.URL + ")"
	}
	return text
}

// entryURL is what the boot entry names; without one DHCP does.
func (v *VM) entryURL() string {
	if v.options.Network == nil && strings.HasPrefix(v.options.BootURL, "https:") {
		return v.options.BootURL
	}
	return ""
}

// defaultOrder is the boot order of a new machine.
func (v *VM) defaultOrder() []Target {
	var order []Target
	for i := range v.macs() {
		order = append(order, Target{Kind: v.options.Boot.kind(), NIC: i})
	}
	switch {
	case v.options.NextBoot == nil:
		return order
	case v.options.DiskFirst:
		return append([]Target{{Kind: Disk}}, order...)
	default:
		return append(order, Target{Kind: Disk})
	}
}

// writeVars makes a variable store of the firmware's template. The firmware
// appends what it finds itself.
func (v *VM) writeVars(template []byte) error {
	s, err := newVarStore(template, v.varsPath())
	if err != nil {
		return err
	}
	if o := v.options.SecureBoot; o != nil {
		keys, err := o.Keys()
		if err != nil {
			return err
		}
		if err := s.setKeys(keys, !o.Off); err != nil {
			return err
		}
	}
	if err := v.order(s, v.defaultOrder()); err != nil {
		return err
	}
	return s.Save()
}

// VarStore reads the machine's variable store, which a BIOS has not. Write it
// only while the machine is off, or in OnReset's function.
func (v *VM) VarStore() (*VarStore, error) {
	if v.options.Boot == BIOS {
		return nil, fmt.Errorf("%s has a BIOS: %w", v.options.Name, errors.ErrUnsupported)
	}
	return OpenVarStore(v.varsPath())
}

// edit changes the variable store.
func (v *VM) edit(change func(*VarStore) error) error {
	s, err := v.VarStore()
	if err != nil {
		return err
	}
	if err := change(s); err != nil {
		return err
	}
	return s.Save()
}

// SetBootNext makes the next start, and only that one, try the target first, as a
// BMC's override does. The machine must be off, or in OnReset's function.
func (v *VM) SetBootNext(t Target) error {
	return v.edit(func(s *VarStore) error {
		if t.Kind == Setup {
			return s.Set(osIndications, binary.LittleEndian.AppendUint64(nil, bootToSetup))
		}
		path, err := v.path(t)
		if err != nil {
			return err
		}
		if err := s.SetEntry(nextEntry, "boot override: "+string(t.Kind), path); err != nil {
			return err
		}
		return s.SetBootNext(nextEntry)
	})
}

// ClearBootNext forgets a SetBootNext that no start has consumed. A BootNext that
// the operating system wrote remains.
func (v *VM) ClearBootNext() error {
	return v.edit(func(s *VarStore) error {
		if next, ok := s.BootNext(); ok && next == nextEntry {
			s.Delete("BootNext")
		}
		s.Delete(osIndications)
		return nil
	})
}

// BootNextPending tells whether the variable store still holds what SetBootNext
// wrote: firmware consumes it as it starts.
func (v *VM) BootNextPending() (bool, error) {
	s, err := v.VarStore()
	if err != nil {
		return false, err
	}
	next, ok := s.BootNext()
	_, err = s.Get(osIndications)
	return ok && next == nextEntry || err == nil, nil
}

// SetBootOrder makes the firmware try these targets, in this order, at each start,
// and what it finds itself after them. The machine must be off, or in OnReset's
// function.
func (v *VM) SetBootOrder(targets ...Target) error {
	return v.edit(func(s *VarStore) error { return v.order(s, targets) })
}

func (v *VM) order(s *VarStore, targets []Target) error {
	var order []uint16
	for _, t := range targets {
		path, err := v.path(t)
		if err != nil {
			return err
		}
		if slices.Contains(order, t.Number()) {
			return fmt.Errorf("%s is in the boot order twice", t.Reference())
		}
		if err := s.SetEntry(t.Number(), t.description(), path); err != nil {
			return err
		}
		order = append(order, t.Number())
	}
	for _, number := range s.BootOrder() {
		if !ours(number) {
			order = append(order, number)
		}
	}
	return s.SetBootOrder(order...)
}

func (t Target) description() string {
	if t.Kind == Disk {
		return "disk"
	}
	return fmt.Sprintf("%s boot on NIC %d", t.Kind, t.NIC)
}

// ours tells whether a boot entry is one of Target.Number.
func ours(number uint16) bool {
	return number == diskEntry || number >= nicEntry && number < pxeEntry+maxNICs
}

// BootOrder returns the targets of SetBootOrder, or those that the machine was made
// with, in their order; what the firmware found itself is left out, and what the
// guest has made of them that the machine cannot boot.
func (v *VM) BootOrder() ([]Target, error) {
	s, err := v.VarStore()
	if err != nil {
		return nil, err
	}
	var targets []Target
	for _, number := range s.BootOrder() {
		if !ours(number) {
			continue
		}
		path, err := s.Entry(number)
		if err != nil { // the guest may have written the store
			continue
		}
		t := path.target()
		if t.Kind != Disk {
			t.NIC = int(number-nicEntry) % maxNICs
		}
		if _, err := v.path(t); err == nil && t.Number() == number {
			targets = append(targets, t)
		}
	}
	return targets, nil
}

// wantsPXE tells whether a start needs the firmware's PXE client.
func (v *VM) wantsPXE() bool {
	s, err := v.VarStore()
	if err != nil {
		return false
	}
	numbers := slices.DeleteFunc(s.BootOrder(), func(n uint16) bool { return !ours(n) })
	if next, ok := s.BootNext(); ok && (next == nextEntry || ours(next)) {
		numbers = append(numbers, next)
	}
	return slices.ContainsFunc(numbers, func(n uint16) bool {
		path, err := s.Entry(n)
		return err == nil && path.target().Kind == PXE
	})
}
