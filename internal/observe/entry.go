package observe

import (
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
	// progress is how far deliveries have come that are under way, where nothing else
	// is new of them; it is not journaled, and may be lost.
	progress progress
	// aliases maps attempts that were renumbered.
	aliases []alias
	// contested and the others are the attempts in which that was reported last.
	contested, ambiguous, translated, noProgram, portChanged int64
	// cuts holds the stages whose last delivery here was cut, with one more than the
	// attempt in which it was.
	cuts    map[v1alpha1.BootStageName]int64
	foreign foreignSeen
	offered offered
	touched time.Time
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
	if p := e.pending.Port; p != nil && e.known.Port == (boot.RelayPort{}) && p.Attempt >= told.Number {
		e.known.Port = p.port()
	}
	return e.known
}

func (e *entry) renumber(from, to int64) {
	e.pending.renumber(from, to)
	e.progress.report.renumber(from, to)
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
	waiting := until(told.BootServedAt) && until(told.SecretServedAt)
	switch {
	case policy == boot.Once:
		// The spec says Once since: only a commit may open an attempt, and what
		// was delivered before belongs to an earlier one.
		return max(told.Number-1, 0), false
	case told.Aborted && told.Number <= o.Number:
		// Somebody ended that one, and no boot opens another.
		return told.Number, false
	case told.Number < o.Number:
		return o.Number, true
	case told.Number == o.Number && apart <= joinWindow:
		return told.Number, false
	case at.Before(told.OpenedAt):
		return told.Number - 1, false
	case told.Aborted:
		return told.Number, false
	case o.Token:
		return o.Number, false
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
	if !out.BootAddr.IsValid() || precedesBoot(known, told) {
		out.BootAddr, out.BootProof = known.BootAddr, known.BootProof
	}
	out.BootServedAt = first(told.BootServedAt, known.BootServedAt)
	if !known.SecretServedAt.IsZero() && (told.SecretServedAt.IsZero() || known.SecretServedAt.Before(told.SecretServedAt)) {
		out.SecretServedAt, out.SecretAddr = known.SecretServedAt, known.SecretAddr
	}
	out.Spent = told.Spent || known.Spent
	out.Ambiguous = told.Ambiguous || known.Ambiguous
	out.Aborted = told.Aborted || known.Aborted
	if out.Port == (boot.RelayPort{}) {
		out.Port = known.Port
	}
	// What is armed for this attempt is used up by what was seen here; what is
	// armed for the next one, the object tells only where this one is used.
	out.Armed = told.Armed && (claim.Used(told) || !claim.Used(out))
	return out
}

// precedesBoot says whether known tells of an earlier complete delivery of boot
// bytes than told.
func precedesBoot(known, told boot.Attempt) bool {
	return known.BootAddr.IsValid() && !known.BootServedAt.IsZero() &&
		(told.BootServedAt.IsZero() || known.BootServedAt.Before(told.BootServedAt))
}

func first(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// open begins an attempt that only this replica knows of so far. The port stays
// where it was seen, and a URL in the BMC in force until the object says
// otherwise.
func (e *entry) open(c boot.Client, now time.Time) boot.Attempt {
	e.known = boot.Attempt{Number: e.known.Number + 1, OpenedAt: micro(now).Time, Port: e.known.Port, Armed: e.known.Armed}
	e.pending.Opening = &opening{
		Number: e.known.Number, Time: *micro(now), Addr: addrText(c.Addr), Proof: proofText(c.Proof), Token: c.Attempt == e.known.Number,
	}
	e.version++
	return e.known
}

// add takes in an observation. It returns false when it says nothing new.
func (e *entry) add(o boot.Observation) bool {
	o.Attempt = e.resolve(o.Attempt)
	changed := false
	switch o.Stage {
	case boot.StageUKI, boot.StageIPXEScript, boot.StageIgnition, boot.StageCloudInit:
		changed = e.addStage(o)
		e.witness(o)
	case boot.StageOffer:
		changed = e.addOffer(o)
	case boot.StageForeignOffer:
		changed = e.addForeign(o)
	case boot.StageNoProgram:
		changed = note(&e.pending.NoProgram, &e.noProgram, o, noticeOf)
	case boot.StagePortChanged:
		changed = note(&e.pending.PortChanged, &e.portChanged, o, noticeOf)
	case boot.StageContested:
		changed = note(&e.pending.Contested, &e.contested, o, sightingOf)
	case boot.StageAmbiguous:
		changed = note(&e.pending.Ambiguous, &e.ambiguous, o, sightingOf)
		e.witness(o)
	case boot.StageTranslated:
		changed = note(&e.pending.Translated, &e.translated, o, sightingOf)
	}
	if changed {
		e.version++
	}
	return changed
}

// note keeps what went wrong, once for an attempt, as a sighting of some kind.
func note(kept **sighting, seen *int64, o boot.Observation, as func(boot.Observation) *sighting) bool {
	if !first64(seen, o.Attempt) {
		return false
	}
	*kept = as(o)
	return true
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
	before := e.stage(name)
	after := mergeStage(before, stageOf(o))
	turned := e.turns(o, after)
	switch {
	case turned || !sameStage(before, after):
		e.pending.Stages = putStage(e.pending.Stages, after)
		e.pending.setCut(name, !o.Complete && !o.UnderWay && after.CompletedTime == nil)
		changed = true
	case after.Sent != before.Sent || after.Size != before.Size:
		e.progress.Stages = putStage(e.progress.Stages, after)
	}
	seen := *sightingOf(o)
	if seen.Attempt >= e.lastSeen.Attempt && (seen.Addr != e.lastSeen.Addr || (seen.Proof != "" && seen.Proof != e.lastSeen.Proof)) {
		e.lastSeen, e.pending.Last = seen, &seen
		changed = true
	}
	return changed
}

// stage is what is known of a stage, written or not.
func (e *entry) stage(name v1alpha1.BootStageName) v1alpha1.BootStage {
	s := findStage(e.pending.Stages, name)
	if s.Attempt < 0 {
		s = findStage(e.written, name)
	}
	return mergeStage(s, findStage(e.progress.Stages, name))
}

// witness makes what was seen of the present attempt count at once here.
func (e *entry) witness(o boot.Observation) {
	if e.known.Number == 0 {
		e.known.Number = o.Attempt
	}
	if o.Attempt != e.known.Number {
		return
	}
	unused := !claim.Used(e.known)
	switch {
	case o.Stage == boot.StageAmbiguous:
		e.known.Ambiguous = true
	case claim.BootBytes(e.ref.Kind, o.Stage):
		e.bind(v1alpha1.BootStageName(o.Stage))
		if o.Complete {
			e.known.BootServedAt = first(e.known.BootServedAt, micro(o.Time).Time)
		}
	case o.Complete && claim.Secret(o.Stage) && (e.known.SecretServedAt.IsZero() || o.Time.Before(e.known.SecretServedAt)):
		e.known.SecretServedAt, e.known.SecretAddr = micro(o.Time).Time, boot.CanonicalAddr(o.Addr)
	}
	if unused && claim.Used(e.known) {
		e.known.Armed = false
	}
}

// bind binds the attempt to who got its boot bytes, if that was proven: the
// first complete delivery, or else the first, as everyone sees it in the end.
func (e *entry) bind(name v1alpha1.BootStageName) {
	s := e.stage(name)
	addr, proof := claim.BootClient(s)
	if s.Attempt == e.known.Number && proof >= boot.Address {
		e.known.BootAddr, e.known.BootProof = addr, proof
	}
}

// settle notes that this report, of this version, was written, and what the
// object says now. It returns true when nothing is pending any more.
func (e *entry) settle(now *state, written report, version uint64) bool {
	b := now.boot()
	e.written = b.Stages
	if e.version == version {
		e.pending = report{}
	}
	e.progress.settle(now.boot())
	// What was told of must not be told again with what came since.
	for i, s := range e.pending.sightings() {
		if *s != nil && *s == *written.sightings()[i] {
			*s = nil
		}
	}
	if e.pending.Port == nil {
		e.known.Port = now.attempt().Port // the object may have had another, or refused
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
		o := boot.Observation{Attempt: s.Attempt, Stage: boot.Stage(s.Name)}
		o.Addr, _ = claim.BootClient(s)
		if s.CompletedTime != nil {
			o.Complete, o.Time = true, s.CompletedTime.Time
		}
		e.witness(o)
	}
	if p := pending.Port; p != nil {
		e.known.Port = p.port()
	}
	if o := pending.Offer; o != nil {
		e.offered.first(o.Attempt, clientOf(o))
	}
	if a := pending.Ambiguous; a != nil {
		e.witness(boot.Observation{Attempt: a.Attempt, Stage: boot.StageAmbiguous})
	}
	return e
}
