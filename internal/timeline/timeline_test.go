package timeline_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/timeline"
	"github.com/boot-operator/boot-operator/test/machines"
)

func machine(t *testing.T, name string) timeline.Machine {
	t.Helper()
	m, err := machines.Named(name)
	require.NoError(t, err)
	return m
}

func at(clock string) time.Time {
	t, err := time.Parse(time.DateTime, "2026-03-01 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

// stages are what each machine of the fixture is in: its stage, whether it is stuck, since
// when, and a part of what it waits for or of what would help.
var stages = map[string]struct {
	stage timeline.Stage
	stuck bool
	since string
	says  string
}{
	"removing":                {timeline.StageRemoving, false, "11:58:00", "config is being deleted"},
	"paused":                  {timeline.StagePaused, false, "11:20:00", "by hand, until the disk is replaced"},
	"available":               {timeline.StageAvailable, false, "11:00:00", ""},
	"off":                     {timeline.StageOff, false, "11:10:00", ""},
	"preparing":               {timeline.StagePreparing, false, "11:58:00", "120 MiB of 512 MiB"},
	"not-ready":               {timeline.StageNotReady, true, "11:58:00", "was not found in the registry"},
	"conflict":                {timeline.StageNotReady, true, "11:00:00", "claimed by the older HTTPBootConfig machines/booted"},
	"nobody-looked":           {timeline.StagePreparing, true, "11:00:00", "No operator has looked at it"},
	"waiting":                 {timeline.StageWaiting, false, "11:50:00", "switch the machine on"},
	"foreign":                 {timeline.StageWaiting, true, "11:50:00", "10.0.0.9 offers pxelinux.0"},
	"translated":              {timeline.StageStartingOS, true, "11:55:05", "externalTrafficPolicy: Local"},
	"powering-off":            {timeline.StagePoweringOff, false, "11:59:00", "until the BMC says that the machine is off"},
	"arming":                  {timeline.StageArming, true, "11:50:00", "ask the BMC what it does"},
	"powering-on":             {timeline.StagePoweringOn, false, "11:59:40", "try 2, since the machine did not fetch"},
	"awaiting-fetch":          {timeline.StageAwaitingFetch, true, "11:46:00", "look at the machine's console"},
	"bmc-unreachable":         {timeline.StagePoweringOff, true, "11:56:00", "i/o timeout"},
	"offered":                 {timeline.StageOffered, false, "11:59:10", "offered to 52:54:00:aa:bb:01 (x86-64 UEFI HTTP)"},
	"fetching-script":         {timeline.StageFetchingScript, false, "11:59:58", "sent to 10.0.0.5"},
	"fetching-uki":            {timeline.StageFetchingUKI, false, "11:59:40", "sent to 10.0.0.5"},
	"cut":                     {timeline.StageFetchingUKI, true, "11:51:00", "stopped before its end"},
	"starting-os":             {timeline.StageStartingOS, false, "11:59:45", "asks for its Ignition"},
	"no-ignition-yet":         {timeline.StageStartingOS, true, "11:51:05", "see what the OS says on its console"},
	"fetching-ignition":       {timeline.StageFetchingIgnition, false, "11:59:59", ""},
	"fetching-user-data":      {timeline.StageFetchingUserData, false, "11:59:59", ""},
	"booted":                  {timeline.StageBooted, false, "11:57:31", ""},
	"booted-without-document": {timeline.StageBooted, false, "11:31:00", ""},
	"incomplete":              {timeline.StageIncomplete, true, "11:21:05", "before the attempt closed"},
	"failed":                  {timeline.StageFailed, true, "11:58:00", "it was armed 3 times"},
	"aborted":                 {timeline.StageAborted, false, "11:52:00", "bootctl boot retry aborted"},
	"machine-8":               {timeline.StageBooted, false, "11:58:40", ""},
	"by-http":                 {timeline.StageBooted, false, "11:59:50", ""},
	"a-machine-with-a-name-that-is-longer-than-any-column-of-a-table-should-be": {timeline.StageNotReady, true, "11:00:00", "bootctl image verify"},
}

func TestEveryMachineIsInItsStage(t *testing.T) {
	all, err := machines.All()
	require.NoError(t, err)
	require.Len(t, all, len(stages))
	seen := map[timeline.Stage]bool{}
	for _, m := range all {
		t.Run(m.Name, func(t *testing.T) {
			want, known := stages[m.Name]
			require.True(t, known)
			s := m.State(machines.Now)
			seen[s.Stage] = true
			require.Equal(t, want.stage, s.Stage)
			require.Equal(t, want.stuck, s.Stuck, s.Why)
			require.WithinDuration(t, at(want.since), s.Since, time.Second)
			require.Contains(t, s.Why+" "+s.Help, want.says)
			if s.Stuck {
				require.NotEmpty(t, s.Why, "who is stuck is told why")
			}
			if s.Why != "" {
				require.Regexp(t, `[.?!…]$`, s.Why, "a sentence")
			}
			if s.Attempt > 0 {
				require.Len(t, s.BootID, 32)
			}
		})
	}
	for _, s := range timeline.Stages {
		require.True(t, seen[s], "no machine of the fixture is %s", s)
	}
}

// What is told changes when something happens, and not because time passes: a watch that
// prints changes would print nothing else.
func TestWhyDoesNotTellRunningTime(t *testing.T) {
	all, err := machines.All()
	require.NoError(t, err)
	for _, m := range all {
		a, b := m.State(machines.Now), m.State(machines.Now.Add(time.Second))
		require.Equal(t, a, b, m.Name)
	}
}

func TestTimeAloneMakesAMachineStuck(t *testing.T) {
	m := machine(t, "offered")
	require.False(t, m.State(at("12:01:00")).Stuck)
	s := m.State(at("12:02:00"))
	require.True(t, s.Stuck)
	require.Contains(t, s.Help, "has taken another server's offer")
	require.Equal(t, timeline.StageWaiting, m.State(at("12:40:00")).Stage, "that boot came to nothing")

	uki := machine(t, "fetching-uki")
	require.False(t, uki.State(at("12:00:40")).Stuck, "something was written 43 s ago")
	require.True(t, uki.State(at("12:00:43")).Stuck)
}

func TestProgressIsNeverRoundedUpToAllOfIt(t *testing.T) {
	m := machine(t, "fetching-uki")
	s := m.State(machines.Now)
	require.Equal(t, &timeline.Progress{Sent: 230 << 20, Size: 512 << 20}, s.Progress)
	require.Equal(t, 44, s.Progress.Percent())
	require.Equal(t, 99, timeline.Progress{Sent: 999_999_999, Size: 1_000_000_000}.Percent())
	require.Equal(t, 100, timeline.Progress{Sent: 1, Size: 1}.Percent())
	require.Equal(t, -1, timeline.Progress{Sent: 7}.Percent())
	require.Equal(t, 0, timeline.Progress{Sent: -7, Size: 9}.Percent())
}

func TestAHostAndItsConfigsAreOneMachine(t *testing.T) {
	m := machine(t, "machine-8")
	require.NotNil(t, m.Host)
	require.Len(t, m.Configs, 2)
	require.Equal(t, v1alpha1.KindHTTPBootConfig, m.Active().Kind(), "the other is paused")
	require.Len(t, m.UIDs(), 3)
	both := machine(t, "by-http")
	require.Len(t, both.Configs, 2, "one UUID in its two byte orders")
	require.Equal(t, v1alpha1.KindIPXEBootConfig, both.Active().Kind(), "it booted by that last")
	require.True(t, both.Is("by-ipxe"))
}

func TestTwoConfigsOfOneKindAreTwoMachines(t *testing.T) {
	config := func(namespace, name string, owner ...metav1.OwnerReference) v1alpha1.Config {
		c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, OwnerReferences: owner}}
		c.Spec.SystemUUID = "00112233-4455-6677-8899-aabbccddeeff"
		return c
	}
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "host", UID: "u"}}
	owned := metav1.OwnerReference{Kind: "BareMetalHost", UID: "u"}
	for name, c := range map[string]struct {
		configs []v1alpha1.Config
		want    string
	}{
		"who claim one UUID":    {[]v1alpha1.Config{config("a", "x"), config("a", "y")}, "a/host a/x a/y"},
		"of other namespaces":   {[]v1alpha1.Config{config("b", "host")}, "a/host b/host"},
		"owned, by other names": {[]v1alpha1.Config{config("a", "x", owned)}, "a/host"},
		"two that are owned":    {[]v1alpha1.Config{config("a", "x", owned), config("a", "y", owned)}, "a/host a/y"},
	} {
		t.Run(name, func(t *testing.T) {
			var names []string
			for _, m := range timeline.Group(c.configs, []*metal3.BareMetalHost{h}) {
				names = append(names, m.Namespace+"/"+m.Name)
			}
			require.Equal(t, c.want, strings.Join(names, " "))
		})
	}
}

