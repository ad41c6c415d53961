package render

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestABadTemplateIsRefusedWithItsLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                     {"", `must be #!ipxe`},
		"not a script":                {"boot\n", `line 1 of the script that the template yields is "boot"; it must be #!ipxe`},
		"magic without space":         {"#!ipxex\nboot\n", "must be #!ipxe"},
		"a space before":              {" #!ipxe\n", "must be #!ipxe"},
		"does not parse":              {"#!ipxe\n{{if .KernelURL}}\n", "line 3 of the template: unexpected EOF"},
		"an action that is not ended": {"#!ipxe\nkernel {{.KernelURL\n", "unclosed action started at script:2"},
		"an unknown field":            {"#!ipxe\n\nkernel {{.Kernel}}\n", "line 3 of the template: <.Kernel>: there is no field Kernel here; there are .Base, .Namespace, .Name, .UUID, .MAC, .MACs, .Architecture, .KernelURL"},
		"a field only sometimes":      {"#!ipxe\n{{with .SquashfsURL}}{{.Nope}}{{end}}\n", "line 2 of the template"},
		"an unknown function":         {"#!ipxe\n{{env \"HOME\"}}\n", `line 2 of the template: function "env" not defined`},
		"a function that builds":      {"#!ipxe\n{{printf \"%s\" .UUID}}\n", "line 2 of the template: the function printf is not there; there are and, or, not"},
		"call":                        {"#!ipxe\n{{if (call .Base)}}{{end}}\n", "the function call is not there"},
		"a pipe":                      {"#!ipxe\n{{define \"x\"}}{{.Base | urlquery}}{{end}}\n", "the function urlquery is not there"},
		"deep in a branch":            {"#!ipxe\n{{range .MACs}}{{with .}}{{if .}}{{else}}\n{{html .}}{{end}}{{end}}{{end}}\n", "line 3 of the template: the function html is not there"},
		"a dollar before an action":   {"#!ipxe\necho ${{.UUID}}\n", "line 2 of the template: a $ stands right before"},
		"a trimmed dollar":            {"#!ipxe\necho $ {{- .UUID}}\n", "line 2 of the template: a $ stands right before"},
		"a NUL":                       {"#!ipxe\n\n\x00", "line 3 of the template has a NUL"},
		"too large":                   {"#!ipxe\n" + strings.Repeat("#", MaxTemplate), "at most 65536"},
		"an action too long":          {"#!ipxe\n{{if or" + strings.Repeat(" .UUID", 300) + "}}{{end}}", "an action has"},
		"too much output":             {"#!ipxe\n{{range 1000}}" + strings.Repeat("x", 100) + "{{end}}", "more than 65536 bytes"},
		"an endless loop":             {"#!ipxe\n{{range 4000000000}}{{end}}", "more than 5000 steps"},
		"nested loops":                {"#!ipxe\n" + strings.Repeat("{{range 64}}", 20) + strings.Repeat("{{end}}", 20), "more than 5000 steps"},
		"a loop with nothing to say":  {"#!ipxe\n{{range 4000000000}}{{if false}}{{end}}{{continue}}{{end}}", "more than 5000 steps"},
		"a template that calls itself": {
			`#!ipxe` + "\n" + `{{define "a"}}{{template "a" .}}{{end}}{{template "a" .}}`, "more than 5000 steps"},
		"two that call each other": {
			`#!ipxe` + "\n" + `{{define "a"}}{{template "b"}}{{template "b"}}{{end}}{{define "b"}}{{template "a"}}{{template "a"}}{{end}}{{template "a"}}`, "more than 5000 steps"},
		"a method":                            {"#!ipxe\n{{.Labels.serial.Foo}}\n", "line 2 of the template"},
		"an index too far":                    {"#!ipxe\n{{index .MACs 7}}\n", "line 2 of the template"},
		"a first mac that a machine may lack": {"#!ipxe\n{{index .MACs 0}}\n", "for a machine without UUID, Ignition and arguments"},
		"much work in every step":             {"#!ipxe\n{{range 4000000000}}{{if and" + strings.Repeat(" 1", 240) + "}}{{end}}{{end}}", "more than 5000 steps"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			err := CheckTemplate(c.text)
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
			require.Less(t, time.Since(began), 5*time.Second)
		})
	}
}

func TestAGoodTemplateIsTaken(t *testing.T) {
	for name, text := range map[string]string{
		"the default": Default,
		"every field": ownTemplate,
		"no action":   "#!ipxe\necho ${net0/mac}\nshell\n",
		"a variable":  "#!ipxe\n{{$u := .UUID}}{{range $i, $m := .MACs}}# {{$i}} {{$m}} {{$u}}\n{{else}}# none\n{{end}}",
		"a part":      "#!ipxe\n{{define \"k\"}}kernel {{.KernelURL}}\n{{end}}{{template \"k\" .}}",
		"an index":    "#!ipxe\n# {{index .Labels \"serial\"}} {{if and .MACs (eq (index .MACs 0) .MAC)}}{{slice .MAC 0 2}}{{end}}\n",
		"CR LF":       "#!ipxe\r\nboot\r\n",
		"a dollar":    "#!ipxe\necho costs 5$ {{.UUID}} $x\n",
	} {
		t.Run(name, func(t *testing.T) { require.NoError(t, CheckTemplate(text)) })
	}
}

func TestTheDefaultTemplateYieldsTheDefaultScript(t *testing.T) {
	compiled, err := compile(Default)
	require.NoError(t, err)
	for _, sample := range samples() {
		want, err := compiled.execute(sample.data)
		require.NoError(t, err)
		require.Equal(t, string(want), string(sample.data.defaultScript()), sample.name)
	}
}

func TestThisDocumentSaysEveryField(t *testing.T) {
	// What a template can use is a promise: see docs/ipxe.md.
	require.Equal(t, []string{
		".Base", ".Namespace", ".Name", ".UUID", ".MAC", ".MACs", ".Architecture", ".KernelURL", ".KernelDigest", ".InitrdURL", ".InitrdDigest",
		".SquashfsURL", ".SquashfsDigest", ".IgnitionURL", ".CloudInitURL", ".Arguments", ".CommandLine", ".Labels",
	}, fields())
}

func TestTheDocumentedTemplatesWork(t *testing.T) {
	page, err := os.ReadFile("../../docs/ipxe.md")
	require.NoError(t, err)
	require.Contains(t, string(page), Default, "the page has the default template")
	for _, f := range fields() {
		require.Contains(t, string(page), "`"+f+"`", "the page says what %s is", f)
	}
	for _, key := range LabelKeys {
		require.Contains(t, string(page), "`"+key+"`")
	}
	parts := strings.Split(string(page), "```")
	tried := 0
	for i := 1; i < len(parts); i += 2 {
		_, text, _ := strings.Cut(strings.ReplaceAll(parts[i], "\n  ", "\n"), "\n")
		if !strings.Contains(text, "{{") {
			continue
		}
		if !strings.HasPrefix(text, "#!ipxe") {
			text = "#!ipxe\n" + text
		}
		require.NoError(t, CheckTemplate(text), text)
		tried++
	}
	require.GreaterOrEqual(t, tried, 5)
}
