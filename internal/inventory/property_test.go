package inventory

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// The few identifiers that random configs fight over, spelled in several ways.
var contested = []string{
	uuidA, uuidASwap, strings.ToUpper(uuidA), uuidB,
	"52:54:00:aa:bb:01", "52-54-00-AA-BB-01", "52:54:00:aa:bb:02", "52:54:00:aa:bb:03",
	"10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1",
}

// The few addresses that random configs are booted at.
var bootAddrs = []string{"10.0.0.1", "::ffff:10.0.0.1", "10.0.9.9", "2001:db8::9"}

// world is what a naive implementation keeps: the objects themselves.
type world struct {
	configs map[objectKey]v1alpha1.Config
	allowed map[string]bool
}

// holders decides from scratch who holds, and whom the others lose to.
func (w *world) holders(kind string) (holders []v1alpha1.Config, losers map[objectKey]string) {
	all := slices.DeleteFunc(slices.Collect(maps.Values(w.configs)), func(c v1alpha1.Config) bool {
		return c.Kind() != kind || c.GetDeletionTimestamp() != nil || !w.allowed[c.GetNamespace()]
	})
	slices.SortFunc(all, func(a, b v1alpha1.Config) int {
		if d := a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time); d != 0 {
			return d
		}
		return strings.Compare(a.GetNamespace()+"\x00"+a.GetName(), b.GetNamespace()+"\x00"+b.GetName())
	})
	losers = map[objectKey]string{}
	for _, c := range all {
		if with := firstRival(c, holders); with != "" {
			losers[keyOf(c)] = with
			continue
		}
		holders = append(holders, c)
	}
	return holders, losers
}

func firstRival(c v1alpha1.Config, holders []v1alpha1.Config) string {
	for _, id := range identifiers(c) {
		for _, h := range holders {
			if slices.Contains(identifiers(h), id) {
				return h.GetNamespace() + "/" + h.GetName()
			}
		}
	}
	return ""
}

// identifiers folds byte orders by text, unlike the index.
func identifiers(c v1alpha1.Config) []string {
	m, _ := claim.Machine(c, boot.AMD64)
	var all []string
	if m.UUID != "" {
		all = append(all, string(min(m.UUID, m.UUID.Swapped())))
	}
	for _, mac := range m.MACs {
		all = append(all, string(mac))
	}
	for _, a := range m.Addrs {
		all = append(all, a.String())
	}
	return all
}

func keyOf(c v1alpha1.Config) objectKey {
	return objectKey{kindNumber(c.Kind()), c.GetNamespace(), c.GetName()}
}

// find answers a lookup from scratch.
func (w *world) find(id string) string {
	var found []v1alpha1.Config
	for _, kind := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig} {
		holders, _ := w.holders(kind)
		for _, h := range holders {
			if slices.Contains(identifiers(h), id) {
				found = append(found, h)
			}
		}
	}
	if len(found) == 0 {
		return boot.ErrNotFound.Error()
	}
	if len(found) == 2 && found[0].GetNamespace() != found[1].GetNamespace() {
		first := slices.MinFunc(found, func(a, b v1alpha1.Config) int {
			return cmp.Or(a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()))
		})
		found = []v1alpha1.Config{first}
	}
	if len(found) == 2 {
		a, _ := claim.Machine(found[0], boot.AMD64)
		b, _ := claim.Machine(found[1], boot.AMD64)
		shareMAC := slices.ContainsFunc(a.MACs, func(m boot.MAC) bool { return slices.Contains(b.MACs, m) })
		one := a.UUID == "" || b.UUID == "" || a.UUID == b.UUID || (a.UUID == b.UUID.Swapped() && shareMAC)
		if !one {
			return boot.ErrAmbiguous.Error()
		}
	}
	var all []string
	for _, c := range found {
		all = append(all, c.Kind()+" "+c.GetName())
	}
	return strings.Join(all, ", ")
}

// bootedAt finds from scratch whose present attempt was booted at an address
// last.
func (w *world) bootedAt(addr string) string {
	var all []v1alpha1.Config
	for _, kind := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig} {
		holders, _ := w.holders(kind)
		for _, h := range holders {
			b := h.ConfigStatus().Boot
			if b != nil && b.Stages[0].Proof != "Claimed" && canonical(b.Stages[0].ClientAddress) == addr {
				all = append(all, h)
			}
		}
	}
	if len(all) == 0 {
		return boot.ErrNotFound.Error()
	}
	last := slices.MinFunc(all, func(a, b v1alpha1.Config) int {
		return cmp.Or(b.ConfigStatus().Boot.OpenedTime.Compare(a.ConfigStatus().Boot.OpenedTime.Time),
			a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()),
			cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.Kind(), b.Kind()))
	})
	return string(last.GetUID())
}

