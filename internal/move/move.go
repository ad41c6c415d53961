// Package move takes HTTPBootConfigs, IPXEBootConfigs and the Secrets that they
// name from one cluster to another, so that at no moment both clusters boot a
// machine, and so that a machine whose one boot is spent is not booted again.
//
// Everything that a move has to remember is on the objects themselves: it can be
// killed at any moment, and the same call finishes it.
package move

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What a move writes on objects besides v1alpha1.PausedAnnotation, whose value
// is the name of the move while it runs.
const (
	// MovedFromAnnotation is on an object that the target has taken over: the
	// UID of the source's object, and what tells whether that was changed since.
	MovedFromAnnotation = "boot.ironcore.dev/moved-from"
	// PausedBeforeAnnotation keeps the value with which a user had paused a
	// config; it is paused with it again at the end.
	PausedBeforeAnnotation = "boot.ironcore.dev/paused-before-move"
	// MovingLabel is on the Secrets of the source while a move runs; its value
	// is the name of the move.
	MovingLabel = "boot.ironcore.dev/moving"
)

// FieldManager is the name under which everything but statuses is written.
const FieldManager = "bootctl-move"

// observerManager owns status.boot and what machines fetched. The operator
// writes as this manager too: it must find its own fields.
const observerManager = "boot-operator-observer"

// Options of a move. Source and Target are required.
type Options struct {
	// Source and Target are made by Connect.
	Source, Target client.Client
	// Namespaces are those to move; none means all.
	Namespaces []string
	// RequireOwners refuses objects with an owner that the target does not
	// have. Without it such owner references are left out.
	RequireOwners bool
	// DryRun finds out everything and writes nothing.
	DryRun bool
	// Acknowledge is how long to wait for the source's operator to say that it
	// leaves the paused configs alone; 0 does not wait. An operator that is down
	// says nothing, and that is only noted.
	Acknowledge time.Duration
	// Log is told each step; it may be nil.
	Log func(format string, args ...any)
}

// Run moves. It returns a *Refused, and has written nothing, when something must
// be put right first. After any other error everything that was begun is still
// paused, nothing is lost, and another Run goes on. The report is not nil; after
// an error it says how far the move came.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Source == nil || o.Target == nil {
		return &Report{}, errors.New("a move needs a source and a target cluster")
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	m := &mover{Options: o, source: cluster{o.Source, "source"}, target: cluster{o.Target, "target"}, report: &Report{}}
	if err := m.identify(ctx); err != nil {
		return m.report, err
	}
	m.report.Move = m.id
	p, err := m.plan(ctx)
	if err != nil {
		return m.report, err
	}
	m.report.Rows = p.rows()
	if o.DryRun {
		return m.report, nil
	}
	return m.report, m.carryOut(ctx, p)
}

// mover is one Run.
type mover struct {
	Options
	source, target cluster
	// id names the move; it is the same whenever these two clusters are meant.
	id     string
	report *Report
}

// carryOut does everything that writes, in an order in which an end at any place
// leaves each config with at most one cluster that boots its machine, and each
// object on at least one.
func (m *mover) carryOut(ctx context.Context, p *plan) error {
	for _, step := range []struct {
		what string
		do   func(context.Context, *plan) error
	}{
		{"pausing the source", m.pause},
		{"waiting for the source's operator", m.awaitPause},
		{"creating namespaces", m.createNamespaces},
		{"copying Secrets", m.copySecrets},
		{"copying configs", m.copyConfigs},
		{"linking owners", m.linkOwners},
		{"verifying the target", m.verify},
		{"handing over to the target", m.handOver},
		{"deleting configs from the source", m.deleteConfigs},
		{"deleting Secrets from the source", m.deleteSecrets},
	} {
		m.Log("%s", step.what)
		if err := step.do(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}
