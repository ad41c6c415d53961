package artifact

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// What images are published with is what is read.
func TestLayersAreReadByTheTypesTheyArePublishedWith(t *testing.T) {
	for role, want := range map[boot.Role]string{
		boot.RoleUKI: "application/vnd.ironcore.image.uki", boot.RoleStub: "application/vnd.ironcore.image.stub", boot.RoleKernel: "application/vnd.ironcore.image.kernel",
		boot.RoleInitrd: "application/vnd.ironcore.image.initramfs", boot.RoleSquashfs: "application/vnd.ironcore.image.squashfs",
	} {
		require.Equal(t, want, LayerType(role))
		got, ok := LayerRole(want + "; charset=utf-8")
		require.True(t, ok)
		require.Equal(t, role, got)
	}
	require.Empty(t, LayerType(boot.RoleExtraInitrd))
	got, ok := LayerRole("application/io.gardenlinux.kernel")
	require.True(t, ok)
	require.Equal(t, boot.RoleKernel, got)
	_, ok = LayerRole("application/vnd.oci.image.layer.v1.tar")
	require.False(t, ok)
}

func TestAClientForRegistriesRefusesBadSettings(t *testing.T) {
	_, err := HTTPClient(Options{AllowedRegistries: []string{"https://x"}})
	require.ErrorIs(t, err, ErrInvalidReference)
	_, err = HTTPClient(Options{CABundle: []byte("none")})
	require.ErrorIs(t, err, ErrInvalidReference)
	_, err = HTTPClient(Options{AllowedRegistries: []string{"registry.example"}})
	require.NoError(t, err)
}
