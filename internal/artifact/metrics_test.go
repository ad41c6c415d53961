package artifact

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

func TestOpensAreCountedByWhatTheyFound(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	a := artifactIn(reg, random(1<<20))
	require.False(t, s.Openable(a.Digest))
	_, err := s.Open(deadline(t), a.Digest)
	require.ErrorIs(t, err, boot.ErrNotReady)
	require.Equal(t, 1.0, metric(t, s, "opens_total", "miss"))

	release := reg.Hold(a.Size / 2)
	defer release()
	pulled := make(chan error, 1)
	go func() { pulled <- s.Pull(deadline(t), a, Credentials{}) }()
	eventually(t, "the pull begins", func() bool { return s.Openable(a.Digest) })
	b, err := s.Open(deadline(t), a.Digest)
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.Equal(t, 1.0, metric(t, s, "opens_total", "arriving"))
	require.Equal(t, 0.0, metric(t, s, "opens_total", "hit"))

	release()
	require.NoError(t, <-pulled)
	require.True(t, s.Openable(a.Digest))
	require.NotEmpty(t, read(t, s, a.Digest))
	require.Equal(t, 1.0, metric(t, s, "opens_total", "hit"))
	require.Equal(t, 1.0, metric(t, s, "opens_total", "miss"))
}
