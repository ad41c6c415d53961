package httpserver

import (
	"context"
	"errors"
	"fmt"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// identity is a machine and how we know that it is the one that asks.
type identity struct {
	// plans are those that accept the proof, at most one of each kind.
	plans []*boot.Plan
	proof boot.Proof
}

// identify finds the machine that asks: by its token, else by its address. It
// returns errUnknown when nothing names a machine, errRefused when the proof
// is wrong or too weak, and the source's error otherwise. A token that is not
// valid is never made good by an address.
func (s *Server) identify(x *exchange, audience boot.Audience) (identity, error) {
	if x.hasToken {
		return s.byToken(x.r.Context(), x.token, audience)
	}
	return s.byAddr(x.peer)
}

func (s *Server) byAddr(p peer) (identity, error) {
	if !p.addr.IsValid() || p.proxy || p.dhcp || s.source.ProvesNothing(p.addr) {
		return identity{}, errUnknown
	}
	plans, err := s.source.ByAddr(p.addr)
	switch {
	case errors.Is(err, boot.ErrNotFound):
		return identity{}, errUnknown
	case err != nil:
		return identity{}, fmt.Errorf("finding the machine at %s: %w", p.addr, err)
	}
	plans = provenBy(plans, boot.Address)
	if len(plans) == 0 {
		return identity{}, errRefused
	}
	return identity{plans: plans, proof: boot.Address}, nil
}

func (s *Server) byToken(ctx context.Context, token string, audience boot.Audience) (identity, error) {
	if s.keyring == nil {
		return identity{}, errRefused
	}
	t, err := s.keyring.Verify(token, audience, s.now())
	if err != nil {
		return identity{}, errRefused
	}
	plan, err := s.source.ByObject(string(t.Object))
	switch {
	case errors.Is(err, boot.ErrNotFound):
		return identity{}, errRefused
	case err != nil:
		return identity{}, fmt.Errorf("finding the machine of a token: %w", err)
	}
	a := s.attempts.Current(plan)
	if t.Attempt > a.Number {
		// Another replica may have opened the attempt that this one is for.
		if a, err = s.refresh(ctx, plan); err != nil {
			return identity{}, err
		}
	}
	if t.Attempt != a.Number || t.Proof < minimumProof(plan) {
		return identity{}, errRefused
	}
	return identity{plans: []*boot.Plan{plan}, proof: t.Proof}, nil
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

// onBehalfOf finds the machine that a trusted DHCP server names. Names that
// lead to different machines are ambiguous.
func (s *Server) onBehalfOf(p peer) ([]*boot.Plan, error) {
	var found []*boot.Plan
	look := func(plans []*boot.Plan, err error) error {
		switch {
		case errors.Is(err, boot.ErrNotFound):
			return nil
		case err != nil:
			return fmt.Errorf("finding the machine that a DHCP server named: %w", err)
		case found != nil && !sameMachine(found, plans):
			return fmt.Errorf("finding the machine that a DHCP server named: %w", boot.ErrAmbiguous)
		case len(plans) > len(found):
			found = plans
		}
		return nil
	}
	for _, mac := range p.macs {
		if err := look(s.source.ByMAC(mac)); err != nil {
			return nil, err
		}
	}
	for _, addr := range p.addrs {
		if err := look(s.source.ByAddr(addr)); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, errUnknown
	}
	return found, nil
}

// sameMachine says whether two answers of a source share a plan.
func sameMachine(a, b []*boot.Plan) bool {
	for _, p := range a {
		if contains(b, p) {
			return true
		}
	}
	return false
}

func contains(plans []*boot.Plan, p *boot.Plan) bool {
	for _, q := range plans {
		if q.Object.UID == p.Object.UID {
			return true
		}
	}
	return false
}
