package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

const (
	// post is how long a machine takes from power-on to its first request.
	post = 1500 * time.Millisecond
	// startup is how long an operating system takes from its first instruction to
	// Ignition.
	startup = time.Second
	// statusPatience is how long a status may take to tell of a boot, while replicas
	// reach the API server.
	statusPatience = 10 * time.Second
)

// Phase is a part of a run, with what happened in it.
type Phase struct {
	Name string
	// Rough says how much is done to the replicas: a boot that began in one phase and
	// ended in another counts in the rougher one.
	Rough int

	began, ended time.Time
	// before and after are the requests to the API server until then.
	before, after map[string]int
	mu            sync.Mutex
	tally         Tally
}

// Tally is what happened in a phase.
type Tally struct {
	// Booted counts boots that were complete, with Ignition.
	Booted int
	// Once, ByToken, Crossed and NewKey count those of them that were of a machine
	// with bootPolicy Once, by a URL with a token, by one that another replica had
	// told, and by one whose token was not signed by the first key.
	Once, ByToken, Crossed, NewKey int
	// Again counts how often Ignition asked again.
	Again int
	// OnceBegun counts boots of machines with bootPolicy Once that began in this phase
	// and were complete.
	OnceBegun int
	// Failed are those that were not complete.
	Failed []Failure
	// Untold are complete boots that no status told of within ten seconds. Where the
	// API server is slow or away that says nothing of what is told later.
	Untold []error
	// Duration is how long the phase took.
	Duration time.Duration
	// Requests counts what replicas asked of the API server meanwhile, by verb and
	// resource.
	Requests map[string]int
}

// Failure is a boot that was not complete.
type Failure struct {
	Machine *Machine
	// Replica is the one that answered last; empty where none did.
	Replica string
	Time    time.Time
	Err     error
}

// String says which machine did not boot, when, and why.
func (f Failure) String() string {
	return fmt.Sprintf("%s %s (%s) at replica %q: %v", f.Time.Format("15:04:05.000"), f.Machine.Name, f.Machine.kind(), f.Replica, f.Err)
}

// Of counts the failures of one kind.
func (t Tally) Of(kind error) int {
	n := 0
	for _, failed := range t.Failed {
		if errors.Is(failed.Err, kind) {
			n++
		}
	}
	return n
}

// PerSecond is the rate of complete boots.
func (t Tally) PerSecond() float64 { return float64(t.Booted) / t.Duration.Seconds() }

// Load is all machines as they boot again and again.
type Load struct {
	fleet  *Fleet
	stop   context.CancelFunc // of new boots
	wg     sync.WaitGroup
	mu     sync.Mutex
	phases []*Phase
	last   map[string]time.Time // when each machine's last complete boot began
	began  map[string]time.Time // when its last boot began
}

// Begin lets all machines boot, each at a time of its own within the first cycle.
func (f *Fleet) Begin(ctx context.Context, first string) *Load {
	l := &Load{fleet: f, last: map[string]time.Time{}, began: map[string]time.Time{}}
	l.Phase(first, 0)
	starts, stop := context.WithCancel(ctx)
	l.stop = stop
	for _, m := range f.Machines {
		l.wg.Go(func() { l.live(ctx, starts, m) })
	}
	return l
}

// Phase begins another phase.
func (l *Load) Phase(name string, rough int) *Phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := l.fleet.requests()
	if len(l.phases) > 0 {
		l.phases[len(l.phases)-1].end(asked)
	}
	p := &Phase{Name: name, Rough: rough, began: time.Now(), before: asked}
	l.phases = append(l.phases, p)
	return p
}

func (p *Phase) end(asked map[string]int) { p.ended, p.after = time.Now(), asked }

