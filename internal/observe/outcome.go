package observe

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// outcome is how a boot ended; empty as long as it did not.
type outcome string

const (
	// completed: everything that the config is for was delivered.
	completed outcome = "completed"
	// incomplete: another attempt was opened before that, and something had been seen of
	// this one.
	incomplete outcome = "incomplete"
	// aborted: somebody said so.
	aborted outcome = "aborted"
)

// The results of stages, as they are counted.
const (
	stageDelivered = "delivered"
	stageCut       = "cut"
	stageContested = "contested"
)

// outcome says how the boot of an attempt ended, as far as the object tells. Of an
// attempt before the last one it tells nothing.
func (s *state) outcome(number int64) outcome {
	b := s.boot()
	switch {
	case number < 1 || number > b.Attempt:
		return ""
	case s.delivered(number):
		return completed
	case b.Aborted == number:
		return aborted
	case number < b.Attempt:
		return incomplete
	}
	return ""
}

// delivered says whether an attempt delivered what the config is for: what the machine
// boots, where that comes from here, and its secret, where the config names one.
func (s *state) delivered(number int64) bool {
	ref := s.cfg.Common().IgnitionSecretRef
	hasSecret := ref != nil && ref.Name != ""
	bytes := s.bootStage()
	switch {
	case s.bootsElsewhere() && !hasSecret:
		return false
	case !s.bootsElsewhere() && (bytes.Attempt != number || bytes.CompletedTime == nil):
		return false
	case !hasSecret:
		return true
	}
	for _, st := range s.boot().Stages {
		if st.Attempt == number && st.CompletedTime != nil && claim.Secret(boot.Stage(st.Name)) {
			return true
		}
	}
	return false
}

// bootsElsewhere says whether what the machine boots is not delivered by this
// operator: a config may be there for its Ignition alone.
func (s *state) bootsElsewhere() bool {
	c := meta.FindStatusCondition(s.cfg.ConfigStatus().Conditions, v1alpha1.ConditionArtifactsReady)
	return c != nil && (c.Reason == v1alpha1.ReasonForeignURL || c.Reason == v1alpha1.ReasonNothingToBoot)
}

// announceOutcome counts the boots that ended with this write, and records their spans.
func (o *Observer) announceOutcome(before, next *state, now time.Time) {
	numbers := []int64{before.boot().Attempt, next.boot().Attempt}
	if numbers[0] == numbers[1] {
		numbers = numbers[1:]
	}
	for _, n := range numbers {
		how := next.outcome(n)
		if how == "" || before.outcome(n) != "" {
			continue
		}
		l := lifeOf(before, next, n, now)
		if how == incomplete && l.seen.IsZero() {
			continue // nobody booted
		}
		o.metrics.boots.WithLabelValues(string(how)).Inc()
		o.opts.Logger.Info("a boot ended", "object", refOf(next.cfg).String(), "boot", boot.NewID(string(next.cfg.GetUID()), n).String(),
			"attempt", n, "result", string(how), "took", l.endOf(how).Sub(l.start).Round(time.Millisecond).String())
		if how == completed && !l.seen.IsZero() {
			o.metrics.bootSeconds.Observe(max(l.end.Sub(l.seen), 0).Seconds())
		}
		o.span(next, n, boot.SpanBoot, l.start, l.endOf(how), errOf(how), "result", string(how))
		if how == aborted {
			o.event(next, corev1.EventTypeWarning, v1alpha1.ReasonBootAborted, next.abortMessage())
		}
	}
}

// errOf is why a boot's span failed.
func errOf(how outcome) error {
	switch how {
	case incomplete:
		return errors.New("another boot attempt was opened before everything was delivered")
	case aborted:
		return errors.New("the boot attempt was aborted")
	case completed:
	}
	return nil
}

// life is when a boot was.
type life struct {
	// start is when its attempt was opened, or when the machine's BMC was first spoken
	// to for it, if that was before; seen is when something was first seen of the boot
	// itself, and zero where nothing was.
	start, seen time.Time
	// end is when its last delivery was complete, superseded when the next attempt was
	// opened, if it was, and now when that was written.
	end, superseded, now time.Time
}

