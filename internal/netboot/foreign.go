package netboot

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// foreignOffer looks at a message to a DHCP client that another server sent, and
// tells of one that offers a boot to a machine which has a plan here: firmware may
// take that instead of ours.
func (s *Server) foreignOffer(packet []byte, source netip.Addr) (boot.Observation, bool) {
	d, err := readDHCP(packet)
	if err != nil || d.OpCode != dhcpv4.OpcodeBootReply || d.HWType != iana.HWTypeEthernet {
		return boot.Observation{}, false
	}
	if t := d.MessageType(); t != dhcpv4.MessageTypeOffer && t != dhcpv4.MessageTypeAck {
		return boot.Observation{}, false
	}
	server := addrOf(d.Options[optServer])
	what := s.bootIn(d)
	if s.local[source] || s.local[server] || what == "" {
		return boot.Observation{}, false
	}
	mac, err := boot.ParseMAC(d.ClientHWAddr.String())
	if err != nil {
		return boot.Observation{}, false
	}
	plans, err := s.options.Source.ByMAC(mac)
	if err != nil || len(plans) == 0 {
		return boot.Observation{}, false
	}
	attempt, err := s.options.Attempts.Coming(plans[0])
	if errors.Is(err, boot.ErrSpent) || errors.Is(err, boot.ErrClosed) { // whatever it boots, it is not ours to boot
		return boot.Observation{}, false
	}
	if server.IsUnspecified() {
		server = source
	}
	return boot.Observation{
		Object: plans[0].Object, Attempt: attempt.Number, Stage: boot.StageForeignOffer,
		Time: s.options.Now(), MAC: mac, Detail: "the DHCP server " + server.String() + " offers " + what,
	}, true
}

// bootIn says what boot a message offers: "" for one that only gives an address,
// or that names our own server.
func (s *Server) bootIn(d *dhcpv4.DHCPv4) string {
	file := text(d.Options[optBootFile])
	if file == "" {
		file = text([]byte(d.BootFileName))
	}
	next := addrOf(d.ServerIPAddr)
	if a, err := netip.ParseAddr(text(d.Options[optTFTPServer])); err == nil {
		next = a
	}
	class := d.Options[optClass]
	proxy := addrOf(d.YourIPAddr).IsUnspecified() && addrOf(d.ClientIPAddr).IsUnspecified() &&
		(bytes.HasPrefix(class, []byte("PXEClient")) || bytes.HasPrefix(class, []byte("HTTPClient")))
	switch {
	case s.local[next], s.ourURL(file):
		return ""
	case strings.Contains(file, "://"):
		return file
	case file != "" && !next.IsUnspecified():
		return file + " from " + next.String()
	case file != "":
		return file
	case proxy:
		return "a PXE boot server"
	}
	return ""
}

func (s *Server) ourURL(url string) bool {
	for _, segment := range s.segments {
		if url == segment.base || strings.HasPrefix(url, segment.base+"/") {
			return true
		}
	}
	return false
}

// text returns a value of the network as text for an event: printable, bounded,
// and without what a URL may carry of secrets.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	if len(b) > maxURL {
		b = b[:maxURL]
	}
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(b))
	if !strings.Contains(s, "://") {
		return s
	}
	for _, secret := range []string{"?", "/t/"} { // a query, a token of ours
		s, _, _ = strings.Cut(s, secret)
	}
	return s
}
