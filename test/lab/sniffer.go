package lab

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
)

// thirdPartyNIC is the name of a third party's NIC in its own namespace.
const thirdPartyNIC = "nic0"

// ThirdParty is somebody else on a Network's LAN: a port of the switch that
// records every frame which comes out of it, and sends what a test forges. Without
// AddAddress it never speaks by itself.
type ThirdParty struct {
	t         testing.TB
	namespace string
	mac       net.HardwareAddr
	conn      *packet.Conn
	done      chan struct{} // closed when the last frame was recorded

	mu     sync.Mutex
	frames []Frame
	grown  chan struct{} // closed and replaced with each frame
}

// Sniff adds a third party to the network. It records until the test ends.
func (n *Network) Sniff(t testing.TB) *ThirdParty {
	t.Helper()
	number := n.ports.Add(1)
	// In the network's own namespace the host would get its frames too.
	namespace := fmt.Sprintf("%s-p%d", n.name, number)
	inside, outside := fmt.Sprintf("port%d", number), fmt.Sprintf("-n %s link set %s", namespace, thirdPartyNIC)
	t.Cleanup(func() { removeNamespace(namespace) })
	for _, args := range []string{
		"netns add " + namespace,
		"-n " + n.name + " link add " + inside + " type veth peer name " + thirdPartyNIC + " netns " + namespace,
		outside + " addrgenmode none",
		outside + " promisc on up",
		"-n " + n.name + " link set " + inside + " master " + bridge + " addrgenmode none up",
	} {
		if err := ip(args); err != nil {
			t.Fatalf("adding a third party to the network: %v", err)
		}
	}
	p := &ThirdParty{t: t, namespace: namespace, done: make(chan struct{}), grown: make(chan struct{})}
	if err := inNamespace(namespace, p.open); err != nil {
		t.Fatalf("listening as a third party: %v", err)
	}
	go p.record()
	t.Cleanup(func() {
		_ = p.conn.Close()
		<-p.done
	})
	return p
}

func (p *ThirdParty) open() error {
	nic, err := net.InterfaceByName(thirdPartyNIC)
	if err != nil {
		return err
	}
	p.mac = nic.HardwareAddr
	p.conn, err = packet.Listen(nic, packet.Raw, 0x0003, nil) // ETH_P_ALL
	return err
}

func (p *ThirdParty) record() {
	defer close(p.done)
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := p.conn.ReadFrom(buffer)
		if err != nil { // closed
			return
		}
		p.mu.Lock()
		p.frames = append(p.frames, slices.Clone(buffer[:n]))
		close(p.grown)
		p.grown = make(chan struct{})
		p.mu.Unlock()
	}
}

// MAC returns the address of the third party's NIC.
func (p *ThirdParty) MAC() net.HardwareAddr { return p.mac }

// AddAddress gives the third party an IPv4 address of the network: it then
// answers ARP, as a forged relay agent needs to see replies.
func (p *ThirdParty) AddAddress(address netip.Addr) {
	p.t.Helper()
	if err := ip(fmt.Sprintf("-n %s addr add %s/24 dev %s", p.namespace, address, thirdPartyNIC)); err != nil {
		p.t.Fatalf("adding an address to a third party: %v", err)
	}
}

// Frames returns what came out of the port so far, the oldest first.
func (p *ThirdParty) Frames() []Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.frames)
}

// Await waits for a frame that match accepts, from those that came so far on.
func (p *ThirdParty) Await(timeout time.Duration, match func(Frame) bool) (Frame, bool) {
	deadline := time.After(timeout)
	for at := 0; ; {
		p.mu.Lock()
		unseen, grown := p.frames[at:], p.grown
		p.mu.Unlock()
		if i := slices.IndexFunc(unseen, match); i >= 0 {
			return unseen[i], true
		}
		at += len(unseen)
		select {
		case <-grown:
		case <-deadline:
			return nil, false
		}
	}
}

// Saw returns the frames that hold the secret; see Frame.Holds.
func (p *ThirdParty) Saw(secret string) []Frame {
	return slices.DeleteFunc(p.Frames(), func(f Frame) bool { return !f.Holds(secret) })
}

// Send puts a frame on the LAN as it is, without checksum.
func (p *ThirdParty) Send(frame Frame) {
	p.t.Helper()
	if _, err := p.conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame.Destination()}); err != nil {
		p.t.Fatalf("sending a forged frame: %v", err)
	}
}

// ForgedDHCP is a DHCP message as somebody would forge it. Only Message is
// needed: the rest is then as an honest client has it.
type ForgedDHCP struct {
	Message *dhcpv4.DHCPv4
	// Source is the Ethernet source, by default the message's chaddr.
	Source net.HardwareAddr
	// Destination is the Ethernet destination, by default broadcast.
	Destination net.HardwareAddr
	// From is by default 0.0.0.0:68, To is by default 255.255.255.255:67.
	From, To netip.AddrPort
}

// SendDHCP puts the message on the LAN.
func (p *ThirdParty) SendDHCP(forged ForgedDHCP) {
	p.t.Helper()
	if forged.Source == nil {
		forged.Source = forged.Message.ClientHWAddr
	}
	if forged.Destination == nil {
		forged.Destination = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	from, to := forged.ends()
	p.Send(udpFrame(forged.Destination, forged.Source, from, to, forged.Message.ToBytes()))
}

func (f ForgedDHCP) ends() (from, to netip.AddrPort) {
	from, to = f.From, f.To
	if !from.IsValid() {
		from = netip.AddrPortFrom(netip.IPv4Unspecified(), dhcpv4.ClientPort)
	}
	if !to.IsValid() {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpv4.ServerPort)
	}
	return from, to
}

// Replies returns the DHCP replies to a transaction that come out of this port
// within the given time: what an attacker learns.
func (p *ThirdParty) Replies(transaction dhcpv4.TransactionID, within time.Duration) []*dhcpv4.DHCPv4 {
	p.Await(within, func(Frame) bool { return false })
	var replies []*dhcpv4.DHCPv4
	for _, frame := range p.Frames() {
		message, ok := frame.DHCP()
		if ok && message.OpCode == dhcpv4.OpcodeBootReply && bytes.Equal(message.TransactionID[:], transaction[:]) {
			replies = append(replies, message)
		}
	}
	return replies
}
