package observe

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const mebi = 1 << 20

// flowing is a delivery that goes on.
func flowing(attempt, sent int64, at time.Time) boot.Observation {
	o := saw(attempt, boot.StageUKI, false, at)
	o.UnderWay, o.Sent, o.Size = true, sent, 100*mebi
	return o
}

func cutAt(attempt, sent int64, at time.Time) boot.Observation {
	o := flowing(attempt, sent, at)
	o.UnderWay = false
	return o
}

func TestAStageUnderWaySaysSoUntilItIsCutOrComplete(t *testing.T) {
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	e := &entry{known: s.attempt()}
	step := func(o boot.Observation) string {
		e.add(o)
		taken, version := e.pending.clone(), e.version
		taken.with(&e.progress)
		s.apply(&taken, o.Time)
		e.settle(s, taken, version)
		c := condition(t, s.cfg, v1alpha1.ConditionUKIFetched)
		if s.attempt().BootServedAt.IsZero() {
			require.Equal(t, v1alpha1.ReasonUKIDeliveryIncomplete, c.Reason)
			require.Equal(t, metav1.ConditionFalse, c.Status)
		}
		return c.Message
	}
	require.Equal(t, "A delivery to 10.0.0.5 is under way (0.0 of 100.0 MiB) in attempt 1.", step(flowing(1, 0, t0)))
	require.Equal(t, "A delivery to 10.0.0.5 is under way (20.0 of 100.0 MiB) in attempt 1.", step(flowing(1, 20*mebi, after(5*time.Second))))
	require.Equal(t, "A delivery to 10.0.0.5 was cut (25.0 of 100.0 MiB) in attempt 1.", step(cutAt(1, 25*mebi, after(6*time.Second))))
	require.Equal(t, "A delivery to 10.0.0.5 is under way (25.0 of 100.0 MiB) in attempt 1.", step(flowing(1, 0, after(7*time.Second))), "it goes on, and had come so far once")

	// A replica that saw nothing of it leaves alone what is said.
	other := &entry{known: s.attempt()}
	other.add(saw(1, boot.StageIgnition, false, after(8*time.Second)))
	s.apply(&other.pending, after(8*time.Second))
	require.Contains(t, condition(t, s.cfg, v1alpha1.ConditionUKIFetched).Message, "is under way (25.0")

	whole := saw(1, boot.StageUKI, true, after(9*time.Second))
	whole.Sent, whole.Size = 100*mebi, 100*mebi
	require.Equal(t, "Delivered to 10.0.0.5 in attempt 1.", step(whole))
	require.EqualValues(t, 100*mebi, findStage(s.boot().Stages, "UKI").Sent)
	require.Equal(t, "Delivered to 10.0.0.5 in attempt 1.", step(cutAt(1, 3, after(10*time.Second))), "what came later takes nothing away")
}

func TestProgressIsNoNewsAndIsNotJournaled(t *testing.T) {
	e := &entry{known: boot.Attempt{Number: 1, OpenedAt: t0}}
	require.True(t, e.add(flowing(1, 0, t0)), "that it began is")
	version := e.version
	before, err := json.Marshal(e.pending)
	require.NoError(t, err)
	for n := int64(1); n < 50; n++ {
		require.False(t, e.add(flowing(1, n*mebi, after(time.Duration(n)*time.Second))))
	}
	after1, err := json.Marshal(e.pending)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after1))
	require.Equal(t, version, e.version)
	require.Len(t, e.progress.Stages, 1)
	require.True(t, e.add(cutAt(1, 60*mebi, after(time.Minute))), "that it was cut is")
	require.False(t, e.add(cutAt(1, 60*mebi, after(2*time.Minute))), "once")
	require.True(t, e.add(flowing(1, 60*mebi, after(3*time.Minute))), "and that it goes on")
}

func TestProgressMovesWithItsAttempt(t *testing.T) {
	e := &entry{}
	e.learn(boot.Attempt{Number: 2, OpenedAt: t0, BootServedAt: t0}, boot.Always)
	e.open(boot.Client{Addr: addrA, Proof: boot.Address}, after(time.Hour))
	e.add(flowing(3, 0, after(time.Hour)))
	e.add(flowing(3, 5*mebi, after(time.Hour+5*time.Second)))
	e.learn(boot.Attempt{Number: 3, OpenedAt: t0, BootServedAt: after(time.Minute)}, boot.Always)
	taken := e.pending.clone()
	taken.with(&e.progress)
	require.EqualValues(t, 4, taken.Stages[0].Attempt)
	require.EqualValues(t, 5*mebi, taken.Stages[0].Sent)
}

func TestProgressIsWrittenNowAndThen(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	o.Observe(flowing(1, 0, w.clock.Now()))
	w.eventuallyWritten(o)
	written := w.faults.applies.Load()
	o.Observe(flowing(1, 10*mebi, w.clock.Now()))
	o.Observe(flowing(1, 11*mebi, w.clock.Now()))
	require.Zero(t, o.journal.pending())
	time.Sleep(50 * time.Millisecond) // nothing may come of it before its time
	require.Equal(t, written, w.faults.applies.Load(), "not before five seconds are over")
	o.mu.Lock()
	require.True(t, o.entries[uidA].progress.queued)
	o.entries[uidA].progress.queued = false // as if they were
	o.mu.Unlock()
	w.clock.SetTime(w.clock.Now().Add(progressEvery))
	o.Observe(flowing(1, 12*mebi, w.clock.Now()))
	sent := func() int64 { return findStage(w.live().Status.Boot.Stages, "UKI").Sent }
	eventually(t, "the newest is written", func() bool { return sent() == 12*mebi })
	require.Equal(t, written+1, w.faults.applies.Load())
	o.Observe(flowing(1, 13*mebi, w.clock.Now()))
	o.Observe(saw(1, boot.StageIgnition, false, w.clock.Now()))
	eventually(t, "what counts takes it along", func() bool { return sent() == 13*mebi })
}

func TestProgressWaitsForNobodyAndNobodyForIt(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o := w.idle(t.TempDir())
	o.Observe(flowing(1, 0, w.clock.Now()))
	o.flush(t.Context(), uidA)
	applies := w.faults.applies.Load()
	more := func(sent int64) {
		o.Observe(flowing(1, sent, w.clock.Now()))
		o.flush(t.Context(), uidA)
	}
	for n := range progressQueue + 1 {
		o.queue.Add("other" + string(rune('a'+n)))
	}
	more(5 * mebi)
	require.Equal(t, applies, w.faults.applies.Load(), "others wait in the queue")
	for range progressQueue + 1 {
		uid, _ := o.queue.Get()
		o.queue.Done(uid)
	}
	for o.limiter.Allow() { // use up what may be written now
	}
	more(6 * mebi)
	require.Equal(t, applies, w.faults.applies.Load(), "others were written as fast as may be")
	o.limiter.SetBurst(1000)
	o.limiter.SetLimit(1e6)
	w.faults.away.Store(true)
	more(7 * mebi)
	require.Zero(t, o.queue.NumRequeues(uidA), "it is not tried again")
	w.faults.away.Store(false)
	more(8 * mebi)
	require.Equal(t, applies+1, w.faults.applies.Load(), "the control: else it is written")
	require.EqualValues(t, 8*mebi, findStage(w.live().Status.Boot.Stages, "UKI").Sent)
	require.NoError(t, o.Commit(context.Background(), planOf(w.live()), o.Current(planOf(w.live())), digestA, addrA, "d"), "and a commit asks nobody")
}