// Tally is what happened in a phase so far.
func (l *Load) Tally(p *Phase) Tally {
	l.mu.Lock()
	ended, after := p.ended, p.after
	l.mu.Unlock()
	if ended.IsZero() {
		ended, after = time.Now(), l.fleet.requests()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tally
	t.Duration, t.Requests = ended.Sub(p.began), map[string]int{}
	for kind, n := range after {
		if n > p.before[kind] {
			t.Requests[kind] = n - p.before[kind]
		}
	}
	return t
}

// requests are what all replicas asked of the API server so far.
func (f *Fleet) requests() map[string]int {
	all := map[string]int{}
	for _, r := range f.Replicas {
		for kind, n := range r.Gate.Counts() {
			all[kind] += n
		}
	}
	return all
}

// Phases are all phases so far.
func (l *Load) Phases() []*Phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Phase(nil), l.phases...)
}

// End lets no machine boot any more, and waits until all boots are over.
func (l *Load) End() {
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phases[len(l.phases)-1].end(l.fleet.requests())
}

// Last boots every machine once more, after End.
func (l *Load) Last(ctx context.Context) {
	for _, m := range l.fleet.Machines {
		l.wg.Go(func() {
			l.mu.Lock()
			began := l.began[m.Name]
			l.mu.Unlock()
			pause(ctx, time.Until(began.Add(l.fleet.o.Cycle))+rand.N(l.fleet.o.Cycle/2))
			l.boot(ctx, ctx, m)
		})
	}
	l.End()
}

// Told waits until the status of every machine tells of its last complete boot, two
// minutes at most; its error says of which it does not.
func (l *Load) Told(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return l.fleet.each(func(m *Machine) error {
		l.mu.Lock()
		began, ok := l.last[m.Name]
		l.mu.Unlock()
		if !ok {
			return fmt.Errorf("%s never booted", m.Name)
		}
		return l.fleet.told(ctx, m, began)
	})
}

// told waits until a machine's status tells of its boot.
func (f *Fleet) told(ctx context.Context, m *Machine, began time.Time) error {
	c, err := f.statuses.await(ctx, m.Name, func(c *v1alpha1.HTTPBootConfig) bool { return tells(c, m, began) == nil })
	if err == nil {
		return nil
	}
	if c == nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return tells(c, m, began)
}

// live is the life of one machine: until starts ends it boots once in each cycle.
func (l *Load) live(ctx, starts context.Context, m *Machine) {
	pause(starts, rand.N(l.fleet.o.Cycle))
	for starts.Err() == nil {
		began := time.Now()
		l.boot(ctx, starts, m)
		pause(starts, time.Until(began.Add(l.fleet.o.Cycle)))
	}
}

// boot is one boot, from power-on until the status tells of it.
func (l *Load) boot(ctx, starts context.Context, m *Machine) {
	if err := l.fleet.arm(starts, m); err != nil {
		return // nothing was tried: nobody could open an attempt
	}
	before := l.current()
	pause(starts, post)
	if starts.Err() != nil {
		return
	}
	l.mu.Lock()
	began := time.Now()
	l.began[m.Name] = began
	l.mu.Unlock()
	b := l.fleet.boot(ctx, m, began)
	after := l.current()
	if b.err == nil {
		l.mu.Lock()
		l.last[m.Name] = began
		l.mu.Unlock()
		if err := l.fleet.toldSoon(ctx, m, began); err != nil {
			b.untold = fmt.Errorf("%s booted by replica %s, Ignition by %s: %w", time.Now().Format("15:04:05.000"), b.replica, b.ignitedBy, err)
		}
	}
	count(before, after, m, b)
}

func (f *Fleet) toldSoon(ctx context.Context, m *Machine, began time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	return f.told(ctx, m, began)
}

func (l *Load) current() *Phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phases[len(l.phases)-1]
}

// attempt is one boot and what came of it.
type attempt struct {
	err, untold error
	told        told
	// replica sent the image, ignitedBy the Ignition.
	replica, ignitedBy string
	again              int
}

