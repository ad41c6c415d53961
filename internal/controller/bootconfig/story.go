package bootconfig

import (
	"context"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// mostSteps bounds a story; an image has no more parts than that.
const mostSteps = 32

// story is what a fetch did, for the traces of the boots that it was done for. One
// goroutine writes it.
type story struct{ steps []boot.Span }

type storyKey struct{}

// note adds a step that began at start and is over now, if this fetch keeps a story.
func (f *fetches) note(ctx context.Context, name boot.SpanName, start time.Time, err error, attributes ...string) {
	s, ok := ctx.Value(storyKey{}).(*story)
	if !ok || len(s.steps) >= mostSteps {
		return
	}
	s.steps = append(s.steps, boot.Span{Name: name, Start: start, End: f.clock.Now(), Err: err, Attributes: attributes})
}

// pullNoted pulls what is not in the store, and notes that.
func (f *fetches) pullNoted(ctx context.Context, a boot.Artifact, auth artifact.Credentials) error {
	if f.store.Has(a.Digest) {
		return f.store.Pull(ctx, a, auth)
	}
	start := f.clock.Now()
	err := f.store.Pull(ctx, a, auth)
	f.note(ctx, boot.SpanPull, start, err, "digest", string(a.Digest), "role", string(a.Role))
	return err
}

// remember keeps the story of a fetch that found something new, or failed for the
// first time; of the others there is nothing to tell. f.mu is held, and e is as it was
// before this fetch.
func (e *fetch) remember(s *story, result *fetched, err error) {
	if err != nil && e.err != nil || err == nil && e.result != nil && slices.Equal(digests(e.result), digests(result)) {
		return
	}
	e.steps, e.untold = s.steps, maps.Clone(e.users)
}

func digests(f *fetched) []string {
	var all []string
	for _, a := range f.artifacts {
		all = append(all, string(a.Digest))
	}
	return all
}

// take returns the story that a config has not been told, once.
func (f *fetches) take(k configKey) []boot.Span {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.all[f.wanted[k]]
	if e == nil {
		return nil
	}
	if _, untold := e.untold[k]; !untold {
		return nil
	}
	delete(e.untold, k)
	return e.steps
}

// heard says whether a status tells already how a fetch ended: then the process that
// led before has recorded it.
func heard(before *v1alpha1.ConfigStatus, generation int64, v view) bool {
	c := meta.FindStatusCondition(before.Conditions, v1alpha1.ConditionArtifactsReady)
	if c == nil || c.ObservedGeneration != generation {
		return false
	}
	if v.err != nil {
		return c.Status == metav1.ConditionFalse && c.Reason == reasonOf(v.err)
	}
	if v.result == nil || c.Status != metav1.ConditionTrue {
		return false
	}
	var had []string
	for _, a := range before.Artifacts {
		had = append(had, a.Digest)
	}
	have := digests(v.result)
	slices.Sort(had)
	slices.Sort(have)
	return slices.Equal(had, have)
}

// record puts the story of a config's fetch into the trace of its next boot.
func (r *reconciler) record(cfg v1alpha1.Config) {
	steps := r.fetches.take(keyOf(cfg))
	if len(steps) == 0 {
		return
	}
	attempt, _, err := r.Attempts.ComingOf(cfg)
	if err != nil || attempt == 0 {
		return // nothing is booted next
	}
	for _, s := range steps {
		r.span(cfg, attempt, s)
	}
}

// span records a span of a config's boot.
func (r *reconciler) span(cfg v1alpha1.Config, attempt int64, s boot.Span) {
	s.Boot = boot.NewID(string(cfg.GetUID()), attempt)
	s.Attributes = append([]string{"object", cfg.Kind() + " " + cfg.GetNamespace() + "/" + cfg.GetName()}, s.Attributes...)
	r.Spans.Record(s)
}
