package inventory

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// kinds is how many kinds of configs there are; a kind's number is its place
// in a slot.
const kinds = 2

func kindNumber(kind string) int {
	if kind == v1alpha1.KindHTTPBootConfig {
		return 0
	}
	return 1
}

// objectKey is a config as events name it.
type objectKey struct {
	kind            int
	namespace, name string
}

// entry is one config.
type entry struct {
	plan *boot.Plan
	// alone holds just the plan: the answer of every slot that it does not
	// share with a config of the other kind.
	alone   []*boot.Plan
	created int64 // seconds since 1970
	kind    int
	// slots are the identifiers that it claims; none while it is being deleted
	// or may not claim.
	slots []*slot
	// deleting: the object has a deletionTimestamp.
	deleting bool
	// holds: no older holder shares an identifier; the plan can be found.
	holds  bool
	queued bool
	// conflict is set for those who lost.
	conflict *Conflict
}

func newEntry(p *boot.Plan, created int64, deleting bool) *entry {
	return &entry{plan: p, alone: []*boot.Plan{p}, created: created, kind: kindNumber(p.Object.Kind), deleting: deleting}
}

func (e *entry) key() objectKey {
	return objectKey{e.kind, e.plan.Object.Namespace, e.plan.Object.Name}
}

// compareAge orders configs of one kind, the oldest first.
func compareAge(a, b *entry) int {
	return cmp.Or(
		cmp.Compare(a.created, b.created),
		cmp.Compare(a.plan.Object.Namespace, b.plan.Object.Namespace),
		cmp.Compare(a.plan.Object.Name, b.plan.Object.Name),
	)
}

// slot is everything about one identifier.
type slot struct {
	key key
	// claimants of each kind, the oldest first.
	claimants [kinds][]*entry
	holder    [kinds]*entry
	// plans and ambiguous are the answer to a lookup. The slice is never
	// changed once it was published, only replaced.
	plans     []*boot.Plan
	ambiguous bool
}

func (s *slot) insert(e *entry) {
	at, _ := slices.BinarySearchFunc(s.claimants[e.kind], e, compareAge)
	s.claimants[e.kind] = slices.Insert(s.claimants[e.kind], at, e)
}

func (s *slot) remove(e *entry) {
	at, found := slices.BinarySearchFunc(s.claimants[e.kind], e, compareAge)
	if found {
		s.claimants[e.kind] = slices.Delete(s.claimants[e.kind], at, at+1)
	}
	if s.holder[e.kind] == e {
		s.holder[e.kind] = nil
	}
}

// younger returns the claimants that could lose to e.
func (s *slot) younger(e *entry) []*entry {
	all := s.claimants[e.kind]
	at, found := slices.BinarySearchFunc(all, e, compareAge)
	if found {
		at++
	}
	return all[at:]
}

func (s *slot) empty() bool {
	return len(s.claimants[0]) == 0 && len(s.claimants[1]) == 0
}

// publish replaces the answer by what the holders say.
func (s *slot) publish() {
	a, b := s.holder[0], s.holder[1]
	s.ambiguous = false
	switch {
	case a == nil && b == nil:
		s.plans = nil
	case b == nil:
		s.plans = a.alone
	case a == nil:
		s.plans = b.alone
	default:
		s.plans = []*boot.Plan{a.plan, b.plan}
		s.ambiguous = !sameMachine(a.plan.Machine, b.plan.Machine)
	}
}

// sameMachine says whether two configs of different kinds that share an
// identifier are for one machine. Different UUIDs are different machines; UUIDs
// that differ in byte order only are one machine if a MAC says so too.
func sameMachine(a, b boot.Machine) bool {
	if a.UUID == "" || b.UUID == "" || a.UUID == b.UUID {
		return true
	}
	if ka, _ := uuidKey(a.UUID); ka != must(uuidKey(b.UUID)) {
		return false
	}
	return slices.ContainsFunc(a.MACs, func(m boot.MAC) bool { return slices.Contains(b.MACs, m) })
}

func must(k key, _ bool) key { return k }

// insert adds an entry to the index; settle decides whether it holds.
func (i *Inventory) insert(e *entry) {
	i.objects[e.key()] = e
	i.byUID[e.plan.Object.UID] = e
	i.digests.name(e.plan)
	i.namespaces.insert(e)
	if !e.deleting && i.mayClaim(e.plan.Object.Namespace) {
		i.attach(e)
	}
}

func (i *Inventory) attach(e *entry) {
	keys := keysOf(e.plan.Machine)
	e.slots = make([]*slot, 0, len(keys))
	for _, k := range keys {
		s := i.slots[k]
		if s == nil {
			s = &slot{key: k}
			i.slots[k] = s
		}
		s.insert(e)
		e.slots = append(e.slots, s)
	}
}

