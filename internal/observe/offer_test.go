package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

var (
	portA = boot.RelayPort{Relay: netip.MustParseAddr("10.1.0.1"), Circuit: "ge-0/0/1", Remote: "0xff00"}
	portB = boot.RelayPort{Relay: netip.MustParseAddr("10.1.0.1"), Circuit: "ge-0/0/2", Remote: "0xff00"}
)

// messages keeps events as "reason message".
type messages struct{ all []string }

func (m *messages) Event(_ runtime.Object, _, reason, message string) {
	m.all = append(m.all, reason+" "+message)
}

// offer is what ProxyDHCP reports of an offer.
func offer(attempt int64, mac boot.MAC, firmware string, at time.Time) boot.Observation {
	o := saw(attempt, boot.StageOffer, false, at)
	o.Addr, o.Proof, o.MAC, o.Firmware = netip.Addr{}, boot.Proxy, mac, firmware
	return o
}

func at(p boot.RelayPort, o boot.Observation) boot.Observation {
	o.Port = p
	return o
}

func detailed(detail string, o boot.Observation) boot.Observation {
	o.Detail = detail
	return o
}

const (
	macA = boot.MAC("52:54:00:aa:bb:01")
	macB = boot.MAC("52:54:00:aa:bb:02")
	uefi = "x86-64 UEFI HTTP"
	bios = "x86 BIOS"
)

// Firmware repeats its DISCOVER, for each network card in turn.
func TestRepeatedOffersCostNoWrites(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	clients := []boot.Observation{offer(1, macA, uefi, w.clock.Now()), offer(1, macB, uefi, after(2*time.Minute)), offer(1, macB, bios, after(3*time.Minute))}
	for range 2000 {
		for _, c := range clients {
			o.Observe(at(portA, c))
		}
	}
	w.eventuallyWritten(o)
	o.Observe(clients[0])
	require.LessOrEqual(t, w.faults.applies.Load(), int64(3), "one for each client")
	require.LessOrEqual(t, w.faults.gets.Load(), int64(4))
	got := w.live().Status.Boot.Offer
	require.Equal(t, v1alpha1.BootOffer{Attempt: 1, Time: *micro(after(3 * time.Minute)), MACAddress: string(macB), Firmware: bios},
		v1alpha1.BootOffer{Attempt: got.Attempt, Time: *micro(got.Time.Time), MACAddress: got.MACAddress, Firmware: got.Firmware})
	require.Zero(t, o.Current(planOf(w.live())).BootServedAt, "an offer is no delivery")
	eventually(t, "event", func() bool { return len(w.events.all()) > 0 })
	for _, e := range w.events.all() {
		require.Equal(t, v1alpha1.ReasonBootOffered, e)
	}
}

// Whoever plays with DISCOVERs on the LAN cannot make the operator write.
func TestOffersOfAnAttemptAreBounded(t *testing.T) {
	e := &entry{}
	news := 0
	for i := range 1000 {
		if e.add(offer(4, boot.MAC(fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255)), uefi, after(time.Duration(i)*time.Second))) {
			news++
		}
	}
	require.Equal(t, maxOffered, news)
	require.True(t, e.add(offer(5, macA, uefi, after(time.Hour))), "the next attempt is told of")
	require.False(t, e.add(offer(4, macA, uefi, after(2*time.Hour))), "an earlier one is not")
	require.EqualValues(t, 5, e.pending.Offer.Attempt)
}

// An offer comes before the boot that opens its attempt.
func TestAnOfferOfTheComingAttemptIsKeptAsSuch(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	o.Observe(saw(1, boot.StageUKI, true, after(time.Second)))
	p := planOf(w.live())
	coming, err := o.Coming(p)
	require.NoError(t, err)
	require.EqualValues(t, 2, coming.Number)
	o.Observe(offer(coming.Number, macA, uefi, w.clock.Now()))
	require.EqualValues(t, 1, o.Current(p).Number, "nothing is open yet")
	w.eventuallyWritten(o)
	b := w.live().Status.Boot
	require.EqualValues(t, 1, b.Attempt)
	require.EqualValues(t, 2, b.Offer.Attempt)
	a, err := o.Begin(planOf(w.live()), boot.Client{Addr: addrA, Proof: boot.Proxy, Attempt: 2})
	require.NoError(t, err)
	require.EqualValues(t, 2, a.Number)
	w.eventuallyWritten(o)
	b = w.live().Status.Boot
	require.EqualValues(t, 2, b.Attempt)
	require.EqualValues(t, 2, b.Offer.Attempt)
}

