package artifact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

func TestABlobIsPulledOnceHoweverOftenItIsAsked(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	s := open(t, o)
	data := random(1 << 20)
	a := artifactIn(reg, data)
	for range 3 {
		require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
		requireHolds(t, s, data)
	}
	require.Len(t, reg.Requests(), 1)
	require.NoError(t, s.Close())

	// A restart pulls nothing either.
	o.Registerer = nil
	s = open(t, o)
	require.True(t, s.Has(a.Digest))
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	requireHolds(t, s, data)
	require.Len(t, reg.Requests(), 1)
}

// 500 clients, one cold blob: one request to the registry, little memory.
func TestACrowdCausesOnePull(t *testing.T) {
	const clients = 500
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	data := random(16 << 20)
	a := artifactIn(reg, data)
	release := reg.Hold(1 << 20)
	ctx := deadline(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)

	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			if err := s.Pull(ctx, a, Credentials{}); err != nil {
				t.Error(err)
			}
		})
	}
	openArrivingAndClose(t, s, a.Digest, func() {
		for range clients {
			b, err := s.Open(ctx, a.Digest)
			require.NoError(t, err)
			all.Go(func() {
				if n, err := drain(b); n != a.Size || err != nil {
					t.Errorf("read %d bytes: %v", n, err)
				}
			})
		}
	})
	release()
	all.Wait()
	runtime.ReadMemStats(&after)
	require.Len(t, reg.Requests(), 1)
	require.Equal(t, 1.0, metric(t, s, "pulls_total", "ok"))
	require.Equal(t, float64(a.Size), metric(t, s, "pulled_bytes_total"))
	require.Equal(t, 0.0, metric(t, s, "pulls_in_flight"))
	if grown := int64(after.Sys) - int64(before.Sys); grown > 100<<20 {
		t.Errorf("500 clients of one blob took %d MiB of memory", grown>>20)
	}
	requireEmpty(t, s.ingestDir())
	require.Empty(t, s.open)
}

// drain reads a blob through a small buffer, as a server does, and closes it.
func drain(b boot.Blob) (int64, error) {
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{b}, make([]byte, 64<<10))
	return n, errors.Join(err, b.Close())
}

func TestBytesFlowWhileTheyArriveButNotTheLast(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	data := random(1 << 20)
	a := artifactIn(reg, data)
	release := reg.Hold(a.Size - 1)
	defer release()
	pulled := make(chan error, 1)
	go func() { pulled <- s.Pull(deadline(t), a, Credentials{}) }()
	b := openArriving(t, s, a.Digest)
	defer func() { require.NoError(t, b.Close()) }()
	require.Equal(t, a.Size, b.Size())
	require.Nil(t, b.File())
	require.False(t, s.Has(a.Digest))

	free := a.Size - boot.HeldBack
	head := make([]byte, free)
	_, err := io.ReadFull(b, head)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data[:free], head))

	more := make(chan []byte)
	go func() {
		rest, err := io.ReadAll(b)
		if err != nil {
			rest = nil
		}
		more <- rest
	}()
	select {
	case got := <-more:
		t.Fatalf("%d held back bytes came before verification", len(got))
	case <-time.After(100 * time.Millisecond):
	}
	release()
	require.True(t, bytes.Equal(data[free:], <-more))
	require.NoError(t, <-pulled)
	require.NotNil(t, b.File())
	fromFile, err := io.ReadAll(b.File())
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, fromFile))
	requireHolds(t, s, data)
}

// openArriving opens a blob as soon as its pull has begun.
func openArriving(t *testing.T, s *Store, d boot.Digest) boot.Blob {
	t.Helper()
	var b boot.Blob
	eventually(t, "the pull begins", func() (ok bool) {
		var err error
		b, err = s.Open(deadline(t), d)
		return err == nil
	})
	return b
}

func TestASmallBlobIsHeldBackWhole(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	data := random(boot.HeldBack)
	a := artifactIn(reg, data)
	reg.Set(registry.Faults{WrongDigest: true})
	release := reg.Hold(a.Size - 1)
	defer release()
	pulled := make(chan error, 1)
	go func() { pulled <- s.Pull(deadline(t), a, Credentials{}) }()
	b := openArriving(t, s, a.Digest)
	defer func() { _ = b.Close() }()
	release()
	n, err := b.Read(make([]byte, 10))
	require.Zero(t, n)
	require.ErrorIs(t, err, ErrDigestMismatch)
	require.ErrorIs(t, <-pulled, ErrDigestMismatch)
}

