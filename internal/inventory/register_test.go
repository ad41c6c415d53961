package inventory

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	cachetesting "k8s.io/client-go/tools/cache/testing"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// informers are real shared informers over lists that the test owns.
type informers struct {
	cache.Informers
	sources map[string]*source
	err     error
}

// source is one informer and the API server behind it.
type source struct {
	watcher  *cachetesting.FakeControllerSource
	informer toolscache.SharedIndexInformer
}

func newSource(obj runtime.Object) *source {
	w := cachetesting.NewFakeControllerSource()
	return &source{watcher: w, informer: toolscache.NewSharedIndexInformer(w, obj, 0, nil)}
}

func (s *source) run(t *testing.T) {
	t.Helper()
	go s.informer.RunWithContext(t.Context())
}

func (f *informers) GetInformer(_ context.Context, obj client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	if f.err != nil {
		return nil, f.err
	}
	name := typeName(obj)
	if f.sources[name] == nil {
		f.sources[name] = newSource(obj)
	}
	return f.sources[name].informer, nil
}

func typeName(obj runtime.Object) string {
	s := runtime.NewScheme()
	_ = v1alpha1.AddToScheme(s)
	_ = clientgoscheme.AddToScheme(s)
	kinds, _, _ := s.ObjectKinds(obj)
	return kinds[0].Kind
}

func TestRegisterWatchesOnlyWhatIsNeeded(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options Options
		want    []string
	}{
		{"by default", Options{}, []string{"HTTPBootConfig", "IPXEBootConfig", "Node"}},
		{"cluster trusted", Options{TrustClusterAddresses: true}, []string{"HTTPBootConfig", "IPXEBootConfig"}},
		{"labels decide", Options{ClaimNamespaceSelector: labels.Everything()}, []string{"HTTPBootConfig", "IPXEBootConfig", "Node", "Namespace"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &informers{sources: map[string]*source{}}
			require.NoError(t, New(tc.options).Register(t.Context(), f))
			var got []string
			for name := range f.sources {
				got = append(got, name)
			}
			require.ElementsMatch(t, tc.want, got)
		})
	}
}

func TestRegisterSaysWhichInformerCannotBeHad(t *testing.T) {
	err := New(Options{}).Register(t.Context(), &informers{err: errors.New("no such kind")})
	require.EqualError(t, err, "getting the informer of *v1alpha1.HTTPBootConfig: no such kind")
}

func TestEventsReachTheIndexAndDeletionIsSeenAtOnce(t *testing.T) {
	f := &informers{sources: map[string]*source{}}
	i := New(Options{})
	require.NoError(t, i.Register(t.Context(), f))
	require.False(t, i.HasSynced())
	f.sources["HTTPBootConfig"].watcher.Add(httpConfig("one", 0, claiming(uuidA, addrA)).(*v1alpha1.HTTPBootConfig))
	f.sources["HTTPBootConfig"].watcher.Add(httpConfig("two", 1, claiming(uuidA)).(*v1alpha1.HTTPBootConfig))
	changed := i.Changed()
	f.sources["HTTPBootConfig"].run(t)
	f.sources["IPXEBootConfig"].run(t)
	_, err := i.ByUUID(uuidA)
	require.ErrorIs(t, err, boot.ErrUnavailable, "nodes were not seen yet")
	f.sources["Node"].watcher.Add(node("n", "10.244.0.0/24", "172.16.0.1"))
	f.sources["Node"].run(t)
	eventually(t, func() bool { return lookup(t, i, uuidA) == "HTTPBootConfig one" })
	require.True(t, i.HasSynced())
	require.Equal(t, "two", (<-changed).Object.GetName(), "the loser of the first list is told of")
	require.True(t, i.ProvesNothing(netip.MustParseAddr("10.244.0.9")))

	f.sources["HTTPBootConfig"].watcher.Delete(&v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: defaultName, Name: "one"}})
	eventually(t, func() bool { return lookup(t, i, addrA) == "not found" })
	require.Equal(t, "HTTPBootConfig two", lookup(t, i, uuidA))
}

func TestADeletionThatTheInformerMissedIsSeen(t *testing.T) {
	i := filled(Options{}, httpConfig("one", 0, claiming(uuidA)))
	h := i.configHandler(v1alpha1.KindHTTPBootConfig)
	h.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "default/one"})
	require.Equal(t, "not found", lookup(t, i, uuidA))
	h.OnAdd("neither object nor tombstone", false)
	h.OnDelete("neither object nor tombstone")
}

