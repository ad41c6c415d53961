package host

import (
	"testing"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
)

func TestADisklessMachineComesBackFromWhateverEndedIt(t *testing.T) {
	f := newFixture(t)
	stop := f.run()
	m := f.newMachine("n1", bmcOptions{bootOrder: true})
	h := f.provisioned("n1", m, diskless)
	require.Equal(t, v1alpha1.BootPolicyAlways, f.children(h)[0].Common().BootPolicy)
	f.shows(h, ConditionReturns, isTrue, ReasonNetworkFirst)
	require.Equal(t, bmcsim.KindHTTP, m.BootOrder()[0].Kind)
	first := f.record(h).Attempt

	f.change(h, annotated(metal3.RebootAnnotationPrefix, ""))
	f.bootsFrom(m, 2, 0)
	f.until(h, "it was delivered anew", func() bool { r := f.record(h); return delivered(r) && r.Attempt > first })
	second := f.record(h)

	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = false })
	f.until(h, "it is off", func() bool { return !h.Status.PoweredOn })
	f.quiet(h)
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = true })
	f.bootsFrom(m, 3, 0)
	f.until(h, "it was delivered anew", func() bool { r := f.record(h); return delivered(r) && r.Attempt > second.Attempt })

	require.NoError(t, m.Off()) // the power was cut
	f.bootsFrom(m, 4, 0)
	f.until(h, "it was delivered anew", func() bool { return delivered(f.record(h)) && h.Status.PoweredOn })

	m.Reboot() // from inside: by its boot order
	f.bootsFrom(m, 5, 0)
	f.is(h, metal3.StateProvisioned)
	f.quiet(h)

	on := m.powerOns()
	stop()
	f.run()
	f.quiet(h)
	require.Equal(t, on, m.powerOns(), "a new operator restarts nothing")
	f.is(h, metal3.StateProvisioned)
}

func TestADisklessMachineIsBootedThroughItsBMCWhereItsOrderCannotBeWritten(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m, diskless)
	require.Contains(t, f.shows(h, ConditionReturns, isFalse, ReasonBootOrderNotWritable), "after a reboot of its own or a power cut")
	f.change(h, annotated(metal3.RebootAnnotationPrefix, `{"mode":"hard"}`))
	f.bootsFrom(m, 2, 0)
	require.Equal(t, []string{"On", "ForceOff", "On"}, m.executed())
	f.is(h, metal3.StateProvisioned)

	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Image, h.Spec.UserData, h.Spec.Online = nil, nil, false })
	f.is(h, metal3.StateAvailable)
	for _, c := range h.Status.Conditions {
		require.NotEqual(t, ConditionReturns, c.Type)
	}
}

func TestADisklessMachineThatOnlyItsBMCNamesIsSaidNotToReturn(t *testing.T) {
	f := newFixture(t)
	f.site.unidentified = true
	f.run()
	m := f.newMachine("n1", bmcOptions{bootOrder: true})
	h := f.provisioned("n1", m, diskless)
	require.Contains(t, f.shows(h, ConditionReturns, isFalse, ReasonIdentityOnlyByBMC), v1alpha1.HostAddressesAnnotation)
	started, _ := m.starts()
	require.NotEmpty(t, started[0].URL, "its URL was set through the BMC")
	require.NotContains(t, f.bmcText("n1"), "secret")
	f.until(h, "the URL was taken back", func() bool { return f.record(h).PinnedBy == "" })
	require.Empty(t, f.events("n1")[ReasonIdentityNotObservable])
}

func TestADisklessMachineThatMustNotBeSwitchedOffIsRebootedFromTheNetwork(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m, diskless, func(h *metal3.BareMetalHost) { h.Spec.DisablePowerOff = true })
	f.change(h, annotated(metal3.RebootAnnotationPrefix, ""))
	f.bootsFrom(m, 2, 0)
	f.until(h, "nothing is left of the request", func() bool {
		return !rebootOf(h).any() && h.Annotations[v1alpha1.HostRestartAnnotation] == "" && delivered(f.record(h))
	})
	f.quiet(h)
	require.Equal(t, []string{"On", "ForceRestart"}, m.executed())
}