func TestABrokenConnectionIsResumed(t *testing.T) {
	for name, f := range map[string]registry.Faults{
		"with Range":    {CutAfter: 1 << 20, Cuts: 2},
		"chunked":       {CutAfter: 1 << 20, Cuts: 2, Chunked: true},
		"without Range": {CutAfter: 1 << 20, Cuts: 2, NoRange: true},
	} {
		reg := serve(t, registry.Options{Auth: registry.Token})
		s := open(t, options(t, reg))
		data := random(5 << 20)
		a := artifactIn(reg, data)
		reg.Set(f)
		require.NoError(t, s.Pull(deadline(t), a, Credentials{}), name)
		requireHolds(t, s, data)
		var ranges []string
		for _, r := range reg.Requests() {
			if r.Authorization != "" && r.Method == "GET" {
				ranges = append(ranges, r.Range)
			}
		}
		require.Len(t, ranges, 3, name)
		require.Empty(t, ranges[0], name)
		require.Regexp(t, `^bytes=\d+-5242879$`, ranges[1], name)
		if !f.NoRange {
			require.Equal(t, 2.0, metric(t, s, "pull_resumes_total"), name)
			require.Equal(t, float64(a.Size), metric(t, s, "pulled_bytes_total"), name)
		}
	}
}

func TestALyingRegistryIsFoundOut(t *testing.T) {
	for name, f := range map[string]registry.Faults{
		"another digest":          {WrongDigest: true},
		"more bytes":              {WrongSize: 1},
		"fewer bytes":             {WrongSize: -1},
		"more bytes, chunked":     {WrongSize: 1 << 20, Chunked: true},
		"fewer bytes, chunked":    {WrongSize: -1 << 10, Chunked: true},
		"fewer bytes, no ranges":  {WrongSize: -1 << 10, Chunked: true, NoRange: true},
		"another digest, resumed": {WrongDigest: true, CutAfter: 400_000, Cuts: 1},
	} {
		reg := serve(t, registry.Options{})
		s := open(t, options(t, reg))
		data := random(2 << 20)
		a := artifactIn(reg, data)
		reg.Set(f)
		err := s.Pull(deadline(t), a, Credentials{})
		require.ErrorIs(t, err, ErrDigestMismatch, name)
		require.True(t, Terminal(err), name)
		require.False(t, s.Has(a.Digest), name)
		requireEmpty(t, s.ingestDir())
		requireEmpty(t, s.blobDir())
		_, err = s.Open(deadline(t), a.Digest)
		require.ErrorIs(t, err, boot.ErrNotReady, name)

		reg.Set(registry.Faults{})
		require.NoError(t, s.Pull(deadline(t), a, Credentials{}), name)
		requireHolds(t, s, data)
	}
}

func TestTooManyBytesEndThePullAtOnce(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	a := artifactIn(reg, random(1000))
	reg.Set(registry.Faults{WrongSize: 1 << 40, Chunked: true})
	require.ErrorIs(t, s.Pull(deadline(t), a, Credentials{}), ErrDigestMismatch)
	require.LessOrEqual(t, metric(t, s, "pulled_bytes_total"), 1000.0)
}

func TestReadersAreAbortedWhenThePullFails(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	a := artifactIn(reg, random(1<<20))
	reg.Set(registry.Faults{WrongDigest: true})
	release := reg.Hold(500_000)
	defer release()
	pulled := make(chan error, 1)
	go func() { pulled <- s.Pull(deadline(t), a, Credentials{}) }()
	b := openArriving(t, s, a.Digest)
	defer func() { _ = b.Close() }()
	_, err := io.ReadFull(b, make([]byte, 100_000))
	require.NoError(t, err)
	release()
	n, err := io.Copy(io.Discard, b)
	require.ErrorIs(t, err, ErrDigestMismatch)
	require.Less(t, n+100_000, a.Size-boot.HeldBack+1)
	require.ErrorIs(t, <-pulled, ErrDigestMismatch)
}