// blobs lists from scratch what statuses name, and what ready holders do.
func (w *world) blobs() (named, public map[boot.Digest]struct{}) {
	named, public = map[boot.Digest]struct{}{}, map[boot.Digest]struct{}{}
	for _, c := range w.configs {
		named[boot.Digest(c.ConfigStatus().Artifacts[0].Digest)] = struct{}{}
	}
	for _, kind := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig} {
		holders, _ := w.holders(kind)
		for _, h := range holders {
			if len(h.ConfigStatus().Conditions) > 0 {
				public[boot.Digest(h.ConfigStatus().Artifacts[0].Digest)] = struct{}{}
			}
		}
	}
	return named, public
}

// randomConfig makes one of few names, so that most events are updates.
func randomConfig(r *rand.Rand, w *world) v1alpha1.Config {
	ids := make([]string, 1+r.IntN(3))
	for n := range ids {
		ids[n] = contested[r.IntN(len(contested))]
	}
	kind := []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig}[r.IntN(2)]
	edits := []edit{claiming(ids...), inNamespace([]string{"red", "blue"}[r.IntN(2)]), withDigest([]boot.Digest{digestA, digestB}[r.IntN(2)])}
	if r.IntN(4) == 0 {
		edits = append(edits, notReadyYet)
	}
	if r.IntN(8) == 0 {
		edits = append(edits, deleting)
	}
	if r.IntN(2) == 0 {
		edits = append(edits, bootedAt(bootAddrs[r.IntN(len(bootAddrs))], []string{"Claimed", "Address", "BMC"}[r.IntN(3)],
			epoch.Add(time.Duration(r.IntN(4))*time.Minute)))
	}
	c := config(kind, fmt.Sprintf("c%d", r.IntN(8)), r.IntN(5), edits...)
	withUID(fmt.Sprintf("%s-%s-%d", c.GetNamespace(), c.GetUID(), r.IntN(2)))(c)
	if old := w.configs[keyOf(c)]; old != nil && r.IntN(2) == 0 {
		c.SetUID(old.GetUID())
		c.SetCreationTimestamp(old.GetCreationTimestamp())
		if r.IntN(2) == 0 { // nothing but the status changes
			c.SetDeletionTimestamp(old.GetDeletionTimestamp())
			claiming(slices.Concat([]string{old.Common().SystemUUID}, old.Common().Identifiers)...)(c)
		}
	}
	return c
}

// step does the same to the inventory and to the naive world, and says which
// config it was about.
func step(r *rand.Rand, i *Inventory, w *world) objectKey {
	switch r.IntN(10) {
	case 0:
		ns := []string{"red", "blue"}[r.IntN(2)]
		w.allowed[ns] = !w.allowed[ns]
		i.allow(ns, w.allowed[ns])
		return objectKey{}
	case 1, 2, 3:
		c := randomConfig(r, w)
		delete(w.configs, keyOf(c))
		i.drop(keyOf(c))
		return keyOf(c)
	default:
		c := randomConfig(r, w)
		w.configs[keyOf(c)] = c
		i.put(c)
		return keyOf(c)
	}
}

// canonical spells an identifier as the naive world compares it.
func canonical(id string) string {
	if u, err := boot.ParseUUID(id); err == nil {
		return string(min(u, u.Swapped()))
	}
	addr, mac, _ := boot.ParseIdentifier(id)
	if mac != "" {
		return string(mac)
	}
	return addr.String()
}

func (w *world) check(t *testing.T, i *Inventory) {
	t.Helper()
	for _, spelled := range contested {
		asked := canonical(spelled)
		require.Equal(t, w.find(asked), lookup(t, i, spelled), spelled)
	}
	for _, addr := range bootAddrs {
		p, err := i.ByBootAddr(netip.MustParseAddr(addr))
		got := fmt.Sprint(err)
		if err == nil {
			got = p.Object.UID
		}
		require.Equal(t, w.bootedAt(canonical(addr)), got, addr)
	}
	named, public := w.blobs()
	require.Equal(t, named, i.Digests())
	for _, d := range []boot.Digest{digestA, digestB} {
		_, want := public[d]
		_, err := i.PublicArtifact(d)
		require.Equal(t, want, err == nil, d)
	}
	for _, kind := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig} {
		holders, _ := w.holders(kind)
		for _, h := range holders {
			p, err := i.ByObject(string(h.GetUID()))
			require.NoError(t, err)
			require.Equal(t, h.GetName(), p.Object.Name)
		}
	}
	for _, c := range w.configs {
		conflict, lost := i.Conflict(c)
		with := ""
		if lost {
			with = conflict.With.Namespace + "/" + conflict.With.Name
		}
		require.Equal(t, w.rival(c), with)
	}
}

