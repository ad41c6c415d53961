package observe

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestPlaceMakesReplicasAgree(t *testing.T) {
	told := func(n int64, at time.Time, uki time.Time) boot.Attempt {
		return boot.Attempt{Number: n, OpenedAt: at, BootServedAt: uki}
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
	told := boot.Attempt{Number: 2, OpenedAt: t0, BootServedAt: t0}
	boots := func(at time.Time) *entry {
		e := &entry{}
		e.learn(told, boot.Always)
		require.EqualValues(t, 3, e.open(boot.Client{Addr: addrA, Proof: boot.Address}, at).Number)
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
	e.learn(boot.Attempt{Number: 2, OpenedAt: t0, BootServedAt: t0}, boot.Always)
	e.open(boot.Client{Addr: addrA, Proof: boot.Address}, after(time.Hour))
	// Another replica's boot 30 minutes ago was attempt 3.
	cur := e.learn(boot.Attempt{Number: 3, OpenedAt: after(30 * time.Minute), BootServedAt: after(31 * time.Minute)}, boot.Always)
	require.EqualValues(t, 4, cur.Number)
	e.add(saw(3, boot.StageUKI, true, after(time.Hour+time.Second)))
	require.EqualValues(t, 4, findStage(e.pending.Stages, "UKI").Attempt)
	require.Equal(t, after(time.Hour+time.Second), e.known.BootServedAt.UTC())
}

// This replica booted a machine as attempt 3 in an outage; meanwhile the control
// plane had opened a later attempt under that number.
func TestWhatIsSeenOfTheAttemptThatTookANumberCountsForIt(t *testing.T) {
	e := &entry{}
	e.learn(boot.Attempt{Number: 2, OpenedAt: t0, BootServedAt: t0}, boot.Always)
	e.open(boot.Client{Addr: addrA, Proof: boot.Address}, after(time.Hour))
	e.add(saw(3, boot.StageUKI, true, after(time.Hour+time.Second)))
	cur := e.learn(boot.Attempt{Number: 3, OpenedAt: after(time.Hour + time.Minute)}, boot.Always)
	require.EqualValues(t, 3, cur.Number)
	require.Zero(t, cur.BootServedAt, "that was an earlier boot")
	e.add(saw(3, boot.StageIgnition, true, after(time.Hour+2*time.Minute)))
	require.EqualValues(t, 3, findStage(e.pending.Stages, "Ignition").Attempt)
	require.Equal(t, addrA, e.known.SecretAddr, "the attempt is bound to who fetched its secret")
	require.Equal(t, after(time.Hour+2*time.Minute), e.known.SecretServedAt.UTC(), "and closes")
}

func TestWhatHappenedInAnAttemptNeverUnhappens(t *testing.T) {
	known := boot.Attempt{Number: 3, OpenedAt: t0, Spent: true, Ambiguous: true, BootServedAt: after(2), SecretServedAt: after(3), SecretAddr: addrA,
		BootAddr: addrA, BootProof: boot.Proxy, Port: portA}
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

func proven(p boot.Proof, o boot.Observation) boot.Observation {
	o.Proof = p
	return o
}

func TestWhoGetsTheBootBytesIsBoundAtOnce(t *testing.T) {
	begin := func() *entry {
		return &entry{ref: refOf(config()), known: boot.Attempt{Number: 2, OpenedAt: t0}}
	}
	e := begin()
	e.add(proven(boot.Claimed, saw(2, boot.StageUKI, false, t0)))
	require.False(t, e.known.BootAddr.IsValid(), "a claim binds nobody")

	e = begin()
	e.add(proven(boot.Proxy, saw(2, boot.StageUKI, false, t0)))
	require.Equal(t, addrA, e.known.BootAddr, "a delivery that was cut is enough")
	require.Equal(t, boot.Proxy, e.known.BootProof)
	e.add(proven(boot.Relay, from(addrB, saw(2, boot.StageUKI, true, after(time.Second)))))
	require.Equal(t, addrB, e.known.BootAddr, "a complete one more than that")
	require.Equal(t, boot.Relay, e.known.BootProof)
	e.add(proven(boot.BMC, saw(2, boot.StageUKI, true, after(time.Minute))))
	require.Equal(t, addrB, e.known.BootAddr, "and who comes after it takes nothing away")

	e = begin()
	e.add(proven(boot.Proxy, saw(2, boot.StageIPXEScript, true, t0)))
	e.add(proven(boot.Proxy, saw(2, boot.StageIgnition, true, t0)))
	e.add(proven(boot.Proxy, saw(1, boot.StageUKI, true, t0)))
	e.add(proven(boot.Proxy, saw(3, boot.StageUKI, true, t0)))
	e.add(proven(boot.Proxy, saw(2, boot.StageUKI, false, t0)))
	require.False(t, e.known.BootAddr.IsValid(), "of this kind and attempt only")
}

func TestReplicasAgreeWhoIsBound(t *testing.T) {
	told := boot.Attempt{Number: 3, OpenedAt: t0, BootAddr: addrA, BootProof: boot.Proxy}
	known := boot.Attempt{Number: 3, OpenedAt: t0, BootAddr: addrB, BootProof: boot.Relay}
	at := func(a boot.Attempt, d time.Duration) boot.Attempt {
		a.BootServedAt = after(d)
		return a
	}
	for name, tt := range map[string]struct {
		told, known boot.Attempt
		want        boot.Attempt
	}{
		"neither is complete":       {told, known, told},
		"ours is complete":          {told, at(known, 5), known},
		"theirs is complete":        {at(told, 5), known, told},
		"ours was first":            {at(told, 5), at(known, 4), known},
		"theirs was first":          {at(told, 4), at(known, 5), told},
		"the object says nothing":   {boot.Attempt{Number: 3, OpenedAt: t0}, known, known},
		"nothing was seen here":     {told, boot.Attempt{Number: 3, OpenedAt: t0}, told},
		"the object is further on":  {boot.Attempt{Number: 4, OpenedAt: after(time.Hour)}, at(known, 5), boot.Attempt{}},
		"we have gone further here": {boot.Attempt{Number: 2, OpenedAt: t0, BootAddr: addrA}, known, known},
	} {
		t.Run(name, func(t *testing.T) {
			got := newer(tt.told, tt.known)
			require.Equal(t, tt.want.BootAddr, got.BootAddr)
			require.Equal(t, tt.want.BootProof, got.BootProof)
		})
	}
}

// Whatever was seen in whatever order: the object tells of the client that this
// replica has bound, or those who find the machine by its address would not
// agree with those who admit it.
func TestTheObjectTellsWhoIsBoundHere(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		s := stateOf(config(opened(2, t0, causeSpecChanged)))
		e := &entry{ref: refOf(s.cfg)}
		e.learn(s.attempt(), boot.Always)
		for n := range 6 {
			o := saw(1+random.Int64N(2), boot.StageUKI, random.IntN(2) == 0, after(time.Duration(n+random.IntN(2))*time.Second))
			o.Proof = []boot.Proof{boot.Address, boot.Proxy, boot.Relay}[random.IntN(3)]
			o.Addr = netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(4))})
			e.add(o)
			if random.IntN(3) == 0 {
				taken, version := e.pending.clone(), e.version
				s.apply(&taken, after(time.Hour))
				e.settle(s, taken, version)
			}
		}
		before := e.known
		taken, version := e.pending.clone(), e.version
		s.apply(&taken, after(time.Hour))
		require.True(t, e.settle(s, taken, version))
		require.Equal(t, s.attempt().BootAddr, e.known.BootAddr)
		require.Equal(t, s.attempt().BootProof, e.known.BootProof)
		require.Equal(t, before.BootAddr, e.known.BootAddr, "known here before it was written")
		require.Equal(t, before.BootProof, e.known.BootProof)
	}
}

