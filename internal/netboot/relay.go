package netboot

import (
	"encoding/hex"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// arrival is how a message reached us.
type arrival struct {
	// local is our address on the segment, and base the URL that clients there
	// reach the boot server at.
	local netip.Addr
	base  string
	// ethernet is the source of the frame, source that of the datagram.
	ethernet boot.MAC
	source   netip.AddrPort
	// port is ours that the message was sent to.
	port uint16
}

// proofOf says how the message proves whose it is, and where a relay saw the
// machine. An empty refusal means that it may be answered.
func (s *Server) proofOf(r request, a arrival) (boot.Proof, boot.RelayPort, refusal) {
	giaddr := addrOf(r.dhcp.GatewayIPAddr)
	if giaddr.IsUnspecified() {
		switch {
		case r.dhcp.HopCount != 0: // a relay that hides
			return boot.Unproven, boot.RelayPort{}, refusedRelay
		case a.ethernet != r.mac:
			return boot.Unproven, boot.RelayPort{}, refusedForged
		}
		return boot.Proxy, boot.RelayPort{}, ""
	}
	if a.port != portServer || !s.trusts(giaddr) || !s.trusts(a.source.Addr()) {
		return boot.Unproven, boot.RelayPort{}, refusedRelay
	}
	port, ok := relayPort(giaddr, r.dhcp.Options[optRelay])
	if !ok {
		return boot.Unproven, boot.RelayPort{}, ""
	}
	return boot.Relay, port, ""
}

func (s *Server) trusts(a netip.Addr) bool {
	for _, p := range s.options.Relays {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// relayPort reads option 82. It returns false when the option names no port.
func relayPort(giaddr netip.Addr, option []byte) (boot.RelayPort, bool) {
	sub := make(dhcpv4.Options)
	if err := sub.FromBytes(option); err != nil {
		return boot.RelayPort{}, false
	}
	p := boot.RelayPort{Relay: giaddr, Circuit: printable(sub[1]), Remote: printable(sub[2])}
	return p, p.Circuit != "" || p.Remote != ""
}

// printable returns b as text, or in hexadecimal digits where it is none: what
// begins with 0x and could be taken for such digits is written as digits too.
func printable(b []byte) string {
	text := len(b) < 2 || string(b[:2]) != "0x"
	for _, c := range b {
		text = text && c > ' ' && c < 0x7f || text && c == ' '
	}
	if text {
		return string(b)
	}
	return "0x" + hex.EncodeToString(b)
}

// addrOf returns 0.0.0.0 for what is no IPv4 address.
func addrOf(ip net.IP) netip.Addr {
	if b := ip.To4(); b != nil {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.IPv4Unspecified()
}
