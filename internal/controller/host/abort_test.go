package host

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// abort aborts a boot attempt of a host's config, as a user does.
func (f *fixture) abort(name string, attempt int64) {
	f.t.Helper()
	c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name}}
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%d"}}}`, v1alpha1.AbortBootAnnotation, attempt))
	require.NoError(f.t, f.client.Patch(f.t.Context(), c, patch))
}

// awaits waits until a host's machine was armed and switched on.
func (f *fixture) awaits(h *metal3.BareMetalHost) *v1alpha1.NetworkBoot {
	f.t.Helper()
	f.until(h, "it was switched on", func() bool {
		r := f.record(h)
		return r != nil && r.Step == v1alpha1.NetworkBootAwaitFetch
	})
	return f.record(h)
}

func TestABootThatWasAbortedIsTakenBackAndNotArmedAgainBeforeSomethingAsks(t *testing.T) {
	for name, ask := range map[string]func(f *fixture, h *metal3.BareMetalHost){
		"the annotation request-boot": func(f *fixture, h *metal3.BareMetalHost) {
			f.change(h, annotated(v1alpha1.HostRequestBootAnnotation, "2"))
		},
		"the annotation reboot": func(f *fixture, h *metal3.BareMetalHost) { f.change(h, annotated(metal3.RebootAnnotationPrefix, "")) },
		"off and on": func(f *fixture, h *metal3.BareMetalHost) {
			f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = false })
			f.until(h, "it is off", func() bool { return !h.Status.PoweredOn && h.Status.ErrorMessage == "" })
			f.change(h, func(h *metal3.BareMetalHost) { h.Spec.Online = true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.run()
			m := f.newMachine("n1", bmcOptions{})
			m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 1} })
			h := f.host("n1", m, withAddress, boots(ukiImage))
			armed := f.awaits(h)
			require.NotEmpty(t, armed.PinnedBy)

			f.abort("n1", armed.Attempt+5)
			f.quiet(h)
			require.Equal(t, v1alpha1.NetworkBootAwaitFetch, f.record(h).Step, "no such attempt")

			f.abort("n1", armed.Attempt)
			message := f.fails(h, metal3.ProvisioningError, ReasonBootFailed)
			require.Contains(t, message, fmt.Sprintf("boot attempt %d was aborted", armed.Attempt))
			f.until(h, "nothing is left in the BMC", func() bool { r := f.record(h); return r.Disarmed && r.PinnedBy == "" })
			require.NoError(t, m.bmc.HoldPower())
			require.Empty(t, nextOf(m).URL)
			require.Nil(t, f.children(h)[0].ConfigStatus().Boot.Armed)
			f.told("n1", ReasonBootAborted)
			f.abort("n1", 99)
			f.abort("n1", armed.Attempt)
			f.quiet(h)
			require.Equal(t, v1alpha1.NetworkBootFailed, f.record(h).Step)
			require.Equal(t, 1, m.powerOns(), "nothing is armed again by itself")
			require.Equal(t, 1, f.events("n1")[ReasonBootAborted], "aborted twice is aborted once")

			ask(f, h)
			f.is(h, metal3.StateProvisioned)
			require.Equal(t, 2, m.powerOns())
		})
	}
}

func TestAnAttemptThatWasAbortedBeforeItsMachineWasSwitchedOnSwitchesNothing(t *testing.T) {
	f := newFixture(t)
	f.site.set(func() { f.site.unready["n1"] = "still pulling" })
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, withAddress, boots(ukiImage))
	f.waits(h, "still pulling")
	f.abort("n1", 1)
	f.poll(func() string { return "it was never aborted" }, func() bool {
		b := f.children(h)[0].ConfigStatus().Boot
		return b != nil && b.Aborted == 1
	})
	f.site.set(func() { delete(f.site.unready, "n1") })
	f.site.again("n1")
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonBootFailed), "boot attempt 1 was aborted")
	require.Empty(t, m.executed())
	f.quiet(h)
	require.Empty(t, m.executed())
}

