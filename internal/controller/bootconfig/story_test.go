package bootconfig

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
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

func (s *fakeSpans) names() []boot.SpanName {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []boot.SpanName
	for _, span := range s.spans {
		names = append(names, span.Name)
	}
	return names
}

func recording(f *fixture, coming int64) *fakeSpans {
	s := &fakeSpans{}
	f.bootstrap.Spans, f.opener.coming = s, coming
	return s
}

func TestWhatWasPulledForABootIsInItsTraceOnce(t *testing.T) {
	f := newFixture(t)
	s := recording(f, 4)
	often := func(o *Options) { o.ResolveInterval = 50 * time.Millisecond }
	stop := f.run(often)
	c := f.machine("m")
	f.ready(c)
	again := f.store.count(imageTag) + 3
	f.eventually(c, "resolved again", func() bool { return f.store.count(imageTag) >= again })
	require.Equal(t, []boot.SpanName{boot.SpanResolve, boot.SpanPull}, s.names(), "the same digest is no news")
	for _, span := range s.spans {
		assert.Equal(t, boot.NewID(string(c.UID), 4), span.Boot)
		assert.NoError(t, span.Err)
		assert.False(t, span.Start.IsZero() || span.End.Before(span.Start))
		assert.Equal(t, []string{"object", "HTTPBootConfig " + f.ns + "/m"}, span.Attributes[:2])
	}
	assert.Contains(t, s.spans[1].Attributes, string(ukiDigest))

	stop()
	f.run(often) // another process leads
	again = f.store.count(imageTag) + 3
	f.eventually(c, "resolved by the new leader", func() bool { return f.store.count(imageTag) >= again })
	require.Len(t, s.names(), 2, "what the last leader told is not told again")

	f.store.publish(imageTag, newDigest)
	f.eventually(c, "moved", func() bool { return digestOf(c) == string(newDigest) && len(s.names()) > 2 })
	require.Equal(t, []boot.SpanName{boot.SpanResolve, boot.SpanPull}, s.names()[2:])
}

func TestAFailureIsInTheTraceOnceAndWhatMendedItToo(t *testing.T) {
	f := newFixture(t)
	s := recording(f, 1)
	f.store.set(func() { f.store.fails[imageTag] = errors.New("connection refused") })
	f.run(func(o *Options) { o.ResolveInterval = 50 * time.Millisecond })
	c := f.machine("m")
	f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonRegistryError)
	again := f.store.count(imageTag) + 3
	f.eventually(c, "tried again", func() bool { return f.store.count(imageTag) >= again })
	require.Equal(t, []boot.SpanName{boot.SpanResolve}, s.names())
	require.ErrorContains(t, s.spans[0].Err, "connection refused")
	f.store.set(func() { delete(f.store.fails, imageTag) })
	f.ready(c)
	require.Equal(t, []boot.SpanName{boot.SpanResolve, boot.SpanResolve, boot.SpanPull}, s.names())
	require.NoError(t, s.spans[1].Err)
}

func TestConfigsThatShareAPullEachHaveItInTheirTrace(t *testing.T) {
	f := newFixture(t)
	s := recording(f, 1)
	release := f.store.hangPull(ukiDigest)
	defer release()
	f.run()
	a, b := f.machine("a"), f.machine("b", func(c *v1alpha1.HTTPBootConfig) { c.Spec.NetworkIdentifiers = []string{"10.0.0.6"} })
	f.shows(a, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonProgressing)
	f.shows(b, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonProgressing)
	release()
	f.ready(a)
	f.ready(b)
	late := f.machine("late", func(c *v1alpha1.HTTPBootConfig) { c.Spec.NetworkIdentifiers = []string{"10.0.0.7"} })
	f.ready(late)
	count := map[boot.ID]int{}
	for _, span := range s.spans {
		count[span.Boot]++
	}
	require.Equal(t, map[boot.ID]int{boot.NewID(string(a.UID), 1): 2, boot.NewID(string(b.UID), 1): 2}, count, "what was there before a config came is no part of its boot")
}

func TestSignaturesAndComposedUKIsAreInTheTrace(t *testing.T) {
	f, composer := newComposing(t)
	s := recording(f, 7)
	composer.set(func() { composer.fails = errors.New("no keys yet") })
	f.secret("keys", map[string]string{"cosign.pub": "ours"})
	f.run(withVerifier(&fakeVerifier{key: "ours"}))
	c := f.machine("m", ofParts, signedBy("keys"))
	f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonComposeFailed)
	f.eventually(c, "tried again", func() bool { return f.opener.count("m") >= 3 })
	composer.set(func() { composer.fails = nil })
	f.ready(c)
	var composed []error
	for _, span := range s.spans {
		if span.Name == boot.SpanCompose {
			composed = append(composed, span.Err)
			require.Equal(t, boot.NewID(string(c.UID), 7), span.Boot)
		}
	}
	require.Contains(t, s.names(), boot.SpanVerify)
	require.Len(t, composed, 2, "one failure, however often it was tried")
	require.Error(t, composed[0])
	require.NoError(t, composed[1])
}
