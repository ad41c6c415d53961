package httpserver

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func networks(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestPeerOf(t *testing.T) {
	proxies := networks("10.1.0.0/16", "::ffff:10.2.0.0/112", "fd00::/64")
	dhcp := networks("10.3.0.1/32", "10.1.9.9/32")
	tests := []struct {
		name      string
		remote    string
		forwarded []string
		want      string // "" is not known
		proxy     bool
		named     string
		err       bool
	}{
		{name: "nobody between", remote: "192.0.2.1:5", want: "192.0.2.1"},
		// Known defect 30.
		{name: "a mapped address", remote: "[::ffff:192.0.2.1]:5", want: "192.0.2.1"},
		{name: "a zone", remote: "[fe80::1%eth0]:5", want: "fe80::1"},
		{name: "no address", remote: "@", want: ""},
		// Known defect 1.
		{name: "forged", remote: "192.0.2.1:5", forwarded: []string{"10.0.0.5"}, want: "192.0.2.1"},
		{name: "forged with a MAC", remote: "192.0.2.1:5", forwarded: []string{"10.0.0.5, " + string(macA)}, want: "192.0.2.1"},
		{name: "one proxy", remote: "10.1.0.1:5", forwarded: []string{"192.0.2.7"}, want: "192.0.2.7"},
		{name: "one proxy, mapped", remote: "[::ffff:10.2.0.1]:5", forwarded: []string{"::ffff:192.0.2.7"}, want: "192.0.2.7"},
		{name: "forged through a proxy", remote: "10.1.0.1:5", forwarded: []string{"10.0.0.5, 192.0.2.7"}, want: "192.0.2.7"},
		{name: "forged through a proxy by a line of its own", remote: "10.1.0.1:5", forwarded: []string{"10.0.0.5", "192.0.2.7"}, want: "192.0.2.7"},
		{name: "two proxies", remote: "10.1.0.1:5", forwarded: []string{"10.0.0.5, 192.0.2.7, 10.2.0.3"}, want: "192.0.2.7"},
		{name: "two proxies over two lines", remote: "10.1.0.1:5", forwarded: []string{"192.0.2.7,", " , 10.2.0.3"}, want: "192.0.2.7"},
		{name: "with ports", remote: "[fd00::1]:5", forwarded: []string{"[2001:db8::7]:99"}, want: "2001:db8::7"},
		{name: "in brackets", remote: "[fd00::1]:5", forwarded: []string{"[2001:db8::7]"}, want: "2001:db8::7"},
		{name: "junk from a proxy", remote: "10.1.0.1:5", forwarded: []string{"192.0.2.7, unknown"}, want: ""},
		{name: "a MAC from a proxy", remote: "10.1.0.1:5", forwarded: []string{"192.0.2.7, " + string(macA)}, want: ""},
		{name: "a proxy that says nothing", remote: "10.1.0.1:5", want: "10.1.0.1", proxy: true},
		{name: "proxies only", remote: "10.1.0.1:5", forwarded: []string{"10.1.0.3"}, want: "10.1.0.3", proxy: true},
		{name: "too many hops", remote: "10.1.0.1:5", forwarded: []string{"192.0.2.7" + strings.Repeat(",10.1.0.2", 1000)}, want: "10.1.0.2", proxy: true},
		{name: "DHCP", remote: "10.3.0.1:5", forwarded: []string{"10.0.0.5, 52-54-00-AA-BB-01"}, want: "10.3.0.1", named: "10.0.0.5 52:54:00:aa:bb:01"},
		{name: "DHCP without a MAC", remote: "10.3.0.1:5", forwarded: []string{"2001:DB8::5, "}, want: "10.3.0.1", named: "2001:db8::5"},
		{name: "DHCP over two lines", remote: "10.3.0.1:5", forwarded: []string{"10.0.0.5", string(macA)}, want: "10.3.0.1", named: "10.0.0.5 52:54:00:aa:bb:01"},
		{name: "DHCP for itself", remote: "10.3.0.1:5", want: "10.3.0.1"},
		{name: "DHCP through a proxy", remote: "10.1.0.1:5", forwarded: []string{"10.0.0.5, " + string(macA) + ", 10.3.0.1"}, want: "10.3.0.1", named: "10.0.0.5 52:54:00:aa:bb:01"},
		{name: "DHCP forged through a proxy", remote: "10.1.0.1:5", forwarded: []string{"10.0.0.5, " + string(macA) + ", 10.3.0.1, 192.0.2.7"}, want: "192.0.2.7"},
		{name: "DHCP and proxy in one, for a machine", remote: "10.1.9.9:5", forwarded: []string{"10.0.0.5, " + string(macA)}, want: "10.1.9.9", named: "10.0.0.5 52:54:00:aa:bb:01"},
		{name: "DHCP and proxy in one, as a proxy", remote: "10.1.9.9:5", forwarded: []string{"192.0.2.7"}, want: "192.0.2.7"},
		{name: "DHCP that names nobody", remote: "10.3.0.1:5", forwarded: []string{"junk"}, err: true},
		{name: "DHCP that names everybody", remote: "10.3.0.1:5", forwarded: []string{strings.Repeat("10.0.0.5,", 1000)}, err: true},
	}
	w := newWorld(t, func(w *world) { w.options.TrustedProxies, w.options.TrustedDHCP = proxies, dhcp })
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/httpboot", nil)
			r.RemoteAddr = tt.remote
			for _, f := range tt.forwarded {
				r.Header.Add("X-Forwarded-For", f)
			}
			p, err := w.server.peerOf(r)
			if tt.err {
				require.ErrorIs(t, err, errForwarded)
				return
			}
			require.NoError(t, err)
			want := netip.Addr{}
			if tt.want != "" {
				want = netip.MustParseAddr(tt.want)
			}
			require.Equal(t, want, p.addr)
			require.Equal(t, tt.proxy, p.proxy)
			require.Equal(t, tt.named != "", p.dhcp)
			require.Equal(t, tt.named, strings.Join(p.named, " "))
		})
	}
}

