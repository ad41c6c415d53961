package host

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
)

// provisioned is a host that was provisioned once, by an image with user data.
func (f *fixture) provisioned(name string, m *machine, change ...func(*metal3.BareMetalHost)) *metal3.BareMetalHost {
	f.t.Helper()
	f.secret(name+"-user-data", map[string]string{"value": "#cloud-config\n"})
	h := f.host(name, m, append([]func(*metal3.BareMetalHost){withAddress, boots(ukiImage), withUserData(name + "-user-data")}, change...)...)
	f.is(h, metal3.StateProvisioned)
	return h
}

// bootsFrom waits until a machine has begun this many boots, this many of them from
// disk.
func (f *fixture) bootsFrom(m *machine, all, disk int) {
	f.t.Helper()
	f.poll(func() string {
		started, fromDisk := m.starts()
		return "it booted otherwise: " + m.host + ": " + join(started) + f.bmcText(m.host) + " from disk: " + string(rune('0'+fromDisk))
	}, func() bool {
		started, fromDisk := m.starts()
		return len(started) == all && fromDisk == disk
	})
}

func join(all []bmcsim.NextBoot) string {
	text := ""
	for _, n := range all {
		text += "[" + string(n.Kind) + " " + n.URL + "]"
	}
	return text
}

func TestAnInstalledMachineIsNotArmedAgainWhateverHappens(t *testing.T) {
	f := newFixture(t)
	stop := f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	armed := len(m.sent("PATCH", ""))

	require.NoError(t, m.bmc.PressReset())
	f.bootsFrom(m, 2, 1)
	m.Reboot()
	f.bootsFrom(m, 3, 2)
	stop()
	f.run()
	require.NoError(t, m.bmc.HoldPower())
	f.bootsFrom(m, 4, 3)
	f.quiet(h)
	f.is(h, metal3.StateProvisioned)
	require.Len(t, m.sent("PATCH", ""), armed, "nothing was written to the BMC again")
	served, secrets := f.site.count("n1")
	require.Equal(t, 1, served)
	require.Equal(t, 1, secrets)
	require.EqualValues(t, 1, f.record(h).Try)
}

// A BMC that boots what was asked once again and again: what it asks for is not
// served, and nothing is armed.
func TestAMachineWhoseBMCIgnoresOnceIsServedOnce(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{profile: "ignores-once"})
	h := f.provisioned("n1", m)
	require.NoError(t, m.bmc.PressReset())
	f.poll(func() string { return "it never booted again" }, func() bool { all, _ := m.starts(); return len(all) == 2 })
	f.quiet(h)
	served, _ := f.site.count("n1")
	require.Equal(t, 1, served)
	f.is(h, metal3.StateProvisioned)
}

func TestARebootAnnotationBootsAnInstalledMachineFromItsDisk(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	f.change(h, annotated(metal3.RebootAnnotationPrefix, ""))
	f.bootsFrom(m, 2, 1)
	f.until(h, "the annotation went", func() bool { _, has := h.Annotations[metal3.RebootAnnotationPrefix]; return !has })
	require.Equal(t, []string{"On", "GracefulShutdown", "On"}, m.executed())

	held := metal3.RebootAnnotationPrefix + "/remediation"
	f.change(h, annotated(held, `{"mode":"hard"}`))
	f.until(h, "it is off", func() bool { return !h.Status.PoweredOn })
	f.quiet(h)
	require.Contains(t, h.Annotations, held, "it stays until who set it removes it")
	require.False(t, m.IsOn())
	require.Equal(t, []string{"On", "GracefulShutdown", "On", "ForceOff"}, m.executed())
	f.change(h, func(h *metal3.BareMetalHost) { delete(h.Annotations, held) })
	f.bootsFrom(m, 3, 2)
	f.is(h, metal3.StateProvisioned)
	served, _ := f.site.count("n1")
	require.Equal(t, 1, served)
}

func TestAnOperatingSystemThatIgnoresAShutdownLosesItsPower(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.PowerOffTimeout = 600 * time.Millisecond })
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	m.IgnoreShutdown(true)
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = false })
	f.until(h, "it is off", func() bool { return !h.Status.PoweredOn })
	require.Equal(t, []string{"On", "GracefulShutdown", "ForceOff"}, m.executed())
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = true })
	f.bootsFrom(m, 2, 1)
}

func TestAMachineThatCannotBeSwitchedOffIsSaidSo(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.PowerOffTimeout = 300 * time.Millisecond })
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	m.bmc.FreezePowerState(true)
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = false })
	require.Contains(t, f.fails(h, metal3.PowerManagementError, ReasonPowerFailed), `still says "On"`)
	require.LessOrEqual(t, len(m.sent("POST", "Reset")), 30, "it is not told again at every look")
	m.bmc.FreezePowerState(false)
	f.until(h, "it is off", func() bool { return !h.Status.PoweredOn && h.Status.ErrorMessage == "" })
}

