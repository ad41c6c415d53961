package prefetch

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// urgentSlots is how many pulls that a machine is waiting for run besides
	// the others.
	urgentSlots = 2
	firstDelay  = time.Second
	maxDelay    = 5 * time.Minute
	// hurryPause is how often machines that ask can make us try again what
	// failed.
	hurryPause = 5 * time.Second
)

// state is where a wanted blob stands.
type state int

const (
	queued state = iota
	running
	waiting // for its delay after a failure
	pulled
)

// want is a blob that statuses name.
type want struct {
	digest boot.Digest
	// ways counts the configs that name it in each way; tried are those that
	// failed since all had their turn.
	ways  map[way]int
	tried map[way]struct{}
	state state
	// urgent: a machine is asking for it.
	urgent bool
	// boots are those that wait for it, some of them if they are many.
	boots    []awaiting
	failures int
	lastTry  time.Time
	timer    clock.Timer
	cancel   context.CancelFunc
}

// pulls brings wanted blobs into the store, a few at a time, those first that a
// machine is asking for.
type pulls struct {
	store       Store
	credentials func(ctx context.Context, w way) (artifact.Credentials, error)
	concurrency int
	clock       clock.WithDelayedExecution
	logger      logr.Logger
	metrics     *metrics
	spans       boot.Spans

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // the life of Run, set by start
	wants   map[boot.Digest]*want
	queue   []*want
	hurried []*want
	running int
	group   sync.WaitGroup
	// first holds what was wanted at the start and has not had its turn.
	first   map[boot.Digest]struct{}
	started bool
}

func newPulls(o Options) *pulls {
	return &pulls{
		store: o.Store, credentials: pullSecrets{o.Reader, o.Credentials}.read, concurrency: o.Concurrency,
		clock: o.Clock, logger: o.Logger, spans: o.Spans, wants: map[boot.Digest]*want{}, first: map[boot.Digest]struct{}{},
	}
}

// start begins to pull; what is wanted now counts for readiness.
func (p *pulls) start(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx, p.started = ctx, true
	for d := range p.wants {
		p.first[d] = struct{}{}
	}
	p.dispatch()
}

// wait returns after the last pull ended.
func (p *pulls) wait() {
	p.mu.Lock()
	for _, w := range p.wants {
		w.stop()
	}
	p.mu.Unlock()
	p.group.Wait()
}

// initial says how many blobs readiness waits for, and names one.
func (p *pulls) initial() (left int, example boot.Digest, started bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d := range p.first {
		example = d
		break
	}
	return len(p.first), example, p.started
}

// missing counts the wanted blobs that are not in the store yet.
func (p *pulls) missing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, w := range p.wants {
		if w.state != pulled {
			n++
		}
	}
	return n
}

// replace takes in that a config names other blobs, or names them otherwise.
func (p *pulls) replace(before, after []way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, y := range after {
		p.add(y)
	}
	for _, y := range before {
		p.remove(y)
	}
	p.dispatch()
}

func (p *pulls) add(y way) {
	w := p.wants[y.artifact.Digest]
	if w == nil {
		w = &want{digest: y.artifact.Digest, ways: map[way]int{}, tried: map[way]struct{}{}}
		p.wants[w.digest] = w
		p.enqueue(w)
	}
	w.ways[y]++
	if w.ways[y] == 1 && w.state == waiting && p.clock.Since(w.lastTry) >= hurryPause {
		p.enqueue(w) // perhaps this one has the right credentials
	}
}

func (p *pulls) remove(y way) {
	w := p.wants[y.artifact.Digest]
	if w == nil {
		return
	}
	w.ways[y]--
	if w.ways[y] > 0 {
		return
	}
	delete(w.ways, y)
	delete(w.tried, y)
	if len(w.ways) == 0 {
		w.stop()
		delete(p.wants, w.digest)
		delete(p.first, w.digest)
	}
}

// stop ends what a want has under way.
func (w *want) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.cancel != nil {
		w.cancel()
	}
}

