package observe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

var errAway = errors.New("dial tcp: connection refused")

// faults are what goes wrong between the observer and the API server.
type faults struct {
	away      atomic.Bool  // nothing arrives
	lostReply atomic.Int64 // so many applies arrive, and their answers do not
	conflicts atomic.Int64 // so many applies are refused
	gets      atomic.Int64
	applies   atomic.Int64
}

func (f *faults) Get(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	f.gets.Add(1)
	if f.away.Load() {
		return errAway
	}
	return c.Get(ctx, key, obj, opts...)
}

func (f *faults) Apply(ctx context.Context, c client.Client, sub string, obj runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
	f.applies.Add(1)
	switch {
	case f.away.Load():
		return errAway
	case f.conflicts.Add(-1) >= 0:
		return apierrors.NewConflict(schema.GroupResource{}, "m", errors.New("injected"))
	}
	err := c.SubResource(sub).Apply(ctx, obj, opts...)
	if f.lostReply.Add(-1) >= 0 {
		return errAway
	}
	return err
}

// recorder keeps events as "reason message".
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) Event(_ runtime.Object, _, reason, _ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, reason)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.events...)
}

// world is an API server in memory and the replicas that talk to it.
type world struct {
	t      *testing.T
	client client.WithWatch
	faults *faults
	clock  *testclock.FakePassiveClock
	events *recorder
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	s := runtime.NewScheme()
	require.NoError(t, v1alpha1.AddToScheme(s))
	w := &world{t: t, faults: &faults{}, clock: testclock.NewFakePassiveClock(after(time.Minute)), events: &recorder{}}
	w.client = fake.NewClientBuilder().WithScheme(s).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.HTTPBootConfig{}, &v1alpha1.IPXEBootConfig{}).
		WithInterceptorFuncs(interceptor.Funcs{Get: w.faults.Get, SubResourceApply: w.faults.Apply}).Build()
	return w
}

func (w *world) options(dir string) Options {
	return Options{
		Client: w.client, Reader: w.client, Dir: dir, Clock: w.clock, Recorder: w.events, Logger: logr.Discard(),
		Delay: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Registerer: prometheus.NewRegistry(),
	}
}

// replica starts an observer; stop ends it in order.
func (w *world) replica(dir string) (o *Observer, stop func()) {
	w.t.Helper()
	o, err := New(w.options(dir))
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = o.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
		require.NoError(w.t, o.Close())
	})
	w.t.Cleanup(stop)
	return o, stop
}

// idle returns an observer whose background does not run, as one that was
// killed before it came to it.
func (w *world) idle(dir string) *Observer {
	w.t.Helper()
	o, err := New(w.options(dir))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = o.Close() })
	return o
}

func (w *world) live() *v1alpha1.HTTPBootConfig {
	w.t.Helper()
	c := &v1alpha1.HTTPBootConfig{}
	require.NoError(w.t, w.client.Get(context.Background(), client.ObjectKey{Namespace: "default", Name: "m"}, c))
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 10*time.Second, 2*time.Millisecond, what)
}

func (w *world) eventuallyWritten(o *Observer) {
	w.t.Helper()
	eventually(w.t, "reports written", func() bool { return o.journal.pending() == 0 })
}

func TestABootIsWrittenInTheBackground(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	p := planOf(w.live())
	a, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.EqualValues(t, 1, a.Number, "the attempt still waits for its boot bytes")
	o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	require.False(t, o.Current(p).BootServedAt.IsZero(), "known here before it is written")
	w.eventuallyWritten(o)
	c := condition(t, w.live(), v1alpha1.ConditionUKIFetched)
	require.Equal(t, metav1.ConditionTrue, c.Status)
	eventually(t, "event", func() bool { return len(w.events.all()) == 1 })
	require.Equal(t, []string{v1alpha1.ReasonUKIDelivered}, w.events.all())
}

