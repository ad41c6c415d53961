package inventory

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// lookup finds plans by any identifier, read as the server reads it.
func lookup(t *testing.T, i *Inventory, id string) string {
	t.Helper()
	if u, err := boot.ParseUUID(id); err == nil {
		return names(i.ByUUID(u))
	}
	addr, mac, err := boot.ParseIdentifier(id)
	require.NoError(t, err)
	if mac != "" {
		return names(i.ByMAC(mac))
	}
	return names(i.ByAddr(addr))
}

func TestEverySpellingOfAnIdentifierFindsTheMachine(t *testing.T) {
	for _, tc := range []struct{ name, claimed, asked string }{
		{"UUID as it is", uuidA, uuidA},
		{"upper case in the object", "00112233-4455-6677-8899-AABBCCDDEEFF", uuidA},
		{"upper case in the request", uuidA, "00112233-4455-6677-8899-AABBCCDDEEFF"},
		{"EFI_GUID order in the request", uuidA, uuidASwap},
		{"EFI_GUID order in the object", uuidASwap, uuidA},
		{"upper-case MAC in the object", "52:54:00:AA:BB:01", macA},
		{"Cisco MAC in the request", macA, "5254.00aa.bb01"},
		{"hyphens in the object", "52-54-00-AA-BB-01", macA},
		{"IPv4-mapped address in the request", addrA, "::ffff:10.0.0.5"},
		{"IPv4-mapped address in the object", "::ffff:10.0.0.5", addrA},
		{"IPv6 with a zone in the request", "fe80::5", "fe80::5%eth0"},
		{"IPv6 in another notation", "2001:db8:0:0:0:0:0:5", "2001:DB8::5"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i := filled(Options{}, httpConfig("one", 0, claiming(tc.claimed)))
			require.Equal(t, "HTTPBootConfig one", lookup(t, i, tc.asked))
		})
	}
}

func TestStrangersFindNothing(t *testing.T) {
	i := filled(Options{}, httpConfig("one", 0, claiming(uuidA, macA, addrA)))
	for _, id := range []string{uuidB, "52:54:00:aa:bb:02", "10.0.0.6", "::10.0.0.5"} {
		require.Equal(t, "not found", lookup(t, i, id), id)
	}
	for _, uuid := range []boot.UUID{"", "x", "00112233-4455-6677-8899-aabbccddeeg0", "0011223344556677-8899-aabbccddeeff-"} {
		_, err := i.ByUUID(uuid)
		require.ErrorIs(t, err, boot.ErrNotFound, uuid)
	}
	for _, mac := range []boot.MAC{"", "52", "52:54:00:aa:bb:01:02", "zz:54:00:aa:bb:01"} {
		_, err := i.ByMAC(mac)
		require.ErrorIs(t, err, boot.ErrNotFound, mac)
	}
	_, err := i.ByAddr(netip.Addr{})
	require.ErrorIs(t, err, boot.ErrNotFound)
	_, err = i.ByObject("")
	require.ErrorIs(t, err, boot.ErrNotFound)
}

func TestUnavailableUntilEverythingWasSeen(t *testing.T) {
	i := New(Options{})
	i.put(httpConfig("one", 0, claiming(uuidA, addrA)))
	_, err := i.ByUUID(uuidA)
	require.ErrorIs(t, err, boot.ErrUnavailable)
	_, err = i.ByUUID("not a UUID")
	require.ErrorIs(t, err, boot.ErrUnavailable, "nothing is known of anyone yet")
	_, err = i.ByAddr(netip.MustParseAddr(addrA))
	require.ErrorIs(t, err, boot.ErrUnavailable)
	_, err = i.ByObject("uid-HTTPBootConfig-one")
	require.ErrorIs(t, err, boot.ErrUnavailable)
	_, err = i.ByBootAddr(netip.MustParseAddr(addrA))
	require.ErrorIs(t, err, boot.ErrUnavailable)
	_, err = i.PublicArtifact(digestA)
	require.ErrorIs(t, err, boot.ErrUnavailable)
	require.True(t, i.ProvesNothing(netip.MustParseAddr("192.0.2.1")))
	require.Contains(t, i.Digests(), digestA, "what was seen is kept at any time")
}

