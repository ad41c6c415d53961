package boot

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type slowBlob struct {
	Blob
	file  *os.File
	whole atomic.Bool
}

func (b *slowBlob) File() *os.File {
	if b.whole.Load() {
		return b.file
	}
	return nil
}

func TestVerifiedWaitsALittleForTheWhole(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	b := &slowBlob{file: f}
	_, err = Verified(t.Context(), b, 50*time.Millisecond)
	require.ErrorIs(t, err, ErrNotReady)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Verified(ctx, b, time.Minute)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, ErrNotReady)

	time.AfterFunc(50*time.Millisecond, func() { b.whole.Store(true) })
	got, err := Verified(t.Context(), b, time.Minute)
	require.NoError(t, err)
	require.Equal(t, f, got)
	got, err = Verified(ctx, b, 0)
	require.NoError(t, err, "what is there is not waited for")
	require.Equal(t, f, got)
}
