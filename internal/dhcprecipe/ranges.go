package dhcprecipe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Range is a run of addresses, both ends included.
type Range struct {
	First, Last netip.Addr
}

// ParseRange reads <first>-<last>, such as 10.0.0.100-10.0.0.199. It returns
// boot.ErrInvalid for anything else.
func ParseRange(s string) (Range, error) {
	first, last, _ := strings.Cut(s, "-")
	var r Range
	var err error
	if r.First, err = netip.ParseAddr(strings.TrimSpace(first)); err == nil {
		r.Last, err = netip.ParseAddr(strings.TrimSpace(last))
	}
	if err != nil {
		return Range{}, fmt.Errorf("%w: range %q is not of the form 10.0.0.100-10.0.0.199", boot.ErrInvalid, clip(s))
	}
	return r, nil
}

// Contains reports whether a is in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// String returns the range as ParseRange reads it.
func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }

// Prefix is the largest prefix at either end of the range, for servers whose pools
// are prefixes.
func (r Range) Prefix() netip.Prefix {
	for bits := range r.First.BitLen() {
		for _, end := range []netip.Addr{r.First, r.Last} {
			p := netip.PrefixFrom(end, bits).Masked()
			if !p.Addr().Less(r.First) && !r.Last.Less(lastOf(p)) {
				return p
			}
		}
	}
	return netip.PrefixFrom(r.First, r.First.BitLen())
}

// without returns what is left of the range when some addresses are taken out.
func (r Range) without(taken []netip.Addr) []Range {
	taken = slices.Clone(taken)
	slices.SortFunc(taken, netip.Addr.Compare)
	var left []Range
	first := r.First
	for _, a := range slices.Compact(taken) {
		if !r.Contains(a) {
			continue
		}
		if first.Less(a) {
			left = append(left, Range{first, a.Prev()})
		}
		if first = a.Next(); a == r.Last {
			return left
		}
	}
	return append(left, Range{first, r.Last})
}

// largest returns the range with the most addresses, the first of several.
func largest(ranges []Range) (Range, bool) {
	if len(ranges) == 0 {
		return Range{}, false
	}
	return slices.MaxFunc(ranges, func(a, b Range) int { return slices.Compare(a.span(), b.span()) }), true
}

// span is Last - First as a big-endian number.
func (r Range) span() []byte {
	first, last := r.First.AsSlice(), r.Last.AsSlice()
	borrow := 0
	for i := len(last) - 1; i >= 0; i-- {
		difference := int(last[i]) - int(first[i]) - borrow
		borrow = 0
		if difference < 0 {
			difference, borrow = difference+256, 1
		}
		last[i] = byte(difference)
	}
	return last
}

// chooseRange picks about the second hundred of a subnet's 256 addresses, less
// what is taken: .100 to .199 of a /24, ::100 to ::1ff of an IPv6 prefix.
func chooseRange(subnet netip.Prefix, taken []netip.Addr) (Range, bool) {
	hostBits := subnet.Addr().BitLen() - subnet.Bits()
	r := Range{offset(subnet, 0x100), offset(subnet, 0x1ff)}
	if subnet.Addr().Is4() || hostBits < 10 {
		size := uint64(1) << min(hostBits, 8)
		r = Range{offset(subnet, size*100/256), offset(subnet, size*200/256-1)}
	}
	if hostBits < 3 {
		return Range{}, false
	}
	return largest(r.without(taken))
}

// offset is the n-th address of a prefix.
func offset(p netip.Prefix, n uint64) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += uint64(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// lastOf is the last address of a prefix, the broadcast address of an IPv4 subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// netmask writes an IPv4 prefix's mask in the dotted form.
func netmask(p netip.Prefix) string {
	ones := ^uint32(0) << (32 - p.Bits())
	return netip.AddrFrom4([4]byte{byte(ones >> 24), byte(ones >> 16), byte(ones >> 8), byte(ones)}).String()
}
