package httpserver

import (
	"sync"
	"time"
)

// logWindow is the window of the log limiters.
const logWindow = 10 * time.Second

// limiter lets burst lines through in each window, so that strangers cannot
// flood the log.
type limiter struct {
	burst  int
	window time.Duration

	mu         sync.Mutex
	opened     time.Time
	used       int
	suppressed int
}

// allow says whether this line may be written, and how many were not since the
// last one that was.
func (l *limiter) allow(now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.opened) >= l.window {
		l.opened, l.used = now, 0
	}
	if l.used >= l.burst {
		l.suppressed++
		return 0, false
	}
	l.used++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
