package inventory

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// prefixSet answers whether an address is in any of its prefixes, with one map
// access for each distinct prefix length. A prefix may be added several times.
type prefixSet struct {
	count map[netip.Prefix]int
	// byLength counts the distinct prefixes of each length, and lengths lists
	// the lengths that there are, longest first, by whether they are IPv4.
	byLength map[prefixLength]int
	lengths  map[bool][]int
}

type prefixLength struct {
	is4  bool
	bits int
}

func newPrefixSet() *prefixSet {
	return &prefixSet{count: map[netip.Prefix]int{}, byLength: map[prefixLength]int{}, lengths: map[bool][]int{}}
}

func (s *prefixSet) add(p netip.Prefix) {
	s.count[p]++
	if s.count[p] == 1 {
		s.measure(p, 1)
	}
}

func (s *prefixSet) remove(p netip.Prefix) {
	s.count[p]--
	if s.count[p] == 0 {
		delete(s.count, p)
		s.measure(p, -1)
	}
}

// measure counts a prefix that came or went.
func (s *prefixSet) measure(p netip.Prefix, by int) {
	l := prefixLength{p.Addr().Is4(), p.Bits()}
	s.byLength[l] += by
	at := slices.Index(s.lengths[l.is4], l.bits)
	switch {
	case s.byLength[l] == 0:
		delete(s.byLength, l)
		s.lengths[l.is4] = slices.Delete(s.lengths[l.is4], at, at+1)
	case at < 0:
		s.lengths[l.is4] = append(s.lengths[l.is4], l.bits)
		slices.SortFunc(s.lengths[l.is4], func(a, b int) int { return b - a })
	}
}

func (s *prefixSet) contains(a netip.Addr) bool {
	for _, bits := range s.lengths[a.Is4()] {
		if p, err := a.Prefix(bits); err == nil && s.count[p] > 0 {
			return true
		}
	}
	return false
}

// canonicalPrefix masks a prefix and unmaps an IPv4-mapped one, as addresses
// are when they are compared with it.
func canonicalPrefix(p netip.Prefix) (netip.Prefix, bool) {
	a, bits := p.Addr().WithZone(""), p.Bits()
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

// nodePrefixes returns the addresses of a node and of the pods on it.
func nodePrefixes(n *corev1.Node) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		if addr, err := boot.ParseAddr(a.Address); err == nil {
			prefixes = append(prefixes, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	for _, cidr := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			if p, ok := canonicalPrefix(p); ok && !slices.Contains(prefixes, p) {
				prefixes = append(prefixes, p)
			}
		}
	}
	return prefixes
}

// ProvesNothing says that requests from this address may come from any
// workload: it is a node's, a pod's, or of the prefixes that the operator was
// told not to trust. Until everything was seen once no address proves anything.
func (i *Inventory) ProvesNothing(addr netip.Addr) bool {
	if !i.HasSynced() {
		return true
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.untrusted.contains(boot.CanonicalAddr(addr))
}

// IsNode says whether this address is one of a node of the cluster that we run in,
// rather than of a pod on it, or of a machine.
func (i *Inventory) IsNode(addr netip.Addr) bool {
	addr = boot.CanonicalAddr(addr)
	if !addr.IsValid() {
		return false
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.nodeAddrs[addr] > 0
}

func (i *Inventory) putNode(n *corev1.Node) {
	prefixes := nodePrefixes(n)
	i.mu.Lock()
	defer i.mu.Unlock()
	if slices.Equal(i.nodes[n.Name], prefixes) {
		return
	}
	i.setNode(n.Name, prefixes)
}

func (i *Inventory) removeNode(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.setNode(name, nil)
}

// setNode adds before it removes, so that a shared prefix is never missing.
func (i *Inventory) setNode(name string, prefixes []netip.Prefix) {
	for _, p := range prefixes {
		i.untrusted.add(p)
		if p.IsSingleIP() {
			i.nodeAddrs[p.Addr()]++
		}
	}
	for _, p := range i.nodes[name] {
		i.untrusted.remove(p)
		if !p.IsSingleIP() {
			continue
		}
		if i.nodeAddrs[p.Addr()]--; i.nodeAddrs[p.Addr()] == 0 {
			delete(i.nodeAddrs, p.Addr())
		}
	}
	i.nodes[name] = prefixes
	if len(prefixes) == 0 {
		delete(i.nodes, name)
	}
}
