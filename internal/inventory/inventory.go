package inventory

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Options say what configs leave out, and whom to believe.
type Options struct {
	// Architecture of machines whose config names none; amd64 if empty.
	Architecture boot.Architecture
	// MinimumProof of configs that name none; boot.Address if zero.
	MinimumProof boot.Proof
	// DefaultImage is what an HTTPBootConfig boots that names neither image nor
	// URL; its name becomes the plan's. Optional.
	DefaultImage string
	// ClaimNamespaces and ClaimNamespaceSelector say which namespaces may claim
	// machines: those listed and those with the labels. Without both, all may.
	// Namespaces are only watched where there is a selector.
	ClaimNamespaces        []string
	ClaimNamespaceSelector labels.Selector
	// TrustClusterAddresses lets addresses of this cluster's nodes and pods
	// prove something. Nodes are only watched without it.
	TrustClusterAddresses bool
	// UntrustedClients are more addresses that prove nothing.
	UntrustedClients []netip.Prefix
	// Registerer takes the metrics; nil means that they are not published.
	Registerer prometheus.Registerer
	Logger     logr.Logger
}

// Inventory implements boot.Source. Create it with New, connect it with
// Register; all its methods may be called by any number of goroutines.
type Inventory struct {
	options Options
	changes changes
	synced  atomic.Bool

	registering   sync.Mutex
	registrations []toolscache.ResourceEventHandlerRegistration

	mu         sync.RWMutex
	objects    map[objectKey]*entry
	byUID      map[string]*entry
	counts     counts
	slots      map[key]*slot
	booted     booted
	digests    digests
	namespaces namespaces
	untrusted  *prefixSet
	nodes      map[string][]netip.Prefix
	// nodeAddrs counts the nodes that have an address.
	nodeAddrs map[netip.Addr]int
	// settled: everything was seen once and it was decided who holds; from then
	// on every event decides what it affects.
	settled bool
	// vacant are the slots that were vacated since settle ended last.
	vacant []*slot
}

var _ boot.Source = (*Inventory)(nil)

// New returns an empty inventory: until Register was called and all informers
// have synced it answers boot.ErrUnavailable.
func New(o Options) *Inventory {
	if o.Architecture == "" {
		o.Architecture = boot.AMD64
	}
	if o.MinimumProof == boot.Unproven {
		o.MinimumProof = boot.Address
	}
	i := &Inventory{
		options:    o,
		objects:    map[objectKey]*entry{},
		byUID:      map[string]*entry{},
		counts:     counts{},
		slots:      map[key]*slot{},
		booted:     booted{},
		digests:    newDigests(),
		namespaces: newNamespaces(o),
		untrusted:  newPrefixSet(),
		nodes:      map[string][]netip.Prefix{},
		nodeAddrs:  map[netip.Addr]int{},
	}
	for _, p := range o.UntrustedClients {
		if p, ok := canonicalPrefix(p); ok {
			i.untrusted.add(p)
		}
	}
	return i
}

// ByAddr returns the plans of the machine that lists this address.
func (i *Inventory) ByAddr(addr netip.Addr) ([]*boot.Plan, error) {
	if !addr.IsValid() {
		return nil, boot.ErrNotFound
	}
	return i.lookup(addrKey(boot.CanonicalAddr(addr)), true)
}

// ByUUID finds a machine by its SMBIOS UUID, in either byte order.
func (i *Inventory) ByUUID(uuid boot.UUID) ([]*boot.Plan, error) {
	return i.lookup(uuidKey(uuid))
}

// ByMAC finds a machine by any of its MAC addresses.
func (i *Inventory) ByMAC(mac boot.MAC) ([]*boot.Plan, error) {
	return i.lookup(macKey(mac))
}

func (i *Inventory) lookup(k key, valid bool) ([]*boot.Plan, error) {
	if !i.HasSynced() {
		return nil, boot.ErrUnavailable
	}
	if !valid {
		return nil, boot.ErrNotFound
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	s := i.slots[k]
	switch {
	case s == nil || len(s.plans) == 0:
		return nil, boot.ErrNotFound
	case s.ambiguous:
		return nil, boot.ErrAmbiguous
	}
	return s.plans, nil
}

// ByObject finds a plan by the UID of its API object.
func (i *Inventory) ByObject(uid string) (*boot.Plan, error) {
	if !i.HasSynced() {
		return nil, boot.ErrUnavailable
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	e := i.byUID[uid]
	if e == nil || !e.holds {
		return nil, boot.ErrNotFound
	}
	return e.plan, nil
}

// Conflict is why a config has no plan.
type Conflict struct {
	// With is the older config, which holds.
	With boot.Ref
	// Identifier is what both claim, as the loser spells it, canonical.
	Identifier string
}

// Conflict says whom cfg loses to, if anyone. It judges cfg as given, which may
// be newer than what the inventory has seen; before everything was seen once
// nobody loses, and Changed tells of those who do afterwards.
func (i *Inventory) Conflict(cfg v1alpha1.Config) (Conflict, bool) {
	if cfg.GetDeletionTimestamp() != nil {
		return Conflict{}, false
	}
	e := newEntry(i.plan(cfg), census{}, cfg.GetCreationTimestamp().Unix(), false)
	i.mu.RLock()
	defer i.mu.RUnlock()
	if !i.mayClaim(cfg.GetNamespace()) {
		return Conflict{}, false
	}
	for _, k := range keysOf(e.plan.Machine) {
		s := i.slots[k]
		if s == nil {
			continue
		}
		for _, h := range s.holder {
			if h != nil && (h.kind == e.kind || strangers(h, e)) && h.key() != e.key() && compareAge(h, e) < 0 {
				return Conflict{With: h.plan.Object, Identifier: spelling(e.plan.Machine, k)}, true
			}
		}
	}
	return Conflict{}, false
}

// put takes in a config that was added or changed.
func (i *Inventory) put(cfg v1alpha1.Config) {
	next := newEntry(i.plan(cfg), censusOf(cfg), cfg.GetCreationTimestamp().Unix(), cfg.GetDeletionTimestamp() != nil)
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.objects[next.key()]
	if old != nil && old.sameClaim(next) {
		i.refresh(old, next.plan, next.census)
		return
	}
	var doubt []*entry
	if old != nil {
		next.lost = old.lost
		doubt = i.remove(old)
	}
	i.insert(next)
	i.settle(append(doubt, next))
}

// drop takes out a config that is gone.
func (i *Inventory) drop(k objectKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if e := i.objects[k]; e != nil {
		i.settle(i.remove(e))
	}
}

// settleAll decides about everyone, once everything was seen.
func (i *Inventory) settleAll() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.settled {
		return
	}
	i.settled = true
	all := make([]*entry, 0, len(i.objects))
	for _, e := range i.objects {
		all = append(all, e)
	}
	i.settle(all)
}