func TestAKindsMachinesContendAndTheOlderHolds(t *testing.T) {
	old := httpConfig("z-old", 0, claiming(uuidA, macA))
	young := httpConfig("a-young", 9, claiming(uuidASwap, "10.0.0.9"))
	i := filled(Options{}, young, old)
	require.Equal(t, "HTTPBootConfig z-old", lookup(t, i, uuidA))
	require.Equal(t, "not found", lookup(t, i, "10.0.0.9"), "the loser has no plan at all")
	_, err := i.ByObject("uid-HTTPBootConfig-a-young")
	require.ErrorIs(t, err, boot.ErrNotFound)

	c, lost := i.Conflict(young)
	require.True(t, lost)
	require.Equal(t, Conflict{With: boot.Ref{Kind: "HTTPBootConfig", Namespace: "default", Name: "z-old", UID: "uid-HTTPBootConfig-z-old"}, Identifier: uuidASwap}, c)
	_, lost = i.Conflict(old)
	require.False(t, lost)
}

func TestALoserContendsWithNobody(t *testing.T) {
	i := filled(Options{},
		httpConfig("first", 0, claiming(uuidA, macA)),
		httpConfig("second", 1, claiming(macA, addrA)),
		httpConfig("third", 2, claiming(addrA, uuidB)))
	require.Equal(t, "HTTPBootConfig third", lookup(t, i, addrA))
	require.Equal(t, "HTTPBootConfig first", lookup(t, i, macA))
}

func TestLosersArePromotedAndTheirControllerIsTold(t *testing.T) {
	first := httpConfig("first", 0, claiming(macA))
	second := httpConfig("second", 1, claiming(macA, addrA))
	third := httpConfig("third", 2, claiming(addrA))
	i := filled(Options{}, first, second, third)
	changed := i.Changed()

	i.drop(objectKey{0, defaultName, "first"})
	require.Equal(t, "HTTPBootConfig second", lookup(t, i, macA))
	require.Equal(t, "HTTPBootConfig second", lookup(t, i, addrA))
	told := map[string]bool{}
	for len(told) < 2 { // one may be told of twice: that it loses to someone else, and that it does not
		e := <-changed
		require.IsType(t, &v1alpha1.HTTPBootConfig{}, e.Object)
		told[e.Object.GetNamespace()+"/"+e.Object.GetName()] = true
	}
	require.Equal(t, map[string]bool{"default/second": true, "default/third": true}, told)
}

func TestConflictJudgesAConfigThatWasNotSeenYet(t *testing.T) {
	i := filled(Options{}, httpConfig("first", 5, claiming(macA)))
	_, lost := i.Conflict(httpConfig("younger", 6, claiming(macA)))
	require.True(t, lost)
	_, lost = i.Conflict(httpConfig("older", 4, claiming(macA)))
	require.False(t, lost)
	_, lost = i.Conflict(httpConfig("first", 5, claiming(macA)))
	require.False(t, lost, "nobody contends with itself")
	_, lost = i.Conflict(ipxeConfig("other-kind", 6, claiming(macA)))
	require.False(t, lost)
	_, lost = i.Conflict(httpConfig("leaving", 6, claiming(macA), deleting))
	require.False(t, lost)
}

func TestAMachineHasAConfigOfEachKind(t *testing.T) {
	for _, tc := range []struct {
		name       string
		http, ipxe edit
		asked      string
		want       string
	}{
		{"one UUID", claiming(uuidA), claiming(uuidA), uuidASwap, "HTTPBootConfig h, IPXEBootConfig i"},
		{"one address, one of them without UUID", claiming(uuidA, addrA), claiming(addrA), addrA, "HTTPBootConfig h, IPXEBootConfig i"},
		{"one address, two UUIDs", claiming(uuidA, addrA), claiming(uuidB, addrA), addrA, "ambiguous identity"},
		{"one MAC, two UUIDs", claiming(uuidA, macA), claiming(uuidB, macA), macA, "ambiguous identity"},
		{"two byte orders", claiming(uuidA), claiming(uuidASwap), uuidA, "ambiguous identity"},
		{"two byte orders, one address", claiming(uuidA, addrA), claiming(uuidASwap, addrA), addrA, "ambiguous identity"},
		{"two byte orders, one MAC", claiming(uuidA, macA), claiming(uuidASwap, macA), uuidA, "HTTPBootConfig h, IPXEBootConfig i"},
		{"an ambiguous address leaves the UUID alone", claiming(uuidA, addrA), claiming(uuidB, addrA), uuidA, "HTTPBootConfig h"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i := filled(Options{}, ipxeConfig("i", 0, tc.ipxe), httpConfig("h", 1, tc.http))
			require.Equal(t, tc.want, lookup(t, i, tc.asked))
			i.drop(objectKey{1, defaultName, "i"})
			require.Equal(t, "HTTPBootConfig h", lookup(t, i, tc.asked))
		})
	}
}

