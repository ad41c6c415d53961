package lab

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// enough is for a reply on a bridge of this host.
const enough = 20 * time.Second

func discover(t *testing.T, chaddr net.HardwareAddr, modifiers ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	message, err := dhcpv4.NewDiscovery(chaddr, modifiers...)
	require.NoError(t, err)
	return message
}

// offerTo matches the reply to a message.
func offerTo(message *dhcpv4.DHCPv4) func(Frame) bool {
	return func(f Frame) bool {
		reply, ok := f.DHCP()
		return ok && reply.OpCode == dhcpv4.OpcodeBootReply && reply.TransactionID == message.TransactionID
	}
}

func TestAThirdPartySeesBroadcastsAndOnlyItsOwnUnicasts(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{})
	asker, bystander := n.Sniff(t), n.Sniff(t)
	n.DHCP(DHCPOptions{Args: []string{"--dhcp-option-force=209,the-secret"}})
	chaddr := net.HardwareAddr{0x02, 0, 0, 0, 0, 1}

	quiet := discover(t, chaddr)
	asker.SendDHCP(ForgedDHCP{Message: quiet})
	frame, ok := asker.Await(enough, offerTo(quiet))
	require.True(t, ok, "the unicast goes to the port that the address was learned at")
	assert.True(t, frame.Holds("the-secret"))
	loud := discover(t, chaddr, dhcpv4.WithBroadcast(true))
	asker.SendDHCP(ForgedDHCP{Message: loud})
	_, ok = bystander.Await(enough, offerTo(loud))
	require.True(t, ok)
	assert.Len(t, bystander.Saw("the-secret"), 1, "what came before was not for it")
	assert.Len(t, asker.Replies(quiet.TransactionID, 0), 1)
}

func TestARelayThatIsNoneIsAnsweredWhereItSaysItIs(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{})
	relay := n.Sniff(t)
	relay.AddAddress(n.Addr(200))
	n.DHCP(DHCPOptions{})
	forged := discover(t, net.HardwareAddr{0x02, 0, 0, 0, 0, 2}, dhcpv4.WithRelay(n.Addr(200).AsSlice()))
	relay.SendDHCP(ForgedDHCP{Message: forged, Source: relay.MAC()})
	frame, ok := relay.Await(enough, offerTo(forged))
	require.True(t, ok)
	assert.Equal(t, relay.MAC(), frame.Destination())
}

func TestASecretIsSeenHoweverAFrameHidesIt(t *testing.T) {
	long := strings.Repeat("x", 250) + "the-secret" // cut in two after 255 bytes
	message := discover(t, net.HardwareAddr{0x02, 0, 0, 0, 0, 3}, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(209), []byte(long))))
	from, to := ForgedDHCP{Message: message}.ends()
	frame := udpFrame(make(net.HardwareAddr, 6), make(net.HardwareAddr, 6), from, to, message.ToBytes())
	assert.NotContains(t, string(frame), "the-secret")
	assert.True(t, frame.Holds("the-secret"))
	assert.True(t, Frame("..7468652d736563726574..").Holds("the-secret"))
	assert.False(t, frame.Holds("another-secret"))
	for cut := range frame { // nothing that a LAN sends may stop a test
		frame[:cut].Holds("another-secret")
	}
}

func TestKeaServesALabNetwork(t *testing.T) {
	t.Parallel()
	Require(t, Root, Kea)
	n := NewNetwork(t, NetworkOptions{})
	port := n.Sniff(t)
	path := filepath.Join(t.TempDir(), "kea.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"Dhcp4": {
	  "interfaces-config": {"interfaces": ["br0"]}, "lease-database": {"type": "memfile", "persist": false},
	  "subnet4": [{"subnet": "10.77.0.0/24", "pools": [{"pool": "10.77.0.50-10.77.0.99"}], "next-server": "10.77.0.7"}]}}`), 0o600))
	kea := n.RunDHCP("kea-dhcp4", "-c", path)
	message := discover(t, net.HardwareAddr{0x02, 0, 0, 0, 0, 4})
	port.SendDHCP(ForgedDHCP{Message: message})
	frame, ok := port.Await(enough, offerTo(message))
	require.True(t, ok, kea.Log())
	offer, _ := frame.DHCP()
	assert.Equal(t, "10.77.0.7", offer.ServerIPAddr.String())
}
