package bootconfig

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// configKey names a config.
type configKey struct {
	kind string
	types.NamespacedName
}

func keyOf(cfg v1alpha1.Config) configKey {
	return configKey{cfg.Kind(), client.ObjectKeyFromObject(cfg)}
}

// wakers put configs into the queues of their controllers.
type wakers struct {
	mu     sync.Mutex
	queues map[string]queue
}

// config has a config reconciled; it is nothing where its controller is not
// running.
func (w *wakers) config(k configKey) {
	w.mu.Lock()
	q := w.queues[k.kind]
	w.mu.Unlock()
	if q != nil {
		q.Add(reconcile.Request{NamespacedName: k.NamespacedName})
	}
}

// source gives the controller of a kind its place here.
func (w *wakers) source(kind string) source.Source {
	return source.Func(func(_ context.Context, q queue) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.queues[kind] = q
		return nil
	})
}

// follow passes on what a channel says until it is closed or the manager ends.
func (w *wakers) follow(changed func() <-chan event.GenericEvent) func(context.Context) error {
	return func(ctx context.Context) error {
		events := changed()
		for {
			select {
			case <-ctx.Done():
				return nil
			case e, ok := <-events:
				if !ok {
					return nil
				}
				if cfg, isConfig := e.Object.(v1alpha1.Config); isConfig {
					w.config(keyOf(cfg))
				}
			}
		}
	}
}

// watch is a source of configs whose spec, or request for a boot, changed. Unlike
// source.Kind it leaves the informer when its controller ends: the cache outlives
// many controllers.
type watch struct {
	cache  cache.Cache
	object client.Object
	synced chan error
}

// Start registers with the informer; it does not block.
func (w *watch) Start(ctx context.Context, q queue) error {
	w.synced = make(chan error, 1)
	go func() { w.synced <- follow(ctx, w.cache, w.object, w.handler(q)) }()
	return nil
}

// WaitForSync returns once everything that exists is in the queue.
func (w *watch) WaitForSync(ctx context.Context) error {
	select {
	case err := <-w.synced:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for %T: %w", w.object, ctx.Err())
	}
}

func (w *watch) String() string { return fmt.Sprintf("watch of %T", w.object) }

func (w *watch) handler(q queue) toolscache.ResourceEventHandler {
	add := func(obj any) {
		if d, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
			obj = d.Obj
		}
		if o, ok := obj.(client.Object); ok {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: add,
		UpdateFunc: func(before, after any) {
			if concerns(before, after) {
				add(after)
			}
		},
		DeleteFunc: add,
	}
}

// concerns says whether a change is one of what the user wants, or of how the
// machine's BMC can name it: a status that was written, by us or by the observer,
// is not.
func concerns(before, after any) bool {
	b, okB := before.(client.Object)
	a, okA := after.(client.Object)
	return !okB || !okA || b.GetUID() != a.GetUID() || b.GetGeneration() != a.GetGeneration() ||
		b.GetAnnotations()[v1alpha1.RequestBootAnnotation] != a.GetAnnotations()[v1alpha1.RequestBootAnnotation] ||
		paused(b) != paused(a) || namedBy(b) != namedBy(a) || bootedBy(b) != bootedBy(a)
}

// bootedBy is what of a status decides which attempt comes next, where a UKI is
// composed for each.
func bootedBy(o client.Object) boot.Attempt {
	cfg, ok := o.(v1alpha1.Config)
	if !ok || cfg.ConfigStatus().Composed == nil {
		return boot.Attempt{}
	}
	a := claim.Attempt(cfg)
	return boot.Attempt{Number: a.Number, BootServedAt: a.BootServedAt, SecretServedAt: a.SecretServedAt, Spent: a.Spent}
}

// namedBy is the property of the BMC that can name the machine, and its proof.
func namedBy(o client.Object) [2]string {
	cfg, ok := o.(v1alpha1.Config)
	if !ok || cfg.ConfigStatus().Boot == nil {
		return [2]string{}
	}
	return [2]string{cfg.ConfigStatus().Boot.PinsURL, cfg.ConfigStatus().Boot.PinsProof}
}

func paused(o client.Object) bool {
	_, is := o.GetAnnotations()[v1alpha1.PausedAnnotation]
	return is
}

// follow registers a handler with an informer until ctx ends, and returns once
// the handler has seen everything that there is.
func follow(ctx context.Context, c cache.Cache, object client.Object, h toolscache.ResourceEventHandler) error {
	informer, err := c.GetInformer(ctx, object)
	if err != nil {
		return fmt.Errorf("getting the informer of %T: %w", object, err)
	}
	registration, err := informer.AddEventHandler(h)
	if err != nil {
		return fmt.Errorf("watching %T: %w", object, err)
	}
	context.AfterFunc(ctx, func() { _ = informer.RemoveEventHandler(registration) })
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return ctx.Err()
	}
	return nil
}