// A tenant must not add a config of the other kind to another tenant's machine.
func TestConfigsOfTwoNamespacesNeverShareAMachine(t *testing.T) {
	mine := httpConfig("mine", 0, inNamespace("red"), claiming(uuidA, addrA))
	theirs := ipxeConfig("theirs", 1, inNamespace("blue"), claiming(uuidASwap, "10.0.0.99"))
	i := filled(Options{}, theirs, mine)
	changed := i.Changed()
	require.Equal(t, "HTTPBootConfig mine", lookup(t, i, uuidA))
	require.Equal(t, "IPXEBootConfig theirs", lookup(t, i, "10.0.0.99"), "what it alone claims is its own")
	conflict, ok := i.Conflict(theirs)
	require.True(t, ok)
	require.Equal(t, "HTTPBootConfig red/mine", conflict.With.String())
	_, ok = i.Conflict(mine)
	require.False(t, ok, "the older one wins")

	i.drop(keyOf(mine))
	require.Equal(t, "IPXEBootConfig theirs", lookup(t, i, uuidA))
	_, ok = i.Conflict(theirs)
	require.False(t, ok)
	require.Equal(t, "theirs", (<-changed).Object.GetName(), "its controller is told")
}

func TestAConfigThatIsBeingDeletedClaimsNothing(t *testing.T) {
	i := filled(Options{}, httpConfig("one", 0, claiming(macA)), httpConfig("two", 1, claiming(macA)))
	i.put(httpConfig("one", 0, claiming(macA), deleting))
	require.Equal(t, "HTTPBootConfig two", lookup(t, i, macA))
	require.Contains(t, i.Digests(), digestA)
	i.drop(objectKey{0, defaultName, "two"})
	require.Equal(t, "not found", lookup(t, i, macA))
	_, err := i.PublicArtifact(digestA)
	require.ErrorIs(t, err, boot.ErrNotFound)
}

func TestARecreatedObjectIsAnotherOne(t *testing.T) {
	i := filled(Options{}, httpConfig("one", 0, claiming(macA)), httpConfig("two", 1, claiming(macA)))
	i.put(httpConfig("one", 2, claiming(macA), withUID("another")))
	require.Equal(t, "HTTPBootConfig two", lookup(t, i, macA))
	_, err := i.ByObject("uid-HTTPBootConfig-one")
	require.ErrorIs(t, err, boot.ErrNotFound)
}

func TestOnlyListedOrLabelledNamespacesClaim(t *testing.T) {
	selector, err := labels.Parse("machines=yes")
	require.NoError(t, err)
	i := filled(Options{ClaimNamespaces: []string{"listed"}, ClaimNamespaceSelector: selector},
		httpConfig("stranger", 0, inNamespace("tenant"), claiming(macA)),
		httpConfig("owner", 1, inNamespace("listed"), claiming(macA)))
	changed := i.Changed()
	require.Equal(t, "HTTPBootConfig owner", lookup(t, i, macA))
	require.True(t, i.MayClaim("listed"))
	require.False(t, i.MayClaim("tenant"))
	_, lost := i.Conflict(httpConfig("stranger", 0, inNamespace("tenant"), claiming(macA)))
	require.False(t, lost, "it may not claim at all")

	i.putNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Labels: map[string]string{"machines": "yes"}}})
	require.True(t, i.MayClaim("tenant"))
	require.Equal(t, "HTTPBootConfig stranger", lookup(t, i, macA))
	told := []string{(<-changed).Object.GetName(), (<-changed).Object.GetName()}
	require.ElementsMatch(t, []string{"stranger", "owner"}, told)

	i.putNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant"}})
	require.Equal(t, "HTTPBootConfig owner", lookup(t, i, macA))
	i.putNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Labels: map[string]string{"machines": "yes"}}})
	i.removeNamespace("tenant")
	require.Equal(t, "HTTPBootConfig owner", lookup(t, i, macA))
}

