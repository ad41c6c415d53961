package netboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"github.com/pin/tftp/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/lab"
)

// serveVariable makes the test's binary a server on this interface; its programs
// are in the directory that programsVariable names.
const (
	serveVariable    = "NETBOOT_TEST_SERVE"
	programsVariable = "NETBOOT_TEST_PROGRAMS"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(serveVariable); name != "" {
		if err := serveForTest(name); err != nil {
			fmt.Println("FAILED", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveForTest runs the real server with plans of the tests, and prints what it
// observes.
func serveForTest(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	keys, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		return err
	}
	attempts := &printingAttempts{fakeAttempts{current: map[string]boot.Attempt{}, coming: map[string]error{}}}
	s, err := New(Options{
		Source: &fakeSource{plans: []*boot.Plan{httpPlan(), ipxePlan()}}, Attempts: attempts,
		Issuer: boot.NewIssuer(keys, attempts, time.Now), Interfaces: []string{name},
		Relays:  []netip.Prefix{netip.MustParsePrefix("10.77.0.9/32")},
		BaseURL: func(local netip.Addr) string { return "http://" + local.String() + ":8082" }, ProgramDir: os.Getenv(programsVariable),
		Logger: funcr.New(func(_, args string) { fmt.Println(args) }, funcr.Options{}), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

type printingAttempts struct{ fakeAttempts }

func (p *printingAttempts) Observe(o boot.Observation) {
	fmt.Println("OBSERVED", o.Stage, o.MAC, o.Firmware, o.Detail)
}

// lan is a bridge with a server on it, the machine that has a plan, and a third
// machine.
type lan struct {
	t       *testing.T
	network *lab.Network
	machine port
	third   port
	output  *lockedBuffer
}

// port is a machine: a namespace with one interface.
type port struct {
	t     *testing.T
	netns string
	mac   boot.MAC
	conn  *packet.Conn
}

func newLAN(t *testing.T, dir string) *lan {
	lab.Require(t, lab.Root)
	l := &lan{t: t, network: lab.NewNetwork(t, lab.NetworkOptions{}), output: &lockedBuffer{}}
	l.machine = l.plug(1, macA, l.network.Addr(50))
	l.third = l.plug(2, macB, l.network.Addr(9))
	command := l.network.Command(os.Args[0])
	command.Env = append(os.Environ(), serveVariable+"=br0", programsVariable+"="+dir)
	command.Stdout, command.Stderr = l.output, l.output
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		require.NoError(t, command.Process.Signal(syscall.SIGTERM))
		require.NoError(t, command.Wait(), l.output.String())
		if t.Failed() {
			t.Log(l.output.String())
		}
	})
	l.wait("Serving network boots")
	return l
}

// plug makes a machine on the bridge.
func (l *lan) plug(number int, mac boot.MAC, addr netip.Addr) port {
	l.t.Helper()
	name := fmt.Sprintf("netboot-test-%d-%d", os.Getpid(), number)
	here, there := fmt.Sprintf("p%d", number), "eth0"
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	for _, args := range []string{
		"netns add " + name,
		"-n " + l.network.Netns() + " link add " + here + " type veth peer name " + there + " netns " + name,
		"-n " + l.network.Netns() + " link set " + here + " master br0 up",
		"-n " + name + " link set " + there + " address " + string(mac) + " up",
		"-n " + name + " addr add " + addr.String() + "/24 dev " + there,
	} {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		require.NoError(l.t, err, "ip %s: %s", args, out)
	}
	p := port{t: l.t, netns: name, mac: mac}
	p.inside(func() {
		nic, err := net.InterfaceByName(there)
		require.NoError(l.t, err)
		p.conn, err = packet.Listen(nic, packet.Raw, 3, nil) // ETH_P_ALL: its own frames too
		require.NoError(l.t, err)
		require.NoError(l.t, p.conn.SetPromiscuous(true))
	})
	l.t.Cleanup(func() { p.conn.Close() })
	return p
}

// inside calls fn on a thread that is in the machine's namespace.
func (p port) inside(fn func()) {
	p.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ends with the goroutine
		namespace, err := os.Open("/run/netns/" + p.netns)
		if err == nil {
			err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
			namespace.Close()
		}
		if err != nil {
			p.t.Errorf("entering a namespace: %v", err)
			return
		}
		fn()
	}()
	<-done
}

// send broadcasts a message to the server's port, from a given Ethernet address.
func (p port) send(from boot.MAC, source string, to uint16, payload []byte) {
	p.t.Helper()
	d := datagram{
		source: netip.MustParseAddrPort(source), payload: payload,
		destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), to),
	}
	b := appendFrame(nil, "00:00:00:00:00:00", from, d)
	copy(b, []byte{255, 255, 255, 255, 255, 255})
	_, err := p.conn.WriteTo(b, &packet.Addr{HardwareAddr: b[:6]})
	require.NoError(p.t, err)
}

// frame is one that a machine saw, with the Ethernet address it went to.
type frame struct {
	to net.HardwareAddr
	datagram
}

// receive returns the next datagram to one of the ports; false when none comes.
func (p port) receive(wait time.Duration, ports ...uint16) (frame, bool) {
	p.t.Helper()
	require.NoError(p.t, p.conn.SetReadDeadline(time.Now().Add(wait)))
	b := make([]byte, 4096)
	for {
		n, _, err := p.conn.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return frame{}, false
		}
		require.NoError(p.t, err)
		d, ok := readFrame(b[:n])
		for _, port := range ports {
			if ok && d.destination.Port() == port {
				return frame{append(net.HardwareAddr(nil), b[:6]...), d}, true
			}
		}
	}
}

