package observe

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestPlaceMakesReplicasAgree(t *testing.T) {
	told := func(n int64, at time.Time, uki time.Time) boot.Attempt {
		return boot.Attempt{Number: n, OpenedAt: at, UKIServedAt: uki}
	}
	fetched := func(n int64, at, secret time.Time) boot.Attempt {
		return boot.Attempt{Number: n, OpenedAt: at, SecretServedAt: secret, SecretAddr: addrA}
	}
	hour := after(time.Hour)
	tests := map[string]struct {
		told   boot.Attempt
		policy boot.Policy
		number int64
		opens  bool
	}{
		"the object is behind":                 {told(2, t0, t0), boot.Always, 3, true},
		"another replica opened it too":        {told(3, hour.Add(-2*time.Second), time.Time{}), boot.Always, 3, false},
		"and was done before we wrote":         {told(3, hour.Add(-2*time.Second), hour.Add(-time.Second)), boot.Always, 3, false},
		"another opened it a little later":     {told(3, hour.Add(2*time.Second), hour.Add(3*time.Second)), boot.Always, 3, false},
		"the plane opened one that waits":      {told(3, hour.Add(-5*time.Minute), time.Time{}), boot.Always, 3, false},
		"the plane's is in use already":        {fetched(3, hour.Add(-90*time.Second), hour.Add(-time.Minute)), boot.Always, 4, true},
		"a later one waits":                    {told(5, hour.Add(-5*time.Minute), time.Time{}), boot.Always, 5, false},
		"theirs was another boot, before":      {told(3, t0, after(time.Minute)), boot.Always, 4, true},
		"theirs timed out before":              {told(3, t0, time.Time{}), boot.Always, 4, true},
		"ours was another boot, before":        {told(3, hour.Add(time.Hour), time.Time{}), boot.Always, 2, false},
		"ours was before several of theirs":    {told(7, hour.Add(time.Hour), time.Time{}), boot.Always, 6, false},
		"the spec says Once by now":            {told(2, t0, t0), boot.Once, 1, false},
		"the spec says Once, and has no other": {told(0, t0, t0), boot.Once, 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			number, opens := place(opening{Number: 3, Time: *micro(hour)}, tt.told, tt.policy)
			require.Equal(t, tt.number, number)
			require.Equal(t, tt.opens, opens)
		})
	}
}

// An outage: both replicas boot the machine as attempt 3, an hour apart.
func TestBootsOfTwoReplicasInAnOutageAreTwoAttempts(t *testing.T) {
	told := boot.Attempt{Number: 2, OpenedAt: t0, UKIServedAt: t0}
	boots := func(at time.Time) *entry {
		e := &entry{}
		e.learn(told, boot.Always)
		require.EqualValues(t, 3, e.open(addrA, boot.Address, at).Number)
		e.add(saw(3, boot.StageUKI, true, at.Add(time.Second)))
		return e
	}
	a, b := boots(after(time.Hour)), boots(after(2*time.Hour))
	for name, order := range map[string][]*entry{"in order": {a, b}, "the later one first": {b, a}} {
		t.Run(name, func(t *testing.T) {
			s := stateOf(config(opened(2, t0, causeBootDelivery)))
			for _, e := range order {
				e := &entry{ref: e.ref, known: e.known, pending: e.pending.clone()}
				e.learn(s.attempt(), boot.Always)
				s.apply(&e.pending, after(3*time.Hour))
			}
			st := findStage(s.boot().Stages, "UKI")
			require.Equal(t, s.boot().Attempt, st.Attempt)
			require.Equal(t, after(2*time.Hour), s.boot().OpenedTime.UTC(), "the later boot is the present attempt")
			require.Equal(t, after(2*time.Hour+time.Second), st.CompletedTime.UTC())
		})
	}
}

func TestADeliveryThatBeganBeforeItsAttemptWasRenumbered(t *testing.T) {
	e := &entry{}
	e.learn(boot.Attempt{Number: 2, OpenedAt: t0, UKIServedAt: t0}, boot.Always)
	e.open(addrA, boot.Address, after(time.Hour))
	// Another replica's boot 30 minutes ago was attempt 3.
	cur := e.learn(boot.Attempt{Number: 3, OpenedAt: after(30 * time.Minute), UKIServedAt: after(31 * time.Minute)}, boot.Always)
	require.EqualValues(t, 4, cur.Number)
	e.add(saw(3, boot.StageUKI, true, after(time.Hour+time.Second)))
	require.EqualValues(t, 4, findStage(e.pending.Stages, "UKI").Attempt)
	require.Equal(t, after(time.Hour+time.Second), e.known.UKIServedAt.UTC())
}

