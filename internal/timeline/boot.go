package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Milestone is a point of a boot.
type Milestone string

// The milestones. Of two that happened at one time the one that is named first here
// comes first.
const (
	Opened            Milestone = "Opened"
	PowerOff          Milestone = "PowerOff"
	Armed             Milestone = "Arm"
	PowerOn           Milestone = "PowerOn"
	AwaitFetch        Milestone = "AwaitFetch"
	Offered           Milestone = "Offered"
	ScriptStarted     Milestone = "ScriptStarted"
	ScriptDelivered   Milestone = "ScriptDelivered"
	UKIStarted        Milestone = "UKIStarted"
	Committed         Milestone = "Committed"
	UKIDelivered      Milestone = "UKIDelivered"
	Delivered         Milestone = "Delivered"
	IgnitionStarted   Milestone = "IgnitionStarted"
	IgnitionDelivered Milestone = "IgnitionDelivered"
	UserDataStarted   Milestone = "UserDataStarted"
	UserDataDelivered Milestone = "UserDataDelivered"
	Failed            Milestone = "Failed"
	// EventSeen is a Kubernetes event, and Now the end of a boot that goes on.
	EventSeen Milestone = "Event"
	Now       Milestone = "Now"
)

var order = []Milestone{
	Opened, PowerOff, Armed, PowerOn, AwaitFetch, Offered, ScriptStarted, ScriptDelivered, UKIStarted, Committed, UKIDelivered, Delivered,
	IgnitionStarted, IgnitionDelivered, UserDataStarted, UserDataDelivered, Failed, EventSeen, Now,
}

// Entry is a point of a boot, with what happened and what came before it.
type Entry struct {
	Time time.Time
	Kind Milestone
	// What happened, in a sentence.
	What string
	// Warning: something went wrong.
	Warning bool
	// Gap is the time from the milestone before, nil where there is none to speak of.
	Gap *Gap
	// Bytes is how much was sent, where something was.
	Bytes int64
}

// Gap is time in which the server saw nothing new.
type Gap struct {
	Took time.Duration
	// What happens then, and, where Long, what it points to that it took longer than usual.
	What string
	Long bool
	Help string
}

// Boot is the last boot of a machine.
type Boot struct {
	Attempt  int64
	ID       string
	OpenedBy string
	Entries  []Entry
	// State is how the machine is now.
	State State
}

const (
	// maxEvents bounds the entries that are events; the last ones are kept.
	maxEvents = 100
	// eventMargin is how long before the first milestone an event may be of this boot:
	// those of some recorders have whole seconds.
	eventMargin = 2 * time.Second
	// shortGap is one that nothing is said about.
	shortGap = time.Second
)

// LastBoot tells what happened when in the machine's last boot, in the order of time. A
// machine that never booted has no entries.
func (m *Machine) LastBoot(now time.Time) Boot {
	v := newView(m, now)
	b := Boot{State: m.State(now), Attempt: v.boot.Attempt, OpenedBy: v.boot.OpenedBy}
	b.ID = b.State.BootID
	if v.config == nil {
		return b
	}
	entries := slices.Concat(v.attemptEntries(), v.recordEntries(), v.stageEntries())
	if len(entries) == 0 {
		return b
	}
	sortEntries(entries)
	if !over(b.State.Stage) {
		entries = append(entries, Entry{Time: now, Kind: Now, What: string(b.State.Stage) + after(b.State.Why), Warning: b.State.Stuck})
	}
	explainGaps(entries, b.State)
	b.Entries = slices.Concat(entries, v.eventEntries(entries[0].Time))
	sortEntries(b.Entries)
	return b
}

// over says whether nothing more is awaited of a boot.
func over(s Stage) bool { return s == StageBooted || s == StageOff || s == StageAvailable || s.Ended() }

func sortEntries(all []Entry) {
	slices.SortStableFunc(all, func(a, b Entry) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)))
	})
}

// openedBy says what opened an attempt.
var openedBy = map[string]string{
	"SpecChanged": "the spec changed", "Requested": "it was asked for", "BootDelivery": "the machine booted by itself",
}

// attemptEntries are what the boot status says beside stages and steps.
func (v *view) attemptEntries() []Entry {
	var all []Entry
	b := v.boot
	if b.OpenedTime != nil && b.Attempt > 0 {
		all = append(all, Entry{Time: b.OpenedTime.Time, Kind: Opened, What: fmt.Sprintf("Attempt %d is opened: %s.", b.Attempt, cmp.Or(openedBy[b.OpenedBy], clip(b.OpenedBy), "nothing says why"))})
	}
	if o := b.Offer; o != nil && o.Attempt >= b.Attempt {
		all = append(all, Entry{Time: o.Time.Time, Kind: Offered, What: fmt.Sprintf("A boot is offered to %s (%s).", o.MACAddress, cmp.Or(clip(o.Firmware), "of unknown firmware"))})
	}
	if s := b.Served; s != nil && s.Attempt == b.Attempt {
		all = append(all, Entry{Time: s.Time.Time, Kind: Committed, What: "The one delivery that bootPolicy Once allows is taken."})
	}
	return all
}

