package observe

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// aborting has the annotation that aborts an attempt.
func aborting(value string) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[v1alpha1.AbortBootAnnotation] = value
	}
}

// abort sets the annotation on the object, and has the observer see it.
func (w *world) abort(o *Observer, value string) {
	w.t.Helper()
	c := w.live()
	aborting(value)(c)
	require.NoError(w.t, w.client.Update(context.Background(), c))
	require.NoError(w.t, o.Open(context.Background(), w.live()))
}

func TestOnlyThePresentAttemptCanBeAborted(t *testing.T) {
	cases := map[string]bool{"2": false, "4": false, "": false, "0": false, "-3": false, "three": false, "3.0": false, "99999999999999999999": false}
	right := map[string]bool{"3": true, "\t3\n": true}
	maps.Copy(cases, right)
	for value, aborted := range cases {
		t.Run(value, func(t *testing.T) {
			s := stateOf(config(opened(3, t0, causeSpecChanged), aborting(value)))
			require.Equal(t, aborted, asksForAttempt(s.cfg))
			before := stateOf(s.cfg)
			s.abortIfAsked(after(time.Minute))
			require.Equal(t, aborted, s.attempt().Aborted)
			require.Equal(t, aborted, !s.same(before))
			require.False(t, asksForAttempt(s.cfg), "it is done once")
		})
	}
	require.False(t, asksToAbort(config(aborting("0"))), "there never was an attempt")
}

func TestNothingBootsInAnAttemptThatWasAborted(t *testing.T) {
	for name, policy := range map[string]func(*v1alpha1.HTTPBootConfig){"Once": once, "Always": func(*v1alpha1.HTTPBootConfig) {}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, config(opened(3, t0, causeSpecChanged), policy))
			o, _ := w.replica(t.TempDir())
			before := planOf(w.live())
			_, err := o.Begin(before, boot.Client{Addr: addrA, Proof: boot.Address, Attempt: 3})
			require.NoError(t, err)
			running := o.Current(before)
			w.abort(o, "3")
			w.abort(o, "3")
			live := w.live()
			require.EqualValues(t, 3, live.Status.Boot.Aborted)
			c := condition(t, live, v1alpha1.ConditionUKIFetched)
			require.Equal(t, metav1.ConditionFalse, c.Status)
			require.Equal(t, v1alpha1.ReasonBootAborted, c.Reason)
			require.Contains(t, c.Message, "Boot attempt 3 was aborted")
			require.Equal(t, []string{v1alpha1.ReasonBootAborted}, w.events.all(), "once")

			for from, p := range map[string]*boot.Plan{"the object": planOf(live), "a cache that is behind": before} {
				a := o.Current(p)
				require.True(t, a.Aborted, from)
				require.False(t, a.Open(w.clock.Now()), from)
				require.ErrorIs(t, a.Admit(addrA, w.clock.Now()), boot.ErrClosed, from)
				_, err := o.Coming(p)
				require.ErrorIs(t, err, boot.ErrClosed, from)
				_, err = o.Begin(p, boot.Client{Addr: addrA, Proof: boot.BMC, Attempt: 3})
				require.ErrorIs(t, err, boot.ErrClosed, "whoever has a token, by %s", from)
				_, _, err = o.ComingOf(live)
				require.ErrorIs(t, err, boot.ErrClosed, from)
			}
			require.ErrorIs(t, o.Commit(t.Context(), before, running, digestA, addrA, "d"), boot.ErrClosed)
			w.clock.SetTime(w.clock.Now().Add(time.Hour))
			_, err = o.Begin(planOf(live), boot.Client{Addr: addrA, Proof: boot.Address})
			require.ErrorIs(t, err, boot.ErrClosed, "time opens nothing either")

			live = w.live()
			live.Annotations[v1alpha1.RequestBootAnnotation] = "again"
			require.NoError(t, w.client.Update(t.Context(), live))
			require.NoError(t, o.Open(t.Context(), w.live()))
			live = w.live()
			require.EqualValues(t, 4, live.Status.Boot.Attempt)
			require.Zero(t, live.Status.Boot.Aborted)
			a, err := o.Begin(planOf(live), boot.Client{Addr: addrA, Proof: boot.Address})
			require.NoError(t, err)
			require.EqualValues(t, 4, a.Number)
			require.Equal(t, 1.0, count(t, o.metrics.boots.WithLabelValues("aborted")))
			require.Zero(t, count(t, o.metrics.boots.WithLabelValues("incomplete")), "a boot ends once")
		})
	}
}

func TestARequestThatCameBeforeTheAbortIsNotAborted(t *testing.T) {
	s := stateOf(config(opened(3, t0, causeSpecChanged), aborting("3")))
	s.cfg.(*v1alpha1.HTTPBootConfig).Annotations[v1alpha1.RequestBootAnnotation] = "again"
	s.openForSpec(t0)
	s.abortIfAsked(t0)
	require.EqualValues(t, 4, s.boot().Attempt)
	require.False(t, s.attempt().Aborted)
}

// A replica that did not know of it boots the machine, which opens the next attempt.
func TestABootDoesNotOpenAnAttemptAfterOneThatWasAborted(t *testing.T) {
	for name, told := range map[string]boot.Attempt{
		"the one before": {Number: 3, OpenedAt: t0, BootServedAt: t0, Aborted: true},
		"the same":       {Number: 4, OpenedAt: after(time.Minute), Aborted: true},
		"a later one":    {Number: 6, OpenedAt: after(time.Minute), Aborted: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := &entry{}
			e.learn(boot.Attempt{Number: 3, OpenedAt: t0, BootServedAt: t0}, boot.Always)
			require.EqualValues(t, 4, e.open(boot.Client{Addr: addrA, Proof: boot.Address}, after(time.Hour)).Number)
			e.add(saw(4, boot.StageUKI, true, after(time.Hour)))
			a := e.learn(told, boot.Always)
			require.Nil(t, e.pending.Opening)
			require.Equal(t, told.Number, a.Number)
			require.True(t, a.Aborted)
		})
	}
	number, opens := place(opening{Number: 4, Time: *micro(t0)}, boot.Attempt{Number: 6, OpenedAt: after(time.Hour), Aborted: true}, boot.Always)
	require.EqualValues(t, 5, number, "what was before belongs to what was before")
	require.False(t, opens)
}

func TestWhatWasDeliveredBeforeTheAbortStaysSo(t *testing.T) {
	s := stateOf(config(opened(3, t0, causeSpecChanged), aborting("3")))
	seen(s, t0, saw(3, boot.StageUKI, true, after(time.Second)), saw(3, boot.StageIgnition, false, after(2*time.Second)))
	s.abortIfAsked(after(time.Minute))
	require.Equal(t, metav1.ConditionTrue, condition(t, s.cfg, v1alpha1.ConditionUKIFetched).Status)
	require.Equal(t, v1alpha1.ReasonBootAborted, condition(t, s.cfg, v1alpha1.ConditionIgnitionDataFetched).Reason)
	s.open(4, after(time.Hour), after(time.Hour), causeRequested)
	require.Equal(t, v1alpha1.ReasonNewAttempt, condition(t, s.cfg, v1alpha1.ConditionIgnitionDataFetched).Reason)
}
