package observe

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func named(mac boot.MAC, o boot.Observation) boot.Observation {
	o.MAC = mac
	return o
}

func TestAMachineThatBootsByAnotherNICIsTold(t *testing.T) {
	for name, tt := range map[string]struct {
		first, second []boot.Observation
		says          string
	}{
		"offered to another":  {[]boot.Observation{offer(1, macA, uefi, t0), saw(1, boot.StageUKI, true, t0)}, []boot.Observation{offer(2, macB, uefi, t0), saw(2, boot.StageUKI, false, t0)}, string(macB)},
		"offered to the same": {[]boot.Observation{offer(1, macA, uefi, t0), saw(1, boot.StageUKI, true, t0)}, []boot.Observation{offer(2, macA, uefi, t0), from(addrB, saw(2, boot.StageUKI, true, t0))}, ""},
		"offered to another and not booted": {[]boot.Observation{offer(1, macA, uefi, t0), saw(1, boot.StageUKI, true, t0)},
			[]boot.Observation{offer(2, macB, uefi, t0)}, ""},
		"named another":       {[]boot.Observation{named(macA, saw(1, boot.StageUKI, true, t0))}, []boot.Observation{named(macB, saw(2, boot.StageUKI, true, t0))}, string(macB)},
		"another address":     {[]boot.Observation{saw(1, boot.StageUKI, true, t0)}, []boot.Observation{from(addrB, saw(2, boot.StageUKI, true, t0))}, "10.0.0.6"},
		"the same address":    {[]boot.Observation{saw(1, boot.StageUKI, true, t0)}, []boot.Observation{saw(2, boot.StageUKI, true, t0)}, ""},
		"one is not known":    {[]boot.Observation{saw(1, boot.StageUKI, true, t0)}, []boot.Observation{named(macB, from(addrB, saw(2, boot.StageUKI, true, t0)))}, ""},
		"in the same attempt": {[]boot.Observation{saw(1, boot.StageUKI, false, t0)}, []boot.Observation{from(addrB, saw(1, boot.StageUKI, true, t0))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := stateOf(config(opened(1, t0, causeSpecChanged)))
			seen(s, t0, tt.first...)
			before := stateOf(s.cfg)
			s.open(2, after(time.Hour), after(time.Hour), causeBootDelivery)
			seen(s, after(time.Hour), tt.second...)
			message := interfaceChanged(before, s)
			if tt.says == "" {
				require.Empty(t, message)
				return
			}
			require.Contains(t, message, "boots by "+tt.says+" in attempt 2; in attempt 1 it was ")
			require.Empty(t, interfaceChanged(s, s), "once")
		})
	}
}

func TestAChangeOfInterfaceIsOneEvent(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o := w.idle(t.TempDir())
	boots := func(n int64, mac boot.MAC) {
		_, err := o.Begin(planOf(w.live()), boot.Client{Addr: addrA, Proof: boot.Address})
		require.NoError(t, err)
		o.Observe(offer(n, mac, uefi, w.clock.Now()))
		o.Observe(saw(n, boot.StageUKI, false, w.clock.Now()))
		o.flush(t.Context(), uidA)
		o.Observe(saw(n, boot.StageUKI, true, w.clock.Now().Add(time.Second)))
		o.flush(t.Context(), uidA)
		w.clock.SetTime(w.clock.Now().Add(time.Hour))
	}
	changes := func() int {
		n := 0
		for _, reason := range w.events.all() {
			if reason == v1alpha1.ReasonBootInterfaceChanged {
				n++
			}
		}
		return n
	}
	boots(1, macA)
	boots(2, macA)
	require.Zero(t, changes())
	boots(3, macB)
	require.Equal(t, 1, changes())
	boots(4, macB)
	require.Equal(t, 1, changes())
	require.Equal(t, string(macB), findStage(w.live().Status.Boot.Stages, "UKI").MACAddress)
}

func TestATranslatedAddressIsToldAndTakesNothingAway(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o := w.idle(t.TempDir())
	node := from(addrB, saw(1, boot.StageTranslated, false, w.clock.Now()))
	node.Proof = boot.Unproven
	ambiguous := func() metav1.Condition {
		o.flush(t.Context(), uidA)
		return condition(t, w.live(), v1alpha1.ConditionClientAddressAmbiguous)
	}
	o.Observe(node)
	c := ambiguous()
	require.Equal(t, metav1.ConditionTrue, c.Status)
	require.Equal(t, v1alpha1.ReasonAddressTranslated, c.Reason)
	for _, part := range []string{"10.0.0.6", "externalTrafficPolicy: Local", "PROXY protocol", "bootctl doctor"} {
		require.Contains(t, c.Message, part)
	}
	require.Equal(t, []string{v1alpha1.ReasonAddressTranslated}, w.events.all())
	a := o.Current(planOf(w.live()))
	require.False(t, a.Ambiguous)
	require.NoError(t, a.Admit(addrA, w.clock.Now()))

	o.Observe(saw(1, boot.StageIPXEScript, true, w.clock.Now()))
	claimed := from(addrB, saw(1, boot.StageUKI, true, w.clock.Now().Add(time.Minute)))
	claimed.Proof = boot.Claimed
	o.Observe(claimed)
	require.Equal(t, metav1.ConditionTrue, ambiguous().Status, "a claim shows nothing")
	o.Observe(node)
	require.Len(t, w.events.all(), 3, "and it is told once: %v", w.events.all())

	w.clock.SetTime(w.clock.Now().Add(time.Hour))
	_, err := o.Begin(planOf(w.live()), boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.Equal(t, metav1.ConditionTrue, ambiguous().Status, "until it arrives")
	o.Observe(saw(2, boot.StageUKI, false, w.clock.Now().Add(time.Second)))
	c = ambiguous()
	require.Equal(t, metav1.ConditionFalse, c.Status)
	require.Equal(t, v1alpha1.ReasonOneMachine, c.Reason)
}

func TestWhoCanSayThatAnAddressIsTranslatedCannotClearTheGraverCondition(t *testing.T) {
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	seen(s, t0, saw(1, boot.StageAmbiguous, false, t0), saw(1, boot.StageTranslated, false, after(time.Second)))
	require.Equal(t, v1alpha1.ReasonSeveralMachines, condition(t, s.cfg, v1alpha1.ConditionClientAddressAmbiguous).Reason)
	require.True(t, s.attempt().Ambiguous)
	seen(s, t0, saw(1, boot.StageTranslated, false, after(2*time.Second)), saw(1, boot.StageUKI, true, after(3*time.Second)))
	require.True(t, s.attempt().Ambiguous)

	s = stateOf(config(opened(1, t0, causeSpecChanged)))
	seen(s, t0, saw(1, boot.StageTranslated, false, t0))
	require.False(t, s.attempt().Ambiguous)
	seen(s, t0, saw(1, boot.StageAmbiguous, false, after(time.Second)))
	require.True(t, s.attempt().Ambiguous, "the graver one takes its place")
}
