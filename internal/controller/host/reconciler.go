package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// soon is when to look again after another writer was first, at once when there is
// a next step to take.
const (
	soon   = 100 * time.Millisecond
	atOnce = time.Millisecond
)

// errBehind: somebody else wrote the object since it was read.
var errBehind = errors.New("the object was changed meanwhile")

// reconciler looks after hosts. Each visit to a host reads everything from the API
// server itself, does the one side effect that the statuses announce or writes the
// next announcement, and comes back: what was read from a cache could announce
// what was done long ago.
type reconciler struct {
	Options
	// client reads from the API server itself.
	client client.Client
	images *images
	paths  *bootPaths

	mu sync.Mutex
	// sentOn is when a machine was last switched on, by host: some BMCs say Off
	// for a while after that.
	sentOn map[types.UID]time.Time
	// shutdown is since when an operating system has been asked to shut down, and
	// sentOff when the plug was pulled.
	shutdown, sentOff map[types.UID]time.Time
	// toldPins is when it was written last what a host's BMC can hold.
	toldPins map[types.UID]time.Time
}

func newReconciler(o Options, c client.Client) *reconciler {
	return &reconciler{
		Options: o, client: c, images: newImages(o), paths: &bootPaths{},
		sentOn: map[types.UID]time.Time{}, shutdown: map[types.UID]time.Time{},
		sentOff: map[types.UID]time.Time{}, toldPins: map[types.UID]time.Time{},
	}
}

// Reconcile visits one host.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if !r.inScope(req.Namespace) {
		return ctrl.Result{}, nil
	}
	host := &metal3.BareMetalHost{}
	err := r.client.Get(ctx, req.NamespacedName, host)
	if apierrors.IsNotFound(err) {
		r.metrics.saw(req.NamespacedName, nil)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading BareMetalHost %s: %w", req, err)
	}
	v := &visit{reconciler: r, host: host, before: host.DeepCopy()}
	defer func() { r.metrics.saw(req.NamespacedName, v.host) }()
	if isPaused(host) {
		return ctrl.Result{}, nil
	}
	if r.Mode == ModeTranslate {
		return v.result(v.translateOnly(ctx))
	}
	return v.settle(ctx, v.drive(ctx))
}

func (r *reconciler) inScope(namespace string) bool {
	return len(r.Namespaces) == 0 || slices.Contains(r.Namespaces, namespace)
}

func isPaused(host *metal3.BareMetalHost) bool {
	_, is := host.Annotations[metal3.PausedAnnotation]
	return is
}

// forget is for a host that is gone.
func (r *reconciler) forget(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range []map[types.UID]time.Time{r.sentOn, r.shutdown, r.sentOff, r.toldPins} {
		delete(m, uid)
	}
}

// since returns how long ago a time in one of the maps was, and false where there
// is none.
func (r *reconciler) since(m map[types.UID]time.Time, uid types.UID) (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := m[uid]
	return r.Clock.Since(t), ok
}

func (r *reconciler) note(m map[types.UID]time.Time, uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m[uid] = r.Clock.Now()
}

func (r *reconciler) unnote(m map[types.UID]time.Time, uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(m, uid)
}
