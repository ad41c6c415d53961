package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// identity is a machine and how we know that it is the one that asks.
type identity struct {
	// plans are those that accept the proof, at most one of each kind.
	plans []*boot.Plan
	proof boot.Proof
	// attempt is the one that the machine's token is for; 0 without a token.
	attempt int64
	// bound says that no config lists the address, but that the machine's boot
	// bytes went there in its present attempt.
	bound bool
}

// byAddress says whether all that names the machine is where it asks from.
func (id identity) byAddress() bool { return id.proof == boot.Address || id.bound }

// client is the machine as it begins to boot.
func (id identity) client(p peer) boot.Client {
	return boot.Client{Addr: p.addr, Proof: id.proof, Attempt: id.attempt}
}

// identify finds the machine that asks: by its token, else by its address,
// which for secrets can be one that it booted at. It returns errUnknown when
// nothing names a machine, errRefused when the proof is wrong or too weak, and
// the source's error otherwise. A token that is not valid is never made good by
// an address.
func (s *Server) identify(x *exchange, audience boot.Audience) (identity, error) {
	if x.hasToken {
		return s.byToken(x, audience)
	}
	id, err := s.byAddr(x)
	switch {
	case audience != boot.AudienceSecret:
		return id, err
	case err == nil:
		return id, s.notAnothers(x, id)
	case errors.Is(err, errUnknown), errors.Is(err, errRefused):
		return s.byBootAddr(x.peer, err)
	}
	return id, err
}

// provesNothing says whether a peer's address can name no machine: it is not
// known, or that of a proxy, a DHCP server or a workload of our own cluster.
func (s *Server) provesNothing(p peer) bool {
	return !p.addr.IsValid() || p.proxy || p.dhcp || s.source.ProvesNothing(p.addr)
}

func (s *Server) byAddr(x *exchange) (identity, error) {
	p := x.peer
	if s.provesNothing(p) {
		return identity{}, errUnknown
	}
	plans, err := s.source.ByAddr(p.addr)
	switch {
	case errors.Is(err, boot.ErrNotFound):
		return identity{}, errUnknown
	case err != nil:
		return identity{}, fmt.Errorf("finding the machine at %s: %w", p.addr, err)
	}
	// Refusals of a machine that is known are found by the ID of its boot.
	x.plan = plans[0]
	plans = provenBy(plans, boot.Address)
	if len(plans) == 0 {
		return identity{}, errRefused
	}
	return identity{plans: plans, proof: boot.Address}, nil
}

func (s *Server) byToken(x *exchange, audience boot.Audience) (identity, error) {
	if s.keyring == nil {
		return identity{}, errRefused
	}
	t, err := s.verify(x, audience)
	if err == nil && t.Proof == boot.Address && s.provesNothing(x.peer) {
		err = errRefused
	}
	if err != nil {
		return identity{}, err
	}
	plan, err := s.source.ByObject(string(t.Object))
	switch {
	case errors.Is(err, boot.ErrNotFound):
		return identity{}, errRefused
	case err != nil:
		return identity{}, fmt.Errorf("finding the machine of a token: %w", err)
	}
	x.plan = plan
	if t.Audience == boot.AudienceComposed {
		return s.byComposed(x, plan, t)
	}
	if t.Proof < minimumProof(plan) {
		return identity{}, errRefused
	}
	if plan, err = s.inForce(x.r.Context(), plan, t); err != nil {
		return identity{}, err
	}
	return identity{plans: []*boot.Plan{plan}, proof: t.Proof, attempt: t.Attempt}, nil
}

const (
	// attemptWait is how long a token of an attempt that only another replica knows of
	// is made to wait for the news: five idle seconds end a firmware's boot.
	attemptWait = 1500 * time.Millisecond
	attemptPoll = 25 * time.Millisecond
)

// inForce says whether a token's attempt is the present one or, for boot bytes,
// the one that a boot which begins now belongs to, and returns the plan as it is
// then. It returns errRefused when that is over: a new attempt revokes the last
// one's tokens; and boot.ErrNotReady when it has not begun as far as is known here:
// the replica that opened it may not have told yet.
func (s *Server) inForce(ctx context.Context, p *boot.Plan, t boot.Token) (*boot.Plan, error) {
	if done, err := s.tried(p, t, s.attempts.Current(p)); done {
		return p, err
	}
	deadline := time.NewTimer(attemptWait)
	defer deadline.Stop()
	for {
		known, err := s.refresh(ctx, p)
		if err != nil {
			return p, err
		}
		if done, err := s.tried(p, t, known); done {
			return p, err
		}
		select {
		case <-time.After(attemptPoll):
		case <-deadline.C:
			return p, fmt.Errorf("%w: the boot attempt of this token, %d, is not known here yet", boot.ErrNotReady, t.Attempt)
		case <-ctx.Done():
			return p, fmt.Errorf("%w: waiting for a boot attempt: %w", boot.ErrUnavailable, ctx.Err())
		}
		now, err := s.source.ByObject(p.Object.UID)
		if err != nil {
			return p, fmt.Errorf("finding the machine of a token again: %w", err)
		}
		p = now
	}
}

