package boot_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestEveryReplicaMakesTheSameIDOfAnAttempt(t *testing.T) {
	id := boot.NewID("uid", 7)
	require.Equal(t, id, boot.NewID("uid", 7))
	require.NotEqual(t, id, boot.NewID("uid", 8))
	require.NotEqual(t, id, boot.NewID("uid1", 7), "and of no other object's")
	require.NotEqual(t, boot.NewID("uid 1", 2), boot.NewID("uid", 12))
	require.Regexp(t, regexp.MustCompile("^[0-9a-f]{32}$"), id.String())
	require.Equal(t, id.Root(), boot.NewID("uid", 7).Root())
	require.NotEqual(t, id.Root(), boot.NewID("uid", 8).Root())
}
