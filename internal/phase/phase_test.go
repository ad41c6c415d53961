package phase_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/phase"
)

const (
	identifiable = v1alpha1.ConditionIdentifiable
	artifacts    = v1alpha1.ConditionArtifactsReady
	ready        = v1alpha1.ConditionReady
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// statusClient keeps what is applied.
type statusClient struct {
	client.SubResourceWriter
	applied []map[string]any
	owners  []string
	err     error
}

func (c *statusClient) Status() client.SubResourceWriter { return c }

func (c *statusClient) Apply(_ context.Context, obj runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	if c.err != nil {
		return c.err
	}
	b, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	o := (&client.SubResourceApplyOptions{}).ApplyOpts(opts)
	c.applied, c.owners = append(c.applied, m), append(c.owners, o.FieldManager)
	return nil
}

// fixture is a config and everything around it.
type fixture struct {
	client *statusClient
	events *events.FakeRecorder
	clock  *clocktesting.FakeClock
	memory *phase.Written
	cfg    *v1alpha1.HTTPBootConfig
}

func newFixture() *fixture {
	return &fixture{
		client: &statusClient{}, events: events.NewFakeRecorder(64), clock: clocktesting.NewFakeClock(start), memory: &phase.Written{},
		cfg: &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "m", UID: "u-1", Generation: 7}},
	}
}

func (f *fixture) run(phases ...phase.Phase) (ctrl.Result, error) {
	return phase.Run(context.Background(), phase.Status{Client: f.client, Recorder: f.events, Clock: f.clock, Written: f.memory}, f.cfg, phases...)
}

func (f *fixture) told() []string {
	var out []string
	for len(f.events.Events) > 0 {
		out = append(out, <-f.events.Events)
	}
	return out
}

func step(err error) phase.Step {
	return func(context.Context, v1alpha1.Config) error { return err }
}

func TestWhatAStepReturnsBecomesItsCondition(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		err       error
		status    metav1.ConditionStatus
		reason    string
		message   string
		state     v1alpha1.State
		after     time.Duration
		wantRetry bool
	}{
		"nil":      {nil, metav1.ConditionTrue, v1alpha1.ReasonArtifactsVerified, "", v1alpha1.StateReady, 0, false},
		"done":     {phase.Done("Foreign", "at %s", "x").Again(time.Minute), metav1.ConditionTrue, "Foreign", "at x", v1alpha1.StateReady, time.Minute, false},
		"but":      {phase.Done("Foreign", "at x").But(broken), metav1.ConditionTrue, "Foreign", "at x", v1alpha1.StateReady, 0, true},
		"wait":     {phase.Wait("SecretNotFound", time.Second, broken), metav1.ConditionFalse, "SecretNotFound", "broken", v1alpha1.StatePending, time.Second, false},
		"terminal": {phase.Terminal("NoPlatform", broken), metav1.ConditionFalse, "NoPlatform", "broken", v1alpha1.StateError, 0, false},
		"again":    {phase.Terminal("NoPlatform", broken).Again(time.Hour), metav1.ConditionFalse, "NoPlatform", "broken", v1alpha1.StateError, time.Hour, false},
		"retry":    {phase.Retry("RegistryError", broken), metav1.ConditionFalse, "RegistryError", "broken", v1alpha1.StatePending, 0, true},
		"wrapped":  {fmt.Errorf("resolving: %w", phase.Terminal("NoPlatform", broken)), metav1.ConditionFalse, "NoPlatform", "broken", v1alpha1.StateError, 0, false},
		"other":    {broken, metav1.ConditionFalse, v1alpha1.ReasonFailed, "broken", v1alpha1.StatePending, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture()
			result, err := f.run(phase.New(artifacts, step(c.err)))
			assert.Equal(t, c.wantRetry, errors.Is(err, broken), "%v", err)
			assert.Equal(t, c.after, result.RequeueAfter)
			got := meta.FindStatusCondition(f.cfg.Status.Conditions, artifacts)
			require.NotNil(t, got)
			assert.Equal(t, metav1.Condition{Type: artifacts, Status: c.status, Reason: c.reason, Message: c.message, ObservedGeneration: 7, LastTransitionTime: metav1.NewTime(start)}, *got)
			assert.Equal(t, c.state, f.cfg.Status.State)
			assert.EqualValues(t, 7, f.cfg.Status.ObservedGeneration)
			assert.Equal(t, c.status, meta.FindStatusCondition(f.cfg.Status.Conditions, ready).Status, "Ready is derived")
		})
	}
}