func TestOffersMergeInAnyOrder(t *testing.T) {
	of := func(attempt int64, mac boot.MAC, minute int) *v1alpha1.BootOffer {
		return offerOf(offer(attempt, mac, uefi, after(time.Duration(minute)*time.Minute)))
	}
	for name, tt := range map[string]struct{ a, b, want *v1alpha1.BootOffer }{
		"none":                        {nil, nil, nil},
		"the first":                   {nil, of(1, macA, 0), of(1, macA, 0)},
		"a later attempt":             {of(1, macA, 9), of(2, macA, 0), of(2, macA, 0)},
		"the same client, of another": {of(1, macA, 0), of(1, macA, 5), of(1, macA, 0)},
		"another client":              {of(1, macA, 0), of(1, macB, 5), of(1, macB, 5)},
		"at once":                     {of(1, macA, 0), of(1, macB, 0), of(1, macB, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tt.want, mergeOffer(tt.a, tt.b))
			require.Equal(t, tt.want, mergeOffer(tt.b, tt.a), "in the other order")
		})
	}
}

func TestThePortIsPinnedWhereARelaySawTheMachineFirst(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	other := w.idle(t.TempDir())
	p := planOf(w.live())
	o.Observe(at(portA, offer(1, macA, uefi, w.clock.Now())))
	require.Equal(t, portA, o.Current(p).Port, "known here at once")
	w.eventuallyWritten(o)
	require.Equal(t, &v1alpha1.RelayPort{Attempt: 1, RelayAddress: "10.1.0.1", CircuitID: "ge-0/0/1", RemoteID: "0xff00"}, w.live().Status.Boot.RelayPort)

	other.Observe(at(portB, offer(1, macA, uefi, w.clock.Now())))
	require.Equal(t, portB, other.Current(p).Port, "its cache has not caught up")
	require.NoError(t, other.update(context.Background(), p.Object, nil))
	require.Equal(t, "ge-0/0/1", w.live().Status.Boot.RelayPort.CircuitID)
	require.Equal(t, portA, other.Current(p).Port, "the first one counts for everyone")

	o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	_, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Relay, Attempt: 2})
	require.NoError(t, err)
	require.Equal(t, portA, o.Current(p).Port, "an attempt that a boot opens changes no wires")
	w.eventuallyWritten(o)
	require.EqualValues(t, 2, w.live().Status.Boot.Attempt)
	require.Equal(t, portA, o.Current(planOf(w.live())).Port)
	require.Equal(t, portA, planOf(w.live()).Attempt.Port)
}

func TestWhoAsksForABootMayMoveTheMachine(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	o.Observe(at(portA, offer(1, macA, uefi, w.clock.Now())))
	w.eventuallyWritten(o)
	live := w.live()
	live.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: "moved"}
	require.NoError(t, w.client.Update(context.Background(), live))
	w.clock.SetTime(after(time.Hour))
	require.NoError(t, o.Open(context.Background(), live))
	require.Nil(t, w.live().Status.Boot.RelayPort)
	require.Zero(t, o.Current(planOf(w.live())).Port)
	o.Observe(at(portB, offer(2, macA, uefi, w.clock.Now())))
	require.Equal(t, portB, o.Current(planOf(w.live())).Port)
	w.eventuallyWritten(o)
	require.Equal(t, "ge-0/0/2", w.live().Status.Boot.RelayPort.CircuitID)
}

func TestAPortThatWasSeenBeforeTheMachineMovedIsNotPinned(t *testing.T) {
	for name, tt := range map[string]struct {
		attempt int64
		seen    time.Duration
		by      string
		want    int64
	}{
		"before it was asked for":              {4, -time.Second, causeRequested, 0},
		"as an offer of the next, before":      {5, -time.Second, causeRequested, 0},
		"after, with a cache that lags":        {4, time.Second, causeRequested, 5},
		"in it":                                {5, time.Second, causeSpecChanged, 5},
		"before a boot opened it":              {4, -time.Second, causeBootDelivery, 4},
		"of the next attempt":                  {6, time.Second, causeSpecChanged, 6},
		"of the next attempt, after boots too": {6, time.Second, causeBootDelivery, 6},
	} {
		t.Run(name, func(t *testing.T) {
			s := stateOf(config(opened(5, t0, tt.by)))
			seen(s, after(time.Minute), at(portA, offer(tt.attempt, macA, uefi, after(tt.seen))))
			if tt.want == 0 {
				require.Nil(t, s.boot().RelayPort)
				require.Zero(t, s.attempt().Port)
				return
			}
			require.Equal(t, tt.want, s.boot().RelayPort.Attempt)
			require.Equal(t, portA, s.attempt().Port)
		})
	}
}