func TestABootIsOverWhereItIsAbortedBeforeTheUserDataWasFetched(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.noData = true })
	f.secret("n1-user-data", map[string]string{"value": "#cloud-config\n"})
	h := f.host("n1", m, withAddress, boots(ukiImage), withUserData("n1-user-data"))
	f.until(h, "its image was delivered", func() bool { r := f.record(h); return r != nil && delivered(r) })
	f.abort("n1", f.record(h).Attempt)
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonBootFailed), "was aborted")
	f.quiet(h)
	require.Equal(t, 1, m.powerOns())
}

// spans keeps the spans of boots.
type spans struct {
	mu  sync.Mutex
	all []boot.Span
}

// Record implements boot.Spans.
func (s *spans) Record(span boot.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, span)
}

// of are the names of the spans of a boot, in the order of their beginning.
func (s *spans) of(id boot.ID) []boot.SpanName {
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []boot.Span
	for _, span := range s.all {
		if span.Boot == id {
			mine = append(mine, span)
		}
	}
	slices.SortStableFunc(mine, func(a, b boot.Span) int { return a.Start.Compare(b.Start) })
	var names []boot.SpanName
	for _, span := range mine {
		names = append(names, span.Name)
	}
	return names
}

func stepNames(r *v1alpha1.NetworkBoot) []v1alpha1.NetworkBootStep {
	var names []v1alpha1.NetworkBootStep
	for _, s := range r.Steps {
		names = append(names, s.Step)
	}
	return names
}

func TestTheStepsOfABootAreKeptCountedAndTraced(t *testing.T) {
	f := newFixture(t)
	seen, registry := &spans{}, prometheus.NewPedanticRegistry()
	stop := f.run(func(o *Options) { soonTimedOut(o); o.Spans, o.Registerer = seen, registry })
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 1} })
	h := f.host("n1", m, withAddress, boots(ukiImage))
	first := f.awaits(h)
	require.Equal(t, order[:4], stepNames(first))
	f.is(h, metal3.StateProvisioned)

	second := f.record(h)
	require.EqualValues(t, 2, second.Try)
	require.Equal(t, order, stepNames(second), "what is kept is of the last try")
	require.True(t, slices.IsSortedFunc(second.Steps, func(a, b v1alpha1.NetworkBootTime) int { return a.Time.Compare(b.Time.Time) }))
	require.True(t, second.Steps[0].Time.After(first.Steps[3].Time.Time))
	require.Equal(t, second.Since.UTC(), second.Steps[4].Time.UTC())

	uid := string(f.children(h)[0].GetUID())
	all := []boot.SpanName{boot.SpanPowerOff, boot.SpanArm, boot.SpanPowerOn, boot.SpanAwait}
	require.Equal(t, all, seen.of(boot.NewID(uid, first.Attempt)))
	require.Equal(t, all, seen.of(boot.NewID(uid, second.Attempt)))
	for _, s := range seen.all {
		require.Equal(t, s.Err != nil, s.Name == boot.SpanAwait && s.Boot == boot.NewID(uid, first.Attempt), "%+v", s)
		require.NotContains(t, fmt.Sprint(s.Attributes), "/t/", "no URL is told")
	}
	figures := f.options
	figures.Registerer = registry
	require.NoError(t, figures.complete())
	require.Equal(t, 1.0, testutil.ToFloat64(figures.metrics.steps.WithLabelValues("AwaitFetch", resultRetried)))
	require.Equal(t, 1.0, testutil.ToFloat64(figures.metrics.steps.WithLabelValues("AwaitFetch", resultDone)))
	require.Equal(t, 2.0, testutil.ToFloat64(figures.metrics.steps.WithLabelValues("Arm", resultDone)))
	hosts := func() map[string]float64 {
		out := map[string]float64{}
		all, err := registry.Gather()
		require.NoError(t, err)
		for _, family := range all {
			if family.GetName() == "boot_operator_hosts" {
				for _, m := range family.GetMetric() {
					out[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
		return out
	}
	require.Len(t, hosts(), len(states))
	require.Eventually(t, func() bool { return hosts()["provisioned"] == 1 }, deadline, 10e6)
	stop()
	require.Zero(t, hosts()["provisioned"], "another replica may look after it now")
}
