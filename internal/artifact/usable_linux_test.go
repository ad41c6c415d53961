package artifact

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/registry"
)

// A disk that is full makes a replica not ready, with the reason.
func TestAStoreOnAFullDiskIsNotUsable(t *testing.T) {
	cannot := t.Skipf
	if os.Getenv("CI") == "true" {
		cannot = t.Fatalf // skipped everywhere, it protects nothing
	}
	if os.Geteuid() != 0 {
		cannot("SKIPPED: mounting a small disk needs root")
	}
	o := options(t, serve(t, registry.Options{}))
	if err := syscall.Mount("tmpfs", o.Dir, "tmpfs", 0, "size=1m"); err != nil {
		cannot("SKIPPED: no mount of a small disk here: %s", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(o.Dir, syscall.MNT_DETACH)) })
	s := open(t, o)
	require.NoError(t, s.Usable())

	big := filepath.Join(o.Dir, "big")
	require.ErrorIs(t, os.WriteFile(big, make([]byte, 2<<20), 0o600), syscall.ENOSPC)
	require.ErrorIs(t, s.Usable(), syscall.ENOSPC)
	require.NoFileExists(t, filepath.Join(o.Dir, ".probe"))
	require.NoError(t, os.Remove(big))
	require.NoError(t, s.Usable(), "there is room again")
}