func TestAnUnwrittenPinDoesNotOutliveTheAttemptsThatCameSince(t *testing.T) {
	e := &entry{}
	e.learn(boot.Attempt{Number: 1, OpenedAt: t0}, boot.Always)
	e.add(at(portA, offer(2, macA, uefi, t0)))
	require.Equal(t, portA, e.learn(boot.Attempt{Number: 1, OpenedAt: t0}, boot.Always).Port)
	require.Equal(t, portA, e.learn(boot.Attempt{Number: 2, OpenedAt: t0}, boot.Always).Port, "a boot may have opened what was offered")
	require.Zero(t, e.learn(boot.Attempt{Number: 3, OpenedAt: t0}, boot.Always).Port, "the object knows better")
	require.Equal(t, portB, e.learn(boot.Attempt{Number: 4, OpenedAt: t0, Port: portB}, boot.Always).Port)
}

func TestAPinThatWasRefusedIsForgottenHereToo(t *testing.T) {
	w := newWorld(t, config(opened(5, after(time.Hour), causeRequested)))
	o := w.idle(t.TempDir())
	p := planOf(w.live())
	o.Observe(at(portA, offer(5, macA, uefi, t0)))
	require.Equal(t, portA, o.Current(p).Port)
	require.NoError(t, o.update(context.Background(), p.Object, nil))
	require.Zero(t, o.Current(p).Port)
	o.Observe(at(portB, offer(5, macA, uefi, after(2*time.Hour))))
	require.NoError(t, o.update(context.Background(), p.Object, nil))
	require.Equal(t, "ge-0/0/2", w.live().Status.Boot.RelayPort.CircuitID)
}

const foreignURL = "http://192.0.2.1/theirs.efi"

func foreign(attempt int64, at time.Time) boot.Observation {
	return detailed(foreignURL, saw(attempt, boot.StageForeignOffer, false, at))
}

func TestAForeignOfferIsToldOnceForAnAttempt(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	second := w.idle(t.TempDir())
	for range 500 {
		o.Observe(foreign(1, w.clock.Now()))
	}
	w.eventuallyWritten(o)
	c := condition(t, w.live(), v1alpha1.ConditionForeignBootOffer)
	require.Equal(t, metav1.ConditionTrue, c.Status)
	require.Equal(t, v1alpha1.ReasonForeignBootOffer, c.Reason)
	require.Contains(t, c.Message, foreignURL)
	require.Contains(t, c.Message, "bootctl dhcp")
	second.Observe(detailed("http://192.0.2.2/another.efi", foreign(1, w.clock.Now())))
	require.NoError(t, second.update(context.Background(), refOf(w.live()), nil))
	require.Equal(t, c, condition(t, w.live(), v1alpha1.ConditionForeignBootOffer), "nor does another replica")
	require.LessOrEqual(t, w.faults.applies.Load(), int64(1))
	eventually(t, "event", func() bool { return len(w.events.all()) > 0 })
	require.Equal(t, []string{v1alpha1.ReasonForeignBootOffer}, w.events.all())
}

func TestAForeignOfferEndsWithItsAttempt(t *testing.T) {
	now := after(time.Hour)
	for name, tt := range map[string]struct {
		seenIn int64
		opened int64
		cause  string
		want   bool
	}{
		"the spec changed":                    {1, 2, causeSpecChanged, false},
		"a boot":                              {1, 2, causeBootDelivery, false},
		"the boot that was offered elsewhere": {2, 2, causeBootDelivery, true},
		"asked for, before it booted":         {2, 2, causeRequested, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := stateOf(config(opened(1, t0, causeSpecChanged)))
			seen(s, after(time.Minute), foreign(tt.seenIn, after(time.Minute)))
			require.NotEmpty(t, s.foreignMessage())
			s.open(tt.opened, now, now, tt.cause)
			c := condition(t, s.cfg, v1alpha1.ConditionForeignBootOffer)
			require.Equal(t, tt.want, c.Status == metav1.ConditionTrue)
			if !tt.want {
				require.Equal(t, v1alpha1.ReasonNoForeignOffer, c.Reason)
			}
		})
	}
	s := stateOf(config(opened(1, t0, causeSpecChanged)))
	s.open(2, now, now, causeRequested)
	require.Empty(t, s.conditions(), "nothing is said where nothing was seen")
}

