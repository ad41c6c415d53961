package artifact

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

func TestADirectoryIsUsedByOneProcess(t *testing.T) {
	o := options(t)
	s := open(t, o)
	o.Registerer = nil
	_, err := New(o)
	require.ErrorContains(t, err, "in use by another process")
	require.NoError(t, s.Close())
	open(t, o)
}

func TestARestartCleansWhatIsNoBlob(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	blobs, ingest := filepath.Join(o.Dir, "blobs", "sha256"), filepath.Join(o.Dir, "ingest")
	require.NoError(t, os.MkdirAll(filepath.Join(blobs, "dir"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(ingest, "dir"), 0o700))
	whole, empty := random(1000), digestOf(nil)
	for _, f := range []string{filepath.Join(blobs, "notes.txt"), filepath.Join(ingest, "url-123"), filepath.Join(blobs, empty.Hex())} {
		require.NoError(t, os.WriteFile(f, nil, 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(blobs, digestOf(whole).Hex()), whole, 0o444))
	s := open(t, o)
	requireEmpty(t, ingest)
	left, err := os.ReadDir(blobs)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.True(t, s.Has(digestOf(whole)))
	require.False(t, s.Has(empty))
	require.Equal(t, 1000.0, metric(t, s, "store_bytes"))
}

func TestAnUnfinishedPullIsResumedAfterARestart(t *testing.T) {
	reg := serve(t, registry.Options{})
	data := random(1 << 20)
	a := artifactIn(reg, data)
	for name, c := range map[string]struct {
		left   []byte
		ranges []string
	}{
		"as it was":    {data[:700_000], []string{"bytes=700000-1048575"}},
		"damaged":      {append(random(600_000), data[600_000:700_000]...), []string{"bytes=700000-1048575", ""}},
		"complete":     {data, nil},
		"too long":     {append(append([]byte{}, data...), 1, 2, 3), nil},
		"wrong in all": {append([]byte{data[0] ^ 1}, data[1:]...), []string{""}},
	} {
		o := options(t, reg)
		ingest := filepath.Join(o.Dir, "ingest")
		require.NoError(t, os.MkdirAll(ingest, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(ingest, a.Digest.Hex()), c.left, 0o600))
		s := open(t, o)
		require.False(t, s.Has(a.Digest), "nothing partial is visible")
		_, err := s.Open(deadline(t), a.Digest)
		require.ErrorIs(t, err, boot.ErrNotReady)
		reg.Forget()
		require.NoError(t, s.Pull(deadline(t), a, Credentials{}), name)
		requireHolds(t, s, data)
		var ranges []string
		for _, r := range reg.Requests() {
			ranges = append(ranges, r.Range)
		}
		require.Equal(t, c.ranges, ranges, name)
	}
}

func TestUnfinishedPullsDoNotStayForEver(t *testing.T) {
	o := options(t)
	ingest := filepath.Join(o.Dir, "ingest")
	require.NoError(t, os.MkdirAll(ingest, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(ingest, digestOf(nil).Hex()), random(100), 0o600))
	now := time.Now()
	o.Now = func() time.Time { return now }
	s := open(t, o)
	s.expireStale()
	require.Len(t, s.stale, 1)
	now = now.Add(staleAge + time.Minute)
	s.expireStale()
	require.Empty(t, s.stale)
	requireEmpty(t, ingest)
}

// Run hashes what an earlier process left; what it finds damaged is gone, and
// pulled again when it is asked for.
func TestDamageOnDiskIsFoundAndRepaired(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	s := open(t, o)
	good, bad := random(100_000), random(200_000)
	for _, data := range [][]byte{good, bad} {
		require.NoError(t, s.Pull(deadline(t), artifactIn(reg, data), Credentials{}))
	}
	require.NoError(t, s.Close())
	damage(t, s.blobPath(digestOf(bad)), func(b []byte) []byte { b[100_000] ^= 1; return b })

	o.Registerer = nil
	s = open(t, o)
	ctx, stop := context.WithCancel(deadline(t))
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	eventually(t, "the damage is found", func() bool { return !s.Has(digestOf(bad)) })
	require.True(t, s.Has(digestOf(good)))
	require.NoError(t, s.Pull(deadline(t), artifactIn(reg, bad), Credentials{}))
	requireHolds(t, s, bad)
	stop()
	require.NoError(t, <-ran)
}

func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.WriteFile(path, change(b), 0o600))
}

func TestATruncatedBlobIsNotServed(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	s := open(t, o)
	data := random(100_000)
	a := artifactIn(reg, data)
	cut := func(b []byte) []byte { return b[:50_000] }
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))

	// While the process runs.
	damage(t, s.blobPath(a.Digest), cut)
	_, err := s.Open(deadline(t), a.Digest)
	require.ErrorIs(t, err, boot.ErrNotReady)
	require.False(t, s.Has(a.Digest))
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	requireHolds(t, s, data)

	// A reader that has it open is told, rather than given less.
	b, err := s.Open(deadline(t), a.Digest)
	require.NoError(t, err)
	damage(t, s.blobPath(a.Digest), cut)
	_, err = b.Seek(60_000, 0)
	require.NoError(t, err)
	_, err = b.Read(make([]byte, 10))
	require.ErrorContains(t, err, "unexpected EOF")
	require.NoError(t, b.Close())

	// Over a restart: the artifact says how long it is.
	require.NoError(t, s.Close())
	o.Registerer = nil
	s = open(t, o)
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	requireHolds(t, s, data)

	// Removed by hand.
	require.NoError(t, os.Remove(s.blobPath(a.Digest)))
	_, err = s.Open(deadline(t), a.Digest)
	require.ErrorIs(t, err, boot.ErrNotReady)
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	requireHolds(t, s, data)
}

