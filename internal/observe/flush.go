package observe

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// syncDelay is how long writes to the journal wait to be synced together.
	syncDelay = 20 * time.Millisecond
	// lastFlush bounds what is written while the process ends; the rest stays in
	// the journal.
	lastFlush = 5 * time.Second
	// idleAfter is when an object of which nothing happened is forgotten here.
	idleAfter = boot.AttemptLifetime
)

// Run writes pending reports until the context ends, then writes what it can in
// five more seconds. It returns nil. What could not be written stays in the
// journal for the next process.
func (o *Observer) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	for range o.opts.Workers {
		wg.Go(func() { o.work(work) })
	}
	wg.Go(func() { o.keep(work) })
	<-ctx.Done()
	o.drain()
	stop()
	o.queue.ShutDown()
	wg.Wait()
	return nil
}

// work writes objects from the queue until it is shut down.
func (o *Observer) work(ctx context.Context) {
	for {
		uid, shutdown := o.queue.Get()
		if shutdown {
			return
		}
		o.flush(ctx, uid)
		o.queue.Done(uid)
	}
}

// flush writes what is pending of one object, or queues it for later.
func (o *Observer) flush(ctx context.Context, uid string) {
	ref, pending := o.pendingRef(uid)
	if !pending {
		o.queue.Forget(uid)
		o.flushJournal()
		o.flushProgress(ctx, uid)
		return
	}
	if o.limiter.Wait(ctx) != nil {
		return // the process ends: the journal has it
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := o.update(ctx, ref, nil)
	switch {
	case err == nil:
		o.queue.Forget(uid)
		if _, more := o.pendingRef(uid); more {
			o.queue.AddAfter(uid, o.opts.Delay)
		}
	case errors.Is(err, boot.ErrNotFound):
		o.opts.Logger.Info("dropped reports of an object that is gone", "object", ref.String(), "uid", uid)
	default:
		o.metrics.flushErrors.Inc()
		if tries := o.queue.NumRequeues(uid); tries == 0 {
			o.opts.Logger.Info("could not write reports, will try again", "object", ref.String(), "error", err.Error())
		}
		o.queue.AddRateLimited(uid)
	}
}

// flushProgress writes how far an object's deliveries have come, if nobody has to
// wait for that. It may fail: the next progress is told in a moment.
func (o *Observer) flushProgress(ctx context.Context, uid string) {
	o.mu.Lock()
	e := o.entries[uid]
	has := e != nil && len(e.progress.Stages) > 0
	o.mu.Unlock()
	if !has || o.queue.Len() > progressQueue || !o.limiter.Allow() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := o.update(ctx, e.ref, nil); err != nil && !errors.Is(err, boot.ErrNotFound) {
		o.opts.Logger.V(1).Info("left out the progress of a delivery", "object", e.ref.String(), "error", err.Error())
	}
}

// pendingRef returns the object if something of it is pending. What was joined
// with another replica's attempt, as the cache told, is not pending any more.
func (o *Observer) pendingRef(uid string) (boot.Ref, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.entries[uid]
	if e == nil {
		return boot.Ref{}, false
	}
	e.progress.queued = false
	if e.pending.empty() {
		o.journal.done(e.ref)
		return e.ref, false
	}
	return e.ref, true
}

// keep syncs the journal and forgets idle objects until the context ends.
func (o *Observer) keep(ctx context.Context) {
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			o.syncJournal()
			return
		case <-sweep.C:
			o.sweep()
		case <-o.written:
			time.Sleep(syncDelay) // group commit
			o.syncJournal()
		}
	}
}

func (o *Observer) syncJournal() {
	if err := o.journal.sync(); err != nil {
		o.metrics.journalErrors.Inc()
		o.opts.Logger.Error(err, "could not sync the journal")
	}
}

// sweep forgets objects of which nothing is pending and nothing happened for
// longer than an attempt lives: the cache has long caught up.
func (o *Observer) sweep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for uid, e := range o.entries {
		if e.pending.empty() && o.opts.Clock.Since(e.touched) > idleAfter {
			delete(o.entries, uid)
		}
	}
}

// drain writes what is pending once more, by the workers' side.
func (o *Observer) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), lastFlush)
	defer cancel()
	o.mu.Lock()
	var refs []boot.Ref
	for _, e := range o.entries {
		if !e.pending.empty() {
			refs = append(refs, e.ref)
		}
	}
	o.mu.Unlock()
	failed := 0
	for i, ref := range refs {
		err := o.update(ctx, ref, nil)
		if err != nil && !errors.Is(err, boot.ErrNotFound) {
			failed++
		}
		if ctx.Err() != nil || failed > 3 {
			o.opts.Logger.Info("left reports in the journal", "objects", len(refs)-i)
			return
		}
	}
}
