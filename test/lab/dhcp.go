package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DHCPOptions describe a DHCP server. It leases 10.77.n.50 to 10.77.n.99 for an
// hour, and the zero value gives only addresses.
type DHCPOptions struct {
	// BootURL is offered to machines that ask for HTTP boot. Without it they
	// get only an address.
	BootURL string
	// BootURLs are by architecture (DHCP option 93) and go before BootURL.
	BootURLs map[string]string
	// PXEFile is the name of the file that PXE clients are offered, which they
	// fetch by TFTP from this server; iPXE is not offered it.
	PXEFile string
	// TFTPRoot is the directory with PXEFile.
	TFTPRoot string
	// IPXEScript is the URL that iPXE is offered (user class iPXE).
	IPXEScript string
	// IPv6 makes a network with IPv6 announce itself (RFC 4861, so that machines
	// give themselves Network.SLAAC) and lease fd00:77:n::100 to ::1ff by DHCPv6.
	IPv6 bool
	// BootURL6 is offered to machines that ask for HTTP boot by DHCPv6.
	BootURL6 string
	// NoIPv4 leaves only IPv6.
	NoIPv4 bool
	// Reservations are addresses by MAC, of either version of IP.
	Reservations map[string]netip.Addr
	// SeparatePools gives the OS another address (.75 to .99) than the firmware
	// had (.50 to .74), as servers do that tell the two apart by client identifier.
	SeparatePools bool
	// IgnoreClientID makes the server know machines only by their MAC.
	IgnoreClientID bool
	// Args are further arguments of dnsmasq.
	Args []string
}

// DHCPServer is dnsmasq on a Network, until the test ends.
type DHCPServer struct {
	*Daemon
	leases string
}

// Lease is what the server has given out. ClientID is empty for a client that
// sent none, as OVMF.
type Lease struct {
	MAC      string
	Address  netip.Addr
	ClientID string
}

// DHCP starts a DHCP server on the network. It skips the test where dnsmasq is
// not installed.
func (n *Network) DHCP(options DHCPOptions) *DHCPServer {
	n.t.Helper()
	Require(n.t, DHCP)
	leases := filepath.Join(n.t.TempDir(), "leases")
	daemon := n.RunDHCP("dnsmasq", append(n.dnsmasqArgs(options), "--dhcp-leasefile="+leases)...)
	return &DHCPServer{Daemon: daemon, leases: leases}
}

func (n *Network) dnsmasqArgs(o DHCPOptions) []string {
	args := []string{
		"--no-daemon", "--user=root", "--port=0", "--conf-file=/dev/null", "--log-dhcp", "--no-ping",
		"--interface=" + bridge, "--bind-interfaces", "--except-interface=lo", "--dhcp-authoritative",
	}
	if !o.NoIPv4 {
		args = append(args, n.dhcp4Args(o)...)
	}
	if o.IPv6 {
		args = append(args, n.dhcp6Args(o)...)
	}
	for mac, address := range o.Reservations {
		if address.Is6() {
			args = append(args, fmt.Sprintf("--dhcp-host=%s,[%s]", mac, address))
		} else {
			args = append(args, fmt.Sprintf("--dhcp-host=%s,%s", mac, address))
		}
	}
	return append(args, o.Args...)
}

// dhcp4Args: --no-ping saves 3 s of the firmware's 4 s; firmware wants option
// 60 in an offer with a URL, and takes one with option 60 and no URL for broken.
func (n *Network) dhcp4Args(o DHCPOptions) []string {
	args := []string{"--dhcp-vendorclass=set:httpboot,HTTPClient"}
	if o.BootURL != "" || len(o.BootURLs) > 0 {
		args = append(args, "--dhcp-option-force=tag:httpboot,60,HTTPClient")
	}
	if o.SeparatePools {
		args = append(args, n.pool("tag:httpboot,", 50, 74), n.pool("tag:!httpboot,", 75, 99))
	} else {
		args = append(args, n.pool("", 50, 99))
	}
	for architecture, url := range o.BootURLs {
		args = append(args,
			fmt.Sprintf("--dhcp-match=set:%s,option:client-arch,%d", architecture, platforms[architecture].dhcpArch),
			fmt.Sprintf("--dhcp-boot=tag:httpboot,tag:%s,%s", architecture, url))
	}
	if o.BootURL != "" {
		boot := "--dhcp-boot=tag:httpboot,"
		for architecture := range o.BootURLs {
			boot += "tag:!" + architecture + ","
		}
		args = append(args, boot+o.BootURL)
	}
	if o.IgnoreClientID {
		args = append(args, "--dhcp-ignore-clid")
	}
	return append(args, pxeArgs(o)...)
}

// pxeArgs: iPXE says that it is a PXEClient too, and its user class tells it apart.
func pxeArgs(o DHCPOptions) []string {
	args := []string{"--dhcp-vendorclass=set:pxe,PXEClient", "--dhcp-userclass=set:ipxe,iPXE"}
	if o.PXEFile != "" {
		args = append(args, "--enable-tftp", "--tftp-root="+o.TFTPRoot, "--dhcp-boot=tag:pxe,tag:!ipxe,"+o.PXEFile)
	}
	if o.IPXEScript != "" {
		args = append(args, "--dhcp-boot=tag:ipxe,"+o.IPXEScript)
	}
	return args
}

// dhcp6Args: firmware looks for HTTPClient behind the six bytes of an enterprise
// number and a length (option 16, RFC 8415, section 21.16), and dnsmasq writes the
// text of this option as it is behind two bytes of its own.
func (n *Network) dhcp6Args(o DHCPOptions) []string {
	args := []string{
		"--enable-ra",
		fmt.Sprintf("--dhcp-range=%s,%s,slaac,64,1h", n.Addr6(0x100), n.Addr6(0x1ff)),
	}
	if o.BootURL6 != "" {
		args = append(args, "--dhcp-option=option6:59,"+o.BootURL6, "--dhcp-option-force=option6:16,xxxxHTTPClient")
	}
	return args
}

func (n *Network) pool(tags string, first, last byte) string {
	return fmt.Sprintf("--dhcp-range=%s%s,%s,1h", tags, n.Addr(first), n.Addr(last))
}

// Leases returns the leases that are in force.
func (s *DHCPServer) Leases() []Lease {
	b, _ := os.ReadFile(s.leases) // not there before the first lease
	var leases []Lease
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line) // expiry, MAC, address, name, client identifier
		if len(fields) != 5 {
			continue
		}
		address, err := netip.ParseAddr(fields[2])
		if err != nil {
			continue
		}
		leases = append(leases, Lease{MAC: fields[1], Address: address, ClientID: strings.Trim(fields[4], "*")})
	}
	return leases
}

// Lease returns the address that the NIC with this MAC has.
func (s *DHCPServer) Lease(mac string) (netip.Addr, bool) {
	leases := s.Leases()
	i := slices.IndexFunc(leases, func(l Lease) bool { return strings.EqualFold(l.MAC, mac) })
	if i < 0 {
		return netip.Addr{}, false
	}
	return leases[i].Address, true
}
