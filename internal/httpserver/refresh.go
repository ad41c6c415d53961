package httpserver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// refreshEvery bounds how often a machine that keeps asking makes us read its
// API object.
const refreshEvery = time.Second

// refreshes remembers what was read from API objects within refreshEvery.
type refreshes struct {
	mu   sync.Mutex
	seen map[string]refreshed
}

type refreshed struct {
	at      time.Time
	attempt boot.Attempt
}

// refresh returns the attempt as the API object tells it. An answer that is
// less than refreshEvery old is given again, unless something newer was seen
// here. It returns boot.ErrUnavailable when the API server is out of reach.
func (s *Server) refresh(ctx context.Context, p *boot.Plan) (boot.Attempt, error) {
	if a, ok := s.refreshes.recent(p.Object.UID, s.now()); ok {
		if current := s.attempts.Current(p); current.Number >= a.Number {
			return current, nil
		}
		return a, nil
	}
	a, err := s.attempts.Refresh(ctx, p)
	if err != nil {
		return boot.Attempt{}, fmt.Errorf("reading the boot attempt of %s: %w", p.Object, err)
	}
	s.refreshes.remember(p.Object.UID, a, s.now())
	return a, nil
}

func (r *refreshes) recent(uid string, now time.Time) (boot.Attempt, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.seen[uid]
	return e.attempt, ok && now.Sub(e.at) < refreshEvery
}

func (r *refreshes) remember(uid string, a boot.Attempt, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = make(map[string]refreshed)
	}
	if len(r.seen) >= 256 {
		for k, e := range r.seen {
			if now.Sub(e.at) >= refreshEvery {
				delete(r.seen, k)
			}
		}
	}
	r.seen[uid] = refreshed{at: now, attempt: a}
}
