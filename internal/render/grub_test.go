package render

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestTheGRUBMenuIsWhatItWas(t *testing.T) {
	for name, c := range map[string]struct {
		plan  *boot.Plan
		links Links
	}{
		"image.cfg":     {plan(), plain},
		"token.cfg":     {plan(), tokens},
		"cloudinit.cfg": {plan(func(p *boot.Plan) { p.HasIgnition, p.HasCloudInit = false, true }), tokens},
		"foreign.cfg":   {plan(foreign(boot.RoleKernel, "http://h/k?a=b&c='d'"), foreign(boot.RoleInitrd, "http://[fd00::1]:81/i")), Links{Base: "http://[fd00:77::1]:8082"}},
		"quoting.cfg":   {plan(without(boot.RoleInitrd), arguments("a'b", `a\b`, `"x`, "$x", "{}", "a;b", "a|b", "<x>", "x#y", "*?", "~", "!")), plain},
		"uki.cfg":       {plan(ukiOnly), plain},
		"ukitoken.cfg":  {plan(ukiOnly), tokens},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := GRUBMenu(c.plan, c.links)
			require.NoError(t, err)
			golden(t, name, got)
		})
	}
	golden(t, "chain.cfg", GRUBChain("http://10.0.0.1:8082"))
	golden(t, "leave.cfg", GRUBLeave())
}

func TestGRUBIsNotSentToHTTPS(t *testing.T) {
	require.Equal(t, GRUBLeave(), GRUBChain("https://10.0.0.1"))
	require.Equal(t, GRUBLeave(), GRUBChain("tftp://10.0.0.1"))
	require.Equal(t, GRUBLeave(), GRUBChain("http://a,b"))
	for _, p := range []*boot.Plan{plan(foreign(boot.RoleKernel, "https://h/k")), plan(foreign(boot.RoleInitrd, "https://h/i")), plan(ukiOnly, foreign(boot.RoleUKI, "https://h/u"))} {
		_, err := GRUBMenu(p, plain)
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, "only http")
	}
	for _, url := range []string{"http://\xac/k", "http://u@h/k", "http://a)b/k", "http://h?x", "http://h%20/k"} {
		_, err := GRUBMenu(plan(foreign(boot.RoleKernel, url)), plain)
		require.ErrorIs(t, err, boot.ErrInvalid, url)
	}
	_, err := GRUBMenu(plan(), Links{Base: "gopher://h"})
	require.ErrorIs(t, err, boot.ErrInvalid)
}

// grubScriptCheck finds GRUB's own parser, of the package grub-common.
func grubScriptCheck(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("grub-script-check")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("grub-script-check is not installed; in CI it has to be: apt-get install grub-common")
	}
	if err != nil {
		t.Skip("NOT TESTED: whether GRUB can read its menus; apt-get install grub-common")
	}
	return path
}

func TestGRUBReadsItsMenus(t *testing.T) {
	check := grubScriptCheck(t)
	files, err := filepath.Glob("testdata/*.cfg")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 9)
	for _, f := range files {
		out, err := exec.CommandContext(t.Context(), check, f).CombinedOutput()
		require.NoError(t, err, "%s: %s", f, out)
	}
	cmd := exec.CommandContext(t.Context(), check)
	cmd.Stdin = bytes.NewReader([]byte("menuentry 'x {\n"))
	require.Error(t, cmd.Run(), "the control: a menu with an open quote is refused")
}
