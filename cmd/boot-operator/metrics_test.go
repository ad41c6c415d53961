package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const metricsIntro = `# Metrics

<!-- Written by go test ./cmd/boot-operator -run TestMetricsAreDocumented -update -->

Every replica serves these at ` + "`/metrics`" + ` on ` + "`--metrics-bind-address`" + `; how to scrape them, with
authentication where ` + "`--metrics-secure`" + ` asks for it, is in [observability.md](observability.md), which
also says how to install the [dashboard](dashboard.md) and the alerts ([runbooks.md](runbooks.md)).

Times are in seconds, sizes in bytes. Labels have few values, whatever clients, BMCs and
objects say: none holds a machine's name, an address or a token. Counters count from the
start of the process, so look at their ` + "`rate`" + ` or ` + "`increase`" + `. What happens to a machine's boot
is counted once, by the replica whose write of it came through: add up the replicas. What
a replica knows of all machines (` + "`boot_operator_configs`" + `, ` + "`boot_operator_machines_booting`" + `) every
replica tells in full: take the maximum.

A histogram has the series ` + "`_bucket`, `_sum` and `_count`" + `. A counter with labels has no series
before it first counted, unless its values are known from the start.
`

// metricGroups are the sections of the page, by the beginning of names; the first that
// fits counts.
var metricGroups = []struct{ title, prefix string }{
	{"Boots", "boot_operator_boot"},
	{"Boots", "boot_operator_machines_"},
	{"Boots", "boot_operator_configs"},
	{"BareMetalHosts and their BMCs", "boot_operator_hosts"},
	{"BareMetalHosts and their BMCs", "boot_operator_network_boot_"},
	{"BareMetalHosts and their BMCs", "boot_operator_bmc_"},
	{"HTTP and TLS", "boot_operator_http_"},
	{"HTTP and TLS", "boot_operator_tls_"},
	{"ProxyDHCP and TFTP", "boot_operator_netboot_"},
	{"Artifacts", "boot_operator_artifact_"},
	{"Artifacts", "boot_operator_prefetch_"},
	{"What is reported to the API server", "boot_operator_observer_"},
	{"Traces", "boot_operator_trace_"},
	{"The process", "boot_operator_"},
}

// foreign are metrics of the libraries that the operator is built with which its
// dashboard and its alerts read, or which one looks at first. They are served beside
// ours; of what each is, their type cannot be told before it is used.
var foreign = []struct{ name, kind, help string }{
	{"controller_runtime_reconcile_total", "counter", "Reconciles, by controller and result: success, error, requeue, requeue_after. Only the leader has any."},
	{"controller_runtime_reconcile_errors_total", "counter", "Reconciles that failed and are tried again with a growing delay, by controller."},
	{"controller_runtime_reconcile_panics_total", "counter", "Reconciles that panicked, each of which is a defect, by controller."},
	{"controller_runtime_reconcile_time_seconds", "histogram", "Time that a reconcile took, by controller."},
	{"controller_runtime_active_workers", "gauge", "Reconciles under way, by controller."},
	{"workqueue_depth", "gauge", "Objects that wait to be reconciled, by queue."},
	{"workqueue_adds_total", "counter", "Objects that were put into a queue, by queue."},
	{"workqueue_queue_duration_seconds", "histogram", "Time that an object waited to be reconciled, by queue."},
	{"workqueue_retries_total", "counter", "Objects that were put into a queue again, by queue."},
	{"rest_client_requests_total", "counter", "Requests to the API server, by status code, method and host."},
	{"leader_election_master_status", "gauge", "1 where this process holds the Lease of that name."},
	{"process_resident_memory_bytes", "gauge", "Memory of the process, without the page cache."},
	{"process_cpu_seconds_total", "counter", "CPU time of the process."},
}

// metric is what the page tells of one.
type metric struct {
	name, kind, help string
	labels           []string
}

// recorder keeps what is registered.
type recorder struct {
	*prometheus.Registry
	collectors *[]prometheus.Collector
}