func TestABootUsesUpWhatTheBMCWasTold(t *testing.T) {
	told := boot.Attempt{Number: 2, OpenedAt: t0, Armed: true}
	for name, o := range map[string]boot.Observation{
		"boot bytes": saw(2, boot.StageUKI, true, after(time.Second)),
		"a secret":   saw(2, boot.StageCloudInit, true, after(time.Second)),
	} {
		t.Run(name, func(t *testing.T) {
			e := &entry{ref: refOf(config())}
			require.True(t, e.learn(told, boot.Always).Armed)
			e.add(saw(2, boot.StageUKI, false, t0))
			require.True(t, e.learn(told, boot.Always).Armed, "not by a delivery that was cut")
			e.add(o)
			require.False(t, e.known.Armed)
			require.False(t, e.learn(told, boot.Always).Armed, "not even while the cache says otherwise")
			next := told
			next.BootServedAt = after(time.Second)
			require.True(t, e.learn(next, boot.Always).Armed, "the BMC was told of the next attempt since")
			next.Armed = false
			require.False(t, e.learn(next, boot.Always).Armed, "and that is over")
		})
	}
}

func TestAnAttemptThatABootOpensStaysArmedUntilTheObjectTells(t *testing.T) {
	e := &entry{ref: refOf(config())}
	e.learn(boot.Attempt{Number: 2, OpenedAt: t0, BootServedAt: t0, Armed: true, Port: portA}, boot.Always)
	a := e.open(boot.Client{Addr: addrA, Proof: boot.BMC, Attempt: 3}, after(time.Hour))
	require.True(t, a.Armed)
	require.Equal(t, portA, a.Port)
	require.False(t, a.BootAddr.IsValid(), "nobody is bound to it yet")
	require.False(t, e.learn(boot.Attempt{Number: 3, OpenedAt: a.OpenedAt}, boot.Always).Armed)
}

