package observe

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// seen applies observations as one replica would.
func seen(s *state, now time.Time, observations ...boot.Observation) {
	e := &entry{known: s.attempt()}
	for _, o := range observations {
		e.add(o)
	}
	s.apply(&e.pending, now)
}

func TestABootIsToldByConditions(t *testing.T) {
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	require.Empty(t, s.conditions(), "nothing is said of what was not tried")

	seen(s, t0, saw(1, boot.StageUKI, false, after(time.Second)))
	c := condition(t, s.cfg, v1alpha1.ConditionUKIFetched)
	require.Equal(t, v1alpha1.ReasonUKIDeliveryIncomplete, c.Reason)
	require.Equal(t, metav1.ConditionFalse, c.Status)

	seen(s, after(time.Minute), saw(1, boot.StageUKI, true, after(2*time.Second)), saw(1, boot.StageIgnition, true, after(3*time.Second)))
	c = condition(t, s.cfg, v1alpha1.ConditionUKIFetched)
	require.Equal(t, v1alpha1.ReasonUKIDelivered, c.Reason)
	require.Equal(t, metav1.ConditionTrue, c.Status)
	require.Equal(t, after(time.Minute), c.LastTransitionTime.UTC())
	require.Contains(t, c.Message, "10.0.0.5")
	require.Equal(t, v1alpha1.ReasonIgnitionDataDelivered, condition(t, s.cfg, v1alpha1.ConditionIgnitionDataFetched).Reason)
	b := s.boot()
	require.Equal(t, "10.0.0.5", b.SecretAddress)
	require.Equal(t, "10.0.0.5", b.LastClientAddress)
	require.Equal(t, "Address", b.Proof)
	a := s.attempt()
	require.Equal(t, after(2*time.Second), a.BootServedAt.UTC())
	require.Equal(t, after(3*time.Second), a.SecretServedAt.UTC())
}

func TestUserDataIsASecretLikeAnyOther(t *testing.T) {
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	seen(s, t0, saw(1, boot.StageCloudInit, false, after(time.Second)))
	c := condition(t, s.cfg, v1alpha1.ConditionCloudInitFetched)
	require.Equal(t, metav1.ConditionFalse, c.Status)
	require.Equal(t, v1alpha1.ReasonCloudInitIncomplete, c.Reason)
	require.Empty(t, s.boot().SecretAddress)
	seen(s, t0, saw(1, boot.StageCloudInit, true, after(2*time.Second)))
	c = condition(t, s.cfg, v1alpha1.ConditionCloudInitFetched)
	require.Equal(t, metav1.ConditionTrue, c.Status)
	require.Equal(t, v1alpha1.ReasonCloudInitDelivered, c.Reason)
	require.Equal(t, "10.0.0.5", s.boot().SecretAddress)
	require.ErrorIs(t, s.attempt().Admit(addrB, after(time.Minute)), boot.ErrContested)
	require.Equal(t, after(2*time.Second), s.attempt().SecretServedAt.UTC())
}

func TestTheAttemptBelongsToWhoFetchedItsFirstSecret(t *testing.T) {
	for name, later := range map[string]boot.Stage{"Ignition first": boot.StageCloudInit, "user data first": boot.StageIgnition} {
		t.Run(name, func(t *testing.T) {
			first := boot.StageIgnition
			if later == first {
				first = boot.StageCloudInit
			}
			s := stateOf(config(opened(1, t0, causeSpecChanged)))
			seen(s, t0, from(addrB, saw(1, later, true, after(time.Minute))))
			require.Equal(t, "10.0.0.6", s.boot().SecretAddress)
			seen(s, t0, saw(1, first, true, after(time.Second)))
			require.Equal(t, "10.0.0.5", s.boot().SecretAddress, "also where its report comes late")
			require.Equal(t, after(time.Second), s.attempt().SecretServedAt.UTC())

			e := &entry{known: boot.Attempt{Number: 1, OpenedAt: t0}}
			e.add(saw(1, first, true, after(time.Second)))
			e.add(from(addrB, saw(1, later, true, after(time.Minute))))
			require.Equal(t, addrA, e.known.SecretAddr)
		})
	}
}

func TestAStageSaysHowTheMachineWasKnown(t *testing.T) {
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	o := saw(1, boot.StageUKI, true, t0)
	o.Proof = boot.Relay
	seen(s, t0, o)
	require.Equal(t, "Relay", findStage(s.boot().Stages, "UKI").Proof)
	require.Equal(t, boot.Relay, s.attempt().BootProof)
	require.Equal(t, addrA, s.attempt().BootAddr)
	s.open(2, after(time.Hour), after(time.Hour), causeBootDelivery)
	require.False(t, s.attempt().BootAddr.IsValid(), "of the next attempt nobody has it")
}

