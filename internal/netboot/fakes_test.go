package netboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	uuidA = boot.UUID("00112233-4455-6677-8899-aabbccddeeff")
	uuidB = boot.UUID("a0b1c2d3-e4f5-0617-2839-4a5b6c7d8e9f")
	macA  = boot.MAC("52:54:00:aa:bb:01")
	macA2 = boot.MAC("52:54:00:aa:bb:02")
	macB  = boot.MAC("52:54:00:aa:bb:0b")

	baseURL = "http://10.77.0.1:8082"
)

var (
	t0    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	local = netip.MustParseAddr("10.77.0.1")
	relay = netip.MustParseAddr("10.88.0.1")
)

// fakeSource finds plans in a list. Broken makes every look-up fail.
type fakeSource struct {
	plans  []*boot.Plan
	broken error
}

func (f *fakeSource) find(match func(*boot.Plan) bool) ([]*boot.Plan, error) {
	if f.broken != nil {
		return nil, f.broken
	}
	var out []*boot.Plan
	for _, p := range f.plans {
		if match(p) {
			out = append(out, p)
		}
	}
	switch {
	case out == nil:
		return nil, boot.ErrNotFound
	case len(out) == 2 && out[0].Object.Kind == out[1].Object.Kind:
		return nil, boot.ErrAmbiguous
	}
	return out, nil
}

func (f *fakeSource) ByMAC(m boot.MAC) ([]*boot.Plan, error) {
	return f.find(func(p *boot.Plan) bool { return slices.Contains(p.Machine.MACs, m) })
}

func (f *fakeSource) ByUUID(u boot.UUID) ([]*boot.Plan, error) {
	return f.find(func(p *boot.Plan) bool { return p.Machine.UUID == u || p.Machine.UUID.Swapped() == u })
}

func (f *fakeSource) ByAddr(netip.Addr) ([]*boot.Plan, error)   { return nil, boot.ErrNotFound }
func (f *fakeSource) ByBootAddr(netip.Addr) (*boot.Plan, error) { return nil, boot.ErrNotFound }
func (f *fakeSource) ProvesNothing(netip.Addr) bool             { return false }
func (f *fakeSource) ByObject(uid string) (*boot.Plan, error) {
	plans, err := f.find(func(p *boot.Plan) bool { return p.Object.UID == uid })
	if err != nil {
		return nil, err
	}
	return plans[0], nil
}
func (f *fakeSource) PublicArtifact(boot.Digest) (boot.Artifact, error) {
	return boot.Artifact{}, boot.ErrNotFound
}

// fakeAttempts tells what the test put in, by UID.
type fakeAttempts struct {
	mu       sync.Mutex
	current  map[string]boot.Attempt
	coming   map[string]error
	observed []boot.Observation
}

func (f *fakeAttempts) Current(p *boot.Plan) boot.Attempt { return f.current[p.Object.UID] }

func (f *fakeAttempts) Coming(p *boot.Plan) (boot.Attempt, error) {
	return boot.Attempt{Number: f.current[p.Object.UID].Number + 1}, f.coming[p.Object.UID]
}

func (f *fakeAttempts) Begin(*boot.Plan, boot.Client) (boot.Attempt, error) {
	panic("netboot begins no attempt")
}

func (f *fakeAttempts) Commit(context.Context, *boot.Plan, boot.Attempt, boot.Digest, netip.Addr, string) error {
	panic("netboot commits nothing")
}

func (f *fakeAttempts) Refresh(context.Context, *boot.Plan) (boot.Attempt, error) {
	panic("netboot waits for nobody")
}

func (f *fakeAttempts) Observe(o boot.Observation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observed = append(f.observed, o)
}

func httpPlan() *boot.Plan {
	return &boot.Plan{
		Object:       boot.Ref{Kind: kindHTTP, Namespace: "ns", Name: "a", UID: "11111111-1111-1111-1111-111111111111"},
		Machine:      boot.Machine{UUID: uuidA, MACs: []boot.MAC{macA, macA2}, Architecture: boot.AMD64},
		Artifacts:    []boot.Artifact{{Role: boot.RoleUKI, Digest: "sha256:00"}},
		Policy:       boot.Always,
		MinimumProof: boot.Address,
	}
}

func ipxePlan() *boot.Plan {
	p := httpPlan()
	p.Object.Kind, p.Object.UID = kindIPXE, "22222222-2222-2222-2222-222222222222"
	p.Artifacts = []boot.Artifact{{Role: boot.RoleKernel, Digest: "sha256:01"}}
	return p
}