// hurry puts a blob first because a machine asks for it. It returns false when
// no status names the blob.
func (p *pulls) hurry(d boot.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wants[d]
	if w == nil {
		return false
	}
	again := w.state == waiting && p.clock.Since(w.lastTry) >= hurryPause
	lost := w.state == pulled && !p.store.Has(d)
	if again || lost || (w.state == queued && !w.urgent) {
		w.urgent = true
		p.enqueue(w)
		p.dispatch()
	}
	return true
}

// recheck pulls again what the store has lost.
func (p *pulls) recheck() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.wants {
		if w.state == pulled && !p.store.Has(w.digest) {
			p.logger.Info("artifact vanished from the store", "digest", w.digest)
			p.enqueue(w)
		}
	}
	p.dispatch()
}

func (p *pulls) enqueue(w *want) {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	w.state = queued
	if w.urgent {
		p.hurried = append(p.hurried, w)
		return
	}
	p.queue = append(p.queue, w)
}

// dispatch starts as many pulls as may run. p.mu is held.
func (p *pulls) dispatch() {
	for p.started && p.ctx.Err() == nil {
		w := p.next()
		if w == nil {
			return
		}
		p.launch(w)
	}
}

// next takes a want off the queues. A want may be in them several times, or
// not be wanted any more.
func (p *pulls) next() *want {
	take := func(q *[]*want, limit int) *want {
		for len(*q) > 0 && p.running < limit {
			w := (*q)[0]
			(*q)[0] = nil
			*q = (*q)[1:]
			if w.state == queued && p.wants[w.digest] == w {
				return w
			}
		}
		return nil
	}
	if w := take(&p.hurried, p.concurrency+urgentSlots); w != nil {
		return w
	}
	return take(&p.queue, p.concurrency)
}

func (p *pulls) launch(w *want) {
	y := w.pick()
	ctx, cancel := context.WithCancel(p.ctx)
	w.state, w.cancel, w.lastTry = running, cancel, p.clock.Now()
	p.running++
	p.group.Go(func() {
		defer cancel()
		err := p.pull(ctx, y)
		p.ended(ctx, w, y, err)
	})
}

// pick chooses a way that was not tried yet; when all were, any.
func (w *want) pick() way {
	var last way
	for y := range w.ways {
		if _, tried := w.tried[y]; !tried {
			return y
		}
		last = y
	}
	clear(w.tried)
	return last
}

func (p *pulls) pull(ctx context.Context, y way) error {
	credentials, err := p.credentials(ctx, y)
	if err != nil {
		return err
	}
	return p.store.Pull(ctx, y.artifact, credentials)
}

// ended takes in the end of a pull and starts what comes next.
func (p *pulls) ended(ctx context.Context, w *want, y way, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	defer p.dispatch()
	if p.wants[w.digest] != w || (err != nil && ctx.Err() != nil) {
		return // nobody wants it any more, or we are leaving
	}
	delete(p.first, w.digest)
	p.metrics.pulled(err)
	p.record(w, y, err)
	w.cancel, w.urgent = nil, false
	if err == nil {
		w.state, w.failures = pulled, 0
		clear(w.tried)
		return
	}
	w.tried[y] = struct{}{}
	w.failures++
	delay := w.delay(err)
	w.state = waiting
	w.timer = p.clock.AfterFunc(delay, func() { go p.due(w) }) // a clock may call it with its own lock held
	p.logger.Info("artifact not pulled", "digest", w.digest, "source", y.artifact.Source, "reason", err.Error(), "retryAfter", delay.String())
}

// due ends the delay of a want.
func (p *pulls) due(w *want) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == waiting && p.wants[w.digest] == w {
		p.enqueue(w)
		p.dispatch()
	}
}

// delay doubles from a second to 5 minutes. What cannot succeed in this way is
// tried in another one soon, and then seldom.
func (w *want) delay(err error) time.Duration {
	if artifact.Terminal(err) && len(w.tried) >= len(w.ways) {
		return maxDelay
	}
	return min(firstDelay<<min(w.failures-1, 16), maxDelay)
}
