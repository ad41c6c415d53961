package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
)

// fleetSize is how many hosts there are, each with a BMC, a machine and an image.
const fleetSize = 200

// fleetProfiles are the BMCs of a fleet, in turn: all of them can be told a URL.
var fleetProfiles = []string{"generic", "idrac9", "ilo6", "supermicro", "megarac"}

// fleet is many hosts on one LAN, where somebody else's DHCP server gives addresses.
type fleet struct {
	*site
	lan      *lab.ThirdParty
	registry *siteRegistry
	hosts    []*fleetHost
	// asked counts the requests to the API server.
	asked atomic.Int64
}

// fleetHost is one host with all that belongs to it.
type fleetHost struct {
	name, image, format string
	uki                 []byte
	bmc                 *bmc
	machine             *bmcsim.MemoryMachine
	firmware            *netFirmware
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	s := newSite(t)
	s.installMetal3()
	f := &fleet{site: s, lan: s.network.Sniff(t), registry: s.registry()}
	ca := lab.NewCA(t, "bmcs")
	require.NoError(t, os.WriteFile(s.bmcCA(), ca.PEM, 0o600))
	more := fmt.Sprintf("--dhcp-range=%s,%s,1h", s.network.Addr(100), s.network.Addr(254)) // beside .50 to .99
	s.network.Neighbour(t, s.network.Addr(2)).DHCP(lab.DHCPOptions{IgnoreClientID: true, Args: []string{more}})
	certificate := ca.ServerConfig("127.0.0.1") // one for all: to make a key takes longer than the rest
	for i := range fleetSize {
		f.hosts = append(f.hosts, f.newHost(i, certificate))
	}
	return f
}

// newHost makes host i with its image, its BMC and its firmware: every other one is
// diskless.
func (f *fleet) newHost(i int, certificate *tls.Config) *fleetHost {
	f.t.Helper()
	h := &fleetHost{name: fmt.Sprintf("host-%03d", i), format: []string{"raw", "live-iso"}[i%2]}
	var err error
	h.uki, err = demoimage.Greeting("amd64", "This is the image of "+h.name)
	require.NoError(f.t, err)
	h.image = f.registry.publish("os/"+h.name, "1", map[string][]byte{"amd64": h.uki})
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x77, byte(i >> 8), byte(i)}
	h.firmware = &netFirmware{fleet: f, mac: mac, boots: make(chan string, 16)}
	go h.firmware.run(f.t.Context())
	h.machine = bmcsim.NewMemoryMachine(h.firmware.start, firmwareOptions...)
	h.bmc = f.memoryBMC(certificate, nil, bmcsim.Options{
		Profile: fleetProfiles[i%len(fleetProfiles)], Machine: h.machine, UUID: fmt.Sprintf("00112233-4455-6677-8899-%012x", i+1),
		Hardware: bmcsim.Hardware{NICs: []bmcsim.NIC{{MAC: mac.String()}}},
	})
	return h
}

// firmwareOptions are the boot order of each machine.
var firmwareOptions = []bmcsim.BootOption{
	{Reference: "Boot0000", Name: "Disk", Kind: bmcsim.KindDisk},
	{Reference: "Boot0001", Name: "UEFI HTTPv4", Kind: bmcsim.KindHTTP},
}

// netFirmware boots what its BMC was told as UEFI and an operating system do: it
// gets an address by DHCP, asks from there, and keeps what it got, which may be read
// once booted counts it.
type netFirmware struct {
	*fleet
	mac   net.HardwareAddr
	boots chan string // URLs

	addr          netip.Addr
	uki, ignition []byte
	// booted counts what it got whole, image and Ignition; again how often it was
	// told that there is no image just now.
	booted, again atomic.Int32
}

// start is told what the machine tries first.
func (f *netFirmware) start(next bmcsim.NextBoot) {
	if next.Kind == bmcsim.KindHTTP {
		f.boots <- next.URL
	}
}

// run boots until ctx ends.
func (f *netFirmware) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case url := <-f.boots:
			time.Sleep(post)
			if err := f.boot(ctx, url); err != nil && ctx.Err() == nil {
				f.t.Errorf("the firmware of %s (%s): %v", f.mac, f.addr, err)
			}
		}
	}
}