// rival says from scratch whom a config loses to: an older holder of its kind,
// or of the other kind in another namespace.
func (w *world) rival(c v1alpha1.Config) string {
	if c.GetDeletionTimestamp() != nil || !w.allowed[c.GetNamespace()] {
		return ""
	}
	for _, id := range identifiers(c) {
		for _, kind := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig} {
			holders, _ := w.holders(kind)
			for _, h := range holders {
				contends := h.Kind() == c.Kind() || h.GetNamespace() != c.GetNamespace()
				if contends && keyOf(h) != keyOf(c) && isOlder(h, c) && slices.Contains(identifiers(h), id) {
					return h.GetNamespace() + "/" + h.GetName()
				}
			}
		}
	}
	return ""
}

func isOlder(a, b v1alpha1.Config) bool {
	return cmp.Or(a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time),
		cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName())) < 0
}

// conflicts says whom everyone loses to, to see of whom the controller must be told.
func (w *world) conflicts() map[objectKey]string {
	all := map[objectKey]string{}
	for _, kind := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig} {
		_, losers := w.holders(kind)
		maps.Copy(all, losers)
	}
	return all
}

func TestIncrementalIndexEqualsANaiveOne(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test
			i := filled(Options{ClaimNamespaceSelector: labels.Everything()})
			w := &world{configs: map[objectKey]v1alpha1.Config{}, allowed: map[string]bool{}}
			sub := &subscription{pending: map[objectKey]struct{}{}, wake: make(chan struct{}, 1), stop: make(chan struct{})}
			i.changes.add(sub)
			for range 120 {
				before := w.conflicts()
				clear(sub.pending)
				about := step(r, i, w)
				after := w.conflicts()
				for k, c := range w.configs {
					if k != about && before[k] != after[k] && c.GetDeletionTimestamp() == nil {
						require.Contains(t, sub.pending, k, "its conflict was %q and is %q", before[k], after[k])
					}
				}
				require.Empty(t, i.vacant)
				w.check(t, i)
			}
			for k := range w.configs {
				i.drop(k)
			}
			require.Empty(t, i.slots, "nothing stays of what is gone")
			require.Empty(t, i.booted)
			require.Empty(t, i.objects)
			require.Empty(t, i.byUID)
			require.Empty(t, i.digests.named)
			require.Empty(t, i.digests.public)
			require.Empty(t, i.namespaces.entries)
		})
	}
}

// The order in which the first list arrives must not matter.
func TestSettlingAtOnceEqualsSettlingStepByStep(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // a test
		w := &world{configs: map[objectKey]v1alpha1.Config{}, allowed: map[string]bool{"red": true, "blue": true}}
		i := New(Options{})
		for range 60 {
			c := randomConfig(r, w)
			w.configs[keyOf(c)] = c
			i.put(c)
		}
		i.settleAll()
		i.synced.Store(true)
		w.check(t, i)
	}
}

func TestLookupsWhileEverythingChanges(*testing.T) {
	i := filled(Options{ClaimNamespaceSelector: labels.Everything()})
	i.putNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "red"}})
	changed := i.Changed()
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-changed:
				default:
				}
				plans, _ := i.ByUUID(uuidA)
				for _, p := range plans {
					_ = p.Object.String() + p.NotReady
				}
				_, _ = i.ByAddr(netip.MustParseAddr("10.0.0.1"))
				_, _ = i.ByBootAddr(netip.MustParseAddr("10.0.0.1"))
				_, _ = i.PublicArtifact(digestA)
				_ = i.ProvesNothing(netip.MustParseAddr("10.0.0.1"))
				_, _ = i.Conflict(httpConfig("x", 9, claiming(uuidA)))
				_ = i.Digests()
			}
		})
	}
	for seed := range uint64(3) {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // a test
			w := &world{configs: map[objectKey]v1alpha1.Config{}, allowed: map[string]bool{}}
			for range 2000 {
				step(r, i, w)
			}
			i.putNode(node(fmt.Sprint(seed), "10.0.0.0/24", "10.0.0.1"))
			i.removeNode(fmt.Sprint(seed))
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

// A config's event must cost what it affects, not what there is: in a fleet of
// any size it affects nobody else.
func TestAnEventCostsWhatItAffects(t *testing.T) {
	cost := func(n int) time.Duration {
		i := filled(Options{}, rack(n)...)
		best := time.Hour
		for range 7 {
			start := time.Now()
			for k := range 500 {
				i.put(httpConfig("probe", k, claiming(uuidB, "10.255.0.1")))
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	small, large := cost(500), cost(20000)
	require.Less(t, large, 8*small, "500 events took %s among 500 configs, %s among 20000", small, large)
}