func TestApplyingAReportAgainChangesNothing(t *testing.T) {
	e := &entry{known: boot.Attempt{Number: 1, OpenedAt: t0}}
	e.add(saw(1, boot.StageUKI, true, after(time.Second)))
	e.add(saw(1, boot.StageAmbiguous, false, after(time.Second)))
	e.add(at(portA, offer(1, macA, uefi, after(time.Second))))
	e.add(foreign(1, after(time.Second)))
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	s.apply(&e.pending, after(time.Minute))
	again := stateOf(s.cfg)
	again.apply(&e.pending, after(time.Hour))
	require.True(t, again.same(s))
}

func TestANewAttemptStartsOver(t *testing.T) {
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	seen(s, t0, saw(1, boot.StageUKI, true, t0), saw(1, boot.StageIgnition, true, t0), saw(1, boot.StageAmbiguous, false, t0))
	require.True(t, s.attempt().Ambiguous)
	require.True(t, s.attempt().SecretAddr.IsValid())

	s.open(2, after(time.Hour), after(time.Hour), causeRequested)
	a := s.attempt()
	require.Equal(t, boot.Attempt{Number: 2, OpenedAt: a.OpenedAt}, a, "nothing of attempt 1 counts for attempt 2")
	require.Equal(t, after(time.Hour), a.OpenedAt.UTC())
	require.Equal(t, v1alpha1.ReasonNewAttempt, condition(t, s.cfg, v1alpha1.ConditionUKIFetched).Reason)
	require.Equal(t, metav1.ConditionFalse, condition(t, s.cfg, v1alpha1.ConditionIgnitionDataFetched).Status)
	require.Equal(t, v1alpha1.ReasonOneMachine, condition(t, s.cfg, v1alpha1.ConditionClientAddressAmbiguous).Reason)
	require.EqualValues(t, 1, findStage(s.boot().Stages, "UKI").Attempt, "what was seen last stays readable")
}

func TestALateReportOfAnOlderAttempt(t *testing.T) {
	s := stateOf(config(opened(2, t0, causeRequested)))
	seen(s, t0, saw(2, boot.StageUKI, true, after(time.Second)))
	seen(s, t0, saw(1, boot.StageUKI, true, t0), saw(1, boot.StageIgnition, true, t0), saw(1, boot.StageAmbiguous, false, t0))
	require.EqualValues(t, 2, findStage(s.boot().Stages, "UKI").Attempt, "does not overwrite a newer stage")
	require.Equal(t, metav1.ConditionTrue, condition(t, s.cfg, v1alpha1.ConditionUKIFetched).Status)
	require.EqualValues(t, 1, findStage(s.boot().Stages, "Ignition").Attempt, "is kept where there is no newer one")
	require.Equal(t, v1alpha1.ReasonNewAttempt, condition(t, s.cfg, v1alpha1.ConditionIgnitionDataFetched).Reason)
	require.False(t, s.attempt().SecretAddr.IsValid(), "and does not close the present attempt")
	require.False(t, s.attempt().Ambiguous)
}

func TestTheLastClientIsTheLatest(t *testing.T) {
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	seen(s, t0, saw(1, boot.StageUKI, false, after(time.Minute)))
	seen(s, t0, from(addrB, saw(1, boot.StageIgnition, false, after(time.Second))))
	require.Equal(t, "10.0.0.5", s.boot().LastClientAddress)
	seen(s, t0, from(addrB, saw(1, boot.StageIgnition, true, after(2*time.Minute))))
	require.Equal(t, "10.0.0.6", s.boot().LastClientAddress)
}

func TestWhatThePlaneAsksForIsOpenedOnce(t *testing.T) {
	request := func(v string) func(*v1alpha1.HTTPBootConfig) {
		return func(c *v1alpha1.HTTPBootConfig) {
			c.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: v}
		}
	}
	requested := func(v string) func(*v1alpha1.HTTPBootConfig) {
		return func(c *v1alpha1.HTTPBootConfig) { c.Status.Boot.Request = v }
	}
	long := strings.Repeat("x", 1000)
	tests := map[string]struct {
		cfg  *v1alpha1.HTTPBootConfig
		want int64
		by   string
	}{
		"a new object":             {config(), 1, causeSpecChanged},
		"new, with an annotation":  {config(request("a")), 1, causeSpecChanged},
		"nothing asked":            {config(opened(3, t0, causeBootDelivery)), 3, causeBootDelivery},
		"spec changed":             {config(opened(3, t0, causeBootDelivery), func(c *v1alpha1.HTTPBootConfig) { c.Generation = 2 }), 4, causeSpecChanged},
		"requested":                {config(opened(3, t0, causeBootDelivery), request("a")), 4, causeRequested},
		"requested with much text": {config(opened(3, t0, causeBootDelivery), request(long)), 4, causeRequested},
		"requested before":         {config(opened(3, t0, causeRequested), request("a"), requested("a")), 3, causeRequested},
		"annotation removed":       {config(opened(3, t0, causeRequested), requested("a")), 3, causeRequested},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := stateOf(tt.cfg)
			s.openForSpec(t0)
			require.Equal(t, tt.want, s.boot().Attempt)
			require.Equal(t, tt.by, s.boot().OpenedBy)
			require.LessOrEqual(t, len(s.boot().Request), maxRequest)
			require.False(t, asksForAttempt(s.cfg))
			again := stateOf(s.cfg)
			again.openForSpec(after(time.Hour))
			require.True(t, again.same(s))
		})
	}
}

