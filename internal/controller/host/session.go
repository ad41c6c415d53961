package host

import (
	"context"
	"fmt"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/presence"
)

// workers is how many hosts are visited at once: most of them wait for a BMC.
const workers = 32

// What is read of boot.ironcore.dev is granted to inventory, its status and events to
// controller/bootconfig, and Secrets to prefetch.
//
// +kubebuilder:rbac:groups=metal3.io,resources=baremetalhosts,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=metal3.io,resources=baremetalhosts/status,verbs=update
// +kubebuilder:rbac:groups=boot.ironcore.dev,resources=httpbootconfigs;ipxebootconfigs,verbs=create;patch;delete

// Setup adds the controller to a manager, of which it uses only the connection: its
// informers are its own, and go when the manager or Metal3's kinds do. With ModeOff
// it does nothing.
func Setup(mgr ctrl.Manager, o Options) error {
	if err := o.complete(); err != nil || o.Mode == ModeOff {
		return err
	}
	if o.Recorder == nil {
		o.Recorder = mgr.GetEventRecorder("boot-operator")
	}
	if o.Logger.GetSink() == nil {
		o.Logger = mgr.GetLogger().WithName("host")
	}
	active, err := presence.Gauge(o.Registerer, "boot_operator_host_active",
		"1 while this replica looks after BareMetalHosts, 0 while it does not lead or Metal3's kinds are missing.")
	if err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	s := &setup{Options: o, manager: mgr}
	s.watcher, err = presence.New(presence.Options{
		Config: mgr.GetConfig(), HTTPClient: mgr.GetHTTPClient(),
		GroupVersion: metal3.GroupVersion, Kinds: []string{hostKind.Kind},
		Run: s.run, Doing: "looking after BareMetalHosts (" + string(o.Mode) + ")",
		Interval: o.DiscoveryInterval, Active: active, Logger: o.Logger,
	})
	if err != nil {
		return fmt.Errorf("setting up the discovery of Metal3's kinds: %w", err)
	}
	return mgr.Add(s.watcher)
}

// setup is what each time begins with in which Metal3's kinds are there.
type setup struct {
	Options
	manager ctrl.Manager
	watcher *presence.Watcher
}

// run looks after hosts until ctx ends.
func (s *setup) run(ctx context.Context) error {
	scheme, mapper, err := kinds()
	if err != nil {
		return err
	}
	options := cache.Options{
		HTTPClient: s.manager.GetHTTPClient(), Scheme: scheme, Mapper: mapper, ReaderFailOnMissingInformer: true,
		DefaultTransform: strip, DefaultWatchErrorHandler: s.watcher.WatchFailed, DefaultNamespaces: namespaces(s.Namespaces),
	}
	informers, err := cache.New(s.manager.GetConfig(), options)
	if err != nil {
		return fmt.Errorf("building the cache: %w", err)
	}
	live, err := client.New(s.manager.GetConfig(), client.Options{HTTPClient: s.manager.GetHTTPClient(), Scheme: scheme, Mapper: mapper})
	if err != nil {
		return fmt.Errorf("building the client: %w", err)
	}
	c, err := s.controller(informers, newReconciler(s.Options, live))
	if err != nil {
		return fmt.Errorf("setting up the controller: %w", err)
	}
	defer s.metrics.clear()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return informers.Start(ctx) })
	group.Go(func() error { return c.Start(ctx) })
	return group.Wait()
}

func namespaces(names []string) map[string]cache.Config {
	if len(names) == 0 {
		return nil
	}
	all := map[string]cache.Config{}
	for _, n := range names {
		all[n] = cache.Config{}
	}
	return all
}

// kinds is what the cache and the client know.
func kinds() (*runtime.Scheme, meta.RESTMapper, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, metal3.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig} {
		mapper.Add(v1alpha1.GroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	mapper.Add(hostKind, meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	return scheme, mapper, nil
}

// strip keeps of an object what says that it changed: everything is read again from
// the API server itself.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *metal3.BareMetalHost:
		o.ManagedFields, o.Spec, o.Status = nil, metal3.BareMetalHostSpec{}, metal3.BareMetalHostStatus{}
	case *v1alpha1.HTTPBootConfig:
		o.ManagedFields, o.Spec, o.Status.Artifacts = nil, v1alpha1.HTTPBootConfigSpec{}, nil
	case *v1alpha1.IPXEBootConfig:
		o.ManagedFields, o.Spec, o.Status.Artifacts = nil, v1alpha1.IPXEBootConfigSpec{}, nil
	}
	return o, nil
}

func (s *setup) controller(informers cache.Cache, r *reconciler) (controller.Controller, error) {
	again := true
	c, err := controller.NewUnmanaged("baremetalhost", controller.Options{
		Reconciler:              r,
		MaxConcurrentReconciles: workers,
		CacheSyncTimeout:        s.CacheSyncTimeout,
		// The priority queue of controller-runtime 0.24 can hang when it is shut
		// down (its issue 3538), and sessions end while the process goes on.
		UsePriorityQueue:   new(bool),
		SkipNameValidation: &again, // each session has one of this name
		RateLimiter:        workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](500*time.Millisecond, time.Minute),
		Logger:             s.Logger,
	})
	if err != nil {
		return nil, err
	}
	// What is written to a status here is no news: the host is visited again when
	// the visit said so.
	changed := predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.LabelChangedPredicate{})
	sources := []source.Source{source.Kind[client.Object](informers, &metal3.BareMetalHost{}, &handler.EnqueueRequestForObject{}, changed)}
	for _, kind := range childKinds {
		sources = append(sources, source.Kind[client.Object](informers, kind(), handler.EnqueueRequestsFromMapFunc(ownerOf), news))
	}
	for _, src := range sources {
		if err := c.Watch(src); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// news are all changes of a config but how far a delivery has come: that is told every
// few seconds while it goes on, and a host would be visited, and its BMC asked, for it.
var news = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.DeepCopyObject().(child)
	after, also := e.ObjectNew.DeepCopyObject().(child)
	if !ok || !also || before.GetResourceVersion() == after.GetResourceVersion() {
		return true
	}
	for _, c := range []child{before, after} {
		c.SetResourceVersion("")
		status := c.ConfigStatus()
		if status.Boot != nil {
			for i := range status.Boot.Stages {
				status.Boot.Stages[i].Sent, status.Boot.Stages[i].Size = 0, 0
			}
		}
		for i := range status.Conditions {
			if status.Conditions[i].Reason == v1alpha1.ReasonUKIDeliveryIncomplete {
				status.Conditions[i].Message = ""
			}
		}
	}
	return !equality.Semantic.DeepEqual(before, after)
}}

// ownerOf is the host that controls a config, if one does.
func ownerOf(_ context.Context, o client.Object) []reconcile.Request {
	ref := metav1.GetControllerOf(o)
	if ref == nil || ref.APIVersion != hostKind.GroupVersion().String() || ref.Kind != hostKind.Kind {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: ref.Name}}}
}
