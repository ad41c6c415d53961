package ironcore

import (
	"context"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// wake has a configuration reconciled.
func (r *reconciler) wake(name types.NamespacedName) {
	if q := r.queue.Load(); q != nil {
		(*q).Add(reconcile.Request{NamespacedName: name})
	}
}

// sameName wakes the configuration of the name that a child has, whoever
// controls the child: one that is not ours may be in the way, or have gone.
func sameName() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(o)}}
	})
}

// serverHandler wakes all configurations of a Server.
func (r *reconciler) serverHandler() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		return r.requests(ctx, o.GetName())
	})
}

// serverChanged leaves out changes of what strip left out, such as power states.
func serverChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, okB := e.ObjectOld.(*unstructured.Unstructured)
		after, okA := e.ObjectNew.(*unstructured.Unstructured)
		return !okB || !okA || before.GetUID() != after.GetUID() ||
			!equality.Semantic.DeepEqual(before.Object["spec"], after.Object["spec"]) ||
			!equality.Semantic.DeepEqual(before.Object["status"], after.Object["status"])
	}}
}

// configurationHandler wakes a configuration for every change, of its status
// too, since metal-operator may have written that; and the others of its Server
// when there is one more or one less.
func (r *reconciler) configurationHandler() handler.EventHandler {
	one := func(ctx context.Context, o client.Object, q queue, others bool) {
		q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		cfg, ok := o.(*metalv1alpha1.ServerBootConfiguration)
		if !ok || !others {
			return
		}
		for _, req := range r.requests(ctx, cfg.Spec.ServerRef.Name) {
			q.Add(req)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { one(ctx, e.Object, q, true) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { one(ctx, e.Object, q, true) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			others := e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
				e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
				(e.ObjectOld.GetDeletionTimestamp() == nil) != (e.ObjectNew.GetDeletionTimestamp() == nil)
			if others {
				one(ctx, e.ObjectOld, q, true)
			}
			one(ctx, e.ObjectNew, q, others)
		},
	}
}

// requests are those for all configurations of a Server. Nothing is lost when
// the cache fails: it does so only when it ends.
func (r *reconciler) requests(ctx context.Context, server string) []reconcile.Request {
	all, err := r.configurationsOf(ctx, server)
	if err != nil {
		return nil
	}
	var out []reconcile.Request
	for i := range all {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all[i])})
	}
	return out
}

func (r *reconciler) configurationsOf(ctx context.Context, server string) ([]metalv1alpha1.ServerBootConfiguration, error) {
	var list metalv1alpha1.ServerBootConfigurationList
	err := r.cache.List(ctx, &list, client.MatchingFields{byServer: server})
	return list.Items, err
}
