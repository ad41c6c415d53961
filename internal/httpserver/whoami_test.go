package httpserver

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"
)

type whoamiAnswer struct {
	Address       string `json:"address"`
	Via           string `json:"via"`
	Node          bool   `json:"node"`
	ProvesNothing bool   `json:"provesNothing"`
}

func whoamiOf(t *testing.T, a answer) (out whoamiAnswer) {
	t.Helper()
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	require.NoError(t, json.Unmarshal(a.body, &out))
	return out
}

func TestWhoamiTellsTheAddressAsItCame(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.options.TrustedProxies = []netip.Prefix{netip.PrefixFrom(addrB, 32)}
		w.options.IsNode = func(a netip.Addr) bool { return a == addrC }
	})
	w.source.cluster = []netip.Addr{addrC}
	url := w.bootServer() + "/whoami"
	require.Equal(t, whoamiAnswer{Address: "127.0.0.1", Via: "connection"}, whoamiOf(t, get(t, url)))
	require.Equal(t, whoamiAnswer{Address: "127.0.0.1", Via: "connection"}, whoamiOf(t, get(t, url, "X-Forwarded-For", "10.9.9.9")), "it is no trusted proxy")
	require.Equal(t, whoamiAnswer{Address: "10.9.9.9", Via: "X-Forwarded-For"}, whoamiOf(t, ask(t, addrB, "GET", url, "X-Forwarded-For", "10.9.9.9")))
	require.Equal(t, whoamiAnswer{Address: "127.0.0.2", Via: "connection", ProvesNothing: true}, whoamiOf(t, ask(t, addrB, "GET", url)))
	require.Equal(t, whoamiAnswer{Address: "127.0.0.3", Via: "connection", Node: true, ProvesNothing: true}, whoamiOf(t, ask(t, addrC, "GET", url)))
	_, _, begins := w.attempts.count()
	require.Zero(t, begins, "it opens nothing")
	require.Empty(t, w.attempts.seen)
	require.Equal(t, 404, get(t, w.serve(w.server.ImageHandler(), ServeOptions{})+"/whoami").StatusCode)
}

func TestWhoamiKnowsTheProxyProtocol(t *testing.T) {
	w := newWorld(t, func(w *world) { w.options.ProxyProtocolFrom = []netip.Prefix{netip.PrefixFrom(addrA, 32)} })
	url := w.bootServer() + "/whoami"
	balanced := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		h := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.ParseIP("10.64.0.7"), Port: 4711}, &net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 8082})
		_, err = h.WriteTo(c)
		return c, err
	}}}
	resp, err := balanced.Get(url)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var out whoamiAnswer
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&out))
	require.Equal(t, whoamiAnswer{Address: "10.64.0.7", Via: "PROXY"}, out)
	require.Equal(t, whoamiAnswer{Address: "127.0.0.2", Via: "connection"}, whoamiOf(t, ask(t, addrB, "GET", url)), "it is no balancer")
}
