package httpserver

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
)

func TestASecondAddressDoesNotGetTheOwnScriptOfAnAttempt(t *testing.T) {
	w := newWorld(t, ownScript, withTokens)
	w.plan.Machine.Addrs = nil
	base := w.bootServer()
	url := base + "/ipxe/t/" + w.mint(w.plan, 1, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	require.Equal(t, sesame, script(t, addrB, url))
	require.Equal(t, sesame, script(t, addrB, url), "iPXE may ask again")
	require.Equal(t, leaves, string(ask(t, addrC, http.MethodGet, url).body))
	require.Len(t, w.attempts.observed(boot.StageContested), 1)
	require.Equal(t, sesame, script(t, addrB, url), "it is still the first's")
}

// Whoever may create configs can list an address of a DHCP server's pool. The
// machine that boots there by its token is another's, and must get nothing of it,
// not even in an attempt that was opened after it booted.
func TestAConfigThatListsABootedAddressGivesItsSecretToNobodyThere(t *testing.T) {
	w := newWorld(t, macOnly)
	stranger := w.machine("stranger", uuidB, addrB)
	stranger.Object.Namespace = "other"
	base := w.bootServer()
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "the control: nobody else is there")
	w.bootAt(base, w.plan, addrB, boot.Proxy)
	w.attempts.set(stranger, boot.Attempt{Number: 2, OpenedAt: w.clock.now()})
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode)
	require.True(t, w.attempts.Current(stranger).Ambiguous)

	w.clock.step(boot.AttemptLifetime + 1)
	w.attempts.set(stranger, boot.Attempt{Number: 3, OpenedAt: w.clock.now()})
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "the boot is over")
}

// Another machine on another link can have the same link-local address, and
// takes it on purpose.
func TestALinkLocalAddressIsNotBound(t *testing.T) {
	w := newWorld(t, macOnly)
	for addr, bound := range map[string]bool{"fe80::5054:ff:feaa:bb01": false, "fd00::1": true} {
		p := peer{addr: netip.MustParseAddr(addr)}
		x := &exchange{s: w.server, peer: p}
		w.server.bind(x, identity{proof: boot.Proxy, attempt: 1}, w.plan)
		w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now(), BootAddr: p.addr, BootProof: boot.Proxy})
		w.plan.Attempt = w.attempts.Current(w.plan) // as the object tells every replica
		_, err := w.server.byBootAddr(p, errUnknown)
		require.Equal(t, bound, err == nil, addr)
	}
}

// A script that fits without its token, and not with it, is no delivery.
func TestAScriptThatHasNoRoomForItsTokenSpendsNothing(t *testing.T) {
	w := newWorld(t, ipxe, macOnly)
	w.plan.Policy = boot.Once
	base := w.bootServer()
	w.plan.Foreign = map[boot.Role]string{}
	fits := func(n int, token string) bool {
		w.plan.Foreign[boot.RoleSquashfs] = "http://h/" + strings.Repeat("s", n)
		_, err := w.server.scripts.Script(w.plan, render.Links{Base: base, SecretToken: token})
		return err == nil
	}
	n := 1
	for fits(n+1, "") {
		n++
	}
	require.True(t, fits(n, ""))
	url := base + "/ipxe/t/" + w.mint(w.plan, 1, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	a := ask(t, addrB, http.MethodGet, url)
	require.Equal(t, 503, a.StatusCode, string(a.body))
	commits, _, begins := w.attempts.count()
	require.Zero(t, commits, "the one delivery was spent on nothing")
	require.Zero(t, begins)
	require.True(t, fits(n-90, strings.Repeat("-", 80)))
	require.Contains(t, script(t, addrB, url), "?token=")
}

// A config that is paused may be moving: another cluster serves its machine.
func TestAPausedConfigServesNoSecretAndOpensNothing(t *testing.T) {
	w := newWorld(t, withTokens)
	base := w.bootServer()
	secret := "?token=" + w.mint(w.plan, 1, boot.AudienceSecret, boot.Proxy, netip.Addr{})
	w.plan.Paused = true
	for _, path := range []string{"/ignition", "/ignition/" + string(uuidA), "/ignition" + secret} {
		a := get(t, base+path)
		require.Equal(t, 503, a.StatusCode, path)
		require.Equal(t, "5", a.Header.Get("Retry-After"))
	}
	w.plan.MinimumProof = boot.Claimed
	w.attempts.set(w.plan, boot.Attempt{})
	require.Equal(t, 503, ask(t, addrC, http.MethodGet, base+"/ignition/"+string(uuidA)).StatusCode)
	_, refreshes, begins := w.attempts.count()
	require.Zero(t, begins, "a claim opened an attempt of a paused config")
	require.Zero(t, refreshes)
	require.Zero(t, w.secrets.calls)

	w.plan.Paused = false
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, base+"/ignition/"+string(uuidA)).StatusCode, "the control")
}