// world is a server without sockets, and what it looks at.
type world struct {
	*Server
	t        testing.TB
	source   *fakeSource
	attempts *fakeAttempts
	keys     *boot.Keyring
	now      time.Time
	log      *lockedBuffer
}

func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	w := &world{
		t: t, now: t0, log: &lockedBuffer{},
		source:   &fakeSource{plans: []*boot.Plan{httpPlan()}},
		attempts: &fakeAttempts{current: map[string]boot.Attempt{}, coming: map[string]error{}},
	}
	var err error
	w.keys, err = boot.NewKeyring(boot.TokenKey{ID: 1, Secret: bytes.Repeat([]byte{7}, 32)})
	require.NoError(t, err)
	clock := func() time.Time { return w.now }
	o := Options{
		Source: w.source, Attempts: w.attempts, Issuer: boot.NewIssuer(w.keys, w.attempts, clock),
		Interfaces: []string{"eth0"}, Relays: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/30")},
		BaseURL: func(netip.Addr) string { return baseURL }, ProgramDir: programs(t),
		Logger: funcr.New(func(_, args string) { _, _ = w.log.Write([]byte(args + "\n")) }, funcr.Options{}), Registerer: prometheus.NewRegistry(), Now: clock,
	}
	for _, c := range change {
		c(&o)
	}
	require.NoError(t, o.validate())
	w.Server = newServer(o)
	w.segments = []segment{{name: "eth0", addr: local, base: baseURL, mtu: 1500, addrs: map[netip.Addr]bool{local: true}}}
	w.local[local] = true
	w.rescan()
	return w
}

// attached is where a DISCOVER of this machine comes from when nobody lies.
func attachedArrival(mac boot.MAC) arrival {
	return arrival{local: local, base: baseURL, ethernet: mac, source: netip.MustParseAddrPort("0.0.0.0:68"), port: portServer}
}

func relayed() arrival {
	return arrival{local: local, base: baseURL, ethernet: "52:54:00:00:00:fe", source: netip.AddrPortFrom(relay, 67), port: portServer}
}

// message builds a client's message; a change may make it a lie.
type message = dhcpv4.DHCPv4

func discover(mac boot.MAC, class string, arch uint16, change ...func(*message)) []byte {
	d := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: macBytes(mac),
		TransactionID: dhcpv4.TransactionID{1, 2, 3, 4}, Flags: 0x8000,
		Options: dhcpv4.Options{
			optType: {byte(dhcpv4.MessageTypeDiscover)}, optClass: []byte(class),
			optArch: binary.BigEndian.AppendUint16(nil, arch), optMachine: guid(uuidA),
		},
	}
	for _, c := range change {
		c(d)
	}
	return d.ToBytes()
}

// guid is option 97 as firmware sends it: the first fields little-endian.
func guid(u boot.UUID) []byte {
	b, err := u.Swapped().Bytes()
	if err != nil {
		panic(err)
	}
	return append([]byte{0}, b[:]...)
}

func option(code uint8, value ...byte) func(*message) {
	return func(d *message) {
		if value == nil {
			delete(d.Options, code)
			return
		}
		d.Options[code] = value
	}
}

func via(giaddr netip.Addr, circuit string) func(*message) {
	return func(d *message) {
		d.GatewayIPAddr, d.HopCount = giaddr.AsSlice(), 1
		if circuit != "" {
			d.Options[optRelay] = append([]byte{1, byte(len(circuit))}, circuit...)
		}
	}
}

// programs makes a directory with programs of all kinds.
func programs(t testing.TB) string {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "arm64"), 0o755))
	write(t, dir, "ipxe.efi", pe(0x8664, "ipxe"))
	write(t, dir, "snponly.efi", pe(0x8664, "snp"))
	write(t, dir, "arm64/snponly.efi", pe(0xaa64, "arm"))
	write(t, dir, "undionly.kpxe", []byte("packed"))
	return dir
}

func write(t testing.TB, dir, name string, content []byte) {
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
}

// pe is the beginning of a PE file, with some text in it.
func pe(machine uint16, text string) []byte {
	b := make([]byte, 128)
	copy(b, "MZ")
	b[60] = 64
	copy(b[64:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[68:], machine)
	return append(b, text...)
}

// tokenIn returns the token of a URL, which must be valid.
func (w *world) tokenIn(url string) boot.Token {
	w.t.Helper()
	i := bytes.Index([]byte(url), []byte("/t/"))
	require.GreaterOrEqual(w.t, i, 0, url)
	token, err := w.keys.Verify(url[i+3:i+83], boot.AudienceBoot, netip.MustParseAddr("10.77.0.50"), w.now)
	require.NoError(w.t, err)
	return token
}
