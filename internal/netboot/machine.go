package netboot

import (
	"errors"
	"slices"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// The kinds of objects that plans are made from.
const (
	kindHTTP = "HTTPBootConfig"
	kindIPXE = "IPXEBootConfig"
)

// candidate is a plan of the machine that asks. Only the MAC address is held
// against the frame, so a machine that is found by its UUID alone is not proven.
type candidate struct {
	plan  *boot.Plan
	byMAC bool
}

// machineOf finds the plans of a client. MAC address and UUID must not name two
// machines.
func (s *Server) machineOf(r request) ([]candidate, refusal) {
	byMAC, refused := found(s.options.Source.ByMAC(r.mac))
	if refused != "" {
		return nil, refused
	}
	var byUUID []*boot.Plan
	if r.uuid != "" {
		if byUUID, refused = found(s.options.Source.ByUUID(r.uuid)); refused != "" {
			return nil, refused
		}
	}
	candidates := make([]candidate, 0, 2)
	for _, p := range byMAC {
		if contradicts(p, r.uuid) {
			return nil, refusedIdentity
		}
		candidates = append(candidates, candidate{p, true})
	}
	for _, p := range byUUID {
		switch known := ofKind(candidates, p.Object.Kind); {
		case known.plan != nil && known.plan.Object.UID == p.Object.UID:
		case known.plan != nil || strangers(byMAC, p) || !sameMachine(byMAC, p, r.mac):
			return nil, refusedIdentity
		default:
			candidates = append(candidates, candidate{p, false})
		}
	}
	if len(candidates) == 0 {
		return nil, refusedUnknown
	}
	return candidates, ""
}

// found turns what a Source returns into plans or a refusal.
func found(plans []*boot.Plan, err error) ([]*boot.Plan, refusal) {
	switch {
	case err == nil:
		return plans, ""
	case errors.Is(err, boot.ErrNotFound):
		return nil, ""
	case errors.Is(err, boot.ErrAmbiguous):
		return nil, refusedAmbiguous
	}
	return nil, refusedUnavailable
}

// contradicts says that the plan is for a machine with another UUID.
func contradicts(p *boot.Plan, uuid boot.UUID) bool {
	return uuid != "" && p.Machine.UUID != "" && p.Machine.UUID != uuid && p.Machine.UUID != uuid.Swapped()
}

// strangers says whether a plan is of another namespace than the others: a tenant
// must not have a say in the boot of another's machine.
func strangers(byMAC []*boot.Plan, p *boot.Plan) bool {
	return slices.ContainsFunc(byMAC, func(q *boot.Plan) bool { return q.Object.Namespace != p.Object.Namespace })
}

// sameMachine says whether a plan that was found by UUID may be for the machine
// that the others, found by MAC address, are for: they know that UUID too, or it
// knows that MAC address, or none of the two says more than the other.
func sameMachine(byMAC []*boot.Plan, p *boot.Plan, mac boot.MAC) bool {
	if len(byMAC) == 0 || len(p.Machine.MACs) == 0 || slices.Contains(p.Machine.MACs, mac) {
		return true
	}
	return slices.ContainsFunc(byMAC, func(q *boot.Plan) bool { return q.Machine.UUID != "" })
}

// ofKind returns the zero candidate when there is none.
func ofKind(candidates []candidate, kind string) candidate {
	for _, c := range candidates {
		if c.plan.Object.Kind == kind {
			return c
		}
	}
	return candidate{}
}

// choose returns the plan that this kind of client boots by: firmware's HTTP Boot
// takes a UKI, iPXE rather a script, and a BIOS only a script.
func choose(r request, candidates []candidate) (candidate, refusal) {
	kinds := []string{kindIPXE, kindHTTP}
	switch {
	case r.kind == clientHTTP:
		kinds = kinds[1:]
	case r.firmware.bios:
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		if c := ofKind(candidates, kind); c.plan != nil {
			if a := c.plan.Machine.Architecture; a != "" && a != r.firmware.arch {
				return candidate{}, refusedArchitecture
			}
			return c, ""
		}
	}
	return candidate{}, refusedKind
}

// gate says why a boot cannot be offered by this plan, or which attempt it would
// belong to. While a URL that was set through the BMC is in force, the machine is
// offered nothing else, whichever of its plans that URL is for.
func (s *Server) gate(chosen candidate, all []candidate) (boot.Attempt, refusal) {
	for _, c := range all {
		if s.options.Attempts.Current(c.plan).Armed {
			return boot.Attempt{}, refusedArmed
		}
	}
	if chosen.plan.NotReady != "" {
		return boot.Attempt{}, refusedNotReady
	}
	a, err := s.options.Attempts.Coming(chosen.plan)
	return a, refusalOf(err)
}

// refusalOf is for the errors of Attempts and Issuer.
func refusalOf(err error) refusal {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, boot.ErrSpent):
		return refusedSpent
	case errors.Is(err, boot.ErrClosed):
		return refusedAborted
	case errors.Is(err, boot.ErrArmed):
		return refusedArmed
	case errors.Is(err, boot.ErrUnproven):
		return refusedUnproven
	case errors.Is(err, boot.ErrNotReady):
		return refusedNotReady
	}
	return refusedUnavailable
}
