package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/redfish"
)

const (
	// maxMessage bounds what a status keeps of an error.
	maxMessage = 1000
	// maxRetry is the longest time between two tries.
	maxRetry = 5 * time.Minute
)

// visit is one look at one host.
type visit struct {
	*reconciler
	host *metal3.BareMetalHost
	// before is the host as the API server has it.
	before *metal3.BareMetalHost
	// after is when to come back; 0: when something changes.
	after time.Duration
	// progress says what is awaited; empty: nothing.
	progress string
}

// failure is what is wrong with a host, as its status tells it.
type failure struct {
	kind metal3.ErrorType
	// reason is for the condition and the event.
	reason string
	err    error
	// after is when to try again; 0: by how often it failed already, and no sooner
	// than least.
	after, least time.Duration
	// settled: nothing was tried, and it is the same until something changes; it
	// counts once.
	settled bool
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// wrong is a failure that nothing but a change mends; it is looked at again now
// and then.
func wrong(kind metal3.ErrorType, reason string, err error) error {
	return &failure{kind: kind, reason: reason, err: err, after: maxRetry, settled: true}
}

// failed is a failure that trying again may mend.
func failed(kind metal3.ErrorType, reason string, err error) error {
	return &failure{kind: kind, reason: reason, err: err, least: redfish.RetryAfter(err)}
}

// again has the host visited at once, for its next step.
func (v *visit) again() error {
	v.after = atOnce
	return nil
}

// wait has the host visited after a time, and says what for. A time that is over
// already is no reason never to come back.
func (v *visit) wait(after time.Duration, format string, args ...any) error {
	v.after = max(after, atOnce)
	v.progress = fmt.Sprintf(format, args...)
	return nil
}

// settle writes the status that a visit led to, and says when to come back.
func (v *visit) settle(ctx context.Context, err error) (ctrl.Result, error) {
	var f *failure
	news := false
	switch {
	case errors.As(err, &f):
		news = v.news(f)
		v.fail(f)
	case err != nil:
		return v.result(err)
	default:
		v.succeed()
	}
	if err := v.save(ctx); err != nil {
		return v.result(err)
	}
	if news {
		v.event(corev1.EventTypeWarning, f.reason, "%s", v.host.Status.ErrorMessage)
	}
	return ctrl.Result{RequeueAfter: v.after}, nil
}

// result turns what the API server said into what to do next. Where another was
// first there is nothing wrong, and what is gone needs nothing more.
func (v *visit) result(err error) (ctrl.Result, error) {
	switch {
	case err == nil:
		return ctrl.Result{RequeueAfter: v.after}, nil
	case errors.Is(err, errHandsOff):
		return ctrl.Result{RequeueAfter: maxRetry}, nil
	case errors.Is(err, errBehind) || apierrors.IsConflict(err):
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

// fail takes a failure into the status.
func (v *visit) fail(f *failure) {
	s := &v.host.Status
	if !f.settled || v.news(f) || v.host.DeletionTimestamp != nil {
		s.ErrorCount++
	}
	s.OperationalStatus, s.ErrorType, s.ErrorMessage = metal3.OperationalStatusError, f.kind, clip(f.err.Error())
	v.progress = ""
	v.after = f.after
	if v.after == 0 {
		v.after = max(min(v.RetryInterval<<min(s.ErrorCount-1, 10), maxRetry), f.least)
	}
	v.conditions(f)
}

// succeed clears what was wrong.
func (v *visit) succeed() {
	s := &v.host.Status
	s.ErrorType, s.ErrorMessage, s.ErrorCount = "", "", 0
	switch {
	case isDetached(v.host):
		s.OperationalStatus = metal3.OperationalStatusDetached
	case s.Provisioning.State == metal3.StateUnmanaged:
		s.OperationalStatus = metal3.OperationalStatusDiscovered
	default:
		s.OperationalStatus = metal3.OperationalStatusOK
	}
	v.conditions(nil)
}

// news says whether a failure was not told before. What a network says differs each
// time, by the ports for example, and is no news.
func (v *visit) news(f *failure) bool {
	ready := meta.FindStatusCondition(v.before.Status.Conditions, metal3.ReadyCondition)
	same := v.before.Status.ErrorMessage != "" && ready != nil && ready.Reason == f.reason
	return !same || f.settled && v.before.Status.ErrorMessage != clip(f.err.Error())
}

// save writes the status where it changed. The resourceVersion sees to it that it
// is a change to what was read.
func (v *visit) save(ctx context.Context) error {
	if v.host == nil || equality.Semantic.DeepEqual(v.before.Status, v.host.Status) {
		return nil
	}
	now := metav1.NewTime(v.Clock.Now())
	v.host.Status.LastUpdated = &now
	next := v.host.DeepCopy()
	if err := v.client.Status().Update(ctx, next, client.FieldOwner(FieldManager)); err != nil {
		return behind(fmt.Errorf("writing the status of BareMetalHost %s/%s: %w", next.Namespace, next.Name, err))
	}
	v.tellState(next)
	v.adopt(next)
	return nil
}

// saveConditions writes the status of a host that is not ours, in which nothing but
// a condition of ours was changed.
func (v *visit) saveConditions(ctx context.Context) error {
	next := v.host.DeepCopy()
	if err := v.client.Status().Update(ctx, next, client.FieldOwner(FieldManager)); err != nil {
		return behind(fmt.Errorf("writing the conditions of BareMetalHost %s/%s: %w", next.Namespace, next.Name, err))
	}
	v.adopt(next)
	return nil
}

// change writes the host's metadata; what the visit put into the status stays
// unwritten.
func (v *visit) change(ctx context.Context, edit func(*metal3.BareMetalHost)) error {
	base := v.host.DeepCopy()
	base.Status = v.before.Status
	next := base.DeepCopy()
	edit(next)
	patch := client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{})
	if err := v.client.Patch(ctx, next, patch, client.FieldOwner(FieldManager)); err != nil {
		return behind(fmt.Errorf("changing BareMetalHost %s/%s: %w", next.Namespace, next.Name, err))
	}
	status := v.host.Status
	v.adopt(next)
	v.host.Status = status
	return nil
}

// adopt takes the host as the API server returned it.
func (v *visit) adopt(host *metal3.BareMetalHost) {
	v.host, v.before = host, host.DeepCopy()
}

// behind marks what lost a race.
func behind(err error) error {
	if apierrors.IsConflict(err) {
		return fmt.Errorf("%w: %w", errBehind, err)
	}
	return err
}

// tellState records an event for a state that was left.
func (v *visit) tellState(next *metal3.BareMetalHost) {
	was, is := v.before.Status.Provisioning.State, next.Status.Provisioning.State
	if was != is {
		v.event(corev1.EventTypeNormal, ReasonStateChanged, "The host is %s now; it was %s.", orNew(is), orNew(was))
	}
}

func orNew(s metal3.ProvisioningState) string {
	if s == metal3.StateNone {
		return "new"
	}
	return string(s)
}

func (v *visit) event(kind, reason, format string, args ...any) {
	about := v.host.DeepCopy() // what a client reads does not say its kind, which an event must name
	about.SetGroupVersionKind(hostKind)
	v.Recorder.Eventf(about, nil, kind, reason, action(v.host), "%s", clip(fmt.Sprintf(format, args...)))
}

// clip bounds text for a status, on one line.
func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage-3], "") + "…"
	}
	return s
}

// action is what an event says that was done.
func action(host *metal3.BareMetalHost) string {
	if s := host.Status.Provisioning.State; s != metal3.StateNone {
		return string(s)
	}
	return string(metal3.StateUnmanaged)
}
