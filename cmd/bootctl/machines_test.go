package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/timeline"
	"github.com/boot-operator/boot-operator/test/machines"
)

// goldenPage compares what is printed with what is expected, and sees to it that it fits
// a terminal.
func goldenPage(t *testing.T, name, text string, width int) {
	t.Helper()
	golden(t, name, text)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		require.LessOrEqual(t, columns(line), width, line)
		require.Equal(t, strings.TrimRight(line, " "), line, "no spaces at the end")
		require.NotRegexp(t, `\x1b|\t`, line)
	}
}

func rowsInEveryStage(t *testing.T, stuck bool) []row {
	t.Helper()
	all, err := machines.All()
	require.NoError(t, err)
	return rowsOf(all, machines.Now, stuck)
}

func TestStatusOfMachinesInEveryStage(t *testing.T) {
	var here []row
	for _, r := range rowsInEveryStage(t, false) {
		if r.Namespace == "machines" {
			here = append(here, r)
		}
	}
	goldenPage(t, "status.txt", statusTable(here, false, machines.Now), pageWidth)
	goldenPage(t, "status-all-namespaces.txt", statusTable(rowsInEveryStage(t, false), true, machines.Now), pageWidth)
	goldenPage(t, "status-stuck.txt", statusTable(rowsInEveryStage(t, true), true, machines.Now), pageWidth)
	var wide bytes.Buffer
	require.NoError(t, printStatus(&wide, here, "wide", false, machines.Now))
	goldenPage(t, "status-wide.txt", wide.String(), 1000)
}

func TestStatusAsJSONIsStable(t *testing.T) {
	var text bytes.Buffer
	require.NoError(t, printStatus(&text, rowsInEveryStage(t, false), "json", true, machines.Now))
	goldenPage(t, "status.json", text.String(), 2000)
	var read statusReport
	require.NoError(t, json.Unmarshal(text.Bytes(), &read))
	require.Equal(t, reportSchema, read.Schema)
	require.Equal(t, machines.Now, read.Time)
	var yaml bytes.Buffer
	require.NoError(t, printStatus(&yaml, rowsInEveryStage(t, false), "yaml", true, machines.Now))
	require.Contains(t, yaml.String(), "schema: "+reportSchema)
	text.Reset()
	require.NoError(t, printStatus(&text, nil, "json", true, machines.Now))
	require.Contains(t, text.String(), `"machines": []`, "no machine is an empty list")
}

func TestExplainTellsBoots(t *testing.T) {
	for _, name := range []string{"machine-8", "awaiting-fetch", "failed", "fetching-uki", "available", "incomplete"} {
		m, err := machines.Named(name)
		require.NoError(t, err)
		m.Events = []timeline.Event{{Time: machines.Now.Add(-9 * time.Minute), Object: v1alpha1.KindHTTPBootConfig + " " + name, Reason: v1alpha1.ReasonSecretContested, Message: "10.0.0.66 asked for the secret of attempt 2, which another address had fetched, and was refused.", Warning: true}}
		goldenPage(t, "explain-"+name+".txt", explanation(m, m.LastBoot(machines.Now), machines.Now), pageWidth)
		if name == "machine-8" {
			var text bytes.Buffer
			require.NoError(t, printJSON(&text, newExplanation(m, m.LastBoot(machines.Now), machines.Now)))
			goldenPage(t, "explain.json", text.String(), 2000)
		}
	}
}

// What somebody wrote into an object must not move the cursor of who reads it.
func TestNothingThatIsPrintedControlsATerminal(t *testing.T) {
	m, err := machines.Named("not-ready")
	require.NoError(t, err)
	for i := range m.Configs[0].ConfigStatus().Conditions {
		m.Configs[0].ConfigStatus().Conditions[i].Message = "a\x1b[2Jb\r\nc\u202ed" + strings.Repeat("e", 9000)
	}
	rows := rowsOf([]timeline.Machine{m}, machines.Now, false)
	for _, text := range []string{statusTable(rows, true, machines.Now), changeLine(rows[0], false, true, machines.Now), explanation(m, m.LastBoot(machines.Now), machines.Now)} {
		require.NotRegexp(t, "[\x1b\r\u202e]", text)
		require.Contains(t, text, "[2Jb")
		require.Less(t, len(text), 5000)
	}
}

