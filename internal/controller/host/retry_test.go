package host

import (
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
)

// soonTimedOut makes a fetch time out soon.
func soonTimedOut(o *Options) { o.FetchTimeout = 2 * time.Second }

func kindsOf(all []bmcsim.NextBoot) []bmcsim.Kind {
	var kinds []bmcsim.Kind
	for _, n := range all {
		kinds = append(kinds, n.Kind)
	}
	return kinds
}

func TestAMachineThatDoesNotBootOverHTTPIsBootedByPXEAtTheThirdTry(t *testing.T) {
	f := newFixture(t)
	f.run(soonTimedOut)
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 2} })
	h := f.host("n1", m, withAddress, boots(bothImage))
	f.is(h, metal3.StateProvisioned)
	started, _ := m.starts()
	require.Equal(t, []bmcsim.Kind{bmcsim.KindHTTP, bmcsim.KindHTTP, bmcsim.KindPXE}, kindsOf(started))
	require.Equal(t, []string{"On", "ForceOff", "On", "ForceOff", "On"}, m.executed())
	require.EqualValues(t, 3, f.record(h).Try)
	require.Equal(t, "Pxe", f.record(h).Tactic)
	all := f.children(h)
	require.Equal(t, pausedByHost, all.kind(v1alpha1.KindHTTPBootConfig).GetAnnotations()[v1alpha1.PausedAnnotation], "what is not booted now is not served")
	require.NotContains(t, all.kind(v1alpha1.KindIPXEBootConfig).GetAnnotations(), v1alpha1.PausedAnnotation)
	f.told("n1", ReasonBootRetried)
	f.until(h, "the URL of the first tries was taken back", func() bool { return f.record(h).PinnedBy == "" })
	require.Empty(t, nextOf(m).URL)
}

func TestAUKIIsBootedByPXEWhereTheFirmwareCannotDoHTTP(t *testing.T) {
	f := newFixture(t)
	f.run(soonTimedOut)
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 2} })
	h := f.host("n1", m, withAddress, boots(ukiImage))
	f.is(h, metal3.StateProvisioned)
	started, _ := m.starts()
	require.Equal(t, []bmcsim.Kind{bmcsim.KindHTTP, bmcsim.KindHTTP, bmcsim.KindPXE}, kindsOf(started))
	require.Equal(t, 3, m.powerOns())
	require.Len(t, f.children(h), 1)
}

func TestAMachineThatOnlyItsBMCNamesIsNotBootedByPXE(t *testing.T) {
	f := newFixture(t)
	f.site.unidentified = true
	f.run(soonTimedOut)
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 3} })
	h := f.host("n1", m, boots(ukiImage))
	f.fails(h, metal3.ProvisioningError, ReasonBootFailed)
	started, _ := m.starts()
	require.Equal(t, []bmcsim.Kind{bmcsim.KindHTTP, bmcsim.KindHTTP, bmcsim.KindHTTP}, kindsOf(started))
}

func TestAMachineThatNeverFetchesIsTriedThreeTimesAndAgainWhenAsked(t *testing.T) {
	f := newFixture(t)
	f.run(soonTimedOut)
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 2, bmcsim.KindPXE: 1} })
	h := f.host("n1", m, withAddress, boots(ukiImage))
	message := f.fails(h, metal3.ProvisioningError, ReasonBootFailed)
	require.Contains(t, message, "it was armed 3 times; nothing is armed again by itself")
	require.Equal(t, 3, m.powerOns())
	f.quiet(h)
	require.Equal(t, 3, m.powerOns())
	require.Equal(t, 1, h.Status.ErrorCount, "it failed once")
	require.True(t, f.record(h).Disarmed, "nothing is left in the BMC")
	require.Empty(t, f.record(h).PinnedBy)
	f.change(h, annotated(v1alpha1.HostRequestBootAnnotation, "2"))
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, 4, m.powerOns())
}

