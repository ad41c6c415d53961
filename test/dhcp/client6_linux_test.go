package dhcp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/require"
)

// client6 is a kind of DHCPv6 client, and what it must be told.
type client6 struct {
	name string
	// vendorClass, arch and userClass are options 16 (with Intel's enterprise
	// number), 61 and 15; what is empty is not sent.
	vendorClass string
	arch        []byte
	userClass   string
	duid        dhcpv6.DUID
	iaid        [4]byte

	// asks are the options asked for; those of EDK2's HTTP driver when empty.
	asks []dhcpv6.OptionCode

	bootURL string
	// echo is whether the answer must have the vendor class that EDK2 looks for.
	echo bool
}

const (
	httpBoot6 = "http://[fd00:77::1]:8082/httpboot"
	script6   = "http://[fd00:77::1]:8082/boot.ipxe"
)

// The DUIDs of one machine: firmware's is made of the machine's UUID, the operating
// system's of its MAC.
func firmwareDUID(mac net.HardwareAddr) dhcpv6.DUID {
	return &dhcpv6.DUIDUUID{UUID: [16]byte{0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]}}
}

func systemDUID(mac net.HardwareAddr) dhcpv6.DUID {
	return &dhcpv6.DUIDLLT{HWType: iana.HWTypeEthernet, Time: 12345, LinkLayerAddr: mac}
}

var firmwareIAID = [4]byte{0, 0, 0, 1}

func clients6(mac net.HardwareAddr) []client6 {
	firmware, iaid, other := firmwareDUID(mac), firmwareIAID, [4]byte{mac[2], mac[3], mac[4], mac[5]}
	return []client6{
		{name: "UEFI HTTP Boot", vendorClass: "HTTPClient:Arch:00016:UNDI:003001", arch: []byte{0, 16}, duid: firmware, iaid: iaid, bootURL: httpBoot6, echo: true},
		{name: "arm64 UEFI HTTP Boot", vendorClass: "HTTPClient:Arch:00019:UNDI:003000", arch: []byte{0, 19}, duid: firmware, iaid: iaid, bootURL: httpBoot6, echo: true},
		{name: "UEFI PXE", vendorClass: "PXEClient:Arch:00007:UNDI:003000", arch: []byte{0, 7}, duid: firmware, iaid: iaid, bootURL: "tftp://[fd00:77::1]/snponly.efi"},
		{name: "UEFI PXE that says 9", vendorClass: "PXEClient:Arch:00009:UNDI:003000", arch: []byte{0, 9}, duid: firmware, iaid: iaid, bootURL: "tftp://[fd00:77::1]/snponly.efi"},
		{name: "arm64 UEFI PXE", vendorClass: "PXEClient:Arch:00011:UNDI:003000", arch: []byte{0, 11}, duid: firmware, iaid: iaid, bootURL: "tftp://[fd00:77::1]/snponly-arm64.efi"},
		{name: "iPXE", vendorClass: "PXEClient:Arch:00007:UNDI:003010", arch: []byte{0, 7}, userClass: "iPXE", duid: firmware, iaid: iaid, bootURL: script6},
		{name: "PXE of an architecture without a file", vendorClass: "PXEClient:Arch:00006:UNDI:003000", arch: []byte{0, 6}, duid: firmware, iaid: iaid},
		{name: "operating system", duid: systemDUID(mac), iaid: other},
		{name: "operating system with the firmware's DUID", duid: firmware, iaid: iaid},
	}
}

// answer6 is what a server said, by option code. It is read by hand: the vendor
// class that dnsmasq writes is no vendor class to a parser.
type answer6 struct {
	kind    dhcpv6.MessageType
	options map[dhcpv6.OptionCode][]byte
}

// parse6 reads options (RFC 8415 section 21.1).
func parse6(b []byte) (map[dhcpv6.OptionCode][]byte, error) {
	options := map[dhcpv6.OptionCode][]byte{}
	for len(b) > 0 {
		if len(b) < 4 || len(b) < 4+int(binary.BigEndian.Uint16(b[2:])) {
			return nil, fmt.Errorf("an option is cut short: %x", b)
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		options[dhcpv6.OptionCode(binary.BigEndian.Uint16(b))] = b[4 : 4+length]
		b = b[4+length:]
	}
	return options, nil
}

// address is the leased address: option 5 within option 3.
func (a answer6) address() (netip.Addr, error) {
	ia := a.options[dhcpv6.OptionIANA]
	if len(ia) < 12 {
		return netip.Addr{}, fmt.Errorf("no IA_NA in %v", a.options)
	}
	inner, err := parse6(ia[12:])
	if err != nil {
		return netip.Addr{}, err
	}
	if len(inner[dhcpv6.OptionIAAddr]) < 16 {
		return netip.Addr{}, fmt.Errorf("no address in %v", inner)
	}
	return netip.AddrFrom16([16]byte(inner[dhcpv6.OptionIAAddr][:16])), nil
}

// nic6 is a socket for DHCPv6 on a NIC.
type nic6 struct {
	t    *testing.T
	conn net.PacketConn
	zone string
}

func (s *site) nic6(mac net.HardwareAddr) *nic6 {
	s.t.Helper()
	name := s.nic(mac)
	n := &nic6{t: s.t, zone: name}
	require.NoError(s.t, s.inside(func() error {
		local, err := dhcpv6.GetLinkLocalAddr(name)
		if err == nil {
			n.conn, err = net.ListenUDP("udp6", &net.UDPAddr{IP: local, Port: dhcpv6.DefaultClientPort, Zone: name})
		}
		return err
	}))
	s.t.Cleanup(func() { _ = n.conn.Close() })
	return n
}

// exchange sends a message until it is answered.
func (n *nic6) exchange(message *dhcpv6.Message) answer6 {
	n.t.Helper()
	to := &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: dhcpv6.DefaultServerPort, Zone: n.zone}
	buffer := make([]byte, 2048)
	for range 5 {
		_, err := n.conn.WriteTo(message.ToBytes(), to)
		require.NoError(n.t, err)
		require.NoError(n.t, n.conn.SetReadDeadline(time.Now().Add(2*time.Second)))
		for {
			length, _, err := n.conn.ReadFrom(buffer)
			if err != nil {
				break
			}
			if length < 4 || [3]byte(buffer[1:4]) != message.TransactionID {
				continue
			}
			options, err := parse6(slices.Clone(buffer[4:length]))
			require.NoError(n.t, err)
			return answer6{kind: dhcpv6.MessageType(buffer[0]), options: options}
		}
	}
	n.t.Fatalf("no answer to %s", message.Summary())
	return answer6{}
}

