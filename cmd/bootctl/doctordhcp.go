package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
)

const (
	// offersWait is how long offers are waited for.
	offersWait = 5 * time.Second
	// maxOffers bounds how many are kept: somebody may flood the network.
	maxOffers = 64
	// maxEthernet is the longest frame that is read, in bytes.
	maxEthernet = 2048
)

// bootClient is firmware that asks for a boot (RFC 4578, UEFI 2.10 section 24.7).
type bootClient struct {
	name  string
	class string
	arch  uint16
}

var bootClients = []bootClient{
	{"UEFI HTTP boot", "HTTPClient:Arch:00016:UNDI:003001", 16},
	{"UEFI PXE", "PXEClient:Arch:00007:UNDI:003001", 7},
}

// offer is what one DHCP server offers to one kind of client.
type offer struct {
	server netip.Addr
	client string
	// address: the server gives a lease. boots is the URL or file, empty where it
	// offers no boot; next is where a file is.
	address bool
	boots   string
	next    netip.Addr
}

// checkDHCP asks who offers which boot.
func checkDHCP(ctx context.Context, d *doctor) []finding {
	if d.flags.nic == "" {
		return []finding{skip("who offers boots: name a network interface in the machines' network by --interface")}
	}
	offers, err := discover(ctx, d.flags.nic, offersWait)
	switch {
	case errors.Is(err, os.ErrPermission):
		return []finding{fail("run doctor as root, or give it CAP_NET_RAW", "Frames cannot be sent on %s without the right to.", d.flags.nic)}
	case err != nil:
		return []finding{fail("ip link shows the interfaces", "Asking DHCP servers on %s: %v.", d.flags.nic, err)}
	}
	server, _ := d.bootServer() // without one, every boot is told of as it is
	ours := ""
	if server != nil {
		ours = server.String()
	}
	return offerFindings(offers, ours, d.flags.nic)
}

// offerFindings tells our offers from those of others.
func offerFindings(offers []offer, ours, nic string) []finding {
	var all []finding
	leases := map[netip.Addr]bool{}
	for _, o := range offers {
		if o.address {
			leases[o.server] = true
		}
		switch {
		case o.boots == "":
		case ours == "":
			all = append(all, warn("say which URL is the operator's by --url; any other offer is taken in its place", "%s offers %s to %s.", o.server, o.what(), o.client))
		case o.isOurs(ours):
			all = append(all, ok("%s offers %s, which is the operator's, to %s.", o.server, o.what(), o.client))
		default:
			all = append(all, fail("take its boot options (66, 67, next-server) away for the operator's machines, or have it name the operator's URL: bootctl dhcp", "%s offers %s to %s, and firmware may take that in place of the operator's.", o.server, o.what(), o.client))
		}
	}
	if len(all) == 0 {
		all = append(all, ok("Nobody offers a stranger a boot on %s. (The operator's own ProxyDHCP answers only machines that it knows.)", nic))
	}
	switch servers := sortedAddrs(leases); len(servers) {
	case 0:
		all = append(all, warn("check that a DHCP server or relay is on that network; port security, DHCP snooping and hypervisors may drop what asks with a MAC address that they do not know", "No DHCP server on %s gives a lease to a stranger.", nic))
	case 1:
		all = append(all, ok("%s gives leases on %s.", servers[0], nic))
	default:
		all = append(all, warn("that is right for a pair that shares its leases; else switch one off", "Several DHCP servers give leases on %s: %s.", nic, strings.Join(servers, ", ")))
	}
	return all
}

func sortedAddrs(set map[netip.Addr]bool) []string {
	var all []string
	for a := range set {
		all = append(all, a.String())
	}
	slices.Sort(all)
	return all
}

func (o offer) what() string {
	if o.next.IsValid() && !strings.Contains(o.boots, "://") {
		return fmt.Sprintf("%s from %s", o.boots, o.next)
	}
	return o.boots
}