// tried says whether what is known of a machine's attempts decides about a token.
func (s *Server) tried(p *boot.Plan, t boot.Token, known boot.Attempt) (bool, error) {
	switch {
	case s.isFor(p, t, known):
		return true, nil
	case t.Attempt < known.Number:
		return true, errRefused
	}
	return false, nil
}

func (s *Server) isFor(p *boot.Plan, t boot.Token, known boot.Attempt) bool {
	if t.Attempt == known.Number || t.Audience != boot.AudienceBoot {
		return t.Attempt == known.Number
	}
	coming, err := s.attempts.Coming(p)
	return err == nil && t.Attempt == coming.Number
}

// minimumProof is the plan's; a plan that was not told any asks for Address.
func minimumProof(p *boot.Plan) boot.Proof {
	if p.MinimumProof == boot.Unproven {
		return boot.Address
	}
	return p.MinimumProof
}

// provenBy returns the plans that accept this proof.
func provenBy(plans []*boot.Plan, proof boot.Proof) []*boot.Plan {
	return filter(plans, func(p *boot.Plan) bool { return proof >= minimumProof(p) })
}

// filter returns the plans to keep. It copies only where one is left out: the
// source's slices are shared.
func filter(plans []*boot.Plan, keep func(*boot.Plan) bool) []*boot.Plan {
	for i, p := range plans {
		if keep(p) {
			continue
		}
		out := append([]*boot.Plan(nil), plans[:i]...)
		for _, p := range plans[i+1:] {
			if keep(p) {
				out = append(out, p)
			}
		}
		return out
	}
	return plans
}

// names are what somebody calls a machine.
type names struct {
	macs  []boot.MAC
	uuids []boot.UUID
	addrs []netip.Addr
}

// byNames finds the machine that has these names. It returns errUnknown when
// none leads to one, and boot.ErrAmbiguous when they lead to different machines.
func (s *Server) byNames(n names) ([]*boot.Plan, error) {
	var found []*boot.Plan
	look := func(plans []*boot.Plan, err error) error {
		switch {
		case errors.Is(err, boot.ErrNotFound):
			return nil
		case err != nil:
			return fmt.Errorf("finding the machine of a name: %w", err)
		case found != nil && !sameMachine(found, plans):
			return fmt.Errorf("finding the machine of a name: %w", boot.ErrAmbiguous)
		}
		found = union(found, plans)
		return nil
	}
	for _, mac := range n.macs {
		if err := look(s.source.ByMAC(mac)); err != nil {
			return nil, err
		}
	}
	for _, uuid := range n.uuids {
		if err := look(s.source.ByUUID(uuid)); err != nil {
			return nil, err
		}
	}
	for _, addr := range n.addrs {
		if err := look(s.source.ByAddr(addr)); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, errUnknown
	}
	return found, nil
}

// union returns the plans of both answers. The source's slices are shared, so it
// copies where there is something to add.
func union(a, b []*boot.Plan) []*boot.Plan {
	if len(a) == 0 {
		return b
	}
	for _, p := range b {
		if !contains(a, p) {
			a = append(a[:len(a):len(a)], p)
		}
	}
	return a
}

// sameMachine says whether two answers of a source are about one machine: they
// share a plan or, where each kind of config lists something else of it, a name.
func sameMachine(a, b []*boot.Plan) bool {
	for _, p := range a {
		for _, q := range b {
			if p.Object.UID == q.Object.UID || shareName(p, q) {
				return true
			}
		}
	}
	return false
}

// shareName says whether configs of two kinds name one machine. Those of
// different namespaces may not speak for one machine together.
func shareName(p, q *boot.Plan) bool {
	if p.Object.Kind == q.Object.Kind || p.Object.Namespace != q.Object.Namespace {
		return false
	}
	a, b := p.Machine, q.Machine
	if a.UUID != "" && b.UUID != "" {
		return a.UUID == b.UUID
	}
	return slices.ContainsFunc(a.MACs, func(m boot.MAC) bool { return slices.Contains(b.MACs, m) })
}

func contains(plans []*boot.Plan, p *boot.Plan) bool {
	for _, q := range plans {
		if q.Object.UID == p.Object.UID {
			return true
		}
	}
	return false
}