func TestALateForeignOfferIsOfNoConcern(t *testing.T) {
	for name, o := range map[string]boot.Observation{
		"of an earlier attempt":                 foreign(4, after(time.Minute)),
		"of this one, before it was asked for":  foreign(5, after(-time.Minute)),
		"of this one, in a report of attempt 0": foreign(0, after(time.Minute)),
	} {
		t.Run(name, func(t *testing.T) {
			s := stateOf(config(opened(5, t0, causeRequested)))
			seen(s, after(time.Hour), o)
			require.Empty(t, s.conditions())
		})
	}
}

// The condition was cleared as the user asked for a boot; the server is still there.
func TestAForeignOfferIsToldAgainAfterAnAttemptWasOpened(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	o.Observe(foreign(2, w.clock.Now()))
	w.eventuallyWritten(o)
	w.clock.SetTime(after(time.Hour))
	live := w.live()
	live.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: "again"}
	require.NoError(t, w.client.Update(context.Background(), live))
	require.NoError(t, o.Open(context.Background(), live))
	require.Equal(t, metav1.ConditionFalse, condition(t, w.live(), v1alpha1.ConditionForeignBootOffer).Status)
	o.Observe(foreign(2, w.clock.Now()))
	w.eventuallyWritten(o)
	require.Equal(t, metav1.ConditionTrue, condition(t, w.live(), v1alpha1.ConditionForeignBootOffer).Status)
}

func TestWhatWasNotOfferedIsToldOncePerAttempt(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	messages := &messages{}
	opts := w.options(t.TempDir())
	opts.Recorder = messages
	o, err := New(opts)
	require.NoError(t, err)
	defer o.Close() //nolint:errcheck // the test is over
	ref := refOf(w.live())
	for n := int64(1); n <= 2; n++ {
		for range 100 {
			o.Observe(detailed("ipxe-arm64.efi, which belongs into --ipxe-dir", saw(n, boot.StageNoProgram, false, t0)))
			o.Observe(at(portB, detailed("ge-0/0/2 of 10.1.0.1", saw(n, boot.StagePortChanged, false, t0))))
		}
		require.NoError(t, o.update(context.Background(), ref, nil))
		require.NoError(t, o.update(context.Background(), ref, nil))
		require.Zero(t, o.journal.pending())
		require.Len(t, messages.all, int(2*n))
	}
	require.Zero(t, w.faults.applies.Load(), "an event is no status")
	require.Nil(t, w.live().Status.Boot.RelayPort, "and the other port is not pinned")
	require.Equal(t, "NoBootProgram Attempt 1 was not offered to this machine, because the boot program for it is missing: ipxe-arm64.efi, which belongs into --ipxe-dir.", messages.all[0])
	require.Contains(t, messages.all[1], "RelayPortChanged Attempt 1 was not offered")
	require.Contains(t, messages.all[1], "another port than before: ge-0/0/2 of 10.1.0.1. If it was moved, change the annotation boot.ironcore.dev/request-boot.")
}

// Something else is seen while a notice is being written.
func TestANoticeIsNotToldAgainWithWhatCameMeanwhile(t *testing.T) {
	e := &entry{known: boot.Attempt{Number: 1, OpenedAt: t0}}
	e.add(saw(1, boot.StageNoProgram, false, t0))
	e.add(saw(1, boot.StageContested, false, t0))
	taken, version := e.pending.clone(), e.version
	e.add(saw(1, boot.StagePortChanged, false, t0))
	require.False(t, e.settle(stateOf(config(opened(1, t0, causeSpecChanged))), taken, version))
	require.Nil(t, e.pending.NoProgram)
	require.Nil(t, e.pending.Contested)
	require.NotNil(t, e.pending.PortChanged, "what came meanwhile is still to be told")
}

