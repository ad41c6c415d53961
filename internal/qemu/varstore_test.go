package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// blankStore is a store as AAVMF's template becomes.
func blankStore(t *testing.T) *VarStore {
	t.Helper()
	s, err := newVarStore(make([]byte, blankLength), filepath.Join(t.TempDir(), "vars.fd"))
	require.NoError(t, err)
	return s
}

func TestVariablesSurviveSavingAndOverwriting(t *testing.T) {
	s := blankStore(t)
	require.NoError(t, s.SetBootOrder(3, 1, 2))
	require.NoError(t, s.SetEntry(nextEntry, "override", DevicePath(nil).URI("http://10.77.0.1/a")))
	require.NoError(t, s.SetBootNext(nextEntry))
	require.NoError(t, s.SetBootOrder(7))
	require.NoError(t, s.Save())

	s, err := OpenVarStore(s.path)
	require.NoError(t, err)
	assert.Equal(t, []uint16{7}, s.BootOrder())
	next, ok := s.BootNext()
	assert.True(t, ok)
	assert.EqualValues(t, nextEntry, next)
	entry, err := s.Get("Boot00F0")
	require.NoError(t, err)
	assert.Contains(t, string(entry), "http://10.77.0.1/a")
	s.Delete("BootNext")
	_, ok = s.BootNext()
	assert.False(t, ok)
	_, err = s.Get("BootNext")
	assert.ErrorIs(t, err, ErrNoVariable)
}

func TestAFullStoreSaysSo(t *testing.T) {
	s := blankStore(t)
	assert.ErrorContains(t, s.Set("Large", make([]byte, blankVariables)), "no room")
}

func TestAStoreIsWrittenAsOftenAsOneLikes(t *testing.T) {
	s := blankStore(t)
	require.NoError(t, s.SetBootOrder(1, 2))
	large := make([]byte, 1<<12)
	for i := range 3 * blankVariables / len(large) { // three times what it holds
		large[0] = byte(i)
		require.NoError(t, s.Set("Large", large))
	}
	content, err := s.Get("Large")
	require.NoError(t, err)
	assert.Equal(t, large, content)
	assert.Equal(t, []uint16{1, 2}, s.BootOrder(), "what was not written again is still there")
	require.NoError(t, s.Save())
	_, err = OpenVarStore(s.path)
	require.NoError(t, err)
}

func TestWritingWhatIsThereTakesNoRoom(t *testing.T) {
	s := blankStore(t)
	require.NoError(t, s.SetBootOrder(1, 2))
	_, free := s.variables()
	require.NoError(t, s.SetBootOrder(1, 2))
	_, after := s.variables()
	assert.Equal(t, free, after)
}

func TestAnEntryIsReadAsItWasWritten(t *testing.T) {
	s := blankStore(t)
	mac := []byte{0x52, 0x54, 0, 0, 0, 1}
	for want, path := range map[Target]DevicePath{
		{Kind: HTTP, URL: "http://a/b"}: NICPath(0x10, mac).URI("http://a/b"),
		{Kind: HTTP}:                    nicPath6(0x10, mac).URI(""),
		{Kind: PXE}:                     NICPath(0x10, mac),
		{Kind: ROM}:                     macPath(0x10, mac),
		{Kind: Disk}:                    PCIPath(0x18),
	} {
		require.NoError(t, s.SetEntry(0x0042, "näme", path))
		read, err := s.Entry(0x0042)
		require.NoError(t, err)
		assert.Equal(t, path, read)
		assert.Equal(t, want, read.target())
	}
	_, err := s.Entry(0x0043)
	assert.ErrorIs(t, err, ErrNoVariable)
}

func TestAnEntryThatIsCutShortIsRefused(t *testing.T) {
	s := blankStore(t)
	require.NoError(t, s.SetEntry(0x0042, "disk", PCIPath(0x18)))
	whole, err := s.Get("Boot0042")
	require.NoError(t, err)
	for length := range whole {
		require.NoError(t, s.Set("Boot0042", whole[:length]))
		_, err := s.Entry(0x0042)
		assert.Error(t, err, "%d bytes of %d", length, len(whole))
	}
	for _, path := range []DevicePath{{3}, {3, 24, 0, 0}, {3, 24, 200, 0, 1}} {
		assert.Equal(t, Target{Kind: Disk}, path.target(), "no node of it can be read")
	}
}

func TestWhatIsNotAVariableStoreIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vars.fd")
	for _, content := range [][]byte{nil, make([]byte, 1000), []byte("text")} {
		require.NoError(t, os.WriteFile(path, content, 0o600))
		_, err := OpenVarStore(path)
		assert.Error(t, err)
	}
}

func TestADevicePathIsEncodedAsTheSpecificationSays(t *testing.T) {
	path := NICPath(0x10, []byte{0x52, 0x54, 0, 0, 0, 1}).URI("http://a")
	assert.Len(t, path, 12+6+37+27+12)
	assert.Equal(t, DevicePath{3, 24, 12, 0, 'h', 't', 't', 'p', ':', '/', '/', 'a'}, path[len(path)-12:])
}
