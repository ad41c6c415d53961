package httpserver

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const plainURL = "http://10.0.0.1:8083/httpboot/"

// feDHCP asks as FeDHCP's httpboot plugin does, on behalf of a machine.
func feDHCP(t *testing.T, base, forwarded string) (code int, url string) {
	t.Helper()
	a := ask(t, addrC, http.MethodGet, base+"/httpboot", "X-Forwarded-For", forwarded)
	var body struct{ UKIURL string }
	require.NoError(t, json.Unmarshal(a.body, &body), "it reads the body whatever the code is")
	return a.StatusCode, body.UKIURL
}

// telling is a world whose server tells DHCP servers URLs with tokens.
func telling(t *testing.T, change ...func(*world)) (w *world, base string) {
	t.Helper()
	w = newWorld(t, append([]func(*world){trustDHCP, macOnly, func(w *world) { w.options.BaseURL = "http://boot.example:8082" }}, change...)...)
	return w, w.bootServer()
}

func TestADHCPServerIsToldAURLThatWorksFromItsMachineOnly(t *testing.T) {
	w, base := telling(t)
	code, url := feDHCP(t, base, "127.0.0.2, 52-54-00-AA-BB-01")
	require.Equal(t, 200, code)
	path, ok := strings.CutPrefix(url, "http://boot.example:8082")
	require.True(t, ok, url)
	require.LessOrEqual(t, len(url), 200)
	_, again := feDHCP(t, base, "127.0.0.2, "+string(macA))
	require.Equal(t, url, again, "one text for every DISCOVER")
	_, _, begins := w.attempts.count()
	require.Zero(t, begins)

	require.Equal(t, 404, ask(t, addrA, http.MethodGet, base+path).StatusCode, "from another address")
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+path, "X-Forwarded-For", "127.0.0.2").StatusCode, "from the DHCP server")
	a := ask(t, addrB, http.MethodGet, base+path)
	require.Equal(t, w.data, a.body)
	require.Equal(t, "application/efi", a.Header.Get("Content-Type"))
	require.Equal(t, boot.Address, w.attempts.observed(boot.StageUKI)[0].Proof)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "the address is bound")
	require.NotContains(t, w.log.String(), strings.Split(path, "/")[3][:20])
}

func TestADHCPServerIsToldThePlainURLWhereNoTokenIsPossible(t *testing.T) {
	for name, c := range map[string]struct {
		forwarded string
		change    func(*world)
	}{
		"no address":                {string(macA), nil},
		"a link-local address":      {"fe80::1, " + string(macA), nil},
		"the DHCP server's address": {"127.0.0.3, " + string(macA), nil},
		"a proxy's address": {"127.0.0.2, " + string(macA), func(w *world) {
			w.options.TrustedProxies = []netip.Prefix{netip.PrefixFrom(addrB, 32)}
		}},
		"the cluster's address": {"127.0.0.2, " + string(macA), func(w *world) { w.source.cluster = []netip.Addr{addrB} }},
		"no issuer":             {"127.0.0.2, " + string(macA), func(w *world) { w.options.Issuer = nil }},
		"no keys": {"127.0.0.2, " + string(macA), func(w *world) {
			w.options.Issuer = boot.NewIssuer(&boot.Keyring{}, w.attempts, w.clock.now)
		}},
		"no base URL":             {"127.0.0.2, " + string(macA), func(w *world) { w.options.BaseURL = "" }},
		"too weak for the config": {"127.0.0.2, " + string(macA), func(w *world) { w.plan.MinimumProof = boot.Relay }},
		"an address not of the config, as FeDHCP's relay": {"127.0.0.2, " + string(macA), func(w *world) { w.plan.Machine.Addrs = []netip.Addr{addrA} }},
	} {
		t.Run(name, func(t *testing.T) {
			change := c.change
			if change == nil {
				change = func(*world) {}
			}
			_, base := telling(t, change)
			code, url := feDHCP(t, base, c.forwarded)
			require.Equal(t, 200, code)
			require.True(t, strings.HasPrefix(url, plainURL), url)
		})
	}
	w, base := telling(t)
	w.plan.Machine.Addrs = []netip.Addr{addrB}
	_, url := feDHCP(t, base, "127.0.0.2, "+string(macA))
	require.Contains(t, url, bootTokenPrefix, "the control: listed")
	w.plan.Machine.Addrs, w.plan.Policy = []netip.Addr{addrA}, boot.Once
	_, url = feDHCP(t, base, "127.0.0.2, "+string(macA))
	require.Contains(t, url, bootTokenPrefix, "what says Once is never booted uncounted")
}

func TestADHCPServerIsToldNothingOfWhatMayNotBoot(t *testing.T) {
	for _, forwarded := range []string{"127.0.0.2, " + string(macA), string(macA)} {
		w, base := telling(t, once)
		w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now(), Spent: true})
		code, url := feDHCP(t, base, forwarded)
		require.Equal(t, 403, code)
		require.Empty(t, url)
		w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now(), Armed: true})
		code, url = feDHCP(t, base, forwarded)
		require.Equal(t, 403, code)
		require.Empty(t, url)
		w.attempts.set(w.plan, boot.Attempt{Number: 3, OpenedAt: w.clock.now()})
		code, _ = feDHCP(t, base, forwarded)
		require.Equal(t, 200, code, "the control")
	}
}

func TestTheMachineItselfIsToldAsBefore(t *testing.T) {
	w, base := telling(t)
	w.plan.Machine.Addrs = []netip.Addr{addrA}
	a := get(t, base+"/httpboot", "Accept", "application/json")
	require.Contains(t, string(a.body), plainURL)
	require.NotContains(t, string(a.body), "/t/")
}

func TestForgedForwardedForGetsNoToken(t *testing.T) {
	_, base := telling(t)
	a := ask(t, addrB, http.MethodGet, base+"/httpboot", "X-Forwarded-For", "127.0.0.2, "+string(macA))
	require.Equal(t, 404, a.StatusCode)
	require.NotContains(t, string(a.body), "/t/")
}

func TestBaseURLsThatAreNotOne(t *testing.T) {
	for _, bad := range []string{"boot.example", "ftp://x", "http://", "http://x?y", "http://u:p@x", "http://" + strings.Repeat("x", maxBaseURL)} {
		w := newWorld(t)
		w.options.Registerer, w.options.BaseURL = nil, bad
		_, err := New(w.options)
		require.ErrorIs(t, err, boot.ErrInvalid, bad)
	}
}
