// Package watch holds what one watches the operator with to what it really tells: the
// alerts, the dashboard and the runbooks.
package watch

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/boot-operator/boot-operator/test/cache"
)

const (
	alertsFile = "charts/boot-operator/files/alerts.yaml"
	runbooks   = "docs/runbooks.md"
)

// alert is one rule.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []alert
		}
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(read(t, alertsFile)), &file))
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

func path(t *testing.T, name string) string {
	t.Helper()
	root, err := cache.Repo()
	require.NoError(t, err)
	return filepath.Join(root, filepath.FromSlash(name))
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(path(t, name))
	require.NoError(t, err)
	return string(b)
}

// tool returns a program of Debian's package prometheus. CI has it.
func tool(t *testing.T, name string) string {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing; install Debian's package prometheus", name)
	}
	if err != nil {
		t.Skipf("NOT TESTED: %s is missing; install Debian's package prometheus", name)
	}
	return program
}

func promtool(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool(t, "promtool"), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestAlertsAreRulesThatPrometheusReads(t *testing.T) {
	out, err := promtool(t, nil, "check", "rules", path(t, alertsFile))
	require.NoError(t, err, out)
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	require.NoError(t, os.WriteFile(broken, []byte(strings.Replace(read(t, alertsFile), "sum by (namespace)", "sum by namespace", 1)), 0o600))
	_, err = promtool(t, nil, "check", "rules", broken)
	require.Error(t, err, "or this test would see nothing")
}

// Each alert says what to do, and leads to a section of its own; no section is about
// an alert that there is not.
func TestEveryAlertHasItsRunbook(t *testing.T) {
	page := read(t, runbooks)
	sections := map[string]string{}
	for _, part := range strings.Split(page, "\n## ")[1:] {
		title, text, _ := strings.Cut(part, "\n")
		sections[title] = text
	}
	for _, a := range alerts(t) {
		require.Contains(t, []string{"critical", "warning", "info"}, a.Labels["severity"], a.Alert)
		for _, key := range []string{"summary", "description"} {
			require.Regexp(t, `[.]$`, a.Annotations[key], "%s: %s", a.Alert, key)
		}
		require.Equal(t, "https://github.com/boot-operator/boot-operator/blob/main/docs/runbooks.md#"+strings.ToLower(a.Alert), a.Annotations["runbook_url"])
		text, ok := sections[a.Alert]
		require.True(t, ok, "%s has no section about %s", runbooks, a.Alert)
		for _, part := range []string{"**What it means.**", "**How to see it.**", "**What to do.**"} {
			require.Contains(t, text, part, a.Alert)
		}
		delete(sections, a.Alert)
	}
	delete(sections, "Silencing") // the one that is about no alert
	require.Empty(t, sections, "sections about alerts that there are not")
}

// situation is what Prometheus has seen by the minute, and whether an alert fires then.
type situation struct {
	alert  string
	what   string
	series map[string]string // as promtool writes them: a value, its step and how often
	minute int
	fires  int // how many; 0: it does not
}

const target = `{namespace="boot",job="boot-operator",instance="a:8080"`

// of is a series of the replica a, or of another one.
func of(name string, labels ...string) string {
	return name + strings.Join(append([]string{target}, labels...), ",") + "}"
}

func on(instance, name string, labels ...string) string {
	return strings.Replace(of(name, labels...), "a:8080", instance, 1)
}

// situations has, for each alert, at least one in which it fires and one in which it
// does not.
var situations = []situation{
	{"BootOperatorDown", "nothing is scraped", nil, 10, 1},
	{"BootOperatorDown", "one replica is", map[string]string{of("boot_operator_info", `version="1"`): "1x20"}, 10, 0},

	{"BootOperatorNoLeader", "two replicas, neither leads", map[string]string{of("boot_operator_leader"): "0x20", on("b:8080", "boot_operator_leader"): "0x20"}, 10, 1},
	{"BootOperatorNoLeader", "a handover of two minutes", map[string]string{of("boot_operator_leader"): "1 0 0 0 0x20", on("b:8080", "boot_operator_leader"): "0 0 0 1 1x20"}, 4, 0},
	{"BootOperatorNoLeader", "a process without controllers alone", map[string]string{of("boot_operator_info", `version="1"`): "1x20"}, 10, 0},

	{"BootOperatorSeveralLeaders", "both lead", map[string]string{of("boot_operator_leader"): "1x20", on("b:8080", "boot_operator_leader"): "1x20"}, 10, 1},
	{"BootOperatorSeveralLeaders", "one leads", map[string]string{of("boot_operator_leader"): "1x20", on("b:8080", "boot_operator_leader"): "0x20"}, 10, 0},

	{"BootOperatorNotReady", "one of two is not", map[string]string{of("boot_operator_ready"): "0x40", on("b:8080", "boot_operator_ready"): "1x40"}, 20, 1},
	{"BootOperatorNotReady", "a start that pulls for ten minutes", map[string]string{of("boot_operator_ready"): "0x10 1x40"}, 20, 0},

	{"BootOperatorBootsIncomplete", "half of the boots", map[string]string{of("boot_operator_boots_total", `result="incomplete"`): "0+1x90", of("boot_operator_boots_total", `result="completed"`): "0+1x90"}, 90, 1},
	{"BootOperatorBootsIncomplete", "one of a hundred", map[string]string{of("boot_operator_boots_total", `result="incomplete"`): "0+1x90", of("boot_operator_boots_total", `result="completed"`): "0+100x90"}, 90, 0},
	{"BootOperatorBootsIncomplete", "somebody switched one machine off and on", map[string]string{of("boot_operator_boots_total", `result="incomplete"`): "0x60 1x30", of("boot_operator_boots_total", `result="completed"`): "0x90"}, 90, 0},

	{"BootOperatorBootsStuck", "machines ask and none gets through", map[string]string{
		of("boot_operator_machines_booting"): "3x200", of("boot_operator_boots_total", `result="completed"`): "5x200", of("boot_operator_http_requests_total", `route="/httpboot"`, `code="503"`, `method="GET"`): "0+2x200"}, 150, 1},
	{"BootOperatorBootsStuck", "configs that nobody boots", map[string]string{
		of("boot_operator_machines_booting"): "3x200", of("boot_operator_boots_total", `result="completed"`): "5x200", of("boot_operator_http_requests_total", `route="/httpboot"`, `code="503"`, `method="GET"`): "7x200"}, 150, 0},
	{"BootOperatorBootsStuck", "machines get through", map[string]string{
		of("boot_operator_machines_booting"): "3x200", of("boot_operator_boots_total", `result="completed"`): "0+1x200", of("boot_operator_http_requests_total", `route="/httpboot"`, `code="200"`, `method="GET"`): "0+2x200"}, 150, 0},

	{"BootOperatorDeliveriesCut", "more are cut than delivered", map[string]string{of("boot_operator_boot_stages_total", `stage="UKI"`, `result="cut"`): "0+2x60", of("boot_operator_boot_stages_total", `stage="UKI"`, `result="delivered"`): "0+1x60"}, 60, 1},
	{"BootOperatorDeliveriesCut", "one in ten is", map[string]string{of("boot_operator_boot_stages_total", `stage="UKI"`, `result="cut"`): "0+1x60", of("boot_operator_boot_stages_total", `stage="UKI"`, `result="delivered"`): "0+10x60"}, 60, 0},

	{"BootOperatorHostsDoNotFetch", "tries that nothing came of", map[string]string{of("boot_operator_network_boot_steps_total", `step="AwaitFetch"`, `result="retried"`): "0+1x60"}, 60, 1},
	{"BootOperatorHostsDoNotFetch", "all is done at the first try", map[string]string{of("boot_operator_network_boot_steps_total", `step="AwaitFetch"`, `result="done"`): "0+1x60", of("boot_operator_network_boot_steps_total", `step="AwaitFetch"`, `result="retried"`): "0x60"}, 60, 0},

	{"BootOperatorSecretContested", "one is", map[string]string{of("boot_operator_boot_stages_total", `stage="Ignition"`, `result="contested"`): "0x5 1x20"}, 10, 1},
	{"BootOperatorSecretContested", "one was an hour ago", map[string]string{of("boot_operator_boot_stages_total", `stage="Ignition"`, `result="contested"`): "0x5 1x80"}, 70, 0},

	{"BootOperatorConfigsNotReady", "an image is not found", map[string]string{of("boot_operator_configs", `kind="HTTPBootConfig"`, `ready="false"`, `reason="ImageNotFound"`): "2x60", on("b:8080", "boot_operator_configs", `kind="HTTPBootConfig"`, `ready="false"`, `reason="ImageNotFound"`): "2x60"}, 40, 1},
	{"BootOperatorConfigsNotReady", "some are paused, some pull", map[string]string{of("boot_operator_configs", `kind="HTTPBootConfig"`, `ready="false"`, `reason="Paused"`): "2x60", of("boot_operator_configs", `kind="HTTPBootConfig"`, `ready="false"`, `reason="Progressing"`): "2x60", of("boot_operator_configs", `kind="HTTPBootConfig"`, `ready="true"`, `reason="Ready"`): "2x60"}, 40, 0},

	{"BootOperatorArtifactsMissing", "two replicas, one lacks some", map[string]string{of("boot_operator_prefetch_artifacts_missing"): "2x60", on("b:8080", "boot_operator_prefetch_artifacts_missing"): "0x60"}, 30, 1},
	{"BootOperatorArtifactsMissing", "a pull of ten minutes", map[string]string{of("boot_operator_prefetch_artifacts_missing"): "1x10 0x60"}, 30, 0},

	{"BootOperatorStoreNearlyFull", "95 of 100", map[string]string{of("boot_operator_artifact_store_bytes"): "95x60", of("boot_operator_artifact_store_budget_bytes"): "100x60"}, 30, 1},
	{"BootOperatorStoreNearlyFull", "80 of 100", map[string]string{of("boot_operator_artifact_store_bytes"): "80x60", of("boot_operator_artifact_store_budget_bytes"): "100x60"}, 30, 0},

	{"BootOperatorRegistryErrors", "each try fails", map[string]string{of("boot_operator_artifact_registry_errors_total", `registry="ghcr.io"`, `error="unavailable"`): "0+1x60"}, 40, 1},
	{"BootOperatorRegistryErrors", "one failed once", map[string]string{of("boot_operator_artifact_registry_errors_total", `registry="ghcr.io"`, `error="unavailable"`): "0x10 1x60"}, 40, 0},

	{"BootOperatorObserverBehind", "nothing gets written", map[string]string{of("boot_operator_observer_pending_objects"): "0 5x60"}, 40, 1},
	{"BootOperatorObserverBehind", "a room boots, and is caught up with in between", map[string]string{of("boot_operator_observer_pending_objects"): "0 5 9 0 3 0 4 7 0 9 9 0 1 5 9 0 3 0 4 7 0 9 9 0 1 5 0 6 0"}, 28, 0},

	{"BootOperatorJournalFails", "a write failed", map[string]string{of("boot_operator_observer_journal_errors_total"): "0x5 1x20"}, 10, 1},
	{"BootOperatorJournalFails", "none did", map[string]string{of("boot_operator_observer_journal_errors_total"): "0x20"}, 10, 0},

	{"BootOperatorBMCErrors", "one vendor's fail", map[string]string{
		of("boot_operator_bmc_errors_total", `vendor="dell"`, `reason="busy"`): "0+1x60", of("boot_operator_bmc_requests_total", `vendor="dell"`, `result="ok"`): "0+2x60",
		of("boot_operator_bmc_errors_total", `vendor="hpe"`, `reason="busy"`): "0x60", of("boot_operator_bmc_requests_total", `vendor="hpe"`, `result="ok"`): "0+9x60"}, 50, 1},
	{"BootOperatorBMCErrors", "one operation in a hundred", map[string]string{of("boot_operator_bmc_errors_total", `vendor="dell"`, `reason="busy"`): "0+1x60", of("boot_operator_bmc_requests_total", `vendor="dell"`, `result="ok"`): "0+100x60"}, 50, 0},

	{"BootOperatorHostsInError", "one is", map[string]string{of("boot_operator_hosts", `state="error"`): "1x40", on("b:8080", "boot_operator_hosts", `state="error"`): "0x40"}, 30, 1},
	{"BootOperatorHostsInError", "all are provisioned", map[string]string{of("boot_operator_hosts", `state="error"`): "0x40", of("boot_operator_hosts", `state="provisioned"`): "9x40"}, 30, 0},

	{"BootOperatorReconcileErrors", "ours fail", map[string]string{of("controller_runtime_reconcile_errors_total", `controller="httpbootconfig"`): "0+2x60", of("boot_operator_info", `version="1"`): "1x60"}, 40, 1},
	{"BootOperatorReconcileErrors", "another operator's fail", map[string]string{strings.Replace(of("controller_runtime_reconcile_errors_total", `controller="baremetalhost"`), `job="boot-operator"`, `job="metal3"`, 1): "0+2x60", of("boot_operator_info", `version="1"`): "1x60"}, 40, 0},

	{"BootOperatorAddressesTranslated", "firmware comes from a node", map[string]string{of("boot_operator_http_node_address_requests_total"): "0x5 3x20"}, 10, 1},
	{"BootOperatorAddressesTranslated", "it does not", map[string]string{of("boot_operator_http_node_address_requests_total"): "0x20"}, 10, 0},

	{"BootOperatorClientsRateLimited", "a client that does not stop", map[string]string{of("boot_operator_http_rate_limited_total"): "0+50x30"}, 20, 1},
	{"BootOperatorClientsRateLimited", "one that was too fast for a moment", map[string]string{of("boot_operator_http_rate_limited_total"): "0x5 20x30"}, 20, 0},

	{"BootOperatorPanics", "a handler did", map[string]string{of("boot_operator_http_handler_panics_total"): "0x5 1x20"}, 10, 1},
	{"BootOperatorPanics", "a reconcile of ours did", map[string]string{of("boot_operator_http_handler_panics_total"): "0x30", of("controller_runtime_reconcile_panics_total", `controller="httpbootconfig"`): "0x5 1x20", of("boot_operator_info", `version="1"`): "1x60"}, 10, 1},
	{"BootOperatorPanics", "a reconcile of another operator did", map[string]string{of("boot_operator_http_handler_panics_total"): "0x30", strings.Replace(of("controller_runtime_reconcile_panics_total", `controller="x"`), `job="boot-operator"`, `job="other"`, 1): "0x5 1x20", of("boot_operator_info", `version="1"`): "1x60"}, 10, 0},

	{"BootOperatorTLSHandshakesFail", "machines do not trust it", map[string]string{of("boot_operator_http_tls_handshake_failures_total", `cause="certificate"`): "0+1x60"}, 50, 1},
	{"BootOperatorTLSHandshakesFail", "a scan of ports", map[string]string{of("boot_operator_http_tls_handshake_failures_total", `cause="other"`): "0x20 3x60"}, 50, 0},

	{"BootOperatorCertificateExpires", "in ten days", map[string]string{of("boot_operator_tls_certificate_not_after_seconds"): "864000x120"}, 100, 1}, // promtool's time begins at 0
	{"BootOperatorCertificateExpires", "in three weeks", map[string]string{of("boot_operator_tls_certificate_not_after_seconds"): "1814400x120"}, 100, 0},
	{"BootOperatorCertificateExpired", "it has", map[string]string{of("boot_operator_tls_certificate_not_after_seconds"): "60x120"}, 100, 1},
	{"BootOperatorCertificateExpired", "in ten days", map[string]string{of("boot_operator_tls_certificate_not_after_seconds"): "864000x120"}, 100, 0},

	{"BootOperatorTokenKeysMissing", "none were read", map[string]string{of("boot_operator_token_keys"): "0x40"}, 20, 1},
	{"BootOperatorTokenKeysMissing", "two, in the middle of a rotation", map[string]string{of("boot_operator_token_keys"): "2x40"}, 20, 0},

	{"BootOperatorSecretReadsFail", "the API server refuses", map[string]string{of("boot_operator_prefetch_secret_reads_total", `result="unavailable"`): "0+1x60"}, 40, 1},
	{"BootOperatorSecretReadsFail", "reads go well", map[string]string{of("boot_operator_prefetch_secret_reads_total", `result="ok"`): "0+9x60", of("boot_operator_prefetch_secret_reads_total", `result="unavailable"`): "1x60"}, 40, 0},

	{"BootOperatorSpansLost", "the collector is away", map[string]string{of("boot_operator_trace_spans_total", `result="failed"`): "0+5x60"}, 40, 1},
	{"BootOperatorSpansLost", "it takes all", map[string]string{of("boot_operator_trace_spans_total", `result="failed"`): "0x60", of("boot_operator_trace_spans_total", `result="exported"`): "0+5x60"}, 40, 0},
}

func TestEveryAlertIsTriedBothWays(t *testing.T) {
	for _, a := range alerts(t) {
		for _, fires := range []bool{true, false} {
			require.True(t, slices.ContainsFunc(situations, func(s situation) bool { return s.alert == a.Alert && (s.fires > 0) == fires }),
				"no situation in which %s fires=%t", a.Alert, fires)
		}
	}
}

// A series in a situation is one that there is, with its labels, or the alert would
// be tried on what nobody serves.
func TestSituationsAreOfMetricsThatThereAre(t *testing.T) {
	known := documented(t)
	name := regexp.MustCompile(`^([a-z_]+)\{(.*)\}$`)
	for _, s := range situations {
		for series := range s.series {
			m := name.FindStringSubmatch(series)
			require.NotNil(t, m, series)
			require.Contains(t, known, m[1])
			for _, pair := range strings.Split(m[2], ",") {
				label, _, _ := strings.Cut(pair, "=")
				if !slices.Contains([]string{"namespace", "job", "instance"}, label) {
					require.Contains(t, known[m[1]], label, series)
				}
			}
		}
	}
}

func TestAlertsFireWhenTheyShouldAndOnlyThen(t *testing.T) {
	out, err := promtool(t, nil, "test", "rules", testFile(t, situations))
	require.NoError(t, err, out)
	wrong := slices.Clone(situations[:1])
	wrong[0].fires = 0
	_, err = promtool(t, nil, "test", "rules", testFile(t, wrong))
	require.Error(t, err, "or this test would see nothing")
}

// testFile writes situations as promtool reads them.
func testFile(t *testing.T, all []situation) string {
	t.Helper()
	type object = map[string]any
	var tests []object
	for _, s := range all {
		series := []object{}
		for name, values := range s.series {
			series = append(series, object{"series": name, "values": values})
		}
		samples := []object{}
		if s.fires > 0 {
			samples = append(samples, object{"labels": fmt.Sprintf(`{alertname=%q}`, s.alert), "value": s.fires})
		}
		tests = append(tests, object{"interval": "1m", "name": s.alert + ": " + s.what, "input_series": series, "promql_expr_test": []object{{
			"expr": fmt.Sprintf(`count by (alertname) (ALERTS{alertname=%q,alertstate="firing"})`, s.alert), "eval_time": fmt.Sprintf("%dm", s.minute), "exp_samples": samples,
		}}})
	}
	text, err := yaml.Marshal(object{"rule_files": []string{path(t, alertsFile)}, "evaluation_interval": "1m", "tests": tests})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "alerts_test.yaml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}