func (l *lan) wait(text string) {
	l.t.Helper()
	require.Eventually(l.t, func() bool { return strings.Contains(l.output.String(), text) }, 15*time.Second, 10*time.Millisecond, "%s", l.output)
}

const (
	patience = 5 * time.Second
	// silence is how long nothing must come; the server answers within 1 ms.
	quietly = 300 * time.Millisecond
)

func TestAnOfferReachesTheMachineAndNoThirdPort(t *testing.T) {
	l := newLAN(t, programs(t))
	l.third.send(macB, "0.0.0.0:68", portServer, discover(macB, "an installed system", 7)) // so that the bridge knows where it is
	l.machine.send(macA, "0.0.0.0:68", portServer, discover(macA, httpX64, 16))
	f, ok := l.machine.receive(patience, portClient)
	require.True(t, ok, l.output)
	require.Equal(t, string(macA), f.to.String(), "a frame for one machine")
	require.Equal(t, "255.255.255.255:68", f.destination.String())
	require.Equal(t, "10.77.0.1:67", f.source.String())
	d, err := dhcpv4.FromBytes(f.payload)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(d.Options[optBootFile]), "http://10.77.0.1:8082/httpboot/t/"))
	_, ok = l.third.receive(quietly, portServer)
	require.True(t, ok, "a control: the DISCOVER was for all to see")
	_, ok = l.third.receive(quietly, portClient)
	require.False(t, ok, "the third machine saw the offer")
	l.wait("OBSERVED BootOffer " + string(macA) + " x86-64 UEFI HTTP")
	require.NotContains(t, l.output.String(), "/t/")

	l.third.send(macB, "0.0.0.0:68", portServer, discover(macA, httpX64, 16))
	_, ok = l.third.receive(quietly, portClient)
	require.False(t, ok, "a forged DISCOVER was answered")
	_, ok = l.machine.receive(quietly, portClient)
	require.False(t, ok, "a forged DISCOVER was answered")

	l.third.send(macB, "0.0.0.0:68", portServer, discover(macA, httpX64, 16, via(l.network.Addr(9), "port 7")))
	_, ok = l.third.receive(quietly, portClient, portServer)
	require.False(t, ok, "a forged giaddr was answered")

	l.third.send(macB, "0.0.0.0:68", portServer, discover(macB, httpX64, 16, option(optMachine)))
	_, ok = l.third.receive(quietly, portClient)
	require.False(t, ok, "a machine without a plan was answered")
}