func TestAlwaysOpensAnAttemptForEveryBoot(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	p := planOf(w.live())
	for n := int64(1); n <= 3; n++ {
		for range 3 { // HEAD, GET, a GET again after a cut
			a, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
			require.NoError(t, err)
			require.Equal(t, n, a.Number)
			require.True(t, o.Current(p).Open(w.clock.Now()))
		}
		o.Observe(saw(n, boot.StageUKI, true, w.clock.Now()))
		w.clock.SetTime(w.clock.Now().Add(time.Minute))
	}
	w.eventuallyWritten(o)
	require.EqualValues(t, 3, w.live().Status.Boot.Attempt)
	require.Equal(t, causeBootDelivery, w.live().Status.Boot.OpenedBy)
	a := o.Current(planOf(w.live()))
	require.EqualValues(t, 3, a.Number)

	w.clock.SetTime(w.clock.Now().Add(time.Hour))
	a, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.EqualValues(t, 4, a.Number, "a stale cache does not bring an old number back")
}

// Somebody on the machine fetched the secret before it rebooted, or the end of
// its boot bytes was never seen: the boot that begins now is another one, and
// must not be left with the last seconds of an attempt that closes.
func TestABootAfterTheSecretWasFetchedIsANewAttempt(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	p := planOf(w.live())
	o.Observe(saw(1, boot.StageUKI, false, w.clock.Now()))
	o.Observe(from(addrB, saw(1, boot.StageIgnition, true, w.clock.Now())))
	w.clock.SetTime(w.clock.Now().Add(time.Minute))
	a, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.EqualValues(t, 2, a.Number)
	require.NoError(t, a.Admit(addrA, w.clock.Now().Add(boot.SecretGrace)))
	w.eventuallyWritten(o)
	require.EqualValues(t, 2, w.live().Status.Boot.Attempt)
	require.Empty(t, w.live().Status.Boot.SecretAddress)
}

// Firmware asks again for the URL that it was told, perhaps long after.
func TestATokenOfThePresentAttemptOpensNothing(t *testing.T) {
	w := newWorld(t, config(opened(4, t0, causeBootDelivery)))
	o := w.idle(t.TempDir())
	p := planOf(w.live())
	o.Observe(saw(4, boot.StageUKI, true, w.clock.Now()))
	o.Observe(saw(4, boot.StageIgnition, true, w.clock.Now()))
	w.clock.SetTime(after(time.Hour))
	a, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Proxy, Attempt: 4})
	require.NoError(t, err)
	require.EqualValues(t, 4, a.Number)
	require.ErrorIs(t, a.Admit(addrA, w.clock.Now()), boot.ErrClosed, "and it gets no secret any more")
	require.EqualValues(t, 4, o.Current(p).Number)

	coming, err := o.Coming(p)
	require.NoError(t, err)
	a, err = o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Proxy, Attempt: coming.Number})
	require.NoError(t, err)
	require.EqualValues(t, 5, a.Number, "a token of the next attempt opens it")
	require.Equal(t, w.clock.Now(), a.OpenedAt.UTC())
	for range 3 {
		a, err = o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Proxy, Attempt: 5})
		require.NoError(t, err)
		require.EqualValues(t, 5, a.Number)
		o.Observe(saw(5, boot.StageUKI, true, w.clock.Now()))
	}
	a, err = o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.EqualValues(t, 6, a.Number, "without a token it is another boot")
}

func TestComingTellsWhichAttemptABootWouldBelongTo(t *testing.T) {
	late := after(boot.AttemptLifetime - time.Minute)
	at := func(n int64, change func(*boot.Attempt)) boot.Attempt {
		a := boot.Attempt{Number: n, OpenedAt: t0}
		change(&a)
		return a
	}
	none := func(*boot.Attempt) {}
	served := func(a *boot.Attempt) { a.BootServedAt = t0 }
	fetched := func(a *boot.Attempt) { a.SecretServedAt = t0 }
	spent := func(a *boot.Attempt) { a.Spent = true }
	tests := map[string]struct {
		policy boot.Policy
		told   boot.Attempt
		now    time.Time
		want   int64
		err    error
	}{
		"none yet":              {boot.Always, boot.Attempt{}, t0, 1, nil},
		"it waits":              {boot.Always, at(3, none), t0, 3, nil},
		"it was booted":         {boot.Always, at(3, served), t0, 4, nil},
		"its secret was used":   {boot.Always, at(3, fetched), t0, 4, nil},
		"it has no time left":   {boot.Always, at(3, none), late, 4, nil},
		"Once, none yet":        {boot.Once, boot.Attempt{}, t0, 0, boot.ErrNotReady},
		"Once, it waits":        {boot.Once, at(3, none), t0, 3, nil},
		"Once, spent":           {boot.Once, at(3, spent), t0, 3, boot.ErrSpent},
		"Once, no time left":    {boot.Once, at(3, none), late, 4, nil},
		"Once, its secret used": {boot.Once, at(3, fetched), late, 3, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.clock.SetTime(tt.now)
			o := w.idle(t.TempDir())
			p := &boot.Plan{Object: refOf(config()), Policy: tt.policy, Attempt: tt.told}
			for range 2 {
				a, err := o.Coming(p)
				require.ErrorIs(t, err, tt.err)
				require.Equal(t, tt.want, a.Number)
				if a.Number != tt.told.Number {
					require.Equal(t, boot.Attempt{Number: tt.want}, a, "of the next nothing but the number is known")
				}
			}
			require.Equal(t, tt.told, o.Current(p))
			require.Zero(t, o.journal.pending(), "it opens nothing")
			require.Empty(t, o.entries)
			begun, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, begun.Number, "and Begin opens what it told")
		})
	}
}

