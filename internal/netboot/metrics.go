package netboot

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what is offered, refused and transferred. Labels come from fixed
// lists, whatever clients send.
type metrics struct {
	offers    *prometheus.CounterVec
	refusals  *prometheus.CounterVec
	transfers *prometheus.CounterVec
	bytes     prometheus.Counter
	active    prometheus.Gauge
	dropped   *prometheus.CounterVec
	failures  *prometheus.CounterVec
	programs  *prometheus.GaugeVec
}

func newMetrics() *metrics {
	const ns, sub = "boot_operator", "netboot"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: name, Help: help}, labels)
	}
	return &metrics{
		offers:    counter("offers_total", "Boots that were offered over DHCP, by kind of client and architecture.", "client", "architecture"),
		refusals:  counter("refusals_total", "DHCP messages of network boot clients that were not answered, by reason and architecture.", "reason", "architecture"),
		transfers: counter("transfers_total", "TFTP requests, by file (the name of a program, or other) and result.", "file", "result"),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: "transfer_bytes_total",
			Help: "Bytes of files that TFTP clients acknowledged or were being sent when they went away."}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "transfers_active", Help: "TFTP transfers that are under way now."}),
		dropped: counter("packets_dropped_total",
			"Packets that the kernel dropped because they came faster than they were read, by interface.", "interface"),
		failures: counter("send_failures_total", "Offers that could not be sent, by interface.", "interface"),
		programs: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: "program_info",
			Help: "1 for each network boot program that is served: its file and architecture, iPXE's version in it, and whether its build has https, imgverify and an autoexec script."},
			[]string{"file", "architecture", "version", "https", "imgverify", "autoexec"}),
	}
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.offers, m.refusals, m.transfers, m.bytes, m.active, m.dropped, m.failures, m.programs} {
		if err := reg.Register(c); err != nil {
			return err //nolint:wrapcheck // New wraps it
		}
	}
	return nil
}

func (m *metrics) setPrograms(programs []Program) {
	m.programs.Reset()
	for _, p := range programs {
		architecture := string(p.Architecture)
		if p.BIOS {
			architecture = "bios"
		}
		m.programs.WithLabelValues(p.Name, architecture, p.Build.Version,
			string(p.Build.HTTPS), string(p.Build.ImgVerify), string(p.Build.Autoexec)).Set(1)
	}
}
