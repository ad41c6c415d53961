//go:build linux

package badinput

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
)

// lan is a machine's port of the network on which an operator offers boots.
type lan struct {
	*lab.ThirdParty
	t       *testing.T
	network *lab.Network
	mac     net.HardwareAddr
}

// TestMalformedPacketsStopNobody sends the operator DHCP and TFTP that is not, and
// holds that it goes on to offer boots and to serve files to those who ask well.
func TestMalformedPacketsStopNobody(t *testing.T) {
	lab.Require(t, lab.Root)
	s := newSite(t)
	s.network = lab.NewNetwork(t, lab.NetworkOptions{})
	api, err := url.Parse(controlplane.Shared(t).Config.Host)
	require.NoError(t, err)
	s.network.Forward(api.Host)
	s.network.Forward(s.good.Host)
	program, err := demoimage.Padded("amd64", "a network boot program", 20_000)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "snponly.efi"), program, 0o600))
	m := s.machine("netbooted", s.publish(s.good, "os/image", map[string][]byte{"amd64": s.uki("amd64", 1<<20)}))
	s.create(s.objects...)
	s.start("--netboot-interface=br0", "--ipxe-dir="+dir)
	s.shows(t, m.Name, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	mac, err := net.ParseMAC(m.Spec.NetworkIdentifiers[1])
	require.NoError(t, err)
	l := &lan{ThirdParty: s.network.Sniff(t), t: t, network: s.network, mac: mac}
	l.AddAddress(s.network.Addr(9))
	l.AddAddress(s.network.Addr(10))
	token := l.requireOffer(1)

	for _, payload := range badDHCP(l.discover(0xbad)) {
		for _, to := range []string{"255.255.255.255:67", "255.255.255.255:4011"} {
			l.Send(l.udp(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort(to), payload))
		}
	}
	for _, frame := range badFrames(l.udp(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), l.discover(0xbad).ToBytes())) {
		l.Send(frame)
	}
	require.Equal(t, token, l.requireOffer(2), "a boot has one token")
	for i, payload := range badTFTP {
		l.Send(l.udp(netip.AddrPortFrom(s.network.Addr(9), uint16(2000+i)), netip.AddrPortFrom(s.network.Gateway(), 69), []byte(payload)))
	}
	l.requireFile("snponly.efi", program)
	l.requireOffer(3)
	said := s.said(t)
	require.Contains(t, said["log"], "netbooted", "the control: offers are in the log")
	for _, series := range []string{`refusals_total{[^}]*"malformed"} [0-9]{2}`, `refusals_total{[^}]*"relay"}`, `transfers_total{[^}]*"not-found"}`, `transfers_total{[^}]*"read-only"}`} {
		require.Regexp(t, "boot_operator_netboot_"+series, said["metrics"])
	}
	l.requireNothingLeaked()
	for where, text := range said {
		require.Empty(t, tokenPattern.FindString(text), where)
	}
	require.Equal(t, 404, s.get(stranger, "/httpboot").code, "the other servers are there too")
}