// isOurs says whether an offer leads to the operator: to its URL, or to a file on its
// host.
func (o offer) isOurs(url string) bool {
	if strings.Contains(o.boots, "://") {
		return o.boots == url || strings.HasPrefix(o.boots, url+"/")
	}
	u, err := bootURL(url)
	return err == nil && o.next.IsValid() && u.Hostname() == o.next.String()
}

// discover asks as each kind of client, and gathers offers for a while. It never asks
// for one of them.
func discover(ctx context.Context, nic string, wait time.Duration) ([]offer, error) {
	i, err := net.InterfaceByName(nic)
	if err != nil {
		return nil, fmt.Errorf("no such interface: %w", err)
	}
	if len(i.HardwareAddr) != 6 {
		return nil, errors.New("it is no Ethernet interface")
	}
	conn, err := packet.Listen(i, packet.Raw, etherTypeIPv4, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	// Who answers by unicast, as a ProxyDHCP may, answers to a MAC address that is not
	// this interface's.
	_ = conn.SetPromiscuous(true)
	asked := map[dhcpv4.TransactionID]bootClient{}
	for _, c := range bootClients {
		d, err := c.discover()
		if err != nil {
			return nil, err
		}
		asked[d.TransactionID] = c
		// The frame has the interface's own address: a port that is limited to one MAC
		// address would be shut down by another.
		if _, err := conn.WriteTo(broadcast(i.HardwareAddr, d.ToBytes()), &packet.Addr{HardwareAddr: net.HardwareAddr{255, 255, 255, 255, 255, 255}}); err != nil {
			return nil, fmt.Errorf("sending: %w", err)
		}
	}
	return gather(ctx, conn, asked, wait)
}

// gather reads offers until the time is over.
func gather(ctx context.Context, conn net.PacketConn, asked map[dhcpv4.TransactionID]bootClient, wait time.Duration) ([]offer, error) {
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, fmt.Errorf("receiving: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var all []offer
	buffer := make([]byte, maxEthernet)
	for len(all) < maxOffers {
		n, _, err := conn.ReadFrom(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return all, nil
		case err != nil:
			return all, fmt.Errorf("receiving: %w", err)
		}
		if o, is := readOffer(buffer[:n], asked); is && !slices.Contains(all, o) {
			all = append(all, o)
		}
	}
	return all, nil
}

// discover makes the message of a client that is nobody: its MAC address is random, and
// locally administered.
func (c bootClient) discover() (*dhcpv4.DHCPv4, error) {
	mac := make(net.HardwareAddr, 6)
	if _, err := rand.Read(mac); err != nil {
		return nil, fmt.Errorf("making a MAC address: %w", err)
	}
	mac[0] = mac[0]&^1 | 2
	guid := append([]byte{0}, make([]byte, 16)...)
	if _, err := rand.Read(guid[1:]); err != nil {
		return nil, fmt.Errorf("making a UUID: %w", err)
	}
	d, err := dhcpv4.NewDiscovery(mac,
		dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptClassIdentifier(c.class)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, binary.BigEndian.AppendUint16(nil, c.arch))),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 1})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, guid)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName, dhcpv4.OptionClassIdentifier, dhcpv4.OptionVendorSpecificInformation),
	)
	if err != nil {
		return nil, fmt.Errorf("making a DISCOVER: %w", err)
	}
	return d, nil
}

// What is in the headers of an IPv4 UDP datagram in an Ethernet frame, and their sizes
// without options, in bytes (IEEE 802.3, RFC 791, RFC 768).
const (
	etherTypeIPv4  = 0x0800
	protocolUDP    = 17
	ethernetHeader = 14
	ipHeader       = 20
	udpHeader      = 8
	dhcpServerPort = 67
	dhcpClientPort = 68
)