func TestAStalledRegistryIsGivenUp(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	o.StallTimeout = 50 * time.Millisecond
	s := open(t, o)
	data := random(2 << 20)
	a := artifactIn(reg, data)
	release := reg.Hold(300_000)
	defer release()
	err := s.Pull(deadline(t), a, Credentials{})
	require.ErrorIs(t, err, errStalled)
	require.False(t, Terminal(err))
	require.Equal(t, 1.0, metric(t, s, "pulls_total", "stalled"))
	kept, err := os.Stat(s.ingestPath(a.Digest))
	require.NoError(t, err)
	require.Positive(t, kept.Size())

	release()
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	requireHolds(t, s, data)
}

func TestASlowPullIsNotAStalledOne(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	o.StallTimeout = 300 * time.Millisecond
	s := open(t, o)
	data := random(512 << 10)
	reg.Set(registry.Faults{BytesPerSecond: 512 << 10}) // a second in all
	require.NoError(t, s.Pull(deadline(t), artifactIn(reg, data), Credentials{}))
	require.Len(t, reg.Requests(), 1)
}

func TestAPullOutlivesItsFirstCaller(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	data := random(1 << 20)
	a := artifactIn(reg, data)
	release := reg.Hold(1000)
	defer release()
	first, leave := context.WithCancel(deadline(t))
	left, pulled := make(chan error, 1), make(chan error, 1)
	go func() { left <- s.Pull(first, a, Credentials{}) }()
	openArrivingAndClose(t, s, a.Digest, func() {
		go func() { pulled <- s.Pull(deadline(t), a, Credentials{}) }()
		eventually(t, "the second caller waits", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			f := s.flights[a.Digest]
			return f != nil && f.waiters == 2
		})
	})
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	release()
	require.NoError(t, <-pulled)
	require.Len(t, reg.Requests(), 1)
	requireHolds(t, s, data)
}

func openArrivingAndClose(t *testing.T, s *Store, d boot.Digest, meanwhile func()) {
	t.Helper()
	b := openArriving(t, s, d)
	meanwhile()
	require.NoError(t, b.Close())
}

func TestAPullThatNobodyWantsStopsAndIsResumedLater(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	data := random(1 << 20)
	a := artifactIn(reg, data)
	release := reg.Hold(600_000)
	defer release()
	ctx, leave := context.WithCancel(deadline(t))
	left := make(chan error, 1)
	go func() { left <- s.Pull(ctx, a, Credentials{}) }()
	b := openArriving(t, s, a.Digest)
	_, err := io.ReadFull(b, make([]byte, 500_000))
	require.NoError(t, err)
	leave()
	require.ErrorIs(t, <-left, context.Canceled)
	require.Equal(t, 1.0, metric(t, s, "pulls_in_flight"), "a reader is interest enough")
	require.NoError(t, b.Close())
	eventually(t, "the pull stops", func() bool { return metric(t, s, "pulls_in_flight") == 0 })

	release()
	reg.Forget()
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	requireHolds(t, s, data)
	require.Len(t, reg.Requests(), 1)
	require.Regexp(t, `^bytes=[56]\d{5}-1048575$`, reg.Requests()[0].Range)
}

func TestAReaderLeavesWithItsContext(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	a := artifactIn(reg, random(1<<20))
	release := reg.Hold(1000)
	defer release()
	go func() { _ = s.Pull(deadline(t), a, Credentials{}) }()
	openArrivingAndClose(t, s, a.Digest, func() {
		ctx, cancel := context.WithCancel(deadline(t))
		b, err := s.Open(ctx, a.Digest)
		require.NoError(t, err)
		cancel()
		_, err = io.Copy(io.Discard, b)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, b.Close())
		require.ErrorIs(t, b.Close(), os.ErrClosed)
		_, err = b.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrClosed)
		require.Nil(t, b.File())
	})
}

// Two tenants name one digest; only one has the right to pull it, or only one
// tells the truth of its size. The other's failure is not contagious.
func TestTheFailureOfOneCallerIsNotAnothers(t *testing.T) {
	reg := serve(t, registry.Options{Auth: registry.Token, Username: "u", Password: "p"})
	s := open(t, options(t, reg))
	data := random(1 << 20)
	good := artifactIn(reg, data)
	liar := good
	liar.Size += 5
	c := secretFor(t, reg.Host, "u", "p")
	var all sync.WaitGroup
	for i := range 30 {
		all.Add(1)
		go func() {
			defer all.Done()
			switch i % 3 {
			case 0:
				if err := s.Pull(deadline(t), good, c); err != nil {
					t.Error(err)
				}
			case 1:
				if err := s.Pull(deadline(t), liar, c); !errors.Is(err, ErrDigestMismatch) {
					t.Error(err)
				}
			case 2:
				err := s.Pull(deadline(t), good, Credentials{})
				if err != nil && !errors.Is(err, ErrUnauthorized) {
					t.Error(err)
				}
			}
		}()
	}
	all.Wait()
	requireHolds(t, s, data)
	// A wrong size does not evict what is verified.
	require.ErrorIs(t, s.Pull(deadline(t), liar, c), ErrDigestMismatch)
	requireHolds(t, s, data)
}

