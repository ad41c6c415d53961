package observe

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the observer.
type metrics struct {
	flushErrors, journalErrors prometheus.Counter
	applies, commits, opened   *prometheus.CounterVec
}

// newMetrics registers the metrics; a nil registerer keeps them private.
func newMetrics(r prometheus.Registerer, pending func() int) (*metrics, error) {
	const ns, sub = "boot_operator", "observer"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		flushErrors:   counter("flush_errors_total", "Writes of pending reports that failed and will be tried again."),
		journalErrors: counter("journal_errors_total", "Writes to the journal on disk that failed; the reports are then in memory only."),
		applies:       vector("applies_total", "Status applies, by result: applied, conflict, error.", "result"),
		commits:       vector("commits_total", "Commits of bootPolicy Once, by result: committed, spent, closed, unavailable, other.", "result"),
		opened:        vector("attempts_opened_total", "Boot attempts written to objects, by what opened them.", "cause"),
	}
	if r == nil {
		return m, nil
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "pending_objects",
		Help: "Objects with reports that are on disk and not written to the API server yet."},
		func() float64 { return float64(pending()) })
	var errs []error
	for _, c := range []prometheus.Collector{m.flushErrors, m.journalErrors, m.applies, m.commits, m.opened, gauge} {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registering observer metrics: %w", err)
	}
	return m, nil
}
