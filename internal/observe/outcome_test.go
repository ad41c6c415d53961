package observe

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func count(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	return testutil.ToFloat64(c)
}

// spans keeps what is recorded.
type spans struct {
	mu  sync.Mutex
	all []boot.Span
}

// Record implements boot.Spans.
func (s *spans) Record(span boot.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, span)
}

func withSecret(c *v1alpha1.HTTPBootConfig) {
	c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "s"}
}

func elsewhere(c *v1alpha1.HTTPBootConfig) {
	c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionArtifactsReady, Reason: v1alpha1.ReasonForeignURL})
}

func TestABootEndsOnce(t *testing.T) {
	uki, cut, ignition := saw(1, boot.StageUKI, true, after(time.Second)), saw(1, boot.StageUKI, false, after(time.Second)), saw(1, boot.StageIgnition, true, after(2*time.Second))
	for name, tt := range map[string]struct {
		edits []func(*v1alpha1.HTTPBootConfig)
		seen  []boot.Observation
		want  outcome
	}{
		"nothing was fetched":          {nil, nil, ""},
		"cut":                          {nil, []boot.Observation{cut}, ""},
		"all that there is":            {nil, []boot.Observation{uki}, completed},
		"the secret is to come":        {edits: []func(*v1alpha1.HTTPBootConfig){withSecret}, seen: []boot.Observation{uki}},
		"the secret came":              {[]func(*v1alpha1.HTTPBootConfig){withSecret}, []boot.Observation{uki, ignition}, completed},
		"a secret without boot bytes":  {edits: []func(*v1alpha1.HTTPBootConfig){withSecret}, seen: []boot.Observation{ignition}},
		"boot bytes come from others":  {[]func(*v1alpha1.HTTPBootConfig){withSecret, elsewhere}, []boot.Observation{ignition}, completed},
		"there is nothing to delivery": {edits: []func(*v1alpha1.HTTPBootConfig){elsewhere}, seen: []boot.Observation{ignition}},
	} {
		t.Run(name, func(t *testing.T) {
			s := stateOf(config(append(tt.edits, opened(1, t0, causeSpecChanged))...))
			seen(s, t0, tt.seen...)
			require.Equal(t, tt.want, s.outcome(1))
			require.Empty(t, s.outcome(0))
			require.Empty(t, s.outcome(2))
			s.open(2, after(time.Hour), after(time.Hour), causeRequested)
			want := tt.want
			if want == "" {
				want = incomplete
			}
			require.Equal(t, want, s.outcome(1))
			require.Empty(t, s.outcome(2))
		})
	}
}

