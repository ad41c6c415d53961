package phase

import (
	"crypto/sha256"
	"encoding/json"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// Written remembers, as hashes, the statuses that were written last: a cache
// that has not seen the last one yet would make its opposite look like no
// change. The zero value is ready for use.
type Written struct {
	mu     sync.Mutex
	hashes map[object]sum
}

type object struct {
	kind string
	types.NamespacedName
}

type sum struct {
	uid  types.UID
	hash [sha256.Size]byte
}

// Forget is for an object that is gone, or of whose status nothing is known.
func (w *Written) Forget(kind string, name types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.hashes, object{kind, name})
}

func (w *Written) note(cfg v1alpha1.Config, s v1alpha1.ConfigStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hashes == nil {
		w.hashes = map[object]sum{}
	}
	w.hashes[objectOf(cfg)] = sumOf(cfg, s)
}

// differs says that something else was written last.
func (w *Written) differs(cfg v1alpha1.Config, s v1alpha1.ConfigStatus) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.hashes[objectOf(cfg)]
	return ok && last.uid == cfg.GetUID() && last != sumOf(cfg, s)
}

func objectOf(cfg v1alpha1.Config) object {
	return object{cfg.Kind(), types.NamespacedName{Namespace: cfg.GetNamespace(), Name: cfg.GetName()}}
}

// sumOf hashes a status as it is written: times have whole seconds there.
func sumOf(cfg v1alpha1.Config, s v1alpha1.ConfigStatus) sum {
	b, err := json.Marshal(s)
	if err != nil {
		return sum{} // never: every field can be written
	}
	return sum{cfg.GetUID(), sha256.Sum256(b)}
}
