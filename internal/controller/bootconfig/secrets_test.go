package bootconfig

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

func TestAChangeOfASecretIsNoticed(t *testing.T) {
	for name, watched := range map[string]bool{"polled": false, "watched": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if watched {
				f.config = f.operator(secretWatch)
			}
			f.run(func(o *Options) { o.SecretWatch = watched })
			c := f.machine("m", withIgnition("ign"))
			f.shows(c, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonSecretNotFound)
			s := f.secret("ign", map[string]string{"ignition": brokenJSON})
			f.shows(c, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonIgnitionInvalid)
			f.update(s, func() { s.StringData = map[string]string{"ignition": validJSON} })
			f.ready(c)
			require.NoError(t, f.client.Delete(t.Context(), s))
			f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonSecretNotFound)
			f.secret("ign", map[string]string{"ignition": validJSON})
			f.ready(c)
		})
	}
}

func TestAChangedPullSecretIsTriedAtOnce(t *testing.T) {
	f := newFixture(t)
	f.run()
	s := f.secret("pull", map[string]string{".dockerconfigjson": "nonsense"})
	c := f.machine("m", func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.PullSecretRef = &corev1.LocalObjectReference{Name: "pull"}
	})
	f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonPullSecretInvalid)
	assert.Zero(t, f.store.count(imageTag))
	f.update(s, func() {
		s.StringData = map[string]string{".dockerconfigjson": `{"auths":{"registry.example.com":{"username":"u","password":"hunter2"}}}`}
	})
	f.ready(c)
	assert.Equal(t, []string{"credentials for 1 registries"}, f.store.auths)
}

func TestNoContentOfASecretIsKept(t *testing.T) {
	f := newFixture(t)
	r := f.direct()
	f.secret("ign", map[string]string{"ignition": `{"ignition":{"version":"3.4.0"},"hunter2key":{}}`, "other": "hunter2"})
	f.secret("pull", map[string]string{".dockerconfigjson": `{"auths":{"registry.example.com":{"username":"u","password":"hunter2"}}}`})
	c := f.machine("m", withIgnition("ign"), func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.PullSecretRef = &corev1.LocalObjectReference{Name: "pull"}
	})
	f.eventually(c, "done", func() bool { f.reconcile(r, c); return len(c.Status.Artifacts) == 1 })
	r.secrets.mu.Lock()
	defer r.secrets.mu.Unlock()
	for u, use := range r.secrets.uses {
		assert.NotContains(t, fmt.Sprintf("%+v %+v", u, *use), `hunter2"`)
	}
	r.fetches.mu.Lock()
	defer r.fetches.mu.Unlock()
	for target, fetch := range r.fetches.all {
		assert.NotContains(t, fmt.Sprintf("%+v %+v", target, *fetch), "hunter2")
	}
}

// countingReader answers for Secrets that all have the same version, and counts
// the reads by name and by what was asked for.
type countingReader struct {
	client.Reader
	mu      sync.Mutex
	version string
	reads   map[string]int
	full    int
}

func (r *countingReader) Get(_ context.Context, k client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads[k.Name]++
	if _, ok := o.(*metav1.PartialObjectMetadata); !ok {
		r.full++
	}
	o.SetResourceVersion(r.version)
	return nil
}

func (r *countingReader) total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.reads {
		n += c
	}
	return n
}

func pollFixture(t *testing.T, n int, c clock.WithTicker, o Options) (*secrets, *countingReader, chan configKey) {
	t.Helper()
	woken := make(chan configKey, 4*n+1)
	reader := &countingReader{version: "1", reads: map[string]int{}}
	o.Clock = c
	s, err := newSecrets(reader, func(k configKey) { woken <- k }, o)
	require.NoError(t, err)
	for i := range n {
		k := configKey{v1alpha1.KindHTTPBootConfig, types.NamespacedName{Namespace: "ns", Name: fmt.Sprint(i)}}
		u := secretUse{k, forIgnition}
		name := s.name(u, fmt.Sprintf("secret-%d", i))
		s.found(s.look(name), version{resourceVersion: "1"})
		require.True(t, s.mark(u, version{resourceVersion: "1"}))
		s.remember(u, 1, nil)
	}
	return s, reader, woken
}