func TestRequestingTheSameAgainAfterRemovalOpens(t *testing.T) {
	cfg := config(opened(3, t0, causeRequested), func(c *v1alpha1.HTTPBootConfig) { c.Status.Boot.Request = "a" })
	require.True(t, asksForAttempt(cfg), "the removal is noted")
	s := stateOf(cfg)
	s.openForSpec(t0)
	s.cfg.SetAnnotations(map[string]string{v1alpha1.RequestBootAnnotation: "a"})
	s.openForSpec(t0)
	require.EqualValues(t, 4, s.boot().Attempt)
}

func TestCommitIsGivenOncePerAttempt(t *testing.T) {
	served := func(attempt int64, delivery string) func(*v1alpha1.HTTPBootConfig) {
		return func(c *v1alpha1.HTTPBootConfig) {
			c.Status.Boot.Served = &v1alpha1.BootServed{Attempt: attempt, Delivery: delivery, Digest: string(digestA), Time: *micro(t0)}
		}
	}
	secretServed := func(c *v1alpha1.HTTPBootConfig) {
		c.Status.Boot.Stages = []v1alpha1.BootStage{stageOf(saw(c.Status.Boot.Attempt, boot.StageIgnition, true, t0))}
	}
	atRest := func(c *v1alpha1.HTTPBootConfig) { c.Annotations = map[string]string{v1alpha1.PausedAnnotation: "move"} }
	at := func(n int64, opened time.Time) boot.Attempt { return boot.Attempt{Number: n, OpenedAt: opened} }
	tests := map[string]struct {
		cfg     *v1alpha1.HTTPBootConfig
		begun   boot.Attempt
		now     time.Time
		want    error
		attempt int64
	}{
		"unspent":                       {config(once, opened(2, t0, causeSpecChanged)), at(2, t0), after(time.Minute), nil, 2},
		"spent by an earlier attempt":   {config(once, opened(2, t0, causeSpecChanged), served(1, "other")), at(2, t0), after(time.Minute), nil, 2},
		"spent by another":              {config(once, opened(2, t0, causeSpecChanged), served(2, "other")), at(2, t0), after(time.Minute), boot.ErrSpent, 2},
		"spent long ago":                {config(once, opened(2, t0, causeSpecChanged), served(2, "other")), at(2, t0), after(100 * time.Hour), boot.ErrSpent, 2},
		"spent by us, answer lost":      {config(once, opened(2, t0, causeSpecChanged), served(2, "mine")), at(2, t0), after(time.Minute), nil, 2},
		"by us, and another one opened": {config(once, opened(3, t0, causeSpecChanged), served(2, "mine")), at(2, t0), after(time.Minute), nil, 3},
		"no attempt":                    {config(once), at(0, t0), after(time.Minute), boot.ErrNotReady, 0},
		"another was opened meanwhile":  {config(once, opened(3, t0, causeRequested)), at(2, t0), after(time.Minute), boot.ErrClosed, 3},
		"timed out: opens the next":     {config(once, opened(2, t0, causeSpecChanged)), at(3, after(time.Hour)), after(time.Hour), nil, 3},
		"times out during the transfer": {config(once, opened(2, t0, causeSpecChanged)), at(2, t0), after(time.Hour), nil, 3},
		"timed out, and spec changed":   {config(once, opened(3, after(time.Hour), causeSpecChanged)), at(3, after(59*time.Minute)), after(time.Hour), boot.ErrClosed, 3},
		"timed out, and requested":      {config(once, opened(3, after(time.Hour), causeRequested)), at(3, after(59*time.Minute)), after(time.Hour), nil, 3},
		"timed out, and another did":    {config(once, opened(3, after(time.Hour), causeBootDelivery), served(3, "other")), at(3, after(time.Hour)), after(time.Hour), boot.ErrSpent, 3},
		"paused, it may be moving":      {config(once, opened(2, t0, causeSpecChanged), atRest), at(2, t0), after(time.Minute), boot.ErrClosed, 2},
		"secret fetched: not re-armed":  {config(once, opened(2, t0, causeSpecChanged), secretServed), at(2, t0), after(time.Hour), nil, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := stateOf(tt.cfg)
			before := stateOf(tt.cfg)
			err := s.commit(commitment{attempt: tt.begun, digest: digestA, addr: addrA, delivery: "mine"}, tt.now)
			require.Equal(t, tt.attempt, s.boot().Attempt)
			if tt.want != nil {
				require.ErrorIs(t, err, tt.want)
				require.True(t, s.same(before), "a refusal changes nothing")
				return
			}
			require.NoError(t, err)
			require.Equal(t, "mine", s.boot().Served.Delivery)
			if before.boot().Served != nil && before.boot().Served.Delivery == "mine" {
				require.True(t, s.same(before), "a lost answer writes nothing again")
			} else {
				require.True(t, s.attempt().Spent)
			}
		})
	}
}
