package host

import (
	"context"
	"errors"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// The results of steps, as they are counted.
const (
	resultDone    = "done"
	resultAgain   = "again" // an earlier step has to be taken once more
	resultRetried = "retried"
	resultFailed  = "failed"
	resultAborted = "aborted"
	resultOffline = "offline" // the host was switched off meanwhile
)

// order is how the steps follow each other.
var order = []v1alpha1.NetworkBootStep{
	v1alpha1.NetworkBootPowerOff, v1alpha1.NetworkBootArm, v1alpha1.NetworkBootPowerOn,
	v1alpha1.NetworkBootAwaitFetch, v1alpha1.NetworkBootDelivered,
}

// to writes the record with its next step.
func (n *netboot) to(ctx context.Context, step v1alpha1.NetworkBootStep) error {
	result := resultDone
	if slices.Index(order, step) < slices.Index(order, n.record.Step) {
		result = resultAgain
	}
	return n.leave(ctx, step, result, nil)
}

// tryAgain writes the record of the next try, which begins with this step.
func (n *netboot) tryAgain(ctx context.Context, step v1alpha1.NetworkBootStep, why string) error {
	return n.leave(ctx, step, resultRetried, errors.New(why))
}

// leave writes the record with its next step, and then tells what became of the one
// that was taken last.
func (n *netboot) leave(ctx context.Context, step v1alpha1.NetworkBootStep, result string, err error) error {
	was, now := n.record, metav1.NewMicroTime(n.Clock.Now())
	steps := slices.Clone(was.Steps)
	if result == resultRetried {
		steps = nil // of the present try only
	}
	n.record.Step, n.record.Since, n.record.Steps = step, now, putStep(steps, step, now)
	if err := n.write(ctx); err != nil {
		return err
	}
	n.left(was, result, err)
	return nil
}

// putStep notes when a step began last.
func putStep(steps []v1alpha1.NetworkBootTime, step v1alpha1.NetworkBootStep, at metav1.MicroTime) []v1alpha1.NetworkBootTime {
	steps = slices.DeleteFunc(steps, func(t v1alpha1.NetworkBootTime) bool { return t.Step == step })
	return append(steps, v1alpha1.NetworkBootTime{Step: step, Time: at})
}

// left counts, records and logs the step that was left. The record is of before.
func (n *netboot) left(was v1alpha1.NetworkBoot, result string, err error) {
	log := []any{"host", n.host.Namespace + "/" + n.host.Name, "request", n.record.Request, "step", string(n.record.Step), "try", n.record.Try}
	if id, ok := n.bootID(); ok {
		log = append(log, "boot", id.String())
	}
	if err != nil {
		log = append(log, "result", result, "reason", clip(err.Error()))
	}
	n.Logger.Info("took a step of a network boot", log...)
	if was.Step == "" || was.Step == v1alpha1.NetworkBootDelivered || was.Step == v1alpha1.NetworkBootFailed {
		return
	}
	n.metrics.left(was.Step, result, n.record.Since.Sub(was.Since.Time))
	n.spans(was, err)
}

// spans records the spans of the step that was left. How the machine was switched off
// is told with arming: only then it is known which attempt that was for.
func (n *netboot) spans(was v1alpha1.NetworkBoot, err error) {
	id, ok := n.bootID()
	name, known := spanNames[was.Step]
	if !ok || !known || was.Step == v1alpha1.NetworkBootPowerOff && err == nil {
		return
	}
	record := func(name boot.SpanName, start, end time.Time, err error) {
		n.Spans.Record(boot.Span{Boot: id, Name: name, Start: start, End: end, Err: err, Attributes: []string{
			"object", n.booted().Kind() + " " + n.host.Namespace + "/" + n.host.Name, "tactic", was.Tactic,
		}})
	}
	if was.Step == v1alpha1.NetworkBootArm {
		if i := slices.IndexFunc(was.Steps, func(t v1alpha1.NetworkBootTime) bool { return t.Step == v1alpha1.NetworkBootPowerOff }); i >= 0 {
			record(boot.SpanPowerOff, was.Steps[i].Time.Time, was.Since.Time, nil)
		}
	}
	record(name, was.Since.Time, n.record.Since.Time, err)
}

var spanNames = map[v1alpha1.NetworkBootStep]boot.SpanName{
	v1alpha1.NetworkBootPowerOff: boot.SpanPowerOff, v1alpha1.NetworkBootArm: boot.SpanArm,
	v1alpha1.NetworkBootPowerOn: boot.SpanPowerOn, v1alpha1.NetworkBootAwaitFetch: boot.SpanAwait,
}

// booted is the config that the present record's tactic boots.
func (n *netboot) booted() child { return n.children.booted(&n.record) }

// bootID is the ID of the boot that the record is about; false where its attempt is
// not known yet.
func (n *netboot) bootID() (boot.ID, bool) {
	c := n.booted()
	if c == nil || n.record.Attempt < 1 {
		return boot.ID{}, false
	}
	return boot.NewID(string(c.GetUID()), n.record.Attempt), true
}
