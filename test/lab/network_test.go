package lab

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// whoami answers with the address that a request came from.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	_, _ = io.WriteString(w, host)
})

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	response, err := client.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return string(body)
}

func TestRequestsComeFromTheAddressThatWasAskedFor(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{Number: 3})
	listener := n.Listen("tcp4", ":8082")
	go func() { _ = http.Serve(listener, whoami) }()
	stranger, v6 := n.Addr(42), netip.MustParseAddr("fd00:77::42")
	n.AddAddress(stranger)
	n.AddAddress(v6)
	assert.Equal(t, "10.77.3.1", get(t, n.HTTPClient(n.Gateway()), "http://10.77.3.1:8082/"))
	assert.Equal(t, "10.77.3.42", get(t, n.HTTPClient(stranger), "http://10.77.3.1:8082/"))
	assert.Equal(t, "127.0.0.1", get(t, n.HTTPClient(netip.Addr{}), "http://127.0.0.1:8082/"))
	out, err := n.Command("ip", "-brief", "address", "show", "dev", "br0").Output()
	require.NoError(t, err)
	assert.Contains(t, string(out), "fd00:77::42/64")
}

func TestNetworksWithOneNumberAreApart(t *testing.T) {
	t.Parallel()
	one, other := NewNetwork(t, NetworkOptions{}), NewNetwork(t, NetworkOptions{})
	listener := one.Listen("tcp4", ":8082")
	go func() { _ = http.Serve(listener, whoami) }()
	assert.Equal(t, "10.77.0.1", get(t, one.HTTPClient(one.Gateway()), "http://10.77.0.1:8082/"))
	_, err := other.Dial(context.Background(), "tcp", "10.77.0.1:8082", netip.Addr{})
	assert.ErrorContains(t, err, "refused")
}

func TestForwardReachesAServiceOfTheHost(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() { _ = http.Serve(listener, whoami) }()
	n.Forward(listener.Addr().String())
	assert.Equal(t, "127.0.0.1", get(t, n.HTTPClient(netip.Addr{}), "http://"+listener.Addr().String()+"/"))
}

func TestNothingIsLeftOfANetwork(t *testing.T) {
	t.Parallel()
	Require(t, Root)
	var name string
	var left *exec.Cmd
	t.Run("in use", func(t *testing.T) {
		n := NewNetwork(t, NetworkOptions{})
		name = n.Netns()
		left = n.Command("sh", "-c", "echo inside; exec sleep 60")
		out, err := left.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, left.Start())
		_, err = io.ReadFull(out, make([]byte, len("inside")))
		require.NoError(t, err, "it runs inside before the network goes")
	})
	_, err := os.Stat(filepath.Join(namespaces, name))
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, left.Wait(), "killed", "what runs in a network ends with it")
}

func TestASweepRemovesOnlyWhatADeadProcessLeft(t *testing.T) {
	n := NewNetwork(t, NetworkOptions{})
	dead := exec.Command("true")
	require.NoError(t, dead.Run())
	left := namespaceName(dead.Process.Pid, 1)
	require.NoError(t, ip("netns add "+left))
	t.Cleanup(func() { removeNamespace(left) })
	sweepNamespaces()
	_, err := os.Stat(filepath.Join(namespaces, left))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = os.Stat(filepath.Join(namespaces, n.Netns()))
	assert.NoError(t, err)
}
