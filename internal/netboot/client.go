package netboot

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Errors of reading a packet.
var (
	// errMalformed: it is no DHCP message, or one that contradicts itself.
	errMalformed = errors.New("malformed DHCP message")
	// errNotForUs: the message asks for something that we never give.
	errNotForUs = errors.New("not a request for a network boot")
)

// Options that the library has no name for, or that are used as numbers.
const (
	optVendor     = 43  // RFC 2132 section 8.4; PXE 2.1 fills it
	optOverload   = 52  // RFC 2132 section 9.3
	optType       = 53  // RFC 2132 section 9.6
	optServer     = 54  // RFC 2132 section 9.7
	optClass      = 60  // RFC 2132 section 9.13
	optTFTPServer = 66  // RFC 2132 section 9.4
	optBootFile   = 67  // RFC 2132 section 9.5
	optUserClass  = 77  // RFC 3004
	optRelay      = 82  // RFC 3046
	optArch       = 93  // RFC 4578 section 2.1
	optMachine    = 97  // RFC 4578 section 2.3
	optIPXE       = 175 // iPXE's own
)

// clientKind is what a client that boots from the network is.
type clientKind uint8

// The kinds of clients.
const (
	clientHTTP clientKind = iota + 1
	clientPXE
	clientIPXE
)

func (k clientKind) String() string {
	return [...]string{"other", "HTTPClient", "PXEClient", "iPXE"}[k]
}

// firmware is a value of option 93, and what we know of it: the architecture and
// the label it is counted under.
type firmware struct {
	arch  boot.Architecture
	bios  bool
	label string
}

// firmwares are the types that can be served (IANA's registry of processor
// architecture types). 9 was meant for EFI byte code, but is what x86-64 firmware
// sends: RFC 4578 and UEFI disagreed on the number.
var firmwares = map[uint16]firmware{
	0:  {boot.AMD64, true, "x86 BIOS"},
	7:  {boot.AMD64, false, "x86-64 UEFI"},
	9:  {boot.AMD64, false, "x86-64 UEFI"},
	11: {boot.ARM64, false, "arm64 UEFI"},
	16: {boot.AMD64, false, "x86-64 UEFI"},
	19: {boot.ARM64, false, "arm64 UEFI"},
}

// unservable names types that are known and have no plan's architecture.
var unservable = map[uint16]string{
	6: "x86 UEFI", 10: "arm UEFI", 15: "x86 UEFI", 18: "arm UEFI", 20: "x86 BIOS HTTP",
	25: "riscv32 UEFI", 26: "riscv32 UEFI", 27: "riscv64 UEFI", 28: "riscv64 UEFI",
	37: "loongarch32 UEFI", 38: "loongarch32 UEFI", 39: "loongarch64 UEFI", 40: "loongarch64 UEFI",
}

const unknownFirmware = "unknown"

// request is a DHCP message of a client that wants to boot.
type request struct {
	dhcp *dhcpv4.DHCPv4
	kind clientKind
	// firmware is one of firmwares; without an arch it only has a label.
	firmware firmware
	mac      boot.MAC
	// uuid is as the message has it (EFI_GUID order or not); empty when there is
	// none that identifies a machine.
	uuid boot.UUID
}

// text says what the client is, for an event.
func (r request) text() string {
	return r.firmware.label + " " + map[clientKind]string{clientHTTP: "HTTP", clientPXE: "PXE", clientIPXE: "iPXE"}[r.kind]
}

// readDHCP parses a message with its overloaded fields.
func readDHCP(packet []byte) (*dhcpv4.DHCPv4, error) {
	d, err := dhcpv4.FromBytes(packet)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if len(d.Options) == 0 {
		return nil, fmt.Errorf("%w: no options", errMalformed)
	}
	overload := d.Options[optOverload]
	if overload == nil {
		return d, nil
	}
	if len(overload) != 1 || overload[0] < 1 || overload[0] > 3 {
		return nil, fmt.Errorf("%w: option overload % x", errMalformed, overload)
	}
	// Where values of one option are in several places, they are one value, in
	// this order (RFC 3396 section 5).
	if overload[0]&1 != 0 {
		d.BootFileName = ""
		err = d.Options.FromBytes(packet[108:236])
	}
	if err == nil && overload[0]&2 != 0 {
		d.ServerHostName = ""
		err = d.Options.FromBytes(packet[44:108])
	}
	if err != nil {
		return nil, fmt.Errorf("%w: option overload: %w", errMalformed, err)
	}
	return d, nil
}

