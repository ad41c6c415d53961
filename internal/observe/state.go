package observe

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// What opens an attempt, as status.boot.openedBy says it.
const (
	causeSpecChanged  = "SpecChanged"
	causeRequested    = "Requested"
	causeBootDelivery = "BootDelivery"
)

// bootMargin is the time that an attempt must have left for a boot to start in
// it: the secret is asked for minutes after the boot bytes, and an attempt that
// closes in between would leave the machine half installed.
const bootMargin = 10 * time.Minute

// maxRequest is the length of status.boot.request.
const maxRequest = 256

// fetched maps a stage to its condition and its reasons.
var fetched = map[v1alpha1.BootStageName]struct{ condition, delivered, incomplete string }{
	v1alpha1.BootStageName(boot.StageUKI): {
		v1alpha1.ConditionUKIFetched, v1alpha1.ReasonUKIDelivered, v1alpha1.ReasonUKIDeliveryIncomplete},
	v1alpha1.BootStageName(boot.StageIPXEScript): {
		v1alpha1.ConditionIPXEScriptFetched, v1alpha1.ReasonIPXEScriptDelivered, v1alpha1.ReasonIPXEScriptIncomplete},
	v1alpha1.BootStageName(boot.StageIgnition): {
		v1alpha1.ConditionIgnitionDataFetched, v1alpha1.ReasonIgnitionDataDelivered, v1alpha1.ReasonIgnitionDeliveryStarted},
	v1alpha1.BootStageName(boot.StageCloudInit): {
		v1alpha1.ConditionCloudInitFetched, v1alpha1.ReasonCloudInitDelivered, v1alpha1.ReasonCloudInitIncomplete},
}

// owned are the conditions that only the observer writes.
var owned = []string{
	v1alpha1.ConditionUKIFetched, v1alpha1.ConditionIPXEScriptFetched,
	v1alpha1.ConditionIgnitionDataFetched, v1alpha1.ConditionCloudInitFetched,
	v1alpha1.ConditionClientAddressAmbiguous, v1alpha1.ConditionForeignBootOffer,
}

// state is an object as it was read, whose owned part of the status is worked
// on. Its methods do no I/O.
type state struct{ cfg v1alpha1.Config }

// stateOf returns a state that shares nothing with cfg.
func stateOf(cfg v1alpha1.Config) *state {
	return &state{cfg: cfg.DeepCopyObject().(v1alpha1.Config)} //nolint:forcetypeassert // a copy is of the same type
}

// boot returns the boot status, to be read or changed.
func (s *state) boot() *v1alpha1.BootStatus {
	status := s.cfg.ConfigStatus()
	if status.Boot == nil {
		status.Boot = &v1alpha1.BootStatus{}
	}
	return status.Boot
}

func (s *state) attempt() boot.Attempt { return claim.Attempt(s.cfg) }

func (s *state) policy() boot.Policy { return boot.Policy(s.cfg.Common().BootPolicy) }

// conditions returns the owned conditions.
func (s *state) conditions() []metav1.Condition {
	var out []metav1.Condition
	for _, c := range s.cfg.ConfigStatus().Conditions {
		if slices.Contains(owned, c.Type) {
			out = append(out, c)
		}
	}
	return out
}

// same says whether the owned part of two states is equal.
func (s *state) same(other *state) bool {
	return equality.Semantic.DeepEqual(s.boot(), other.boot()) &&
		equality.Semantic.DeepEqual(s.conditions(), other.conditions())
}

// set sets a condition of the present generation.
func (s *state) set(now time.Time, kind string, value bool, reason, message string) {
	status := metav1.ConditionFalse
	if value {
		status = metav1.ConditionTrue
	}
	if c := meta.FindStatusCondition(s.cfg.ConfigStatus().Conditions, kind); c != nil && c.Status == status && c.Reason == reason && c.Message == message {
		return
	}
	meta.SetStatusCondition(&s.cfg.ConfigStatus().Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: s.cfg.GetGeneration(), LastTransitionTime: metav1.NewTime(now),
	})
}

