package httpserver

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func TestAClientThatAsksTooFastIsToldToWait(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.options.ClientRate, w.options.ClientBurst = 2, 5
		w.options.TrustedProxies = []netip.Prefix{netip.PrefixFrom(addrC, 32)}
	})
	base := w.bootServer()
	url := base + "/httpboot"
	for range 5 {
		require.Equal(t, 200, ask(t, addrA, http.MethodHead, url).StatusCode)
	}
	a := get(t, url)
	require.Equal(t, http.StatusTooManyRequests, a.StatusCode)
	require.Equal(t, "1", a.Header.Get("Retry-After"))
	require.Contains(t, string(a.body), `"reason":"TooManyRequests"`)
	require.Equal(t, http.StatusTooManyRequests, get(t, base+"/no/such/path").StatusCode, "paths that lead nowhere count too")
	require.InDelta(t, 2, testutil.ToFloat64(w.server.metrics.limited), 0)
	require.Contains(t, w.log.String(), `"TooManyRequests"`)

	require.Equal(t, 404, ask(t, addrB, http.MethodGet, url).StatusCode, "others do not pay for it")
	for i := range 20 { // a proxy is not one client
		a := ask(t, addrC, http.MethodHead, url, "X-Forwarded-For", fmt.Sprintf("10.9.9.%d", i))
		require.Equal(t, 404, a.StatusCode)
	}
	for range 5 {
		require.Equal(t, 404, ask(t, addrC, http.MethodHead, url, "X-Forwarded-For", "10.8.8.8").StatusCode)
	}
	require.Equal(t, 429, ask(t, addrC, http.MethodHead, url, "X-Forwarded-For", "10.8.8.8").StatusCode, "its clients are counted")

	w.clock.step(time.Second)
	require.Equal(t, []int{200, 200, 429}, []int{get(t, url).StatusCode, get(t, url).StatusCode, get(t, url).StatusCode})
}

func TestWhomARequestCountsFor(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.options.TrustedProxies = networks("10.1.0.0/16")
		w.options.TrustedDHCP = networks("10.3.0.1/32")
		w.options.ProxyProtocolFrom = networks("10.4.0.1/32")
	})
	for _, tt := range []struct {
		name, remote string
		forwarded    string
		want         string // "" is not counted
	}{
		{"a machine", "192.0.2.1:5", "", "192.0.2.1"},
		{"a machine that lies", "192.0.2.1:5", "10.9.9.9", "192.0.2.1"},
		{"IPv6", "[2001:db8:1:2:3:4:5:6]:5", "", "2001:db8:1:2::"},
		{"an IPv6 link", "[fe80::1%eth0]:5", "", "fe80::"},
		{"mapped", "[::ffff:192.0.2.1]:5", "", "192.0.2.1"},
		{"a proxy itself", "10.1.0.1:5", "", ""},
		{"a proxy's client", "10.1.0.1:5", "192.0.2.7", "192.0.2.7"},
		{"a proxy that names nobody", "10.1.0.1:5", "unknown", ""},
		{"a DHCP server itself", "10.3.0.1:5", "", ""},
		{"a DHCP server's machine", "10.3.0.1:5", "192.0.2.8, " + string(macA), "192.0.2.8"},
		{"a DHCP server's machine without an address", "10.3.0.1:5", string(macA), ""},
		{"a balancer's own check", "10.4.0.1:5", "", ""},
	} {
		r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{}}
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		p, err := w.server.peerOf(r)
		require.NoError(t, err)
		got := ""
		if a := w.server.rated(p); a.IsValid() {
			got = a.String()
		}
		require.Equal(t, tt.want, got, tt.name)
	}
}

// Whoever has many addresses can neither fill our memory nor lock others out.
func TestTheTableOfClientsIsBounded(t *testing.T) {
	r := rates{rate: 1, burst: 2}
	now := time.Unix(1_800_000_000, 0)
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range maxRated {
		require.True(t, r.take(addr(i), now))
	}
	for range 10 {
		require.True(t, r.take(addr(maxRated), now), "no place, and no limit")
	}
	require.Len(t, r.clients, maxRated)
	now = now.Add(2 * time.Second) // every bucket is full again
	require.True(t, r.take(addr(maxRated), now))
	require.Len(t, r.clients, 1)
	require.True(t, r.take(addr(maxRated), now))
	require.False(t, r.take(addr(maxRated), now), "it has a place now")
	require.False(t, r.take(addr(maxRated), now.Add(-time.Hour)), "a clock that is set back gives nothing")
	require.True(t, r.take(addr(maxRated), now.Add(-time.Hour+time.Second)))
}
