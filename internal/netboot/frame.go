package netboot

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// The sizes of headers without options (IEEE 802.3, RFC 791, RFC 768).
const (
	ethernetHeader = 14
	ipHeader       = 20
	udpHeader      = 8
	// maxFrame is more than any frame that we send or that an Ethernet without
	// jumbo frames carries.
	maxFrame = 2048

	etherTypeIPv4 = 0x0800
	protocolUDP   = 17
)

// datagram is a UDP datagram with where it came from and goes to.
type datagram struct {
	ethernet    boot.MAC
	source      netip.AddrPort
	destination netip.AddrPort
	payload     []byte
}

// readFrame takes an Ethernet frame apart. It returns false for all that is no
// whole IPv4 UDP datagram from a unicast Ethernet address. UDP checksums are not
// looked at: between virtual machines of one host nobody fills them in.
func readFrame(b []byte) (datagram, bool) {
	if len(b) < ethernetHeader+ipHeader+udpHeader || binary.BigEndian.Uint16(b[12:]) != etherTypeIPv4 {
		return datagram{}, false
	}
	mac, err := boot.ParseMAC(hex.EncodeToString(b[6:12]))
	if err != nil {
		return datagram{}, false
	}
	ip := b[ethernetHeader:]
	header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff // more fragments, or an offset
	if ip[0]>>4 != 4 || header < ipHeader || total > len(ip) || total < header+udpHeader || fragment != 0 || ip[9] != protocolUDP {
		return datagram{}, false
	}
	udp := ip[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeader || length > len(udp) {
		return datagram{}, false
	}
	return datagram{
		ethernet:    mac,
		source:      netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(udp)),
		destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(udp[2:])),
		payload:     udp[udpHeader:length],
	}, true
}

// appendFrame appends a frame to one Ethernet address.
func appendFrame(b []byte, to, from boot.MAC, d datagram) []byte {
	b = append(b, macBytes(to)...)
	b = append(b, macBytes(from)...)
	b = binary.BigEndian.AppendUint16(b, etherTypeIPv4)
	ip := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipHeader+udpHeader+len(d.payload)))
	b = append(b, 0, 0, 0x40, 0, 64, protocolUDP, 0, 0) // whole, time to live 64
	b = append(b, d.source.Addr().AsSlice()...)
	b = append(b, d.destination.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(b[ip+10:], ^fold(sum(0, b[ip:])))
	return appendUDP(b, d)
}

// appendUDP appends the datagram's UDP header and payload (RFC 768).
func appendUDP(b []byte, d datagram) []byte {
	at, length := len(b), uint16(udpHeader+len(d.payload))
	b = binary.BigEndian.AppendUint16(b, d.source.Port())
	b = binary.BigEndian.AppendUint16(b, d.destination.Port())
	b = binary.BigEndian.AppendUint16(b, length)
	b = append(b, 0, 0)
	b = append(b, d.payload...)
	s := sum(0, d.source.Addr().AsSlice())
	s = sum(s, d.destination.Addr().AsSlice())
	s += protocolUDP + uint32(length)
	c := ^fold(sum(s, b[at:]))
	if c == 0 {
		c = 0xffff // zero means none
	}
	binary.BigEndian.PutUint16(b[at+6:], c)
	return b
}

// sum adds b to the sum of an Internet checksum (RFC 1071).
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// macBytes is for addresses that boot.ParseMAC made.
func macBytes(m boot.MAC) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(string(m), ":", ""))
	if err != nil || len(b) != 6 {
		return make([]byte, 6)
	}
	return b
}
