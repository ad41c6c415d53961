package dhcprecipe

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Reservation gives one NIC its addresses: one of IPv4; of IPv6 one for each
// DHCP client that the machine is in the course of a boot.
type Reservation struct {
	MAC   boot.MAC
	Addrs []netip.Addr
	// Name says which object asked for it.
	Name string
}

// Addr is the first address, the only one of IPv4.
func (r Reservation) Addr() netip.Addr { return r.Addrs[0] }

// reserve makes the reservations of one network. What an object leaves open, and
// what two of them contradict, becomes a note and no reservation.
func reserve(machines []Machine, n *networkView) ([]Reservation, []string) {
	var wanted []Reservation
	var notes []string
	for _, m := range machines {
		r, note := pair(m, n.Subnet.Addr().Is6())
		switch {
		case note != "":
			notes = append(notes, note)
		case len(r.Addrs) > 0:
			wanted = add(wanted, r)
		}
	}
	slices.SortStableFunc(wanted, func(a, b Reservation) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.MAC, b.MAC))
	})
	var kept []Reservation
	for _, r := range wanted {
		if note := n.refuse(r, wanted); note != "" {
			notes = append(notes, note)
			continue
		}
		kept = append(kept, r)
	}
	return kept, notes
}

// add joins what two objects say of one NIC, as long as it is the same or, over
// IPv6, where a NIC may have several addresses.
func add(wanted []Reservation, r Reservation) []Reservation {
	for i, w := range wanted {
		if w.MAC != r.MAC || r.Addr().Is4() && w.Addr() != r.Addr() {
			continue
		}
		for _, a := range r.Addrs {
			if !slices.Contains(w.Addrs, a) {
				wanted[i].Addrs = append(wanted[i].Addrs, a)
			}
		}
		return wanted
	}
	return append(wanted, r)
}

// pair says which addresses of a family belong to which NIC of a machine, or why
// its object does not tell.
func pair(m Machine, v6 bool) (Reservation, string) {
	name := printable(m.Name)
	var addrs []netip.Addr
	for _, a := range m.Addrs {
		if canonical, err := boot.ParseAddr(a.String()); err == nil && canonical.Is6() == v6 && !slices.Contains(addrs, canonical) {
			addrs = append(addrs, canonical)
		}
	}
	var macs []boot.MAC
	for _, text := range m.MACs {
		if mac, err := boot.ParseMAC(string(text)); err == nil && !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	slices.Sort(macs)
	switch {
	case len(m.Addrs) == 0:
		return Reservation{}, name + " lists no address"
	case len(addrs) == 0:
		return Reservation{}, "" // it may have some of the other family
	case len(macs) == 0:
		return Reservation{}, fmt.Sprintf("%s lists %s and no MAC address", name, join(addrs, ", "))
	case len(macs) > 1:
		return Reservation{}, fmt.Sprintf("%s lists %s and the MAC addresses %s, and does not say which belong together", name, join(addrs, ", "), joinMACs(macs))
	case len(addrs) > 1 && !v6:
		return Reservation{}, fmt.Sprintf("%s lists %s for %s, which can have one of them", name, join(addrs, ", "), macs[0])
	}
	return Reservation{MAC: macs[0], Addrs: addrs, Name: name}, ""
}

// refuse says why a reservation cannot be made beside all the others.
func (n *networkView) refuse(r Reservation, all []Reservation) string {
	what := fmt.Sprintf("%s wants %s for %s", r.Name, join(r.Addrs, ", "), r.MAC)
	taken := n.taken()
	for _, a := range r.Addrs {
		switch {
		case !n.Subnet.Contains(a):
			return fmt.Sprintf("%s: outside the subnet %s", what, n.Subnet)
		case slices.Contains(taken, a):
			return fmt.Sprintf("%s: %s is in use or cannot be leased", what, a)
		}
	}
	for _, other := range all {
		sameMAC, sameAddrs := other.MAC == r.MAC, slices.Equal(other.Addrs, r.Addrs)
		shared := slices.ContainsFunc(r.Addrs, func(a netip.Addr) bool { return slices.Contains(other.Addrs, a) })
		if sameMAC && !sameAddrs || !sameMAC && shared {
			return fmt.Sprintf("%s, but %s wants %s for %s", what, other.Name, join(other.Addrs, ", "), other.MAC)
		}
	}
	return ""
}

// reservedAddrs are the addresses of all reservations.
func reservedAddrs(reservations []Reservation) []netip.Addr {
	var addrs []netip.Addr
	for _, r := range reservations {
		addrs = append(addrs, r.Addrs...)
	}
	return addrs
}

func joinMACs(macs []boot.MAC) string {
	texts := make([]string, len(macs))
	for i, m := range macs {
		texts[i] = string(m)
	}
	return strings.Join(texts, ", ")
}

// printable keeps an object's name within a comment, whoever made it up: what
// names of Kubernetes objects do not have becomes an underscore.
func printable(name string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("./- ", r):
			return r
		}
		return '_'
	}, name)
	return orDefault(clip(clean), "a config without a name")
}
