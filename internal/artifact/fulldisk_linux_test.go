package artifact

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/registry"
)

// A disk that is full before the budget is: the error says so, nothing is left
// behind, and with room again the pull succeeds.
func TestAFullDisk(t *testing.T) {
	cannot := t.Skipf
	if os.Getenv("CI") == "true" {
		cannot = t.Fatalf // skipped everywhere, it protects nothing
	}
	if os.Geteuid() != 0 {
		cannot("SKIPPED: mounting a small disk needs root")
	}
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	if err := syscall.Mount("tmpfs", o.Dir, "tmpfs", 0, "size=2m"); err != nil {
		cannot("SKIPPED: no mount of a small disk here: %s", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(o.Dir, syscall.MNT_DETACH)) })
	s := open(t, o)
	small, large := random(500_000), random(3<<20)
	require.NoError(t, s.Pull(deadline(t), artifactIn(reg, small), Credentials{}))
	err := s.Pull(deadline(t), artifactIn(reg, large), Credentials{})
	require.ErrorIs(t, err, ErrFull)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.False(t, Terminal(err))
	requireHolds(t, s, small)

	require.NoError(t, syscall.Mount("", o.Dir, "", syscall.MS_REMOUNT, "size=8m"))
	require.NoError(t, s.Pull(deadline(t), artifactIn(reg, large), Credentials{}))
	requireHolds(t, s, large)
}
