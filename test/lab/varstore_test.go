package lab

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
	require.NoError(t, s.SetHTTPBootNext("http://10.77.0.1/a", nil))
	require.NoError(t, s.SetBootOrder(7))
	require.NoError(t, s.Save())

	s, err := OpenVarStore(s.path)
	require.NoError(t, err)
	assert.Equal(t, []uint16{7}, s.BootOrder())
	next, ok := s.BootNext()
	assert.True(t, ok)
	assert.EqualValues(t, BootOverrideNumber, next)
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
