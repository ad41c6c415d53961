package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/translate"
)

// drive owns the life of a host: one step of it.
func (v *visit) drive(ctx context.Context) error {
	switch {
	case v.managedElsewhere():
		return v.refuse(ctx)
	case v.restores():
		return v.restore(ctx)
	case v.host.Annotations[metal3.StatusAnnotation] != "": // it is restored, or older than the status
		v.after = atOnce
		return v.change(ctx, func(h *metal3.BareMetalHost) { delete(h.Annotations, metal3.StatusAnnotation) })
	case v.host.DeletionTimestamp != nil:
		return v.remove(ctx)
	case !controllerutil.ContainsFinalizer(v.host, metal3.BareMetalHostFinalizer):
		v.after = atOnce
		return v.change(ctx, func(h *metal3.BareMetalHost) {
			controllerutil.AddFinalizer(h, metal3.BareMetalHostFinalizer)
		})
	case isDetached(v.host):
		return nil // nothing is done to it, and its status says so
	}
	return v.state(ctx)
}

// state takes a step of the present provisioning state.
func (v *visit) state(ctx context.Context) error {
	if b, err := translate.ReadHostBoot(v.host); err == nil { // its errors are told when the host is provisioned
		v.notes(b.Notes)
	}
	p := &v.host.Status.Provisioning
	switch p.State {
	case metal3.StateNone, metal3.StateUnmanaged:
		return v.unmanaged()
	case metal3.StateRegistering, metal3.StateMatchProfile:
		return v.register(ctx)
	case metal3.StateInspecting:
		return v.inspect(ctx)
	case metal3.StatePreparing:
		return v.prepare()
	case metal3.StateAvailable, metal3.StateReady:
		return v.available(ctx)
	case metal3.StateProvisioning:
		return v.provision(ctx)
	case metal3.StateProvisioned:
		return v.provisioned(ctx)
	case metal3.StateExternallyProvisioned:
		return v.external(ctx)
	case metal3.StateDeprovisioning:
		return v.deprovision(ctx)
	}
	return wrong(metal3.RegistrationError, ReasonUnknownState, fmt.Errorf("status.provisioning.state is %q, which this operator does not know; clear the status to begin anew", p.State))
}

// enter begins a state: the status says so before anything of it is done.
func (v *visit) enter(state metal3.ProvisioningState) error {
	now := metav1.NewTime(v.Clock.Now())
	s := &v.host.Status
	if m := v.host.OperationMetricForState(s.Provisioning.State); m != nil && !m.Start.IsZero() && m.End.IsZero() {
		m.End = now
	}
	if m := v.host.OperationMetricForState(state); m != nil {
		*m = metal3.OperationMetric{Start: now}
	}
	s.Provisioning.State = state
	return v.again()
}

func isDetached(host *metal3.BareMetalHost) bool {
	_, is := host.Annotations[metal3.DetachedAnnotation]
	return is
}

// delaysDeletion says whether a detached host is not to be let go before it is
// attached again.
func delaysDeletion(host *metal3.BareMetalHost) bool {
	var arguments metal3.DetachedAnnotationArguments
	err := json.Unmarshal([]byte(host.Annotations[metal3.DetachedAnnotation]), &arguments)
	return err == nil && arguments.DeleteAction == metal3.DetachedDeleteActionDelay
}

// managedElsewhere says whether baremetal-operator is seen to manage the host: it
// alone records an ID of Ironic, and it leaves its name on what it writes.
func (v *visit) managedElsewhere() bool {
	if _, over := v.host.Annotations[v1alpha1.HostTakeOverAnnotation]; over {
		return false
	}
	if v.host.Status.Provisioning.ID != "" {
		return true
	}
	for _, m := range v.host.ManagedFields {
		if m.Manager == "baremetal-operator" {
			return true
		}
	}
	return false
}

// refuse says that the host is somebody else's, in one condition and one event,
// and writes nothing more.
func (v *visit) refuse(ctx context.Context) error {
	message := "baremetal-operator manages this host: two operators that switch one machine would fight. Keep them apart by namespaces (--baremetalhost-namespaces here, WATCH_NAMESPACE there), or, when baremetal-operator is gone from here for good, set the annotation " + v1alpha1.HostTakeOverAnnotation
	if !v.set(ConditionDriven, false, ReasonManagedElsewhere, message) {
		return errHandsOff
	}
	if err := v.saveConditions(ctx); err != nil {
		return err
	}
	v.event(corev1.EventTypeWarning, ReasonManagedElsewhere, "%s", message)
	return errHandsOff
}

// errHandsOff ends a visit without another word in the status.
var errHandsOff = errors.New("the host is not ours")

// restores says whether the host came from another cluster: its status did not
// come along, and stands in an annotation.
func (v *visit) restores() bool {
	_, has := v.host.Annotations[metal3.StatusAnnotation]
	return has && v.host.Status.Provisioning.State == metal3.StateNone
}

// restore takes the status out of the annotation. The annotation goes only when the
// status is written, by the visit after.
func (v *visit) restore(ctx context.Context) error {
	var status metal3.BareMetalHostStatus
	text := v.host.Annotations[metal3.StatusAnnotation]
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return wrong(metal3.RegistrationError, ReasonInvalidAnnotation, fmt.Errorf("the annotation %s is not the status of a host as JSON (%w); mend it, or remove it to register the host anew", metal3.StatusAnnotation, err))
	}
	if status.Provisioning.State == metal3.StateNone {
		return v.change(ctx, func(h *metal3.BareMetalHost) { delete(h.Annotations, metal3.StatusAnnotation) })
	}
	status.Conditions = v.host.Status.Conditions
	v.host.Status = status
	return v.again()
}

// unmanaged waits until the host says where its BMC is.
func (v *visit) unmanaged() error {
	if v.host.HasBMCDetails() {
		return v.enter(metal3.StateRegistering)
	}
	v.host.Status.Provisioning.State = metal3.StateUnmanaged
	return nil
}
