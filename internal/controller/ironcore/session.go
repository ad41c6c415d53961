package ironcore

import (
	"context"
	"fmt"
	"time"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// The fields by which the cache finds objects.
const (
	byServer = "spec.serverRef.name"
	byUUID   = "spec.systemUUID"
)

// run translates until ctx ends. All informers are this session's, so that none
// goes on asking for a kind that is gone.
func (t *translator) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	r, err := t.reconciler(ctx)
	if err != nil {
		return err
	}
	c, err := t.controller(r)
	if err != nil {
		return fmt.Errorf("setting up the controller: %w", err)
	}
	group.Go(func() error { return r.cache.Start(ctx) })
	group.Go(func() error { return c.Start(ctx) })
	err = group.Wait()
	r.images.end()
	return err
}

// reconciler returns one with a cache that has not started yet.
func (t *translator) reconciler(ctx context.Context) (*reconciler, error) {
	scheme, mapper, err := kinds()
	if err != nil {
		return nil, err
	}
	c, err := cache.New(t.config, cache.Options{
		HTTPClient: t.http, Scheme: scheme, Mapper: mapper,
		ReaderFailOnMissingInformer: true,
		DefaultTransform:            strip,
		DefaultWatchErrorHandler:    t.presence.WatchFailed,
	})
	if err != nil {
		return nil, fmt.Errorf("building the cache: %w", err)
	}
	live, err := client.New(t.config, client.Options{HTTPClient: t.http, Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("building the client: %w", err)
	}
	r := &reconciler{Options: t.Options, enabled: t.enabled, kinds: kindsOf(t.enabled), cache: c, client: live}
	if err := index(ctx, c, r.kinds); err != nil {
		return nil, fmt.Errorf("indexing the cache: %w", err)
	}
	r.images = newImages(ctx, t.Options, r.wake)
	return r, nil
}

// kinds is what the cache and the client know. Nobody is asked for the scopes:
// they belong to the versions of the kinds.
func kinds() (*runtime.Scheme, meta.RESTMapper, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{metalv1alpha1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(serverKind, meta.RESTScopeRoot)
	mapper.Add(configurationKind, meta.RESTScopeNamespace)
	mapper.Add(v1alpha1.GroupVersion.WithKind(v1alpha1.KindHTTPBootConfig), meta.RESTScopeNamespace)
	mapper.Add(v1alpha1.GroupVersion.WithKind(v1alpha1.KindIPXEBootConfig), meta.RESTScopeNamespace)
	return scheme, mapper, nil
}

func index(ctx context.Context, c cache.Cache, children []childKind) error {
	err := c.IndexField(ctx, &metalv1alpha1.ServerBootConfiguration{}, byServer, func(o client.Object) []string {
		if cfg, ok := o.(*metalv1alpha1.ServerBootConfiguration); ok {
			return []string{cfg.Spec.ServerRef.Name}
		}
		return nil
	})
	for _, k := range children {
		if err == nil {
			err = c.IndexField(ctx, k.new(), byUUID, uuidOf)
		}
	}
	return err
}

func uuidOf(o client.Object) []string {
	cfg, ok := o.(v1alpha1.Config)
	if !ok {
		return nil
	}
	uuid, err := boot.ParseUUID(cfg.Common().SystemUUID)
	if err != nil {
		return nil
	}
	return []string{string(uuid)}
}

func (t *translator) controller(r *reconciler) (controller.Controller, error) {
	again := true
	c, err := controller.NewUnmanaged("serverbootconfiguration", controller.Options{
		Reconciler:              r,
		MaxConcurrentReconciles: 8,
		CacheSyncTimeout:        t.CacheSyncTimeout,
		// The priority queue of controller-runtime 0.24 can hang when it is shut
		// down (its issue 3538), and sessions end while the process goes on.
		UsePriorityQueue:   new(bool),
		SkipNameValidation: &again, // each session has one of this name
		RateLimiter:        workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](500*time.Millisecond, time.Minute),
		Logger:             t.Logger,
	})
	if err != nil {
		return nil, err
	}
	sources := []source.Source{
		source.Func(func(_ context.Context, q queue) error { r.queue.Store(&q); return nil }),
		source.Kind[client.Object](r.cache, newServer(), r.serverHandler(), serverChanged()),
		source.Kind[client.Object](r.cache, &metalv1alpha1.ServerBootConfiguration{}, r.configurationHandler()),
	}
	for _, k := range r.kinds {
		sources = append(sources, source.Kind[client.Object](r.cache, k.new(), sameName()))
	}
	for _, s := range sources {
		if err := c.Watch(s); err != nil {
			return nil, err
		}
	}
	return c, nil
}