func TestAPausedObjectGetsNoAttempt(t *testing.T) {
	pause := func(c *v1alpha1.HTTPBootConfig) {
		c.Annotations = map[string]string{v1alpha1.PausedAnnotation: "", v1alpha1.RequestBootAnnotation: "now"}
	}
	w := newWorld(t, config(opened(1, t0, causeSpecChanged), pause))
	o, _ := w.replica(t.TempDir())
	live := w.live()
	gets := w.faults.gets.Load()
	require.NoError(t, o.Open(context.Background(), live))
	require.Equal(t, gets, w.faults.gets.Load(), "nobody is asked about it")
	stale := w.live()
	delete(stale.Annotations, v1alpha1.PausedAnnotation)
	require.NoError(t, o.Open(context.Background(), stale), "a cache that has not seen the pause")
	require.EqualValues(t, 1, w.live().Status.Boot.Attempt)
	o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	w.eventuallyWritten(o)
	require.Equal(t, metav1.ConditionTrue, condition(t, w.live(), v1alpha1.ConditionUKIFetched).Status, "what was seen happened")

	live = w.live()
	delete(live.Annotations, v1alpha1.PausedAnnotation)
	require.NoError(t, w.client.Update(context.Background(), live))
	require.NoError(t, o.Open(context.Background(), w.live()))
	require.EqualValues(t, 2, w.live().Status.Boot.Attempt, "what was asked for meanwhile is opened then")
}