func TestArtifactsThatCannotBeAreRefused(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	good := artifactIn(reg, random(100))
	for _, change := range []func(a *boot.Artifact){
		func(a *boot.Artifact) { a.Digest = "../../etc/passwd" },
		func(a *boot.Artifact) { a.Digest = "sha256:../manifests/latest" },
		func(a *boot.Artifact) { a.Digest = "" },
		func(a *boot.Artifact) { a.Size = 0 },
		func(a *boot.Artifact) { a.Size = -1 },
		func(a *boot.Artifact) { a.Source = reg.Host + "/../x" },
		func(a *boot.Artifact) { a.Source = "" },
	} {
		a := good
		change(&a)
		err := s.Pull(deadline(t), a, Credentials{})
		require.ErrorIs(t, err, ErrInvalidReference)
	}
	_, err := s.Open(deadline(t), "../../etc/passwd")
	require.ErrorIs(t, err, boot.ErrInvalid)
	require.Empty(t, reg.Requests())
}

func TestABlobMustBeWhatItsRoleSays(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	var checks atomic.Int64
	o.Check = func(role boot.Role, f *os.File) error {
		checks.Add(1)
		b := make([]byte, 2)
		if _, err := f.Read(b); err != nil {
			return err
		}
		if role == boot.RoleUKI && string(b) != "MZ" {
			return errors.New("it begins with something else")
		}
		return nil
	}
	s := open(t, o)
	good, bad := artifactIn(reg, append([]byte("MZ"), random(100_000)...)), artifactIn(reg, random(100_000))
	require.NoError(t, s.Pull(deadline(t), good, Credentials{}))
	err := s.Pull(deadline(t), bad, Credentials{})
	require.ErrorIs(t, err, ErrNotAUKI)
	require.ErrorContains(t, err, "something else")
	require.True(t, Terminal(err))
	require.False(t, s.Has(bad.Digest))
	requireEmpty(t, s.ingestDir())

	// The same bytes are a fine kernel, and still no UKI.
	kernel := bad
	kernel.Role = boot.RoleKernel
	require.NoError(t, s.Pull(deadline(t), kernel, Credentials{}))
	require.ErrorIs(t, s.Pull(deadline(t), bad, Credentials{}), ErrNotAUKI)
	require.True(t, s.Has(bad.Digest))

	// Once checked is enough.
	n := checks.Load()
	require.NoError(t, s.Pull(deadline(t), good, Credentials{}))
	require.NoError(t, s.Pull(deadline(t), kernel, Credentials{}))
	require.Equal(t, n, checks.Load())
}

func TestPullsAreLimitedAndOneRegistryCannotHoldAll(t *testing.T) {
	slow, quick := serve(t, registry.Options{}), serve(t, registry.Options{})
	o := options(t, slow, quick)
	o.MaxPulls = 4
	s := open(t, o)
	release := slow.Hold(10)
	defer release()
	done := make(chan error, 5)
	for i := range 5 {
		a := artifactIn(slow, random(1000+i))
		go func() { done <- s.Pull(deadline(t), a, Credentials{}) }()
	}
	eventually(t, "two pulls begin", func() bool { return len(slow.Requests()) == 2 })
	data := random(5000)
	require.NoError(t, s.Pull(deadline(t), artifactIn(quick, data), Credentials{}))
	require.Len(t, slow.Requests(), 2)
	release()
	for range 5 {
		require.NoError(t, <-done)
	}
	require.Empty(t, s.slots.sources)
}

func TestCloseEndsPulls(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	a := artifactIn(reg, random(1<<20))
	release := reg.Hold(1000)
	defer release()
	pulled := make(chan error, 1)
	go func() { pulled <- s.Pull(deadline(t), a, Credentials{}) }()
	openArrivingAndClose(t, s, a.Digest, func() {})
	require.NoError(t, s.Close())
	require.ErrorContains(t, <-pulled, "closed")
}