func TestAnExplicitRequestInstallsAgain(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	f.change(h, annotated(v1alpha1.HostRequestBootAnnotation, "again"))
	f.poll(func() string { return "it was not served again" + f.bmcText("n1") }, func() bool {
		served, secrets := f.site.count("n1")
		return served == 2 && secrets == 2
	})
	f.is(h, metal3.StateProvisioned)
	f.bootsFrom(m, 2, 0)
	require.Equal(t, []string{"On", "ForceOff", "On"}, m.executed())

	f.change(h, func(h *metal3.BareMetalHost) { delete(h.Annotations, v1alpha1.HostRequestBootAnnotation) })
	f.quiet(h)
	f.is(h, metal3.StateProvisioned)
	f.bootsFrom(m, 2, 0) // to tidy up asks for nothing
}

func TestOnlineOffAndOnBootsAnewBeforeTheDeliveryAndFromDiskAfterIt(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 1} })
	f.secret("n1-user-data", map[string]string{"value": "#cloud-config\n"})
	h := f.host("n1", m, withAddress, boots(ukiImage), withUserData("n1-user-data"))
	f.until(h, "it waits for the fetch", func() bool {
		r := f.record(h)
		return r != nil && r.Step == v1alpha1.NetworkBootAwaitFetch
	})
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = false })
	f.until(h, "it is off", func() bool { return !h.Status.PoweredOn && f.record(h).Step == v1alpha1.NetworkBootFailed })
	f.quiet(h)
	require.Equal(t, metal3.StateProvisioning, h.Status.Provisioning.State)
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = true })
	f.is(h, metal3.StateProvisioned)
	f.bootsFrom(m, 2, 0)

	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = false })
	f.until(h, "it is off", func() bool { return !h.Status.PoweredOn })
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = true })
	f.bootsFrom(m, 3, 1)
	served, _ := f.site.count("n1")
	require.Equal(t, 1, served)
}

func TestARebootBeforeTheDeliveryIsABootFromTheNetwork(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 1} })
	h := f.host("n1", m, withAddress, boots(ukiImage))
	f.until(h, "it waits for the fetch", func() bool {
		r := f.record(h)
		return r != nil && r.Step == v1alpha1.NetworkBootAwaitFetch
	})
	f.change(h, annotated(metal3.RebootAnnotationPrefix, ""))
	f.is(h, metal3.StateProvisioned)
	f.bootsFrom(m, 2, 0)
	f.until(h, "nothing is left of the request", func() bool {
		_, asked := h.Annotations[metal3.RebootAnnotationPrefix]
		_, announced := h.Annotations[v1alpha1.HostRestartAnnotation]
		return !asked && !announced
	})
	f.quiet(h)
	f.bootsFrom(m, 2, 0)
}

func TestAMachineThatMustNotBeSwitchedOffIsReset(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	require.NoError(t, m.bmc.PressPower())
	h := f.provisioned("n1", m, func(h *metal3.BareMetalHost) { h.Spec.DisablePowerOff = true })
	require.Equal(t, []string{"On", "ForceRestart"}, m.executed())
	f.change(h, annotated(v1alpha1.HostRequestBootAnnotation, "again"))
	f.poll(func() string { return "it was not served again" }, func() bool { n, _ := f.site.count("n1"); return n == 2 })
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, []string{"On", "ForceRestart", "ForceRestart"}, m.executed())

	f.change(h, annotated(metal3.RebootAnnotationPrefix, ""))
	f.until(h, "the reboot is over", func() bool {
		return len(h.Annotations) > 0 && !rebootOf(h).any() && h.Annotations[v1alpha1.HostRestartAnnotation] == ""
	})
	require.Equal(t, []string{"On", "ForceRestart", "ForceRestart", "ForceRestart"}, m.executed())

	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Image, h.Spec.UserData = nil, nil })
	f.is(h, metal3.StateAvailable)
	require.True(t, m.IsOn(), "it is never switched off")
	require.NoError(t, f.client.Delete(t.Context(), h))
	f.gone(h)
	require.Len(t, m.executed(), 4)
}

// withoutResetTime is a BMC that does not tell when the machine was reset last.
func withoutResetTime(next http.Handler) http.Handler {
	told := regexp.MustCompile(`"LastResetTime":"[^"]*",?`)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		for k, v := range answer.Header() {
			if k != "Content-Length" {
				w.Header()[k] = v
			}
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(told.ReplaceAll(answer.Body.Bytes(), nil))
	})
}

func TestAMachineThatMustNotBeSwitchedOffIsResetOnceWhereItsBMCTellsNoTime(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{between: withoutResetTime})
	require.NoError(t, m.bmc.PressPower())
	h := f.provisioned("n1", m, func(h *metal3.BareMetalHost) { h.Spec.DisablePowerOff = true })
	require.Empty(t, f.record(h).LastReset)
	require.Equal(t, []string{"On", "ForceRestart"}, m.executed())
	f.change(h, annotated(metal3.RebootAnnotationPrefix, ""))
	f.bootsFrom(m, 3, 2)
	f.until(h, "the reboot is over", func() bool { return !rebootOf(h).any() && h.Annotations[v1alpha1.HostRestartAnnotation] == "" })
	f.quiet(h)
	require.Equal(t, []string{"On", "ForceRestart", "ForceRestart"}, m.executed())
}