// discover is a DISCOVER of the machine's firmware, for UEFI HTTP Boot.
func (l *lan) discover(transaction uint32) *dhcpv4.DHCPv4 {
	d, err := dhcpv4.NewDiscovery(l.mac, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003001")), dhcpv4.WithOption(dhcpv4.OptClientArch(16)))
	require.NoError(l.t, err)
	binary.BigEndian.PutUint32(d.TransactionID[:], transaction)
	d.SetBroadcast()
	return d
}

// requireOffer asks until the machine is offered its boot, and returns the token.
// Junk counts against how often a machine is answered, so it may take a while.
func (l *lan) requireOffer(transaction uint32) string {
	l.t.Helper()
	var token string
	require.Eventually(l.t, func() bool {
		d := l.discover(transaction)
		l.SendDHCP(lab.ForgedDHCP{Message: d})
		_, ok := l.Await(200*time.Millisecond, func(f lab.Frame) bool {
			reply, ok := f.DHCP()
			if !ok || reply.OpCode != dhcpv4.OpcodeBootReply || reply.TransactionID != d.TransactionID {
				return false
			}
			token = tokenPattern.FindString(string(reply.Options[67]))
			return token != ""
		})
		return ok
	}, patience, 100*time.Millisecond, "the machine is offered nothing")
	return token
}

// requireFile fetches the first block of a file.
func (l *lan) requireFile(name string, content []byte) {
	l.t.Helper()
	from := netip.AddrPortFrom(l.network.Addr(10), 3000)
	require.Eventually(l.t, func() bool {
		l.Send(l.udp(from, netip.AddrPortFrom(l.network.Gateway(), 69), []byte("\x00\x01"+name+"\x00octet\x00")))
		_, ok := l.Await(200*time.Millisecond, func(f lab.Frame) bool { return bytes.Contains(f, append([]byte{0, 3, 0, 1}, content[:512]...)) })
		return ok
	}, patience, 100*time.Millisecond, "TFTP serves nothing")
}

// requireNothingLeaked looks at all that the operator sent.
func (l *lan) requireNothingLeaked() {
	l.t.Helper()
	answers, errors := 0, 0
	for _, f := range l.Frames() {
		if message, ok := f.DHCP(); ok && message.OpCode == dhcpv4.OpcodeBootReply {
			answers++
			require.NotEqual(l.t, dhcpv4.TransactionID{0, 0, 0x0b, 0xad}, message.TransactionID, "junk was answered: %s", message)
		}
		require.NotContains(l.t, string(f), "root:")
		if len(f) > 44 && bytes.Equal(f[26:30], l.network.Gateway().AsSlice()) && f[23] == 17 && binary.BigEndian.Uint16(f[34:]) != 67 {
			require.LessOrEqual(l.t, len(f), 14+20+8+4+1468, "a block is larger than a frame")
			if bytes.Equal(f[42:44], []byte{0, 5}) {
				errors++
			}
		}
	}
	require.GreaterOrEqual(l.t, answers, 3, "the control")
	require.Positive(l.t, errors, "a request that cannot be served gets an ERROR")
}

// udp makes a frame of the machine's with a UDP packet, to everybody's Ethernet
// address.
func (l *lan) udp(from, to netip.AddrPort, payload []byte) lab.Frame {
	be := binary.BigEndian
	f := slices.Concat(lab.Frame{255, 255, 255, 255, 255, 255}, lab.Frame(l.mac), lab.Frame{8, 0, 0x45, 0})
	f = be.AppendUint16(f, uint16(28+len(payload)))
	f = append(f, 0, 0, 0, 0, 64, 17, 0, 0)
	f = append(append(f, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(be.Uint16(f[i:]))
	}
	sum = sum>>16 + sum&0xffff
	be.PutUint16(f[24:], ^uint16(sum+sum>>16))
	f = be.AppendUint16(be.AppendUint16(f, from.Port()), to.Port())
	f = be.AppendUint16(be.AppendUint16(f, uint16(8+len(payload))), 0)
	return append(f, payload...)
}

// badDHCP are messages that no firmware sends, each made of a good one.
func badDHCP(good *dhcpv4.DHCPv4) [][]byte {
	whole := good.ToBytes()
	end := len(bytes.TrimRight(whole, "\x00"))
	all := [][]byte{{}, {0}, bytes.Repeat([]byte{0xff}, 1400), make([]byte, 1400)}
	for n := 0; n < end; n += 5 {
		all = append(all, whole[:n])
	}
	poke := func(at int, b ...byte) { all = append(all, slices.Concat(whole[:at], b, whole[at+len(b):])) }
	for _, hlen := range []byte{0, 1, 5, 7, 16, 17, 255} {
		poke(2, hlen)
	}
	poke(1, 32)                   // Infiniband
	poke(0, 2)                    // a reply
	poke(0, 99)                   // neither
	poke(3, 255)                  // hops
	poke(24, 10, 77, 0, 200)      // a relay that nobody knows
	poke(24, 255, 255, 255, 255)  // and one that cannot be
	poke(28, 1, 0, 0x5e, 0, 0, 1) // a group's hardware address
	poke(28, 0, 0, 0, 0, 0, 0)    // nobody's
	poke(236, 0, 0, 0, 0)         // no cookie
	poke(241, 255)                // the first option is longer than the packet
	poke(241, 0)                  // and without content
	options := func(file, name string, o ...byte) {
		b := slices.Concat(whole[:end-1], o, []byte{255}) // before the end option
		copy(b[44:108], name)
		copy(b[108:236], file)
		all = append(all, b)
	}
	for _, overload := range []byte{1, 2, 3} {
		options("\x61\xf0x", "\x61\xf0x", 52, 1, overload) // options that leave the field
	}
	options("\x34\x01\x03", "\x34\x01\x03", 52, 1, 3, 52, 1, 9)
	options("", "", 52, 1, 4)
	options("", "", 52, 2, 1, 1)
	options("", "", append([]byte{97, 255}, bytes.Repeat([]byte{0xff}, 200)...)...) // ends early
	return all
}

// badFrames lie about lengths below DHCP.
func badFrames(good lab.Frame) []lab.Frame {
	var all []lab.Frame
	for n := 14; n < len(good); n += 11 {
		all = append(all, good[:n])
	}
	for at, values := range map[int][]byte{
		12: {0, 0x86}, 14: {0x00, 0x41, 0x4f, 0x65}, 16: {0, 0xff}, 17: {0, 0xff}, 20: {0x20, 0x1f}, 23: {6, 1}, 38: {0, 0xff}, 39: {0, 7},
	} {
		for _, v := range values {
			f := slices.Clone(good)
			f[at] = v
			all = append(all, f)
		}
	}
	return all
}

// badTFTP are requests to port 69.
var badTFTP = []string{
	"", "\x00", "\x00\x01", "\x00\x01\x00", "\x00\x01\x00\x00", "\x00\x01snponly.efi", "\x00\x01snponly.efi\x00", "\x00\x01snponly.efi\x00octet", "\x00\x01snponly.efi\x00mail\x00",
	"\x00\x01../../etc/passwd\x00octet\x00", "\x00\x01/etc/passwd\x00octet\x00", "\x00\x01..\\..\\etc\\passwd\x00octet\x00", "\x00\x01" + strings.Repeat("../", 400) + "etc/passwd\x00octet\x00",
	"\x00\x01snponly.efi/../../../../etc/passwd\x00octet\x00", "\x00\x01%2e%2e/etc/passwd\x00octet\x00", "\x00\x01" + strings.Repeat("A", 1400), "\x00\x01\xff\xfe\n\x00octet\x00",
	"\x00\x01snponly.efi\x00octet\x00blksize\x0065464\x00", "\x00\x01snponly.efi\x00octet\x00blksize\x0065465\x00tsize\x000\x00", "\x00\x01snponly.efi\x00octet\x00blksize\x000\x00",
	"\x00\x01snponly.efi\x00octet\x00blksize\x00-1\x00tsize\x00-1\x00timeout\x00255\x00windowsize\x0065535\x00", "\x00\x01snponly.efi\x00octet\x00blksize\x00",
	"\x00\x01snponly.efi\x00octet\x00" + strings.Repeat("blksize\x00512\x00", 100), "\x00\x01snponly.efi\x00octet\x00tsize\x00" + strings.Repeat("9", 1000) + "\x00",
	"\x00\x02snponly.efi\x00octet\x00", "\x00\x02../../tmp/x\x00octet\x00tsize\x00999999999\x00", "\x00\x03\x00\x01data", "\x00\x04\xff\xff", "\x00\x05\x00\x00no\x00", "\x00\x06blksize\x001\x00",
	"\x00\x00", "\x00\x09x\x00octet\x00", "\xff\xffx\x00octet\x00",
}