// open begins an attempt. What was seen of earlier ones stays in the stages,
// which say their attempt; nothing of it counts for this one. Only the port
// stays over an attempt that a boot opens.
func (s *state) open(number int64, at, now time.Time, cause string) {
	b := s.boot()
	b.Attempt, b.OpenedTime, b.OpenedBy = number, micro(at), cause
	b.SecretAddress, b.Aborted = "", 0
	s.name()
	if cause != causeBootDelivery {
		b.RelayPort = nil
	}
	s.clearForeign(number, cause, now)
	if s.attempt().Ambiguous {
		s.set(now, v1alpha1.ConditionClientAddressAmbiguous, false, v1alpha1.ReasonOneMachine,
			fmt.Sprintf("No request for another machine came from this machine's address since attempt %d was opened.", number))
	}
	s.derive(&report{}, now)
}

// name gives the present attempt its ID. An object that came from another cluster has
// another UID than the one that its ID was made of.
func (s *state) name() {
	if b := s.boot(); b.Attempt > 0 {
		b.ID = boot.NewID(string(s.cfg.GetUID()), b.Attempt).String()
	}
}

// openForSpec begins an attempt when the spec or the annotation asks for one
// that was not opened yet. Removing the annotation asks for nothing.
func (s *state) openForSpec(now time.Time) {
	b := s.boot()
	request := requestOf(s.cfg)
	cause := ""
	switch {
	case s.cfg.GetGeneration() != b.OpenedGeneration:
		cause = causeSpecChanged
	case request != b.Request && request != "":
		cause = causeRequested
	}
	b.OpenedGeneration, b.Request = s.cfg.GetGeneration(), request
	if cause != "" {
		s.open(b.Attempt+1, now, now, cause)
	}
}

// asksForAttempt says whether openForSpec or abortIfAsked would change anything.
func asksForAttempt(cfg v1alpha1.Config) bool {
	b := cfg.ConfigStatus().Boot
	if b == nil {
		b = &v1alpha1.BootStatus{}
	}
	return cfg.GetGeneration() != b.OpenedGeneration || requestOf(cfg) != b.Request || asksToAbort(cfg)
}

// paused says whether the operator is to leave this object alone.
func paused(cfg v1alpha1.Config) bool {
	_, ok := cfg.GetAnnotations()[v1alpha1.PausedAnnotation]
	return ok
}

