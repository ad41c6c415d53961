// Package phase runs the steps of a reconciler, turns what they return into
// conditions, and writes a config's status: in one server-side apply, and only
// when it changed.
package phase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// FieldManager owns what Run writes: state, observedGeneration, artifacts,
// verification, composed and the conditions of its phases. What the observer owns is never touched.
const FieldManager = "boot-operator"

// maxMessage bounds a condition's message in bytes; an event's note may not be
// longer either (events.k8s.io/v1).
const maxMessage = 1000

// Step does one job for a config: it fills status fields and returns nil or
// Done for True, and Wait, Terminal, Halt, Retry or any other error for False.
type Step func(ctx context.Context, cfg v1alpha1.Config) error

// Phase is a step and the condition that tells how it went.
type Phase struct {
	condition string
	step      Step
}

// New returns a phase. The step of the condition Ready, if there is one, comes
// last and runs only when all others are True.
func New(condition string, step Step) Phase {
	return Phase{condition: condition, step: step}
}

// Status writes statuses and tells of their changes.
type Status struct {
	// Client writes the status subresource.
	Client client.StatusClient
	// Recorder takes an event, with the condition's reason, for each condition
	// that changed.
	Recorder events.EventRecorder
	// Clock is the time of transitions.
	Clock clock.PassiveClock
	// Written remembers what was written.
	Written *Written
}

// Run runs the phases of a config, whose status is the one seen last, and
// writes the status if it changed. Phases do not depend on each other, so that
// a user sees everything that is wrong at once; after a Halt the rest is Unknown.
// Ready, and state with it, are derived. The error, if any, is one to come back
// for with backoff.
func Run(ctx context.Context, s Status, cfg v1alpha1.Config, phases ...Phase) (ctrl.Result, error) {
	r := run{cfg: cfg, before: cfg.ConfigStatus().DeepCopy(), now: metav1.NewTime(s.Clock.Now())}
	for _, p := range phases {
		r.add(p.condition, r.take(ctx, p))
	}
	if !slices.ContainsFunc(phases, func(p Phase) bool { return p.condition == v1alpha1.ConditionReady }) {
		r.add(v1alpha1.ConditionReady, r.ready(ctx, func(context.Context, v1alpha1.Config) error { return nil }))
	}
	if err := ctx.Err(); err != nil {
		return ctrl.Result{}, err // what failed for that is no news of the config
	}
	r.finish()
	desired := r.status()
	if !r.changed() && !s.Written.differs(cfg, desired) {
		return r.result()
	}
	if err := s.apply(ctx, cfg, desired); err != nil {
		o := objectOf(cfg)
		s.Written.Forget(o.kind, o.NamespacedName)
		return ctrl.Result{}, errors.Join(fmt.Errorf("writing status: %w", err), r.err())
	}
	s.Written.note(cfg, desired)
	r.tell(s.Recorder)
	return r.result()
}

// run is one pass over the phases of a config.
type run struct {
	cfg      v1alpha1.Config
	before   *v1alpha1.ConfigStatus
	now      metav1.Time
	halted   string
	outcomes []named
}

type named struct {
	condition string
	Outcome
}

func (r *run) add(condition string, o Outcome) {
	if o.halt {
		r.halted = condition
	}
	o.message = clip(o.message)
	r.outcomes = append(r.outcomes, named{condition, o})
}

func (r *run) take(ctx context.Context, p Phase) Outcome {
	switch {
	case p.condition == v1alpha1.ConditionReady:
		return r.ready(ctx, p.step)
	case r.halted != "":
		return Outcome{status: metav1.ConditionUnknown, reason: v1alpha1.ReasonProgressing, message: "waits for " + r.halted}
	}
	return outcomeOf(p.condition, p.step(ctx, r.cfg))
}

// ready runs the step of Ready when all is well, and says what is not otherwise:
// with the reason of what will not get well by itself, if there is such a thing.
func (r *run) ready(ctx context.Context, step Step) Outcome {
	var worst *named
	var messages []string
	for i := range r.outcomes {
		o := &r.outcomes[i]
		if o.status != metav1.ConditionFalse {
			continue
		}
		if worst == nil || o.terminal && !worst.terminal {
			worst = o
		}
		messages = append(messages, o.message)
	}
	if worst == nil {
		return outcomeOf(v1alpha1.ConditionReady, step(ctx, r.cfg))
	}
	return Outcome{status: metav1.ConditionFalse, reason: worst.reason, message: strings.Join(messages, "; ")}
}