// broadcast is a frame with a client's DHCP message.
func broadcast(from net.HardwareAddr, message []byte) []byte {
	b := append([]byte{255, 255, 255, 255, 255, 255}, from...)
	b = binary.BigEndian.AppendUint16(b, etherTypeIPv4)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipHeader+udpHeader+len(message))) //nolint:gosec // a DISCOVER is short
	b = append(b, 0, 0, 0, 0, 64, protocolUDP, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255)
	binary.BigEndian.PutUint16(b[ethernetHeader+10:], checksum(b[ethernetHeader:]))
	b = binary.BigEndian.AppendUint16(b, dhcpClientPort)
	b = binary.BigEndian.AppendUint16(b, dhcpServerPort)
	b = binary.BigEndian.AppendUint16(b, uint16(udpHeader+len(message))) //nolint:gosec // as above
	b = append(b, 0, 0)                                                  // no checksum (RFC 768)
	return append(b, message...)
}

// checksum is that of an IPv4 header (RFC 791).
func checksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum) //nolint:gosec // it was folded
}

// readOffer reads an offer to one of the clients out of a frame; false for anything else.
func readOffer(frame []byte, asked map[dhcpv4.TransactionID]bootClient) (offer, bool) {
	source, payload := udpTo(frame, dhcpClientPort)
	d, err := dhcpv4.FromBytes(payload)
	if err != nil || d.OpCode != dhcpv4.OpcodeBootReply || d.MessageType() != dhcpv4.MessageTypeOffer {
		return offer{}, false
	}
	c, is := asked[d.TransactionID]
	if !is {
		return offer{}, false
	}
	o := offer{server: source, client: c.name, address: !addrOf(d.YourIPAddr).IsUnspecified()}
	if a := addrOf(d.ServerIdentifier()); !a.IsUnspecified() {
		o.server = a
	}
	o.boots = withoutSecrets(plain(cut(cmpText(d.BootFileNameOption(), d.BootFileName), 128)))
	o.next = addrOf(d.ServerIPAddr)
	if a, err := netip.ParseAddr(d.TFTPServerName()); err == nil {
		o.next = a
	}
	if o.next.IsUnspecified() {
		o.next = netip.Addr{}
	}
	if proxy := !o.address && strings.HasPrefix(d.ClassIdentifier(), "PXEClient"); o.boots == "" && proxy {
		o.boots = "a PXE boot server"
	}
	return o, true
}

// cmpText is the first of two texts that is not empty, up to its first zero byte.
func cmpText(a, b string) string {
	for _, s := range []string{a, b} {
		if s, _, _ = strings.Cut(s, "\x00"); s != "" {
			return s
		}
	}
	return ""
}

// withoutSecrets is a URL without what it may carry of secrets: a query, a token of ours.
func withoutSecrets(url string) string {
	if !strings.Contains(url, "://") {
		return url
	}
	for _, secret := range []string{"?", "/t/"} {
		url, _, _ = strings.Cut(url, secret)
	}
	return url
}

// addrOf is an IPv4 address of a message; unspecified where there is none.
func addrOf(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok {
		return netip.IPv4Unspecified()
	}
	return a
}

// udpTo returns where a whole IPv4 UDP datagram to this port came from, and what is in
// it; nothing for any other frame.
func udpTo(b []byte, port uint16) (netip.Addr, []byte) {
	if len(b) < ethernetHeader+ipHeader+udpHeader || binary.BigEndian.Uint16(b[12:]) != etherTypeIPv4 {
		return netip.Addr{}, nil
	}
	ip := b[ethernetHeader:]
	header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	whole := binary.BigEndian.Uint16(ip[6:])&0x3fff == 0
	if ip[0]>>4 != 4 || header < ipHeader || total > len(ip) || total < header+udpHeader || !whole || ip[9] != protocolUDP {
		return netip.Addr{}, nil
	}
	udp := ip[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeader || length > len(udp) || binary.BigEndian.Uint16(udp[2:]) != port {
		return netip.Addr{}, nil
	}
	return netip.AddrFrom4([4]byte(ip[12:16])), udp[udpHeader:length]
}
