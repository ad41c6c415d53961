package bootconfig

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// lentCache outlives the managers that it is lent to, and counts the handlers
// that are registered with its informers.
type lentCache struct {
	cache.Cache
	handlers *atomic.Int32
}

func (lentCache) Start(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (c lentCache) GetInformer(ctx context.Context, o client.Object, opts ...cache.InformerGetOption) (cache.Informer, error) {
	i, err := c.Cache.GetInformer(ctx, o, opts...)
	return countingInformer{i, c.handlers}, err
}

type countingInformer struct {
	cache.Informer
	handlers *atomic.Int32
}

func (i countingInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.handlers.Add(1)
	return i.Informer.AddEventHandler(h)
}

func (i countingInformer) RemoveEventHandler(r toolscache.ResourceEventHandlerRegistration) error {
	i.handlers.Add(-1)
	return i.Informer.RemoveEventHandler(r)
}

func TestControllersComeBackAfterALostLeaseAndLeaveNothingBehind(t *testing.T) {
	f := newFixture(t)
	f.config = f.operator(secretWatch)
	lent, err := cache.New(f.config, cache.Options{Scheme: f.scheme, DefaultNamespaces: map[string]cache.Config{f.ns: {}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { _ = lent.Start(ctx) }()
	handlers := &atomic.Int32{}
	lead := func() (stop func()) {
		again := true
		mgr, err := ctrl.NewManager(f.config, ctrl.Options{
			Scheme: f.scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
			NewCache:   func(*rest.Config, cache.Options) (cache.Cache, error) { return lentCache{lent, handlers}, nil },
			Client:     client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
			Controller: ctrlconfig.Controller{SkipNameValidation: &again},
		})
		require.NoError(t, err)
		o := f.bootstrap
		o.SecretWatch = true
		require.NoError(t, Setup(mgr, o))
		return f.start(mgr)
	}

	stop := lead()
	c := f.machine("m")
	f.ready(c)
	f.eventually(c, "watched three times", func() bool { return handlers.Load() == 3 })
	stop()
	f.eventually(c, "let go", func() bool { return handlers.Load() == 0 })
	before := c.ResourceVersion

	release := f.store.hangPull(ukiDigest) // the registry is slow this time
	defer release()
	stop = lead()
	defer stop()
	f.eventually(c, "looked at by the next leader", func() bool { return f.store.count(imageTag) == 2 })
	f.ready(f.machine("late", func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = ""; c.Spec.UKIURL = "http://example.com/os.efi" }))
	release()
	f.reread(c)
	assert.Equal(t, before, c.ResourceVersion, "a new leader does not take back what the old one found")
}

func TestOnlyChangesOfWhatTheUserWantsAreReconciled(t *testing.T) {
	object := func(change func(*v1alpha1.HTTPBootConfig)) *v1alpha1.HTTPBootConfig {
		c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{UID: "1", Generation: 1, ResourceVersion: "1"}}
		change(c)
		return c
	}
	was := object(func(*v1alpha1.HTTPBootConfig) {})
	for name, c := range map[string]struct {
		now  func(*v1alpha1.HTTPBootConfig)
		want bool
	}{
		"status": {func(c *v1alpha1.HTTPBootConfig) { c.ResourceVersion, c.Status.State = "2", "Ready" }, false},
		"label":  {func(c *v1alpha1.HTTPBootConfig) { c.Labels = map[string]string{"a": "b"} }, false},
		"spec":   {func(c *v1alpha1.HTTPBootConfig) { c.Generation = 2 }, true},
		"annotation": {func(c *v1alpha1.HTTPBootConfig) {
			c.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: "x"}
		}, true},
		"another": {func(c *v1alpha1.HTTPBootConfig) { c.UID = "2" }, true},
	} {
		assert.Equal(t, c.want, concerns(was, object(c.now)), name)
	}
}
