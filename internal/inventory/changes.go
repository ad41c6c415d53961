package inventory

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// maxSubscriptions bounds what leadership that comes and goes leaves behind:
// every new controller subscribes anew.
const maxSubscriptions = 16

// changes tells subscribers which configs to look at again.
type changes struct {
	mu   sync.Mutex
	subs []*subscription
}

// subscription holds what its reader has not taken yet: at most one event for
// each config, so that a reader that is gone costs no more than that.
type subscription struct {
	mu      sync.Mutex
	pending map[objectKey]struct{}
	wake    chan struct{}
	stop    chan struct{}
	out     chan event.GenericEvent
}

// Changed returns a channel of configs that should be reconciled because
// another config or a namespace changed: their conflict or their right to claim
// is not what it was. The objects in the events have a type, a namespace and a
// name, nothing else. Every call is a subscription of its own that gets all
// events of both kinds; the newest 16 are kept, older channels are closed.
func (i *Inventory) Changed() <-chan event.GenericEvent {
	s := &subscription{
		pending: map[objectKey]struct{}{},
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		out:     make(chan event.GenericEvent),
	}
	go s.run()
	i.changes.add(s)
	return s.out
}

func (c *changes) add(s *subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs = append(c.subs, s)
	if len(c.subs) > maxSubscriptions {
		close(c.subs[0].stop)
		c.subs = append([]*subscription(nil), c.subs[1:]...)
	}
}

func (c *changes) tell(ref boot.Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subs {
		s.add(objectKey{kindNumber(ref.Kind), ref.Namespace, ref.Name})
	}
}

// close ends all subscriptions.
func (c *changes) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subs {
		close(s.stop)
	}
	c.subs = nil
}

func (s *subscription) add(k objectKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[k] = struct{}{}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) take() (objectKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.pending {
		delete(s.pending, k)
		return k, true
	}
	return objectKey{}, false
}

func (s *subscription) run() {
	defer close(s.out)
	for {
		k, ok := s.take()
		if !ok {
			select {
			case <-s.wake:
				continue
			case <-s.stop:
				return
			}
		}
		select {
		case s.out <- event.GenericEvent{Object: k.object()}:
		case <-s.stop:
			return
		}
	}
}

// object returns a config that has nothing but its name.
func (k objectKey) object() client.Object {
	m := metav1.ObjectMeta{Namespace: k.namespace, Name: k.name}
	if k.kind == kindNumber(v1alpha1.KindHTTPBootConfig) {
		return &v1alpha1.HTTPBootConfig{ObjectMeta: m}
	}
	return &v1alpha1.IPXEBootConfig{ObjectMeta: m}
}