func TestOnlyDigestsOfReadyPlansArePublic(t *testing.T) {
	i := filled(Options{},
		httpConfig("ready", 0, claiming(uuidA)),
		httpConfig("waiting", 1, claiming(uuidB), withDigest(digestB), notReadyYet),
		httpConfig("loser", 2, claiming(uuidA), withDigest(digestB)))
	a, err := i.PublicArtifact(digestA)
	require.NoError(t, err)
	require.Equal(t, boot.Artifact{Role: boot.RoleUKI, Digest: digestA, Size: 4096, Source: sourceA}, a)
	_, err = i.PublicArtifact(digestB)
	require.ErrorIs(t, err, boot.ErrNotFound)
	require.Equal(t, map[boot.Digest]struct{}{digestA: {}, digestB: {}}, i.Digests(), "the sweep keeps both")
}

func TestADigestThatIsAUKIToAnyoneIsServedAsOne(t *testing.T) {
	kernel := func(cfg v1alpha1.Config) { cfg.ConfigStatus().Artifacts[0].Role = "Kernel" }
	i := filled(Options{}, ipxeConfig("kernel", 0, claiming(uuidB), kernel), httpConfig("uki", 1, claiming(uuidA)))
	a, err := i.PublicArtifact(digestA)
	require.NoError(t, err)
	require.Equal(t, boot.RoleUKI, a.Role)
	i.drop(objectKey{0, defaultName, "uki"})
	a, err = i.PublicArtifact(digestA)
	require.NoError(t, err)
	require.Equal(t, boot.RoleKernel, a.Role)
}

func TestAddressesOfTheClusterProveNothing(t *testing.T) {
	i := filled(Options{UntrustedClients: []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25"), netip.MustParsePrefix("::ffff:198.51.100.0/120")}})
	i.putNode(node("one", "10.244.1.0/24", "172.16.0.1", "fd00::1"))
	i.putNode(node("two", "fd00:244::/64", "172.16.0.2"))
	i.putNode(node("odd", "no prefix", "no address"))
	for addr, want := range map[string]bool{
		"172.16.0.1": true, "172.16.0.3": false, "::ffff:172.16.0.2": true, "fd00::1": true, "fd00::2": false,
		"10.244.1.77": true, "10.244.2.77": false, "fd00:244::9": true, "192.0.2.200": true, "192.0.2.100": false, "198.51.100.9": true,
	} {
		require.Equal(t, want, i.ProvesNothing(netip.MustParseAddr(addr)), addr)
	}
	i.putNode(node("one", "10.244.1.0/24", "172.16.0.9"))
	i.removeNode("two")
	for addr, want := range map[string]bool{"172.16.0.1": false, "172.16.0.9": true, "10.244.1.77": true, "172.16.0.2": false, "fd00:244::9": false} {
		require.Equal(t, want, i.ProvesNothing(netip.MustParseAddr(addr)), addr)
	}
}

// A request that comes from a node itself was translated on its way; one from a pod
// was not.
func TestNodesAreToldFromTheirPods(t *testing.T) {
	i := filled(Options{UntrustedClients: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}})
	i.putNode(node("one", "10.244.1.0/24", "172.16.0.1", "fd00::1"))
	i.putNode(node("two", "10.244.2.0/24", "172.16.0.1", "172.16.0.2"))
	check := func(want map[string]bool) {
		t.Helper()
		for addr, is := range want {
			require.Equal(t, is, i.IsNode(netip.MustParseAddr(addr)), addr)
		}
	}
	check(map[string]bool{"172.16.0.1": true, "::ffff:172.16.0.2": true, "fd00::1": true, "10.244.1.7": false, "192.0.2.1": false, "10.0.0.5": false})
	i.removeNode("one")
	check(map[string]bool{"172.16.0.1": true, "fd00::1": false}) // two nodes said that it was theirs
	i.removeNode("two")
	check(map[string]bool{"172.16.0.1": false})
	require.Empty(t, i.nodeAddrs)
	require.False(t, i.IsNode(netip.Addr{}))
}

func TestOneSubscriptionForEachReader(t *testing.T) {
	i := New(Options{})
	a, b := i.Changed(), i.Changed()
	i.changes.tell(boot.Ref{Kind: v1alpha1.KindIPXEBootConfig, Namespace: "n", Name: "m"})
	require.IsType(t, &v1alpha1.IPXEBootConfig{}, (<-a).Object)
	require.Equal(t, "m", (<-b).Object.GetName())
	for range maxSubscriptions - 1 {
		i.Changed()
	}
	_, open := <-a
	require.False(t, open, "the oldest of too many is closed")
	i.changes.close()
	_, open = <-b
	require.False(t, open)
}
