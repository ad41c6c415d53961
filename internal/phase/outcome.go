package phase

import (
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// Outcome is what a step returns where nil or a plain error says too little. It
// travels as an error, as io.EOF does; Done is not one.
type Outcome struct {
	status   metav1.ConditionStatus
	reason   string
	message  string
	after    time.Duration
	terminal bool
	halt     bool
	warn     bool
	retry    error
}

// Done says that the condition is True for this reason.
func Done(reason, format string, args ...any) *Outcome {
	return &Outcome{status: metav1.ConditionTrue, reason: reason, message: fmt.Sprintf(format, args...)}
}

// Wait says that something else has to happen first: the condition is False and
// the config is looked at again after this time, or when something wakes it; 0
// means only then.
func Wait(reason string, after time.Duration, err error) *Outcome {
	return &Outcome{status: metav1.ConditionFalse, reason: reason, message: err.Error(), after: after}
}

// Terminal says that trying again does not help until something that the step
// read changes.
func Terminal(reason string, err error) *Outcome {
	return &Outcome{status: metav1.ConditionFalse, reason: reason, message: err.Error(), terminal: true}
}

// Halt is Terminal, and no later step runs: what they do must not be done for
// this config.
func Halt(reason string, err error) *Outcome {
	o := Terminal(reason, err)
	o.halt = true
	return o
}

// Hold is Halt for what is as somebody wants it: the state is Pending.
func Hold(reason string, err error) *Outcome {
	o := Halt(reason, err)
	o.terminal = false
	return o
}

// Retry says that trying again may help: the condition is False for this reason
// and the config comes back with backoff.
func Retry(reason string, err error) *Outcome {
	return &Outcome{status: metav1.ConditionFalse, reason: reason, message: err.Error(), retry: err}
}

// Again makes a config come back after this time whatever the outcome, for
// periodic checks; 0 changes nothing.
func (o *Outcome) Again(after time.Duration) *Outcome {
	if after > 0 && (o.after == 0 || after < o.after) {
		o.after = after
	}
	return o
}

// Warn makes the event of this outcome a warning even though it is Done.
func (o *Outcome) Warn() *Outcome {
	o.warn = true
	return o
}

// But makes a config come back with backoff because of err, although the
// outcome stands.
func (o *Outcome) But(err error) *Outcome {
	o.retry = err
	return o
}

// Error is the message of the outcome.
func (o *Outcome) Error() string { return o.message }

// Unwrap is the error to try again for, if there is one.
func (o *Outcome) Unwrap() error { return o.retry }

// outcomeOf reads what a step returned.
func outcomeOf(condition string, err error) Outcome {
	var o *Outcome
	switch {
	case err == nil:
		return *Done(reasonTrue(condition), "")
	case errors.As(err, &o):
		return *o
	}
	return *Retry(v1alpha1.ReasonFailed, err)
}

func reasonTrue(condition string) string {
	if condition == v1alpha1.ConditionArtifactsReady {
		return v1alpha1.ReasonArtifactsVerified
	}
	return condition // Ready, IgnitionValid and Identifiable are reasons too
}

// IsDone says whether a step's return means True.
func IsDone(err error) bool {
	return outcomeOf("", err).status == metav1.ConditionTrue
}
