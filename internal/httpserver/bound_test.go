package httpserver

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// macOnly is machine A as a config that lists no address knows it.
func macOnly(w *world) {
	withTokens(w)
	w.plan.Machine.Addrs = nil
}

// bootAt boots a machine at an address, by a token of its present attempt.
func (w *world) bootAt(base string, p *boot.Plan, from netip.Addr, proof boot.Proof) {
	w.t.Helper()
	token := w.mint(p, w.attempts.Current(p).Number, boot.AudienceBoot, proof, from)
	require.Equal(w.t, 200, ask(w.t, from, http.MethodGet, base+"/httpboot/t/"+token+"/uki.efi").StatusCode)
}

func TestAnAddressThatAMachineBootedAtNamesItForItsSecrets(t *testing.T) {
	w := newWorld(t, macOnly)
	base := w.bootServer()
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "the control")
	w.bootAt(base, w.plan, addrB, boot.Relay)
	require.Equal(t, boot.Relay, w.attempts.begun[0].Proof, "reported when the first byte flows")
	require.False(t, w.attempts.begun[0].Complete)
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/ignition").StatusCode)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition/"+string(uuidA)).StatusCode)
	require.Equal(t, boot.Proxy, w.attempts.observed(boot.StageIgnition)[0].Proof, "the port is not what an address shows")
	for _, path := range []string{"/httpboot", "/ipxe?serial=1"} {
		a := ask(t, addrB, http.MethodGet, base+path)
		require.NotEqual(t, w.data, a.body, "boot bytes need a token or a listed address")
		require.True(t, a.StatusCode == 404 || string(a.body) == leaves)
	}
	w.plan.MinimumProof = boot.Relay
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "worth Proxy at most")
	w.plan.MinimumProof = boot.Address

	w.clock.step(boot.SecretGrace + time.Second)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "only while the attempt is open")
	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now()})
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "and no other attempt")
}

func TestAScriptBindsTheAddressToo(t *testing.T) {
	w := newWorld(t, ipxe, macOnly)
	base := w.bootServer()
	require.NotEqual(t, leaves, script(t, addrB, base+"/ipxe/t/"+w.mint(w.plan, 1, boot.AudienceBoot, boot.Proxy, netip.Addr{})))
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode)
	// A claim binds nothing.
	require.NotEqual(t, leaves, script(t, addrC, base+"/ipxe/"+string(macA)))
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/ignition").StatusCode)
}

func TestAnotherReplicaKnowsTheAddressByTheObject(t *testing.T) {
	w := newWorld(t, macOnly)
	base := w.bootServer()
	a := boot.Attempt{Number: 1, OpenedAt: w.clock.now(), BootAddr: addrB, BootProof: boot.Proxy}
	w.plan.Attempt = a
	w.attempts.set(w.plan, a)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode)
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/ignition").StatusCode, "the control")
	a.BootAddr = addrC
	w.attempts.set(w.plan, a)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "it booted elsewhere since")
	a.BootAddr, a.BootProof = addrB, boot.Claimed
	w.attempts.set(w.plan, a)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "a claim binds nothing")
	w.source.broken = boot.ErrUnavailable
	require.Equal(t, 503, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode)
}

func TestTheLatestOfTwoMachinesThatBootedAtOneAddress(t *testing.T) {
	w := newWorld(t, macOnly)
	b := w.machine("b", uuidB)
	b.Artifacts = w.plan.Artifacts
	base := w.bootServer()
	who := func() string {
		w.clock.step(time.Second)
		return string(ask(t, addrC, http.MethodGet, base+"/ignition").body)
	}
	w.bootAt(base, w.plan, addrC, boot.Proxy)
	require.Contains(t, who(), `"a"`)
	w.bootAt(base, b, addrC, boot.Proxy)
	require.Contains(t, who(), `"b"`)

	// Another replica booted A there since.
	w.clock.step(time.Second)
	w.plan.Attempt = boot.Attempt{Number: 7, OpenedAt: w.clock.now(), BootAddr: addrC, BootProof: boot.Proxy}
	w.attempts.set(w.plan, w.plan.Attempt)
	require.Contains(t, who(), `"a"`)
}

func TestAddressesThatProveNothingAreNeverBound(t *testing.T) {
	for name, change := range map[string]func(*world){
		"of the cluster": func(w *world) { w.source.cluster = []netip.Addr{addrB} },
		"of a proxy":     func(w *world) { w.options.TrustedProxies = []netip.Prefix{netip.PrefixFrom(addrB, 32)} },
	} {
		w := newWorld(t, macOnly, change)
		base := w.bootServer()
		w.bootAt(base, w.plan, addrB, boot.Proxy)
		require.Equal(t, addrB, w.attempts.Current(w.plan).BootAddr, "%s: the object may say so", name)
		require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, name)
		require.Empty(t, w.server.bindings.known, name)
	}
}

func TestAnAddressThatIsListedForAnotherMachineIsAmbiguous(t *testing.T) {
	w := newWorld(t, withTokens)
	b := w.machine("b", uuidB)
	b.Artifacts = w.plan.Artifacts
	base := w.bootServer()
	w.bootAt(base, b, addrA, boot.Proxy)
	require.Len(t, w.attempts.observed(boot.StageAmbiguous), 1)
	require.Equal(t, w.plan.Object, w.attempts.observed(boot.StageAmbiguous)[0].Object)
	require.Equal(t, 404, get(t, base+"/ignition").StatusCode)
	w.plan.MinimumProof = boot.Proxy
	require.Equal(t, 404, get(t, base+"/ignition").StatusCode, "nor does it name the other")
}

func TestABoundAddressThatAsksForAnotherMachineIsAmbiguous(t *testing.T) {
	w := newWorld(t, macOnly)
	w.machine("b", uuidB, addrC)
	base := w.bootServer()
	w.bootAt(base, w.plan, addrB, boot.Proxy)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition/"+string(uuidB)).StatusCode)
	require.Len(t, w.attempts.observed(boot.StageAmbiguous), 1)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "void in this attempt")
	secret := w.mint(w.plan, 1, boot.AudienceSecret, boot.Proxy, netip.Addr{})
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition?token="+secret).StatusCode, "a token still names it")
}

func TestAListedAddressWithTooWeakAProofIsMadeGoodByTheBoot(t *testing.T) {
	w := newWorld(t, withTokens)
	w.plan.MinimumProof = boot.Proxy
	base := w.bootServer()
	require.Equal(t, 404, get(t, base+"/ignition").StatusCode, "the control")
	w.bootAt(base, w.plan, addrA, boot.Proxy)
	require.Equal(t, 200, get(t, base+"/ignition").StatusCode)
}

func TestBindingsAreBounded(t *testing.T) {
	var b bindings
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	addr := netip.MustParseAddr("10.0.0.0")
	for range maxBindings + 100 {
		addr = addr.Next()
		b.bind(addr, "a", now)
	}
	require.Len(t, b.known, maxBindings)
	b.bind(addrA, "a", now.Add(3*boot.AttemptLifetime))
	require.Len(t, b.known, 1, "what is over is forgotten")
}