func TestRepeatedObservationsAreNotNews(t *testing.T) {
	e := &entry{known: boot.Attempt{Number: 1, OpenedAt: t0}}
	for i, o := range []boot.Observation{
		saw(1, boot.StageUKI, false, t0), saw(1, boot.StageUKI, true, t0), saw(1, boot.StageIgnition, true, t0),
		saw(1, boot.StageContested, false, t0), saw(1, boot.StageAmbiguous, false, t0), saw(1, boot.StageIPXEScript, true, t0),
		saw(1, boot.StageCloudInit, true, t0), at(portA, offer(1, macA, uefi, t0)), foreign(1, t0),
		saw(1, boot.StageNoProgram, false, t0), saw(1, boot.StagePortChanged, false, t0),
	} {
		require.True(t, e.add(o), "observation %d", i)
		o.Time = o.Time.Add(time.Minute)
		require.False(t, e.add(o), "observation %d again", i)
	}
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	s.apply(&e.pending, t0)
	require.True(t, e.settle(s, e.pending.clone(), e.version))
	require.False(t, e.add(saw(1, boot.StageUKI, true, after(time.Minute))), "nor after they were written")
	require.False(t, e.add(saw(1, boot.StageContested, true, after(time.Minute))))
	require.True(t, e.pending.empty())
	require.False(t, e.add(saw(1, "Unheard", true, t0)))
}

func TestAnEntryRestoredFromTheJournalKnowsTheSame(t *testing.T) {
	e := &entry{ref: saw(1, "", false, t0).Object}
	e.learn(boot.Attempt{Number: 6, OpenedAt: t0, BootServedAt: t0}, boot.Always)
	e.open(boot.Client{Addr: addrA, Proof: boot.Address}, after(time.Minute))
	e.add(proven(boot.Relay, saw(7, boot.StageUKI, true, after(2*time.Minute))))
	e.add(at(portA, offer(7, macA, uefi, after(2*time.Minute))))
	e.add(saw(7, boot.StageIgnition, true, after(3*time.Minute)))
	e.add(saw(7, boot.StageAmbiguous, false, after(3*time.Minute)))
	got := restore(e.ref, e.pending)
	require.Equal(t, e.known, got.known)
	require.Equal(t, addrA, got.known.BootAddr)
	require.False(t, got.add(offer(7, macA, uefi, after(time.Hour))), "an offer that was told of is none to it either")
}
