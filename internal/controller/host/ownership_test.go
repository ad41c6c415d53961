package host

import (
	"encoding/json"
	"testing"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
)

func TestAnImageThatChangesWhileItBootsIsReplaced(t *testing.T) {
	f := newFixture(t)
	f.registry.images["registry.example.com/os/uki:2"] = f.registry.images[ukiImage]
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 1} })
	h := f.host("n1", m, withAddress, boots(ukiImage))
	f.until(h, "it waits for the fetch", func() bool { r := f.record(h); return r != nil && r.Step == v1alpha1.NetworkBootAwaitFetch })
	old := f.children(h)[0].GetUID()
	f.change(h, boots("registry.example.com/os/uki:2"))
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, "oci://registry.example.com/os/uki:2", h.Status.Provisioning.Image.URL)
	c := f.children(h)[0]
	require.Equal(t, "registry.example.com/os/uki:2", c.Common().Image)
	require.NotEqual(t, old, c.GetUID(), "it is another config, with attempts of its own")
	require.Equal(t, []string{"On", "ForceOff", "On"}, m.executed())
	require.False(t, h.Status.OperationHistory.Deprovision.End.IsZero())
}

func TestAHostThatIsDeletedWhileItBootsLeavesNothing(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 1} })
	h := f.host("n1", m, withAddress, boots(ukiImage))
	f.until(h, "it waits for the fetch", func() bool { r := f.record(h); return r != nil && r.Step == v1alpha1.NetworkBootAwaitFetch })
	require.NoError(t, f.client.Delete(t.Context(), h))
	f.gone(h)
	require.Empty(t, f.children(h))
	require.False(t, m.IsOn())
	require.Equal(t, bmcsim.NextBoot{}, nextOf(m), "nothing is armed")
}

func TestAHostWhoseBMCIsDeadCanBeDeleted(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	m.server.CloseClientConnections()
	m.server.Close()
	require.NoError(t, f.client.Delete(t.Context(), h))
	f.gone(h)
	require.Empty(t, f.children(h))
	f.told("n1", ReasonRemovedWithoutBMC)

	m = f.newMachine("n2", bmcOptions{})
	h = f.provisioned("n2", m)
	m.bmc.RefuseCredentials(true)
	f.fails(h, metal3.ProvisionedRegistrationError, ReasonCredentialsRefused)
	tried := m.refusals()
	require.NoError(t, f.client.Delete(t.Context(), h))
	f.gone(h)
	require.LessOrEqual(t, m.refusals(), tried+1)
}

func TestADeletedHostIsSwitchedOff(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, func(h *metal3.BareMetalHost) { h.Spec.Online = true })
	f.until(h, "it is on", func() bool { return h.Status.PoweredOn })
	require.NoError(t, f.client.Delete(t.Context(), h))
	f.gone(h)
	require.False(t, m.IsOn())
	require.Equal(t, []string{"On", "ForceOff"}, m.executed())
}

func TestAPausedOrDetachedHostIsLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	f.change(h, annotated(metal3.PausedAnnotation, ""), func(h *metal3.BareMetalHost) { h.Spec.Online = false })
	f.quiet(h)
	m.bmc.ClearLog()
	f.quiet(h)
	require.Empty(t, m.bmc.Log())
	require.True(t, m.IsOn())
	f.change(h, func(h *metal3.BareMetalHost) {
		delete(h.Annotations, metal3.PausedAnnotation)
		h.Annotations[metal3.DetachedAnnotation] = `{"deleteAction":"delay"}`
	})
	f.until(h, "it is detached", func() bool { return h.Status.OperationalStatus == metal3.OperationalStatusDetached })
	f.shows(h, metal3.ReadyCondition, isFalse, metal3.DetachedReason)
	m.bmc.ClearLog()
	require.NoError(t, f.client.Delete(t.Context(), h))
	f.quiet(h)
	require.Empty(t, m.bmc.Log())
	f.change(h, annotated(metal3.DetachedAnnotation, ""))
	f.gone(h)
	require.True(t, m.IsOn(), "a detached host is let go as it is")
	require.Empty(t, m.bmc.Log())
}

// clusterctl move carries no status: it stands in an annotation.
func TestAHostThatCameFromAnotherClusterGoesOnWithItsStatus(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	status, err := json.Marshal(h.Status)
	require.NoError(t, err)
	on := m.powerOns()
	f.change(h, annotated(metal3.PausedAnnotation, ""))
	moved := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "n1", Annotations: map[string]string{
		metal3.StatusAnnotation: string(status), v1alpha1.HostSystemUUIDAnnotation: m.uuid, v1alpha1.HostAddressesAnnotation: "10.0.0.5",
	}}, Spec: h.Spec}
	h.Finalizers = nil
	require.NoError(t, f.client.Update(t.Context(), h))
	require.NoError(t, f.client.Delete(t.Context(), h))
	for _, c := range f.children(h) {
		require.NoError(t, f.client.Delete(t.Context(), c))
	}
	f.create(moved)
	f.until(moved, "its status is back", func() bool {
		_, has := moved.Annotations[metal3.StatusAnnotation]
		return !has && moved.Status.Provisioning.State == metal3.StateProvisioned
	})
	f.quiet(moved)
	f.is(moved, metal3.StateProvisioned)
	require.Equal(t, on, m.powerOns(), "it is not booted again")

	bad := f.host("n2", f.newMachine("n2", bmcOptions{}), annotated(metal3.StatusAnnotation, "{"))
	f.fails(bad, metal3.RegistrationError, ReasonInvalidAnnotation)
	f.change(bad, func(h *metal3.BareMetalHost) { delete(h.Annotations, metal3.StatusAnnotation) })
	f.is(bad, metal3.StateAvailable)
}