// Two replicas see parts of the same boots, write them, and count each once.
func TestEachBootIsCountedAndTracedOnceOverAllReplicas(t *testing.T) {
	w := newWorld(t, config(withSecret, opened(1, t0, causeSpecChanged)))
	traced := &spans{}
	start := func() *Observer {
		options := w.options(t.TempDir())
		options.Spans = traced
		o, err := New(options)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, o.Close()) })
		return o
	}
	a, b := start(), start()
	flush := func() {
		for range 2 {
			a.flush(t.Context(), uidA)
			b.flush(t.Context(), uidA)
		}
	}
	total := func(of func(*metrics) prometheus.Collector) float64 {
		return count(t, of(a.metrics)) + count(t, of(b.metrics))
	}
	boots := func(result string) float64 {
		return total(func(m *metrics) prometheus.Collector { return m.boots.WithLabelValues(result) })
	}
	stages := func(stage, result string) float64 {
		return total(func(m *metrics) prometheus.Collector { return m.stages.WithLabelValues(stage, result) })
	}
	a.Observe(offer(1, macA, uefi, after(10*time.Second)))
	b.Observe(offer(1, macA, uefi, after(10*time.Second)))
	for _, o := range []*Observer{a, b} {
		o.Observe(saw(1, boot.StageUKI, false, after(20*time.Second)))
		o.Observe(saw(1, boot.StageUKI, true, after(30*time.Second)))
	}
	flush()
	require.Zero(t, boots("completed"))
	b.Observe(saw(1, boot.StageIgnition, true, after(50*time.Second)))
	a.Observe(saw(1, boot.StageIgnition, true, after(50*time.Second)))
	a.Observe(from(addrB, saw(1, boot.StageContested, false, after(55*time.Second))))
	flush()
	require.Equal(t, 1.0, boots("completed"))
	require.Equal(t, 1.0, stages("UKI", stageDelivered))
	require.Equal(t, 1.0, stages("Ignition", stageDelivered))
	require.Equal(t, 1.0, stages("Ignition", stageContested))
	require.Zero(t, stages("UKI", stageCut), "it came through at once")

	p := planOf(w.live())
	w.clock.SetTime(after(10 * time.Minute))
	_, err := a.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	a.Observe(cutAt(2, 5, after(11*time.Minute)))
	flush()
	require.Equal(t, 1.0, stages("UKI", stageCut))
	w.clock.SetTime(after(2 * time.Hour))
	_, err = b.Begin(planOf(w.live()), boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	b.Observe(saw(3, boot.StageUKI, true, after(2*time.Hour)))
	flush()
	require.Equal(t, 1.0, boots("incomplete"))
	require.Equal(t, 1.0, boots("completed"))
	for n, value := range []string{"one", "two"} { // nobody boots in the attempt of the first
		c := w.live()
		c.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: value}
		require.NoError(t, w.client.Update(t.Context(), c))
		require.NoError(t, a.Open(t.Context(), w.live()))
		require.EqualValues(t, 4+n, w.live().Status.Boot.Attempt)
	}
	require.Equal(t, 2.0, boots("incomplete"), "an attempt in which nobody booted is no boot")
	traced.all = traced.all[:len(traced.all)-1]

	id := boot.NewID(uidA, 1)
	require.Len(t, traced.all, 3)
	require.Equal(t, boot.SpanOffer, traced.all[0].Name)
	whole, lost := traced.all[1], traced.all[2]
	require.Equal(t, id, whole.Boot)
	require.Equal(t, boot.SpanBoot, whole.Name)
	require.Equal(t, []any{t0, after(50 * time.Second)}, []any{whole.Start.UTC(), whole.End.UTC()})
	require.NoError(t, whole.Err)
	require.Equal(t, boot.NewID(uidA, 2), lost.Boot)
	require.Error(t, lost.Err)
	require.Equal(t, after(10*time.Minute+boot.AttemptLifetime), lost.End.UTC(), "it was over when its attempt closed")
	require.Equal(t, boot.NewID(uidA, 5).String(), w.live().Status.Boot.ID)
	require.EqualValues(t, 1, total(func(m *metrics) prometheus.Collector {
		return countOf{m.bootSeconds}
	}))
}

// countOf is how many were observed of a histogram, as a gauge.
type countOf struct{ prometheus.Histogram }

func (c countOf) Describe(out chan<- *prometheus.Desc) { out <- prometheus.NewDesc("n", "n", nil, nil) }
func (c countOf) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("n", "n", nil, nil), prometheus.GaugeValue, float64(testutil.CollectAndCount(c.Histogram))*sampled(c.Histogram))
}

func sampled(h prometheus.Histogram) float64 {
	registry := prometheus.NewRegistry()
	registry.MustRegister(h)
	all, _ := registry.Gather()
	return float64(all[0].GetMetric()[0].GetHistogram().GetSampleCount())
}

func TestABootBeginsWithItsBMC(t *testing.T) {
	before, next := stateOf(config(opened(1, t0, causeRequested))), stateOf(config(opened(1, t0, causeRequested)))
	next.boot().NetworkBoot = &v1alpha1.NetworkBoot{Attempt: 1, Steps: []v1alpha1.NetworkBootTime{
		{Step: v1alpha1.NetworkBootPowerOff, Time: *micro(after(-time.Minute))}, {Step: v1alpha1.NetworkBootArm, Time: *micro(after(time.Second))},
	}}
	seen(next, t0, saw(1, boot.StageUKI, true, after(time.Minute)))
	l := lifeOf(before, next, 1, after(time.Hour))
	require.Equal(t, after(-time.Minute), l.start.UTC())
	require.Equal(t, l.start, l.seen)
	require.Equal(t, after(time.Minute), l.endOf(completed).UTC())
	next.boot().NetworkBoot.Attempt = 7
	l = lifeOf(before, next, 1, after(time.Hour))
	require.Equal(t, t0, l.start.UTC(), "steps of another boot say nothing")
	require.Equal(t, after(time.Minute), l.seen.UTC())
}

func TestABootHasOneNameEverywhere(t *testing.T) {
	s := stateOf(config(opened(4, t0, causeSpecChanged)))
	s.open(5, t0, t0, causeBootDelivery)
	require.Equal(t, boot.NewID(uidA, 5).String(), s.boot().ID)
	require.Len(t, s.boot().ID, 32)
	require.NotEqual(t, boot.NewID(uidA, 4).String(), s.boot().ID)
	require.NotContains(t, fmt.Sprint(s.boot().ID), uidA)
}
