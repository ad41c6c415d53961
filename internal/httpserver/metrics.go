package httpserver

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Methods and codes that have a metric of their own; the labels are bounded
// whatever clients send.
var (
	methodNames = [...]string{http.MethodGet, http.MethodHead, "other"}
	codes       = [...]int{200, 206, 304, 400, 403, 404, 405, 412, 416, 500, 503, 0}
)

// metrics holds what the server counts. A label never carries a token, an
// address or a machine's name.
type metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	bytes     *prometheus.CounterVec
	refusals  *prometheus.CounterVec
	inFlight  prometheus.Gauge
	panics    prometheus.Counter
	tlsErrors *prometheus.CounterVec
	conns     prometheus.Gauge
	refusedIn prometheus.Counter

	// Looking a counter up by its labels costs more than the rest of a short
	// answer; so each is looked up once.
	byRequest  [routeCount][len(methodNames)][len(codes)]atomic.Pointer[prometheus.Counter]
	byRoute    [routeCount]prometheus.Observer
	bytesRoute [routeCount]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	const ns, sub = "boot_operator", "http"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("requests_total", "Requests, by route, method and status code.", "route", "method", "code"),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "request_duration_seconds",
			Help: "Time from a request's head to the end of its answer.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 11)}, []string{"route"}),
		bytes:    counter("response_bytes_total", "Bytes of answers' bodies.", "route"),
		refusals: counter("refusals_total", "Requests that were refused, by reason.", "reason"),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "deliveries_in_flight", Help: "Blobs that are being sent."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "handler_panics_total",
			Help: "Panics of handlers, each of which is a defect."}),
		tlsErrors: counter("tls_handshake_failures_total", "TLS handshakes that failed, by cause.", "cause"),
		conns:     prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "connections", Help: "Open connections."}),
		refusedIn: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "connections_refused_total",
			Help: "Connections that were closed at once, because their client had too many."}),
	}
	for i := range routeCount {
		m.byRoute[i] = m.durations.WithLabelValues(routeNames[i])
		m.bytesRoute[i] = m.bytes.WithLabelValues(routeNames[i])
	}
	return m, m.register(reg)
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.durations, m.bytes, m.refusals, m.inFlight, m.panics, m.tlsErrors, m.conns, m.refusedIn} {
		if err := reg.Register(c); err != nil {
			return err //nolint:wrapcheck // New wraps it
		}
	}
	return nil
}

func (m *metrics) observe(x *exchange) {
	m.request(x.route, x.r.Method, x.code).Inc()
	m.byRoute[x.route].Observe(time.Since(x.start).Seconds())
	m.bytesRoute[x.route].Add(float64(x.bytes))
	if x.err != nil {
		m.refusals.WithLabelValues(x.reason()).Inc()
	}
}

func (m *metrics) request(route routeID, method string, code int) prometheus.Counter {
	i, j := len(methodNames)-1, len(codes)-1
	switch method {
	case http.MethodGet:
		i = 0
	case http.MethodHead:
		i = 1
	}
	for k, c := range codes {
		if c == code {
			j = k
			break
		}
	}
	p := &m.byRequest[route][i][j]
	if c := p.Load(); c != nil {
		return *c
	}
	label := "other"
	if codes[j] != 0 {
		label = strconv.Itoa(codes[j])
	}
	c := m.requests.WithLabelValues(routeNames[route], methodNames[i], label)
	p.Store(&c)
	return c
}