func TestEverySecretIsPolledOnceInAPeriodAtAnEvenPace(t *testing.T) {
	const n = 90
	c := clocktesting.NewFakeClock(time.Now())
	s, reader, woken := pollFixture(t, n, c, Options{SecretPollPeriod: 45 * time.Second, SecretPollBudget: 20})
	<-s.grown // or the first round leaves a timer behind that nobody waits for
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = s.poll(ctx) }()
	step := func() {
		before := reader.total()
		require.Eventually(t, c.HasWaiters, deadline, time.Millisecond)
		c.Step(500 * time.Millisecond) // 45 s / 90
		require.Eventually(t, func() bool { return reader.total() == before+1 }, deadline, time.Millisecond, "one request at a time")
	}
	for range n {
		step()
	}
	assert.Len(t, reader.reads, n)
	assert.Equal(t, []int{1}, slices.Compact(slices.Sorted(maps.Values(reader.reads))), "each once")
	assert.Zero(t, reader.full, "metadata is enough")
	assert.Empty(t, woken, "nothing changed")

	reader.mu.Lock()
	reader.version = "2"
	reader.mu.Unlock()
	for range n {
		step()
	}
	require.Eventually(t, func() bool { return len(woken) == n }, deadline, time.Millisecond, "each config once")
}

func TestThePollKeepsItsBudgetAndSaysSo(t *testing.T) {
	registry := prometheus.NewRegistry()
	o := Options{SecretPollPeriod: 45 * time.Second, SecretPollBudget: 20, Registerer: registry}
	s, _, _ := pollFixture(t, 1200, clock.RealClock{}, o)
	assert.Equal(t, 50*time.Millisecond, s.pace(), "20 requests a second")
	assert.InDelta(t, 60, testutil.ToFloat64(s.gauge), 0.001, "1200 Secrets are polled within a minute")
	again, err := newSecrets(nil, nil, o)
	require.NoError(t, err, "the next leader has the same metric")
	again.pace()
	assert.Zero(t, testutil.ToFloat64(s.gauge))
}

func TestWhatChangesDuringAReadIsNotLost(t *testing.T) {
	s, _, woken := pollFixture(t, 1, clock.RealClock{}, Options{SecretPollPeriod: time.Second, SecretPollBudget: 1})
	k := configKey{v1alpha1.KindHTTPBootConfig, types.NamespacedName{Namespace: "ns", Name: "0"}}
	u := secretUse{k, forIgnition}
	name := types.NamespacedName{Namespace: "ns", Name: "secret-0"}

	at := s.look(name)
	s.observe(name, version{resourceVersion: "3"}) // heard while version 2 is being read
	assert.Equal(t, k, <-woken)
	s.found(at, version{resourceVersion: "2"})
	assert.False(t, s.mark(u, version{resourceVersion: "2"}), "it has to look again")
	s.remember(u, 1, nil)
	_, ok := s.recall(u, 1)
	assert.False(t, ok)

	s.found(s.look(name), version{resourceVersion: "3"})
	assert.True(t, s.mark(u, version{resourceVersion: "3"}))
	s.remember(u, 1, nil)
	_, ok = s.recall(u, 1)
	assert.True(t, ok)
	_, ok = s.recall(u, 2)
	assert.False(t, ok, "another spec may ask for something else")
}

func TestNamingAnotherSecretForgetsTheFirst(t *testing.T) {
	s, _, _ := pollFixture(t, 1, clock.RealClock{}, Options{SecretPollPeriod: time.Second, SecretPollBudget: 1})
	u := secretUse{configKey{v1alpha1.KindHTTPBootConfig, types.NamespacedName{Namespace: "ns", Name: "0"}}, forIgnition}
	for i := range 100 {
		s.name(u, fmt.Sprintf("other-%d", i%2))
	}
	assert.Len(t, s.entries, 1)
	first, ok := s.next()
	require.True(t, ok)
	second, _ := s.next()
	assert.Equal(t, "other-1", first.Name)
	assert.Equal(t, first, second, "nothing else is polled")
	assert.Len(t, s.order, 1)
}