func (f *netFirmware) boot(ctx context.Context, url string) (err error) {
	if f.addr, err = f.lease(); err != nil {
		return err
	}
	f.network.AddAddress(f.addr)
	for f.uki, err = f.load(ctx, url); errors.Is(err, errNotNow); f.uki, err = f.load(ctx, url) {
		f.again.Add(1)
		time.Sleep(post)
	}
	if err != nil {
		return err
	}
	if f.ignition, err = f.ignite(ctx); err != nil {
		return err
	}
	f.booted.Add(1)
	return nil
}

// dhcpTries is how often EDK2 sends a DISCOVER; it waits 4 s for the first answer.
const (
	dhcpTries = 4
	dhcpWait  = 4 * time.Second
)

// lease gets an address as UEFI HTTP Boot does (RFC 2131, section 3.1; UEFI 2.10,
// section 24.7).
func (f *netFirmware) lease() (netip.Addr, error) {
	asFirmware := []dhcpv4.Modifier{
		dhcpv4.WithBroadcast(true),
		dhcpv4.WithGeneric(dhcpv4.OptionClassIdentifier, []byte("HTTPClient:Arch:00016:UNDI:003001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 16}),
	}
	for i := range dhcpTries {
		discover, err := dhcpv4.NewDiscovery(f.mac, asFirmware...)
		if err != nil {
			return netip.Addr{}, err
		}
		offer, ok := f.exchange(discover, dhcpWait<<i, dhcpv4.MessageTypeOffer)
		if !ok {
			continue
		}
		request, err := dhcpv4.NewRequestFromOffer(offer, asFirmware...)
		if err != nil {
			return netip.Addr{}, err
		}
		ack, ok := f.exchange(request, dhcpWait, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak)
		if addr, _ := netip.AddrFromSlice(request.RequestedIPAddress().To4()); ok && ack.MessageType() == dhcpv4.MessageTypeAck {
			return addr, nil
		}
	}
	return netip.Addr{}, errors.New("no DHCP server gave an address")
}

// exchange sends a message and waits for an answer of one of the types.
func (f *netFirmware) exchange(m *dhcpv4.DHCPv4, within time.Duration, types ...dhcpv4.MessageType) (*dhcpv4.DHCPv4, bool) {
	f.lan.SendDHCP(lab.ForgedDHCP{Message: m})
	frame, ok := f.lan.Await(within, func(frame lab.Frame) bool {
		answer, is := frame.DHCP()
		return is && answer.TransactionID == m.TransactionID && slices.Contains(types, answer.MessageType())
	})
	if !ok {
		return nil, false
	}
	return frame.DHCP()
}

// errNotNow is an answer with 503: firmware begins its boot options anew when all of
// them failed.
var errNotNow = errors.New("the boot server cannot serve now")

// load asks as OVMF does: HEAD and GET on one connection.
func (f *netFirmware) load(ctx context.Context, url string) ([]byte, error) {
	c := f.network.HTTPClient(f.addr)
	defer c.CloseIdleConnections()
	head, _, err := f.ask(ctx, c, http.MethodHead, url, "UefiHttpBoot/1.0")
	if err != nil {
		return nil, err
	}
	get, body, err := f.ask(ctx, c, http.MethodGet, url, "UefiHttpBoot/1.0")
	if err != nil {
		return nil, err
	}
	if head.StatusCode == http.StatusServiceUnavailable || get.StatusCode == http.StatusServiceUnavailable {
		return nil, errNotNow
	}
	for _, a := range []*http.Response{head, get} {
		if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/efi" || a.ContentLength != int64(len(body)) {
			return nil, fmt.Errorf("%s was answered with %s, %q, %d bytes, and %d came: %.300s", a.Request.Method, a.Status, a.Header.Get("Content-Type"), a.ContentLength, len(body), body)
		}
	}
	return body, nil
}

// ignite asks as Ignition does, again where the server says that it cannot answer
// yet.
func (f *netFirmware) ignite(ctx context.Context) ([]byte, error) {
	c := f.network.HTTPClient(f.addr)
	defer c.CloseIdleConnections()
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		a, body, err := f.ask(ctx, c, http.MethodGet, f.url("/ignition"), "Ignition/2.18.0")
		switch {
		case err != nil:
			return nil, err
		case a.StatusCode == http.StatusOK:
			return body, nil
		case a.StatusCode < 500:
			return nil, fmt.Errorf("/ignition was answered with %s: %.300s", a.Status, body)
		}
		time.Sleep(wait)
	}
}

