package netboot

import "sync"

// recent remembers at least the limit entries that were used last, and at most
// twice as many: when the younger half is full, the older is forgotten.
type recent[K comparable, V any] struct {
	limit int

	mu         sync.Mutex
	young, old map[K]V
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{limit: limit, young: make(map[K]V)}
}

// get returns the value of a key, and whether it was there; if not, it is made
// and remembered.
func (r *recent[K, V]) get(k K, create func() V) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v, ok := r.young[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	if !ok {
		v = create()
	}
	if len(r.young) >= r.limit {
		r.old, r.young = r.young, make(map[K]V)
	}
	r.young[k] = v
	return v, ok
}

// peek returns the value of a key, if it is remembered.
func (r *recent[K, V]) peek(k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.young[k]
	if !ok {
		v, ok = r.old[k]
	}
	return v, ok
}

func (r *recent[K, V]) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.young) + len(r.old)
}
