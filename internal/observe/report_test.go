package observe

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestMergeStageKeepsTheFirstCompleteDeliveryOfTheLatestAttempt(t *testing.T) {
	stage := func(attempt int64, complete bool, at time.Duration) v1alpha1.BootStage {
		return stageOf(saw(attempt, boot.StageUKI, complete, after(at)))
	}
	startedAt := func(s v1alpha1.BootStage, at time.Duration) v1alpha1.BootStage {
		s.StartedTime = micro(after(at))
		return s
	}
	tests := map[string]struct{ a, b, want v1alpha1.BootStage }{
		"later attempt wins, even incomplete": {stage(1, true, 0), stage(2, false, 9), stage(2, false, 9)},
		"complete wins, first start stays":    {stage(1, false, 0), stage(1, true, 5), startedAt(stage(1, true, 5), 0)},
		"first complete wins":                 {stage(1, true, 5), stage(1, true, 9), stage(1, true, 5)},
		"a later cut changes nothing":         {stage(1, true, 5), stage(1, false, 9), stage(1, true, 5)},
		"first cut wins":                      {stage(1, false, 5), stage(1, false, 9), stage(1, false, 5)},
		"the same twice":                      {stage(1, true, 5), stage(1, true, 5), stage(1, true, 5)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.True(t, sameStage(tt.want, mergeStage(tt.a, tt.b)))
			require.True(t, sameStage(tt.want, mergeStage(tt.b, tt.a)), "in the other order")
		})
	}
}

func TestAStageThatIsKnownBetterIsAnotherOne(t *testing.T) {
	o := saw(1, boot.StageUKI, true, t0)
	a := stageOf(o)
	o.Proof = boot.Unproven
	require.Empty(t, stageOf(o).Proof)
	require.False(t, sameStage(a, stageOf(o)))
	require.True(t, sameStage(a, a))
}

// Whatever the order in which replicas write, and however often, the object
// ends up with the same stages.
func TestMergedStagesDoNotDependOnOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var all []v1alpha1.BootStage
		for range 6 {
			o := saw(1+random.Int64N(2), boot.StageUKI, random.IntN(2) == 0, after(time.Duration(random.IntN(4))*time.Second))
			if random.IntN(2) == 0 {
				o.Addr = addrB
			}
			o.Proof = boot.Proof(random.IntN(3)) //nolint:gosec // three of them
			o.MAC = []boot.MAC{"", macA, "52:54:00:00:00:02"}[random.IntN(3)]
			o.Sent, o.Size = random.Int64N(4), 3*random.Int64N(2)
			all = append(all, stageOf(o))
		}
		fold := func() v1alpha1.BootStage {
			s := all[0]
			for _, o := range all[1:] {
				s = mergeStage(s, o)
			}
			return s
		}
		want := fold()
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = append(all, all[random.IntN(len(all))])
		got := fold()
		require.True(t, sameStage(want, got), "%+v", all)
		require.Equal(t, []int64{want.Sent, want.Size}, []int64{got.Sent, got.Size}, "%+v", all)
	}
}

func TestReportSurvivesItsEncoding(t *testing.T) {
	e := &entry{}
	e.open(boot.Client{Addr: addrA, Proof: boot.Address}, t0)
	e.add(saw(1, boot.StageUKI, true, after(time.Second)))
	e.add(from(addrB, saw(1, boot.StageContested, false, after(2*time.Second))))
	e.add(saw(1, boot.StageAmbiguous, false, after(3*time.Second)))
	b, err := json.Marshal(e.pending)
	require.NoError(t, err)
	require.Less(t, len(b), 1500, "a record must stay small")
	var got report
	require.NoError(t, json.Unmarshal(b, &got))
	require.Equal(t, "2026-03-01T12:00:00Z", got.Opening.Time.Time.UTC().Format(time.RFC3339))
	require.True(t, sameStage(e.pending.Stages[0], got.Stages[0]))
	require.Equal(t, "10.0.0.6", got.Contested.Addr)
	require.Equal(t, "10.0.0.5", got.Ambiguous.Addr)
}

func TestRenumberMovesEverythingOfOneAttempt(t *testing.T) {
	e := &entry{known: boot.Attempt{Number: 4, OpenedAt: t0}}
	e.open(boot.Client{Addr: addrA, Proof: boot.Address}, t0)
	e.add(saw(5, boot.StageUKI, true, t0))
	e.add(saw(4, boot.StageIgnition, true, t0))
	e.add(saw(5, boot.StageAmbiguous, false, t0))
	e.add(at(portA, offer(5, macA, uefi, t0)))
	e.add(foreign(5, t0))
	e.pending.renumber(5, 9)
	require.EqualValues(t, 9, e.pending.Opening.Number)
	require.EqualValues(t, 9, findStage(e.pending.Stages, "UKI").Attempt)
	require.EqualValues(t, 4, findStage(e.pending.Stages, "Ignition").Attempt)
	require.EqualValues(t, 9, e.pending.Ambiguous.Attempt)
	require.EqualValues(t, 9, e.pending.Offer.Attempt)
	require.EqualValues(t, 9, e.pending.Port.Attempt)
	require.EqualValues(t, 9, e.pending.Foreign.Attempt)
}
