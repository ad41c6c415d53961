package httpserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// resumeGrace is how long after its last byte a complete delivery may be
	// resumed: what the kernel took need not have reached the machine.
	resumeGrace = time.Minute
	// commitRetry is the pause between commits that did not reach the API server.
	commitRetry = 250 * time.Millisecond
	// progressEvery is how often a delivery that goes on is reported, abortEvery how
	// often it is looked whether somebody ended it.
	progressEvery = 5 * time.Second
	abortEvery    = time.Second
)

// delivery is the boot bytes of one attempt going to one address: in one
// response, or in several that each bring a range.
type delivery struct {
	plan     *boot.Plan
	attempt  boot.Attempt
	artifact boot.Artifact
	addr     netip.Addr
	proof    boot.Proof
	stage    boot.Stage
	// id names the delivery to the commit, so that one whose answer was lost is
	// known again.
	id string
	// committing is held by whoever commits.
	committing chan struct{}

	mu        sync.Mutex
	announced bool
	sent      spans
	tried     bool
	committed bool
	// settled is the attempt as the commit left it: it may have opened the next.
	settled boot.Attempt
	touched time.Time
	// ending says that a response is sending the held back end of a Once, ended
	// that one has sent it: only one response at a time may, and after it only
	// one that goes on with it.
	ending, ended bool
}

// deliver serves the boot bytes of a machine that is proven.
func (s *Server) deliver(x *exchange, id identity, p *boot.Plan, t target) error {
	if err := s.ended(p); err != nil {
		return err
	}
	if t.foreign() {
		return errForeign
	}
	if t.composed != nil {
		return s.deliverComposed(x, id, p)
	}
	g := &gate{s: s, x: x, plan: p, artifact: t.artifact, id: id, stage: boot.StageUKI}
	if x.head() {
		if err := g.peek(); err != nil {
			return err
		}
	}
	return s.serveBlob(x, t.artifact, noCache, g)
}

// gate opens a delivery when its first bytes are about to flow, holds back the
// end of one that says Once until it is committed, and reports what was sent.
type gate struct {
	s        *Server
	x        *exchange
	plan     *boot.Plan
	artifact boot.Artifact
	id       identity
	stage    boot.Stage
	// whole says that nothing may be sent before the commit, and that nothing is
	// ever resumed.
	whole bool
	// composed says that what is delivered is the plan's composed UKI.
	composed bool

	d *delivery
	// attempt is the one that the delivery belongs to, by its present number.
	attempt boot.Attempt
	commit  chan error
	cancel  context.CancelFunc
	// mac is the machine's network interface, where the client named it.
	mac boot.MAC
	// told is when the delivery's progress was reported last, looked when it was seen
	// last that nobody had aborted it.
	told, looked time.Time
	// resumed says that the response begins after the blob's first byte, ends
	// that it is the one that may send the held back end.
	resumed, ends bool
}

func (g *gate) once() bool { return g.plan.Policy == boot.Once }

// peek says to a HEAD what a GET would be told, without opening anything.
func (g *gate) peek() error {
	a := g.s.attempts.Current(g.plan)
	if !g.once() || !a.Spent {
		return nil
	}
	if d := g.s.deliveries.find(g.key()); d != nil && (!g.whole && d.goesOn(g.artifact, a, g.s.now()) || d.undecided(g.artifact)) {
		return nil
	}
	return boot.ErrSpent
}

func (g *gate) key() deliveryKey {
	return deliveryKey{object: g.plan.Object.UID, addr: g.x.peer.addr}
}

// open begins or goes on with the delivery that the bytes from start up to end
// belong to. It returns boot.ErrSpent, and boot.ErrUnavailable when the commit
// that has to come before the first of these bytes did not succeed in time.
func (g *gate) open(start, end int64) error {
	g.resumed = start > 0
	if err := g.begin(); err != nil {
		return err
	}
	return g.settle(start, end)
}

// settle commits a delivery that says Once, where its end is among the bytes
// that are sent, and waits for that where all of them are held back.
func (g *gate) settle(start, end int64) error {
	if !g.once() || end <= g.heldFrom() || !g.whole && g.d.isCommitted() {
		return nil
	}
	ctx, cancel := context.WithCancel(g.x.r.Context())
	g.cancel = cancel
	g.commit = make(chan error, 1)
	go func(d *delivery, result chan<- error) { result <- d.commitOnce(ctx, g.s.attempts) }(g.d, g.commit)
	if start < g.heldFrom() {
		return nil
	}
	if err := g.wait(); err != nil {
		return err
	}
	return g.claimEnd()
}