func TestAMachineIsFoundByWhateverNamesIt(t *testing.T) {
	m := machine(t, "machine-8")
	for _, text := range []string{"machine-8", "4C4C4544-0044-4A10-8056-B3C04F4A3132", "44454c4c-4400-104a-8056-b3c04f4a3132", "52-54-00-FF-00-25", "10.1.0.8", "::ffff:10.1.0.8"} {
		require.True(t, m.Is(text), text)
	}
	for _, text := range []string{"", "machine-9", "52:54:00:00:00:fe", "10.1.0.9", "00000000-0000-0000-0000-000000000000", "0.0.0.0"} {
		require.False(t, m.Is(text), text)
	}
}

func kinds(b timeline.Boot) (all []timeline.Milestone) {
	for _, e := range b.Entries {
		all = append(all, e.Kind)
	}
	return all
}

func entry(t *testing.T, b timeline.Boot, kind timeline.Milestone) timeline.Entry {
	t.Helper()
	i := slices.IndexFunc(b.Entries, func(e timeline.Entry) bool { return e.Kind == kind })
	require.GreaterOrEqual(t, i, 0, "%s in %v", kind, kinds(b))
	return b.Entries[i]
}

func TestTheLastBootIsToldInTheOrderOfTime(t *testing.T) {
	m := machine(t, "machine-8")
	m.Events = []timeline.Event{
		{Time: at("11:40:00"), Object: "HTTPBootConfig machine-8", Reason: "IdentityConflict", Message: "of a boot before", Warning: true},
		{Time: at("11:50:40"), Object: "BareMetalHost machine-8", Reason: "BootArmed", Message: "the BMC\x1b[31m ignores the mode", Warning: true, Count: 2},
		{Time: at("11:54:58"), Object: "HTTPBootConfig machine-8", Reason: v1alpha1.ReasonUKIDelivered, Message: "told by the status"},
	}
	b := m.LastBoot(machines.Now)
	require.Equal(t, []timeline.Milestone{
		timeline.PowerOff, timeline.Opened, timeline.Armed, timeline.PowerOn, timeline.EventSeen, timeline.AwaitFetch,
		timeline.UKIStarted, timeline.UKIDelivered, timeline.Delivered, timeline.IgnitionDelivered,
	}, kinds(b))
	require.Equal(t, int64(2), b.Attempt)
	require.Equal(t, boot.NewID(string(m.Active().GetUID()), 2).String(), b.ID)
	require.Equal(t, "BareMetalHost machine-8, BootArmed: the BMC[31m ignores the mode (2 times).", entry(t, b, timeline.EventSeen).What, "no event moves the cursor")

	off := entry(t, b, timeline.Armed).Gap
	require.Equal(t, 31*time.Second, off.Took)
	require.False(t, off.Long)
	firmware := entry(t, b, timeline.UKIStarted).Gap
	require.Contains(t, firmware.What, "memory is trained")
	require.False(t, firmware.Long)
	sent := entry(t, b, timeline.UKIDelivered)
	require.Equal(t, int64(400<<20), sent.Bytes)
	require.Contains(t, sent.Gap.What, "at 9.0 MiB/s")
	os := entry(t, b, timeline.IgnitionDelivered).Gap
	require.Equal(t, 3*time.Minute+41*time.Second, os.Took.Round(time.Second), "from the delivery, not from when the operator knew of it")
	require.True(t, os.Long)
	require.Contains(t, os.Help, "without a driver for this NIC")
	require.Nil(t, entry(t, b, timeline.Delivered).Gap)
}

