package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
	"github.com/boot-operator/boot-operator/internal/phase"
)

// identify says whether the machine of a config will be known when it asks, and
// may be claimed.
func (r *reconciler) identify(_ context.Context, cfg v1alpha1.Config) error {
	if by, paused := cfg.GetAnnotations()[v1alpha1.PausedAnnotation]; paused {
		r.forget(keyOf(cfg))
		return phase.Hold(v1alpha1.ReasonPaused, fmt.Errorf("the annotation %s (%q) keeps the operator from doing or serving anything for this config; remove it to go on", v1alpha1.PausedAnnotation, by))
	}
	if !r.Claims.MayClaim(cfg.GetNamespace()) {
		r.forget(keyOf(cfg))
		cfg.ConfigStatus().Artifacts = nil
		return phase.Halt(v1alpha1.ReasonNamespaceMayNotClaim, fmt.Errorf("namespace %s may not claim machines; an administrator allows it by the operator's flags --claim-namespaces or --claim-namespace-selector", cfg.GetNamespace()))
	}
	machine, err := claim.Machine(cfg, r.Architecture)
	if err != nil {
		return phase.Terminal(v1alpha1.ReasonInvalidIdentity, err)
	}
	if machine.UUID == "" && len(machine.MACs) == 0 && len(machine.Addrs) == 0 {
		return phase.Terminal(v1alpha1.ReasonNoIdentity, errors.New("nothing says which machine this is for: set spec.systemUUID or an IP or MAC address in spec.networkIdentifiers"))
	}
	if with, identifier, conflict := r.Claims.Conflict(cfg); conflict {
		return phase.Terminal(v1alpha1.ReasonIdentityConflict, fmt.Errorf("%s is claimed by the older %s; the older one keeps it: take the identifier out of one of them, or delete one", identifier, with))
	}
	return r.provable(cfg, machine)
}

// provable says whether there is a path on which the machine can prove enough.
func (r *reconciler) provable(cfg v1alpha1.Config, machine boot.Machine) error {
	minimum := r.MinimumProof
	if p := cfg.Common().MinimumProof; p != "" {
		parsed, err := boot.ParseProof(string(p))
		if err != nil {
			return phase.Terminal(v1alpha1.ReasonInvalidIdentity, fmt.Errorf("spec.minimumProof: %w", err))
		}
		minimum = parsed
	}
	best, known := r.bestProof(machine)
	reason := v1alpha1.ReasonIdentifiable
	if pins := pinnedProof(cfg); pins > best {
		if best < max(minimum, boot.Address) {
			reason = v1alpha1.ReasonIdentifiedByBMC
		}
		best, known = pins, "known by the URL with a token that is set through its BMC ("+cfg.ConfigStatus().Boot.PinsURL+")"
	}
	switch {
	case minimum == boot.Claimed && best < boot.Address && countsDeliveries(cfg):
		return phase.Terminal(v1alpha1.ReasonNoPathNamesThisMachine, errors.New("bootPolicy Once counts what is delivered to the proven machine, and nothing proves it: add an IP address to spec.networkIdentifiers, or set spec.bootPolicy to Always"))
	case minimum == boot.Claimed:
		return phase.Done(v1alpha1.ReasonIdentifiedByClaim, "minimumProof is Claimed: whoever says this machine's UUID or MAC address gets what it gets, secrets too").Warn()
	case best >= minimum && minimum > boot.Proxy && asksWithoutToken(cfg):
		return phase.Done(reason, "%s; but a UKI asks for its Ignition by its address alone, which proves Proxy at most, and minimumProof %s refuses that: set it to Proxy, or use an IPXEBootConfig, whose script has a token in it", known, minimum).Warn()
	case best >= minimum:
		return phase.Done(reason, "%s", known)
	}
	return phase.Terminal(v1alpha1.ReasonNoPathNamesThisMachine, errors.New(r.noPath(minimum)))
}

// bestProof is the strongest proof that this operator can get of a machine, and
// how.
func (r *reconciler) bestProof(machine boot.Machine) (boot.Proof, string) {
	named := len(machine.MACs) > 0
	switch {
	case named && r.Netboot && r.NetbootRelays:
		return boot.Relay, "known by its MAC address, which the operator's ProxyDHCP or a trusted relay sees"
	case named && r.Netboot:
		return boot.Proxy, "known by its MAC address, which the operator's ProxyDHCP sees"
	case len(machine.Addrs) > 0:
		return boot.Address, "known by its address: " + join(machine)
	case named && r.TrustedDHCP:
		return boot.Address, "known by what a trusted DHCP server says of its MAC address"
	}
	return boot.Unproven, ""
}

// pinnedProof is what a URL proves that is set through the machine's BMC.
func pinnedProof(cfg v1alpha1.Config) boot.Proof {
	b := cfg.ConfigStatus().Boot
	if b == nil || b.PinsURL == "" {
		return boot.Unproven
	}
	proof, err := boot.ParseProof(b.PinsProof)
	if err != nil {
		return boot.Unproven
	}
	return proof
}

// countsDeliveries says whether a config may boot its machine only once over
// HTTP. What is fetched by digest, from an address that nobody lists, is public
// and counted for nobody.
func countsDeliveries(cfg v1alpha1.Config) bool {
	return cfg.Kind() == v1alpha1.KindHTTPBootConfig && cfg.Common().BootPolicy == v1alpha1.BootPolicyOnce
}

// asksWithoutToken says whether the machine asks for a document that no URL with a
// token leads to: the command line of a UKI was made when its image was.
func asksWithoutToken(cfg v1alpha1.Config) bool {
	ref := cfg.Common().IgnitionSecretRef
	return cfg.Kind() == v1alpha1.KindHTTPBootConfig && ref != nil && ref.Name != ""
}

// noPath says how to fix a config whose machine cannot prove enough.
func (r *reconciler) noPath(minimum boot.Proof) string {
	var ways []string
	offers := "let the operator offer the boot itself (--netboot-interface, and --netboot-relays for other networks) and list a MAC address of the machine"
	if r.Netboot {
		offers = "list a MAC address of the machine, which the operator's ProxyDHCP will see"
	}
	switch minimum {
	case boot.Address:
		ways = []string{"add an IP address that it will have (by a DHCP reservation) to spec.networkIdentifiers", offers}
		if !r.TrustedDHCP {
			ways = append(ways, "let a DHCP server that the operator trusts (--trusted-dhcp) ask on its behalf")
		}
		ways = append(ways, "set spec.minimumProof to Claimed, which believes anyone")
		return "a UUID or a MAC address does not show who is asking: " + strings.Join(ways, "; or ")
	case boot.Proxy:
		ways = []string{offers}
	case boot.Relay:
		ways = []string{"name the DHCP relays that the operator trusts (--netboot-relays) and list a MAC address of the machine"}
	}
	ways = append(ways, "set spec.minimumProof to Address and list an IP address of the machine")
	return fmt.Sprintf("minimumProof is %s, and this operator cannot get that proof of this machine: %s", minimum, strings.Join(ways, "; or "))
}

func join(machine boot.Machine) string {
	texts := make([]string, 0, 4)
	for i, a := range machine.Addrs {
		if i == 3 {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}
