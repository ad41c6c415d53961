package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestWhatStatusesNameIsPulled(t *testing.T) {
	f := newFixture(t)
	f.put(config("one", "", naming(1, "r/one")))
	f.begin(t)
	f.put(config("two", "", naming(2, "r/two")))
	eventually(t, func() bool { return f.store.Has(digest(1)) && f.store.Has(digest(2)) })
	eventually(t, func() bool { return f.pulls.missing() == 0 })
}

func TestOneBlobIsPulledOnceForAll(t *testing.T) {
	f := newFixture(t)
	for n := range 100 {
		f.put(config(fmt.Sprint("machine-", n), "", naming(1, "r/one")))
	}
	f.begin(t)
	eventually(t, func() bool { return f.pulls.missing() == 0 })
	require.Equal(t, []string{"r/one"}, f.store.asked())
}

func TestPullsAreBounded(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Concurrency = 3 })
	f.store.gate = make(chan struct{})
	for n := range 20 {
		f.put(config(fmt.Sprint("machine-", n), "", naming(n, fmt.Sprint("r/", n))))
	}
	f.begin(t)
	eventually(t, func() bool { return f.store.now.Load() == 3 })
	close(f.store.gate)
	eventually(t, func() bool { return f.pulls.missing() == 0 })
	require.Equal(t, int32(3), f.store.most.Load())
}

func TestWhatAMachineAsksForIsPulledFirst(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Concurrency = 1 })
	f.store.gate = make(chan struct{})
	for n := range 9 {
		f.put(config(fmt.Sprint("machine-", n), "", naming(n, fmt.Sprint("r/", n))))
	}
	f.begin(t)
	eventually(t, func() bool { return len(f.store.asked()) == 1 })
	last := 8
	if f.store.asked()[0] == "r/8" {
		last = 7
	}
	require.True(t, f.pulls.hurry(digest(last)))
	eventually(t, func() bool { return slices.Contains(f.store.asked(), fmt.Sprint("r/", last)) })
	require.Len(t, f.store.asked(), 2, "it runs beside the one that is under way")
	require.False(t, f.pulls.hurry(digest(99)), "nobody can make us pull what no status names")
	close(f.store.gate)
	eventually(t, func() bool { return f.pulls.missing() == 0 })
	require.Len(t, f.store.asked(), 9)
}

func TestAFailureIsTriedAgainWithBackoff(t *testing.T) {
	f := newFixture(t)
	f.store.fail["r/one"] = errBroken
	f.put(config("one", "", naming(1, "r/one")))
	f.begin(t)
	for tries, delay := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
		eventually(t, func() bool { return len(f.store.asked()) == tries+1 && f.clock.HasWaiters() })
		f.clock.Step(delay - time.Millisecond)
		require.Len(t, f.store.asked(), tries+1, "not before %s", delay)
		if tries == 3 {
			f.store.set(func() { delete(f.store.fail, "r/one") })
		}
		f.clock.Step(time.Millisecond)
	}
	eventually(t, func() bool { return f.store.Has(digest(1)) })
}

func TestDelaysAreBoundedAndFinalErrorsWaitLong(t *testing.T) {
	w := &want{ways: map[way]int{{}: 1}, tried: map[way]struct{}{{}: {}}, failures: 1}
	require.Equal(t, time.Second, w.delay(errBroken))
	require.Equal(t, maxDelay, w.delay(artifact.ErrNotAllowed))
	w.failures = 1000
	require.Equal(t, maxDelay, w.delay(errBroken))
	w = &want{ways: map[way]int{{namespace: "a"}: 1, {namespace: "b"}: 1}, tried: map[way]struct{}{{namespace: "a"}: {}}, failures: 1}
	require.Equal(t, time.Second, w.delay(artifact.ErrNotAllowed), "another way may be right")
}

func TestAnotherConfigsWayIsTriedToo(t *testing.T) {
	f := newFixture(t)
	f.store.fail["r/private"] = artifact.ErrUnauthorized
	f.put(config("private", "", naming(1, "r/private")))
	f.begin(t)
	eventually(t, f.clock.HasWaiters)
	f.put(config("public", "", naming(1, "r/public")))
	f.clock.Step(time.Second)
	eventually(t, func() bool { return f.store.Has(digest(1)) })
	require.Equal(t, []string{"r/private", "r/public"}, f.store.asked())
}

