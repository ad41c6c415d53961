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
	opens     *prometheus.CounterVec
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
			Help: "Pulls of blobs that ended, by result: ok, or the kind of error."}, []string{"result"}),
		opens: prometheus.NewCounterVec(prometheus.CounterOpts{Name: p + "opens_total",
			Help: "Blobs that something asked the store for, by result: hit (complete in the store), arriving (a pull is under way, and its bytes are passed on) or miss."}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: p + "pulled_bytes_total",
			Help: "Bytes of blobs that arrived from registries and hosts."}),
		resumes: prometheus.NewCounter(prometheus.CounterOpts{Name: p + "pull_resumes_total",
			Help: "Transfers from registries that went on where a broken one had ended."}),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{Name: p + "evictions_total",
			Help: "Blobs that were removed from the store to make room for others."}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: p + "pulls_in_flight",
			Help: "Pulls that run or wait for their turn."}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: p + "registry_errors_total",
			Help: "Requests to registries that failed, by registry (as --allowed-registries names it, or other) and kind of error."}, []string{"registry", "error"}),
	}
	for _, sc := range s.allow.scopes {
		m.named[sc.host] = true
	}
	if s.opts.Registerer == nil {
		return m, nil
	}
	for _, c := range append(s.gauges(p), m.pulls, m.opens, m.bytes, m.resumes, m.evictions, m.inFlight, m.errors) {
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
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: p + "store_bytes", Help: "Size of the complete blobs in the store, in bytes."},
			locked(func() float64 { return float64(s.used) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: p + "store_blobs", Help: "Number of complete blobs in the store."},
			locked(func() float64 { return float64(len(s.blobs)) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: p + "store_budget_bytes", Help: "Size that the store may have (--artifact-max-bytes), in bytes."},
			func() float64 { return float64(s.opts.MaxBytes) }),
	}
}

// opened counts an Open.
func (m *metrics) opened(result string) { m.opens.WithLabelValues(result).Inc() }

func (m *metrics) registryError(host string, err error) {
	if !m.named[host] {
		host = "other"
	}
	m.errors.WithLabelValues(host, result(err)).Inc()
}
