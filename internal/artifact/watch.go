package artifact

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errStalled: a registry sent nothing, or next to nothing, for too long.
var errStalled = errors.New("the registry sends too slowly")

// watch cancels a transfer that advances at less than leastRate for the length
// of a window; one that takes long in total is fine. stop ends the watch.
func watch(ctx context.Context, window time.Duration, progress func() int64) (_ context.Context, stop func()) {
	least := max(1, int64(window.Seconds()*leastRate))
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		t := time.NewTicker(window)
		defer t.Stop()
		last := progress()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-t.C:
				now := progress()
				if now-last < least {
					cancel(fmt.Errorf("%w: %d bytes in %s", errStalled, now-last, window))
					return
				}
				last = now
			}
		}
	}()
	return ctx, func() { close(done); cancel(nil) }
}