func TestAMachineThatAsksShortensTheDelayButNotWithoutEnd(t *testing.T) {
	f := newFixture(t)
	f.store.fail["r/one"] = artifact.ErrNotAllowed
	f.put(config("one", "", naming(1, "r/one")))
	f.begin(t)
	eventually(t, f.clock.HasWaiters)
	for range 5 {
		f.pulls.hurry(digest(1))
	}
	require.Len(t, f.store.asked(), 1)
	f.clock.Step(hurryPause)
	f.pulls.hurry(digest(1))
	eventually(t, func() bool { return len(f.store.asked()) == 2 })
}

func TestPullSecretsAreReadByName(t *testing.T) {
	f := newFixture(t)
	f.reader.put("registry", map[string][]byte{".dockerconfigjson": []byte(`{"auths":{"r.example.com":{"username":"u","password":"p"}}}`)})
	f.put(config("one", "", naming(1, "r/one"), withPullSecret("registry")))
	f.put(config("two", "", naming(2, "r/two")))
	f.begin(t)
	eventually(t, func() bool { return f.pulls.missing() == 0 })
	require.ElementsMatch(t, []string{"credentials for 1 registries", "credentials for 0 registries"}, f.store.auths)
}

func TestAPullSecretThatIsMissingOrBrokenKeepsNothingElseFromBeingPulled(t *testing.T) {
	f := newFixture(t)
	f.reader.put("broken", map[string][]byte{".dockerconfigjson": []byte("{")})
	f.put(config("one", "", naming(1, "r/one"), withPullSecret("missing")))
	f.put(config("two", "", naming(2, "r/two"), withPullSecret("broken")))
	f.put(config("three", "", naming(3, "r/three")))
	f.begin(t)
	eventually(t, func() bool { return f.store.Has(digest(3)) })
	eventually(t, func() bool { return f.Ready() == nil })
	require.Equal(t, []string{"r/three"}, f.store.asked())
	_, err := f.pulls.credentials(t.Context(), way{namespace: "default", pullSecret: "missing"})
	require.EqualError(t, err, `reading pull secret default/missing: secrets "missing" not found`)
}

func TestAPullThatNobodyNeedsAnyMoreEnds(t *testing.T) {
	f := newFixture(t)
	f.store.gate = make(chan struct{})
	f.put(config("one", "", naming(1, "r/one")))
	f.begin(t)
	eventually(t, func() bool { return f.store.now.Load() == 1 })
	f.drop(objectKey{"HTTPBootConfig", "default", "one"})
	eventually(t, func() bool { return f.store.now.Load() == 0 })
	require.Empty(t, f.pulls.wants)
	require.NoError(t, f.Ready(), "nor does readiness wait for it")
}

func TestABlobThatTheStoreLostIsPulledAgain(t *testing.T) {
	f := newFixture(t)
	f.put(config("one", "", naming(1, "r/one")))
	f.begin(t)
	eventually(t, func() bool { return f.pulls.missing() == 0 })
	f.store.set(func() { clear(f.store.here) })
	f.pulls.recheck()
	eventually(t, func() bool { return f.store.Has(digest(1)) })
}

func TestReadyAfterTheFirstPass(t *testing.T) {
	f := newFixture(t)
	require.EqualError(t, f.Ready(), "configs have not been listed yet")
	f.store.gate = make(chan struct{})
	f.store.fail["r/two"] = errBroken
	f.put(config("one", "", naming(1, "r/one")))
	f.put(config("two", "", naming(2, "r/two")))
	f.begin(t)
	require.ErrorContains(t, f.Ready(), "2 artifacts that statuses name are still being pulled, such as sha256:")
	f.store.gate <- struct{}{}
	f.store.gate <- struct{}{}
	eventually(t, func() bool { return f.Ready() == nil })
	f.put(config("three", "", naming(3, "r/three")))
	require.NoError(t, f.Ready(), "what comes later is pulled while serving")
}

func TestStatusesThatNameNonsenseAreLeftOut(t *testing.T) {
	f := newFixture(t)
	bad := config("bad", "", naming(1, ""))
	f.put(bad)
	bad = config("worse", "", naming(1, "r/x"))
	bad.Status.Artifacts[0].Digest = "sha256:zz"
	f.put(bad)
	require.Empty(t, f.pulls.wants)
}