// finish puts the outcomes into the config's status.
func (r *run) finish() {
	status := r.cfg.ConfigStatus()
	status.ObservedGeneration = r.cfg.GetGeneration()
	status.State = r.state()
	for _, o := range r.outcomes {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: o.condition, Status: o.status, Reason: o.reason, Message: o.message,
			ObservedGeneration: r.cfg.GetGeneration(), LastTransitionTime: r.now,
		})
	}
}

func (r *run) state() v1alpha1.State {
	if r.outcomes[len(r.outcomes)-1].status == metav1.ConditionTrue {
		return v1alpha1.StateReady
	}
	if slices.ContainsFunc(r.outcomes, func(o named) bool { return o.terminal }) {
		return v1alpha1.StateError
	}
	return v1alpha1.StatePending
}

// owned picks what this field manager owns out of a status.
func (r *run) owned(s *v1alpha1.ConfigStatus) v1alpha1.ConfigStatus {
	o := v1alpha1.ConfigStatus{State: s.State, ObservedGeneration: s.ObservedGeneration, Artifacts: s.Artifacts, Verification: s.Verification, Composed: s.Composed}
	for _, n := range r.outcomes {
		if c := meta.FindStatusCondition(s.Conditions, n.condition); c != nil {
			o.Conditions = append(o.Conditions, *c)
		}
	}
	return o
}

func (r *run) status() v1alpha1.ConfigStatus { return r.owned(r.cfg.ConfigStatus()) }

func (r *run) changed() bool {
	return !equality.Semantic.DeepEqual(r.owned(r.before), r.status())
}

func (r *run) result() (ctrl.Result, error) {
	var after ctrl.Result
	for _, o := range r.outcomes {
		if o.after > 0 && (after.RequeueAfter == 0 || o.after < after.RequeueAfter) {
			after.RequeueAfter = o.after
		}
	}
	if err := r.err(); err != nil {
		return ctrl.Result{}, err
	}
	return after, nil
}

func (r *run) err() error {
	var errs []error
	for _, o := range r.outcomes {
		if o.retry != nil {
			errs = append(errs, o.retry)
		}
	}
	return errors.Join(errs...)
}

// tell records an event for each condition that changed. What is True from the
// start is no news, but for Ready and warnings.
func (r *run) tell(recorder events.EventRecorder) {
	for _, o := range r.outcomes {
		was := meta.FindStatusCondition(r.before.Conditions, o.condition)
		isReady := o.condition == v1alpha1.ConditionReady
		switch {
		case o.status == metav1.ConditionUnknown,
			was == nil && o.status == metav1.ConditionTrue && !isReady && !o.warn,
			isReady && o.status == metav1.ConditionFalse && o.retry == nil, // the condition behind it has told
			was != nil && was.Status == o.status && was.Reason == o.reason && (was.Message == o.message || o.status == metav1.ConditionFalse):
			continue
		}
		kind := corev1.EventTypeNormal
		if o.warn || o.status == metav1.ConditionFalse && o.reason != v1alpha1.ReasonProgressing {
			kind = corev1.EventTypeWarning
		}
		recorder.Eventf(r.cfg, nil, kind, o.reason, o.condition, "%s", strings.TrimSpace(o.condition+": "+o.message))
	}
}

// apply writes the complete owned set. An object that is gone, or was replaced
// by another of its name, needs no status.
func (s Status) apply(ctx context.Context, cfg v1alpha1.Config, status v1alpha1.ConfigStatus) error {
	body, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": body}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(cfg.Kind()))
	u.SetNamespace(cfg.GetNamespace())
	u.SetName(cfg.GetName())
	u.SetUID(cfg.GetUID())
	err = s.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldManager), client.ForceOwnership)
	return client.IgnoreNotFound(ignoreReplaced(err))
}

// ignoreReplaced drops the refusal to write to an object of another UID; it
// names no field, unlike a conflict of field managers, which force rules out.
func ignoreReplaced(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}

func clip(s string) string {
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage-3], "") + "…"
	}
	return s
}