// ask sends one request and reads the answer whole.
func (f *netFirmware) ask(ctx context.Context, c *http.Client, method, url, agent string) (*http.Response, []byte, error) {
	q, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, nil, err
	}
	q.Header.Set("User-Agent", agent)
	q.Header.Set("Accept", "*/*")
	a, err := c.Do(q)
	if err != nil {
		return nil, nil, err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	return a, body, err
}

// declareAll creates all hosts, with their Secrets.
func (f *fleet) declareAll() {
	f.t.Helper()
	for _, h := range f.hosts {
		o := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Name: h.name}}
		o.Spec.BMC = metal3.BMCDetails{Address: h.bmc.address, CredentialsName: h.name + "-bmc"}
		o.Spec.BootMACAddress = h.firmware.mac.String()
		f.create(f.userDataIgnition(h.name, "user-data-of-"+h.name),
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: h.name + "-bmc"}, StringData: map[string]string{"username": bmcUser, "password": bmcPassword}}, o)
	}
}

// phase does something to the fleet and waits until all hosts are as wanted; it
// returns how long that took. One host is looked at at a time: lists of all of them
// would keep the API server busy.
func (f *fleet) phase(what string, begin func(), is func(*metal3.BareMetalHost) bool) time.Duration {
	f.t.Helper()
	start := time.Now()
	begin()
	for _, h := range f.hosts {
		f.hostWhere(h.name, what, is)
	}
	return time.Since(start)
}

// gotItsOwn says that a machine booted once, and got its own bytes and its own
// Ignition.
func (h *fleetHost) gotItsOwn(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return h.firmware.booted.Load() == 1 }, bootTime, 10*time.Millisecond, "%s booted once", h.name)
	boots, last := h.machine.Boots()
	require.Equal(t, 1, boots, "%s: boots, %+v", h.name, h.bmc.Resets())
	require.Equal(t, 1, h.bmc.switched(), "%s: %+v", h.name, h.bmc.Resets())
	require.Contains(t, last.URL, "/httpboot/t/", h.name)
	require.True(t, bytes.Equal(h.uki, h.firmware.uki), "%s got its own image", h.name)
	require.JSONEq(t, ignitionFile("user-data-of-"+h.name), string(h.firmware.ignition), h.name)
}

// wasAskedCarefully says that a BMC had one request at a time, with a session that
// was closed each time, and returns how many requests there were.
func (h *fleetHost) wasAskedCarefully(t *testing.T) (requests, sessions int) {
	t.Helper()
	require.Equal(t, 1, h.bmc.MaxInFlight(), "%s: requests at once", h.name)
	require.Zero(t, h.bmc.OpenSessions(), "%s: sessions left open", h.name)
	closed := 0
	log := h.bmc.Log()
	for _, r := range log {
		require.NotEqual(t, "basic", r.Auth, "%s: %s %s", h.name, r.Method, r.Path)
		switch {
		case r.Method == http.MethodPost && strings.Contains(r.Path, "/Sessions"):
			sessions++
		case r.Method == http.MethodDelete && strings.Contains(r.Path, "/Sessions/"):
			closed++
		}
	}
	require.Positive(t, sessions, h.name)
	require.Equal(t, sessions, closed, "%s: sessions", h.name)
	return len(log), sessions
}

// peak is the most memory that the operator had, in MiB (proc(5): VmHWM).
func (o *operator) peak() float64 {
	o.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.cmd.Process.Pid))
	require.NoError(o.t, err)
	_, rest, found := strings.Cut(string(status), "VmHWM:")
	require.True(o.t, found)
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	require.NoError(o.t, err)
	return kib / 1024
}

