package host

import (
	"encoding/json"
	"testing"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
)

func TestAHostIsRegisteredInspectedAndOffered(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m)
	f.is(h, metal3.StateAvailable)

	require.Equal(t, m.uuid, h.Annotations[v1alpha1.HostSystemUUIDAnnotation])
	require.Contains(t, h.Finalizers, metal3.BareMetalHostFinalizer)
	require.Equal(t, metal3.OperationalStatusOK, h.Status.OperationalStatus)
	require.False(t, h.Status.PoweredOn)
	require.Equal(t, "n1-bmc", h.Status.GoodCredentials.Reference.Name)
	require.Equal(t, h.Status.GoodCredentials, h.Status.TriedCredentials)
	hw := h.Status.HardwareDetails
	require.Equal(t, "SN-n1", hw.SystemVendor.SerialNumber)
	require.Equal(t, 32768, hw.RAMMebibytes)
	require.Equal(t, metal3.CPU{Arch: "x86_64", Model: "Simulated CPU", Count: 8, ClockMegahertz: 3200}, hw.CPU)
	require.Equal(t, "2.3.4", hw.Firmware.BIOS.Version)
	require.Len(t, hw.NIC, 1)
	require.Equal(t, "52:54:00:aa:bb:01", hw.NIC[0].MAC)
	require.Len(t, hw.Storage, 1)
	require.Equal(t, metal3.DiskType("NVME"), hw.Storage[0].Type)
	require.False(t, h.Status.OperationHistory.Register.Start.IsZero())
	require.False(t, h.Status.OperationHistory.Register.End.IsZero())
	require.False(t, h.Status.OperationHistory.Inspect.End.IsZero())

	f.shows(h, metal3.ManageableCondition, isTrue, metal3.ManageableReason)
	f.shows(h, metal3.AvailableForProvisioningCondition, isTrue, metal3.AvailableReason)
	f.shows(h, metal3.ProvisionedCondition, isFalse, metal3.NotProvisionedReason)
	f.shows(h, metal3.ProgressingCondition, isFalse, metal3.NotProgressingReason)
	f.shows(h, ConditionDriven, isTrue, ReasonDriven)
	f.shows(h, ConditionFollowed, isTrue, ReasonAllFollowed)
	f.told("n1", ReasonStateChanged)
	require.Empty(t, m.executed(), "nothing was switched")
	for _, r := range m.bmc.Log() {
		require.Equal(t, "GET", r.Method, "nothing was written")
	}
	require.Equal(t, 1, m.bmc.MaxInFlight())
	f.quiet(h)
}

func TestDetailsOfTheHardwareCanBeGivenInsteadOfRead(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	details, err := json.Marshal(metal3.HardwareDetails{Hostname: "given", NIC: []metal3.NIC{{MAC: "52:54:00:00:00:99"}}})
	require.NoError(t, err)
	h := f.host("n1", m, annotated(metal3.HardwareDetailsAnnotation, string(details)))
	f.is(h, metal3.StateAvailable)
	require.Equal(t, "given", h.Status.HardwareDetails.Hostname)
	require.Empty(t, m.sent("GET", "/Processors"))

	other := f.host("n2", f.newMachine("n2", bmcOptions{}), annotated(metal3.HardwareDetailsAnnotation, "{"))
	require.Contains(t, f.fails(other, metal3.InspectionError, ReasonInvalidAnnotation), "not hardware details as JSON")
	f.change(other, func(h *metal3.BareMetalHost) { delete(h.Annotations, metal3.HardwareDetailsAnnotation) })
	f.is(other, metal3.StateAvailable)
}

func TestInspectionIsLeftOutWhereItIsDisabledAndRepeatedWhereItIsAskedFor(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, annotated(metal3.InspectAnnotationPrefix, "disabled"))
	f.is(h, metal3.StateAvailable)
	require.Nil(t, h.Status.HardwareDetails)
	require.Empty(t, m.sent("GET", "/Processors"))

	f.change(h, annotated(metal3.InspectAnnotationPrefix, ""))
	f.until(h, "it is inspected", func() bool {
		_, asked := h.Annotations[metal3.InspectAnnotationPrefix]
		return !asked && h.Status.HardwareDetails != nil && h.Status.Provisioning.State == metal3.StateAvailable
	})
	before := len(m.sent("GET", "/Processors"))
	require.NotZero(t, before)
	f.quiet(h)
	require.Len(t, m.sent("GET", "/Processors"), before, "it is inspected once")
}

