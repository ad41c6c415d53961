package artifact

import (
	"context"
	"fmt"
	"sync"
)

// slots bound the pulls that run at once. One source gets half of them at
// most, so that a slow registry does not hold up the others.
type slots struct {
	all  chan struct{}
	each int

	mu      sync.Mutex
	sources map[string]*source
}

type source struct {
	slots chan struct{}
	users int
}

func newSlots(n int) *slots {
	return &slots{all: make(chan struct{}, n), each: max(1, n/2), sources: map[string]*source{}}
}

// enter waits for a turn. leave gives it back.
func (s *slots) enter(ctx context.Context, name string) (leave func(), err error) {
	src := s.use(name)
	if err := take(ctx, src.slots); err != nil {
		s.drop(name)
		return nil, err
	}
	if err := take(ctx, s.all); err != nil {
		<-src.slots
		s.drop(name)
		return nil, err
	}
	return func() {
		<-s.all
		<-src.slots
		s.drop(name)
	}, nil
}

func take(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a turn to pull: %w", context.Cause(ctx))
	}
}

func (s *slots) use(name string) *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.sources[name]
	if src == nil {
		src = &source{slots: make(chan struct{}, s.each)}
		s.sources[name] = src
	}
	src.users++
	return src
}

func (s *slots) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.sources[name]
	if src.users--; src.users == 0 {
		delete(s.sources, name)
	}
}
