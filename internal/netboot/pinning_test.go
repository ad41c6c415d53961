package netboot

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// waiting are attempts of which the present one is the one to come, as it is
// after the control plane opened it.
type waiting struct {
	*fakeAttempts
	number int64
}

func (w *waiting) Coming(*boot.Plan) (boot.Attempt, error) {
	return boot.Attempt{Number: w.number}, nil
}

func TestWhoOnlySaysAUUIDIsPinnedToNoPort(t *testing.T) {
	w := newWorld(t)
	v := w.answer(discover(macB, httpX64, 16, via(relay, "port 8")), relayed())
	require.Equal(t, baseURL+"/httpboot", file(v), "found by its UUID, and not proven")
	require.Zero(t, v.seen[0].Port, "anyone at any port can say a UUID")
}

func TestAMachineBehindARelayIsNotBelievedOnTheSegment(t *testing.T) {
	w := newWorld(t)
	first := w.answer(discover(macA, httpX64, 16, via(relay, "port 7")), relayed())
	w.attempts.current[httpPlan().Object.UID] = boot.Attempt{Port: first.seen[0].Port}
	v := w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
	require.Equal(t, refusedPort, v.refusal)
	require.Nil(t, v.reply)
	require.Equal(t, boot.StagePortChanged, v.seen[0].Stage)
	require.NotEmpty(t, v.seen[0].Detail)
}

// The control plane opens the attempt that was to come: that makes the port void,
// and the number of the attempt does not tell.
func TestAPortIsToldUntilItIsRecorded(t *testing.T) {
	var attempts *waiting
	w := newWorld(t, func(o *Options) {
		fake, ok := o.Attempts.(*fakeAttempts)
		require.True(t, ok)
		attempts = &waiting{fakeAttempts: fake, number: 2}
		o.Attempts = attempts
	})
	uid := httpPlan().Object.UID
	tell := func() {
		w.account(w.answer(discover(macA, httpX64, 16, via(relay, "port 7")), relayed()))
	}
	tell()
	require.Len(t, w.attempts.observed, 1)
	port := w.attempts.observed[0].Port
	require.NotZero(t, port)
	w.attempts.current[uid] = boot.Attempt{Number: 1, Port: port}
	tell()
	tell()
	require.LessOrEqual(t, len(w.attempts.observed), 2, "what is recorded is not told at each DISCOVER")

	before := len(w.attempts.observed)
	w.attempts.current[uid] = boot.Attempt{Number: 2}
	tell()
	require.Len(t, w.attempts.observed, before+1)
	require.Equal(t, port, w.attempts.observed[before].Port)
}

func TestAForeignOfferIsToldAgainOnceAnAttemptWasOpened(t *testing.T) {
	var attempts *waiting
	w := newWorld(t, func(o *Options) {
		fake, ok := o.Attempts.(*fakeAttempts)
		require.True(t, ok)
		attempts = &waiting{fakeAttempts: fake, number: 2}
		o.Attempts = attempts
	})
	tell := func() {
		o, ok := w.foreignOffer(offerOf(option(optBootFile, 'x')), otherServer)
		require.True(t, ok)
		w.observe([]boot.Observation{o})
	}
	w.attempts.current[httpPlan().Object.UID] = boot.Attempt{Number: 1}
	tell()
	tell()
	require.Len(t, w.attempts.observed, 1)
	w.attempts.current[httpPlan().Object.UID] = boot.Attempt{Number: 2}
	tell()
	require.Len(t, w.attempts.observed, 2, "the attempt's opening cleared the condition")
}

// A tenant that knows a machine's UUID must not have a say in another tenant's
// boot of it, nor learn of it.
func TestAPlanOfAnotherNamespaceIsNoSecondPlanOfAMachine(t *testing.T) {
	macOnly := change(httpPlan(), func(p *boot.Plan) { p.Machine.UUID = "" })
	stranger := change(ipxePlan(), func(p *boot.Plan) {
		p.Object.Namespace, p.Machine.MACs = "other", nil
	})
	w := newWorld(t)
	w.source.plans = []*boot.Plan{macOnly, stranger}
	v := w.answer(discover(macA, pxeX64, 7), attachedArrival(macA))
	require.Equal(t, refusedIdentity, v.refusal)
	require.Empty(t, v.seen)

	stranger.Object.Namespace = macOnly.Object.Namespace
	require.NotNil(t, w.answer(discover(macA, pxeX64, 7), attachedArrival(macA)).reply, "the control")
}