func TestWhatTheNetworkSaysIsBounded(t *testing.T) {
	nasty := strings.Repeat("\x00\x1b\n<&\u202e\xff", 500) + strings.Repeat("<", 2000)
	for _, limit := range []int{0, 1, maxMAC, maxFirmware, maxDetail, maxPortID} {
		got := printable(nasty, limit)
		require.LessOrEqual(t, len(got), limit)
		require.True(t, utf8.ValidString(got))
		require.NotContains(t, got, "\n")
		require.NotContains(t, got, "\x1b")
		require.NotContains(t, got, "\u202e")
	}
	require.Equal(t, "grün", printable("grün", maxDetail))
	require.Equal(t, "gr?", printable("grün", 3), "no half of a letter")
	require.Equal(t, "a?b", printable("a\nb", maxDetail))

	e := &entry{ref: refOf(config()), known: boot.Attempt{Number: 1, OpenedAt: t0}}
	e.open(boot.Client{Addr: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), Proof: boot.Address}, t0)
	long := strings.Repeat("<", 4000)
	for _, stage := range []boot.Stage{boot.StageUKI, boot.StageIPXEScript, boot.StageIgnition, boot.StageCloudInit, boot.StageContested,
		boot.StageAmbiguous, boot.StageOffer, boot.StageForeignOffer, boot.StageNoProgram, boot.StagePortChanged} {
		o := saw(2, stage, true, t0)
		o.Digest = boot.Digest("sha256:" + strings.Repeat("a", 64))
		o.MAC, o.Firmware, o.Detail = boot.MAC(long), long, long
		o.Port = boot.RelayPort{Relay: addrA, Circuit: long, Remote: long}
		require.True(t, e.add(o), stage)
	}
	e.ref.Name, e.ref.Namespace = strings.Repeat("n", 253), strings.Repeat("n", 63)
	line, err := encodeRecord(record{Ref: e.ref, Report: &e.pending})
	require.NoError(t, err)
	t.Logf("the longest record has %d bytes", len(line))
	require.Less(t, len(line), maxLine, "what is longer is lost when the journal is read")
}

// An operator is upgraded with reports in its journal.
func TestAJournalOfTheLastVersionIsRead(t *testing.T) {
	const written = `{"ref":{"Kind":"HTTPBootConfig","Namespace":"default","Name":"m","UID":"uid-a"},"report":{` +
		`"opening":{"number":2,"time":"2026-03-01T12:00:00.000000Z","addr":"10.0.0.5","proof":"Address"},` +
		`"stages":[{"name":"UKI","attempt":2,"clientAddress":"10.0.0.5","startedTime":"2026-03-01T12:00:01.000000Z","completedTime":"2026-03-01T12:00:01.000000Z"}],` +
		`"last":{"attempt":2,"addr":"10.0.0.5","proof":"Address","time":"2026-03-01T12:00:01.000000Z"},` +
		`"contested":{"attempt":2,"addr":"10.0.0.6","time":"2026-03-01T12:00:02.000000Z"}}}`
	var r record
	require.NoError(t, json.Unmarshal([]byte(written), &r))
	e := restore(r.Ref, *r.Report)
	require.EqualValues(t, 2, e.known.Number)
	require.Equal(t, after(time.Second), e.known.BootServedAt.UTC())
	require.False(t, e.known.BootAddr.IsValid(), "a stage without proof binds nobody")
	s := stateOf(config(opened(1, after(-time.Hour), causeSpecChanged)))
	s.apply(r.Report, after(time.Minute))
	require.EqualValues(t, 2, s.boot().Attempt)
	require.Equal(t, metav1.ConditionTrue, condition(t, s.cfg, v1alpha1.ConditionUKIFetched).Status)
}

func TestOffersAndPortsOutliveTheProcess(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	p := planOf(w.live())
	w.faults.away.Store(true)
	dir := t.TempDir()
	first := w.idle(dir)
	first.Observe(at(portA, offer(1, macA, uefi, w.clock.Now())))
	first.Observe(foreign(1, w.clock.Now()))
	cut := saw(1, boot.StageUKI, false, w.clock.Now())
	cut.Proof = boot.Relay
	first.Observe(cut)
	want := first.Current(p)
	crash(t, first.journal)

	second, _ := w.replica(dir)
	got := second.Current(p)
	require.Equal(t, want, got)
	require.Equal(t, portA, got.Port)
	require.Equal(t, addrA, got.BootAddr)
	require.Equal(t, boot.Relay, got.BootProof)
	w.faults.away.Store(false)
	w.eventuallyWritten(second)
	b := w.live().Status.Boot
	require.Equal(t, string(macA), b.Offer.MACAddress)
	require.Equal(t, "ge-0/0/1", b.RelayPort.CircuitID)
	require.Equal(t, metav1.ConditionTrue, condition(t, w.live(), v1alpha1.ConditionForeignBootOffer).Status)
}