func TestABootThatGoesOnEndsInWhatItWaitsFor(t *testing.T) {
	b := machineBoot(t, "awaiting-fetch")
	now := entry(t, b, timeline.Now)
	require.Equal(t, machines.Now, now.Time)
	require.True(t, now.Gap.Long)
	require.Contains(t, now.Gap.What, "firmware starts")
	require.Contains(t, now.Gap.Help, "is HTTP or PXE boot on")
	for _, over := range []string{"booted", "failed", "aborted", "incomplete"} {
		require.NotContains(t, kinds(machineBoot(t, over)), timeline.Now, over)
	}
	require.Empty(t, machineBoot(t, "available").Entries)
	require.Empty(t, machineBoot(t, "nobody-looked").Entries)
}

func machineBoot(t *testing.T, name string) timeline.Boot {
	t.Helper()
	m := machine(t, name)
	return m.LastBoot(machines.Now)
}

func TestEveryGapHasASentence(t *testing.T) {
	all, err := machines.All()
	require.NoError(t, err)
	gaps := 0
	for _, m := range all {
		for _, e := range m.LastBoot(machines.Now).Entries {
			require.NotEmpty(t, e.What)
			if e.Gap != nil {
				gaps++
				require.NotEqual(t, "nothing was seen of the machine", e.Gap.What, "%s before %s", m.Name, e.Kind)
				require.GreaterOrEqual(t, e.Gap.Took, time.Second)
			}
		}
	}
	require.Greater(t, gaps, 30)
}