func (g *gate) begin() error {
	now := g.s.now()
	known := g.s.deliveries.find(g.key())
	current := g.s.attempts.Current(g.plan)
	if g.resumed && known != nil && known.goesOn(g.artifact, current, now) {
		g.begun(known, current)
		return nil
	}
	if err := g.fits(); err != nil {
		return err
	}
	a, err := g.s.attempts.Begin(g.plan, g.id.client(g.x.peer))
	if errors.Is(err, boot.ErrSpent) && known != nil && known.undecided(g.artifact) {
		// It may be spent by this very delivery: the commit will tell.
		g.begun(known, current)
		return nil
	}
	if err == nil && g.composed && !composedFor(g.plan, a.Number) {
		err = errComposing(a.Number) // another boot was faster
	}
	if err != nil {
		return fmt.Errorf("beginning the delivery to %s: %w", g.plan.Object, err)
	}
	g.begun(g.s.deliveries.start(g.key(), &delivery{
		plan: g.plan, attempt: a, artifact: g.artifact, addr: g.x.peer.addr, proof: g.id.proof, stage: g.stage,
		id: rand.Text(), committing: make(chan struct{}, 1), touched: now,
	}, now), a)
	return nil
}

// begun binds the client's address to the attempt, and reports the delivery
// where its bytes take time: the machine may ask another replica for its secret
// before the last one left.
func (g *gate) begun(d *delivery, a boot.Attempt) {
	now := g.s.now()
	g.d, g.attempt, g.told, g.looked = d, a, now, now
	g.s.bind(g.x, g.id, g.plan)
	if !g.whole && d.announce() {
		g.observe(false, true, now)
	}
}

func (g *gate) observe(complete, underWay bool, now time.Time) {
	g.s.attempts.Observe(boot.Observation{
		Object: g.plan.Object, Attempt: g.d.attempt.Number, Stage: g.stage, Complete: complete, UnderWay: underWay,
		Addr: g.x.peer.addr, Proof: g.id.proof, Digest: g.artifact.Digest, Time: now,
		Sent: g.d.sentBytes(), Size: g.artifact.Size, MAC: g.mac,
	})
}

// progress reports now and then how much of a response was sent. It returns errEnded
// when somebody has aborted the attempt meanwhile.
func (g *gate) progress(start, sent int64) error {
	now := g.s.now()
	if now.Sub(g.looked) >= abortEvery {
		g.looked = now
		if g.aborted() {
			return errEnded
		}
	}
	if now.Sub(g.told) >= progressEvery {
		g.told = now
		g.d.add(start, start+sent, now)
		g.observe(false, true, now)
	}
	return nil
}

// aborted says whether the attempt that bytes are flowing in was aborted.
func (g *gate) aborted() bool {
	p, err := g.s.source.ByObject(g.plan.Object.UID)
	if err != nil {
		return false // what has begun goes on
	}
	a := g.s.attempts.Current(p)
	return a.Aborted && g.d.belongsTo(a)
}

// hold returns how many of the next n bytes from pos on may be sent. It waits
// for the commit where they are the held back ones, of which there is one
// sender at a time.
func (g *gate) hold(pos, n int64) (int64, error) {
	if !g.once() {
		return n, nil
	}
	if from := g.heldFrom(); pos < from {
		return min(n, from-pos), nil
	}
	if g.commit != nil {
		if err := g.wait(); err != nil {
			return n, err
		}
	}
	return n, g.claimEnd()
}

// claimEnd makes this response the one that sends the held back end. It returns
// boot.ErrSpent while another does, and after another did: a machine that asked
// twice at once is given one image.
func (g *gate) claimEnd() error {
	if g.ends {
		return nil
	}
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	if g.d.ending || g.d.ended && !g.resumed {
		return boot.ErrSpent
	}
	g.d.ending, g.ends = true, true
	return nil
}

// wait waits for the commit that was started.
func (g *gate) wait() error {
	timeout := time.NewTimer(g.s.commitWait)
	defer timeout.Stop()
	select {
	case err := <-g.commit:
		if err == nil {
			g.commit = nil
		} else {
			g.commit <- err
		}
		return err
	case <-timeout.C:
		return fmt.Errorf("committing the delivery to %s: %w: no answer within %s", g.plan.Object, boot.ErrUnavailable, g.s.commitWait)
	case <-g.x.r.Context().Done():
		return fmt.Errorf("committing the delivery to %s: %w", g.plan.Object, g.x.r.Context().Err())
	}
}

// close reports what was sent of a response that has length bytes from start on, if
// anything began. Where a blob is fetched in several ranges the delivery goes on
// after each of them.
func (g *gate) close(start, sent, length int64, began bool) {
	if g.cancel != nil {
		g.cancel()
	}
	if g.ends {
		g.d.mark(func() {
			g.d.ending = false
			g.d.ended = g.d.ended || start+sent == g.artifact.Size
		})
	}
	if g.d == nil || !began {
		return
	}
	now := g.s.now()
	complete := g.d.add(start, start+sent, now)
	g.observe(complete, !complete && sent == length, now)
	g.s.record(g.x, g.plan, g.d.number(), spanOf[g.stage], cutShort(sent, length), "digest", string(g.artifact.Digest), "proof", g.id.proof.String())
}

// heldFrom is where the bytes begin that wait for a commit.
func (g *gate) heldFrom() int64 {
	if g.whole {
		return 0
	}
	return max(0, g.artifact.Size-boot.HeldBack)
}

