package inventory

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// syncPeriod is how often we look whether the informers have synced at last.
const syncPeriod = 20 * time.Millisecond

// +kubebuilder:rbac:groups=boot.ironcore.dev,resources=httpbootconfigs;ipxebootconfigs,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=nodes;namespaces,verbs=list;watch

// Register subscribes to the informers that the options need. It does not wait
// for them; the cache may be started before or after. When ctx ends, so do the
// channels of Changed, while lookups go on with what was seen last. It returns
// an error when an informer cannot be had, such as for a kind that the cache's
// scheme lacks.
func (i *Inventory) Register(ctx context.Context, informers cache.Informers) error {
	i.registering.Lock()
	defer i.registering.Unlock()
	watches := []struct {
		object  client.Object
		handler toolscache.ResourceEventHandler
		needed  bool
	}{
		{&v1alpha1.HTTPBootConfig{}, i.configHandler(v1alpha1.KindHTTPBootConfig), true},
		{&v1alpha1.IPXEBootConfig{}, i.configHandler(v1alpha1.KindIPXEBootConfig), true},
		{&corev1.Node{}, handler(i.putNode, func(_, name string) { i.removeNode(name) }), !i.options.TrustClusterAddresses},
		{&corev1.Namespace{}, handler(i.putNamespace, func(_, name string) { i.removeNamespace(name) }), i.options.ClaimNamespaceSelector != nil},
	}
	if r := i.options.Registerer; r != nil {
		if err := r.Register(collector{i, time.Now}); err != nil {
			return fmt.Errorf("registering the inventory's metrics: %w", err)
		}
	}
	var registrations []toolscache.ResourceEventHandlerRegistration
	for _, w := range watches {
		if !w.needed {
			continue
		}
		informer, err := informers.GetInformer(ctx, w.object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("getting the informer of %T: %w", w.object, err)
		}
		registration, err := informer.AddEventHandler(w.handler)
		if err != nil {
			return fmt.Errorf("subscribing to the informer of %T: %w", w.object, err)
		}
		registrations = append(registrations, registration)
	}
	i.registrations = registrations
	context.AfterFunc(ctx, i.changes.close)
	go i.waitForSync(ctx)
	return nil
}

// waitForSync decides about conflicts as soon as everything was seen, whether
// or not anyone asks.
func (i *Inventory) waitForSync(ctx context.Context) {
	err := wait.PollUntilContextCancel(ctx, syncPeriod, true, func(context.Context) (bool, error) { return i.HasSynced(), nil })
	if err == nil {
		i.mu.RLock()
		defer i.mu.RUnlock()
		i.options.Logger.Info("inventory synced", "configs", len(i.objects), "nodes", len(i.nodes))
	}
}

// HasSynced says whether every config, node and namespace that there was at
// the start has been seen.
func (i *Inventory) HasSynced() bool {
	if i.synced.Load() {
		return true
	}
	i.registering.Lock()
	defer i.registering.Unlock()
	if len(i.registrations) == 0 {
		return false
	}
	for _, r := range i.registrations {
		if !r.HasSynced() {
			return false
		}
	}
	i.settleAll()
	i.synced.Store(true)
	return true
}

// configHandler takes in the configs of one kind.
func (i *Inventory) configHandler(kind string) toolscache.ResourceEventHandler {
	return handler(i.put, func(namespace, name string) {
		i.drop(objectKey{kindNumber(kind), namespace, name})
	})
}

// handler calls put for objects that were added or changed, and drop for those
// that are gone, also when the informer has missed how.
func handler[T any](put func(T), drop func(namespace, name string)) toolscache.ResourceEventHandler {
	set := func(obj any) {
		if o, ok := obj.(T); ok {
			put(o)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, obj any) { set(obj) },
		DeleteFunc: func(obj any) {
			k, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(obj)
			if err != nil {
				return
			}
			if namespace, name, err := toolscache.SplitMetaNamespaceKey(k); err == nil {
				drop(namespace, name)
			}
		},
	}
}