// requestOf is the value of the annotation as status.boot.request keeps it: a
// value that is too long for it by its digest.
func requestOf(cfg v1alpha1.Config) string {
	v := cfg.GetAnnotations()[v1alpha1.RequestBootAnnotation]
	if len(v) <= maxRequest {
		return v
	}
	sum := sha256.Sum256([]byte(v))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// apply adds a report whose opening has been placed, see place.
func (s *state) apply(r *report, now time.Time) {
	b := s.boot()
	s.pin(r.Port)
	if r.Opening != nil && r.Opening.Number > b.Attempt {
		s.open(r.Opening.Number, r.Opening.Time.Time, now, causeBootDelivery)
		s.sight(r.Opening.Addr, r.Opening.Proof)
	}
	if r.Last != nil && !r.Last.Time.Time.Before(latest(b.Stages)) {
		s.sight(r.Last.Addr, r.Last.Proof)
	}
	for _, st := range r.Stages {
		// An attempt that the object does not know was never opened: a cut
		// delivery whose commit did not come about.
		st.Attempt = min(st.Attempt, b.Attempt)
		b.Stages = putStage(b.Stages, mergeStage(findStage(b.Stages, st.Name), st))
	}
	if st := firstSecret(b); st != nil {
		b.SecretAddress = st.ClientAddress
	}
	b.Offer = mergeOffer(b.Offer, r.Offer)
	s.nameInterface()
	s.foreign(r.Foreign, now)
	if r.Ambiguous != nil && r.Ambiguous.Attempt >= b.Attempt {
		s.set(now, v1alpha1.ConditionClientAddressAmbiguous, true, v1alpha1.ReasonSeveralMachines,
			fmt.Sprintf("Requests for several machines came from %s in attempt %d: the address proves nothing, and no secret is served by it until a new attempt is opened.", r.Ambiguous.Addr, b.Attempt))
	}
	s.translated(r, now)
	s.derive(r, now)
}

// firstSecret returns the first complete delivery of a secret in the present
// attempt, or nil.
func firstSecret(b *v1alpha1.BootStatus) *v1alpha1.BootStage {
	var won *v1alpha1.BootStage
	for i := range b.Stages {
		st := &b.Stages[i]
		if st.Attempt != b.Attempt || st.CompletedTime == nil || !claim.Secret(boot.Stage(st.Name)) {
			continue
		}
		if won == nil || precedes(*st, *won) {
			won = st
		}
	}
	return won
}

// sight notes the last client.
func (s *state) sight(addr, proof string) {
	b := s.boot()
	if addr != "" {
		b.LastClientAddress = addr
	}
	if proof != "" {
		b.Proof = proof
	}
}

// derive makes the conditions say what the stages say, of which a report has just
// told some.
func (s *state) derive(told *report, now time.Time) {
	b := s.boot()
	aborted := s.attempt().Aborted
	for _, st := range b.Stages {
		f, ok := fetched[st.Name]
		if !ok {
			continue
		}
		switch {
		case aborted && (st.Attempt != b.Attempt || st.CompletedTime == nil):
			s.setAborted(f.condition, now)
		case st.Attempt != b.Attempt:
			s.set(now, f.condition, false, v1alpha1.ReasonNewAttempt,
				fmt.Sprintf("Not delivered in attempt %d yet; last seen in attempt %d from %s.", b.Attempt, st.Attempt, st.ClientAddress))
		case st.CompletedTime == nil:
			s.unfinished(st, told, now)
		default:
			s.set(now, f.condition, true, f.delivered,
				fmt.Sprintf("Delivered to %s in attempt %d.", st.ClientAddress, b.Attempt))
		}
	}
}

// latest is the newest time that stages tell of.
func latest(stages []v1alpha1.BootStage) time.Time {
	var t time.Time
	for _, s := range stages {
		for _, m := range []*metav1.MicroTime{s.StartedTime, s.CompletedTime} {
			if m != nil && m.After(t) {
				t = m.Time
			}
		}
	}
	return t
}

// commitment is the one delivery that asks to be allowed to finish.
type commitment struct {
	attempt  boot.Attempt
	digest   boot.Digest
	addr     netip.Addr
	delivery string
}

// commit consumes the one delivery of the present attempt; the state is
// unchanged where this delivery has done so before. An attempt that is unspent
// but has no time left is replaced by the next in the same step. It returns
// boot.ErrSpent, boot.ErrNotReady when there never was an attempt, and
// boot.ErrClosed when the control plane opened another attempt since the
// delivery began, since these bytes may be of an older spec, and must not consume
// it; where that attempt was aborted; and where the object is paused, which may be
// moving to another cluster.
func (s *state) commit(c commitment, now time.Time) error {
	b, cur := s.boot(), s.attempt()
	if b.Served != nil && b.Served.Delivery == c.delivery {
		return nil
	}
	switch {
	case paused(s.cfg):
		return fmt.Errorf("%w: the object is paused", boot.ErrClosed)
	case cur.Number == 0:
		return fmt.Errorf("%w: no boot attempt was opened yet", boot.ErrNotReady)
	case cur.Spent:
		return boot.ErrSpent
	case cur.Aborted:
		return errAborted(cur)
	case c.attempt.Number < cur.Number, c.attempt.Number == cur.Number && b.OpenedBy == causeSpecChanged && !sameInstant(c.attempt.OpenedAt, cur.OpenedAt):
		return fmt.Errorf("%w: attempt %d was opened during the delivery", boot.ErrClosed, cur.Number)
	}
	if rearms(cur, now) {
		s.open(cur.Number+1, now, now, causeBootDelivery)
	}
	b.Served = &v1alpha1.BootServed{
		Attempt: b.Attempt, Digest: string(c.digest), Delivery: c.delivery,
		ClientAddress: addrText(c.addr), Time: *micro(now),
	}
	s.sight(addrText(c.addr), "")
	return nil
}

// rearms says whether a boot opens the next attempt because this one, unspent,
// has no time left for it. Where a secret was fetched nothing re-arms by itself.
func rearms(a boot.Attempt, now time.Time) bool {
	return a.SecretServedAt.IsZero() && lapsing(a, now)
}

// lapsing says whether the attempt has too little time left for a boot.
func lapsing(a boot.Attempt, now time.Time) bool {
	return now.After(a.OpenedAt.Add(boot.AttemptLifetime - bootMargin))
}

func sameInstant(a, b time.Time) bool {
	return a.Truncate(time.Microsecond).Equal(b.Truncate(time.Microsecond))
}