func TestWideRunesTakeTwoColumns(t *testing.T) {
	require.Equal(t, 8, columns("系统镜像"))
	require.Equal(t, 2, columns("e\u0301b"), "a combining accent takes none")
	require.Equal(t, "系统…", cut("系统镜像", 6))
	require.Equal(t, "系…", cut("系统镜像", 4))
	require.Equal(t, "abc", cut("abc", 3))
	require.Equal(t, "系统  ", pad("系统", 6))
	require.Equal(t, "> 系统\n  镜像\n", wrap("系统镜像", 6, "> ", "  "), "a word that is too long is broken")
	require.Equal(t, "> a bc\n  de\n", wrap(" a  bc\nde ", 7, "> ", "  "))
	require.Empty(t, wrap(" ", 7, "> ", "  "))
}

func TestMachinesAreChosenByNamesAndLabels(t *testing.T) {
	all, err := machines.All()
	require.NoError(t, err)
	everything := labels.Everything()
	chosen, err := choose(all, []string{"booted", "52:54:00:AA:BB:01", "10.1.0.8"}, everything, "here")
	require.ErrorContains(t, err, "here has no machine 52:54:00:AA:BB:01")
	require.Empty(t, chosen)
	chosen, err = choose(all, []string{"booted", "10.1.0.8"}, everything, "here")
	require.NoError(t, err)
	require.Len(t, chosen, 2)
	selector, err := labels.Parse("rack=r7")
	require.NoError(t, err)
	chosen, err = choose(all, nil, selector, "here")
	require.NoError(t, err)
	require.Len(t, chosen, 1)
	_, err = choose(all, []string{"bootet"}, everything, "here")
	require.ErrorContains(t, err, "no machine bootet (by name, UUID, MAC or IP address); it has booted, ")
	require.ErrorContains(t, err, "more")
	_, err = choose(nil, []string{"x"}, everything, "here")
	require.ErrorContains(t, err, "nor any other")
}

// watching returns a watcher without a cluster that shows on out.
func watching(out *bytes.Buffer, flags watchFlags) *watcher {
	w := &watcher{fleet: &fleet{env: &environment{Out: out, Err: out}, namespace: "machines"}, flags: &flags, selector: labels.Everything(), shown: map[string]seen{}}
	w.show = w.shower(out)
	return w
}

func TestWatchTellsChangesAndNothingElse(t *testing.T) {
	var out bytes.Buffer
	w := watching(&out, watchFlags{})
	m, err := machines.Named("fetching-uki")
	require.NoError(t, err)
	show := func(now time.Time, all ...timeline.Machine) {
		require.NoError(t, w.show(rowsOf(all, now, false), now))
	}
	show(machines.Now, m)
	show(machines.Now.Add(time.Second), m)
	require.Equal(t, 1, strings.Count(out.String(), "\n"), "time is no change: %s", out.String())
	stage := &m.Configs[0].ConfigStatus().Boot.Stages[0]
	stage.Sent = 400 << 20
	show(machines.Now.Add(2*time.Second), m)
	stage.CompletedTime = stage.StartedTime
	show(machines.Now.Add(3*time.Second), m)
	show(machines.Now.Add(4 * time.Second))
	show(machines.Now.Add(5 * time.Second))
	goldenPage(t, "watch-lines.txt", out.String(), 120)
}

func TestWatchAsJSONIsAnObjectALine(t *testing.T) {
	var out bytes.Buffer
	w := watching(&out, watchFlags{output: "json"})
	all := rowsInEveryStage(t, false)
	require.NoError(t, w.show(all, machines.Now))
	require.NoError(t, w.show(all[1:], machines.Now))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, len(all)+1)
	var last changeReport
	require.NoError(t, json.Unmarshal([]byte(lines[len(all)]), &last))
	require.True(t, last.Gone)
	require.Equal(t, all[0].Name, last.Machine.Name)
}

func TestWatchDrawsInPlaceAndNoLowerThanTheTerminal(t *testing.T) {
	var out bytes.Buffer
	w := watching(&out, watchFlags{output: "table"})
	draw := w.drawer(&out, 10)
	all := rowsInEveryStage(t, false)
	require.NoError(t, draw(all, machines.Now))
	first := out.String()
	require.True(t, strings.HasPrefix(first, toHome+clearIt+"MACHINE"))
	require.LessOrEqual(t, strings.Count(first, "\n"), 9)
	require.Regexp(t, `\(\d+ lines more; `, first)
	require.NoError(t, draw(all, machines.Now))
	require.Equal(t, first, out.String(), "what is there is not drawn again")
	require.NoError(t, draw(nil, machines.Now))
	require.Contains(t, out.String(), "No machine to show in namespace machines.")
}

