package boot

import (
	"context"
	"fmt"
	"os"
	"time"
)

// verifiedPoll is how often a blob that is arriving is looked at.
const verifiedPoll = 20 * time.Millisecond

// Verified returns the file of a blob, which it waits for, at most for so long, while
// the blob is arriving. It returns ErrNotReady when it has not come by then.
func Verified(ctx context.Context, b Blob, wait time.Duration) (*os.File, error) {
	if f := b.File(); f != nil {
		return f, nil
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	poll := time.NewTicker(verifiedPoll)
	defer poll.Stop()
	for {
		select {
		case <-poll.C:
			if f := b.File(); f != nil {
				return f, nil
			}
		case <-deadline.C:
			return nil, fmt.Errorf("%w: it is still arriving, and nothing of it may be used before all of it was verified", ErrNotReady)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: waiting for the whole of it: %w", ErrNotReady, context.Cause(ctx))
		}
	}
}
