// Package observe is the one way back from serving to the API: it turns what
// the servers saw of a machine's boot into status.boot, except for its field
// armed, and the conditions UKIFetched, IPXEScriptFetched, IgnitionDataFetched,
// CloudInitDataFetched, ClientAddressAmbiguous and ForeignBootOffer, of which it
// is the only writer, and consumes the one delivery of a bootPolicy of Once.
//
// Any number of replicas write as one field manager. Every apply carries the
// complete set of fields that this manager owns, rebuilt from a live read and
// guarded by its resourceVersion: an apply that carried less would delete the
// rest, one without the guard would undo what another replica wrote in between.
package observe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// FieldManager is the name under which every replica writes.
const FieldManager = "boot-operator-observer"

const (
	// refreshTimeout bounds a Refresh.
	refreshTimeout = 2 * time.Second
	// writeTimeout bounds a Commit or an Open whose context has no deadline, and
	// every write in the background.
	writeTimeout = 10 * time.Second
	// commitTry bounds one try of a Commit.
	commitTry = 2 * time.Second
	// maxDelivery is the length of status.boot.served.delivery.
	maxDelivery = 64
)

// Recorder records events, as client-go's record.EventRecorder does.
type Recorder interface {
	Event(object runtime.Object, eventtype, reason, message string)
}

// Options of an Observer. Client, Reader and Dir are required.
type Options struct {
	// Client writes statuses. It should have a rate limit of its own (or none):
	// a Commit must not queue behind other writes.
	Client client.Client
	// Reader reads objects from the API server itself, not from a cache.
	Reader client.Reader
	// Dir holds the journal of reports that are not written yet. It belongs to
	// one process at a time.
	Dir string
	// Clock defaults to the real one.
	Clock clock.PassiveClock
	// Recorder may be nil.
	Recorder Recorder
	Logger   logr.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
	// Spans takes the spans of boots as they end. Default: none.
	Spans boot.Spans
	// Delay is how long a report waits for others of the same object. It
	// defaults to 75 ms.
	Delay time.Duration
	// QPS is how many objects are written per second in the background, at
	// most. It defaults to 100. Commits do not count.
	QPS float64
	// Workers is how many objects are written at once. It defaults to 8.
	Workers int
	// MaxBackoff is the longest time between two tries to write one object. It
	// defaults to 10 s.
	MaxBackoff time.Duration
}

func (o *Options) complete() error {
	if o.Client == nil || o.Reader == nil || o.Dir == "" {
		return fmt.Errorf("%w: the observer needs a client, a reader and a directory", boot.ErrInvalid)
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Spans == nil {
		o.Spans = boot.NoSpans{}
	}
	if o.Delay <= 0 {
		o.Delay = 75 * time.Millisecond
	}
	if o.QPS <= 0 {
		o.QPS = 100
	}
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = 10 * time.Second
	}
	return nil
}

// Observer implements boot.Attempts.
type Observer struct {
	opts Options

	metrics *metrics
	journal *journal
	queue   workqueue.TypedRateLimitingInterface[string]
	limiter *rate.Limiter
	reads   singleflight.Group
	written chan struct{} // something may need to be synced
	// diskless says that the journal could not be written the last time.
	diskless atomic.Bool

	mu      sync.Mutex
	entries map[string]*entry // by UID of the object
}

var _ boot.Attempts = (*Observer)(nil)

// New opens the journal and takes up what an earlier process left in it. It
// returns boot.ErrInvalid for options that cannot be right. Nothing is written
// to the API server in the background until Run is called.
func New(o Options) (*Observer, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	j, records, err := openJournal(o.Dir, o.Logger)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer, j.pending)
	if err != nil {
		return nil, errors.Join(err, j.close())
	}
	backoff := workqueue.NewTypedItemExponentialFailureRateLimiter[string](o.Delay, o.MaxBackoff)
	obs := &Observer{
		opts: o, metrics: m, journal: j, entries: map[string]*entry{},
		queue:   workqueue.NewTypedRateLimitingQueue(backoff),
		limiter: rate.NewLimiter(rate.Limit(o.QPS), max(1, int(o.QPS))),
		written: make(chan struct{}, 1),
	}
	for _, r := range records {
		e := restore(r.Ref, *r.Report)
		e.touched = o.Clock.Now()
		obs.entries[r.Ref.UID] = e
		obs.queue.Add(r.Ref.UID)
	}
	if len(records) > 0 {
		o.Logger.Info("took up reports of an earlier process", "objects", len(records))
	}
	return obs, nil
}

// Close writes the journal and gives its directory free. Reports that come
// later are kept in memory only.
func (o *Observer) Close() error {
	o.queue.ShutDown()
	return o.journal.close()
}

// entry returns the entry of an object, made if there is none. It is called
// under the lock.
func (o *Observer) entry(ref boot.Ref) *entry {
	e := o.entries[ref.UID]
	if e == nil {
		e = &entry{ref: ref}
		o.entries[ref.UID] = e
	}
	e.touched = o.opts.Clock.Now()
	return e
}