func TestAnAttemptWithNoTimeLeftIsReplaced(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o := w.idle(t.TempDir())
	w.clock.SetTime(after(boot.AttemptLifetime - time.Minute))
	a, err := o.Begin(planOf(w.live()), boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.EqualValues(t, 2, a.Number)
}

func TestOnceIsServedOnce(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	stale := planOf(w.live())
	ctx := context.Background()
	a, err := o.Begin(stale, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.NoError(t, o.Commit(ctx, stale, a, digestA, addrA, "d1"))
	require.NoError(t, o.Commit(ctx, stale, a, digestA, addrA, "d1"), "the same delivery again")
	require.ErrorIs(t, o.Commit(ctx, stale, a, digestA, addrA, "d2"), boot.ErrSpent)
	_, err = o.Begin(stale, boot.Client{Addr: addrA, Proof: boot.Address})
	require.ErrorIs(t, err, boot.ErrSpent, "before the cache knows")
	require.True(t, o.Current(stale).Spent)
	served := w.live().Status.Boot.Served
	require.Equal(t, "d1", served.Delivery)
	require.Equal(t, string(digestA), served.Digest)
	require.Equal(t, "10.0.0.5", served.ClientAddress)
	require.EqualValues(t, 2, testutil.ToFloat64(o.metrics.commits.WithLabelValues("committed")))
	require.EqualValues(t, 1, testutil.ToFloat64(o.metrics.commits.WithLabelValues("spent")))

	other := w.idle(t.TempDir())
	a, err = other.Begin(stale, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err, "another replica with a stale cache begins")
	require.ErrorIs(t, other.Commit(ctx, stale, a, digestA, addrA, "d3"), boot.ErrSpent, "and may not finish")
}

func TestAnUnspentOnceStaysBootable(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	p := planOf(w.live())
	w.clock.SetTime(after(5 * time.Hour))
	a, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.EqualValues(t, 2, a.Number)
	require.EqualValues(t, 1, o.Current(p).Number, "nothing is open before the commit")
	require.False(t, o.Current(p).Open(w.clock.Now()))
	o.Observe(saw(2, boot.StageUKI, false, w.clock.Now()))
	require.EqualValues(t, 1, o.Current(p).Number)
	require.NoError(t, o.Commit(context.Background(), p, a, digestA, addrA, "d1"))
	require.True(t, o.Current(p).Open(w.clock.Now()), "the secret's window starts with the delivery")
	o.Observe(saw(2, boot.StageUKI, true, w.clock.Now()))
	w.eventuallyWritten(o)
	live := w.live()
	require.EqualValues(t, 2, live.Status.Boot.Attempt)
	require.EqualValues(t, 2, live.Status.Boot.Served.Attempt)
	require.Equal(t, metav1.ConditionTrue, condition(t, live, v1alpha1.ConditionUKIFetched).Status)
}

// The transfer began when the attempt had time left, and ended after.
func TestAnAttemptThatTimesOutDuringItsTransfer(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	p := planOf(w.live())
	a, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.EqualValues(t, 1, a.Number)
	w.clock.SetTime(after(time.Hour))
	require.NoError(t, o.Commit(context.Background(), p, a, digestA, addrA, "d1"))
	o.Observe(saw(a.Number, boot.StageUKI, true, w.clock.Now()))
	require.False(t, o.Current(p).BootServedAt.IsZero(), "what is observed of it counts for the attempt it consumed")
	w.eventuallyWritten(o)
	require.Equal(t, metav1.ConditionTrue, condition(t, w.live(), v1alpha1.ConditionUKIFetched).Status)
}

func TestCommitWithoutAnAttemptOrObject(t *testing.T) {
	w := newWorld(t, config(once))
	o := w.idle(t.TempDir())
	p := planOf(w.live())
	ctx := context.Background()
	_, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.ErrorIs(t, err, boot.ErrNotReady)
	require.ErrorIs(t, o.Commit(ctx, p, boot.Attempt{Number: 1}, digestA, addrA, "d"), boot.ErrNotReady)
	require.ErrorIs(t, o.Commit(ctx, p, boot.Attempt{Number: 1}, digestA, addrA, ""), boot.ErrInvalid)

	imposter := *p
	imposter.Object.UID = "an-earlier-object-of-this-name"
	require.ErrorIs(t, o.Commit(ctx, &imposter, boot.Attempt{Number: 1}, digestA, addrA, "d"), boot.ErrNotFound)
	_, err = o.Refresh(ctx, &imposter)
	require.ErrorIs(t, err, boot.ErrNotFound)
	missing := *p
	missing.Object.Name = "gone"
	require.ErrorIs(t, o.Commit(ctx, &missing, boot.Attempt{Number: 1}, digestA, addrA, "d"), boot.ErrNotFound)
}

func TestALostAnswerIsFoundByReadingAgain(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	o := w.idle(t.TempDir())
	p := planOf(w.live())
	w.faults.lostReply.Store(1)
	require.NoError(t, o.Commit(context.Background(), p, p.Attempt, digestA, addrA, "d1"))
	require.EqualValues(t, 1, w.faults.applies.Load(), "nothing was written twice")
	require.ErrorIs(t, o.Commit(context.Background(), p, p.Attempt, digestA, addrA, "d2"), boot.ErrSpent)
}

func TestALostAnswerIsFoundAfterItsContextEnded(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	p := planOf(w.live())
	ctx, cancel := context.WithCancel(context.Background())
	dying := interceptor.NewClient(w.client, interceptor.Funcs{
		SubResourceApply: func(ctx context.Context, c client.Client, sub string, obj runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
			err := c.SubResource(sub).Apply(ctx, obj, opts...)
			cancel()
			return errors.Join(err, errAway)
		},
	})
	opts := w.options(t.TempDir())
	opts.Client = dying
	o, err := New(opts)
	require.NoError(t, err)
	defer o.Close() //nolint:errcheck // the test is over
	require.ErrorIs(t, o.Commit(ctx, p, p.Attempt, digestA, addrA, "d1"), boot.ErrUnavailable)
	require.NoError(t, o.Commit(context.Background(), p, p.Attempt, digestA, addrA, "d1"), "the same delivery learns that it was first")
	require.ErrorIs(t, o.Commit(context.Background(), p, p.Attempt, digestA, addrA, "d2"), boot.ErrSpent)
}

func TestOnceFailsClosedWhileTheAPIServerIsAway(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	o := w.idle(t.TempDir())
	p := planOf(w.live())
	w.faults.away.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, o.Commit(ctx, p, p.Attempt, digestA, addrA, "d1"), boot.ErrUnavailable)
	_, err := o.Refresh(context.Background(), p)
	require.ErrorIs(t, err, boot.ErrUnavailable)
	require.ErrorIs(t, o.Open(ctx, config()), boot.ErrUnavailable)
	w.faults.away.Store(false)
	require.NoError(t, o.Commit(context.Background(), p, p.Attempt, digestA, addrA, "d1"))
}

func TestCommitOutlastsConflicts(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	o := w.idle(t.TempDir())
	p := planOf(w.live())
	w.faults.conflicts.Store(10)
	require.NoError(t, o.Commit(context.Background(), p, p.Attempt, digestA, addrA, "d1"))
	require.EqualValues(t, 10, testutil.ToFloat64(o.metrics.applies.WithLabelValues("conflict")))
}

func TestConflictsWithoutEndAreUnavailable(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	o := w.idle(t.TempDir())
	p := planOf(w.live())
	w.faults.conflicts.Store(1 << 30)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, o.Commit(ctx, p, p.Attempt, digestA, addrA, "d1"), boot.ErrUnavailable)
	require.Nil(t, w.live().Status.Boot.Served)
}