// endOf is when a boot ended. One that nobody went on with is over when its attempt
// closes.
func (l life) endOf(how outcome) time.Time {
	switch how {
	case completed:
		return l.end
	case incomplete:
		if closes := l.start.Add(boot.AttemptLifetime); closes.Before(l.superseded) {
			return closes
		}
		return l.superseded
	case aborted:
	}
	return l.now
}

// lifeOf reads when the boot of an attempt was from an object before and after a write.
func lifeOf(before, next *state, number int64, now time.Time) life {
	l := life{now: now, end: now, superseded: now}
	owner := next
	if next.boot().Attempt != number {
		owner = before
		l.superseded = timeOf(next, now)
	}
	l.start = timeOf(owner, now)
	var mine []v1alpha1.BootStage
	for _, b := range []*v1alpha1.BootStatus{before.boot(), next.boot()} {
		l.look(b, number)
		for _, st := range b.Stages {
			if st.Attempt == number {
				mine = append(mine, st)
			}
		}
	}
	if t := latest(mine); !t.IsZero() {
		l.end = t
	}
	return l
}

// look takes in what a status tells of the beginning of an attempt's boot.
func (l *life) look(b *v1alpha1.BootStatus, number int64) {
	if n := b.NetworkBoot; n != nil && n.Attempt == number {
		for _, step := range n.Steps {
			l.seen = first(l.seen, step.Time.Time)
			l.start = first(l.start, step.Time.Time)
		}
	}
	if b.Offer != nil && b.Offer.Attempt == number {
		l.seen = first(l.seen, b.Offer.Time.Time)
	}
	for _, st := range b.Stages {
		if st.Attempt == number && st.StartedTime != nil {
			l.seen = first(l.seen, st.StartedTime.Time)
		}
	}
}

// timeOf is when the present attempt of a state was opened.
func timeOf(s *state, otherwise time.Time) time.Time {
	if t := s.boot().OpenedTime; t != nil {
		return t.Time
	}
	return otherwise
}

// span records a span of a boot of this object.
func (o *Observer) span(s *state, attempt int64, name boot.SpanName, start, end time.Time, err error, attributes ...string) {
	o.opts.Spans.Record(boot.Span{
		Boot: boot.NewID(string(s.cfg.GetUID()), attempt), Name: name, Start: start, End: end, Err: err,
		Attributes: append([]string{"object", refOf(s.cfg).String(), "attempt", fmt.Sprint(attempt)}, attributes...),
	})
}

// announceStages counts what became of stages with this write.
func (o *Observer) announceStages(before, next *state) {
	for _, st := range next.boot().Stages {
		f, ok := fetched[st.Name]
		if !ok {
			continue
		}
		was := findStage(before.boot().Stages, st.Name)
		switch {
		case st.CompletedTime != nil && (was.Attempt != st.Attempt || was.CompletedTime == nil):
			o.metrics.stages.WithLabelValues(string(st.Name), stageDelivered).Inc()
			if st.StartedTime != nil {
				o.metrics.stageSeconds.WithLabelValues(string(st.Name)).Observe(max(st.CompletedTime.Sub(st.StartedTime.Time), 0).Seconds())
			}
			o.event(next, corev1.EventTypeNormal, f.delivered, fmt.Sprintf("Delivered to %s in attempt %d.", st.ClientAddress, st.Attempt))
		case next.wasCut(st) && !before.wasCut(st):
			o.metrics.stages.WithLabelValues(string(st.Name), stageCut).Inc()
		}
	}
}

// secretStage is the stage in which the present attempt's secret was delivered.
func secretStage(s *state) string {
	if st := firstSecret(s.boot()); st != nil {
		return string(st.Name)
	}
	return string(boot.StageIgnition)
}

// wasCut says whether the condition of a stage tells that it was cut in its attempt.
func (s *state) wasCut(st v1alpha1.BootStage) bool {
	f := fetched[st.Name]
	c := meta.FindStatusCondition(s.cfg.ConfigStatus().Conditions, f.condition)
	return c != nil && c.Reason == f.incomplete && strings.Contains(c.Message, " was cut") &&
		strings.HasSuffix(c.Message, fmt.Sprintf(" in attempt %d.", st.Attempt))
}
