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
	codes       = [...]int{200, 206, 304, 400, 403, 404, 405, 412, 416, 429, 500, 503, 0}
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
	draining  prometheus.Gauge
	// limited counts what a client asked for too fast, byNode what firmware asked
	// for from the address of one of our nodes.
	limited  prometheus.Counter
	byNode   prometheus.Counter
	notAfter *prometheus.GaugeVec

	// Looking a counter up by its labels costs more than the rest of a short
	// answer; so each is looked up once.
	byRequest  [routeCount][len(methodNames)][len(codes)]atomic.Pointer[prometheus.Counter]
	byRoute    [routeCount]prometheus.Observer
	bytesRoute [routeCount]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	const ns, sub = "boot_operator", "http"
	single := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help})
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("requests_total", "HTTP requests that were answered, by route, method and status code; other stands for methods and codes that no machine needs.", "route", "method", "code"),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "request_duration_seconds",
			Help: "Time from a request's head to the end of its answer, by route; a large blob takes as long as the machine reads.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 11)}, []string{"route"}),
		bytes:     counter("response_bytes_total", "Bytes of the bodies of answers, by route.", "route"),
		refusals:  counter("refusals_total", "Requests that were not answered with what they asked for, by reason: the one that the answer's JSON tells, or Unproven and UnknownMachine, which clients are not told apart.", "reason"),
		inFlight:  prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "deliveries_in_flight", Help: "Blobs that are being sent to machines now."}),
		panics:    single("handler_panics_total", "Requests whose handler panicked, each of which is a defect of the operator."),
		tlsErrors: counter("tls_handshake_failures_total", "TLS handshakes with clients that failed, by cause.", "cause"),
		conns:     prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "connections", Help: "Connections of clients that are open now."}),
		refusedIn: single("connections_refused_total", "Connections that were closed at once, because their client had too many."),
		draining: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "draining",
			Help: "Listeners that are ending: they let what runs finish."}),
		limited: single("rate_limited_total", "Requests that were answered with 429, because their client asked too fast."),
		byNode:  single("node_address_requests_total", "Requests of UEFI firmware that came from an address of this cluster's nodes: the machine's own was translated on its way."),
		// Without labels; a vector, because it has no value where there is no TLS.
		notAfter: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Name: "tls_certificate_not_after_seconds",
			Help: "When the certificate of the HTTPS boot server expires, in seconds since the epoch."}, nil),
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
	for _, c := range []prometheus.Collector{m.requests, m.durations, m.bytes, m.refusals, m.inFlight, m.panics, m.tlsErrors, m.conns, m.refusedIn, m.draining, m.limited, m.byNode, m.notAfter} {
		if err := reg.Register(c); err != nil {
			return err //nolint:wrapcheck // New wraps it
		}
	}
	return nil
}

// expires notes when the certificate that is served expires.
func (m *metrics) expires(notAfter time.Time) {
	m.notAfter.WithLabelValues().Set(float64(notAfter.Unix()))
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
