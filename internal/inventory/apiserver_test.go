package inventory

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestMain(m *testing.M) { controlplane.Main(m) }

// Against a real API server, through the real cache with our transform.
func TestTheInventoryFollowsTheAPIServer(t *testing.T) {
	config := controlplane.Start(t)
	ns := controlplane.Namespace(t, config)
	scheme := runtime.NewScheme()
	require.NoError(t, corev1.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	api, err := client.New(config, client.Options{Scheme: scheme})
	require.NoError(t, err)
	informers, err := cache.New(config, cache.Options{Scheme: scheme, DefaultTransform: Strip})
	require.NoError(t, err)
	n := node("worker", "10.244.7.0/24")
	require.NoError(t, api.Create(t.Context(), n))
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "172.16.7.1"}}
	require.NoError(t, api.Status().Update(t.Context(), n))

	i := New(Options{ClaimNamespaces: []string{ns}})
	require.NoError(t, i.Register(t.Context(), informers))
	go func() { _ = informers.Start(t.Context()) }()
	eventually(t, i.HasSynced)
	require.True(t, i.ProvesNothing(netip.MustParseAddr("172.16.7.1")))
	require.True(t, i.ProvesNothing(netip.MustParseAddr("10.244.7.9")))

	first := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "first"}}
	first.Spec.SystemUUID = "00112233-4455-6677-8899-AABBCCDDEEFF"
	require.NoError(t, api.Create(t.Context(), first))
	eventually(t, func() bool { return lookup(t, i, uuidASwap) == "HTTPBootConfig first" })
	p, err := i.ByObject(string(first.UID))
	require.NoError(t, err)
	require.NotEmpty(t, p.NotReady)

	first.Status = *httpConfig("", 0).ConfigStatus()
	first.Status.ObservedGeneration = first.Generation
	first.Status.Conditions[0].ObservedGeneration = first.Generation
	first.Status.Conditions[0].LastTransitionTime = metav1.Now()
	require.NoError(t, api.Status().Update(t.Context(), first))
	eventually(t, func() bool { _, err := i.PublicArtifact(digestA); return err == nil })

	require.NoError(t, api.Delete(t.Context(), first))
	start := time.Now()
	eventually(t, func() bool { return lookup(t, i, uuidA) == "not found" })
	require.Less(t, time.Since(start), 2*time.Second)
	_, err = i.PublicArtifact(digestA)
	require.Error(t, err)
}
