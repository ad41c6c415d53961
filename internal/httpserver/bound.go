package httpserver

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// maxBindings bounds the addresses that are remembered. What is forgotten is
// known to the source again once the observation of it was written.
const maxBindings = 1 << 16

// bindings remembers which plan's boot bytes went to an address last. The
// attempt says whether that still counts.
type bindings struct {
	mu    sync.Mutex
	known map[netip.Addr]binding
	swept time.Time
}

type binding struct {
	object string
	at     time.Time
}

// bind remembers who booted at an address.
func (b *bindings) bind(addr netip.Addr, object string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known = make(map[netip.Addr]binding)
	}
	if now.Sub(b.swept) >= time.Minute {
		b.sweep(now)
	}
	if _, again := b.known[addr]; again || len(b.known) < maxBindings {
		b.known[addr] = binding{object: object, at: now}
	}
}

// sweep forgets what no attempt can hold any more.
func (b *bindings) sweep(now time.Time) {
	b.swept = now
	for addr, e := range b.known {
		if now.Sub(e.at) > 2*boot.AttemptLifetime {
			delete(b.known, addr)
		}
	}
}

func (b *bindings) at(addr netip.Addr) (binding, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.known[addr]
	return e, ok
}

// bind makes the address that boot bytes begin to flow to name the machine, for
// its secrets. Where a config lists the address for another machine, it stands
// for several.
func (s *Server) bind(x *exchange, id identity, p *boot.Plan) {
	if id.proof < boot.Address || s.provesNothing(x.peer) || onAnyLink(x.peer.addr) {
		return
	}
	s.bindings.bind(x.peer.addr, p.Object.UID, s.now())
	if id.attempt == 0 {
		return // it was the address that named the machine
	}
	if listed, err := s.source.ByAddr(x.peer.addr); err == nil && !sameMachine(listed, []*boot.Plan{p}) {
		s.ambiguous(x, identity{plans: listed, proof: boot.Address})
	}
}

// onAnyLink says whether an address means another machine on each link that this
// server is attached to (RFC 4007 section 5): canonical addresses have no zone.
func onAnyLink(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// byBootAddr finds the machine whose boot bytes went to the address that asks,
// in an attempt that is still open. refusal is why the address does not name a
// machine by itself, and what is returned where it is no such address either.
func (s *Server) byBootAddr(p peer, refusal error) (identity, error) {
	if s.provesNothing(p) || onAnyLink(p.addr) {
		return identity{}, refusal
	}
	plan, err := s.bootedAt(p.addr)
	if err != nil {
		return identity{}, err
	}
	if plan == nil || s.listedForAnother(p.addr, plan) {
		return identity{}, refusal
	}
	// A link that the firmware saw is not the one that its address is seen on.
	proof := min(s.attempts.Current(plan).BootProof, boot.Proxy)
	if proof < boot.Address || proof < minimumProof(plan) {
		return identity{}, errRefused
	}
	return identity{plans: []*boot.Plan{plan}, proof: proof, bound: true}, nil
}

// notAnothers returns errRefused where another machine than the one that lists the
// address booted there last, in an attempt that is still open: what asks there may
// be that one.
func (s *Server) notAnothers(x *exchange, id identity) error {
	plan, err := s.bootedAt(x.peer.addr)
	if err != nil || plan == nil || sameMachine(id.plans, []*boot.Plan{plan}) {
		return err
	}
	if !x.head() {
		s.ambiguous(x, id)
	}
	return errRefused
}

// bootedAt returns the plan that was booted at an address last, here or on
// another replica, if its attempt is open; nil when there is none.
func (s *Server) bootedAt(addr netip.Addr) (*boot.Plan, error) {
	plan, err := s.source.ByBootAddr(addr)
	if err != nil && !errors.Is(err, boot.ErrNotFound) {
		return nil, fmt.Errorf("finding the machine that booted at %s: %w", addr, err)
	}
	var since time.Time
	if plan != nil {
		a := s.attempts.Current(plan)
		if !s.bootsAt(a, addr) {
			plan = nil
		} else if since = a.OpenedAt; a.BootServedAt.After(since) {
			since = a.BootServedAt
		}
	}
	here, ok := s.bindings.at(addr)
	if !ok || plan != nil && (plan.Object.UID == here.object || since.After(here.at)) {
		return plan, nil
	}
	own, err := s.source.ByObject(here.object)
	if err != nil || !s.bootsAt(s.attempts.Current(own), addr) {
		return plan, nil //nolint:nilerr // its object is gone: it was booted nowhere
	}
	return own, nil
}

func (s *Server) bootsAt(a boot.Attempt, addr netip.Addr) bool {
	return a.BootAddr == addr && a.Open(s.now())
}

// listedForAnother says whether a config lists the address for a machine other
// than the plan's.
func (s *Server) listedForAnother(addr netip.Addr, p *boot.Plan) bool {
	listed, err := s.source.ByAddr(addr)
	if errors.Is(err, boot.ErrNotFound) {
		return false
	}
	return err != nil || !sameMachine(listed, []*boot.Plan{p})
}