func (r recorder) Register(c prometheus.Collector) error {
	err := r.Registry.Register(c)
	if err == nil {
		*r.collectors = append(*r.collectors, c)
	}
	return err
}

func (r recorder) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// assembled is everything that is registered by a process in which every mode is on.
func assembled(t *testing.T) []prometheus.Collector {
	t.Helper()
	var all []prometheus.Collector
	before := metrics.Registry
	metrics.Registry = recorder{prometheus.NewRegistry(), &all}
	t.Cleanup(func() { metrics.Registry = before })
	dir := t.TempDir()
	s, err := parse(t, nil, "--artifact-dir="+dir, "--netboot-interface="+ethernet(t), "--ipxe-dir="+dir, "--controllers=*",
		"--baremetalhost-mode=drive", "--ipxe-service-url=http://10.0.0.1:8082", "--otlp-endpoint=http://127.0.0.1:1")
	require.NoError(t, err)
	c, err := connect(&rest.Config{Host: "http://127.0.0.1:1"}, logr.Discard())
	require.NoError(t, err)
	p, err := assemble(t.Context(), s, c, newClusterClock(logr.Discard()), logr.Discard())
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.store.Close(); p.flushSpans() })
	again := true
	mgr, err := ctrl.NewManager(c.GetConfig(), ctrl.Options{
		Scheme: c.GetScheme(), MapperProvider: staticMapper, NewCache: p.leadership.borrowCache, Logger: logr.Discard(),
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0", Controller: config.Controller{SkipNameValidation: &again},
	})
	require.NoError(t, err)
	require.NoError(t, p.setupControllers(mgr))
	return all
}

// ethernet is an interface that machines could boot from.
func ethernet(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range all {
		addrs, err := i.Addrs()
		require.NoError(t, err)
		v4 := slices.ContainsFunc(addrs, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.IP.To4() != nil })
		if len(i.HardwareAddr) == 6 && i.Flags&net.FlagLoopback == 0 && v4 {
			return i.Name
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this machine has no Ethernet interface, without which netboot's metrics cannot be listed")
	}
	t.Skip("NOT CHECKED: this machine has no Ethernet interface, without which netboot's metrics cannot be listed")
	return ""
}

var describedAs = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: ("(?:[^"\\]|\\.)*"), constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}\}$`)

// described reads what a collector says of its metrics.
func described(t *testing.T, c prometheus.Collector) (all []metric) {
	t.Helper()
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for d := range descs {
		m := describedAs.FindStringSubmatch(d.String())
		require.NotNil(t, m, "%s", d)
		help, err := strconv.Unquote(m[2])
		require.NoError(t, err)
		labels := strings.FieldsFunc(m[4], func(r rune) bool { return r == ',' })
		for _, pair := range strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' }) {
			name, _, _ := strings.Cut(pair, "=")
			labels = append(labels, name)
		}
		all = append(all, metric{name: m[1], kind: kindOf(t, c, m[1]), help: help, labels: labels})
	}
	return all
}

// kindOf finds a metric's type from its collector, or else from its name.
func kindOf(t *testing.T, c prometheus.Collector, name string) string {
	t.Helper()
	switch c.(type) {
	case *prometheus.CounterVec:
		return "counter"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.HistogramVec:
		return "histogram"
	}
	samples := make(chan prometheus.Metric, 1000)
	c.Collect(samples)
	close(samples)
	for s := range samples {
		var out dto.Metric
		require.NoError(t, s.Write(&out))
		switch {
		case !strings.Contains(s.Desc().String(), `fqName: "`+name+`"`):
		case out.Counter != nil:
			return "counter"
		case out.Histogram != nil:
			return "histogram"
		default:
			return "gauge"
		}
	}
	switch { // a collector of several, of which this one has no sample yet
	case strings.HasSuffix(name, "_total"):
		return "counter"
	case strings.HasSuffix(name, "_duration_seconds"):
		return "histogram"
	}
	return "gauge"
}

