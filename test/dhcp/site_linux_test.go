package dhcp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/dhcprecipe"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/transcript"
)

// What the recipes are printed for: the lab's network, and the boot server in it.
var (
	server4 = dhcprecipe.Server{Scheme: "http", Host: netip.MustParseAddr("10.77.0.1"), Port: 8082}
	server6 = dhcprecipe.Server{Scheme: "http", Host: netip.MustParseAddr("fd00:77::1"), Port: 8082}
)

// The machines: one with a reservation, one without.
var (
	reserved  = mac("3c:ec:ef:aa:bb:07")
	stranger  = mac("3c:ec:ef:aa:bb:08")
	address4  = netip.MustParseAddr("10.77.0.57")
	addresses = []netip.Addr{netip.MustParseAddr("fd00:77::57"), netip.MustParseAddr("fd00:77::58")}
)

func mac(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// site is a network with one DHCP server and the NICs of clients.
type site struct {
	t       *testing.T
	network *lab.Network
	log     *transcript.Transcript
	nics    int
}

// recipe prints a configuration for the site, of one family or of both.
func recipe(t *testing.T, format dhcprecipe.Format, families ...int) string {
	t.Helper()
	o := dhcprecipe.Options{
		Format: format, Interface: "br0", Reserve: true,
		Machines: []dhcprecipe.Machine{{
			Name: "default/reserved", MACs: []boot.MAC{boot.MAC(reserved.String())},
			Addrs: append([]netip.Addr{address4}, addresses...),
		}},
	}
	for _, family := range families {
		if family == 4 {
			o.V4 = &dhcprecipe.Network{Server: server4, DNS: []netip.Addr{netip.MustParseAddr("10.77.0.3")}, Router: netip.MustParseAddr("10.77.0.4")}
		} else {
			o.V6 = &dhcprecipe.Network{Server: server6, DNS: []netip.Addr{netip.MustParseAddr("fd00:77::3")}}
		}
	}
	var out strings.Builder
	require.NoError(t, dhcprecipe.Print(&out, o))
	return out.String()
}

// newSite makes the network; the server's address is on the bridge.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, network: lab.NewNetwork(t, lab.NetworkOptions{}), log: &transcript.Transcript{}}
	s.network.AddAddress(server6.Host)
	return s
}

// requirePrograms skips the test where a DHCP server is not installed, and fails
// it in CI.
func requirePrograms(t *testing.T, names ...string) {
	t.Helper()
	var missing []error
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, err)
		}
	}
	err := errors.Join(missing...)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("CI must run this test: %v", err)
	default:
		t.Skipf("NOT TESTED: %v\ninstall with: sudo apt-get install -y --no-install-recommends dnsmasq-base kea-dhcp4-server kea-dhcp6-server isc-dhcp-server", err)
	}
}

// write keeps a configuration in a file.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// start runs a server in the network until the test ends, and waits until it has
// said that it is ready.
func (s *site) start(ready string, env []string, name string, args ...string) {
	s.t.Helper()
	s.settle()
	cmd := s.network.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(s.t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", name, s.log)
		}
	})
	deadline := time.After(20 * time.Second)
	for !strings.Contains(s.log.String(), ready) {
		select {
		case <-ended:
			s.t.Fatalf("%s ended before it was ready", name)
		case <-deadline:
			s.t.Fatalf("%s is not ready", name)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// settle waits until all IPv6 addresses can be used: duplicate address detection
// takes a second or two, and servers do not bind before.
func (s *site) settle() {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		out, err := s.network.Command("ip", "-6", "address", "show", "tentative").Output()
		return err == nil && len(bytes.TrimSpace(out)) == 0
	}, 20*time.Second, 50*time.Millisecond, "IPv6 addresses stay tentative")
}

// nic plugs in a NIC with this MAC and returns its name.
func (s *site) nic(mac net.HardwareAddr) string {
	s.t.Helper()
	inside, outside := fmt.Sprintf("nic%d", s.nics), fmt.Sprintf("port%d", s.nics)
	s.nics++
	for _, args := range []string{
		"link add " + inside + " address " + mac.String() + " type veth peer name " + outside,
		"link set " + outside + " master br0",
		"link set " + outside + " up",
		"link set " + inside + " addrgenmode eui64",
		"link set " + inside + " up",
	} {
		out, err := exec.Command("ip", append([]string{"-n", s.network.Netns()}, strings.Fields(args)...)...).CombinedOutput()
		require.NoError(s.t, err, "ip %s: %s", args, out)
	}
	s.settle()
	return inside
}

// inside runs fn on a thread that is in the network: sockets that it makes stay
// there. The thread ends with the call.
func (s *site) inside(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not serve others
		there, err := os.Open(filepath.Join("/run/netns", s.network.Netns()))
		if err == nil {
			err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET)
			_ = there.Close()
		}
		if err == nil {
			err = fn()
		}
		result <- err
	}()
	return <-result
}
