package host

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// The states of hosts that are none of Metal3's.
const (
	stateNew   = "new"
	stateError = "error"
	stateOther = "other"
)

// states are the values of the label state.
var states = []string{
	stateNew, string(metal3.StateUnmanaged), string(metal3.StateRegistering), string(metal3.StateInspecting), string(metal3.StatePreparing),
	string(metal3.StateAvailable), string(metal3.StateProvisioning), string(metal3.StateProvisioned), string(metal3.StateExternallyProvisioned),
	string(metal3.StateDeprovisioning), string(metal3.StatePoweringOffBeforeDelete), string(metal3.StateDeleting), stateError, stateOther,
}

// metrics are the figures about hosts. They are one collector, which outlives the
// managers that are built anew whenever this replica leads again.
type metrics struct {
	steps   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	hosts   *prometheus.Desc

	mu sync.Mutex
	// known is the state of each host that this replica looks after.
	known map[types.NamespacedName]string
}

func newMetrics() *metrics {
	const ns = "boot_operator"
	m := &metrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: "network_boot_steps_total",
			Help: "Steps of boots through BMCs that ended, by step and result: done, again (an earlier step had to be taken once more), retried, failed, aborted, offline (the host was switched off)."},
			[]string{"step", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: ns, Name: "network_boot_step_duration_seconds",
			Help:    "Time that a step of a boot through a BMC took until it was done; AwaitFetch is the time from power-on to the complete delivery.",
			Buckets: []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800}}, []string{"step"}),
		hosts: prometheus.NewDesc(ns+"_hosts",
			"BareMetalHosts that this replica looks after, by provisioning state; those whose status tells of an error count as error. Only the replica that leads has any.", []string{"state"}, nil),
		known: map[types.NamespacedName]string{},
	}
	for _, step := range order[:len(order)-1] {
		for _, result := range []string{resultDone, resultRetried, resultFailed} {
			m.steps.WithLabelValues(string(step), result)
		}
	}
	return m
}

// register returns the metrics that count: those of an earlier manager of this process,
// where there was one. A nil registerer keeps them private.
func register(r prometheus.Registerer) (*metrics, error) {
	m := newMetrics()
	if r == nil {
		return m, nil
	}
	err := r.Register(m)
	var again prometheus.AlreadyRegisteredError
	if errors.As(err, &again) {
		if earlier, ok := again.ExistingCollector.(*metrics); ok {
			return earlier, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("registering metrics of hosts: %w", err)
	}
	return m, nil
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	m.steps.Describe(out)
	m.seconds.Describe(out)
	out <- m.hosts
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.steps.Collect(out)
	m.seconds.Collect(out)
	count := map[string]int{}
	m.mu.Lock()
	for _, state := range m.known {
		count[state]++
	}
	m.mu.Unlock()
	for _, state := range states {
		out <- prometheus.MustNewConstMetric(m.hosts, prometheus.GaugeValue, float64(count[state]), state)
	}
}

// left counts a step that ended after a time.
func (m *metrics) left(step v1alpha1.NetworkBootStep, result string, took time.Duration) {
	m.steps.WithLabelValues(string(step), result).Inc()
	if result == resultDone {
		m.seconds.WithLabelValues(string(step)).Observe(max(took, 0).Seconds())
	}
}

// saw notes the state of a host; a nil host is gone.
func (m *metrics) saw(key types.NamespacedName, host *metal3.BareMetalHost) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if host == nil {
		delete(m.known, key)
		return
	}
	m.known[key] = stateLabel(host)
}

// clear forgets all hosts: another replica looks after them, or nobody.
func (m *metrics) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.known)
}

// stateLabel is one of states.
func stateLabel(host *metal3.BareMetalHost) string {
	state := string(host.Status.Provisioning.State)
	switch {
	case host.Status.OperationalStatus == metal3.OperationalStatusError:
		return stateError
	case state == "":
		return stateNew
	case slices.Contains(states, state):
		return state
	}
	return stateOther
}