// Known defect 1, over a socket: a stranger who sends a victim's address or MAC
// learns and gets nothing of it.
func TestForgedForwardedForGetsNothing(t *testing.T) {
	forged := [][]string{
		{"X-Forwarded-For", "127.0.0.1"},
		{"X-Forwarded-For", "127.0.0.1, " + string(macA)},
		{"X-Forwarded-For", string(macA), "Accept", "application/json"},
		{"Forwarded", "for=127.0.0.1", "X-Real-Ip", "127.0.0.1"},
	}
	w := newWorld(t)
	trusting := newWorld(t, func(w *world) { w.options.TrustedProxies = []netip.Prefix{netip.PrefixFrom(addrC, 32)} })
	base, trusted := w.bootServer(), trusting.bootServer()
	for _, h := range forged {
		for _, path := range []string{"/httpboot", "/ignition", "/ignition/" + string(uuidA)} {
			a := ask(t, addrC, http.MethodGet, base+path, h...)
			require.Equal(t, 404, a.StatusCode)
			require.NotContains(t, string(a.body), string(uuidA))
		}
	}
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, trusted+"/ignition", forged[0]...).StatusCode, "the control: from a trusted proxy it counts")
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, trusted+"/ignition", forged[0]...).StatusCode)
}

// A DHCP server speaks for machines, but gets no secret and no bytes for them.
func TestDHCPServerGetsNoSecrets(t *testing.T) {
	w := newWorld(t, trustDHCP)
	base := w.bootServer()
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, base+"/httpboot", "X-Forwarded-For", "127.0.0.1").StatusCode, "the control")
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/ignition", "X-Forwarded-For", "127.0.0.1, "+string(macA)).StatusCode)
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/ignition/"+string(uuidA), "X-Forwarded-For", "127.0.0.1").StatusCode)
	require.Zero(t, w.secrets.calls)
}

// FuzzForwardedFor: whatever the header says, it changes nothing for a peer
// that is not trusted; from a proxy it never names an address that is not in
// it; and what a DHCP server names is bounded and canonical.
func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"", ",", "10.0.0.5", "10.0.0.5, 52:54:00:aa:bb:01", "::ffff:10.0.0.5", "[::1]:80", "fe80::1%eth0", "a\x00b", strings.Repeat(",", 9999)} {
		f.Add(s, s)
	}
	w := newWorld(f, func(w *world) {
		w.options.TrustedProxies, w.options.TrustedDHCP = networks("10.1.0.0/16"), networks("10.3.0.0/16")
	})
	f.Fuzz(func(t *testing.T, first, second string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["X-Forwarded-For"] = []string{first, second}
		r.RemoteAddr = "192.0.2.1:5"
		p, err := w.server.peerOf(r)
		require.NoError(t, err)
		require.Equal(t, peer{addr: netip.MustParseAddr("192.0.2.1")}, p)

		r.RemoteAddr = "10.1.0.1:5"
		if p, err = w.server.peerOf(r); err == nil && p.addr.IsValid() {
			require.Equal(t, boot.CanonicalAddr(p.addr), p.addr)
		}
		r.RemoteAddr = "10.3.0.1:5"
		if p, err = w.server.peerOf(r); err == nil && p.dhcp {
			require.NotEmpty(t, p.named)
			require.LessOrEqual(t, len(p.named), maxNamed)
			for _, n := range p.named {
				a, m, err := boot.ParseIdentifier(n)
				require.NoError(t, err)
				require.True(t, n == string(m) || n == a.String())
			}
		}
	})
}
