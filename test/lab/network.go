package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	bridge = "br0"
	// namespacePrefix is followed by the process that made the namespace and a
	// counter, so that what a killed process left can be told from what is in use.
	namespacePrefix = "boot-lab"
)

// NetworkOptions describe a network; the zero value is 10.77.0.0/24.
type NetworkOptions struct {
	// Number is n of 10.77.n.0/24. Networks are apart even with the same number.
	Number uint8
	// IPv6 adds fd00:77:n::/64.
	IPv6 bool
}

// Network is a network namespace with a bridge, on which the host is
// 10.77.n.1. It and all that runs in it ends with the test.
type Network struct {
	t      testing.TB
	name   string
	number uint8
	ports  atomic.Uint32 // of third parties

	mu   sync.Mutex
	taps map[string]string
}

var networkCount atomic.Uint32

// NewNetwork makes a network. It skips the test without root.
func NewNetwork(t testing.TB, options NetworkOptions) *Network {
	t.Helper()
	Require(t, Root)
	sweepNamespaces()
	n := &Network{
		t:      t,
		name:   namespaceName(os.Getpid(), networkCount.Add(1)),
		number: options.Number,
		taps:   map[string]string{},
	}
	t.Cleanup(func() { removeNamespace(n.name) })
	commands := []string{
		"netns add " + n.name,
		"-n " + n.name + " link set lo up",
		"-n " + n.name + " link add " + bridge + " type bridge",
		"-n " + n.name + " addr add " + n.Gateway().String() + "/24 dev " + bridge,
		"-n " + n.name + " link set " + bridge + " up",
	}
	if options.IPv6 {
		commands = append(commands, fmt.Sprintf("-n %s addr add %s/64 dev %s nodad", n.name, n.Gateway6(), bridge))
	}
	for _, args := range commands {
		if err := ip(args); err != nil {
			t.Fatalf("making a network: %v", err)
		}
	}
	return n
}

// Netns returns the namespace's name, as ip netns knows it.
func (n *Network) Netns() string { return n.name }

// Gateway returns the host's address in the network.
func (n *Network) Gateway() netip.Addr { return n.Addr(1) }

// Addr returns the address 10.77.n.host.
func (n *Network) Addr(host byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, n.number, host}) }

// Gateway6 returns the host's address in a network with IPv6.
func (n *Network) Gateway6() netip.Addr { return n.Addr6(1) }

// Addr6 returns the address fd00:77:n::host.
func (n *Network) Addr6(host uint16) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x77, 5: n.number, 14: byte(host >> 8), 15: byte(host)})
}

// SLAAC returns the address that a machine with this MAC gives itself in a
// network with IPv6 (RFC 4862 with the interface identifier of RFC 4291,
// appendix A): the lab's OS does.
func (n *Network) SLAAC(mac string) netip.Addr {
	n.t.Helper()
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		n.t.Fatalf("not an Ethernet address: %q", mac)
	}
	a := n.Addr6(0).As16()
	copy(a[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(a)
}

// AddAddress gives the host another address, so that it can act as another
// machine; see HTTPClient and Dial.
func (n *Network) AddAddress(address netip.Addr) {
	n.t.Helper()
	bits := map[bool]int{true: 24, false: 64}[address.Is4()]
	if err := ip(fmt.Sprintf("-n %s addr add %s/%d dev %s nodad", n.name, address, bits, bridge)); err != nil {
		n.t.Fatalf("adding an address: %v", err)
	}
}

// Command returns a command that runs inside the network.
func (n *Network) Command(name string, args ...string) *exec.Cmd {
	return n.CommandContext(context.Background(), name, args...)
}

// CommandContext is Command for one that is killed when ctx ends.
func (n *Network) CommandContext(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.name, name}, args...)...)
}

// Listen listens inside the network until the test ends.
func (n *Network) Listen(network, address string) net.Listener {
	n.t.Helper()
	var listener net.Listener
	err := inNamespace(n.name, func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	if err != nil {
		n.t.Fatalf("listening inside the network: %v", err)
	}
	n.t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// Dial connects inside the network, from the given local address unless that is
// the zero Addr. The address to connect to must be a literal IP.
func (n *Network) Dial(ctx context.Context, network, address string, local netip.Addr) (net.Conn, error) {
	dialer := net.Dialer{}
	if local.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	var conn net.Conn
	err := inNamespace(n.name, func() (err error) {
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// HTTPClient returns a client that makes its requests inside the network, from
// the given address (one of AddAddress, or Gateway). It follows no redirects.
func (n *Network) HTTPClient(local netip.Addr) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return n.Dial(ctx, network, address, local)
		},
	}
	n.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Forward makes a TCP service of this host, such as the control plane on its
// loopback, reachable inside the network at the same loopback address.
func (n *Network) Forward(address string) {
	n.t.Helper()
	listener := n.Listen("tcp", address)
	go func() {
		for {
			inside, err := listener.Accept()
			if err != nil { // closed: the test has ended
				return
			}
			go forward(inside, address)
		}
	}()
}

func forward(inside net.Conn, address string) {
	defer inside.Close()
	outside, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer outside.Close()
	go func() {
		_, _ = io.Copy(outside, inside) // a cut connection is its ends' affair
		_ = outside.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(inside, outside)
}

// Machine makes a machine on this network.
func (n *Network) Machine(t testing.TB, options MachineOptions) *Machine {
	t.Helper()
	options.Network = n
	return NewMachine(t, options)
}

// Tap returns the device for NIC i of a machine, made on first use.
func (n *Network) Tap(machine string, i int) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := fmt.Sprintf("%s/%d", machine, i)
	if tap, ok := n.taps[key]; ok {
		return tap, nil
	}
	tap := fmt.Sprintf("tap%d", len(n.taps))
	for _, args := range []string{
		"tuntap add dev " + tap + " mode tap",
		"link set " + tap + " master " + bridge,
		"link set " + tap + " up",
	} {
		if err := ip("-n " + n.name + " " + args); err != nil {
			return "", fmt.Errorf("making a NIC: %w", err)
		}
	}
	n.taps[key] = tap
	return tap, nil
}

// ip runs ip(8).
func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func namespaceName(pid int, number uint32) string {
	return fmt.Sprintf("%s-%d-%d", namespacePrefix, pid, number)
}

// removeNamespace ends what still runs in a namespace of ours, and removes it
// with all its devices.
func removeNamespace(name string) {
	out, _ := exec.Command("ip", "netns", "pids", name).Output() // fails when it is already gone
	for _, field := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = ip("netns del " + name)
}

// sweepNamespaces removes the namespaces of test processes that were killed.
func sweepNamespaces() {
	entries, _ := os.ReadDir(namespaces) // not there before the first namespace
	for _, entry := range entries {
		parts := strings.Split(entry.Name(), "-")
		if len(parts) != 4 || parts[0]+"-"+parts[1] != namespacePrefix {
			continue
		}
		if pid, err := strconv.Atoi(parts[2]); err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			removeNamespace(entry.Name())
		}
	}
}
