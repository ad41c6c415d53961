package ironcore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/translate"
)

const (
	// soon is when to look again after the cache was found to be behind.
	soon = 100 * time.Millisecond
	// handover is when to look again whether a machine's former config is gone.
	handover = time.Second
)

// errUnreadable: an object does not have the shape of its kind.
var errUnreadable = errors.New("it cannot be read")

// reconciler looks after ServerBootConfigurations.
type reconciler struct {
	Options
	enabled translate.Paths
	kinds   []childKind // those that are enabled
	cache   cache.Cache
	// client reads from the API server itself.
	client client.Client
	images *images
	queue  atomic.Pointer[queue]
}

// Reconcile translates one configuration, or says why it does not.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cfg := &metalv1alpha1.ServerBootConfiguration{}
	err := r.cache.Get(ctx, req.NamespacedName, cfg)
	switch {
	case apierrors.IsNotFound(err):
		r.images.forget(req.NamespacedName)
		return r.settle(r.deleteOrphans(ctx, req.NamespacedName))
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("reading ServerBootConfiguration %s: %w", req, err)
	case cfg.DeletionTimestamp != nil:
		r.images.forget(req.NamespacedName)
		return r.settle(r.deleteChildren(ctx, cfg, translate.Paths{}))
	case paused(cfg):
		r.images.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	out, err := r.translate(ctx, cfg)
	if err != nil {
		return r.settle(err)
	}
	if err := r.writeStatus(ctx, cfg, out); err != nil {
		return r.settle(fmt.Errorf("writing status: %w", err))
	}
	return ctrl.Result{RequeueAfter: out.after}, nil
}

// settle turns what a write met into what to do next. Where the cache was behind
// there is nothing wrong, and what is gone needs nothing more.
func (r *reconciler) settle(err error) (ctrl.Result, error) {
	if errors.Is(err, errBehind) || apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// outcome is what a configuration's status is to say.
type outcome struct {
	state      metalv1alpha1.ServerBootConfigurationState
	conditions []metav1.Condition
	after      time.Duration
}

// notReady is an outcome whose only news is why.
func notReady(state metalv1alpha1.ServerBootConfigurationState, reason, message string) outcome {
	return outcome{state: state, conditions: []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: message,
	}}}
}

func pending(reason, message string) outcome {
	return notReady(metalv1alpha1.ServerBootConfigurationStatePending, reason, message)
}

func failed(reason, message string) outcome {
	return notReady(metalv1alpha1.ServerBootConfigurationStateError, reason, message)
}

// translate sees to the children of a configuration and sums them up. An error
// is one to come back for.
func (r *reconciler) translate(ctx context.Context, cfg *metalv1alpha1.ServerBootConfiguration) (outcome, error) {
	machine, stop, err := r.machine(ctx, cfg)
	if stop != nil || err != nil {
		r.images.forget(client.ObjectKeyFromObject(cfg))
		return *cmp.Or(stop, &outcome{}), err
	}
	arch := cmp.Or(machine.Architecture, r.Architecture)
	existing, err := r.children(ctx, cfg)
	if err != nil {
		return outcome{}, err
	}
	v := r.judge(cfg, arch, existing)
	if v.paths.Any() {
		if other, err := r.predecessor(ctx, cfg, machine, existing); err != nil || other != "" {
			out := pending(v1alpha1.ReasonProgressing, "waits until "+other+", which is for the same machine, is gone")
			out.after = handover
			return v.cap(out), err
		}
	}
	out, err := r.apply(ctx, cfg, v.paths, machine, arch)
	if err == nil {
		err = r.deleteChildren(ctx, cfg, v.paths)
	}
	return v.cap(out), err
}

// machine reads for whom a configuration is, or returns an outcome where it is
// for nobody: then it has no children either, unless the Server may come back.
func (r *reconciler) machine(ctx context.Context, cfg *metalv1alpha1.ServerBootConfiguration) (translate.Machine, *outcome, error) {
	var none translate.Machine
	name := cfg.Spec.ServerRef.Name
	server, err := r.server(ctx, name)
	switch {
	case name == "":
		out := failed(ReasonServerNotFound, "spec.serverRef.name is empty; set it to the name of a Server")
		return none, &out, r.deleteChildren(ctx, cfg, translate.Paths{})
	case apierrors.IsNotFound(err):
		out := pending(ReasonServerNotFound, fmt.Sprintf("there is no Server %s (spec.serverRef.name)", name))
		return none, &out, nil
	case errors.Is(err, errUnreadable):
		out := failed(v1alpha1.ReasonInvalidIdentity, err.Error())
		return none, &out, nil
	case err != nil:
		return none, nil, fmt.Errorf("reading Server %s: %w", name, err)
	}
	all, err := r.configurationsOf(ctx, name)
	if err != nil {
		return none, nil, fmt.Errorf("listing the ServerBootConfigurations of Server %s: %w", name, err)
	}
	if counts, why := translate.Counts(cfg, server, all); !counts {
		out := pending(ReasonNotReferenced, why)
		return none, &out, r.deleteChildren(ctx, cfg, translate.Paths{})
	}
	m, err := translate.ReadMachine(server)
	if err != nil {
		out := failed(v1alpha1.ReasonInvalidIdentity, err.Error())
		return none, &out, r.deleteChildren(ctx, cfg, translate.Paths{})
	}
	if len(m.Skipped) > 0 {
		r.Logger.V(1).Info("skipped addresses of a Server", "server", name, "why", m.Skipped)
	}
	return m, nil, nil
}

func paused(o client.Object) bool {
	_, is := o.GetAnnotations()[v1alpha1.PausedAnnotation]
	return is
}