func TestStripKeepsWhatTheInventoryReads(t *testing.T) {
	managed := []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	applied := map[string]string{corev1.LastAppliedConfigAnnotation: "{}", v1alpha1.RequestBootAnnotation: "now"}
	cfg := httpConfig("one", 0, claiming(uuidA, macA, addrA), withBoot(v1alpha1.BootStatus{Attempt: 1}))
	want := New(Options{}).plan(cfg)
	cfg.SetManagedFields(managed)
	cfg.SetAnnotations(applied)
	got, err := Strip(cfg)
	require.NoError(t, err)
	require.Equal(t, want, New(Options{}).plan(got.(v1alpha1.Config)))
	require.Empty(t, cfg.GetManagedFields())
	require.Equal(t, map[string]string{v1alpha1.RequestBootAnnotation: "now"}, cfg.GetAnnotations())

	n := node("n", "10.244.0.0/24", "172.16.0.1")
	n.Status.Images = []corev1.ContainerImage{{Names: []string{"large"}}}
	n.Labels, n.ManagedFields = map[string]string{"a": "b"}, managed
	got, err = Strip(n)
	require.NoError(t, err)
	require.Equal(t, nodePrefixes(n), nodePrefixes(got.(*corev1.Node)))
	require.Empty(t, got.(*corev1.Node).Status.Images)
	require.Empty(t, got.(*corev1.Node).Labels)

	got, err = Strip(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"a": "b"}, Annotations: applied}})
	require.NoError(t, err)
	require.Equal(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"a": "b"}}}, got)

	tombstone := toolscache.DeletedFinalStateUnknown{Key: "default/one"}
	got, err = Strip(tombstone)
	require.NoError(t, err)
	require.Equal(t, tombstone, got)
}

func TestTextsAreSharedWithinBounds(t *testing.T) {
	n := interner{known: map[string]string{}, most: 100, longest: 40}
	for k := range n.most + 5 {
		require.Equal(t, rackUUID(k), n.share(rackUUID(k)))
		require.LessOrEqual(t, len(n.known), n.most)
	}
	long := strings.Repeat("x", n.longest+1)
	require.Equal(t, long, n.share(long))
	require.NotContains(t, n.known, long)
}

// A template of 16 KiB that 50,000 machines share must not be there 50,000 times.
func TestATemplateThatConfigsShareIsInMemoryOnce(t *testing.T) {
	template := "#!ipxe\n" + strings.Repeat("# 0123456789\n", 1200)
	var all []*boot.Plan
	for range 2 {
		cfg := ipxeConfig("one", 0, ipxeSpec(func(s *v1alpha1.IPXEBootConfigSpec) {
			s.ScriptTemplate = strings.Clone(template)
			s.KernelArguments = []string{strings.Clone("console=ttyS0,115200")}
		}))
		got, err := Strip(cfg)
		require.NoError(t, err)
		all = append(all, New(Options{}).plan(got.(v1alpha1.Config)))
	}
	require.Equal(t, template, all[1].ScriptTemplate)
	require.Same(t, unsafe.StringData(all[0].ScriptTemplate), unsafe.StringData(all[1].ScriptTemplate))
	require.Same(t, unsafe.StringData(all[0].KernelArguments[0]), unsafe.StringData(all[1].KernelArguments[0]))
}

func TestWhatStatusesOfBootsRepeatIsInMemoryOnce(t *testing.T) {
	var all []*v1alpha1.BootStatus
	for range 2 {
		text := strings.Clone
		cfg := httpConfig("one", 0, withBoot(v1alpha1.BootStatus{
			Attempt: 1, Served: &v1alpha1.BootServed{Digest: text(string(digestA))},
			Stages:    []v1alpha1.BootStage{{Name: "UKI", Proof: text("Relay"), Digest: text(string(digestA))}},
			Offer:     &v1alpha1.BootOffer{Firmware: text("x86-64 UEFI HTTP")},
			RelayPort: &v1alpha1.RelayPort{RelayAddress: text("10.1.0.1"), RemoteID: text("switch-1")},
		}))
		got, err := Strip(cfg)
		require.NoError(t, err)
		all = append(all, got.(v1alpha1.Config).ConfigStatus().Boot)
	}
	texts := func(b *v1alpha1.BootStatus) []string {
		return []string{b.Served.Digest, b.Stages[0].Proof, b.Stages[0].Digest, b.Offer.Firmware, b.RelayPort.RelayAddress, b.RelayPort.RemoteID}
	}
	require.Equal(t, texts(all[0]), texts(all[1]))
	for n, s := range texts(all[0]) {
		require.Same(t, unsafe.StringData(s), unsafe.StringData(texts(all[1])[n]), s)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 10*time.Second, 2*time.Millisecond)
}
