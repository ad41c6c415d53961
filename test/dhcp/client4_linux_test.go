package dhcp

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/stretchr/testify/require"
)

// client4 is a kind of DHCPv4 client, and what it must be told.
type client4 struct {
	name string
	// vendorClass, arch and userClass are options 60, 93 and 77; what is empty is
	// not sent.
	vendorClass string
	arch        []byte
	userClass   string
	// clientID is option 61, which firmware leaves out.
	clientID []byte
	// asks is the parameter request list; that of EDK2 when empty.
	asks []dhcpv4.OptionCode

	bootFile string
	// next is whether it is sent to the TFTP server.
	next bool
	// echo is what option 60 of the answer must be.
	echo string
}

const (
	httpBoot4 = "http://10.77.0.1:8082/httpboot"
	script4   = "http://10.77.0.1:8082/boot.ipxe"
)

var clients4 = []client4{
	{name: "UEFI HTTP Boot", vendorClass: "HTTPClient:Arch:00016:UNDI:003001", arch: []byte{0, 16}, bootFile: httpBoot4, echo: "HTTPClient"},
	{name: "UEFI HTTP Boot that asks for neither option", vendorClass: "HTTPClient:Arch:00016:UNDI:003001", arch: []byte{0, 16}, asks: []dhcpv4.OptionCode{dhcpv4.OptionSubnetMask}, bootFile: httpBoot4, echo: "HTTPClient"},
	{name: "arm64 UEFI HTTP Boot", vendorClass: "HTTPClient:Arch:00019:UNDI:003000", arch: []byte{0, 19}, bootFile: httpBoot4, echo: "HTTPClient"},
	{name: "UEFI PXE", vendorClass: "PXEClient:Arch:00007:UNDI:003001", arch: []byte{0, 7}, bootFile: "snponly.efi", next: true},
	{name: "UEFI PXE that says 9", vendorClass: "PXEClient:Arch:00009:UNDI:003001", arch: []byte{0, 9}, bootFile: "snponly.efi", next: true},
	{name: "arm64 UEFI PXE", vendorClass: "PXEClient:Arch:00011:UNDI:003000", arch: []byte{0, 11}, bootFile: "snponly-arm64.efi", next: true},
	{name: "BIOS PXE", vendorClass: "PXEClient:Arch:00000:UNDI:002001", arch: []byte{0, 0}, bootFile: "undionly.kpxe", next: true},
	{name: "iPXE on UEFI", vendorClass: "PXEClient:Arch:00007:UNDI:003010", arch: []byte{0, 7}, userClass: "iPXE", clientID: []byte{1, 0x3c, 0xec, 0xef, 0xaa, 0xbb, 7}, bootFile: script4},
	{name: "iPXE on BIOS", vendorClass: "PXEClient:Arch:00000:UNDI:002001", arch: []byte{0, 0}, userClass: "iPXE", bootFile: script4},
	{name: "iPXE with the user class of RFC 3004", vendorClass: "PXEClient:Arch:00007:UNDI:003010", arch: []byte{0, 7}, userClass: "\x04iPXE", bootFile: script4},
	{name: "PXE of an architecture without a file", vendorClass: "PXEClient:Arch:00006:UNDI:003001", arch: []byte{0, 6}},
	{name: "operating system", clientID: []byte{255, 1, 2, 3, 4, 0, 2, 0, 0, 0xab, 0x11, 9, 9}},
	{name: "operating system with a vendor class", vendorClass: "dhcpcd-9.4.1:Linux-6.1.0:x86_64", clientID: []byte{1, 0x52, 0x54, 0, 0xaa, 0xbb, 7}},
}

// edk2Asks are the options that EDK2's HTTP and PXE drivers ask for, and a few of
// others: a client that may not have a boot file asks for it here too.
var edk2Asks = []dhcpv4.OptionCode{
	dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionVendorSpecificInformation,
	dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionServerIdentifier, dhcpv4.OptionClassIdentifier,
	dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName, dhcpv4.OptionClientMachineIdentifier,
}

// ask leases an address as this kind of client does, and returns the offer and
// the acknowledgement.
func (s *site) ask(nic string, mac net.HardwareAddr, c client4) (offer, ack *dhcpv4.DHCPv4) {
	s.t.Helper()
	var client *nclient4.Client
	require.NoError(s.t, s.inside(func() (err error) {
		client, err = nclient4.New(nic, nclient4.WithHWAddr(mac), nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
		return err
	}))
	defer client.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 15*time.Second)
	defer cancel()
	lease, err := client.Request(ctx, c.modifiers()...)
	require.NoError(s.t, err, c.name)
	return lease.Offer, lease.ACK
}

// modifiers make a message one of this kind of client.
func (c client4) modifiers() []dhcpv4.Modifier {
	asks := c.asks
	if asks == nil {
		asks = edk2Asks
	}
	modifiers := []dhcpv4.Modifier{
		dhcpv4.WithBroadcast(true),
		dhcpv4.WithoutOption(dhcpv4.OptionParameterRequestList),
		dhcpv4.WithRequestedOptions(asks...),
	}
	generic := func(code dhcpv4.OptionCode, value []byte) {
		if len(value) > 0 {
			modifiers = append(modifiers, dhcpv4.WithGeneric(code, value))
		}
	}
	generic(dhcpv4.OptionClassIdentifier, []byte(c.vendorClass))
	generic(dhcpv4.OptionClientSystemArchitectureType, c.arch)
	generic(dhcpv4.OptionUserClassInformation, []byte(c.userClass))
	generic(dhcpv4.OptionClientIdentifier, c.clientID)
	return modifiers
}

// check holds an answer to what this kind of client must be told.
func (c client4) check(t *testing.T, answer *dhcpv4.DHCPv4) {
	t.Helper()
	bootFile := answer.BootFileNameOption()
	if bootFile == "" {
		bootFile = answer.BootFileName
	}
	require.Equal(t, c.bootFile, bootFile, "%s:\n%s", c.name, answer.Summary())
	require.Equal(t, c.echo, answer.ClassIdentifier(), "option 60 for %s", c.name)
	if c.next {
		require.Equal(t, server4.Host.String(), answer.ServerIPAddr.String(), "next server for %s", c.name)
	}
	if c.asks == nil {
		require.Equal(t, "10.77.0.4", answer.Router()[0].String())
		require.Equal(t, "10.77.0.3", answer.DNS()[0].String())
	}
	require.Equal(t, "ffffff00", answer.SubnetMask().String())
}

// checkAll4 asks as every kind of client, from a machine with a reservation and
// from one without.
func (s *site) checkAll4() {
	s.t.Helper()
	nic := s.nic(mac("52:54:00:00:00:01"))
	dynamic := map[string]bool{}
	for _, c := range clients4 {
		offer, ack := s.ask(nic, reserved, c)
		c.check(s.t, offer)
		c.check(s.t, ack)
		require.Equal(s.t, address4.String(), ack.YourIPAddr.String(), "the reserved address for %s", c.name)

		offer, ack = s.ask(nic, stranger, c)
		c.check(s.t, offer)
		c.check(s.t, ack)
		dynamic[ack.YourIPAddr.String()] = true
	}
	require.Len(s.t, dynamic, 1, "firmware and operating system had different addresses: %v", dynamic)
	for text := range dynamic {
		a := netip.MustParseAddr(text)
		require.True(s.t, range4.Contains(a), "%s is not from the range", a)
	}
}