func TestADeliveryThatIsCutIsRepeatedTwiceAtMost(t *testing.T) {
	f := newFixture(t)
	f.run(soonTimedOut)
	good := f.newMachine("n1", bmcOptions{})
	good.knob(func() { good.cuts = 2 })
	h := f.host("n1", good, withAddress, boots(ukiImage))
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, 3, good.powerOns())
	require.EqualValues(t, 2, f.record(h).Cut)
	require.Equal(t, "UefiHttp", f.record(h).Tactic, "a cut delivery is no fault of the tactic")

	bad := f.newMachine("n2", bmcOptions{})
	bad.knob(func() { bad.cuts = 3 })
	h = f.host("n2", bad, withAddress, boots(ukiImage))
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonBootFailed), "3 deliveries were cut")
	require.Equal(t, 3, bad.powerOns())
}

func TestNothingIsArmedAgainOnceASecretWasServed(t *testing.T) {
	f := newFixture(t)
	f.run(soonTimedOut)
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.cuts = 1 })
	f.secret("n1-user-data", map[string]string{"value": "#cloud-config\n"})
	h := f.host("n1", m, withAddress, boots(ukiImage), withUserData("n1-user-data"))
	f.until(h, "it was powered on", func() bool { r := f.record(h); return r != nil && r.Step == v1alpha1.NetworkBootAwaitFetch })
	f.site.serve(v1alpha1.KindHTTPBootConfig, "n1", "CloudInit", true)
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonBootFailed), "since a secret was served")
	require.Equal(t, 1, m.powerOns())
}

func TestAMachineThatGoesOffBeforeItFetchesIsTriedAgain(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.dies = 1 })
	h := f.host("n1", m, withAddress, boots(ukiImage))
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, 2, m.powerOns())
}

func TestUserDataThatIsNotFetchedKeepsAHostFromBeingProvisioned(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.noData = true })
	f.secret("n1-user-data", map[string]string{"value": "#cloud-config\n"})
	h := f.host("n1", m, withAddress, boots(ukiImage), withUserData("n1-user-data"))
	f.until(h, "its image was delivered", func() bool { r := f.record(h); return r != nil && delivered(r) })
	f.waits(h, "waits for the operating system to fetch its user data")
	f.quiet(h)
	require.Equal(t, metal3.StateProvisioning, h.Status.Provisioning.State)
	require.NoError(t, m.bmc.HoldPower())
	f.bootsFrom(m, 2, 1) // the power was cut: it goes on from its disk
	f.change(h, annotated(v1alpha1.HostProvisionedWhenAnnotation, "Image"))
	f.is(h, metal3.StateProvisioned)
}

func TestUserDataAloneCanBeEnough(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.cuts = 1 })
	f.secret("n1-user-data", map[string]string{"value": "#cloud-config\n"})
	h := f.host("n1", m, withAddress, boots(ukiImage), withUserData("n1-user-data"), annotated(v1alpha1.HostProvisionedWhenAnnotation, "UserData"))
	f.until(h, "it was powered on", func() bool { r := f.record(h); return r != nil && r.Step == v1alpha1.NetworkBootAwaitFetch })
	f.site.serve(v1alpha1.KindHTTPBootConfig, "n1", "CloudInit", true)
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, 1, m.powerOns())
}

func TestADeliveryThatTheOperatorDidNotSurviveIsRepeatedForWhoeverDidNotAskForItsUserData(t *testing.T) {
	f := newFixture(t)
	f.site.dies["n1"], f.site.dies["n2"] = 1, 1
	f.run(soonTimedOut)
	f.secret("n1-user-data", map[string]string{"value": "#cloud-config\n"})
	with := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", with, withAddress, boots(ukiImage), withUserData("n1-user-data"))
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, 2, with.powerOns())
	require.EqualValues(t, 1, f.record(h).Cut)

	without := f.newMachine("n2", bmcOptions{})
	h = f.host("n2", without, withAddress, boots(ukiImage))
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, 1, without.powerOns(), "it may be installed")
}
