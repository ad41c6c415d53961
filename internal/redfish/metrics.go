package redfish

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// otherVendor is the label of a BMC that is of none of vendors, or that did not say
// yet.
const otherVendor = "other"

// vendors are the values of the label vendor, with the words by which a BMC is known to
// be of one. The first that matches counts: who built the machine goes before who wrote
// its BMC's firmware.
var vendors = []struct {
	label         string
	vendor, model []string
}{
	{"dell", []string{"dell"}, nil},
	{"hpe", []string{"hpe", "hewlett"}, nil},
	{"supermicro", []string{"supermicro", "super micro"}, nil},
	{"lenovo", []string{"lenovo"}, nil},
	{"nvidia", []string{"nvidia"}, nil},
	{"nvidia", nil, []string{"bluefield"}},
	{"ami", []string{"ami", "megarac", "asrock", "american megatrends"}, nil},
	{"openbmc", []string{"openbmc"}, nil},
	{"sushy", []string{"sushy", "openstack"}, nil},
}

// vendor is the label that a BMC is counted under.
func (b *bmc) vendor() string {
	f := b.facts()
	for _, v := range vendors {
		if (rule{vendor: v.vendor, model: v.model}).applies(f) {
			return v.label
		}
	}
	return otherVendor
}

// reasons are the values of the label reason.
var reasons = []struct {
	err   error
	label string
}{
	{ErrUnauthorized, "unauthorized"},
	{ErrCertificate, "certificate"},
	{ErrUnreachable, "unreachable"},
	{ErrLost, "answer-lost"},
	{ErrNotBMC, "not-a-bmc"},
	{ErrSeveralSystems, "several-systems"},
	{ErrWrongSystem, "wrong-system"},
	{ErrUnsupported, "unsupported"},
	{ErrBusy, "busy"},
	{ErrRefused, "refused"},
	{ErrLeavesHost, "leaves-host"},
	{ErrTooLarge, "too-large"},
	{ErrBroken, "circuit-open"},
}

// metrics are the figures about BMCs.
type metrics struct {
	requests, errors *prometheus.CounterVec
	seconds          *prometheus.HistogramVec
}

func newMetrics() *metrics {
	const ns, sub = "boot_operator", "bmc"
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "requests_total",
			Help: "Redfish requests to BMCs, by vendor and result: ok, refused (a 4xx status), failed (a 5xx status), none (no answer, or none that could be read)."},
			[]string{"vendor", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Subsystem: sub, Name: "request_duration_seconds",
			Help: "Time from a Redfish request to the end of its answer, by the vendor of the BMC.", Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}}, []string{"vendor"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "errors_total",
			Help: "Operations on BMCs that failed, by vendor and reason; circuit-open counts those that were not tried after failures before."},
			[]string{"vendor", "reason"}),
	}
}

// Describe implements prometheus.Collector.
func (c *Clients) Describe(out chan<- *prometheus.Desc) {
	c.metrics.requests.Describe(out)
	c.metrics.seconds.Describe(out)
	c.metrics.errors.Describe(out)
}

// Collect implements prometheus.Collector.
func (c *Clients) Collect(out chan<- prometheus.Metric) {
	c.metrics.requests.Collect(out)
	c.metrics.seconds.Collect(out)
	c.metrics.errors.Collect(out)
}

// failed counts an operation that failed for a reason of the BMC's. What whoever
// borrowed it made of its answers is no error of it.
func (m *metrics) failed(vendor string, err error) {
	var e *Error
	if !errors.As(err, &e) {
		return
	}
	for _, r := range reasons {
		if errors.Is(e.Err, r.err) {
			m.errors.WithLabelValues(vendor, r.label).Inc()
			return
		}
	}
	m.errors.WithLabelValues(vendor, "other").Inc()
}

// tally is what is counted of one operation once it is known whose BMC it was on.
type tally struct {
	// vendor is written and read by the operation alone.
	vendor string

	mu      sync.Mutex
	results map[string]int
	took    []time.Duration
}

// request counts one request.
func (t *tally) request(a *answer, err error, took time.Duration) {
	result := "ok"
	switch {
	case err != nil:
		result = "none"
	case a.status >= 500:
		result = "failed"
	case a.status >= 400:
		result = "refused"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.results == nil {
		t.results = map[string]int{}
	}
	t.results[result]++
	t.took = append(t.took, took)
}

func (m *metrics) add(t *tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for result, n := range t.results {
		m.requests.WithLabelValues(t.vendor, result).Add(float64(n))
	}
	for _, d := range t.took {
		m.seconds.WithLabelValues(t.vendor).Observe(max(d, 0).Seconds())
	}
}

// vendorOf is the label that a BMC was counted under last.
func (c *Clients) vendorOf(a *account) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return first(a.vendor, otherVendor)
}