// count adds a boot to the rougher one of the phases in which it began and ended.
func count(before, after *Phase, m *Machine, b attempt) {
	p := after
	if before.Rough > p.Rough {
		p = before
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.tally
	t.Again += b.again
	if b.err != nil {
		t.Failed = append(t.Failed, Failure{Machine: m, Replica: b.replica, Time: time.Now(), Err: b.err})
		return
	}
	t.Booted++
	if b.untold != nil {
		t.Untold = append(t.Untold, b.untold)
	}
	switch {
	case m.Policy == v1alpha1.BootPolicyOnce:
		t.Once++
		if before == after {
			t.OnceBegun++
		}
	case m.ByToken:
		t.ByToken++
		if b.told.by != b.replica {
			t.Crossed++
		}
		if b.told.key != 1 {
			t.NewKey++
		}
	}
}

func (m *Machine) kind() string {
	if m.ByToken {
		return "Always, by token"
	}
	return string(m.Policy)
}

// arm does what the controller of hosts does before it switches a machine on that is
// installed once: it asks for an attempt where the last one was used, and waits until
// it is open.
func (f *Fleet) arm(ctx context.Context, m *Machine) error {
	if m.Policy != v1alpha1.BootPolicyOnce {
		return nil
	}
	c, err := f.statuses.await(ctx, m.Name, func(*v1alpha1.HTTPBootConfig) bool { return true })
	if err != nil || unspent(c) {
		return err
	}
	changed := &v1alpha1.HTTPBootConfig{}
	changed.Namespace, changed.Name = f.namespace, m.Name
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.RequestBootAnnotation, fmt.Sprint("after attempt ", c.Status.Boot.Attempt))
	if err := f.client.Patch(ctx, changed, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		return fmt.Errorf("asking for a boot of %s: %w", m.Name, err)
	}
	_, err = f.statuses.await(ctx, m.Name, unspent)
	return err
}

func unspent(c *v1alpha1.HTTPBootConfig) bool {
	b := c.Status.Boot
	return b != nil && b.Attempt > 0 && (b.Served == nil || b.Served.Attempt < b.Attempt)
}

// WithoutAffinity sends each connection to another replica from now on, until the
// function that it returns is called; operating systems start slowly then.
func (f *Fleet) WithoutAffinity(ctx context.Context) (end func()) {
	const settled = 5 * time.Second // the longest boot of a machine and its operating system
	f.slow.Store(true)
	pause(ctx, settled)
	f.balancer.Affinity(false)
	return func() {
		f.balancer.Affinity(true)
		f.slow.Store(false)
	}
}

// boot is one boot of one machine.
func (f *Fleet) boot(ctx context.Context, m *Machine, began time.Time) (b attempt) {
	path := "/httpboot"
	if m.ByToken {
		if b.told, b.err = f.tell(ctx, m); b.err != nil {
			return b
		}
		path = b.told.path
	}
	if b.replica, b.err = f.load(ctx, m, path); b.err != nil {
		return b
	}
	if f.slow.Load() {
		f.startSlowly(ctx, m, began)
	}
	pause(ctx, startup)
	b.ignitedBy, b.again, b.err = f.ignite(ctx, m)
	return b
}

// startSlowly waits until the API server was told where the machine booted, which takes
// a fraction of the ten seconds and more that an operating system takes to start. Another
// replica then knows it too; before, a machine whose config lists no address is a
// stranger to it.
func (f *Fleet) startSlowly(ctx context.Context, m *Machine, began time.Time) {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	_, _ = f.statuses.await(ctx, m.Name, func(c *v1alpha1.HTTPBootConfig) bool { // Ignition tells what became of it
		b := c.Status.Boot
		st := stageOf(b, "UKI")
		return st != nil && st.Attempt == b.Attempt && st.CompletedTime != nil && !st.CompletedTime.Time.Before(began.Truncate(time.Microsecond))
	})
}
