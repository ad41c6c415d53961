package observe

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// metrics of the observer.
type metrics struct {
	flushErrors, journalErrors prometheus.Counter
	applies, commits, opened   *prometheus.CounterVec
	// of boots, each counted by the one replica that wrote it
	boots, stages *prometheus.CounterVec
	stageSeconds  *prometheus.HistogramVec
	bootSeconds   prometheus.Histogram
}

// bootBuckets are seconds: from a script to a machine that takes its time.
var bootBuckets = []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800}

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
		applies:       vector("applies_total", "Writes of a status to the API server, by result: applied, conflict (it is tried again at once), error.", "result"),
		commits:       vector("commits_total", "Commits of bootPolicy Once, by result: committed, spent, closed, unavailable, other.", "result"),
		opened:        vector("attempts_opened_total", "Boot attempts that were written to objects, by cause: what opened them.", "cause"),
	}
	m.addBoots(ns)
	if r == nil {
		return m, nil
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "pending_objects",
		Help: "Objects with reports that are on disk and not written to the API server yet."},
		func() float64 { return float64(pending()) })
	var errs []error
	for _, c := range []prometheus.Collector{m.flushErrors, m.journalErrors, m.applies, m.commits, m.opened, m.boots, m.stages, m.stageSeconds, m.bootSeconds, gauge} {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registering observer metrics: %w", err)
	}
	return m, nil
}

// addBoots adds the figures about boots. All results are there from the start, so that
// a rate is known of the first one too.
func (m *metrics) addBoots(ns string) {
	m.boots = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: "boots_total",
		Help: "Boots that ended, by result: completed (everything that the config is for was delivered), incomplete (something was seen of it, and another attempt was opened before that), aborted."},
		[]string{"result"})
	m.stages = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: "boot_stages_total",
		Help: "Deliveries to machines, by stage and result: delivered (the first complete one of an attempt), cut, contested (another address asked for the secret)."},
		[]string{"stage", "result"})
	m.stageSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Name: "boot_stage_duration_seconds",
		Help: "Time from the first request for a stage in an attempt to its first complete delivery.", Buckets: append([]float64{0.1, 0.5}, bootBuckets...)},
		[]string{"stage"})
	m.bootSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Name: "boot_duration_seconds",
		Help: "Time that a completed boot took, from the first that was seen of it (a step of its BMC, an offer, a request) to its last delivery.", Buckets: bootBuckets})
	for _, how := range []outcome{completed, incomplete, aborted} {
		m.boots.WithLabelValues(string(how))
	}
	for name := range fetched {
		for _, result := range []string{stageDelivered, stageCut} {
			m.stages.WithLabelValues(string(name), result)
		}
	}
	for _, secret := range []boot.Stage{boot.StageIgnition, boot.StageCloudInit} {
		m.stages.WithLabelValues(string(secret), stageContested)
	}
}