// commitOnce commits the delivery, whoever of its responses comes first; it
// tries again for as long as bytes flow and the API server is out of reach.
func (d *delivery) commitOnce(ctx context.Context, attempts boot.Attempts) error {
	select {
	case d.committing <- struct{}{}:
		defer func() { <-d.committing }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", boot.ErrUnavailable, ctx.Err())
	}
	for {
		if d.isCommitted() {
			return nil
		}
		d.mark(func() { d.tried = true })
		err := attempts.Commit(ctx, d.plan, d.attempt, d.artifact.Digest, d.addr, d.id)
		if err == nil {
			settled := attempts.Current(d.plan)
			d.mark(func() { d.committed, d.settled = true, settled })
			return nil
		}
		err = fmt.Errorf("committing the delivery to %s: %w", d.plan.Object, err)
		if !errors.Is(err, boot.ErrUnavailable) {
			d.mark(func() { d.tried = false }) // decided: another delivery was first
			return err
		}
		select {
		case <-time.After(commitRetry):
		case <-ctx.Done():
			return err
		}
	}
}

func (d *delivery) mark(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

func (d *delivery) isCommitted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.committed
}

// announce says whether the delivery was not reported yet.
func (d *delivery) announce() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.announced
	d.announced = true
	return first
}

// settledAttempt is the attempt that the commit left, if there was one.
func (d *delivery) settledAttempt() (boot.Attempt, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settled, d.committed
}

// number is the attempt's, as the commit left it.
func (d *delivery) number() int64 {
	if settled, ok := d.settledAttempt(); ok && settled.Number > 0 {
		return settled.Number
	}
	return d.attempt.Number
}

// belongsTo says whether an attempt is the delivery's.
func (d *delivery) belongsTo(a boot.Attempt) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.isOf(d.artifact, a)
}

// sentBytes is how many bytes of the blob were sent, each counted once.
func (d *delivery) sentBytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent.total()
}

// add notes sent bytes and says whether the delivery is now complete.
func (d *delivery) add(start, end int64, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent.add(start, end)
	d.touched = now
	return d.sent.covers(d.artifact.Size)
}

// goesOn says whether a range of this artifact still belongs to the delivery:
// its attempt is the current one, and something may be missing at the machine.
func (d *delivery) goesOn(a boot.Artifact, current boot.Attempt, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.isOf(a, current) || now.Sub(d.touched) > boot.AttemptLifetime {
		return false
	}
	if d.plan.Policy == boot.Once && !d.committed {
		return false // nothing is settled: begin and commit as ever
	}
	return !d.sent.covers(d.artifact.Size) || now.Sub(d.touched) <= resumeGrace
}

// isOf says whether the delivery is of this artifact in this attempt. An attempt
// that was opened here can get another number when it is written.
func (d *delivery) isOf(a boot.Artifact, at boot.Attempt) bool {
	renumbered := !at.OpenedAt.IsZero() && at.OpenedAt.Equal(d.attempt.OpenedAt)
	same := at.Number == d.attempt.Number || renumbered || d.committed && at.Number == d.settled.Number
	return same && d.artifact.Digest == a.Digest
}

func (d *delivery) sameAs(other *delivery) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.isOf(other.artifact, other.attempt)
}

// undecided says whether a commit of this delivery was tried and its answer
// never came.
func (d *delivery) undecided(a boot.Artifact) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.artifact.Digest == a.Digest && d.tried && !d.committed
}

// fields describes a response for the log.
func (d *delivery) fields(x *exchange, now time.Time, suppressed int) []any {
	f := []any{"boot", boot.NewID(d.plan.Object.UID, d.number()).String(), "client", x.peer.addr.String(), "object", d.plan.Object.String(), "attempt", d.number(),
		"proof", d.proof.String(), "code", x.code, "bytes", x.bytes, "duration", now.Sub(x.start).Round(time.Millisecond).String()}
	if x.err != nil {
		f = append(f, "reason", x.reason(), "error", clip(x.err.Error(), 200))
	}
	if suppressed > 0 {
		f = append(f, "suppressed", suppressed)
	}
	return f
}

// deliveries are those that may go on, at most one for each object and address.
type deliveries struct {
	mu    sync.Mutex
	known map[deliveryKey]*delivery
	swept time.Time
}

type deliveryKey struct {
	object string
	addr   netip.Addr
}

func (t *deliveries) find(k deliveryKey) *delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known[k]
}

// start keeps a new delivery, or returns the known one where it is for the same
// attempt and artifact.
func (t *deliveries) start(k deliveryKey, d *delivery, now time.Time) *delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil {
		t.known = make(map[deliveryKey]*delivery)
	}
	if old := t.known[k]; old != nil && old.sameAs(d) {
		return old
	}
	t.sweep(now)
	t.known[k] = d
	return d
}

// sweep forgets deliveries that nobody can resume any more.
func (t *deliveries) sweep(now time.Time) {
	if now.Sub(t.swept) < time.Minute {
		return
	}
	t.swept = now
	for k, d := range t.known {
		d.mu.Lock()
		old := now.Sub(d.touched) > boot.AttemptLifetime
		d.mu.Unlock()
		if old {
			delete(t.known, k)
		}
	}
}

// carriesBlob says whether a code starts an answer that carries the blob.
func carriesBlob(code int) bool {
	return code == http.StatusOK || code == http.StatusPartialContent
}
