package tracing

import (
	"context"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// enqueuer puts spans that ended into the queue, or drops them.
type enqueuer struct{ t *Tracer }

// OnStart implements sdk.SpanProcessor.
func (enqueuer) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor. It never waits.
func (e enqueuer) OnEnd(s sdk.ReadOnlySpan) {
	e.t.mu.RLock()
	defer e.t.mu.RUnlock()
	if e.t.closed {
		e.t.metrics.dropped.Inc()
		return
	}
	select {
	case e.t.queue <- s:
	default:
		e.t.metrics.dropped.Inc()
	}
}

// Shutdown implements sdk.SpanProcessor; the tracer's own does the work.
func (enqueuer) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.SpanProcessor.
func (enqueuer) ForceFlush(context.Context) error { return nil }

// run sends batches until the queue is closed and empty.
func (t *Tracer) run() {
	defer close(t.done)
	for {
		first, ok := <-t.queue
		if !ok {
			return
		}
		t.export(t.fill([]sdk.ReadOnlySpan{first}))
	}
}

// fill adds to a batch what comes soon.
func (t *Tracer) fill(batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	timer := time.NewTimer(batchDelay)
	defer timer.Stop()
	for len(batch) < batchSize {
		select {
		case s, ok := <-t.queue:
			if !ok {
				return batch
			}
			batch = append(batch, s)
		case <-timer.C:
			return batch
		}
	}
	return batch
}

// export sends a batch. The log has one line where trouble begins, and one where it
// ends.
func (t *Tracer) export(batch []sdk.ReadOnlySpan) {
	err := t.exporter.ExportSpans(t.life, batch)
	if err != nil {
		t.metrics.failed.Add(float64(len(batch)))
		if !t.failing {
			t.log.Info("the collector of traces did not take spans; they are lost, and boots go on", "spans", len(batch), "error", text(err.Error()))
		}
		t.failing = true
		return
	}
	t.metrics.exported.Add(float64(len(batch)))
	if t.failing {
		t.log.Info("the collector of traces takes spans again")
	}
	t.failing = false
}
