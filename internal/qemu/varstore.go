package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"unicode/utf16"
)

// Offsets of EDK2's authenticated variable store (MdeModulePkg/Include/Guid/
// VariableFormat.h), which begins after a firmware volume header.
const (
	volumeSignatureOffset    = 40
	volumeHeaderLengthOffset = 48
	storeHeaderSize          = 28
	variableHeaderSize       = 60
	variableStart            = 0x55AA

	stateLive    = 0x3F // VAR_ADDED
	stateDeleted = 0xFD // VAR_DELETED, to be and-ed
	stateInDoubt = 0x02 // the bit that VAR_DELETED clears

	// Attributes of variables (UEFI 2.10, section 8.2.1).
	nonVolatile       = 0x01
	bootAccess        = 0x02
	runtimeAccess     = 0x04
	timeAuthenticated = 0x20
)

// guid is an EFI_GUID in memory order.
type guid [16]byte

// String writes it as people do: its first three parts are little endian in memory.
func (g guid) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g[:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
}

var (
	globalVariable     = guid{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	systemNVData       = guid{0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50}
	authenticatedStore = guid{0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92}
)

// ErrNoVariable is for a variable that the store does not hold.
var ErrNoVariable = errors.New("no such EFI variable")

// VarStore is the content of a firmware's variable store (OVMF_VARS.fd,
// AAVMF_VARS.fd). Get, Set and Delete are about variables of EFI_GLOBAL_VARIABLE.
// It may be written only while its machine is off: the firmware would not notice.
type VarStore struct {
	path       string
	b          []byte
	start, end int
}

// variable is one entry of the store, deleted ones included.
type variable struct {
	offset int
	header variableHeader
	name   string
	data   []byte
}

type variableHeader struct {
	StartID            uint16
	State, _           uint8
	Attributes         uint32
	MonotonicCount     uint64
	Time               [16]byte
	PublicKey          uint32
	NameSize, DataSize uint32
	Vendor             guid
}

// OpenVarStore reads the store at path.
func OpenVarStore(path string) (*VarStore, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseVarStore(b)
	if err != nil {
		return nil, fmt.Errorf("reading variable store %s: %w", path, err)
	}
	s.path = path
	return s, nil
}

// newVarStore makes a store of a firmware's template; path is for Save.
func newVarStore(template []byte, path string) (*VarStore, error) {
	if len(template) >= blankLength && len(bytes.Trim(template, "\x00")) == 0 {
		formatBlank(template)
	}
	s, err := parseVarStore(template)
	if err != nil {
		return nil, err
	}
	s.path = path
	return s, nil
}

// Sizes of ArmVirtQemu's flash regions: variables, then the working and the
// spare block of fault-tolerant writes.
const (
	blankVariables = 0x40000
	blankLength    = 3 * blankVariables
)

// formatBlank does to AAVMF's template, which is all zeroes, what the firmware
// does at its first start: a firmware volume header (PI 1.7, volume 3, section
// 3.2.1) and a variable store header in otherwise erased flash.
func formatBlank(b []byte) {
	copy(b[:blankLength], bytes.Repeat([]byte{0xff}, blankLength))
	le := binary.LittleEndian
	header := make([]byte, 16, 0x48) // the zero vector
	header = append(header, systemNVData[:]...)
	header = le.AppendUint64(header, blankLength)
	header = append(header, "_FVH"...)
	header = le.AppendUint32(header, 0x0e36)  // attributes: readable, writable, sticky, erased to ones
	header = le.AppendUint16(header, 0x48)    // its length
	header = append(header, 0, 0, 0, 0, 0, 2) // checksum, no extension, reserved, revision
	header = le.AppendUint32(header, blankLength/blankVariables)
	header = le.AppendUint32(header, blankVariables)
	header = append(header, make([]byte, 8)...) // the block map's end
	var sum uint16
	for i := 0; i < len(header); i += 2 {
		sum -= le.Uint16(header[i:])
	}
	le.PutUint16(header[50:], sum)

	header = append(header, authenticatedStore[:]...)
	header = le.AppendUint32(header, blankVariables-0x48)
	header = append(header, 0x5a, 0xfe, 0, 0, 0, 0, 0, 0) // formatted, healthy
	copy(b, header)
}

func parseVarStore(b []byte) (*VarStore, error) {
	if len(b) < 256 || string(b[volumeSignatureOffset:][:4]) != "_FVH" {
		return nil, errors.New("not a firmware volume")
	}
	header := int(binary.LittleEndian.Uint16(b[volumeHeaderLengthOffset:]))
	if header+storeHeaderSize > len(b) || guid(b[header:header+16]) != authenticatedStore {
		return nil, errors.New("not an authenticated variable store")
	}
	size := int(binary.LittleEndian.Uint32(b[header+16:]))
	if size < storeHeaderSize || header+size > len(b) {
		return nil, errors.New("the variable store is cut short")
	}
	return &VarStore{b: b, start: header + storeHeaderSize, end: header + size}, nil
}

// Save writes the store back to where it was read.
func (s *VarStore) Save() error {
	return os.WriteFile(s.path, s.b, 0o600) //nolint:gosec // G703: the directory is the owner's choice
}

// variables lists all entries; free is where the next one goes.
func (s *VarStore) variables() (all []variable, free int) {
	at := s.start
	for at+variableHeaderSize <= s.end {
		v := variable{offset: at}
		_, err := binary.Decode(s.b[at:], binary.LittleEndian, &v.header)
		name, data := int(v.header.NameSize), int(v.header.DataSize)
		if err != nil || v.header.StartID != variableStart || at+variableHeaderSize+name+data > s.end {
			break
		}
		v.name = fromUCS2(s.b[at+variableHeaderSize:][:name])
		v.data = s.b[at+variableHeaderSize+name:][:data]
		all = append(all, v)
		at = (at + variableHeaderSize + name + data + 3) &^ 3
	}
	return all, at
}

// Get returns a variable's content, or ErrNoVariable.
func (s *VarStore) Get(name string) ([]byte, error) { return s.get(name, globalVariable) }

func (s *VarStore) get(name string, vendor guid) ([]byte, error) {
	v, err := s.find(name, vendor)
	return slices.Clone(v.data), err
}

// find returns the entry of a variable, or ErrNoVariable.
func (s *VarStore) find(name string, vendor guid) (variable, error) {
	all, _ := s.variables()
	for _, v := range all {
		if v.header.State == stateLive && v.name == name && v.header.Vendor == vendor {
			return v, nil
		}
	}
	return variable{}, fmt.Errorf("%w: %s", ErrNoVariable, name)
}

// Set writes a variable: non-volatile, with boot and runtime access. A variable
// that has this content is left alone.
func (s *VarStore) Set(name string, data []byte) error {
	return s.set(name, data, variableHeader{Attributes: nonVolatile | bootAccess | runtimeAccess, Vendor: globalVariable})
}

// set writes a variable with the vendor, the attributes and the time of a header.
func (s *VarStore) set(name string, data []byte, h variableHeader) error {
	if old, err := s.get(name, h.Vendor); err == nil && bytes.Equal(old, data) {
		return nil
	}
	ucs2 := toUCS2(name)
	h.StartID, h.State, h.NameSize, h.DataSize = variableStart, stateLive, uint32(len(ucs2)), uint32(len(data))
	entry, err := binary.Append(nil, binary.LittleEndian, h)
	if err != nil {
		return fmt.Errorf("encoding variable %s: %w", name, err)
	}
	entry = slices.Concat(entry, ucs2, data)
	s.delete(name, h.Vendor)
	_, free := s.variables()
	if free+len(entry) > s.end {
		free = s.reclaim()
	}
	if free+len(entry) > s.end {
		return fmt.Errorf("no room for variable %s in the store", name)
	}
	copy(s.b[free:], entry)
	return nil
}

// reclaim drops deleted variables, as the firmware does when it starts with a full
// store, and returns where the next one goes.
func (s *VarStore) reclaim() (free int) {
	all, _ := s.variables()
	var kept []byte
	for _, v := range all {
		if v.header.State&stateInDoubt == 0 {
			continue
		}
		kept = append(kept, s.b[v.offset:v.offset+variableHeaderSize+int(v.header.NameSize+v.header.DataSize)]...)
		for (s.start+len(kept))%4 != 0 {
			kept = append(kept, 0xff)
		}
	}
	erased := s.b[s.start+copy(s.b[s.start:s.end], kept) : s.end]
	copy(erased, bytes.Repeat([]byte{0xff}, len(erased)))
	return s.start + len(kept)
}

// Delete removes a variable, if it is there.
func (s *VarStore) Delete(name string) { s.delete(name, globalVariable) }

func (s *VarStore) delete(name string, vendor guid) {
	all, _ := s.variables()
	for _, v := range all {
		if v.header.State&stateInDoubt != 0 && v.name == name && v.header.Vendor == vendor {
			s.b[v.offset+2] &= stateDeleted
		}
	}
}

// BootNext returns the number of the entry that the next start tries first,
// once; false when there is none (the firmware deletes it as it starts).
func (s *VarStore) BootNext() (uint16, bool) {
	data, err := s.Get("BootNext")
	if err != nil || len(data) != 2 {
		return 0, false
	}
	return binary.LittleEndian.Uint16(data), true
}

// SetBootNext makes the next start, and only that one, try Boot<number> first.
func (s *VarStore) SetBootNext(number uint16) error {
	return s.Set("BootNext", binary.LittleEndian.AppendUint16(nil, number))
}

// BootOrder returns the numbers of the boot entries in the order of trying.
func (s *VarStore) BootOrder() []uint16 {
	data, _ := s.Get("BootOrder")
	var order []uint16
	for ; len(data) >= 2; data = data[2:] {
		order = append(order, binary.LittleEndian.Uint16(data))
	}
	return order
}

// SetBootOrder writes BootOrder.
func (s *VarStore) SetBootOrder(order ...uint16) error {
	var data []byte
	for _, number := range order {
		data = binary.LittleEndian.AppendUint16(data, number)
	}
	return s.Set("BootOrder", data)
}

// SetEntry writes Boot<number> as an active EFI_LOAD_OPTION (UEFI 2.10, section
// 3.1.3) for a device path without its end node.
func (s *VarStore) SetEntry(number uint16, description string, path DevicePath) error {
	path = slices.Concat(path, endNode)
	option := binary.LittleEndian.AppendUint32(nil, 1) // LOAD_OPTION_ACTIVE
	option = binary.LittleEndian.AppendUint16(option, uint16(len(path)))
	return s.Set(entryName(number), slices.Concat(option, toUCS2(description), path))
}

// Entry returns the device path of Boot<number>, without its end node. The error
// wraps ErrNoVariable when there is no such entry.
func (s *VarStore) Entry(number uint16) (DevicePath, error) {
	data, err := s.Get(entryName(number))
	if err != nil {
		return nil, err
	}
	const fixed = 6 // attributes and the length of the path; a description follows
	at := fixed
	for at+2 <= len(data) && (data[at] != 0 || data[at+1] != 0) {
		at += 2
	}
	at += 2
	if len(data) < fixed || at > len(data) {
		return nil, fmt.Errorf("boot entry %s is cut short", entryName(number))
	}
	length := int(binary.LittleEndian.Uint16(data[4:]))
	if length < len(endNode) || at+length > len(data) {
		return nil, fmt.Errorf("boot entry %s is cut short", entryName(number))
	}
	return DevicePath(data[at : at+length-len(endNode)]), nil
}

func entryName(number uint16) string { return fmt.Sprintf("Boot%04X", number) }

// DevicePath is an EFI device path (UEFI 2.10, chapter 10) without its end node.
type DevicePath []byte

// endNode ends a whole path.
var endNode = DevicePath{0x7f, 0xff, 4, 0}

// PCIPath is a device in a slot of the first PCI root bridge.
func PCIPath(slot byte) DevicePath {
	return DevicePath(nil).
		with(2, 1, []byte{0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0}). // ACPI: PNP0A03, number 0
		with(1, 1, []byte{0, slot})                             // hardware: PCI, function 0
}

// NICPath is IPv4 with DHCP on a NIC in a PCI slot.
func NICPath(slot byte, mac net.HardwareAddr) DevicePath {
	return macPath(slot, mac).with(3, 12, make([]byte, 23)) // messaging: IPv4, all zero
}

// nicPath6 is IPv6 with DHCPv6 on a NIC in a PCI slot.
func nicPath6(slot byte, mac net.HardwareAddr) DevicePath {
	address := make([]byte, 56)
	address[39] = 64                               // the length of the prefix; all else is zero
	return macPath(slot, mac).with(3, 13, address) // messaging: IPv6
}

// macPath is a NIC in a PCI slot, whatever it speaks.
func macPath(slot byte, mac net.HardwareAddr) DevicePath {
	address := make([]byte, 33) // padded to 32 bytes; then the type
	copy(address, mac)
	address[32] = 1                           // Ethernet
	return PCIPath(slot).with(3, 11, address) // messaging: MAC
}

// URI appends a URI, which may be empty: then it comes from DHCP.
func (d DevicePath) URI(uri string) DevicePath { return d.with(3, 24, []byte(uri)) }

func (d DevicePath) with(kind, subKind byte, data []byte) DevicePath {
	node := binary.LittleEndian.AppendUint16([]byte{kind, subKind}, uint16(len(data)+4))
	return slices.Concat(d, node, data)
}

// target tells what a path of ours boots, but for its NIC.
func (d DevicePath) target() Target {
	t := Target{Kind: Disk}
	for len(d) >= 4 {
		length := int(binary.LittleEndian.Uint16(d[2:]))
		if length < 4 || length > len(d) {
			break
		}
		switch [2]byte(d) {
		case [2]byte{3, 11}: // MAC
			t.Kind = ROM
		case [2]byte{3, 12}, [2]byte{3, 13}: // IPv4, IPv6
			t.Kind = PXE
		case [2]byte{3, 24}: // URI
			t.Kind, t.URL = HTTP, string(d[4:length])
		}
		d = d[length:]
	}
	return t
}

// toUCS2 is a null-terminated CHAR16 string.
func toUCS2(text string) []byte {
	var out bytes.Buffer
	_ = binary.Write(&out, binary.LittleEndian, append(utf16.Encode([]rune(text)), 0)) // a Buffer never fails
	return out.Bytes()
}

func fromUCS2(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}
