package observe

import (
	"net/netip"
	"time"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

const (
	// joinWindow is how far apart two replicas may open the same attempt for
	// one boot: the firmware's HEAD went to one, its GET to the other. No
	// machine boots twice in it.
	joinWindow = 10 * time.Second
	// maxAliases is how many renumbered attempts of one object are remembered
	// for deliveries that began before.
	maxAliases = 8
)

// entry is what this replica knows of one object beyond what its cache says.
// Its methods do no I/O and are called under the observer's lock.
type entry struct {
	ref boot.Ref
	// known is the newest attempt that this replica opened, wrote or read.
	known boot.Attempt
	// written are the stages as the object had them when it was last read; what
	// they already tell is not written again.
	written  []v1alpha1.BootStage
	lastSeen sighting
	// pending is what is not written yet; version changes with it.
	pending report
	version uint64
	// aliases maps attempts that were renumbered.
	aliases []alias
	// contested and ambiguous are the attempts in which that was reported last.
	contested, ambiguous int64
	touched              time.Time
}

type alias struct{ from, to int64 }

// learn takes in an attempt that the object told, places a pending opening
// against it, and returns the newest attempt known.
func (e *entry) learn(told boot.Attempt, policy boot.Policy) boot.Attempt {
	if o := e.pending.Opening; o != nil {
		number, opens := place(*o, told, policy)
		if number != o.Number {
			e.renumber(o.Number, number)
		}
		if !opens {
			e.pending.Opening = nil
			e.version++
		}
		if !opens && number != told.Number {
			e.known = told
		}
	}
	e.known = newer(told, e.known)
	return e.known
}

func (e *entry) renumber(from, to int64) {
	e.pending.renumber(from, to)
	e.version++
	if e.known.Number == from {
		e.known.Number = to
	}
	e.alias(from, to)
}

// alias makes later observations of attempt from count for attempt to. An
// attempt that moved back left its number to a later one, and what is seen from
// now on is of that.
func (e *entry) alias(from, to int64) {
	if from >= to {
		return
	}
	e.aliases = append(e.aliases, alias{from, to})
	if len(e.aliases) > maxAliases {
		e.aliases = e.aliases[1:]
	}
}

func (e *entry) resolve(number int64) int64 {
	for _, a := range e.aliases {
		if a.from == number {
			number = a.to
		}
	}
	return number
}

// place says which attempt a boot belongs to that this replica took for attempt
// o.Number, now that the object tells of another, and whether it opens it.
func place(o opening, told boot.Attempt, policy boot.Policy) (number int64, opens bool) {
	at := o.Time.Time
	apart := at.Sub(told.OpenedAt).Abs()
	until := func(t time.Time) bool { return t.IsZero() || t.After(at) }
	waiting := until(told.UKIServedAt) && until(told.SecretServedAt)
	switch {
	case policy == boot.Once:
		// The spec says Once since: only a commit may open an attempt, and what
		// was delivered before belongs to an earlier one.
		return max(told.Number-1, 0), false
	case told.Number < o.Number:
		return o.Number, true
	case told.Number == o.Number && apart <= joinWindow:
		return told.Number, false
	case at.Before(told.OpenedAt):
		return told.Number - 1, false
	case waiting && told.Open(at):
		return told.Number, false
	default:
		return told.Number + 1, true
	}
}

// newer joins two accounts of an object's attempt: the higher number wins; what
// happened in one attempt never unhappens. told is what the object says.
func newer(told, known boot.Attempt) boot.Attempt {
	switch {
	case told.Number > known.Number:
		return told
	case known.Number > told.Number && !known.OpenedAt.IsZero():
		return known
	case known.Number != told.Number:
		return told
	}
	out := told
	if out.OpenedAt.IsZero() {
		out.OpenedAt = known.OpenedAt
	}
	out.UKIServedAt = first(told.UKIServedAt, known.UKIServedAt)
	if !known.SecretServedAt.IsZero() && (told.SecretServedAt.IsZero() || known.SecretServedAt.Before(told.SecretServedAt)) {
		out.SecretServedAt, out.SecretAddr = known.SecretServedAt, known.SecretAddr
	}
	out.Spent = told.Spent || known.Spent
	out.Ambiguous = told.Ambiguous || known.Ambiguous
	return out
}

func first(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// open begins an attempt that only this replica knows of so far.
func (e *entry) open(addr netip.Addr, proof boot.Proof, now time.Time) boot.Attempt {
	e.known = boot.Attempt{Number: e.known.Number + 1, OpenedAt: micro(now).Time}
	e.pending.Opening = &opening{Number: e.known.Number, Time: *micro(now), Addr: addrText(addr), Proof: proof.String()}
	e.version++
	return e.known
}

// add takes in an observation. It returns false when it says nothing new.
func (e *entry) add(o boot.Observation) bool {
	o.Attempt = e.resolve(o.Attempt)
	changed := false
	switch o.Stage {
	case boot.StageUKI, boot.StageIPXEScript, boot.StageIgnition:
		changed = e.addStage(o)
	case boot.StageContested:
		changed = first64(&e.contested, o.Attempt)
		if changed {
			e.pending.Contested = sightingOf(o)
		}
	case boot.StageAmbiguous:
		changed = first64(&e.ambiguous, o.Attempt)
		if changed {
			e.pending.Ambiguous = sightingOf(o)
		}
	}
	if changed {
		e.version++
	}
	e.witness(o)
	return changed
}

// first64 says whether attempt is later than seen, and remembers it. seen holds
// one more than the attempt, so that attempt 0 can be seen too.
func first64(seen *int64, attempt int64) bool {
	if attempt < *seen {
		return false
	}
	*seen = attempt + 1
	return true
}

func (e *entry) addStage(o boot.Observation) bool {
	changed := false
	name := v1alpha1.BootStageName(o.Stage)
	before := findStage(e.pending.Stages, name)
	if before.Attempt < 0 {
		before = findStage(e.written, name)
	}
	if after := mergeStage(before, stageOf(o)); !sameStage(before, after) {
		e.pending.Stages = putStage(e.pending.Stages, after)
		changed = true
	}
	seen := *sightingOf(o)
	if seen.Attempt >= e.lastSeen.Attempt && (seen.Addr != e.lastSeen.Addr || (seen.Proof != "" && seen.Proof != e.lastSeen.Proof)) {
		e.lastSeen, e.pending.Last = seen, &seen
		changed = true
	}
	return changed
}

// witness makes what was seen of the present attempt count at once here.
func (e *entry) witness(o boot.Observation) {
	if e.known.Number == 0 {
		e.known.Number = o.Attempt
	}
	if o.Attempt != e.known.Number {
		return
	}
	switch {
	case o.Stage == boot.StageAmbiguous:
		e.known.Ambiguous = true
	case o.Complete && o.Stage == boot.StageIgnition && (e.known.SecretServedAt.IsZero() || o.Time.Before(e.known.SecretServedAt)):
		e.known.SecretServedAt, e.known.SecretAddr = micro(o.Time).Time, boot.CanonicalAddr(o.Addr)
	case o.Complete && claim.BootBytes(e.ref.Kind, o.Stage):
		e.known.UKIServedAt = first(e.known.UKIServedAt, micro(o.Time).Time)
	}
}

// settle notes that the report of this version was written, and what the
// object says now. It returns true when nothing is pending any more.
func (e *entry) settle(now *state, version uint64) bool {
	b := now.boot()
	e.written = b.Stages
	if e.version == version {
		e.pending = report{}
	}
	if e.pending.Last == nil {
		e.lastSeen = sighting{Attempt: b.Attempt, Addr: b.LastClientAddress, Proof: b.Proof}
	}
	e.learn(now.attempt(), now.policy())
	return e.pending.empty()
}

// restore rebuilds an entry from what the journal held.
func restore(ref boot.Ref, pending report) *entry {
	e := &entry{ref: ref, pending: pending}
	if o := pending.Opening; o != nil {
		e.known = boot.Attempt{Number: o.Number, OpenedAt: o.Time.Time}
	}
	for _, s := range pending.Stages {
		if s.CompletedTime == nil {
			continue
		}
		addr, _ := netip.ParseAddr(s.ClientAddress) // written by addrText
		e.witness(boot.Observation{Attempt: s.Attempt, Stage: boot.Stage(s.Name), Complete: true, Addr: addr, Time: s.CompletedTime.Time})
	}
	if a := pending.Ambiguous; a != nil {
		e.witness(boot.Observation{Attempt: a.Attempt, Stage: boot.StageAmbiguous})
	}
	return e
}