// readRequest reads a packet that was sent to one of our ports. It returns
// errMalformed and errNotForUs.
func readRequest(packet []byte, port uint16) (request, error) {
	d, err := readDHCP(packet)
	if err != nil {
		return request{}, err
	}
	r := request{dhcp: d}
	if r.kind = kindOf(d); r.kind == 0 || !asksHere(d, port) {
		return r, errNotForUs
	}
	r.firmware = firmwareOf(d)
	if d.HWType != iana.HWTypeEthernet || len(d.ClientHWAddr) != 6 {
		return r, fmt.Errorf("%w: hardware type %d with %d bytes is not Ethernet", errMalformed, d.HWType, len(d.ClientHWAddr))
	}
	if r.mac, err = boot.ParseMAC(d.ClientHWAddr.String()); err != nil {
		return r, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if d.HopCount > maxHops {
		return r, fmt.Errorf("%w: %d hops", errMalformed, d.HopCount)
	}
	// RFC 4578 section 2.3 knows only the type 0. Whatever else firmware sends
	// names nobody, and is echoed all the same.
	if m := d.Options[optMachine]; len(m) == 17 && m[0] == 0 {
		r.uuid = readUUID(m[1:])
	}
	return r, nil
}

// maxHops is when a message has gone in circles (RFC 1542 section 4.1.1).
const maxHops = 16

// readUUID returns "" for a placeholder in either byte order.
func readUUID(b []byte) boot.UUID {
	u, err := boot.ParseUUID(hex.EncodeToString(b))
	if err != nil {
		return ""
	}
	if _, err := boot.ParseUUID(string(u.Swapped())); err != nil {
		return ""
	}
	return u
}

// asksHere says whether the message is of a type that this port answers: DHCP
// servers' REQUESTs on 67 are none of our business.
func asksHere(d *dhcpv4.DHCPv4, port uint16) bool {
	if d.OpCode != dhcpv4.OpcodeBootRequest {
		return false
	}
	t := d.MessageType()
	if port == portPXE {
		return t == dhcpv4.MessageTypeRequest || t == dhcpv4.MessageTypeInform
	}
	return port == portServer && t == dhcpv4.MessageTypeDiscover
}

func kindOf(d *dhcpv4.DHCPv4) clientKind {
	class := d.Options[optClass]
	switch {
	case bytes.HasPrefix(class, []byte("HTTPClient")):
		return clientHTTP
	case !bytes.HasPrefix(class, []byte("PXEClient")):
		return 0
	case isIPXE(d.Options[optUserClass]):
		return clientIPXE
	}
	return clientPXE
}

// isIPXE looks for iPXE's user class. iPXE sends the bare text; RFC 3004 wants a
// list of values, each with its length before it, and some builds obey.
func isIPXE(class []byte) bool {
	if string(class) == "iPXE" {
		return true
	}
	for len(class) > 0 {
		n := int(class[0])
		if n == 0 || len(class) < 1+n {
			return false
		}
		if string(class[1:1+n]) == "iPXE" {
			return true
		}
		class = class[1+n:]
	}
	return false
}

// firmwareOf reads option 93, of which the first known value counts, else the
// same number in the vendor class ("PXEClient:Arch:00007:UNDI:003016").
func firmwareOf(d *dhcpv4.DHCPv4) firmware {
	label := unknownFirmware
	types := archTypes(d)
	for _, t := range types {
		if f, ok := firmwares[t]; ok {
			return f
		}
		if name, ok := unservable[t]; ok && label == unknownFirmware {
			label = name
		}
	}
	return firmware{label: label}
}

func archTypes(d *dhcpv4.DHCPv4) []uint16 {
	if b := d.Options[optArch]; len(b) >= 2 {
		types := make([]uint16, 0, len(b)/2)
		for ; len(b) >= 2; b = b[2:] {
			types = append(types, binary.BigEndian.Uint16(b))
		}
		return types
	}
	parts := strings.Split(string(d.Options[optClass]), ":")
	if len(parts) >= 3 && parts[1] == "Arch" {
		if n, err := strconv.ParseUint(parts[2], 10, 16); err == nil {
			return []uint16{uint16(n)}
		}
	}
	return nil
}