// remove takes an entry out of the index and returns those who may hold now.
func (i *Inventory) remove(e *entry) []*entry {
	delete(i.objects, e.key())
	if i.byUID[e.plan.Object.UID] == e {
		delete(i.byUID, e.plan.Object.UID)
	}
	i.digests.unname(e.plan)
	i.namespaces.remove(e)
	return i.detach(e)
}

// detach ends what an entry claims and returns those who may hold now.
func (i *Inventory) detach(e *entry) []*entry {
	affected := i.affected(e)
	if e.holds {
		i.digests.withdraw(e.plan)
	}
	for _, s := range e.slots {
		s.remove(e)
		s.publish()
		if s.empty() {
			delete(i.slots, s.key)
		}
	}
	e.slots, e.holds = nil, false
	return affected
}

// affected returns whose case changes when e begins or ceases to hold.
func (i *Inventory) affected(e *entry) []*entry {
	if !e.holds {
		return nil
	}
	var all []*entry
	for _, s := range e.slots {
		all = append(all, s.younger(e)...)
	}
	return all
}

// settle decides who holds, from the entries in doubt on to everyone whom a
// decision affects. It goes by age: when an entry is looked at, every older
// one is decided, and nobody is looked at twice. Before everything was seen
// once nothing is decided.
func (i *Inventory) settle(doubt []*entry) {
	if !i.settled {
		return
	}
	var queue ageQueue
	queue.add(doubt)
	for len(queue) > 0 {
		e := heap.Pop(&queue).(*entry) //nolint:forcetypeassert // ours
		e.queued = false
		conflict := i.olderHolder(e)
		i.note(e, conflict)
		if holds := conflict == nil && i.claims(e); holds != e.holds {
			i.hold(e, holds)
			for _, s := range e.slots {
				queue.add(s.younger(e))
			}
		}
	}
}

// claims says whether an entry takes part at all.
func (i *Inventory) claims(e *entry) bool {
	return !e.deleting && i.mayClaim(e.plan.Object.Namespace)
}

// olderHolder finds whom e loses to: the holder of its first identifier that
// an older config holds.
func (i *Inventory) olderHolder(e *entry) *Conflict {
	for _, s := range e.slots {
		if h := s.holder[e.kind]; h != nil && h != e && compareAge(h, e) < 0 {
			return &Conflict{With: h.plan.Object, Identifier: spelling(e.plan.Machine, s.key)}
		}
	}
	return nil
}

// note keeps an entry's conflict and tells of a change.
func (i *Inventory) note(e *entry, c *Conflict) {
	same := (c == nil) == (e.conflict == nil) && (c == nil || *c == *e.conflict)
	e.conflict = c
	if !same {
		i.changes.tell(e.plan.Object)
	}
}

// hold publishes or withdraws an entry's plan. A younger holder that e takes
// an identifier from is looked at later, and then gives up the rest.
func (i *Inventory) hold(e *entry, holds bool) {
	e.holds = holds
	if holds {
		i.digests.publish(e.plan)
	} else {
		i.digests.withdraw(e.plan)
	}
	for _, s := range e.slots {
		if holds {
			s.holder[e.kind] = e
		} else if s.holder[e.kind] == e {
			s.holder[e.kind] = nil
		}
		s.publish()
	}
}

// refresh replaces the plan of an entry that claims what it did before.
func (i *Inventory) refresh(e *entry, p *boot.Plan) {
	i.digests.name(p)
	i.digests.unname(e.plan)
	if e.holds {
		i.digests.publish(p)
		i.digests.withdraw(e.plan)
	}
	e.plan, e.alone = p, []*boot.Plan{p}
	if !e.holds {
		return
	}
	for _, s := range e.slots {
		s.publish()
	}
}

// sameClaim says whether nothing that decides about conflicts has changed.
func (e *entry) sameClaim(next *entry) bool {
	a, b := e.plan, next.plan
	return a.Object.UID == b.Object.UID && e.created == next.created && e.deleting == next.deleting &&
		a.Machine.UUID == b.Machine.UUID && slices.Equal(a.Machine.MACs, b.Machine.MACs) && slices.Equal(a.Machine.Addrs, b.Machine.Addrs)
}

// ageQueue is a heap of entries, the oldest on top, each in it once.
type ageQueue []*entry

func (q *ageQueue) add(entries []*entry) {
	for _, e := range entries {
		if !e.queued {
			e.queued = true
			heap.Push(q, e)
		}
	}
}

func (q ageQueue) Len() int           { return len(q) }
func (q ageQueue) Less(a, b int) bool { return compareAge(q[a], q[b]) < 0 }
func (q ageQueue) Swap(a, b int)      { q[a], q[b] = q[b], q[a] }
func (q *ageQueue) Push(x any)        { *q = append(*q, x.(*entry)) } //nolint:forcetypeassert // ours
func (q *ageQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
