package watch

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// emptyHere are the queries that have no data in this run, by panel and target, and
// why. All others have to have some.
var emptyHere = map[string]string{
	"Offers over DHCP A": "offers need an Ethernet interface and its privileges",
	"Offers over DHCP B": "as above",
	"TFTP A":             "as above",
	"TFTP B":             "as above",
}

// Machines boot while a real Prometheus looks on: every query of the dashboard has
// data, every alert's rule is evaluated, and what is told of one boot fits together.
func TestEveryQueryHasDataInARealRun(t *testing.T) {
	tool(t, "prometheus")
	w := newWorld(t)
	p := w.prometheus()
	first := w.machine(1)
	require.NoError(t, first.boot(w.replicas[0], w.replicas[1]))
	w.declare(200, func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = w.images.Host + "/os/nothing:1" })
	w.host(250, "not "+bmcPass)

	t.Run("queries", func(t *testing.T) { p.everyQueryHasData(t, w.bootAnother) })
	t.Run("alerts", p.alertsAreEvaluated)
	t.Run("names", w.metricsAreWellFormed)
	t.Run("one boot", func(t *testing.T) { w.oneBootFitsTogether(t, first) })
}

// bootAnother boots machine n, and does more of what panels are about.
func (w *world) bootAnother(n int) {
	w.t.Helper()
	if n%8 == 2 && n < 40 {
		w.host(n, bmcPass)
	}
	m := w.machine(n, func(c *v1alpha1.HTTPBootConfig) {
		if n%3 == 0 {
			c.Spec.BootPolicy = v1alpha1.BootPolicyOnce
		}
	})
	a, b := w.replicas[n%2], w.replicas[(n+1)%2]
	require.NoError(w.t, m.boot(a, b))
	_, _ = get(from("127.0.9.9"), "http://"+a.boot+"/httpboot") // a stranger
	_, _ = get(from(m.address), "http://"+a.boot+"/boot.ipxe")  // a script
	_, _ = get(from("127.0.9.9"), "http://"+a.tls+"/httpboot")  // who does not speak TLS
}

// server is a Prometheus that scrapes both replicas.
type server struct {
	w    *world
	base string
}

func (w *world) prometheus() *server {
	w.t.Helper()
	var targets []string
	for _, r := range w.replicas {
		targets = append(targets, strconv.Quote(r.metrics))
	}
	config := w.file("prometheus.yaml", fmt.Appendf(nil, "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n- job_name: boot-operator\n  static_configs: [{targets: [%s]}]\n",
		path(w.t, alertsFile), strings.Join(targets, ", ")))
	out, err := promtool(w.t, nil, "check", "config", config)
	require.NoError(w.t, err, out)
	s := &server{w: w, base: freeAddress(w.t)}
	w.run(&buffer{}, tool(w.t, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(w.dir, "prometheus"), "--web.listen-address="+s.base, "--log.level=warn")
	s.base = "http://" + s.base
	w.eventually("Prometheus is ready", func() bool {
		code, err := get(http.DefaultClient, s.base+"/-/ready")
		return err == nil && code == http.StatusOK
	})
	return s
}

// ask asks Prometheus' HTTP API.
func (s *server) ask(t *testing.T, query string, into any) {
	t.Helper()
	answer, err := http.Get(s.base + query)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	var envelope struct {
		Status, Error string
		Data          json.RawMessage
	}
	require.NoError(t, json.Unmarshal(body, &envelope), "%s", body)
	require.Equal(t, "success", envelope.Status, "%s: %s", query, envelope.Error)
	require.NoError(t, json.Unmarshal(envelope.Data, into))
}

// hasData says whether a query gave a number in the last minute.
func (s *server) hasData(t *testing.T, expr string) bool {
	t.Helper()
	expr = strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "20s", "$__range", "5m").Replace(expr)
	now := time.Now()
	q := url.Values{"query": {expr}, "start": {unix(now.Add(-time.Minute))}, "end": {unix(now)}, "step": {"2"}}
	var data struct {
		Result []struct{ Values [][2]any }
	}
	s.ask(t, "/api/v1/query_range?"+q.Encode(), &data)
	for _, series := range data.Result {
		for _, v := range series.Values {
			number, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(t, err)
			if !math.IsNaN(number) {
				return true
			}
		}
	}
	return false
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func (s *server) everyQueryHasData(t *testing.T, meanwhile func(n int)) {
	require.False(t, s.hasData(t, `boot_operator_nothing{job=~"$job"}`), "or this test would see nothing")
	missing := map[string]string{}
	for _, p := range theDashboard(t).Panels {
		for _, q := range p.Targets {
			missing[p.Title+" "+q.RefID] = q.Expr
		}
	}
	all := len(missing)
	for where := range emptyHere {
		require.Contains(t, missing, where, "emptyHere names a query that there is not")
		delete(missing, where)
	}
	deadline := time.Now().Add(3 * time.Minute)
	for n := 2; len(missing) > 0 && n < 190 && time.Now().Before(deadline); n++ {
		meanwhile(n)
		for where, expr := range missing {
			if s.hasData(t, expr) {
				delete(missing, where)
			}
		}
	}
	require.Empty(t, missing, "queries that never had data, of %d", all)
	for where, why := range emptyHere {
		panel, target, _ := cutLast(where)
		for _, p := range theDashboard(t).Panels {
			for _, q := range p.Targets {
				if p.Title == panel && q.RefID == target {
					require.False(t, s.hasData(t, q.Expr), "%s has data although %s: take it out of emptyHere", where, why)
				}
			}
		}
	}
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, ' ')
	return s[:i], s[i+1:], i > 0
}

