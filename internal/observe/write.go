package observe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// errConflict: the object changed between the read and the write.
var errConflict = errors.New("the object was changed by someone else")

// Events are of the older API here: any process that serves writes them, with a
// recorder that needs no manager.
//
// +kubebuilder:rbac:groups=boot.ironcore.dev,resources=httpbootconfigs;ipxebootconfigs,verbs=get
// +kubebuilder:rbac:groups=boot.ironcore.dev,resources=httpbootconfigs/status;ipxebootconfigs/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// change works on a live state; an error leaves the object as it is.
type change func(s *state, now time.Time) error

// update reads the object, adds what is pending and what change makes of it,
// and writes it, again and again while others are faster, until the context
// ends. It returns boot.ErrNotFound when the object is gone, which also drops
// what is pending, boot.ErrUnavailable when the API server does not answer or
// refuses, or what change returned.
func (o *Observer) update(ctx context.Context, ref boot.Ref, change change) error {
	for try := 0; ; try++ {
		err := o.tryUpdate(ctx, ref, change)
		if !errors.Is(err, errConflict) {
			return err
		}
		if !pause(ctx, try) {
			return fmt.Errorf("%w: %w", boot.ErrUnavailable, err)
		}
	}
}

func (o *Observer) tryUpdate(ctx context.Context, ref boot.Ref, change change) error {
	live, err := o.read(ctx, ref)
	if err != nil {
		return err
	}
	before := stateOf(live)
	pending, version := o.take(ref, before)
	next, now := stateOf(live), o.opts.Clock.Now()
	next.apply(&pending, now)
	if change != nil {
		if err := change(next, now); err != nil {
			return err
		}
	}
	if !next.same(before) {
		next.name()
		if err := o.write(ctx, live, next); err != nil {
			return err
		}
	}
	o.settle(ref, next, pending, version)
	o.announce(before, next)
	o.announceNotices(next, pending)
	return nil
}

// pause waits a little before the next try; it returns false when the context
// ends first.
func pause(ctx context.Context, try int) bool {
	longest := min(5*time.Millisecond<<min(try, 6), 200*time.Millisecond)
	t := time.NewTimer(rand.N(longest) + time.Millisecond) //nolint:gosec // only spreads the load
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// read returns the live object. When it is gone, what is pending is dropped.
func (o *Observer) read(ctx context.Context, ref boot.Ref) (v1alpha1.Config, error) {
	live := newConfig(ref.Kind)
	if live == nil {
		return nil, fmt.Errorf("%w: %q is not a kind of config", boot.ErrInvalid, ref.Kind)
	}
	err := o.opts.Reader.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, live)
	if gone(err, ref.Name) || (err == nil && string(live.GetUID()) != ref.UID) {
		o.drop(ref)
		return nil, fmt.Errorf("%w: %s with UID %s", boot.ErrNotFound, ref, ref.UID)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: reading %s: %w", boot.ErrUnavailable, ref, err)
	}
	// What a client reads does not say its kind, which an event must name.
	live.GetObjectKind().SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(ref.Kind))
	return live, nil
}

// gone says whether the API server itself says that this object does not exist.
// A 404 without details is of a path that it does not serve (yet).
func gone(err error, name string) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	d := status.Status().Details
	if d == nil || d.Name != name {
		return false
	}
	for _, c := range d.Causes {
		if c.Type == metav1.CauseTypeUnexpectedServerResponse {
			return false
		}
	}
	return true
}

// take places what is pending against the live state, and returns it.
func (o *Observer) take(ref boot.Ref, live *state) (report, uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries[ref.UID]
	if e == nil {
		return report{}, 0
	}
	e.learn(live.attempt(), live.policy())
	pending := e.pending.clone()
	pending.with(&e.progress)
	return pending, e.version
}

// write applies the whole owned part of next to the object as it was read.
func (o *Observer) write(ctx context.Context, live v1alpha1.Config, next *state) error {
	patch, err := applyConfiguration(live, next)
	if err != nil {
		return err
	}
	err = o.opts.Client.Status().Apply(ctx, patch, client.FieldOwner(FieldManager), client.ForceOwnership)
	switch {
	case err == nil:
		o.metrics.applies.WithLabelValues("applied").Inc()
		return nil
	case apierrors.IsConflict(err):
		o.metrics.applies.WithLabelValues("conflict").Inc()
		return fmt.Errorf("%w: %w", errConflict, err)
	case gone(err, live.GetName()):
		// The next read says so, and drops what is pending.
		return fmt.Errorf("%w: %w", errConflict, err)
	}
	o.metrics.applies.WithLabelValues("error").Inc()
	return fmt.Errorf("%w: applying status: %w", boot.ErrUnavailable, err)
}