func TestWhatIsNotFollowedIsSaidWhenTheHostIsRegistered(t *testing.T) {
	f := newFixture(t)
	f.run()
	h := f.host("n1", f.newMachine("n1", bmcOptions{}), func(h *metal3.BareMetalHost) {
		h.Spec.InspectionMode = metal3.InspectionModeAgent
		h.Spec.AutomatedCleaningMode = metal3.CleaningModeDisabled
	})
	f.is(h, metal3.StateAvailable)
	require.Contains(t, f.shows(h, ConditionFollowed, isFalse, ReasonFieldsIgnored), "spec.inspectionMode agent is not followed")
	require.NotNil(t, h.Status.HardwareDetails, "it is inspected by its BMC")
}

// What Cluster API's Metal3 provider (CAPM3) does with a host.
func TestClusterAPICanChooseProvisionReadAndReleaseAHost(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	f.host("n1", m, withAddress, func(h *metal3.BareMetalHost) { h.Labels = map[string]string{"rack": "7"} })
	f.host("n2", f.newMachine("n2", bmcOptions{}))
	for name, data := range map[string]map[string]string{
		"n1-user-data": {"value": "#cloud-config\n", "format": "cloud-config"},
		"n1-meta-data": {"metaData": "name: n1\n"}, "n1-network-data": {"networkData": "links: []\n"},
	} {
		f.secret(name, data)
	}
	var chosen *metal3.BareMetalHost
	f.poll(func() string { return "no host can be chosen" }, func() bool {
		var list metal3.BareMetalHostList
		require.NoError(t, f.client.List(t.Context(), &list))
		for _, h := range list.Items {
			state := h.Status.Provisioning.State
			if h.Namespace == f.ns && h.Labels["rack"] == "7" && h.Spec.ConsumerRef == nil && h.Status.ErrorMessage == "" && (state == metal3.StateAvailable || state == metal3.StateReady) {
				chosen = &h
				return true
			}
		}
		return false
	})
	f.change(chosen, boots(ukiImage), withUserData("n1-user-data"), func(h *metal3.BareMetalHost) {
		h.Spec.ConsumerRef = &corev1.ObjectReference{Kind: "Metal3Machine", Name: "worker-1", Namespace: f.ns, APIVersion: "infrastructure.cluster.x-k8s.io/v1beta1"}
		h.Spec.MetaData = &corev1.SecretReference{Name: "n1-meta-data", Namespace: f.ns}
		h.Spec.NetworkData = &corev1.SecretReference{Name: "n1-network-data", Namespace: f.ns}
	})
	f.is(chosen, metal3.StateProvisioned)
	require.True(t, chosen.Status.PoweredOn)
	require.Equal(t, "oci://"+ukiImage, chosen.Status.Provisioning.Image.URL)
	require.Equal(t, "52:54:00:aa:bb:01", chosen.Status.HardwareDetails.NIC[0].MAC)
	f.shows(chosen, metal3.ProvisionedCondition, isTrue, metal3.ProvisionedReason)
	c := f.children(chosen)
	require.Len(t, c, 1)
	require.Equal(t, "n1-user-data", c[0].Common().IgnitionSecretRef.Name)
	require.Equal(t, "n1-meta-data", c[0].Common().MetaDataSecretRef.Name)
	require.Equal(t, "n1-network-data", c[0].Common().NetworkDataSecretRef.Name)
	require.Equal(t, []string{"On"}, m.executed())
	served, secrets := f.site.count("n1")
	require.Equal(t, 1, served)
	require.Equal(t, 1, secrets)
	f.told("n1", ReasonBootBegun)
	f.told("n1", ReasonBootDelivered)

	f.change(chosen, func(h *metal3.BareMetalHost) {
		h.Spec.Image, h.Spec.UserData, h.Spec.MetaData, h.Spec.NetworkData, h.Spec.ConsumerRef = nil, nil, nil, nil, nil
		h.Spec.Online = false
	})
	f.is(chosen, metal3.StateAvailable)
	require.Empty(t, f.children(chosen))
	require.False(t, m.IsOn())
	require.Empty(t, chosen.Status.Provisioning.Image.URL)
	require.Equal(t, []string{"On", "ForceOff"}, m.executed())
	require.False(t, chosen.Status.OperationHistory.Deprovision.End.IsZero())
	f.quiet(chosen)
	require.Equal(t, bmcsim.NextBoot{}, nextOf(m), "nothing is armed")
}

// nextOf is what the machine would try first if somebody switched it on now.
func nextOf(m *machine) bmcsim.NextBoot {
	_ = m.bmc.PressPower()
	_, next := m.Boots()
	_ = m.bmc.HoldPower()
	return next
}
