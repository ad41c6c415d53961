package fleet

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"
)

// answering is a replica that answers every line with its name and who it was told is
// connected.
type answering struct {
	name, address, probe string
	ready                atomic.Bool
}

func newAnswering(t *testing.T, name string) *answering {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	a := &answering{name: name, address: l.Addr().String()}
	a.ready.Store(true)
	probe := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !a.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	a.probe = probe.URL
	t.Cleanup(probe.Close)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go a.answer(c)
		}
	}()
	return a
}

func (a *answering) answer(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	header, err := proxyproto.Read(in)
	if err != nil {
		return
	}
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		_, _ = fmt.Fprintf(c, "%s %s\n", a.name, header.SourceAddr)
	}
}

// said is what a replica answers to a client at this address, over a new connection.
func said(t *testing.T, b *Balancer, from string) (replica, client string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second, Control: likeEthernet}
	c, err := d.Dial("tcp", b.Address())
	require.NoError(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = io.WriteString(c, "who?\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	replica, client, _ = strings.Cut(strings.TrimSpace(line), " ")
	require.Equal(t, replica, b.Through(c.LocalAddr()))
	at, err := netip.ParseAddrPort(client)
	require.NoError(t, err)
	return replica, at.Addr().String()
}

func TestTheBalancerTellsReplicasWhoIsConnectedAndKeepsAClientAtOne(t *testing.T) {
	b, err := NewBalancer(t.Context(), false)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	replicas := map[string]*answering{}
	for _, name := range []string{"a", "b", "c"} {
		replicas[name] = newAnswering(t, name)
		b.Add(ctx, name, replicas[name].address, replicas[name].probe)
		require.Eventually(t, func() bool { return b.Ready(name) }, 10*time.Second, 10*time.Millisecond)
	}
	at := map[string]string{}
	used := map[string]int{}
	for i := range 60 {
		from := fmt.Sprintf("127.64.0.%d", i)
		replica, client := said(t, b, from)
		require.Equal(t, fmt.Sprintf("10.64.0.%d", i), client)
		again, _ := said(t, b, from)
		require.Equal(t, replica, again)
		at[from], used[replica] = replica, used[replica]+1
	}
	require.Len(t, used, 3, "all are used")

	replicas["b"].ready.Store(false)
	require.Eventually(t, func() bool { return !b.Ready("b") }, 10*time.Second, 10*time.Millisecond)
	for from, before := range at {
		now, _ := said(t, b, from)
		require.NotEqual(t, "b", now)
		if before != "b" {
			require.Equal(t, before, now, "only the clients of the one that went move")
		}
	}

	b.Affinity(false)
	turns := map[string]bool{}
	for range 4 {
		replica, _ := said(t, b, "127.64.0.1")
		turns[replica] = true
	}
	require.Len(t, turns, 2, "without affinity each connection goes to the next that is ready")
}