func TestARelayIsAnsweredByUnicast(t *testing.T) {
	l := newLAN(t, programs(t))
	l.third.send(macB, "10.77.0.9:67", portServer, discover(macA, httpX64, 16, via(l.network.Addr(9), "port 7")))
	f, ok := l.third.receive(patience, portServer)
	for ok && f.source.Addr() != l.network.Gateway() { // its own
		f, ok = l.third.receive(patience, portServer)
	}
	require.True(t, ok, l.output)
	require.Equal(t, string(macB), f.to.String())
	require.Equal(t, "10.77.0.9:67", f.destination.String())
	require.Equal(t, "10.77.0.1:67", f.source.String())
	d, err := dhcpv4.FromBytes(f.payload)
	require.NoError(t, err)
	require.False(t, d.IsBroadcast())
	require.Equal(t, []byte("\x01\x06port 7"), d.Options[optRelay])
	require.Contains(t, string(d.Options[optBootFile]), "/httpboot/t/")
}

func TestAForeignBootOfferOnTheSegmentIsSeen(t *testing.T) {
	l := newLAN(t, programs(t))
	l.third.send(macB, "10.77.0.9:67", portClient, offerOf(option(optBootFile, []byte("http://192.0.2.1/x.efi")...)))
	l.wait("OBSERVED ForeignBootOffer " + string(macA) + "  the DHCP server 10.77.0.3 offers http://192.0.2.1/x.efi")
}

func TestNoPortIsCalledUnreachable(t *testing.T) {
	l := newLAN(t, programs(t))
	l.machine.inside(func() {
		for _, port := range []uint16{portServer, portPXE} {
			conn, err := net.Dial("udp4", netip.AddrPortFrom(l.network.Gateway(), port).String())
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write([]byte("hello"))
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(quietly)))
			_, err = conn.Read(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, "port %d", port)
		}
	})
}

func TestAnotherDHCPServerMayRunOnTheHost(t *testing.T) {
	lab.Require(t, lab.DHCP)
	l := newLAN(t, programs(t))
	dnsmasq := l.network.Command("dnsmasq", "-d", "--port=0", "--conf-file=/dev/null", "--interface=br0", "--bind-interfaces",
		"--except-interface=lo", "--no-ping", "--dhcp-range=10.77.0.100,10.77.0.120,1h", "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"))
	dnsmasq.Stderr = l.output
	require.NoError(t, dnsmasq.Start())
	t.Cleanup(func() {
		require.NoError(t, dnsmasq.Process.Kill())
		_ = dnsmasq.Wait()
	})
	l.wait("DHCP, sockets bound exclusively")
	l.machine.send(macA, "0.0.0.0:68", portServer, discover(macA, httpX64, 16))
	var address, program bool
	for !address || !program {
		f, ok := l.machine.receive(patience, portClient)
		require.True(t, ok, "address %t, program %t\n%s", address, program, l.output)
		d, err := dhcpv4.FromBytes(f.payload)
		require.NoError(t, err)
		if d.YourIPAddr.IsUnspecified() {
			program = true
		} else {
			address = true
		}
	}
	require.NotContains(t, l.output.String(), "ForeignBootOffer", "it offers only an address")
}

