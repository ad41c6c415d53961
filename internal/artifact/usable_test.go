package artifact

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAStoreThatCanBeUsedSaysSo(t *testing.T) {
	o := options(t)
	s := open(t, o)
	require.NoError(t, s.Usable())
	entries, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.NotEqual(t, ".probe", e.Name(), "it leaves nothing behind")
	}
	again := open(t, Options{Dir: t.TempDir()})
	require.NoError(t, os.WriteFile(filepath.Join(again.opts.Dir, ".probe"), []byte("of a process that was killed"), 0o600))
	require.NoError(t, again.Usable())
}

// What a vanished mount leaves is an empty directory that can be written to.
func TestAStoreWhoseDirectoryWasReplacedIsNotUsable(t *testing.T) {
	o := options(t)
	o.Dir = filepath.Join(t.TempDir(), "store")
	s := open(t, o)
	require.NoError(t, os.Rename(o.Dir, o.Dir+".away"))
	require.ErrorIs(t, s.Usable(), os.ErrNotExist)
	require.NoError(t, os.MkdirAll(o.Dir, 0o750))
	require.Error(t, s.Usable())
	require.NoError(t, os.WriteFile(filepath.Join(o.Dir, ".lock"), nil, 0o600))
	require.ErrorContains(t, s.Usable(), "is not the directory that was opened")
	require.NoError(t, os.RemoveAll(o.Dir))
	require.NoError(t, os.Rename(o.Dir+".away", o.Dir))
	require.NoError(t, s.Usable(), "the control: it is back")
}
