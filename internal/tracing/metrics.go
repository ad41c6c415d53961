package tracing

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a tracer.
type metrics struct{ exported, dropped, failed prometheus.Counter }

// newMetrics registers the metrics; a nil registerer keeps them private.
func newMetrics(r prometheus.Registerer, waiting func() int) (*metrics, error) {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "boot_operator_trace_spans_total",
		Help: "Spans of traces, by result: exported (the collector took them), failed (it did not) or dropped (the queue was full)."}, []string{"result"})
	queue := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "boot_operator_trace_queue_spans", Help: "Spans that wait to be sent to the collector of traces."},
		func() float64 { return float64(waiting()) })
	if r != nil {
		if err := errors.Join(r.Register(spans), r.Register(queue)); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return &metrics{spans.WithLabelValues("exported"), spans.WithLabelValues("dropped"), spans.WithLabelValues("failed")}, nil
}