// recordEntries are the steps of a boot through the BMC.
func (v *view) recordEntries() []Entry {
	r := v.record
	if r == nil {
		return nil
	}
	times := slices.Clone(r.Steps)
	if !slices.ContainsFunc(times, func(t v1alpha1.NetworkBootTime) bool { return t.Step == r.Step }) {
		times = append(times, v1alpha1.NetworkBootTime{Step: r.Step, Time: r.Since})
	}
	var all []Entry
	for _, t := range times {
		if what := v.stepText(t.Step); what != "" {
			all = append(all, Entry{Time: t.Time.Time, Kind: Milestone(t.Step), What: what, Warning: t.Step == v1alpha1.NetworkBootFailed})
		}
	}
	return all
}

// stepText says what a step does.
func (v *view) stepText(step v1alpha1.NetworkBootStep) string {
	r := v.record
	try := ""
	if r.Try > 1 {
		try = fmt.Sprintf(", try %d", r.Try)
	}
	switch step {
	case v1alpha1.NetworkBootPowerOff:
		return "The machine is switched off" + try + "."
	case v1alpha1.NetworkBootArm:
		return "The BMC is told to boot from the network once" + try + detail(r.Tactic, r.PinnedBy) + "."
	case v1alpha1.NetworkBootPowerOn:
		return "The machine is switched on."
	case v1alpha1.NetworkBootAwaitFetch:
		return "The machine is on."
	case v1alpha1.NetworkBootDelivered:
		return "The operator knows of the delivery; the BMC is told to forget the boot."
	case v1alpha1.NetworkBootFailed:
		return sentence("The boot failed" + after(r.Message))
	}
	return ""
}

// detail says how a BMC was told.
func detail(tactic, pinnedBy string) string {
	switch {
	case tactic == "":
		return ""
	case pinnedBy == "":
		return " (" + tactic + ")"
	}
	return " (" + tactic + ", the URL in " + pinnedBy + ")"
}

// fetches are the milestones of a stage, and what was sent.
var fetches = []struct {
	stage            boot.Stage
	started, through Milestone
	what             string
}{
	{boot.StageIPXEScript, ScriptStarted, ScriptDelivered, "its iPXE script"},
	{boot.StageUKI, UKIStarted, UKIDelivered, "its UKI"},
	{boot.StageIgnition, IgnitionStarted, IgnitionDelivered, "its Ignition"},
	{boot.StageCloudInit, UserDataStarted, UserDataDelivered, "its user data"},
}

// stageEntries are what the server sent in this attempt.
func (v *view) stageEntries() []Entry {
	var all []Entry
	for _, f := range fetches {
		s := v.stage(stageName(f.stage))
		if s == nil {
			continue
		}
		if s.StartedTime != nil && (s.CompletedTime == nil || s.CompletedTime.Sub(s.StartedTime.Time) >= shortGap) {
			all = append(all, Entry{Time: s.StartedTime.Time, Kind: f.started, What: fmt.Sprintf("The machine asks for %s%s.", f.what, from(s))})
		}
		if s.CompletedTime != nil {
			all = append(all, Entry{Time: s.CompletedTime.Time, Kind: f.through, What: fmt.Sprintf("All of %s was sent%s.", f.what, amount(s)), Bytes: size(s)})
		}
	}
	return all
}

// from says where a request came from, and what proved the machine.
func from(s *v1alpha1.BootStage) string {
	text := ""
	if s.ClientAddress != "" {
		text = " from " + s.ClientAddress
	}
	if s.Proof != "" {
		text += ", proof " + s.Proof
	}
	return text
}

func size(s *v1alpha1.BootStage) int64 { return max(s.Size, s.Sent) }

// amount says how much was sent to whom, and how fast where that can be told.
func amount(s *v1alpha1.BootStage) string {
	text := ""
	if s.ClientAddress != "" {
		text = " to " + s.ClientAddress
	}
	if size(s) > 0 {
		text += ": " + Bytes(size(s))
	}
	return text
}

// Bytes is an amount of data for people, in powers of 1024.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, prefix := float64(n)/unit, 0
	for value >= unit && prefix < 3 {
		value, prefix = value/unit, prefix+1
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGT"[prefix])
}

// eventEntries are the warnings since a time: what went well the status tells better.
func (v *view) eventEntries(since time.Time) []Entry {
	var all []Entry
	for _, e := range v.Events {
		if e.Time.Before(since.Add(-eventMargin)) || e.Time.After(v.now) || !e.Warning {
			continue
		}
		what := e.Reason + after(clip(e.Message))
		if !strings.HasPrefix(e.Object, v.config.Kind()+" ") {
			what = e.Object + ", " + what
		}
		if e.Count > 1 {
			what += fmt.Sprintf(" (%d times)", e.Count)
		}
		all = append(all, Entry{Time: e.Time, Kind: EventSeen, What: sentence(what), Warning: true})
	}
	sortEntries(all)
	return all[max(0, len(all)-maxEvents):]
}

// aside are milestones that are no step of the machine's own way: the time between
// two others does not end at them.
var aside = []Milestone{Committed, Delivered, EventSeen}

// explainGaps says of each milestone what came before it.
func explainGaps(all []Entry, now State) {
	last := -1
	for i := range all {
		e := &all[i]
		if slices.Contains(aside, e.Kind) || e.Kind == Opened && last >= 0 {
			continue
		}
		if last >= 0 {
			if took := e.Time.Sub(all[last].Time); took >= shortGap {
				e.Gap = gap(all[last].Kind, *e, took, now)
			}
		}
		last = i
	}
}
