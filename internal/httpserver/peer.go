package httpserver

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxHops bounds how many hops of X-Forwarded-For are looked at. They are
	// read from the right, so that a client cannot push the true ones out.
	maxHops = 16
	// maxNamed bounds how many identifiers a DHCP server names at once.
	maxNamed = 8
)

// peer is who asks.
type peer struct {
	// addr is the client's address in canonical form; it is not valid where the
	// client is not known.
	addr netip.Addr
	// proxy says that addr is a trusted proxy's own: it proves nothing.
	proxy bool
	// forwarded says that a trusted proxy named addr.
	forwarded bool
	// dhcp says that addr is a trusted DHCP server that asks on behalf of the
	// machine that has these addresses.
	dhcp  bool
	addrs []netip.Addr
	macs  []boot.MAC
	// named are the same identifiers in the order in which they were sent.
	named []string
}

// peerOf finds out who asks: the other end of the connection or, where that is
// a trusted proxy, the right-most hop of X-Forwarded-For that is not. It
// returns errForwarded when a trusted DHCP server names nobody; from everyone
// else the header is ignored.
func (s *Server) peerOf(r *http.Request) (peer, error) {
	p := peer{}
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		p.addr = boot.CanonicalAddr(ap.Addr())
	}
	h := hops{lines: r.Header["X-Forwarded-For"]}
	for range maxHops {
		proxy := s.proxies.contains(p.addr)
		next := h
		hop, more := next.next()
		if more && s.dhcp.contains(p.addr) && (!proxy || isMAC(hop)) {
			return onBehalf(p, h)
		}
		if !proxy || !more {
			break
		}
		h = next
		p.addr, p.forwarded = parseHop(hop), true
	}
	p.proxy = s.proxies.contains(p.addr)
	return p, nil
}

// onBehalf reads the identifiers that a DHCP server names: "ip, mac". What is
// neither is left out, but something has to remain.
func onBehalf(p peer, h hops) (peer, error) {
	p.dhcp = true
	for count := 0; ; count++ {
		hop, more := h.next()
		if !more {
			break
		}
		if count >= maxNamed {
			return p, errForwarded
		}
		addr, mac, err := boot.ParseIdentifier(hop)
		switch {
		case err != nil:
		case mac != "":
			p.macs = append(p.macs, mac)
			p.named = append(p.named, string(mac))
		default:
			p.addrs = append(p.addrs, addr)
			p.named = append(p.named, addr.String())
		}
	}
	if len(p.named) == 0 {
		return p, errForwarded
	}
	slices.Reverse(p.named)
	return p, nil
}

// hops walks X-Forwarded-For from the nearest hop to the farthest, over any
// number of header lines.
type hops struct {
	lines []string
	rest  string
	open  bool
}

// next returns the next hop that is not empty, without blanks around it.
func (h *hops) next() (string, bool) {
	for {
		if !h.open {
			if len(h.lines) == 0 {
				return "", false
			}
			h.rest, h.open = h.lines[len(h.lines)-1], true
			h.lines = h.lines[:len(h.lines)-1]
		}
		i := strings.LastIndexByte(h.rest, ',')
		hop := strings.TrimSpace(h.rest[i+1:])
		if i < 0 {
			h.open = false
		} else {
			h.rest = h.rest[:i]
		}
		if hop != "" {
			return hop, true
		}
	}
}

// parseHop reads an address, which some proxies write with a port or in
// brackets. It is not valid when there is none.
func parseHop(s string) netip.Addr {
	if a, err := boot.ParseAddr(s); err == nil {
		return a
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return boot.CanonicalAddr(ap.Addr())
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			if a, err := boot.ParseAddr(inner); err == nil {
				return a
			}
		}
	}
	return netip.Addr{}
}

func isMAC(s string) bool {
	_, err := boot.ParseMAC(s)
	return err == nil
}

// prefixes is a short list of networks.
type prefixes []netip.Prefix

// newPrefixes brings the networks into the form that canonical addresses are
// compared with.
func newPrefixes(list []netip.Prefix) prefixes {
	out := make(prefixes, 0, len(list))
	for _, p := range list {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		out = append(out, p.Masked())
	}
	return out
}

func (l prefixes) contains(a netip.Addr) bool {
	for _, p := range l {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
