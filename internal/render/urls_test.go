package render

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// composed makes a plan one whose UKI is composed of a stub, a kernel and an initrd.
func composed(p *boot.Plan) {
	p.Artifacts = append(p.Artifacts, boot.Artifact{Role: boot.RoleStub, Digest: boot.Digest("sha256:" + strings.Repeat("e", 64))})
	p.Composes = true
	p.Composed = &boot.Composed{Digest: boot.Digest("sha256:" + strings.Repeat("f", 64))}
}

func TestAComposedUKIIsChainedAndItsKernelIsNot(t *testing.T) {
	for name, links := range map[string]Links{"/httpboot": plain, "/httpboot/t/BootTokenBootToken/uki.efi": tokens} {
		script, err := NewScripts().Script(plan(composed), links)
		require.NoError(t, err)
		require.Contains(t, string(script), "http://10.0.0.1:8082"+name+orFailed)
		require.NotContains(t, string(script), "/images/")
		require.NotContains(t, string(script), strings.Repeat("f", 64), "its digest leads nowhere")
		menu, err := GRUBMenu(plan(composed), links)
		require.NoError(t, err)
		require.Contains(t, string(menu), "chainloader '(http,10.0.0.1:8082)"+name+"'\n")
		require.NotContains(t, string(menu), "linux")
	}
}

func TestURLsOfDocumentsForThoseWhoAreToldOutsideOfAScript(t *testing.T) {
	p := plan(func(p *boot.Plan) { p.HasIgnition, p.HasCloudInit = true, true })
	ignition, err := tokens.IgnitionURL(p)
	require.NoError(t, err)
	require.Equal(t, "http://10.0.0.1:8082/ignition?token=SecretTokenSecretToken", ignition)
	seed, err := tokens.CloudInitURL(p)
	require.NoError(t, err)
	require.Equal(t, "http://10.0.0.1:8082/cloud-init/t/SecretTokenSecretToken/", seed)

	p = plan(func(p *boot.Plan) { p.HasIgnition, p.HasCloudInit = false, false })
	for _, url := range []func(*boot.Plan) (string, error){tokens.IgnitionURL, tokens.CloudInitURL} {
		got, err := url(p)
		require.NoError(t, err)
		require.Empty(t, got)
	}
	_, err = Links{Base: "ftp://10.0.0.1"}.IgnitionURL(p)
	require.ErrorIs(t, err, boot.ErrInvalid)
}