func TestExactlyOneOfManyCommits(t *testing.T) {
	w := newWorld(t, config(once, opened(1, t0, causeSpecChanged)))
	p := planOf(w.live())
	// All have read the unspent object before the first one writes.
	var all sync.WaitGroup
	all.Add(100)
	var reads atomic.Int64
	opts := w.options("")
	opts.Reader = interceptor.NewClient(w.client, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			err := c.Get(ctx, key, obj, opts...)
			if reads.Add(1) <= 100 {
				all.Done()
				all.Wait()
			}
			return err
		},
	})
	var replicas []*Observer
	for range 2 {
		opts.Dir, opts.Registerer = t.TempDir(), nil
		o, err := New(opts)
		require.NoError(t, err)
		defer o.Close() //nolint:errcheck // the test is over
		replicas = append(replicas, o)
	}
	require.Len(t, race(t, replicas, p, 100), 1)
}

// race commits n deliveries at once, over all replicas, and returns those that
// may finish.
func race(t *testing.T, replicas []*Observer, p *boot.Plan, n int) []string {
	t.Helper()
	var mu sync.Mutex
	var won []string
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			delivery := fmt.Sprint("d", i)
			err := replicas[i%len(replicas)].Commit(context.Background(), p, p.Attempt, digestA, addrA, delivery)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, delivery)
			} else if !errors.Is(err, boot.ErrSpent) {
				t.Errorf("delivery %s: %v", delivery, err)
			}
		})
	}
	close(start)
	wg.Wait()
	return won
}

func TestReportsOutliveAnOutageAndTheProcess(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	dir := t.TempDir()
	p := planOf(w.live())
	w.faults.away.Store(true)

	first := w.idle(dir) // never comes to write anything
	first.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	w.clock.SetTime(w.clock.Now().Add(time.Hour))
	a, err := first.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	require.EqualValues(t, 2, a.Number, "Always goes on without the API server")
	first.Observe(saw(2, boot.StageUKI, true, w.clock.Now()))
	first.Observe(saw(2, boot.StageIgnition, true, w.clock.Now()))
	first.Observe(from(addrB, saw(2, boot.StageContested, false, w.clock.Now())))
	crash(t, first.journal)

	second, _ := w.replica(dir)
	got := second.Current(p)
	require.EqualValues(t, 2, got.Number, "and the next process goes on with it")
	require.ErrorIs(t, got.Admit(addrB, w.clock.Now()), boot.ErrContested)
	eventually(t, "several tries", func() bool { return testutil.ToFloat64(second.metrics.flushErrors) > 3 })
	w.faults.away.Store(false)
	w.eventuallyWritten(second)
	live := w.live()
	require.EqualValues(t, 2, live.Status.Boot.Attempt)
	require.Equal(t, "10.0.0.5", live.Status.Boot.SecretAddress)
	require.Equal(t, metav1.ConditionTrue, condition(t, live, v1alpha1.ConditionIgnitionDataFetched).Status)
	eventually(t, "events", func() bool { return len(w.events.all()) == 4 })
	require.ElementsMatch(t, []string{v1alpha1.ReasonAttemptOpened, v1alpha1.ReasonUKIDelivered, v1alpha1.ReasonIgnitionDataDelivered, v1alpha1.ReasonSecretContested}, w.events.all())
}