func TestASlowTransferSaysWhatItPointsTo(t *testing.T) {
	m := machine(t, "booted")
	started := metav1.NewMicroTime(at("11:50:00"))
	status := m.Configs[0].ConfigStatus()
	status.Boot.Stages[0].StartedTime = &started // 64 MiB in 7 minutes
	g := entry(t, m.LastBoot(machines.Now), timeline.UKIDelivered).Gap
	require.True(t, g.Long)
	require.Contains(t, g.What, "at 154.2 KiB/s")
	require.NotEmpty(t, g.Help)
}

// Events come from anyone who may write them, in any number.
func TestEventsAreBounded(t *testing.T) {
	m := machine(t, "booted")
	for i := range 1000 {
		m.Events = append(m.Events, timeline.Event{Time: at("11:58:00").Add(time.Duration(i) * time.Millisecond), Object: "HTTPBootConfig booted", Reason: "Any", Warning: true, Message: strings.Repeat("x", 5000) + fmt.Sprint(i)})
	}
	b := m.LastBoot(machines.Now)
	require.Less(t, len(b.Entries), 120)
	for _, e := range b.Entries {
		require.Less(t, len(e.What), 1200)
	}
}

// A status may hold anything that the schema allows, and half of it.
func TestHalfAStatusIsNoReasonToPanic(t *testing.T) {
	all, err := machines.All()
	require.NoError(t, err)
	for _, m := range all {
		for _, c := range m.Configs {
			s := c.ConfigStatus()
			if s.Boot != nil {
				s.Boot.OpenedTime, s.Boot.ID = nil, "x"
				for i := range s.Boot.Stages {
					s.Boot.Stages[i].StartedTime, s.Boot.Stages[i].CompletedTime = nil, nil
				}
				if s.Boot.NetworkBoot != nil {
					s.Boot.NetworkBoot.Step, s.Boot.NetworkBoot.Steps = "Unknown", nil
				}
			}
			m.State(machines.Now)
			m.LastBoot(machines.Now)
			s.Boot = &v1alpha1.BootStatus{}
			m.State(time.Time{})
			m.LastBoot(time.Time{})
			s.Conditions = nil
			m.State(machines.Now)
		}
		if m.Host != nil {
			m.Host.Status = metal3.BareMetalHostStatus{}
			m.Configs = nil
			require.Equal(t, timeline.StagePreparing, m.State(machines.Now).Stage)
			require.Empty(t, m.LastBoot(machines.Now).Entries)
		}
	}
}