// stop ends the operator as Kubernetes does, and returns the CPU time that it took.
func (o *operator) stop() time.Duration {
	o.t.Helper()
	require.NoError(o.t, o.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-o.done:
	case <-time.After(bootTime):
		o.t.Fatalf("the operator did not end within %s", bootTime)
	}
	return o.cmd.ProcessState.UserTime() + o.cmd.ProcessState.SystemTime()
}

// Two hundred hosts at once, each behind a BMC of its own: available, provisioned
// and released, each machine booted once with what is its own, one request at a time
// for each BMC and no session left open. It runs alone, for its figures.
func TestTwoHundredBareMetalHostsAreProvisionedAndReleased(t *testing.T) {
	f := newFleet(t)
	f.api.at(func(*http.Request) { f.asked.Add(1) }, nil)
	op := f.drive(f.registry, f.pinning(), "--bmc-sessions", "--bmc-power-interval=1m", "--resolve-interval=5m", "--zap-devel=false")

	available := f.phase("available", f.declareAll, func(h *metal3.BareMetalHost) bool {
		return h.Status.Provisioning.State == metal3.StateAvailable && h.Status.ErrorMessage == ""
	})
	provisioned := f.phase("provisioned", f.bootAll, func(h *metal3.BareMetalHost) bool {
		return h.Status.Provisioning.State == metal3.StateProvisioned && h.Status.ErrorMessage == ""
	})
	for _, h := range f.hosts {
		h.gotItsOwn(t)
	}
	released := f.phase("released", f.releaseAll, func(h *metal3.BareMetalHost) bool {
		return h.Status.Provisioning.State == metal3.StateAvailable && !h.Status.PoweredOn && h.Status.Provisioning.Image.URL == ""
	})
	f.isClean()
	f.tellsNoToken(op)
	memory, cpu := op.peak(), op.stop() // in this order
	f.wasAskedCarefully()
	for _, figure := range []struct {
		name  string
		value float64
	}{
		{"available-seconds", available.Seconds()},
		{"provisioned-seconds", provisioned.Seconds()},
		{"released-seconds", released.Seconds()},
		{"cpu-seconds", cpu.Seconds()},
		{"peak-MiB", memory},
	} {
		t.Logf("FIGURE hosts-%d-%s %.1f", fleetSize, figure.name, figure.value)
	}
}

func (f *fleet) bootAll() {
	for _, h := range f.hosts {
		f.boot(h.name, h.image, h.format)
	}
}

func (f *fleet) releaseAll() {
	for _, h := range f.hosts {
		f.change(h.name, func(h *metal3.BareMetalHost) { h.Spec.Image, h.Spec.UserData, h.Spec.Online = nil, nil, false })
	}
}

// wasAskedCarefully looks at all BMCs, and prints how much was asked of them and of
// the API server, and how often firmware was put off.
func (f *fleet) wasAskedCarefully() {
	f.t.Helper()
	requests, sessions, again := 0, 0, 0
	for _, h := range f.hosts {
		r, s := h.wasAskedCarefully(f.t)
		requests, sessions, again = requests+r, sessions+s, again+int(h.firmware.again.Load())
	}
	f.t.Logf("FIGURE hosts-%d-bmc-requests-each %.1f", fleetSize, float64(requests)/fleetSize)
	f.t.Logf("FIGURE hosts-%d-bmc-sessions-each %.1f", fleetSize, float64(sessions)/fleetSize)
	f.t.Logf("FIGURE hosts-%d-api-requests-each %.1f", fleetSize, float64(f.asked.Load())/fleetSize)
	f.t.Logf("FIGURE hosts-%d-boots-put-off %d", fleetSize, again)
}

// isClean says that no host has a config left, and that no machine is on or was
// switched on again.
func (f *fleet) isClean() {
	f.t.Helper()
	for _, list := range []client.ObjectList{&v1alpha1.HTTPBootConfigList{}, &v1alpha1.IPXEBootConfigList{}} {
		require.NoError(f.t, f.client.List(context.Background(), list, client.InNamespace(f.namespace)))
		require.Zero(f.t, meta.LenList(list), "%T", list)
	}
	for _, h := range f.hosts {
		require.False(f.t, h.machine.IsOn(), h.name)
		boots, _ := h.machine.Boots()
		require.Equal(f.t, 1, boots, "%s: %+v", h.name, h.bmc.Resets())
	}
}