// emptyThenArriving is a boot.Blobs that has a blob as soon as its pull began.
type emptyThenArriving struct{ store *fakeStore }

type blob struct{ io.ReadSeekCloser }

func (blob) Size() int64    { return 1 }
func (blob) File() *os.File { return nil }

func (b emptyThenArriving) Open(_ context.Context, _ boot.Digest) (boot.Blob, error) {
	if len(b.store.asked()) == 0 {
		return nil, fmt.Errorf("opening: %w", boot.ErrNotReady)
	}
	return blob{}, nil
}

func TestOpeningAMissingBlobHurriesItsPullAndWaitsForItToBegin(t *testing.T) {
	f := newFixture(t)
	blobs := f.Blobs(emptyThenArriving{f.store})
	_, err := blobs.Open(t.Context(), digest(1))
	require.ErrorIs(t, err, boot.ErrNotReady, "no status names it")

	f.pulls.replace(nil, []way{{artifact: boot.Artifact{Digest: digest(1), Source: "r/one"}}})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = blobs.Open(gone, digest(1))
	require.ErrorIs(t, err, boot.ErrNotReady)

	time.AfterFunc(5*time.Millisecond, func() { f.begin(t) })
	got, err := blobs.Open(t.Context(), digest(1))
	require.NoError(t, err)
	require.Equal(t, int64(1), got.Size())
}

// fakeAttempts only begins.
type fakeAttempts struct {
	boot.Attempts
	err error
}

func (a fakeAttempts) Begin(*boot.Plan, boot.Client) (boot.Attempt, error) {
	return boot.Attempt{Number: 7}, a.err
}

func TestBeginningABootReadsTheDocumentAhead(t *testing.T) {
	f := newFixture(t)
	f.reader.holding("secret", "document")
	f.put(config("one", "secret"))
	_, err := f.Attempts(fakeAttempts{err: boot.ErrSpent}).Begin(plan("one"), boot.Client{Proof: boot.Address})
	require.ErrorIs(t, err, boot.ErrSpent)
	a, err := f.Attempts(fakeAttempts{}).Begin(plan("one"), boot.Client{Proof: boot.Address})
	require.NoError(t, err)
	require.Equal(t, int64(7), a.Number)
	eventually(t, func() bool { n, _ := f.secrets.size(); return n == 1 })
	require.Equal(t, 1, f.reader.count())
	f.reader.set(func() { f.reader.broken = true })
	got, err := f.Ignition(t.Context(), plan("one"))
	require.NoError(t, err)
	require.Equal(t, "document", string(got))
}

// A machine that asks for its first bytes again and again must not make us ask
// the API server as often.
func TestAMachineThatBeginsInALoopDoesNotLoadTheAPIServer(t *testing.T) {
	f := newFixture(t)
	f.reader.holding("secret", "document")
	f.put(config("one", "secret"))
	begin := func() {
		_, err := f.Attempts(fakeAttempts{}).Begin(plan("one"), boot.Client{Proof: boot.Address})
		require.NoError(t, err)
		_, err, _ = f.secrets.flights.Do(documentKey{object: "uid-one", purpose: forMachine, namespace: "default", secret: "secret"}.flight(), func() (any, error) { return document{}, nil })
		require.NoError(t, err)
	}
	for range 50 {
		begin()
	}
	require.Equal(t, 1, f.reader.count())
	f.clock.Step(warmPause)
	begin()
	require.Equal(t, 2, f.reader.count(), "a later boot gets what the Secret holds then")
}

func TestPartsAreRequiredAndMetricsRegisteredOnce(t *testing.T) {
	_, err := New(Options{})
	require.ErrorIs(t, err, boot.ErrInvalid)
	r := prometheus.NewRegistry()
	newFixture(t, func(o *Options) { o.Registerer = r })
	f := newFixture(t)
	_, err = New(Options{Store: f.store, Reader: f.reader, Convert: f.options.Convert, Registerer: r})
	require.ErrorContains(t, err, "registering metrics")
	families, err := r.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	require.False(t, errors.Is(err, boot.ErrInvalid))
}
