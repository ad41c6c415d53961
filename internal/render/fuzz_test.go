package render

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// fuzzPlan puts strings of anybody's into every field that reaches a script.
func fuzzPlan(word, url, arg, label string, flags uint8) *boot.Plan {
	p := plan(func(p *boot.Plan) {
		p.Object = boot.Ref{Kind: word, Namespace: word, Name: word, UID: word}
		p.Machine = boot.Machine{UUID: boot.UUID(word), MACs: []boot.MAC{boot.MAC(word), boot.MAC(word)}, Architecture: boot.Architecture(word)}
		p.Machine.Labels = map[string]string{"serial": label, "product": label, label: label}
		p.KernelArguments = []string{arg, arg}
		p.HasIgnition, p.HasCloudInit = flags&1 != 0, flags&2 != 0
	})
	for i, role := range []boot.Role{boot.RoleKernel, boot.RoleInitrd, boot.RoleSquashfs} {
		if flags&(4<<i) != 0 {
			foreign(role, url)(p)
		}
	}
	if flags&64 != 0 {
		ukiOnly(p)
		foreign(boot.RoleUKI, url)(p)
	}
	return p
}

// fuzzTemplate has every field, at the beginning, in the middle and at the end
// of lines.
const fuzzTemplate = `#!ipxe
1 {{.Base}} {{.Namespace}} {{.Name}} {{.UUID}}
2 {{.MAC}}{{range .MACs}} {{.}}{{end}} ${net0/mac} {{.Architecture}}
3 {{.KernelURL}} {{.KernelDigest}} {{.InitrdURL}} {{.InitrdDigest}} {{.SquashfsURL}}
4 {{.IgnitionURL}} {{.CloudInitURL}} {{.SquashfsDigest}}{{range .Arguments}} {{.}}{{end}}
5 {{.CommandLine}}
6 {{.Labels.serial}}
7 {{.Labels}} {{.}} {{.Labels.product}}
8
`

// linesOf are the lines that the scripts may have, in their order; some of them
// may be missing.
var linesOf = map[string][]*regexp.Regexp{
	"default": patterns(`#!ipxe`, `set tries:int32 0`, `:fetch`, `imgfree`, `# sha256:[0-9a-f]{64}`, `kernel \S+ [!-~ ]+ \|\| goto failed`, `# sha256:[0-9a-f]{64}`,
		`initrd --name initrd \S+ \|\| goto failed`, `boot \|\| goto leave`, `:failed`, `inc tries`, `iseq \$\{tries\} 6 && goto leave \|\|`, `echo Trying again in 5 seconds`, `sleep 5`,
		`goto fetch`, `:leave`, `echo Nothing was booted; leaving for the next boot device`, `exit 1`),
	"uki": patterns(`#!ipxe`, `iseq \$\{platform\} efi \|\| goto leave`, `set tries:int32 0`, `:fetch`, `imgfree`, `set unprintable:hexraw 01`, `kernel --name \$\{unprintable:string\} \S+ \|\| goto failed`, `boot \|\| goto leave`,
		`:failed`, `inc tries`, `iseq \$\{tries\} 6 && goto leave \|\|`, `echo Trying again in 5 seconds`, `sleep 5`, `goto fetch`, `:leave`,
		`echo Nothing was booted; leaving for the next boot device`, `exit 1`),
	"own": patterns(`#!ipxe`, `1 .*`, `2 .*`, `3 .*`, `4 .*`, `5 .*`, `6 .*`, `7 .*`, `8`),
}

func patterns(lines ...string) []*regexp.Regexp {
	var list []*regexp.Regexp
	for _, l := range lines {
		list = append(list, regexp.MustCompile(`^[ -~]*$`), regexp.MustCompile("^"+l+"$"))
	}
	return list
}