// A changed tag brings its new blob only; what is here is not read again, let
// alone hashed: its file could not even be opened.
func TestAChangedTagBringsWhatIsNewOnly(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	first, second := random(10_000), random(20_000)
	for i, data := range [][]byte{first, second} {
		_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": data})
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, bootFrom(deadline(t), s, reg.Host, Credentials{}))
			if i == 0 {
				require.NoError(t, os.Rename(s.blobPath(digestOf(first)), s.blobPath(digestOf(first))+".away"))
				require.NoError(t, bootFrom(deadline(t), s, reg.Host, Credentials{}))
				require.NoError(t, os.Rename(s.blobPath(digestOf(first))+".away", s.blobPath(digestOf(first))))
			}
		}
	}
	require.Equal(t, 1, reg.Count("GET", "/blobs/"+string(digestOf(first))))
	require.Equal(t, 1, reg.Count("GET", "/blobs/"+string(digestOf(second))))
	require.True(t, s.Has(digestOf(first)))
	require.True(t, s.Has(digestOf(second)))
}

func TestTheLeastRecentlyUsedMakesRoom(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	now := time.Now()
	o.Now = func() time.Time { now = now.Add(time.Second); return now }
	o.MaxBytes = 3500
	s := open(t, o)
	one, two, three, four := random(1000), random(1001), random(1002), random(1003)
	for _, data := range [][]byte{one, two, three} {
		require.NoError(t, s.Pull(deadline(t), artifactIn(reg, data), Credentials{}))
	}
	read(t, s, digestOf(one))
	require.NoError(t, s.Pull(deadline(t), artifactIn(reg, four), Credentials{}))
	require.True(t, s.Has(digestOf(one)))
	require.False(t, s.Has(digestOf(two)))
	require.True(t, s.Has(digestOf(three)))
	require.Equal(t, 1.0, metric(t, s, "evictions_total"))
	require.Equal(t, float64(1000+1002+1003), metric(t, s, "store_bytes"))
	require.Equal(t, 3500.0, metric(t, s, "store_budget_bytes"))
	_, err := os.Stat(s.blobPath(digestOf(two)))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestWhatIsKeptOpenOrArrivingIsNeverEvicted(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	o.MaxBytes = 3500
	s := open(t, o)
	kept, opened, arriving, more := random(1000), random(1001), random(1002), random(1003)
	s.Keep(func() map[boot.Digest]struct{} {
		require.False(t, s.Has("")) // it may call back
		return map[boot.Digest]struct{}{digestOf(kept): {}}
	})
	require.NoError(t, s.Pull(deadline(t), artifactIn(reg, kept), Credentials{}))
	require.NoError(t, s.Pull(deadline(t), artifactIn(reg, opened), Credentials{}))
	b, err := s.Open(deadline(t), digestOf(opened))
	require.NoError(t, err)
	release := reg.Hold(10)
	defer release()
	pulled := make(chan error, 1)
	a := artifactIn(reg, arriving)
	go func() { pulled <- s.Pull(deadline(t), a, Credentials{}) }()
	eventually(t, "it arrives", func() bool { return reg.Count("GET", string(a.Digest)) == 1 })

	err = s.Pull(deadline(t), artifactIn(reg, more), Credentials{})
	require.ErrorIs(t, err, ErrFull)
	require.ErrorContains(t, err, "3003 of 3500 bytes are in use")
	require.False(t, Terminal(err))
	require.Equal(t, 0, reg.Count("GET", string(digestOf(more))))
	require.Equal(t, 1.0, metric(t, s, "pulls_total", "full"))

	release()
	require.NoError(t, <-pulled)
	require.NoError(t, b.Close())
	require.NoError(t, s.Pull(deadline(t), artifactIn(reg, more), Credentials{}))
	require.True(t, s.Has(digestOf(kept)))
	require.True(t, s.Has(digestOf(more)))
	require.Zero(t, s.reserved)
}

func TestABlobLargerThanTheStoreIsTooLarge(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	o.MaxBytes = 1000
	s := open(t, o)
	err := s.Pull(deadline(t), artifactIn(reg, random(1001)), Credentials{})
	require.ErrorIs(t, err, ErrTooLarge)
	require.True(t, Terminal(err))
	require.Empty(t, reg.Requests())
}

func TestASmallerBudgetEvictsAtTheNextSweep(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	s := open(t, o)
	for i := range 4 {
		require.NoError(t, s.Pull(deadline(t), artifactIn(reg, random(1000+i)), Credentials{}))
	}
	require.NoError(t, s.Close())
	o.MaxBytes, o.Registerer = 2500, nil
	s = open(t, o)
	require.NoError(t, s.sweep(0))
	require.Len(t, s.blobs, 2)
	require.LessOrEqual(t, s.used, int64(2500))
}

func TestHowOldABlobIsOutlastsARestart(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	now := time.Now().Add(-time.Hour)
	o.Now = func() time.Time { return now }
	s := open(t, o)
	a := artifactIn(reg, random(1000))
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	now = now.Add(2 * time.Hour)
	read(t, s, a.Digest)
	require.NoError(t, s.Close())
	o.Registerer = nil
	s = open(t, o)
	require.WithinDuration(t, now, s.blobs[a.Digest].lastUsed, time.Second)
}
