package lab

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Sizes of headers and the protocol numbers that the lab reads and writes.
const (
	ethernetHeader = 14
	ipv4Header     = 20
	udpHeader      = 8

	etherTypeIPv4 = 0x0800
	protocolUDP   = 17
)

// Frame is an Ethernet frame without its checksum.
type Frame []byte

// String is the frame in hexadecimal, for messages.
func (f Frame) String() string {
	if len(f) < ethernetHeader {
		return hex.EncodeToString(f)
	}
	return fmt.Sprintf("%s > %s %x %x", f.Source(), f.Destination(), f[12:14], []byte(f[ethernetHeader:]))
}

// Source returns the Ethernet source.
func (f Frame) Source() net.HardwareAddr {
	if len(f) < ethernetHeader {
		return nil
	}
	return net.HardwareAddr(f[6:12])
}

// Destination returns the Ethernet destination.
func (f Frame) Destination() net.HardwareAddr {
	if len(f) < ethernetHeader {
		return nil
	}
	return net.HardwareAddr(f[:6])
}

// Holds tells whether a secret can be read in the frame: as it is, in
// hexadecimal, or cut into several DHCP options of one code (RFC 3396).
func (f Frame) Holds(secret string) bool {
	if bytes.Contains(f, []byte(secret)) || bytes.Contains(f, []byte(hex.EncodeToString([]byte(secret)))) {
		return true
	}
	message, ok := f.DHCP()
	if !ok {
		return false
	}
	for _, option := range message.Options { // joined by the parser
		if bytes.Contains(option, []byte(secret)) {
			return true
		}
	}
	return false
}

// DHCP returns the DHCPv4 message in the frame, if it is one.
func (f Frame) DHCP() (*dhcpv4.DHCPv4, bool) {
	payload, from, to, ok := f.udp()
	if !ok || !isDHCP(from) && !isDHCP(to) {
		return nil, false
	}
	message, err := dhcpv4.FromBytes(payload)
	return message, err == nil
}

func isDHCP(port uint16) bool {
	return slices.Contains([]uint16{dhcpv4.ServerPort, dhcpv4.ClientPort, 4011}, port)
}

// udp returns the payload of a UDP packet over IPv4 that is not fragmented.
func (f Frame) udp() (payload []byte, from, to uint16, ok bool) {
	if len(f) < ethernetHeader+ipv4Header || binary.BigEndian.Uint16(f[12:]) != etherTypeIPv4 {
		return nil, 0, 0, false
	}
	packet := f[ethernetHeader:]
	header := int(packet[0]&0xf) * 4
	if packet[9] != protocolUDP || header < ipv4Header || len(packet) < header+udpHeader {
		return nil, 0, 0, false
	}
	datagram := packet[header:]
	length := int(binary.BigEndian.Uint16(datagram[4:]))
	if length < udpHeader || length > len(datagram) {
		return nil, 0, 0, false
	}
	return datagram[udpHeader:length], binary.BigEndian.Uint16(datagram), binary.BigEndian.Uint16(datagram[2:]), true
}

// udpFrame makes a frame of a UDP packet over IPv4; it has no UDP checksum, as
// RFC 768 allows.
func udpFrame(destination, source net.HardwareAddr, from, to netip.AddrPort, payload []byte) Frame {
	be := binary.BigEndian
	frame := slices.Concat(Frame(destination), Frame(source))
	frame = be.AppendUint16(frame, etherTypeIPv4)

	header := []byte{0x45, 0}
	header = be.AppendUint16(header, uint16(ipv4Header+udpHeader+len(payload)))
	header = append(header, 0, 0, 0, 0, 64, protocolUDP, 0, 0) // unfragmented, TTL 64, checksum below
	header = append(header, from.Addr().AsSlice()...)
	header = append(header, to.Addr().AsSlice()...)
	be.PutUint16(header[10:], internetChecksum(header))

	frame = append(frame, header...)
	frame = be.AppendUint16(frame, from.Port())
	frame = be.AppendUint16(frame, to.Port())
	frame = be.AppendUint16(frame, uint16(udpHeader+len(payload)))
	frame = be.AppendUint16(frame, 0)
	return append(frame, payload...)
}

// internetChecksum is RFC 1071's, of an even number of bytes.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