// applyConfiguration is everything that the observer owns, guarded by the
// resourceVersion of the object that it was made from.
func applyConfiguration(live v1alpha1.Config, next *state) (runtime.ApplyConfiguration, error) {
	owned := *next.boot()
	owned.Armed, owned.NetworkBoot = nil, nil // whoever speaks to the BMC writes these
	owned.PinsURL, owned.PinsProof = "", ""
	status := v1alpha1.ConfigStatus{Boot: &owned, Conditions: next.conditions()}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		return nil, fmt.Errorf("encoding status: %w", err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": content}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(live.Kind()))
	u.SetNamespace(live.GetNamespace())
	u.SetName(live.GetName())
	u.SetResourceVersion(live.GetResourceVersion())
	return client.ApplyConfigurationFromUnstructured(u), nil
}

// settle notes what was written.
func (o *Observer) settle(ref boot.Ref, now *state, written report, version uint64) {
	o.mu.Lock()
	e := o.entry(ref)
	e.progress.written = o.opts.Clock.Now()
	if e.settle(now, written, version) {
		o.journal.done(ref)
	}
	o.mu.Unlock()
	o.flushJournal()
}

// drop forgets an object that is gone.
func (o *Observer) drop(ref boot.Ref) {
	o.mu.Lock()
	delete(o.entries, ref.UID)
	o.journal.done(ref)
	o.mu.Unlock()
	o.queue.Forget(ref.UID)
	o.flushJournal()
}

// announce tells of what this write changed: the replica whose write came
// through is the only one that does.
func (o *Observer) announce(before, next *state) {
	a, b := before.attempt(), next.attempt()
	if b.Number != a.Number {
		o.metrics.opened.WithLabelValues(next.boot().OpenedBy).Inc()
		o.opts.Logger.Info("a boot attempt was opened", "object", refOf(next.cfg).String(), "boot", next.boot().ID, "attempt", b.Number, "cause", next.boot().OpenedBy)
		o.event(next, corev1.EventTypeNormal, v1alpha1.ReasonAttemptOpened,
			fmt.Sprintf("Boot attempt %d was opened: %s.", b.Number, next.boot().OpenedBy))
	}
	o.announceStages(before, next)
	o.announceOutcome(before, next, o.opts.Clock.Now())
	o.announcePlace(before, next)
	if b.Ambiguous && (!a.Ambiguous || a.Number != b.Number) {
		o.event(next, corev1.EventTypeWarning, v1alpha1.ConditionClientAddressAmbiguous,
			fmt.Sprintf("Requests for several machines came from one address in attempt %d.", b.Number))
	}
	if was, offer := before.boot().Offer, next.boot().Offer; offer != nil && (was == nil || was.Attempt != offer.Attempt || clientOf(was) != clientOf(offer)) {
		o.event(next, corev1.EventTypeNormal, v1alpha1.ReasonBootOffered,
			fmt.Sprintf("Offered attempt %d to %s, %s.", offer.Attempt, offer.MACAddress, cmp.Or(offer.Firmware, "of unknown firmware")))
		o.span(next, offer.Attempt, boot.SpanOffer, offer.Time.Time, offer.Time.Time, nil, "mac", offer.MACAddress, "firmware", offer.Firmware)
	}
	if f := next.foreignMessage(); f != "" && f != before.foreignMessage() {
		o.event(next, corev1.EventTypeWarning, v1alpha1.ReasonForeignBootOffer, f)
	}
}

// announceNotices tells of what only this replica saw, and no status keeps.
func (o *Observer) announceNotices(s *state, r report) {
	if c := r.Contested; c != nil {
		o.metrics.stages.WithLabelValues(secretStage(s), stageContested).Inc()
		o.event(s, corev1.EventTypeWarning, v1alpha1.ReasonSecretContested,
			fmt.Sprintf("%s asked for the secret of attempt %d, which another address had fetched, and was refused.", c.Addr, c.Attempt))
	}
	if n := r.NoProgram; n != nil {
		o.event(s, corev1.EventTypeWarning, v1alpha1.ReasonNoBootProgram,
			fmt.Sprintf("Attempt %d was not offered to this machine, because the boot program for it is missing%s.", n.Attempt, because(n.Detail)))
	}
	if n := r.PortChanged; n != nil {
		o.event(s, corev1.EventTypeWarning, v1alpha1.ReasonRelayPortChanged,
			fmt.Sprintf("Attempt %d was not offered to this machine, because a relay saw it at another port than before%s. "+
				"If it was moved, change the annotation %s.", n.Attempt, because(n.Detail), v1alpha1.RequestBootAnnotation))
	}
}

// because returns the detail of a message behind a colon, or nothing.
func because(detail string) string {
	if detail == "" {
		return ""
	}
	return ": " + detail
}

func (o *Observer) event(s *state, kind, reason, message string) {
	if o.opts.Recorder != nil {
		o.opts.Recorder.Event(s.cfg, kind, reason, message)
	}
}

// newConfig returns an empty object of this kind, or nil for an unknown one.
func newConfig(kind string) v1alpha1.Config {
	switch kind {
	case v1alpha1.KindHTTPBootConfig:
		return &v1alpha1.HTTPBootConfig{}
	case v1alpha1.KindIPXEBootConfig:
		return &v1alpha1.IPXEBootConfig{}
	}
	return nil
}

func refOf(cfg v1alpha1.Config) boot.Ref {
	return boot.Ref{Kind: cfg.Kind(), Namespace: cfg.GetNamespace(), Name: cfg.GetName(), UID: string(cfg.GetUID())}
}
