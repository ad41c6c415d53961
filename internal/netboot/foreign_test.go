package netboot

import (
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

var otherServer = netip.MustParseAddr("10.77.0.3")

// offerOf is what another DHCP server sends to the machine A.
func offerOf(change ...func(*message)) []byte {
	address := func(d *message) {
		d.OpCode = dhcpv4.OpcodeBootReply
		d.YourIPAddr = []byte{10, 77, 0, 50}
		d.ServerIPAddr = otherServer.AsSlice() // dnsmasq always sets it
		d.Options = dhcpv4.Options{optType: {2}, optServer: otherServer.AsSlice(), 51: {0, 0, 14, 16}}
	}
	return discover(macA, "", 0, append([]func(*message){address}, change...)...)
}

func TestAForeignBootOfferIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		sent []byte
		want string // what the event ends with; empty for none
	}{
		"only an address":      {offerOf(), ""},
		"a URL":                {offerOf(option(optBootFile, []byte("http://192.0.2.1/x.efi")...)), "http://192.0.2.1/x.efi"},
		"a URL with secrets":   {offerOf(option(optBootFile, []byte("http://192.0.2.1/x.efi?token=abc")...)), "http://192.0.2.1/x.efi"},
		"a token of a replica": {offerOf(option(optBootFile, []byte("http://192.0.2.1/httpboot/t/abc/uki.efi")...)), "http://192.0.2.1/httpboot"},
		"a file in the header": {offerOf(func(d *message) { d.BootFileName = "pxelinux.0" }), "pxelinux.0 from 10.77.0.3"},
		"with a line break":    {offerOf(func(d *message) { d.BootFileName = "a\nb" }), "a?b from 10.77.0.3"},
		"an acknowledgement":   {offerOf(option(optType, 5), option(optBootFile, 'x')), "x from 10.77.0.3"},
		"a refusal":            {offerOf(option(optType, 6), option(optBootFile, 'x')), ""},
		"our own URL":          {offerOf(option(optBootFile, []byte(baseURL+"/httpboot")...)), ""},
		"our own TFTP":         {offerOf(option(optBootFile, 'x'), option(optTFTPServer, []byte("10.77.0.1")...)), ""},
		"our own offer":        {offerOf(option(optServer, 10, 77, 0, 1), option(optBootFile, 'x')), ""},
		"another proxy": {offerOf(option(optClass, []byte("PXEClient")...), func(d *message) {
			d.YourIPAddr = nil
		}), "a PXE boot server"},
		"a URL for a stranger": {offerOf(option(optBootFile, 'x'), func(d *message) { d.ClientHWAddr = macBytes(macB) }), ""},
		"cut short":            {offerOf(option(optBootFile, 'x'))[:250], ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o, ok := w.foreignOffer(c.sent, otherServer)
			require.Equal(t, c.want != "", ok)
			if ok {
				require.Equal(t, boot.StageForeignOffer, o.Stage)
				require.Equal(t, httpPlan().Object, o.Object)
				require.EqualValues(t, 1, o.Attempt)
				require.Equal(t, "the DHCP server 10.77.0.3 offers "+c.want, o.Detail)
			}
		})
	}
}

func TestAForeignOfferIsNoMatterOnceTheMachineHasBooted(t *testing.T) {
	w := newWorld(t)
	w.attempts.coming[httpPlan().Object.UID] = boot.ErrSpent
	_, ok := w.foreignOffer(offerOf(option(optBootFile, 'x')), otherServer)
	require.False(t, ok)
}
