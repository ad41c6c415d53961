package bootconfig

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/phase"
)

// config is either kind as clients read it.
type config interface {
	v1alpha1.Config
	client.Object
}

type newConfig func() config

func newHTTP() config { return &v1alpha1.HTTPBootConfig{} }
func newIPXE() config { return &v1alpha1.IPXEBootConfig{} }

// reconciler looks after the configs of one kind.
type reconciler struct {
	Options
	new     newConfig
	reader  client.Reader
	status  phase.Status
	secrets *secrets
	fetches *fetches
	// opinions are of UKIs.
	opinions opinions
}

// Reconcile makes one config ready, or says why it is not.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cfg := r.new()
	key := configKey{cfg.Kind(), req.NamespacedName}
	err := r.reader.Get(ctx, req.NamespacedName, cfg)
	if apierrors.IsNotFound(err) || err == nil && cfg.GetDeletionTimestamp() != nil {
		r.forget(key)
		r.status.Written.Forget(key.kind, key.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading %s %s: %w", key.kind, key.NamespacedName, err)
	}
	return phase.Run(ctx, r.status, cfg,
		phase.New(v1alpha1.ConditionIdentifiable, r.identify),
		phase.New(v1alpha1.ConditionArtifactsReady, r.artifacts),
		phase.New(v1alpha1.ConditionIgnitionValid, r.ignition),
		phase.New(v1alpha1.ConditionReady, r.open),
	)
}

// forget lets go of what a config wanted.
func (r *reconciler) forget(k configKey) {
	r.secrets.forget(k)
	r.fetches.forget(k)
}

// open opens the boot attempt, and has the UKI of the next boot composed where one
// is, before anyone sees Ready, since that is when machines are switched on. A
// config that is Ready already stays so meanwhile.
func (r *reconciler) open(ctx context.Context, cfg v1alpha1.Config) error {
	ready := phase.Done(v1alpha1.ReasonReady, "everything that the machine boots is in place")
	err := r.Attempts.Open(ctx, cfg)
	switch {
	case err != nil && wasTrue(cfg, v1alpha1.ConditionReady) != nil:
		return ready.But(fmt.Errorf("opening a boot attempt: %w", err))
	case err != nil:
		return fmt.Errorf("opening a boot attempt: %w", err)
	}
	r.record(cfg)
	again, err := r.compose(ctx, cfg)
	if err != nil {
		return err
	}
	return ready.Again(again)
}

// wasTrue returns a condition that is True for the present spec, or nil.
func wasTrue(cfg v1alpha1.Config, condition string) *metav1.Condition {
	c := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, condition)
	if c == nil || c.Status != metav1.ConditionTrue || c.ObservedGeneration != cfg.GetGeneration() {
		return nil
	}
	return c
}
