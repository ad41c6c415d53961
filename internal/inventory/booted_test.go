package inventory

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func byBootAddr(i *Inventory, addr string) string {
	p, err := i.ByBootAddr(netip.MustParseAddr(addr))
	if err != nil {
		return err.Error()
	}
	return p.Object.Kind + " " + p.Object.Name
}

func TestAMachineIsFoundWhereItBooted(t *testing.T) {
	i := filled(Options{},
		httpConfig("mac-only", 0, claiming(macA), bootedAt("10.0.0.50", "Proxy", epoch)),
		httpConfig("claims", 1, claiming(uuidA), bootedAt("10.0.0.51", "Claimed", epoch)),
		httpConfig("unknown", 2, claiming(uuidB), bootedAt("10.0.0.52", "", epoch)),
		ipxeConfig("script", 3, claiming("52:54:00:aa:bb:02"), bootedAt("2001:db8::50", "Address", epoch)))
	require.Equal(t, "HTTPBootConfig mac-only", byBootAddr(i, "10.0.0.50"))
	require.Equal(t, "HTTPBootConfig mac-only", byBootAddr(i, "::ffff:10.0.0.50"))
	require.Equal(t, "IPXEBootConfig script", byBootAddr(i, "2001:db8::50"))
	for _, addr := range []string{"10.0.0.51", "10.0.0.52", "10.0.0.53"} {
		require.Equal(t, "not found", byBootAddr(i, addr), addr)
	}
	_, err := i.ByBootAddr(netip.Addr{})
	require.ErrorIs(t, err, boot.ErrNotFound)
	require.Equal(t, "not found", lookup(t, i, "10.0.0.50"), "for boot bytes the address names nobody")
}

// A pool that is smaller than the fleet gives addresses out again.
func TestTheLatestAttemptHasTheAddress(t *testing.T) {
	at := func(minutes int) edit {
		return bootedAt("10.0.0.50", "Proxy", epoch.Add(time.Duration(minutes)*time.Minute))
	}
	i := filled(Options{}, httpConfig("a", 0, claiming(macA), at(5)), httpConfig("b", 1, claiming("52:54:00:aa:bb:02"), at(7)))
	require.Equal(t, "HTTPBootConfig b", byBootAddr(i, "10.0.0.50"))
	i.put(httpConfig("a", 0, claiming(macA), at(9)))
	require.Equal(t, "HTTPBootConfig a", byBootAddr(i, "10.0.0.50"))
	i.put(httpConfig("a", 0, claiming(macA), bootedAt("10.0.0.60", "Proxy", epoch.Add(time.Hour))))
	require.Equal(t, "HTTPBootConfig b", byBootAddr(i, "10.0.0.50"), "it booted elsewhere since")
	require.Equal(t, "HTTPBootConfig a", byBootAddr(i, "10.0.0.60"))
	i.drop(objectKey{kindNumber(v1alpha1.KindHTTPBootConfig), defaultName, "b"})
	require.Equal(t, "not found", byBootAddr(i, "10.0.0.50"))
	require.Len(t, i.booted, 1)
}

// Of one second, one name and one boot: what is taken out must be the right one.
func TestBothKindsOfOneNameBootedAtOnce(t *testing.T) {
	for _, gone := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig} {
		i := filled(Options{}, httpConfig("m", 0, claiming(macA), bootedAt("10.0.0.50", "Proxy", epoch)),
			ipxeConfig("m", 0, claiming(macA), bootedAt("10.0.0.50", "Proxy", epoch)))
		i.drop(objectKey{kindNumber(gone), defaultName, "m"})
		p, err := i.ByBootAddr(netip.MustParseAddr("10.0.0.50"))
		require.NoError(t, err)
		require.NotEqual(t, gone, p.Object.Kind)
	}
}

func TestWhoLostTheMachineIsNotFoundWhereItBooted(t *testing.T) {
	i := filled(Options{},
		httpConfig("older", 0, claiming(macA)),
		httpConfig("younger", 1, claiming(macA), bootedAt("10.0.0.50", "Proxy", epoch)))
	require.Equal(t, "not found", byBootAddr(i, "10.0.0.50"))
}

// Behind a masquerading balancer every machine has the address of a node.
func TestNobodyIsFoundAtAnAddressThatProvesNothing(t *testing.T) {
	i := filled(Options{UntrustedClients: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		httpConfig("a", 0, claiming(macA), bootedAt("172.16.0.1", "Proxy", epoch)),
		httpConfig("b", 1, claiming("52:54:00:aa:bb:02"), bootedAt("192.0.2.9", "Proxy", epoch)))
	require.Equal(t, "HTTPBootConfig a", byBootAddr(i, "172.16.0.1"))
	i.putNode(node("n", "10.244.0.0/16", "172.16.0.1"))
	require.Equal(t, "not found", byBootAddr(i, "172.16.0.1"))
	require.Equal(t, "not found", byBootAddr(i, "192.0.2.9"))
}

// Everybody booted at one address, one after the other.
func TestAHotBootAddressDoesNotStallTheOperator(t *testing.T) {
	const n = 5000
	i := New(Options{})
	for k := range n {
		i.put(httpConfig(fmt.Sprintf("c%05d", k), k, claiming(rackUUID(k)), bootedAt("10.0.0.50", "Proxy", epoch.Add(time.Duration(k)*time.Second))))
	}
	i.settleAll()
	i.synced.Store(true)
	for k := n - 1; k >= 0; k-- {
		require.Equal(t, fmt.Sprintf("HTTPBootConfig c%05d", k), byBootAddr(i, "10.0.0.50"))
		i.drop(objectKey{kindNumber(v1alpha1.KindHTTPBootConfig), defaultName, fmt.Sprintf("c%05d", k)})
	}
	require.Empty(t, i.booted)
}
