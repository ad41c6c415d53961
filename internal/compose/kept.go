package compose

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// makeTimeout bounds what is made for everyone, whoever asked first: to read and
// hash 4 GiB from a slow disk.
const makeTimeout = 5 * time.Minute

// kept keeps what is expensive to make, the least recently used of which is
// forgotten when there are more than most. Each is made once however many ask, and
// without any lock held.
type kept[V any] struct {
	most   int
	flight singleflight.Group

	mu     sync.Mutex
	byKey  map[string]*list.Element
	recent list.List // of *keptValue, the most recently used first
}

type keptValue[V any] struct {
	key   string
	value V
}

// get returns what is kept under a key, or builds it. The caller's context ends its
// waiting, not the building: that is for all who ask, and for those who ask next.
// Errors are not kept.
func (k *kept[V]) get(ctx context.Context, key string, build func(context.Context) (V, error)) (V, error) {
	if v, ok := k.find(key); ok {
		return v, nil
	}
	var none V
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("waiting for the hash of a UKI's parts: %w", context.Cause(ctx))
	}
	result := k.flight.DoChan(key, func() (any, error) {
		if v, ok := k.find(key); ok {
			return v, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), makeTimeout)
		defer cancel()
		v, err := build(ctx)
		if err == nil {
			k.keep(key, v)
		}
		return v, err
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(V), nil //nolint:forcetypeassert // from above
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for the hash of a UKI's parts: %w", context.Cause(ctx))
	}
}

func (k *kept[V]) find(key string) (V, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.byKey[key]
	if !ok {
		var none V
		return none, false
	}
	k.recent.MoveToFront(e)
	return e.Value.(*keptValue[V]).value, true //nolint:forcetypeassert // from keep
}

func (k *kept[V]) keep(key string, v V) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byKey == nil {
		k.byKey = make(map[string]*list.Element)
	}
	k.byKey[key] = k.recent.PushFront(&keptValue[V]{key, v})
	for k.recent.Len() > k.most {
		oldest := k.recent.Back()
		k.recent.Remove(oldest)
		delete(k.byKey, oldest.Value.(*keptValue[V]).key) //nolint:forcetypeassert // from above
	}
}