// This replica booted a machine as attempt 3 in an outage; meanwhile the control
// plane had opened a later attempt under that number.
func TestWhatIsSeenOfTheAttemptThatTookANumberCountsForIt(t *testing.T) {
	e := &entry{}
	e.learn(boot.Attempt{Number: 2, OpenedAt: t0, UKIServedAt: t0}, boot.Always)
	e.open(addrA, boot.Address, after(time.Hour))
	e.add(saw(3, boot.StageUKI, true, after(time.Hour+time.Second)))
	cur := e.learn(boot.Attempt{Number: 3, OpenedAt: after(time.Hour + time.Minute)}, boot.Always)
	require.EqualValues(t, 3, cur.Number)
	require.Zero(t, cur.UKIServedAt, "that was an earlier boot")
	e.add(saw(3, boot.StageIgnition, true, after(time.Hour+2*time.Minute)))
	require.EqualValues(t, 3, findStage(e.pending.Stages, "Ignition").Attempt)
	require.Equal(t, addrA, e.known.SecretAddr, "the attempt is bound to who fetched its secret")
	require.Equal(t, after(time.Hour+2*time.Minute), e.known.SecretServedAt.UTC(), "and closes")
}

func TestWhatHappenedInAnAttemptNeverUnhappens(t *testing.T) {
	known := boot.Attempt{Number: 3, OpenedAt: t0, Spent: true, Ambiguous: true, UKIServedAt: after(2), SecretServedAt: after(3), SecretAddr: addrA}
	stale := boot.Attempt{Number: 3, OpenedAt: t0}
	require.Equal(t, known, newer(stale, known))
	require.Equal(t, known, newer(known, stale))
	require.Equal(t, known, newer(boot.Attempt{Number: 2, OpenedAt: after(-time.Hour)}, known))
	later := boot.Attempt{Number: 4, OpenedAt: after(time.Hour)}
	require.Equal(t, later, newer(later, known))
	unopened := boot.Attempt{Number: 9, Spent: true}
	require.Equal(t, stale, newer(stale, unopened), "an attempt that was never seen opened does not shadow one that was")
}

func TestTheFirstAddressKeepsTheSecret(t *testing.T) {
	e := &entry{known: boot.Attempt{Number: 1, OpenedAt: t0}}
	e.add(saw(1, boot.StageIgnition, true, after(2*time.Second)))
	e.add(from(addrB, saw(1, boot.StageIgnition, true, after(3*time.Second))))
	require.Equal(t, addrA, e.known.SecretAddr)
	require.ErrorIs(t, e.known.Admit(addrB, after(4*time.Second)), boot.ErrContested)
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	s.apply(&e.pending, t0)
	require.Equal(t, "10.0.0.5", s.boot().SecretAddress)
}

func TestRepeatedObservationsAreNotNews(t *testing.T) {
	e := &entry{known: boot.Attempt{Number: 1, OpenedAt: t0}}
	for i, o := range []boot.Observation{
		saw(1, boot.StageUKI, false, t0), saw(1, boot.StageUKI, true, t0), saw(1, boot.StageIgnition, true, t0),
		saw(1, boot.StageContested, false, t0), saw(1, boot.StageAmbiguous, false, t0), saw(1, boot.StageIPXEScript, true, t0),
	} {
		require.True(t, e.add(o), "observation %d", i)
		o.Time = o.Time.Add(time.Minute)
		require.False(t, e.add(o), "observation %d again", i)
	}
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	s.apply(&e.pending, t0)
	require.True(t, e.settle(s, e.version))
	require.False(t, e.add(saw(1, boot.StageUKI, true, after(time.Minute))), "nor after they were written")
	require.False(t, e.add(saw(1, boot.StageContested, true, after(time.Minute))))
	require.True(t, e.pending.empty())
	require.False(t, e.add(saw(1, "Unheard", true, t0)))
}

func TestAnEntryRestoredFromTheJournalKnowsTheSame(t *testing.T) {
	e := &entry{ref: saw(1, "", false, t0).Object}
	e.learn(boot.Attempt{Number: 6, OpenedAt: t0, UKIServedAt: t0}, boot.Always)
	e.open(addrA, boot.Address, after(time.Minute))
	e.add(saw(7, boot.StageUKI, true, after(2*time.Minute)))
	e.add(saw(7, boot.StageIgnition, true, after(3*time.Minute)))
	e.add(saw(7, boot.StageAmbiguous, false, after(3*time.Minute)))
	got := restore(e.ref, e.pending)
	require.Equal(t, e.known, got.known)
}
