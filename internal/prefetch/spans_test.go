package prefetch

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// fakeSpans keeps what is recorded.
type fakeSpans struct {
	mu    sync.Mutex
	spans []boot.Span
}

func (s *fakeSpans) Record(span boot.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spans = append(s.spans, span)
}

func (s *fakeSpans) all() []boot.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]boot.Span(nil), s.spans...)
}

// openAttempts says that every boot is the third.
type openAttempts struct{ boot.Attempts }

func (openAttempts) Begin(*boot.Plan, boot.Client) (boot.Attempt, error) {
	return boot.Attempt{Number: 3}, nil
}

func TestAPullIsInTheTraceOfTheBootThatWaitedForIt(t *testing.T) {
	spans := &fakeSpans{}
	f := newFixture(t, func(o *Options) { o.Spans = spans })
	f.store.gate = make(chan struct{})
	f.put(config("one", "", naming(1, "r/one")))
	f.put(config("two", "", naming(2, "r/two")))
	f.begin(t)
	eventually(t, func() bool { return len(f.store.asked()) == 2 })
	attempts := f.Attempts(openAttempts{})
	plan := &boot.Plan{Object: boot.Ref{Kind: "HTTPBootConfig", Namespace: "default", Name: "one", UID: "uid-one"}, Artifacts: []boot.Artifact{{Digest: digest(1)}}}
	for range 3 { // firmware asks again
		_, err := attempts.Begin(plan, boot.Client{})
		require.NoError(t, err)
	}
	f.store.set(func() { f.store.fail["r/one"] = errBroken })
	close(f.store.gate)
	eventually(t, func() bool { return f.store.Has(digest(2)) && f.clock.HasWaiters() })
	got := spans.all()
	require.Len(t, got, 1, "a pull that no boot waits for is in no trace")
	require.Equal(t, boot.NewID("uid-one", 3), got[0].Boot)
	require.Equal(t, boot.SpanPull, got[0].Name)
	require.ErrorIs(t, got[0].Err, errBroken)
	require.Contains(t, got[0].Attributes, string(digest(1)))

	_, err := attempts.Begin(plan, boot.Client{})
	require.NoError(t, err)
	f.store.set(func() { delete(f.store.fail, "r/one") })
	f.clock.Step(maxDelay)
	eventually(t, func() bool { return len(spans.all()) == 2 })
	require.NoError(t, spans.all()[1].Err)
	_, err = attempts.Begin(plan, boot.Client{})
	require.NoError(t, err)
	require.Empty(t, f.pulls.wants[digest(1)].boots, "what is in the store is not waited for")
}

func TestARoomThatWaitsForOnePullIsRememberedInBounds(t *testing.T) {
	f := newFixture(t)
	f.put(config("one", "", naming(1, "r/one")))
	for n := range 1000 {
		f.pulls.await(&boot.Plan{Artifacts: []boot.Artifact{{Digest: digest(1)}, {Digest: digest(99)}}}, int64(n))
	}
	require.Len(t, f.pulls.wants[digest(1)].boots, mostBoots)
}