// ask leases an address as this kind of client does, and returns both answers.
func (n *nic6) ask(mac net.HardwareAddr, c client6) (advertise, reply answer6) {
	n.t.Helper()
	solicit, err := dhcpv6.NewSolicit(mac, c.modifiers()...)
	require.NoError(n.t, err)
	advertise = n.exchange(solicit)
	require.Equal(n.t, dhcpv6.MessageTypeAdvertise, advertise.kind, c.name)

	request, err := dhcpv6.NewMessage(c.modifiers()...)
	require.NoError(n.t, err)
	request.MessageType = dhcpv6.MessageTypeRequest
	request.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionServerID, OptionData: advertise.options[dhcpv6.OptionServerID]})
	request.UpdateOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionIANA, OptionData: advertise.options[dhcpv6.OptionIANA]})
	reply = n.exchange(request)
	require.Equal(n.t, dhcpv6.MessageTypeReply, reply.kind, c.name)
	return advertise, reply
}

// modifiers make a message one of this kind of client.
func (c client6) modifiers() []dhcpv6.Modifier {
	modifiers := []dhcpv6.Modifier{
		dhcpv6.WithClientID(c.duid), dhcpv6.WithIAID(c.iaid),
	}
	asks := c.asks
	if asks == nil {
		asks = []dhcpv6.OptionCode{dhcpv6.OptionBootfileURL, dhcpv6.OptionBootfileParam, dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionVendorClass}
	}
	modifiers = append(modifiers, dhcpv6.WithRequestedOptions(asks...))
	if c.vendorClass != "" {
		modifiers = append(modifiers, dhcpv6.WithOption(&dhcpv6.OptVendorClass{EnterpriseNumber: 343, Data: [][]byte{[]byte(c.vendorClass)}}))
	}
	if c.arch != nil {
		modifiers = append(modifiers, dhcpv6.WithOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionClientArchType, OptionData: c.arch}))
	}
	if c.userClass != "" {
		modifiers = append(modifiers, dhcpv6.WithUserClass([]byte(c.userClass)))
	}
	return modifiers
}

// check holds an answer to what this kind of client must be told.
func (c client6) check(t *testing.T, a answer6) {
	t.Helper()
	require.Equal(t, c.bootURL, string(a.options[dhcpv6.OptionBootfileURL]), c.name)
	class := a.options[dhcpv6.OptionVendorClass]
	if !c.echo {
		require.Empty(t, class, "a vendor class for %s", c.name)
	} else {
		require.GreaterOrEqual(t, len(class), 16, c.name)
		require.Equal(t, "HTTPClient", string(class[6:16]), "what EDK2 reads of option 16, for %s", c.name)
	}
	require.Equal(t, netip.MustParseAddr("fd00:77::3").AsSlice(), a.options[dhcpv6.OptionDNSRecursiveNameServer], c.name)
}

// checkAll6 asks as every kind of client, from a machine with reservations and
// from one without. knows says whether the server finds the reservation of a
// client with this DUID.
func (s *site) checkAll6(knows func(dhcpv6.DUID) bool, more ...client6) {
	s.t.Helper()
	for _, machine := range []net.HardwareAddr{reserved, stranger} {
		nic := s.nic6(machine)
		seen := map[string]netip.Addr{}
		for _, c := range append(clients6(machine), more...) {
			if c.duid == nil {
				c.duid, c.iaid = firmwareDUID(machine), firmwareIAID
			}
			advertise, reply := nic.ask(machine, c)
			c.check(s.t, advertise)
			c.check(s.t, reply)
			a, err := reply.address()
			require.NoError(s.t, err, c.name)
			if before, ok := seen[c.duid.String()]; ok {
				require.Equal(s.t, before, a, "%s of %s has another address than the same client had", c.name, machine)
			}
			seen[c.duid.String()] = a
			if machine.String() == reserved.String() && knows(c.duid) {
				require.Contains(s.t, addresses, a, c.name)
			} else {
				require.True(s.t, range6.Contains(a), "%s of %s: %s is not from the range", c.name, machine, a)
			}
		}
	}
}

// forced6 asks for no option of the answer but the DNS server.
var forced6 = client6{
	name: "UEFI HTTP Boot that asks for neither option", vendorClass: "HTTPClient:Arch:00016:UNDI:003001", arch: []byte{0, 16},
	asks: []dhcpv6.OptionCode{dhcpv6.OptionDNSRecursiveNameServer}, bootURL: httpBoot6, echo: true,
}