func TestWatchEndsWhenItCameAboutOrCannotAnyMore(t *testing.T) {
	pick := func(names ...string) (rows []row) {
		for _, r := range rowsInEveryStage(t, false) {
			for _, n := range names {
				if r.Name == n {
					rows = append(rows, r)
				}
			}
		}
		require.Len(t, rows, len(names))
		return rows
	}
	for name, c := range map[string]struct {
		until string
		rows  []row
		over  bool
		err   string
	}{
		"for ever":          {"", pick("booted", "failed"), false, ""},
		"all are":           {"booted", pick("booted", "machine-8"), true, ""},
		"one is not yet":    {"booted", pick("booted", "waiting"), false, ""},
		"one cannot":        {"booted", pick("waiting", "failed"), true, "machines/failed is Failed: The machine did not fetch"},
		"one was aborted":   {"booted", pick("aborted"), true, "machines/aborted is Aborted"},
		"none is there":     {"booted", nil, false, ""},
		"none failed":       {"failed", pick("booted", "not-ready"), false, ""},
		"one failed":        {"failed", pick("booted", "incomplete"), true, ""},
		"not ready can get": {"booted", pick("not-ready"), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			over, err := (&watchFlags{until: c.until}).reached(c.rows)
			require.Equal(t, c.over, over)
			if c.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.err)
			}
		})
	}
}

func TestMisuseOfTheVerbsThatTellOfMachines(t *testing.T) {
	for args, says := range map[string]string{
		"status -o xml":              "must be table, wide, json or yaml",
		"status -A -n x":             "exclude each other",
		"status -l =":                "--selector",
		"watch --until running":      "must be booted or failed",
		"watch --timeout -1s":        "must not be negative",
		"watch -o yaml":              "must be table, lines or json",
		"explain":                    "accepts 1 arg",
		"explain m -o table":         "must be text or json",
		"boot":                       "a verb of boot is missing",
		"boot retry":                 "accepts 1 arg",
		"boot abort m --timeout 0s":  "must be positive",
		"doctor --checks x":          "they are cluster, proof, bmc, url and dhcp",
		"doctor --url ftp://x":       "must be the URL of a boot server",
		"doctor --url http://a:b@x/": "without credentials",
		"doctor -o yaml":             "must be text or json",
	} {
		code, out, errs := run(t, strings.Fields(args)...)
		require.Equal(t, exitUsage, code, args)
		require.Contains(t, errs, says, args)
		require.NotRegexp(t, regexp.MustCompile(`a:b@`), out+errs)
	}
}

func TestATimeoutHasAnExitCodeOfItsOwn(t *testing.T) {
	err := error(codedError{errors.New("x"), exitTimeout})
	var coded codedError
	require.ErrorAs(t, err, &coded)
	require.Equal(t, exitTimeout, coded.code)
}

// What the pages show has verbs and flags that are there.
func TestDocumentedCommandsAboutMachinesAreUnderstood(t *testing.T) {
	command := regexp.MustCompile(`\bbootctl (?:status|watch|explain|doctor|boot retry|boot abort)\b[^\n|#]*`)
	count := 0
	for _, page := range []string{"../../docs/bootctl.md", "../../docs/troubleshooting.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for block := range fenced(string(text)) {
			for _, line := range command.FindAllString(block, -1) {
				root, _ := newRootCommand(&environment{})
				verb, rest, err := root.Find(words(line)[1:])
				require.NoError(t, err, line)
				require.NoError(t, verb.ParseFlags(rest), line)
				if verb.Args != nil {
					require.NoError(t, verb.Args(verb, verb.Flags().Args()), line)
				}
				count++
			}
		}
	}
	require.Greater(t, count, 12)
}

// The table of stages has all of them.
func TestEveryStageIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/bootctl.md")
	require.NoError(t, err)
	for _, s := range timeline.Stages {
		require.Contains(t, string(text), "`"+string(s)+"`", s)
	}
}