func ourMetrics(t *testing.T) []metric {
	t.Helper()
	var all []metric
	for _, c := range assembled(t) {
		all = append(all, described(t, c)...)
	}
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return all
}

func TestMetricsAreDocumented(t *testing.T) {
	const path = "../../docs/metrics.md"
	want := metricsPage(t, ourMetrics(t))
	if *update {
		require.NoError(t, os.WriteFile(path, want, 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "docs/metrics.md is stale: go test ./cmd/boot-operator -run TestMetricsAreDocumented -update")
}

// metricsPage is docs/metrics.md.
func metricsPage(t *testing.T, all []metric) []byte {
	t.Helper()
	var page bytes.Buffer
	page.WriteString(metricsIntro)
	group := func(m metric) string {
		for _, g := range metricGroups {
			if strings.HasPrefix(m.name, g.prefix) {
				return g.title
			}
		}
		t.Errorf("%s does not begin with boot_operator_", m.name)
		return ""
	}
	var titles []string
	for _, g := range metricGroups {
		if !slices.Contains(titles, g.title) {
			titles = append(titles, g.title)
		}
	}
	for _, title := range titles {
		fmt.Fprintf(&page, "\n## %s\n\n| metric | type | labels | what it tells |\n|---|---|---|---|\n", title)
		for _, m := range all {
			if group(m) == title {
				page.WriteString(m.row())
			}
		}
	}
	page.WriteString("\n## Of the libraries\n\nThe libraries that the operator is built with add their own, among them these; `go_…` and\n`process_…` tell of the process's memory, threads and files.\n\n| metric | type | labels | what it tells |\n|---|---|---|---|\n")
	for _, m := range foreignMetrics(t) {
		page.WriteString(m.row())
	}
	return page.Bytes()
}

func (m metric) row() string {
	labels := ""
	if len(m.labels) > 0 {
		labels = "`" + strings.Join(m.labels, "`, `") + "`"
	}
	help := strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`).Replace(m.help)
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", m.name, m.kind, labels, help)
}

// foreignMetrics are those of the libraries; each has to be there.
func foreignMetrics(t *testing.T) (all []metric) {
	t.Helper()
	for _, f := range foreign {
		m, ok := theirs[f.name]
		require.True(t, ok, "no library serves %s any more", f.name)
		all = append(all, metric{name: f.name, kind: f.kind, help: f.help, labels: m.labels})
	}
	return all
}

// theirs is what libraries had registered before anything of ours was.
var theirs = func() map[string]metric {
	all := map[string]metric{}
	descs := make(chan *prometheus.Desc, 1000)
	metrics.Registry.(*prometheus.Registry).Describe(descs) //nolint:forcetypeassert // it panics at the start of every test, not in the middle of one
	close(descs)
	for d := range descs {
		if m := describedAs.FindStringSubmatch(d.String()); m != nil {
			all[m[1]] = metric{name: m[1], labels: strings.FieldsFunc(m[4], func(r rune) bool { return r == ',' })}
		}
	}
	return all
}()

// What a stranger reads first: names by Prometheus' conventions, and sentences.
func TestMetricsAreNamedAndExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range ourMetrics(t) {
		require.False(t, seen[m.name], m.name)
		seen[m.name] = true
		require.Equal(t, m.kind == "counter", strings.HasSuffix(m.name, "_total"), "%s is a %s", m.name, m.kind)
		require.Regexp(t, `^[A-Z0-9].*[.]$`, m.help, m.name)
		require.GreaterOrEqual(t, len(strings.Fields(m.help)), 4, "%s: %s", m.name, m.help)
		for _, l := range m.labels {
			require.NotContains(t, []string{"machine", "uuid", "mac", "address", "ip", "token", "namespace", "name", "host"}, l, m.name)
			require.Contains(t, "|"+strings.ToLower(m.help)+"|", l, "%s does not say what its label %s is", m.name, l)
		}
	}
}