func TestWhatIsPendingIsWrittenBeforeTheEnd(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	dir := t.TempDir()
	opts := w.options(dir)
	opts.Delay = time.Hour
	o, err := New(opts)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	require.NoError(t, o.Run(ctx))
	require.NoError(t, o.Close())
	require.Equal(t, metav1.ConditionTrue, condition(t, w.live(), v1alpha1.ConditionUKIFetched).Status)
}

func TestReportsOfAnObjectThatIsGoneAreDropped(t *testing.T) {
	cfg := config(opened(1, t0, causeSpecChanged))
	w := newWorld(t, cfg)
	o, _ := w.replica(t.TempDir())
	o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	w.eventuallyWritten(o)
	require.NoError(t, w.client.Delete(context.Background(), config()))
	o.Observe(saw(1, boot.StageIgnition, true, w.clock.Now()))
	w.eventuallyWritten(o)
	o.mu.Lock()
	defer o.mu.Unlock()
	require.Empty(t, o.entries)
}

func TestA404OfThePathIsNotAMissingObject(t *testing.T) {
	gr := schema.GroupResource{Group: "boot.ironcore.dev", Resource: "httpbootconfigs"}
	tests := map[string]struct {
		err  error
		want bool
	}{
		"no error":              {nil, false},
		"the object":            {apierrors.NewNotFound(gr, "m"), true},
		"wrapped":               {fmt.Errorf("get: %w", apierrors.NewNotFound(gr, "m")), true},
		"another object":        {apierrors.NewNotFound(gr, "other"), false},
		"an answer of the path": {apierrors.NewGenericServerResponse(404, "get", gr, "m", "404 page not found", 0, true), false},
		"away":                  {errAway, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, tt.want, gone(tt.err, "m")) })
	}
}

// 24,000 requests/s without status writes, 500 with: the request path must not
// wait for the API server, and repeated reports must not be written again.
func TestRepeatedReportsCostNoWrites(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	for range 50_000 {
		o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
		o.Observe(from(addrB, saw(1, boot.StageContested, false, w.clock.Now())))
	}
	w.eventuallyWritten(o)
	o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	require.LessOrEqual(t, w.faults.applies.Load(), int64(2))
	require.LessOrEqual(t, w.faults.gets.Load(), int64(3))
	eventually(t, "events", func() bool { return len(w.events.all()) >= 2 })
	require.Len(t, w.events.all(), 2, "nor do events repeat")
}

func TestRefreshIsCoalesced(t *testing.T) {
	w := newWorld(t, config(opened(7, t0, causeSpecChanged)))
	opts := w.options(t.TempDir())
	var reads atomic.Int64
	release := make(chan struct{})
	opts.Reader = interceptor.NewClient(w.client, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			reads.Add(1)
			<-release
			return c.Get(ctx, key, obj, opts...)
		},
	})
	o, err := New(opts)
	require.NoError(t, err)
	defer o.Close() //nolint:errcheck // the test is over
	p := planOf(config())
	gaveUp, cancel := context.WithCancel(context.Background())
	quit := make(chan error, 1)
	go func() { _, err := o.Refresh(gaveUp, p); quit <- err }()
	eventually(t, "the read began", func() bool { return reads.Load() == 1 })
	var wg sync.WaitGroup
	var arrived atomic.Int64
	for range 50 {
		wg.Go(func() {
			arrived.Add(1)
			a, err := o.Refresh(context.Background(), p)
			if err != nil || a.Number != 7 {
				t.Errorf("attempt %d, %v", a.Number, err)
			}
		})
	}
	eventually(t, "all asked", func() bool { return arrived.Load() == 50 })
	cancel()
	require.ErrorIs(t, <-quit, boot.ErrUnavailable, "one caller that gives up")
	close(release)
	wg.Wait()
	require.Less(t, reads.Load(), int64(10))
	require.EqualValues(t, 7, o.Current(p).Number, "and the answer is known here")
}

