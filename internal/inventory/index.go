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
	plan   *boot.Plan
	census census
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
	// lost is what its controller was told last: that it claims, but an older
	// holder shares an identifier.
	lost bool
}

func newEntry(p *boot.Plan, c census, created int64, deleting bool) *entry {
	return &entry{plan: p, census: c, alone: []*boot.Plan{p}, created: created, kind: kindNumber(p.Object.Kind), deleting: deleting}
}

func (e *entry) key() objectKey {
	return objectKey{e.kind, e.plan.Object.Namespace, e.plan.Object.Name}
}

// compareAge orders configs, the oldest first.
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
	// vacated: its holder has just gone, and claimants are asked in turn, the
	// oldest first, until one takes it; false outside of settle.
	vacated [kinds]bool
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
}

// take makes e the holder and returns whom it takes the identifier from.
func (s *slot) take(e *entry) *entry {
	before := s.holder[e.kind]
	s.holder[e.kind], s.vacated[e.kind] = e, false
	return before
}

// release gives an identifier up, if e holds it.
func (i *Inventory) release(s *slot, e *entry) {
	if s.holder[e.kind] == e {
		s.holder[e.kind], s.vacated[e.kind] = nil, true
		i.vacant = append(i.vacant, s)
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
	case strangers(a, b):
		s.plans = older(a, b).alone
	default:
		s.plans = []*boot.Plan{a.plan, b.plan}
		s.ambiguous = !sameMachine(a.plan.Machine, b.plan.Machine)
	}
}

// strangers says whether configs of different kinds may not speak for one
// machine together: a tenant must not add its Ignition to another's machine.
func strangers(a, b *entry) bool {
	return a.kind != b.kind && a.plan.Object.Namespace != b.plan.Object.Namespace
}

func older(a, b *entry) *entry {
	if compareAge(a, b) < 0 {
		return a
	}
	return b
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
	i.counts.add(e.census)
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
	i.counts.remove(e.census)
	i.digests.unname(e.plan)
	i.namespaces.remove(e)
	return i.detach(e)
}

// detach ends what an entry claims and returns those who may hold now; settle
// must follow.
func (i *Inventory) detach(e *entry) []*entry {
	if e.holds {
		i.digests.withdraw(e.plan)
		i.booted.remove(e)
		i.tellLosers(e)
	}
	for _, s := range e.slots {
		i.release(s, e)
		s.remove(e)
		s.publish()
		if s.empty() {
			delete(i.slots, s.key)
		}
	}
	heirs := e.heirs()
	e.slots, e.holds = nil, false
	return heirs
}

// heirs returns, for each identifier that has been vacated, the next who may
// take it. Older claimants have lost to someone else already.
func (e *entry) heirs() []*entry {
	var all []*entry
	for _, s := range e.slots {
		if !s.vacated[e.kind] {
			continue
		}
		if younger := s.younger(e); len(younger) > 0 {
			all = append(all, younger[0])
		}
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
		claims := i.claims(e)
		lost := claims && i.older(e)
		if lost != e.lost {
			e.lost = lost
			i.changes.tell(e.plan.Object)
		}
		if holds := claims && !lost; holds != e.holds {
			queue.add(i.hold(e, holds))
		}
		if !e.holds {
			queue.add(e.heirs())
		}
	}
	for _, s := range i.vacant {
		s.vacated = [kinds]bool{}
	}
	clear(i.vacant)
	i.vacant = i.vacant[:0]
}

// claims says whether an entry takes part at all.
func (i *Inventory) claims(e *entry) bool {
	return !e.deleting && i.mayClaim(e.plan.Object.Namespace)
}

// older says whether an older config holds an identifier of e.
func (i *Inventory) older(e *entry) bool {
	return slices.ContainsFunc(e.slots, func(s *slot) bool {
		h := s.holder[e.kind]
		return h != nil && h != e && compareAge(h, e) < 0
	})
}

// hold publishes or withdraws an entry's plan. It returns the younger holders
// that e takes an identifier from: they must give up the rest.
func (i *Inventory) hold(e *entry, holds bool) (displaced []*entry) {
	e.holds = holds
	if holds {
		i.digests.publish(e.plan)
		i.booted.insert(e)
	} else {
		i.digests.withdraw(e.plan)
		i.booted.remove(e)
	}
	for _, s := range e.slots {
		if !holds {
			i.release(s, e)
		} else if before := s.take(e); before != nil && before != e {
			displaced = append(displaced, before)
		}
		s.publish()
	}
	i.tellLosers(e)
	return displaced
}

// maxTold bounds how many losers of one identifier are told that they lose to
// someone else now. Who does not lose any more is always told.
const maxTold = 256

// tellLosers tells those who lose to e, or did until now, and those of the other
// kind who cannot share a machine with it.
func (i *Inventory) tellLosers(e *entry) {
	for _, s := range e.slots {
		younger := s.younger(e)
		for _, c := range younger[:min(len(younger), maxTold)] {
			if c.lost {
				i.changes.tell(c.plan.Object)
			}
		}
		if other := s.holder[kinds-1-e.kind]; other != nil && strangers(e, other) {
			i.changes.tell(other.plan.Object)
		}
	}
}

// refresh replaces the plan of an entry that claims what it did before.
func (i *Inventory) refresh(e *entry, p *boot.Plan, c census) {
	i.counts.remove(e.census)
	i.counts.add(c)
	e.census = c
	i.digests.name(p)
	i.digests.unname(e.plan)
	if e.holds {
		i.digests.publish(p)
		i.digests.withdraw(e.plan)
		i.booted.remove(e)
	}
	e.plan, e.alone = p, []*boot.Plan{p}
	if !e.holds {
		return
	}
	i.booted.insert(e)
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
