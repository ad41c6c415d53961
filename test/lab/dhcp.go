package lab

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// DHCPOptions describe a DHCP server. It leases 10.77.n.50 to 10.77.n.99 for an
// hour.
type DHCPOptions struct {
	// BootURL is offered to machines that ask for HTTP boot. Without it they
	// get only an address.
	BootURL string
	// BootURLs are by architecture (DHCP option 93) and go before BootURL.
	BootURLs map[string]string
	// Reservations are addresses by MAC.
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
	log     *lockedBuffer
	leases  string
	process *process
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
	s := &DHCPServer{log: &lockedBuffer{}, leases: filepath.Join(n.t.TempDir(), "leases")}
	cmd := n.Command("dnsmasq", append(n.dnsmasqArgs(options), "--dhcp-leasefile="+s.leases)...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	p, err := startProcess(cmd, time.Hour, func() {})
	if err != nil {
		n.t.Fatalf("starting a DHCP server: %v", err)
	}
	s.process = p
	n.t.Cleanup(func() {
		s.Stop()
		s.report(n.t)
	})
	if err := s.ready(10 * time.Second); err != nil {
		n.t.Fatalf("starting a DHCP server: %v: %s", err, s.Log())
	}
	return s
}

// dnsmasqArgs: --no-ping saves 3 s of the firmware's 4 s; firmware wants option
// 60 in an offer with a URL, and takes one with option 60 and no URL for broken.
func (n *Network) dnsmasqArgs(o DHCPOptions) []string {
	args := []string{
		"--no-daemon", "--user=root", "--port=0", "--conf-file=/dev/null", "--log-dhcp", "--no-ping",
		"--interface=" + bridge, "--bind-interfaces", "--except-interface=lo", "--dhcp-authoritative",
		"--dhcp-vendorclass=set:httpboot,HTTPClient",
	}
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
	for mac, address := range o.Reservations {
		args = append(args, fmt.Sprintf("--dhcp-host=%s,%s", mac, address))
	}
	if o.IgnoreClientID {
		args = append(args, "--dhcp-ignore-clid")
	}
	return append(args, o.Args...)
}

func (n *Network) pool(tags string, first, last byte) string {
	return fmt.Sprintf("--dhcp-range=%s%s,%s,1h", tags, n.Addr(first), n.Addr(last))
}

// ready waits until the server listens.
func (s *DHCPServer) ready(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for !strings.Contains(s.Log(), "sockets bound") {
		select {
		case <-s.process.done:
			return fmt.Errorf("dnsmasq ended: %w", s.process.err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("dnsmasq does not listen after %s", timeout)
		}
	}
	return nil
}

func (s *DHCPServer) report(t testing.TB) {
	keep(t, "dhcp.txt", s.Log())
	if t.Failed() {
		t.Logf("DHCP server:\n%s", tail(s.Log()))
	}
}

// Stop ends the server.
func (s *DHCPServer) Stop() { s.process.kill() }

// Log returns what the server said so far, every message and its options.
func (s *DHCPServer) Log() string { return s.log.String() }

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

// lockedBuffer may be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
