package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/flags.md")

const flagsIntro = `# Flags

<!-- Written by go test ./cmd/boot-operator -run TestFlagsAreDocumented -update -->

Every flag can also be set by an environment variable: ` + "`BOOT_OPERATOR_`" + ` and the
flag's name in upper case with underscores, such as ` + "`BOOT_OPERATOR_MINIMUM_PROOF`" + `.
` + "`IPXE_SERVER_ADDRESS`" + ` sets ` + "`--ipxe-service-url`" + ` too. The command line wins.
A flag that takes several values may be repeated, or has them separated by commas.
What is wrong with the flags is told all at once, at the start.
`

func TestFlagsAreDocumented(t *testing.T) {
	const path = "../../docs/flags.md"
	want := flagsPage()
	if *update {
		require.NoError(t, os.WriteFile(path, want, 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "docs/flags.md is stale: go test ./cmd/boot-operator -run TestFlagsAreDocumented -update")
}

// Every flag of --help has a row, so that no group is left out of the page.
func TestEveryFlagHasARow(t *testing.T) {
	page := string(flagsPage())
	new(options).flags().VisitAll(func(f *pflag.Flag) {
		require.Contains(t, page, "\n| `--"+f.Name+"` |")
	})
}

// flagsPage is docs/flags.md.
func flagsPage() []byte {
	var o options
	var page bytes.Buffer
	page.WriteString(flagsIntro)
	seen := map[string]bool{}
	for _, group := range []struct {
		title string
		add   func(*pflag.FlagSet)
	}{
		{"Servers", o.serverFlags},
		{"Trust", o.trustFlags},
		{"Network boot", o.netbootFlags},
		{"Images", o.artifactFlags},
		{"Controllers", o.controllerFlags},
		{"BareMetalHosts and BMCs", o.hostOptions.flags},
		{"Verification and composed UKIs", o.signatureOptions.flags},
		{"Traces", o.tracingOptions.flags},
		{"Logging", func(f *pflag.FlagSet) { f.AddFlagSet(o.flags()) }}, // what no other group has
	} {
		f := pflag.NewFlagSet(group.title, pflag.ContinueOnError)
		f.SortFlags = false
		group.add(f)
		fmt.Fprintf(&page, "\n## %s\n\n| flag | default | what it does |\n|---|---|---|\n", group.title)
		f.VisitAll(func(fl *pflag.Flag) {
			if !seen[fl.Name] {
				seen[fl.Name] = true
				page.WriteString(flagRow(fl))
			}
		})
	}
	return page.Bytes()
}

func flagRow(f *pflag.Flag) string {
	value := "`" + strings.Trim(f.DefValue, "[]") + "`"
	if value == "``" {
		value = ""
	}
	usage := strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`, "\n", " ").Replace(strings.TrimSpace(f.Usage))
	if f.Deprecated != "" {
		usage += ". Deprecated: " + f.Deprecated
	}
	return fmt.Sprintf("| `--%s` | %s | %s |\n", f.Name, value, usage)
}