func TestReadySaysWhatDoesNotGetWellByItself(t *testing.T) {
	f := newFixture()
	_, err := f.run(
		phase.New(artifacts, step(phase.Wait(v1alpha1.ReasonProgressing, 0, errors.New("pulling")))),
		phase.New(identifiable, step(phase.Terminal(v1alpha1.ReasonIdentityConflict, errors.New("claimed by another")))),
		phase.New(ready, func(context.Context, v1alpha1.Config) error { t.Error("ran though not all is True"); return nil }),
	)
	require.NoError(t, err)
	got := meta.FindStatusCondition(f.cfg.Status.Conditions, ready)
	assert.Equal(t, v1alpha1.ReasonIdentityConflict, got.Reason)
	assert.Equal(t, "pulling; claimed by another", got.Message)
}

func TestTheStepOfReadyRunsLastAndCounts(t *testing.T) {
	f := newFixture()
	_, err := f.run(phase.New(artifacts, step(nil)), phase.New(ready, step(errors.New("no attempt"))))
	require.Error(t, err)
	assert.Equal(t, v1alpha1.StatePending, f.cfg.Status.State)
	assert.False(t, meta.IsStatusConditionTrue(f.cfg.Status.Conditions, ready))
}

func TestAfterAHaltTheRestIsUnknown(t *testing.T) {
	f := newFixture()
	_, err := f.run(
		phase.New(identifiable, step(phase.Halt(v1alpha1.ReasonNamespaceMayNotClaim, errors.New("no")))),
		phase.New(artifacts, func(context.Context, v1alpha1.Config) error { t.Error("ran after a halt"); return nil }),
	)
	require.NoError(t, err)
	got := meta.FindStatusCondition(f.cfg.Status.Conditions, artifacts)
	assert.Equal(t, metav1.ConditionUnknown, got.Status)
	assert.Equal(t, "waits for Identifiable", got.Message)
	assert.Equal(t, v1alpha1.StateError, f.cfg.Status.State)
}

func TestOneApplyCarriesTheCompleteOwnedSetAndNothingElse(t *testing.T) {
	f := newFixture()
	f.cfg.Status.Boot = &v1alpha1.BootStatus{Attempt: 3}
	f.cfg.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionUKIFetched, Status: metav1.ConditionTrue}}
	_, err := f.run(phase.New(artifacts, func(_ context.Context, cfg v1alpha1.Config) error {
		cfg.ConfigStatus().Artifacts = []v1alpha1.Artifact{{Role: "UKI", Digest: "sha256:aa", Size: 5}}
		return nil
	}))
	require.NoError(t, err)
	require.Len(t, f.client.applied, 1)
	assert.Equal(t, []string{"boot-operator"}, f.client.owners)
	got := f.client.applied[0]
	assert.Equal(t, map[string]any{"namespace": "ns", "name": "m", "uid": "u-1"}, got["metadata"])
	assert.Equal(t, "HTTPBootConfig", got["kind"])
	status := got["status"].(map[string]any)
	var types []any
	for _, c := range status["conditions"].([]any) {
		types = append(types, c.(map[string]any)["type"])
	}
	assert.Equal(t, []any{artifacts, ready}, types)
	delete(status, "conditions")
	assert.Equal(t, map[string]any{
		"state": "Ready", "observedGeneration": 7.0,
		"artifacts": []any{map[string]any{"role": "UKI", "digest": "sha256:aa", "size": 5.0}},
	}, status)
}

func TestNothingIsWrittenWhenNothingChanged(t *testing.T) {
	f := newFixture()
	phases := []phase.Phase{phase.New(artifacts, step(phase.Done("Foreign", "x"))), phase.New(identifiable, step(phase.Terminal("NoIdentity", errors.New("none"))))}
	_, err := f.run(phases...)
	require.NoError(t, err)
	f.told()
	f.clock.Step(time.Hour)
	_, err = f.run(phases...)
	require.NoError(t, err)
	assert.Len(t, f.client.applied, 1, "the second run has no news")
	assert.Empty(t, f.told())
	for _, c := range f.cfg.Status.Conditions {
		assert.Equal(t, start, c.LastTransitionTime.UTC(), "%s did not change", c.Type)
	}
}

func TestACacheThatLagsBehindDoesNotHideAChangeBack(t *testing.T) {
	f := newFixture()
	good, bad := phase.New(artifacts, step(nil)), phase.New(artifacts, step(phase.Terminal("X", errors.New("x"))))
	_, _ = f.run(good)
	cached := f.cfg.Status.DeepCopy()
	_, _ = f.run(bad)
	f.cfg.Status = *cached.DeepCopy() // the cache has not seen it yet
	_, _ = f.run(good)
	require.Len(t, f.client.applied, 3, "what was written last is not what is right")
	assert.Equal(t, "Ready", f.client.applied[2]["status"].(map[string]any)["state"])
	f.cfg.Status = *cached.DeepCopy()
	_, _ = f.run(good)
	assert.Len(t, f.client.applied, 3)

	_, _ = f.run(bad)
	f.cfg.Status, f.cfg.UID = *cached.DeepCopy(), "u-2" // another object of this name
	_, _ = f.run(good)
	assert.Len(t, f.client.applied, 4)
}

