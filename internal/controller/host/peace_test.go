package host

import (
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
)

func TestAHostInPeaceCostsItsBMCTwoReadsAtEachLook(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.PowerInterval = 200 * time.Millisecond })
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	f.until(h, "it is on", func() bool { return h.Status.PoweredOn })
	f.quiet(h)
	version := h.ResourceVersion
	m.bmc.ClearLog()
	began := time.Now()
	f.poll(func() string { return "it is not looked at" }, func() bool { return len(m.bmc.Log()) >= 10 })
	looks := int(time.Since(began)/(200*time.Millisecond)) + 1
	all := m.bmc.Log()
	require.LessOrEqual(t, len(all), 2*looks+2, "%v", all)
	for _, r := range all {
		require.Equal(t, "GET", r.Method)
	}
	require.Equal(t, 1, m.bmc.MaxInFlight())
	require.Zero(t, m.bmc.OpenSessions())
	f.reread(h)
	require.Equal(t, version, h.ResourceVersion, "nothing is written where nothing changes")
}

func TestAnErrorThatStaysIsToldOnceAndAskedForLessAndLessOften(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	m.bmc.GoAway(time.Hour)
	f.fails(h, metal3.PowerManagementError, ReasonBMCUnreachable)
	f.until(h, "it failed six times", func() bool { return h.Status.ErrorCount >= 6 })
	m.bmc.ClearLog()
	wait := max(f.options.RetryInterval<<5, time.Second)
	began := h.Status.ErrorCount
	time.Sleep(wait) //nolint:forbidigo // that nothing happens takes its time
	f.reread(h)
	require.LessOrEqual(t, h.Status.ErrorCount, began+2)
	require.LessOrEqual(t, f.events("n1")[ReasonBMCUnreachable], 3)
	m.bmc.GoAway(0)
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, 1, m.powerOns())
}

func TestSessionsAreUsedOnRequestAndNeverLeftOpen(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.BMCSessions = true })
	m := f.newMachine("n1", bmcOptions{})
	h := f.provisioned("n1", m)
	f.is(h, metal3.StateProvisioned)
	f.poll(func() string { return "a session is open" }, func() bool { return m.bmc.OpenSessions() == 0 })
	require.NotEmpty(t, m.sent("POST", "/Sessions"))
}
