package httpserver

import (
	"errors"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxRated bounds the clients whose requests are counted. Where more ask at once
	// than that, those without a place are let through: a limit for each of them
	// would be none for all.
	maxRated = 1 << 16
	// ratedSweep is how often it is looked for clients that need no place any more.
	ratedSweep = time.Second
)

var errTooMany = errors.New("too many requests from this address; try again in a second")

// rates is a token bucket for each client. Its zero value limits nobody.
type rates struct {
	// rate is requests a second; 0 is no limit. burst is how many may come at once.
	rate, burst float64

	mu      sync.Mutex
	clients map[netip.Addr]bucket
	swept   time.Time
}

// bucket holds how many requests a client could make at a time.
type bucket struct {
	left float64
	at   time.Time
}

// take counts a request of a client, and says whether it may be served.
func (r *rates) take(client netip.Addr, now time.Time) bool {
	if r.rate <= 0 || !client.IsValid() {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b, known := r.clients[client]
	if !known {
		b = bucket{left: r.burst, at: now}
		if !r.makeRoom(now) {
			return true
		}
	}
	b = r.filled(b, now)
	ok := b.left >= 1
	if ok {
		b.left--
	}
	r.clients[client] = b
	return ok
}

// filled returns a bucket as it is now. A clock that was set back fills nothing.
func (r *rates) filled(b bucket, now time.Time) bucket {
	if since := now.Sub(b.at).Seconds(); since > 0 {
		b.left = min(r.burst, b.left+since*r.rate)
	}
	b.at = now
	return b
}

// makeRoom says whether there is a place for one more client. A bucket that is full
// again says nothing that a new one would not.
func (r *rates) makeRoom(now time.Time) bool {
	if r.clients == nil {
		r.clients = make(map[netip.Addr]bucket)
	}
	if len(r.clients) < maxRated {
		return true
	}
	if since := now.Sub(r.swept); since >= 0 && since < ratedSweep {
		return false
	}
	r.swept = now
	for client, b := range r.clients {
		if r.filled(b, now).left >= r.burst {
			delete(r.clients, client)
		}
	}
	return len(r.clients) < maxRated
}

// rated returns whom a request counts for: an IPv4 address, or the /64 of an IPv6
// address, any of whose addresses a host there can take. It is not valid where the
// request is not to be counted: proxies, balancers and DHCP servers speak for many,
// and are counted by the address that they name, if they name one.
func (s *Server) rated(p peer) netip.Addr {
	addr := p.addr
	switch {
	case p.dhcp && len(p.addrs) > 0:
		addr = p.addrs[len(p.addrs)-1]
	case p.dhcp || p.proxy || s.dhcp.contains(addr) || s.proxyProto.contains(addr):
		return netip.Addr{}
	}
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}

// unlimited refuses a request of a client that asks too fast.
func (s *Server) unlimited(x *exchange) error {
	if s.rates.take(s.rated(x.peer), s.now()) {
		return nil
	}
	s.metrics.limited.Inc()
	return errTooMany
}