func TestATransitionIsTimedOnlyWhenTheStatusChanges(t *testing.T) {
	f := newFixture()
	at := func() time.Time {
		return meta.FindStatusCondition(f.cfg.Status.Conditions, artifacts).LastTransitionTime.UTC()
	}
	_, _ = f.run(phase.New(artifacts, step(phase.Done("A", "one"))))
	f.clock.Step(time.Hour)
	_, _ = f.run(phase.New(artifacts, step(phase.Done("A", "two"))))
	assert.Equal(t, start, at())
	_, _ = f.run(phase.New(artifacts, step(phase.Terminal("B", errors.New("x")))))
	assert.Equal(t, start.Add(time.Hour), at())
	assert.Len(t, f.client.applied, 3)
}

func TestEventsCarryTheConditionsReason(t *testing.T) {
	f := newFixture()
	_, _ = f.run(phase.New(identifiable, step(nil)), phase.New(artifacts, step(phase.Wait(v1alpha1.ReasonProgressing, 0, errors.New("pulling")))))
	assert.Equal(t, []string{"Normal Progressing ArtifactsReady: pulling"}, f.told(), "what is True from the start is no news; Ready repeats nothing")
	_, _ = f.run(phase.New(identifiable, step(nil)), phase.New(artifacts, step(phase.Done(v1alpha1.ReasonArtifactsVerified, "sha256:aa"))))
	assert.Equal(t, []string{"Normal ArtifactsVerified ArtifactsReady: sha256:aa", "Normal Ready Ready:"}, f.told())
	_, _ = f.run(phase.New(identifiable, step(nil)), phase.New(artifacts, step(phase.Done(v1alpha1.ReasonArtifactsVerified, "sha256:bb"))))
	assert.Equal(t, []string{"Normal ArtifactsVerified ArtifactsReady: sha256:bb"}, f.told(), "a new digest is news")
	_, _ = f.run(phase.New(identifiable, step(phase.Terminal(v1alpha1.ReasonIdentityConflict, errors.New("x")))), phase.New(artifacts, step(phase.Done(v1alpha1.ReasonArtifactsVerified, "sha256:bb"))))
	assert.Equal(t, []string{"Warning IdentityConflict Identifiable: x"}, f.told())

	f = newFixture()
	_, _ = f.run(phase.New(identifiable, step(phase.Done(v1alpha1.ReasonIdentifiedByClaim, "anyone").Warn())))
	assert.Equal(t, []string{"Warning IdentifiedByClaim Identifiable: anyone", "Normal Ready Ready:"}, f.told())
}

func TestAFailedWriteIsRetriedAndTellsNobody(t *testing.T) {
	f := newFixture()
	f.client.err = errors.New("api away")
	_, err := f.run(phase.New(artifacts, step(nil)))
	require.ErrorContains(t, err, "writing status: api away")
	assert.Empty(t, f.told())
}

func TestAnObjectThatIsGoneNeedsNoStatus(t *testing.T) {
	for _, gone := range []error{
		apierrors.NewNotFound(schema.GroupResource{}, "m"),
		apierrors.NewConflict(schema.GroupResource{}, "m", errors.New("UID in precondition")),
	} {
		f := newFixture()
		f.client.err = gone
		_, err := f.run(phase.New(artifacts, step(nil)))
		require.NoError(t, err)
	}
}

func TestWhatFailsBecauseTheLeaseWasLostIsNotWritten(t *testing.T) {
	f := newFixture()
	ctx, cancel := context.WithCancel(context.Background())
	_, err := phase.Run(ctx, phase.Status{Client: f.client, Recorder: f.events, Clock: f.clock, Written: f.memory}, f.cfg,
		phase.New(artifacts, func(ctx context.Context, _ v1alpha1.Config) error { cancel(); return ctx.Err() }))
	require.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, f.client.applied)
}

func TestMessagesAreBounded(t *testing.T) {
	f := newFixture()
	_, _ = f.run(phase.New(artifacts, step(phase.Terminal("X", errors.New(strings.Repeat("é", 5000))))))
	got := meta.FindStatusCondition(f.cfg.Status.Conditions, artifacts).Message
	assert.LessOrEqual(t, len(got), 1000)
	assert.True(t, strings.HasSuffix(got, "é…"))
	for _, e := range f.told() {
		note := strings.SplitN(e, " ", 3)[2]
		assert.LessOrEqual(t, len(note), 1024, "events.k8s.io/v1 refuses longer notes")
	}
}