// A plain BIOS PXE client, packet by packet.
func TestABIOSClientLoadsUndionly(t *testing.T) {
	dir := "/usr/lib/ipxe"
	content, err := os.ReadFile(filepath.Join(dir, "undionly.kpxe"))
	if err != nil {
		dir, content = programs(t), []byte("packed")
	}
	l := newLAN(t, dir)
	l.machine.send(macA, "0.0.0.0:68", portServer, discover(macA, pxeBIOS, 0))
	f, ok := l.machine.receive(patience, portClient)
	require.True(t, ok, l.output)
	d, err := dhcpv4.FromBytes(f.payload)
	require.NoError(t, err)
	require.Equal(t, dhcpv4.MessageTypeOffer, d.MessageType())
	require.True(t, d.YourIPAddr.IsUnspecified())
	require.Equal(t, "10.77.0.1", d.ServerIPAddr.String())
	require.Equal(t, "undionly.kpxe", d.BootFileName)
	require.Equal(t, dhcpv4.Options{
		optType: {2}, optServer: {10, 77, 0, 1}, optClass: []byte("PXEClient"), optBootFile: []byte("undionly.kpxe"),
		optVendor: {6, 1, 8, 255}, optMachine: guid(uuidA),
	}, d.Options)

	// A client that asks port 4011 all the same.
	l.machine.send(macA, "10.77.0.50:4011", portPXE, discover(macA, pxeBIOS, 0, option(optType, 3)))
	f, ok = l.machine.receive(patience, portPXE)
	for ok && f.source.Addr() != l.network.Gateway() { // its own
		f, ok = l.machine.receive(patience, portPXE)
	}
	require.True(t, ok, l.output)
	require.Equal(t, "10.77.0.50:4011", f.destination.String())
	d, err = dhcpv4.FromBytes(f.payload)
	require.NoError(t, err)
	require.Equal(t, dhcpv4.MessageTypeAck, d.MessageType())

	l.machine.inside(func() {
		c, err := tftp.NewClient(d.ServerIPAddr.String() + ":69")
		require.NoError(t, err)
		c.RequestTSize(true)
		c.SetBlockSize(1456)
		from, err := c.Receive(d.BootFileName, "octet")
		require.NoError(t, err)
		size, ok := from.(tftp.IncomingTransfer).Size()
		require.True(t, ok)
		require.EqualValues(t, len(content), size)
		var b bytes.Buffer
		_, err = from.WriteTo(&b)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, b.Bytes()))
	})
	l.byDebiansClient(content)
	l.wait("OBSERVED BootOffer " + string(macA) + " x86 BIOS PXE")
}

// byDebiansClient loads the file with tftp-hpa, where it is installed.
func (l *lan) byDebiansClient(content []byte) {
	program, err := exec.LookPath("tftp")
	if err != nil {
		require.NotEqual(l.t, "true", os.Getenv("CI"), "CI must have tftp-hpa")
		l.t.Log("NOT TESTED: a transfer by tftp-hpa, which is not installed")
		return
	}
	got := filepath.Join(l.t.TempDir(), "got")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", l.machine.netns, program, "10.77.0.1", "-m", "binary", "-c", "get", "undionly.kpxe", got).CombinedOutput()
	require.NoError(l.t, err, "%s", out)
	read, err := os.ReadFile(got)
	require.NoError(l.t, err, "%s", out)
	require.True(l.t, bytes.Equal(content, read), "%s", out)
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	l := lab.NewNetwork(t, lab.NetworkOptions{})
	keys := &boot.Keyring{}
	good := func() Options {
		attempts := &fakeAttempts{}
		return Options{
			Source: &fakeSource{}, Attempts: attempts, Issuer: boot.NewIssuer(keys, attempts, time.Now), Interfaces: []string{"br0"},
			BaseURL: func(netip.Addr) string { return baseURL }, ProgramDir: programs(t),
		}
	}
	p := port{t: t, netns: l.Netns()}
	for text, c := range map[string]func(*Options){
		"":                                func(*Options) {},
		`looking up the interface "eth7"`: func(o *Options) { o.Interfaces = []string{"eth7"} },
		"is no Ethernet interface":        func(o *Options) { o.Interfaces = []string{"lo"} },
		"at least one interface":          func(o *Options) { o.Interfaces = nil },
		"reading the directory":           func(o *Options) { o.ProgramDir = "/nonexistent" },
		"is not an IPv4 prefix":           func(o *Options) { o.Relays = []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")} },
		"is not one such as http://":      func(o *Options) { o.BaseURL = func(netip.Addr) string { return "10.0.0.1" } },
		"is too long":                     func(o *Options) { o.BaseURL = func(netip.Addr) string { return "http://" + strings.Repeat("x", 100) } },
		"needs a source":                  func(o *Options) { o.Source = nil },
	} {
		o := good()
		c(&o)
		p.inside(func() {
			_, err := New(o)
			if text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, text)
		})
	}
	require.NoError(t, exec.Command("ip", "-n", l.Netns(), "addr", "flush", "dev", "br0").Run())
	p.inside(func() {
		_, err := New(good())
		require.ErrorContains(t, err, "has no IPv4 address")
	})
}