// Current implements boot.Attempts.
func (o *Observer) Current(p *boot.Plan) boot.Attempt {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries[p.Object.UID]
	if e == nil {
		return p.Attempt
	}
	return e.learn(p.Attempt, p.Policy)
}

// Coming implements boot.Attempts. For a plan that says Once it is the attempt
// that Commit would consume.
func (o *Observer) Coming(p *boot.Plan) (boot.Attempt, error) {
	now, cur := o.opts.Clock.Now(), o.Current(p)
	if cur.Aborted {
		return cur, errAborted(cur)
	}
	if p.Policy == boot.Once {
		a, err := beginOnce(cur, now)
		if err == nil && a.Number != cur.Number {
			a = boot.Attempt{Number: a.Number}
		}
		return a, err
	}
	if awaits(cur, now) {
		return cur, nil
	}
	return boot.Attempt{Number: cur.Number + 1}, nil
}

// ComingOf is Coming for a config, which may be from a cache, with the time until
// which it stands if nobody boots; that is zero where nothing but a boot or a
// request changes it.
func (o *Observer) ComingOf(cfg v1alpha1.Config) (attempt int64, until time.Time, err error) {
	p := &boot.Plan{Object: refOf(cfg), Attempt: claim.Attempt(cfg), Policy: boot.Policy(cfg.Common().BootPolicy)}
	a, err := o.Coming(p)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("finding the coming boot attempt of %s: %w", p.Object, err)
	}
	if !a.OpenedAt.IsZero() {
		until = a.OpenedAt.Add(boot.AttemptLifetime - bootMargin)
	}
	return a.Number, until, nil
}

// Begin implements boot.Attempts. For a plan that says Once it returns the
// attempt that Commit will consume: the next one, which exists only once it is
// committed, where the present one is unspent but has less than ten minutes
// left. It returns boot.ErrNotReady when no attempt of such a plan was ever
// opened, and of any plan boot.ErrClosed when the present attempt was aborted.
//
// Who has a token of the present attempt boots in it, even where it is closed:
// firmware asks again for what it was told. Only then it may not be given
// secrets any more.
func (o *Observer) Begin(p *boot.Plan, c boot.Client) (boot.Attempt, error) {
	now := o.opts.Clock.Now()
	o.mu.Lock()
	e := o.entry(p.Object)
	cur := e.learn(p.Attempt, p.Policy)
	if cur.Aborted {
		o.mu.Unlock()
		return cur, errAborted(cur)
	}
	if p.Policy == boot.Once {
		o.mu.Unlock()
		return beginOnce(cur, now)
	}
	if awaits(cur, now) || (c.Attempt > 0 && c.Attempt == cur.Number) {
		o.mu.Unlock()
		return cur, nil
	}
	cur = e.open(c, now)
	o.journal.put(e.ref, e.pending)
	o.mu.Unlock()
	o.persist(p.Object.UID)
	return cur, nil
}

// awaits says whether a boot that begins now belongs to this attempt.
func awaits(a boot.Attempt, now time.Time) bool {
	return waits(a) && a.Open(now) && !lapsing(a, now)
}

// waits says whether an attempt still waits for its boot bytes. Where its secret
// was fetched it closes soon: what boots now is another boot.
func waits(a boot.Attempt) bool {
	return a.Number > 0 && a.BootServedAt.IsZero() && a.SecretServedAt.IsZero() && !a.Spent
}

func beginOnce(cur boot.Attempt, now time.Time) (boot.Attempt, error) {
	switch {
	case cur.Number == 0:
		return boot.Attempt{}, fmt.Errorf("%w: no boot attempt was opened yet", boot.ErrNotReady)
	case cur.Spent:
		return cur, boot.ErrSpent
	case rearms(cur, now):
		return boot.Attempt{Number: cur.Number + 1, OpenedAt: micro(now).Time}, nil
	}
	return cur, nil
}

// Observe implements boot.Attempts. When it returns, what is new of it is in
// the hands of the kernel and outlives this process. An observation that says
// nothing new costs no I/O.
func (o *Observer) Observe(seen boot.Observation) {
	if newConfig(seen.Object.Kind) == nil || seen.Object.UID == "" {
		o.opts.Logger.Info("dropped a report of an unknown kind of object", "object", seen.Object.String())
		return
	}
	o.mu.Lock()
	e := o.entry(seen.Object)
	changed := e.add(seen)
	var wait time.Duration
	progress := false
	if changed {
		o.journal.put(e.ref, e.pending)
	} else {
		wait, progress = e.progress.due(o.opts.Clock.Now())
	}
	o.mu.Unlock()
	switch {
	case changed:
		o.persist(seen.Object.UID)
	case progress:
		o.queue.AddAfter(seen.Object.UID, wait)
	}
}

// persist hands the journal to the kernel and queues the object.
func (o *Observer) persist(uid string) {
	o.flushJournal()
	o.queue.AddAfter(uid, o.opts.Delay)
}

