package render

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestTheDefaultScriptIsWhatItWas(t *testing.T) {
	cases := map[string]struct {
		plan  *boot.Plan
		links Links
	}{
		"image.ipxe":       {plan(), plain},
		"token.ipxe":       {plan(), tokens},
		"nosquashfs.ipxe":  {plan(without(boot.RoleSquashfs), nobody), plain},
		"kernelonly.ipxe":  {plan(without(boot.RoleSquashfs, boot.RoleInitrd), arguments()), plain},
		"foreign.ipxe":     {plan(foreign(boot.RoleKernel, "http://example.com/k"), foreign(boot.RoleInitrd, "https://example.com/i?v=1"), without(boot.RoleSquashfs)), plain},
		"cloudinit.ipxe":   {plan(func(p *boot.Plan) { p.HasIgnition, p.HasCloudInit = false, true }), plain},
		"cloudtoken.ipxe":  {plan(func(p *boot.Plan) { p.HasIgnition, p.HasCloudInit = false, true }), tokens},
		"nouuid.ipxe":      {plan(nobody, func(p *boot.Plan) { p.HasIgnition, p.HasCloudInit = true, true }), plain},
		"ipv6.ipxe":        {plan(), Links{Base: "http://[fd00:77::1]:8082/"}},
		"uki.ipxe":         {plan(ukiOnly), plain},
		"ukitoken.ipxe":    {plan(ukiOnly), tokens},
		"ukiforeign.ipxe":  {plan(ukiOnly, foreign(boot.RoleUKI, "http://example.com/os.efi")), plain},
		"owntemplate.ipxe": {plan(func(p *boot.Plan) { p.ScriptTemplate = ownTemplate }), tokens},
	}
	s := NewScripts()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := s.Script(c.plan, c.links)
			require.NoError(t, err)
			golden(t, name, got)
			require.NoError(t, CheckScript(got))
		})
	}
}

// ownTemplate uses every field.
const ownTemplate = `#!ipxe
# {{.Namespace}}/{{.Name}} {{.Architecture}} {{.UUID}} {{.MAC}}{{range .MACs}} {{.}}{{end}}
# serial {{.Labels.serial}}, asset {{.Labels.asset}}.{{if eq .Labels.platform "efi"}} UEFI{{end}}
kernel {{.KernelURL}} root=live:{{.SquashfsURL}}{{range .Arguments}} {{.}}{{end}}{{with .IgnitionURL}} ignition.config.url={{.}}{{end}}{{with .CloudInitURL}} seed={{.}}{{end}}
sha256sum vmlinuz {{.KernelDigest}} {{.InitrdDigest}} {{.SquashfsDigest}} {{.Base}}
initrd {{.InitrdURL}}
boot
`

func TestChainsAndLeavesAreWhatTheyWere(t *testing.T) {
	golden(t, "chain.ipxe", Chain("http://10.0.0.1:8082"))
	golden(t, "leave.ipxe", Leave())
	require.Equal(t, Leave(), Chain("ftp://x"), "a base that nobody can ask")
	require.Contains(t, string(Chain("http://h\nexit")), "http://h%0Aexit/ipxe?")
}

func TestEveryGotoHasItsLabel(t *testing.T) {
	files, err := os.ReadDir("testdata")
	require.NoError(t, err)
	seen := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".ipxe") {
			continue
		}
		text, err := os.ReadFile("testdata/" + f.Name())
		require.NoError(t, err)
		labels := map[string]int{}
		for line := range strings.Lines(string(text)) {
			if label, ok := strings.CutPrefix(strings.TrimSpace(line), ":"); ok {
				labels[label]++
			}
		}
		for line := range strings.Lines(string(text)) {
			if _, label, ok := strings.Cut(strings.TrimSpace(line), "goto "); ok {
				seen++
				require.Equal(t, 1, labels[strings.Fields(label)[0]], "%s: %s", f.Name(), line)
			}
		}
	}
	require.Greater(t, seen, 20, "the control: there were jumps to look at")
}

func TestAPlanWithNothingToBootIsNotFound(t *testing.T) {
	_, err := NewScripts().Script(&boot.Plan{}, plain)
	require.ErrorIs(t, err, boot.ErrNotFound)
	_, err = GRUBMenu(&boot.Plan{}, plain)
	require.ErrorIs(t, err, boot.ErrNotFound)
}

func TestWhatCannotBeSaidInAScriptIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		plan *boot.Plan
		base string
	}{
		"a base of another kind":     {plan(), "tftp://10.0.0.1"},
		"no base":                    {plan(), ""},
		"an argument with a newline": {plan(arguments("a\nshell")), plain.Base},
		"an argument that expands":   {plan(arguments("a=${net0/mac}")), plain.Base},
		"a digest that is none":      {plan(func(p *boot.Plan) { p.Artifacts[0].Digest = "sha256:x\nshell" }), plain.Base},
		"a URL of another kind":      {plan(foreign(boot.RoleKernel, "file:///etc/passwd")), plain.Base},
		"a command line too long":    {plan(foreign(boot.RoleSquashfs, "http://h/"+strings.Repeat("x", 1900))), plain.Base},
		"a UKI's digest":             {plan(ukiOnly, func(p *boot.Plan) { p.Artifacts[0].Digest = "sha256:\n" }), plain.Base},
		"a template that is wrong":   {plan(func(p *boot.Plan) { p.ScriptTemplate = "#!ipxe\n{{" }), plain.Base},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewScripts().Script(c.plan, Links{Base: c.base})
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestAnURLWithANewlineStaysOneWord(t *testing.T) {
	evil := "http://h/a\nshell\r\n b\\\n#${net0/mac} || reboot ;\x00\xff"
	p := plan(foreign(boot.RoleKernel, evil), foreign(boot.RoleInitrd, evil), foreign(boot.RoleSquashfs, evil))
	p.Machine.UUID = "x\nshell ${y}"
	got, err := NewScripts().Script(p, plain)
	require.NoError(t, err)
	require.NotContains(t, string(got), "shell\r")
	require.Contains(t, string(got), "\nkernel http://h/a%0Ashell%0D%0A%20b%5C%0A%23%24%7Bnet0/mac%7D%20%7C%7C%20reboot%20;%00%FF initrd=initrd ")
	require.Contains(t, string(got), "/ignition/x%0Ashell%20%24%7By%7D ")
}

func TestALabelThatNobodyKnowsIsAbsent(t *testing.T) {
	p := plan(func(p *boot.Plan) {
		p.ScriptTemplate = "#!ipxe\n# {{.Labels.serial}}|{{.Labels.nonsense}}|{{len .Labels}}\n"
		p.Machine.Labels = map[string]string{"serial": "a\nshell ${x}", "nonsense": "x", "a\nb": "y"}
	})
	got, err := NewScripts().Script(p, plain)
	require.NoError(t, err)
	require.Equal(t, "#!ipxe\n# a%0Ashell%20%24%7Bx%7D||1\n", string(got))
}

func TestTheLastGoodTemplateStays(t *testing.T) {
	s := NewScripts()
	require.NoError(t, s.Replace("#!ipxe\n# mine {{.KernelURL}}\n"))
	script := func() string {
		got, err := s.Script(plan(), plain)
		require.NoError(t, err)
		return string(got)
	}
	require.Contains(t, script(), "# mine http://10.0.0.1:8082/images/sha256:aaaa")
	require.ErrorIs(t, s.Replace("#!ipxe\n{{.Nonsense}}"), boot.ErrInvalid)
	require.Contains(t, script(), "# mine http://")
	require.NoError(t, s.Replace(""))
	require.Contains(t, script(), "goto failed")
}

func TestAUKIKeepsItsScriptWhateverTheTemplate(t *testing.T) {
	s := NewScripts()
	require.NoError(t, s.Replace("#!ipxe\n# mine\n"))
	got, err := s.Script(plan(ukiOnly), plain)
	require.NoError(t, err)
	golden(t, "uki.ipxe", got)
}

func TestTemplatesOfPlansAreKeptButNotWithoutBound(t *testing.T) {
	s := NewScripts()
	for i := range 2*maxCached + 3 {
		p := plan(func(p *boot.Plan) { p.ScriptTemplate = fmt.Sprintf("#!ipxe\n# %d\n", i) })
		got, err := s.Script(p, plain)
		require.NoError(t, err)
		require.Equal(t, p.ScriptTemplate, string(got))
		require.LessOrEqual(t, len(s.cached), maxCached)
	}
	for i := range 40 {
		p := plan(func(p *boot.Plan) {
			p.ScriptTemplate = fmt.Sprintf("#!ipxe\n# %d %s\n", i, strings.Repeat("x", MaxTemplate-100))
		})
		_, err := s.Script(p, plain)
		require.NoError(t, err)
		require.LessOrEqual(t, s.bytes, maxCachedBytes)
	}
	require.NotEmpty(t, s.cached)
}

func TestScriptsMayBeRenderedAndReplacedAtOnce(t *testing.T) {
	s := NewScripts()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				p := plan(func(p *boot.Plan) {
					if i%2 == 0 {
						p.ScriptTemplate = fmt.Sprintf("#!ipxe\n# %d\n", j%5)
					}
				})
				if _, err := s.Script(p, plain); err != nil {
					t.Error(err)
				}
				if i == 7 && j%10 == 0 {
					if err := s.Replace("#!ipxe\n# x\n"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkScript(b *testing.B) {
	for name, c := range map[string]struct {
		plan  *boot.Plan
		links Links
	}{
		"default": {plan(), plain}, "token": {plan(), tokens}, "uki": {plan(ukiOnly), plain},
		"own": {plan(func(p *boot.Plan) { p.ScriptTemplate = ownTemplate }), plain},
	} {
		b.Run(name, func(b *testing.B) {
			s := NewScripts()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Script(c.plan, c.links); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