func (s *server) alertsAreEvaluated(t *testing.T) {
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, State string }
		}
	}
	s.ask(t, "/api/v1/rules?type=alert", &data)
	var names []string
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			require.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
			require.False(t, r.Name == "BootOperatorDown" && r.State != "inactive", "both replicas are there")
			names = append(names, r.Name)
		}
	}
	for _, a := range alerts(t) {
		require.Contains(t, names, a.Alert)
	}
}

// metricsAreWellFormed scrapes as anybody does: names follow Prometheus' conventions,
// nothing names a machine, and the libraries' metrics are there.
func (w *world) metricsAreWellFormed(t *testing.T) {
	known := documented(t)
	served := map[string]bool{}
	for _, r := range w.replicas {
		answer, err := http.Get("http://" + r.metrics + "/metrics")
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		var ours []string
		for line := range strings.Lines(string(text)) {
			name := metricName.FindString(line)
			if strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), "boot_operator_") {
				ours = append(ours, line)
			}
			served[name] = true
			if strings.HasPrefix(line, "boot_operator_") {
				require.Contains(t, known, name, "docs/metrics.md has no %s", name)
				require.NotRegexp(t, `127\.0\.[129]\.|machine-|host-\d|`+regexp.QuoteMeta(w.namespace), line, "a label that names a machine")
			}
		}
		out, err := promtool(t, []byte(strings.Join(ours, "")), "check", "metrics")
		require.NoError(t, err, out)
		require.Empty(t, strings.TrimSpace(out))
	}
	for _, f := range []string{"controller_runtime_reconcile_total", "workqueue_depth", "rest_client_requests_total"} {
		require.True(t, served[f], f)
	}
}

// oneBootFitsTogether follows one boot over both replicas by its ID: in status, logs
// and its trace.
func (w *world) oneBootFitsTogether(t *testing.T, m *machine) {
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKeyFromObject(m.config), m.config))
	id := m.config.Status.Boot.ID
	require.Regexp(t, `^[0-9a-f]{32}$`, id)
	for _, r := range w.replicas {
		require.Contains(t, r.log.String(), id, "replica %s served a part of this boot, and its log does not tell", r.name)
	}
	w.eventually("the trace of the boot is complete", func() bool {
		names := w.traces.of(id)
		for _, want := range []string{"boot", "pull", "fetch UKI", "fetch ignition"} {
			if !slices.Contains(names, want) {
				return false
			}
		}
		return true
	})
	names := w.traces.of(id)
	slices.Sort(names)
	t.Logf("the trace of one boot has the spans %q", names)
	require.Equal(t, 1, strings.Count("|"+strings.Join(names, "|")+"|", "|boot|"), "one root, whichever replica recorded it")
}
