package inventory

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// booted lists, by address, the holders whose present attempt was booted there
// by a machine that was proven: the latest attempt first. It has no entry for a
// machine that has not booted.
type booted map[[16]byte][]*entry

// bootKey is where an entry's present attempt was booted, if that was proven.
func (e *entry) bootKey() ([16]byte, bool) {
	a := &e.plan.Attempt
	if a.BootProof < boot.Address || !a.BootAddr.IsValid() {
		return [16]byte{}, false
	}
	return boot.CanonicalAddr(a.BootAddr).As16(), true
}

func (b booted) insert(e *entry) {
	k, ok := e.bootKey()
	if !ok {
		return
	}
	at, _ := slices.BinarySearchFunc(b[k], e, compareBoots)
	b[k] = slices.Insert(b[k], at, e)
}

func (b booted) remove(e *entry) {
	k, ok := e.bootKey()
	if !ok {
		return
	}
	at, found := slices.BinarySearchFunc(b[k], e, compareBoots)
	switch {
	case !found:
	case len(b[k]) == 1:
		delete(b, k)
	default:
		b[k] = slices.Delete(b[k], at, at+1)
	}
}

// compareBoots puts the attempt first that was opened last.
func compareBoots(a, b *entry) int {
	return cmp.Or(
		b.plan.Attempt.OpenedAt.Compare(a.plan.Attempt.OpenedAt),
		compareAge(a, b),
		cmp.Compare(a.kind, b.kind),
	)
}

// ByBootAddr finds the plan whose present attempt was booted at this address, the
// latest where several were, by a machine whose proof was boot.Address or
// stronger. Nobody is found at an address that proves nothing. It returns
// boot.ErrNotFound and boot.ErrUnavailable as boot.Source says.
func (i *Inventory) ByBootAddr(addr netip.Addr) (*boot.Plan, error) {
	if !i.HasSynced() {
		return nil, boot.ErrUnavailable
	}
	if !addr.IsValid() {
		return nil, boot.ErrNotFound
	}
	addr = boot.CanonicalAddr(addr)
	i.mu.RLock()
	defer i.mu.RUnlock()
	all := i.booted[addr.As16()]
	if len(all) == 0 || i.untrusted.contains(addr) {
		return nil, boot.ErrNotFound
	}
	return all[0].plan, nil
}