// checkLines fails where a script has a line that its template has not, in
// another order, or with words that iPXE takes for something else.
func checkLines(t *testing.T, kind, script string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	want := linesOf[kind]
	i := 0
	for _, line := range lines {
		for i < len(want) && !want[i+1].MatchString(line) {
			i += 2
		}
		if i >= len(want) {
			t.Fatalf("a line that is not in the template: %q\n%s", line, script)
		}
		if !want[i].MatchString(line) || strings.HasSuffix(line, `\`) {
			t.Fatalf("a line with a control character or a backslash at its end: %q", line)
		}
		i += 2
	}
	if want := map[string]int{"default": 1, "uki": 3, "own": 1}[kind]; strings.Count(script, "${") != want {
		t.Fatalf("%d expansions instead of %d:\n%s", strings.Count(script, "${"), want, script)
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "kernel ") && commentOrSeparator(strings.TrimSuffix(line, " || goto failed")) {
			t.Fatalf("a word that ends the command: %q", line)
		}
	}
}

func commentOrSeparator(line string) bool {
	for _, word := range strings.Fields(line) {
		if word[0] == '#' || word == "||" || word == "&&" || word == ";" {
			return true
		}
	}
	return false
}

func FuzzScript(f *testing.F) {
	for _, s := range []string{"x", "a\nshell", "${uuid}", `\`, "#", "||", "http://h/a\r\nb", "\x00", "$", "{", "}", " ", "é", "http://h/|| reboot", "%0A", "&&", ";", "http://$", "https://{"} {
		f.Add(s, s, s, s, s, uint8(0))
		f.Add("x", "http://h/"+s, "quiet", s, s, uint8(63))
		f.Add(s, "http://h/k", "a"+s, "label", "http://b"+s, uint8(255))
	}
	scripts := NewScripts()
	f.Fuzz(func(t *testing.T, word, url, arg, label, base string, flags uint8) {
		for _, kind := range []string{"default", "own"} {
			p := fuzzPlan(word, url, arg, label, flags)
			if kind == "own" {
				p.ScriptTemplate = fuzzTemplate
			} else if flags&64 != 0 {
				kind = "uki"
			}
			got, err := scripts.Script(p, Links{Base: base, BootToken: word, SecretToken: label})
			if err != nil {
				if !errors.Is(err, boot.ErrInvalid) && !errors.Is(err, boot.ErrNotFound) {
					t.Fatalf("neither a script nor an error that says why: %v", err)
				}
				continue
			}
			checkLines(t, kind, string(got))
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{Default, ownTemplate, fuzzTemplate, "", "#!ipxe\n", "{{", "#!ipxe\n{{range 9999999}}{{end}}", "#!ipxe\n{{template \"x\"}}",
		"#!ipxe\n{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}", "#!ipxe\n{{range .MACs}}{{range .}}{{end}}{{end}}", "#!ipxe\n{{$x := .}}{{range $x.Labels}}{{$x = .}}{{end}}",
		"#!ipxe\n{{len .}}", "#!ipxe\n{{slice .UUID 1 2 3}}", "#!ipxe\n{{index .Labels .Labels}}", "#!ipxe\n{{eq .MACs .MACs}}", "#!ipxe\n{{range $i := 5}}{{break}}{{end}}", "#!ipxe\n{{nil}}",
		"#!ipxe\n{{.Labels.x.y}}", "#!ipxe\n{{block \"x\" .}}{{end}}", "#!ipxe\n{{1e400}}{{'x'}}{{`a\nb`}}", "#!ipxe\n{{- /* c */ -}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		s, err := compile(text)
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("took %s", took)
		}
		if err != nil {
			if !errors.Is(err, boot.ErrInvalid) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		out, err := s.execute(samples()[0].data)
		if err != nil || len(out) > MaxScript || CheckScript(out) != nil && !strings.Contains(string(out), "\x00") {
			t.Fatalf("what was accepted does not work: %v, %d bytes", err, len(out))
		}
	})
}

var grubLine = regexp.MustCompile(`^(set (default=0|fallback=1|timeout=3)|menuentry '[A-Za-z ]+' \{|\}|  # sha256:[0-9a-f]{64}|  (linux|initrd|chainloader) '?\(http,[!-~ ]*|  exit 1)$`)

func FuzzGRUBMenu(f *testing.F) {
	for _, s := range []string{"x", "a\nexit", "$x", `\`, "#", "'", "';exit;'", "\"", "{", "http://h/'\n", "\x00", ";", ")", "http://a)b,c/"} {
		f.Add(s, s, s, s, s, uint8(0))
		f.Add("x", "http://h/"+s, "quiet", s, "http://10.0.0.1", uint8(63))
		f.Add(s, "http://h"+s+"/k", "a"+s, "label", "http://b"+s, uint8(255))
	}
	f.Fuzz(func(t *testing.T, word, url, arg, label, base string, flags uint8) {
		got, err := GRUBMenu(fuzzPlan(word, url, arg, label, flags), Links{Base: base, BootToken: word, SecretToken: label})
		if err != nil {
			if !errors.Is(err, boot.ErrInvalid) && !errors.Is(err, boot.ErrNotFound) {
				t.Fatalf("neither a menu nor an error that says why: %v", err)
			}
			return
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(got), "\n"), "\n") {
			if !grubLine.MatchString(line) || !quoted(line) {
				t.Fatalf("a line that is not in the menu: %q\n%s", line, got)
			}
		}
	})
}

// quoted says whether all that could mean something to GRUB stands between
// single quotes or behind a backslash.
func quoted(line string) bool {
	if !strings.HasPrefix(line, "  linux ") && !strings.HasPrefix(line, "  initrd ") && !strings.HasPrefix(line, "  chainloader ") {
		return true
	}
	in := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\'':
			in = !in
		case in:
		case c == '\\' && i+1 < len(line):
			i++
		case strings.IndexByte(`$;&|<>{}"#*?\()`, c) >= 0:
			return false
		}
	}
	return !in
}