func (o *Observer) flushJournal() {
	if err := o.journal.flush(); err != nil {
		o.metrics.journalErrors.Inc()
		if !o.diskless.Swap(true) {
			o.opts.Logger.Error(err, "could not write the journal, keeping reports in memory only")
		}
		return
	}
	if o.diskless.Swap(false) {
		o.opts.Logger.Info("wrote the journal again")
	}
	select {
	case o.written <- struct{}{}:
	default:
	}
}

// Refresh implements boot.Attempts. It returns boot.ErrNotFound when the object
// is gone.
func (o *Observer) Refresh(ctx context.Context, p *boot.Plan) (boot.Attempt, error) {
	result := o.reads.DoChan(p.Object.UID, func() (any, error) {
		// The read is shared, so it does not end with its first caller.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshTimeout)
		defer cancel()
		live, err := o.read(ctx, p.Object)
		if err != nil {
			return boot.Attempt{}, err
		}
		return o.learned(p.Object, stateOf(live)), nil
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return boot.Attempt{}, fmt.Errorf("reading boot attempt of %s: %w", p.Object, r.Err)
		}
		return r.Val.(boot.Attempt), nil //nolint:forcetypeassert // from above
	case <-ctx.Done():
		return boot.Attempt{}, fmt.Errorf("%w: reading boot attempt of %s: %w", boot.ErrUnavailable, p.Object, ctx.Err())
	}
}

// learned takes in a live state.
func (o *Observer) learned(ref boot.Ref, live *state) boot.Attempt {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entry(ref)
	e.written = live.boot().Stages
	return e.learn(live.attempt(), live.policy())
}

// Commit implements boot.Attempts. It returns boot.ErrInvalid for a delivery
// that is empty or longer than 64 bytes, boot.ErrNotFound when the object is
// gone or another of its name took its place, boot.ErrNotReady when it has no
// attempt, and boot.ErrClosed when the control plane opened another attempt
// since this delivery began: what is on its way may be of an older spec; or when the
// attempt was aborted.
//
// After boot.ErrUnavailable the commit may still come about. Calling again with
// the same delivery tells, and makes up for a lost answer.
func (o *Observer) Commit(ctx context.Context, p *boot.Plan, a boot.Attempt, d boot.Digest, addr netip.Addr, delivery string) error {
	if delivery == "" || len(delivery) > maxDelivery {
		return fmt.Errorf("%w: a delivery is identified by 1 to %d bytes, not %d", boot.ErrInvalid, maxDelivery, len(delivery))
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	c := commitment{attempt: a, digest: d, addr: addr, delivery: delivery}
	err := o.commit(ctx, p.Object, c)
	o.metrics.commits.WithLabelValues(commitResult(err)).Inc()
	if err != nil {
		return fmt.Errorf("committing delivery of %s: %w", p.Object, err)
	}
	return nil
}

// commit tries until the context ends: an answer that was lost is found by the
// next read.
func (o *Observer) commit(ctx context.Context, ref boot.Ref, c commitment) error {
	var number int64
	change := func(s *state, now time.Time) error {
		err := s.commit(c, now)
		if err == nil {
			number = s.boot().Served.Attempt
		}
		return err
	}
	for try := 0; ; try++ {
		err := o.tryCommit(ctx, ref, change)
		if err == nil {
			o.committed(ref, c.attempt.Number, number)
			return nil
		}
		if !errors.Is(err, boot.ErrUnavailable) || !pause(ctx, try) {
			return err
		}
	}
}

// tryCommit bounds one try, by half of the time that is left, so that there is
// time to find out what became of it when no answer comes.
func (o *Observer) tryCommit(ctx context.Context, ref boot.Ref, change change) error {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, max(min(time.Until(deadline)/2, commitTry), 50*time.Millisecond))
	defer cancel()
	return o.update(ctx, ref, change)
}

// committed makes what is observed of this delivery count for the attempt that
// it consumed.
func (o *Observer) committed(ref boot.Ref, asked, got int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.entry(ref).alias(asked, got)
}

func commitResult(err error) string {
	switch {
	case err == nil:
		return "committed"
	case errors.Is(err, boot.ErrSpent):
		return "spent"
	case errors.Is(err, boot.ErrClosed):
		return "closed"
	case errors.Is(err, boot.ErrUnavailable):
		return "unavailable"
	}
	return "other"
}

// Open opens a new attempt when the spec of cfg or its annotation
// boot.ironcore.dev/request-boot asks for one that was not opened yet, and aborts the
// present one when the annotation boot.ironcore.dev/abort-boot asks for that. cfg may
// be from a cache: what counts is read again. It does nothing for an object
// that is paused or gone, and returns boot.ErrUnavailable when the API server is.
func (o *Observer) Open(ctx context.Context, cfg v1alpha1.Config) error {
	if !asksForAttempt(cfg) || cfg.GetDeletionTimestamp() != nil || paused(cfg) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := o.update(ctx, refOf(cfg), func(s *state, now time.Time) error {
		if !paused(s.cfg) {
			s.openForSpec(now)
			s.abortIfAsked(now)
		}
		return nil
	})
	if err != nil && !errors.Is(err, boot.ErrNotFound) {
		return fmt.Errorf("opening boot attempt: %w", err)
	}
	return nil
}
