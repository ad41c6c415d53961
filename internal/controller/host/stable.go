package host

import (
	"context"
	"errors"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/translate"
)

// available waits for somebody to use the host.
func (v *visit) available(ctx context.Context) error {
	switch {
	case v.host.Spec.ExternallyProvisioned:
		return v.enter(metal3.StateExternallyProvisioned)
	case v.wantsInspection():
		return v.enter(metal3.StateInspecting)
	case v.host.NeedsProvisioning():
		return v.startProvisioning()
	}
	if gone, err := v.leftovers(ctx); err != nil || gone {
		return err
	}
	return v.power(ctx, v.plainOn)
}

// leftovers deletes configs that an available host still has, as after a status
// that was lost.
func (v *visit) leftovers(ctx context.Context) (bool, error) {
	all, err := v.children(ctx)
	if err != nil || len(all) == 0 {
		return false, err
	}
	return true, v.enter(metal3.StateDeprovisioning)
}

// external looks after the power of a host that somebody else has installed.
func (v *visit) external(ctx context.Context) error {
	if !v.host.Spec.ExternallyProvisioned {
		return v.enter(metal3.StateInspecting)
	}
	return v.power(ctx, v.plainOn)
}

// provisioned keeps a host as it is: on or off, and, where it lives from the
// network, booting from there whenever it is switched on.
func (v *visit) provisioned(ctx context.Context) error {
	if v.imageChanged() {
		return v.enter(metal3.StateDeprovisioning)
	}
	b, err := translate.ReadHostBoot(v.host)
	if err != nil {
		return wrong(metal3.ProvisioningError, ReasonInvalidSpec, err)
	}
	if b.Policy == v1alpha1.BootPolicyAlways {
		return v.diskless(ctx)
	}
	all, err := v.children(ctx)
	if err != nil {
		return err
	}
	if record := all.record(); record != nil && v.wants(record) {
		return v.enter(metal3.StateProvisioning) // asked for explicitly
	} else if record != nil && record.Step == v1alpha1.NetworkBootDelivered && !record.Disarmed {
		n := &netboot{visit: v, children: all, record: *record}
		return n.disarm(ctx)
	}
	return v.power(ctx, v.plainOn)
}

// diskless looks after a provisioned host that boots from the network every time.
func (v *visit) diskless(ctx context.Context) error {
	b, all, ready, err := v.sync(ctx)
	if err != nil || !ready {
		return err
	}
	n, known, err := v.netboot(ctx, b, all)
	if err != nil || !known {
		return err
	}
	record := all.record()
	if record == nil {
		return n.adoptRunning(ctx)
	}
	if !v.host.Spec.Online && !delivered(record) {
		return v.stand(ctx, all)
	}
	if v.host.Spec.Online && (!delivered(record) || v.wants(record) || v.host.Spec.DisablePowerOff) {
		if done, err := n.advance(ctx); err != nil || !done {
			return err
		}
	}
	return v.power(ctx, n.on)
}

func delivered(record *v1alpha1.NetworkBoot) bool {
	return record.Step == v1alpha1.NetworkBootDelivered && record.Disarmed
}

// adoptRunning is for a machine that was provisioned elsewhere, as before a move to
// this cluster: it runs, and is not restarted for having no record here.
func (n *netboot) adoptRunning(ctx context.Context) error {
	now := metav1.NewMicroTime(n.Clock.Now())
	n.record = v1alpha1.NetworkBoot{
		Request: n.base() + ".1", Step: v1alpha1.NetworkBootDelivered, Disarmed: true, Try: 1,
		Since: now, Steps: putStep(nil, v1alpha1.NetworkBootDelivered, now), Message: "the machine was provisioned before this record began",
	}
	return n.write(ctx)
}

// deprovision hands a host back: nothing is served to its machine any more, which is
// switched off, and nothing is left in its BMC and of its configs.
func (v *visit) deprovision(ctx context.Context) error {
	all, err := v.children(ctx)
	if err != nil {
		return err
	}
	if changed, err := v.stopServing(ctx, all); err != nil || changed {
		return errors.Join(err, v.again())
	}
	if !v.host.Spec.DisablePowerOff {
		if off, err := v.offNow(ctx); err != nil || !off {
			return err
		}
	}
	if record := all.record(); record != nil && !record.Disarmed {
		if err := v.takeBack(ctx, record.PinnedBy); err != nil {
			return err
		}
	}
	if err := v.deleteChildren(ctx, all); err != nil {
		return err
	}
	v.images.forget(v.host.UID)
	p := &v.host.Status.Provisioning
	p.Image, p.CustomDeploy, p.RootDeviceHints, p.BootMode = metal3.Image{}, nil, nil, ""
	v.unset(ConditionReturns)
	if v.host.DeletionTimestamp != nil {
		return v.enter(metal3.StatePoweringOffBeforeDelete)
	}
	return v.enter(metal3.StateAvailable)
}

// stopServing pauses the host's configs: nothing is served of a config that is
// paused.
func (v *visit) stopServing(ctx context.Context, all children) (bool, error) {
	written := false
	for _, c := range all {
		changed, err := v.changeChild(ctx, c, func(c child) {
			if _, paused := c.GetAnnotations()[v1alpha1.PausedAnnotation]; !paused {
				annotate(c, v1alpha1.PausedAnnotation, "by its BareMetalHost, which is being deprovisioned")
			}
		})
		if err != nil {
			return written, err
		}
		written = written || changed
	}
	return written, nil
}
