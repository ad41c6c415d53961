package watch

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/dashboard.md")

const (
	dashboardFile = "charts/boot-operator/dashboards/boot-operator.json"
	dashboardPage = "docs/dashboard.md"
)

// dashboard is what Grafana reads of it, as far as we look.
type dashboard struct {
	UID, Title, Description string
	SchemaVersion           int
	Templating              struct{ List []variable }
	Panels                  []panel
}

type variable struct{ Name, Type string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               map[string]string
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []query
}

type query struct {
	RefID, Expr, LegendFormat string
	Datasource                map[string]string
}

func theDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(read(t, dashboardFile)), &d))
	require.Greater(t, len(d.Panels), 40)
	return d
}

// documented are the metrics of docs/metrics.md, with their labels. Those of a
// histogram are in it by each of their series.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	known := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| ([^|]*) \\|").FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		labels := strings.FieldsFunc(row[3], func(r rune) bool { return strings.ContainsRune("`, ", r) })
		if row[2] == "histogram" {
			known[row[1]+"_bucket"], known[row[1]+"_sum"], known[row[1]+"_count"] = append(labels, "le"), labels, labels
			continue
		}
		known[row[1]] = labels
	}
	require.Greater(t, len(known), 60)
	return known
}

var (
	metricName = regexp.MustCompile(`\b(?:boot_operator|controller_runtime|workqueue|rest_client|process|leader_election)_[a-z_]+`)
	grouping   = regexp.MustCompile(`by \(([^)]*)\)`)
	quoted     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	legend     = regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
)

// A query names nothing that the operator does not serve.
func TestQueriesAndAlertsAreOfMetricsThatThereAre(t *testing.T) {
	known := documented(t)
	everywhere := []string{"namespace", "job", "instance", "le"}
	check := func(where, expr string, more ...string) {
		names := metricName.FindAllString(quoted.ReplaceAllString(expr, `""`), -1)
		require.NotEmpty(t, names, "%s: %s", where, expr)
		labels := slices.Clone(everywhere)
		for _, name := range names {
			require.Contains(t, known, name, "%s: docs/metrics.md has no %s", where, name)
			labels = append(labels, known[name]...)
		}
		for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
			more = append(more, strings.FieldsFunc(g[1], func(r rune) bool { return r == ',' || r == ' ' })...)
		}
		for _, label := range more {
			require.Contains(t, labels, label, "%s: no metric of %s has this label", where, expr)
		}
	}
	for _, p := range theDashboard(t).Panels {
		for _, q := range p.Targets {
			var names []string
			for _, m := range legend.FindAllStringSubmatch(q.LegendFormat, -1) {
				names = append(names, m[1])
			}
			check(p.Title, q.Expr, names...)
		}
	}
	for _, a := range alerts(t) {
		check(a.Alert, a.Expr)
	}
}

func TestTheDashboardIsOneThatGrafanaShows(t *testing.T) {
	d := theDashboard(t)
	require.GreaterOrEqual(t, d.SchemaVersion, 38, "Grafana 10 and later")
	require.Equal(t, []variable{{"datasource", "datasource"}, {"job", "query"}, {"instance", "query"}}, d.Templating.List)
	ids, titles := map[int]bool{}, map[string]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		require.False(t, ids[p.ID] || titles[p.Title], p.Title)
		ids[p.ID], titles[p.Title] = true, true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				require.Empty(t, taken[at], "%s lies over another panel", p.Title)
				taken[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		require.Regexp(t, `[.]$`, p.Description, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
		for _, q := range p.Targets {
			require.Equal(t, "${datasource}", q.Datasource["uid"], p.Title)
			require.Contains(t, q.Expr, `job=~"$job",instance=~"$instance"`, p.Title)
			require.NotEmpty(t, q.LegendFormat, p.Title)
		}
	}
}

func TestTheDashboardIsDescribed(t *testing.T) {
	want := describe(theDashboard(t))
	if *update {
		require.NoError(t, os.WriteFile(path(t, dashboardPage), want, 0o644)) //nolint:gosec // a page
	}
	require.Equal(t, string(want), read(t, dashboardPage), "docs/dashboard.md is stale: go test ./test/watch -run TestTheDashboardIsDescribed -update")
}

// describe writes docs/dashboard.md.
func describe(d dashboard) []byte {
	var page bytes.Buffer
	page.WriteString(`# The dashboard

<!-- Written by go test ./test/watch -run TestTheDashboardIsDescribed -update -->

` + "`charts/boot-operator/dashboards/boot-operator.json`" + ` is a dashboard for Grafana 10 and later. How to
install it is in [observability.md](observability.md). Its variables choose the data source, the
job and the replicas. Each panel, what it shows, and what it asks Prometheus
([metrics.md](metrics.md) explains each metric):
`)
	for _, p := range d.Panels {
		if p.Type == "row" {
			fmt.Fprintf(&page, "\n## %s\n", p.Title)
			continue
		}
		fmt.Fprintf(&page, "\n### %s\n\n%s\n\n```promql\n", p.Title, p.Description)
		for _, q := range p.Targets {
			page.WriteString(strings.ReplaceAll(q.Expr, `{job=~"$job",instance=~"$instance"`, "{…") + "\n")
		}
		page.WriteString("```\n")
	}
	page.WriteString("\n`{…` stands for the chosen job and replicas: `job=~\"$job\",instance=~\"$instance\"`.\n")
	return page.Bytes()
}
