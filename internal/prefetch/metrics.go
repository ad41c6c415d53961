package prefetch

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of prefetch; no label tells of a machine.
type metrics struct {
	pulls    *prometheus.CounterVec
	reads    *prometheus.CounterVec
	requests *prometheus.CounterVec
}

// newMetrics registers them; a nil Registerer keeps them to ourselves.
func newMetrics(r prometheus.Registerer, p *pulls, s *secrets) (*metrics, error) {
	const prefix = "boot_operator_prefetch_"
	counter := func(name, label, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{label})
	}
	gauge := func(name, help string, f func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + name, Help: help}, func() float64 { return float64(f()) })
	}
	m := &metrics{
		pulls:    counter("pulls_total", "result", "Pulls of artifacts that statuses name, by result: ok or failed."),
		reads:    counter("secret_reads_total", "result", "Reads of the Secrets of machines that boot from the API server, by result: ok, invalid or unavailable."),
		requests: counter("secret_requests_total", "from", "Requests for documents of machines, by where the answer came from: memory, read, stale (memory, while the API server did not answer) or none."),
	}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.pulls, m.reads, m.requests,
		gauge("artifacts_missing", "Artifacts that statuses name and that are not in the store yet.", p.missing),
		gauge("secrets", "Documents of machines (Ignition, user data) in memory.", func() int { count, _ := s.size(); return count }),
		gauge("secrets_bytes", "Size of the documents of machines in memory, in bytes.", func() int { _, bytes := s.size(); return bytes }),
	} {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) pulled(err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.pulls.WithLabelValues(result).Inc()
}

func (m *metrics) secretRead(result string) { m.reads.WithLabelValues(result).Inc() }

func (m *metrics) secretFrom(where string) { m.requests.WithLabelValues(where).Inc() }
