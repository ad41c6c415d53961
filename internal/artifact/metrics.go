package artifact

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a store. Labels come from bounded sets: results are words of this
// package, registries are those that the settings name.
type metrics struct {
	named     map[string]bool
	pulls     *prometheus.CounterVec
	bytes     prometheus.Counter
	resumes   prometheus.Counter
	evictions prometheus.Counter
	inFlight  prometheus.Gauge
	errors    *prometheus.CounterVec
}

func newMetrics(s *Store) (*metrics, error) {
	const p = "boot_operator_artifact_"
	m := &metrics{
		named: map[string]bool{},
		pulls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: p + "pulls_total",
			Help: "Pulls that ended, by result."}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: p + "pulled_bytes_total",
			Help: "Bytes of blobs that arrived from registries and hosts."}),
		resumes: prometheus.NewCounter(prometheus.CounterOpts{Name: p + "pull_resumes_total",
			Help: "Transfers that began where a broken one had ended."}),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{Name: p + "evictions_total",
			Help: "Blobs that were removed to make room."}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: p + "pulls_in_flight",
			Help: "Pulls that run or wait for their turn."}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: p + "registry_errors_total",
			Help: "Failed requests to registries, by registry of the settings (or other) and kind of error."}, []string{"registry", "error"}),
	}
	for _, sc := range s.allow.scopes {
		m.named[sc.host] = true
	}
	if s.opts.Registerer == nil {
		return m, nil
	}
	for _, c := range append(s.gauges(p), m.pulls, m.bytes, m.resumes, m.evictions, m.inFlight, m.errors) {
		if err := s.opts.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

func (s *Store) gauges(p string) []prometheus.Collector {
	locked := func(f func() float64) func() float64 {
		return func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return f()
		}
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: p + "store_bytes", Help: "Bytes of complete blobs in the store."},
			locked(func() float64 { return float64(s.used) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: p + "store_blobs", Help: "Complete blobs in the store."},
			locked(func() float64 { return float64(len(s.blobs)) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: p + "store_budget_bytes", Help: "Bytes that the store may use."},
			func() float64 { return float64(s.opts.MaxBytes) }),
	}
}

func (m *metrics) registryError(host string, err error) {
	if !m.named[host] {
		host = "other"
	}
	m.errors.WithLabelValues(host, result(err)).Inc()
}