func TestAHostThatBaremetalOperatorManagesIsNotTouched(t *testing.T) {
	f := newFixture(t)
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, annotated(metal3.PausedAnnotation, ""))
	h.Status.Provisioning.ID = "made-by-ironic"
	require.NoError(t, f.client.Status().Update(t.Context(), h))
	f.change(h, func(h *metal3.BareMetalHost) { delete(h.Annotations, metal3.PausedAnnotation) })
	other := f.newMachine("n2", bmcOptions{})
	theirs := f.host("n2", other, annotated(metal3.PausedAnnotation, ""))
	theirs.Annotations = map[string]string{"theirs": "yes"}
	require.NoError(t, f.client.Update(t.Context(), theirs, client.FieldOwner("baremetal-operator")))
	f.run()
	for _, h := range []*metal3.BareMetalHost{h, theirs} {
		require.Contains(t, f.shows(h, ConditionDriven, isFalse, ReasonManagedElsewhere), v1alpha1.HostTakeOverAnnotation)
		f.quiet(h)
		require.Empty(t, h.Finalizers)
		require.Equal(t, metal3.StateNone, h.Status.Provisioning.State)
	}
	require.Empty(t, m.bmc.Log())
	require.Empty(t, other.bmc.Log())
	f.told("n1", ReasonManagedElsewhere)
	require.Equal(t, 1, f.events("n1")[ReasonManagedElsewhere])
	f.change(h, annotated(v1alpha1.HostTakeOverAnnotation, ""))
	f.is(h, metal3.StateAvailable)
}

func TestAnExternallyProvisionedHostIsOnlySwitched(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, boots(ukiImage), func(h *metal3.BareMetalHost) { h.Spec.ExternallyProvisioned = true })
	f.is(h, metal3.StateExternallyProvisioned)
	f.until(h, "it is on", func() bool { return h.Status.PoweredOn })
	require.Empty(t, f.children(h))
	require.Empty(t, m.sent("PATCH", ""))
	f.shows(h, metal3.ProvisionedCondition, isTrue, metal3.ProvisionedReason)
	require.NoError(t, f.client.Delete(t.Context(), h))
	f.gone(h)
	require.True(t, m.IsOn())
}

func TestWhereSomebodyElsePowersHostsOnlyConfigsAreMade(t *testing.T) {
	f := newFixture(t)
	f.registry.images["registry.example.com/os/pxe:2"] = f.registry.images[pxeImage]
	f.run(func(o *Options) { o.Mode, o.BMCs, o.Links = ModeTranslate, nil, nil })
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, boots(bothImage), annotated(v1alpha1.HostSystemUUIDAnnotation, "00112233-4455-6677-8899-aabbccddee01"))
	f.poll(func() string { return "no configs" }, func() bool { return len(f.children(h)) == 2 })
	for _, c := range f.children(h) {
		require.NotContains(t, c.GetAnnotations(), v1alpha1.PausedAnnotation, "whichever way it boots, it is served")
		require.Equal(t, "00112233-4455-6677-8899-aabbccddee01", c.Common().SystemUUID)
	}
	f.change(h, withUserData("user"))
	f.poll(func() string { return "the configs do not follow" }, func() bool {
		all := f.children(h)
		return len(all) == 2 && all[0].Common().IgnitionSecretRef != nil && all[1].Common().IgnitionSecretRef != nil
	})
	f.change(h, boots("registry.example.com/os/pxe:2"))
	f.poll(func() string { return "the configs do not follow the image" }, func() bool {
		all := f.children(h)
		return len(all) == 1 && all[0].Kind() == v1alpha1.KindIPXEBootConfig && all[0].Common().Image == "registry.example.com/os/pxe:2"
	})
	f.quiet(h)
	f.change(h, func(h *metal3.BareMetalHost) {
		h.Spec.UserData = &corev1.SecretReference{Name: "user", Namespace: "kube-system"}
	})
	f.told("n1", ReasonInvalidSpec)
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Image, h.Spec.UserData = nil, nil })
	f.poll(func() string { return "a config is left" }, func() bool { return len(f.children(h)) == 0 })
	f.reread(h)
	require.Equal(t, metal3.BareMetalHostStatus{}, h.Status, "nothing was written to the host")
	require.Empty(t, h.Finalizers)
	require.Empty(t, m.bmc.Log(), "nothing was asked of the BMC")
}

func TestHostsOfOtherNamespacesAreLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.Namespaces = []string{"elsewhere"} })
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m)
	f.quiet(h)
	require.Equal(t, metal3.BareMetalHostStatus{}, h.Status)
	require.Empty(t, m.bmc.Log())
}
