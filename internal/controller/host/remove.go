package host

import (
	"context"
	"errors"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// maxRemovalErrors is how often a BMC may fail before a host goes without it.
const maxRemovalErrors = 3

// remove hands a deleted host's machine back and lets the host go.
func (v *visit) remove(ctx context.Context) error {
	if !controllerutil.ContainsFinalizer(v.host, metal3.BareMetalHostFinalizer) {
		return errHandsOff
	}
	if isDetached(v.host) && delaysDeletion(v.host) {
		return nil
	}
	switch v.host.Status.Provisioning.State {
	case metal3.StateProvisioning, metal3.StateProvisioned:
		if isDetached(v.host) {
			return v.letGo(ctx)
		}
		return v.enter(metal3.StateDeprovisioning)
	case metal3.StateDeprovisioning:
		return v.orGoWithout(ctx, v.deprovision(ctx))
	case metal3.StatePoweringOffBeforeDelete:
		return v.powerOffBeforeDelete(ctx)
	case metal3.StateDeleting, metal3.StateNone, metal3.StateUnmanaged, metal3.StateRegistering, metal3.StateExternallyProvisioned:
		return v.letGo(ctx)
	}
	if isDetached(v.host) || v.host.Spec.DisablePowerOff {
		return v.letGo(ctx)
	}
	return v.enter(metal3.StatePoweringOffBeforeDelete)
}

// powerOffBeforeDelete leaves no machine running that nobody looks after.
func (v *visit) powerOffBeforeDelete(ctx context.Context) error {
	if isDetached(v.host) || v.host.Spec.DisablePowerOff {
		return v.letGo(ctx)
	}
	off, err := v.offNow(ctx)
	if err != nil {
		return v.orGoWithout(ctx, err)
	}
	if !off {
		return nil
	}
	return v.enter(metal3.StateDeleting)
}

// orGoWithout lets a host go whose BMC fails again and again: it may be gone for
// good.
func (v *visit) orGoWithout(ctx context.Context, err error) error {
	var f *failure
	if !errors.As(err, &f) || v.host.Status.ErrorCount < maxRemovalErrors {
		return err
	}
	v.event(corev1.EventTypeWarning, ReasonRemovedWithoutBMC, "The host was deleted although its machine may be running: %s", f)
	return v.letGo(ctx)
}

// letGo removes the finalizer. The configs go first: nothing is served for a host
// that is gone.
func (v *visit) letGo(ctx context.Context) error {
	all, err := v.children(ctx)
	if err != nil {
		return err
	}
	if err := v.deleteChildren(ctx, all); err != nil {
		return err
	}
	uid := v.host.UID
	if err := v.change(ctx, func(h *metal3.BareMetalHost) {
		controllerutil.RemoveFinalizer(h, metal3.BareMetalHostFinalizer)
	}); err != nil {
		return err
	}
	v.forget(uid)
	v.images.forget(uid)
	v.paths.forget(uid)
	return errHandsOff
}