func TestOpenIsIdempotent(t *testing.T) {
	w := newWorld(t, config())
	o, _ := w.replica(t.TempDir())
	stale := w.live()
	for range 3 {
		require.NoError(t, o.Open(context.Background(), stale), "a cache that lags asks again")
	}
	live := w.live()
	require.EqualValues(t, 1, live.Status.Boot.Attempt)
	require.EqualValues(t, 1, w.faults.applies.Load())
	gets := w.faults.gets.Load()
	require.NoError(t, o.Open(context.Background(), live))
	require.Equal(t, gets, w.faults.gets.Load(), "what is up to date costs no request")

	live.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: "again"}
	require.NoError(t, w.client.Update(context.Background(), live))
	require.NoError(t, o.Open(context.Background(), live))
	require.EqualValues(t, 2, w.live().Status.Boot.Attempt)
	require.EqualValues(t, 2, o.Current(planOf(stale)).Number, "known here at once")
	require.NoError(t, w.client.Delete(context.Background(), w.live()))
	live.Generation++
	require.NoError(t, o.Open(context.Background(), live), "an object that is gone needs no attempt")
}

// A replica whose cache still says Always must not re-arm an object that says
// Once and is spent.
func TestAStaleAlwaysDoesNotRearmOnce(t *testing.T) {
	w := newWorld(t, config(once, opened(5, t0, causeSpecChanged), func(c *v1alpha1.HTTPBootConfig) {
		c.Status.Boot.Served = &v1alpha1.BootServed{Attempt: 5, Delivery: "d", Digest: string(digestA), Time: *micro(t0)}
	}))
	o, _ := w.replica(t.TempDir())
	stale := planOf(config(opened(4, t0, causeSpecChanged)))
	stale.Attempt.BootServedAt = t0
	w.clock.SetTime(after(time.Hour))
	a, err := o.Begin(stale, boot.Client{Addr: addrA, Proof: boot.Address})
	require.NoError(t, err)
	o.Observe(saw(a.Number, boot.StageUKI, true, w.clock.Now()))
	w.eventuallyWritten(o)
	require.EqualValues(t, 5, w.live().Status.Boot.Attempt)
	require.True(t, o.Current(planOf(w.live())).Spent)
}

func TestIdleObjectsAreForgotten(t *testing.T) {
	w := newWorld(t, config(opened(1, t0, causeSpecChanged)))
	o, _ := w.replica(t.TempDir())
	o.Observe(saw(1, boot.StageUKI, true, w.clock.Now()))
	w.eventuallyWritten(o)
	count := func() int { o.mu.Lock(); defer o.mu.Unlock(); return len(o.entries) }
	o.sweep()
	require.Equal(t, 1, count())
	w.clock.SetTime(w.clock.Now().Add(idleAfter + time.Second))
	o.sweep()
	require.Zero(t, count())
}

func TestAKindThatIsUnknownIsDropped(t *testing.T) {
	w := newWorld(t)
	o, _ := w.replica(t.TempDir())
	strange := saw(1, boot.StageUKI, true, t0)
	strange.Object.Kind = "Node"
	o.Observe(strange)
	o.Observe(boot.Observation{})
	require.Zero(t, o.journal.pending())
	_, err := o.Refresh(context.Background(), &boot.Plan{Object: strange.Object})
	require.ErrorIs(t, err, boot.ErrInvalid)
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	_, err := New(Options{})
	require.ErrorIs(t, err, boot.ErrInvalid)
}

// BenchmarkObserveNothingNew is the request path of a machine that repeats itself.
func BenchmarkObserveNothingNew(b *testing.B) {
	e := &Observer{opts: Options{Logger: logr.Discard()}, entries: map[string]*entry{}}
	require.NoError(b, e.opts.defaultsForBenchmark(b.TempDir()))
	o, err := New(e.opts)
	require.NoError(b, err)
	defer o.Close() //nolint:errcheck // the benchmark is over
	seen := saw(1, boot.StageUKI, true, t0)
	o.Observe(seen)
	for b.Loop() {
		o.Observe(seen)
	}
}

func (o *Options) defaultsForBenchmark(dir string) error {
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		return err
	}
	o.Client = fake.NewClientBuilder().WithScheme(s).Build()
	o.Reader, o.Dir = o.Client, dir
	return nil
}
