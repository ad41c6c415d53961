package prefetch

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/ignition"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestMain(m *testing.M) { controlplane.Main(m) }

// Against a real API server: what a status names is pulled, and the document
// comes from the Secret that the config names, also when that one changes.
func TestPrefetchFollowsTheAPIServer(t *testing.T) {
	config := controlplane.Start(t)
	ns := controlplane.Namespace(t, config)
	scheme := runtime.NewScheme()
	require.NoError(t, corev1.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	api, err := client.New(config, client.Options{Scheme: scheme})
	require.NoError(t, err)
	informers, err := cache.New(config, cache.Options{Scheme: scheme})
	require.NoError(t, err)
	for name, version := range map[string]string{"first": "3.4.0", "second": "3.3.0"} {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
		s.Data = map[string][]byte{v1alpha1.SecretKeyIgnition: []byte(`{"ignition":{"version":"` + version + `"}}`)}
		require.NoError(t, api.Create(t.Context(), s))
	}
	cfg := configIn(ns)
	require.NoError(t, api.Create(t.Context(), cfg))
	cfg.Status.Artifacts = []v1alpha1.Artifact{{Role: "UKI", Digest: string(digest(1)), Size: 1, Source: "r/one"}}
	require.NoError(t, api.Status().Update(t.Context(), cfg))

	store := newFakeStore()
	p, err := New(Options{Store: store, Reader: api, Convert: ignition.Convert})
	require.NoError(t, err)
	require.Error(t, p.Ready())
	require.NoError(t, p.Register(t.Context(), informers))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	go func() { _ = informers.Start(ctx) }()
	eventually(t, func() bool { return p.Ready() == nil })
	require.True(t, store.Has(digest(1)))

	machine := &boot.Plan{Object: boot.Ref{Namespace: ns, Name: cfg.Name, UID: string(cfg.UID)}, HasIgnition: true}
	document, err := p.Ignition(t.Context(), machine)
	require.NoError(t, err)
	require.JSONEq(t, `{"ignition":{"version":"3.4.0"}}`, string(document))
	cfg.Spec.IgnitionSecretRef.Name = "second"
	require.NoError(t, api.Update(t.Context(), cfg))
	eventually(t, func() bool {
		document, err := p.Ignition(t.Context(), machine)
		return err == nil && string(document) == `{"ignition":{"version":"3.3.0"}}`
	})

	require.NoError(t, api.Delete(t.Context(), cfg))
	eventually(t, func() bool { _, err := p.Ignition(t.Context(), machine); return err != nil })
	n, _ := p.secrets.size()
	require.Zero(t, n)
	cancel()
	require.NoError(t, <-ended)
}

func configIn(ns string) *v1alpha1.HTTPBootConfig {
	c := config("one", "first")
	c.ObjectMeta = metav1.ObjectMeta{Namespace: ns, Name: "one"}
	c.Spec.SystemUUID = "00112233-4455-6677-8899-aabbccddeeff"
	return c
}
