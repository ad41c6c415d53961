package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// maxEach is of how many machines that are well a line each is printed; of more only
// the number is.
const maxEach = 20

// checkProofs says by what each machine would be known.
func checkProofs(_ context.Context, d *doctor) []finding {
	if d.noCluster != nil {
		return []finding{skip("by what machines would be known: %v", d.noCluster)}
	}
	var all []finding
	for _, m := range d.machines {
		for _, c := range m.Configs {
			if _, paused := c.GetAnnotations()[v1alpha1.PausedAnnotation]; !paused {
				all = append(all, proofFindings(c)...)
			}
		}
	}
	if len(all) == 0 {
		return []finding{skip("there are no configs in %s", d.fleet.where())}
	}
	return fold(all, "%d machines would be known well enough.")
}

// fold counts findings that are well, where they are many.
func fold(all []finding, format string) []finding {
	n := count(all, levelOK)
	if n <= maxEach {
		return all
	}
	all = slices.DeleteFunc(all, func(f finding) bool { return f.Level == levelOK })
	return append([]finding{ok(format, n)}, all...)
}

// proofFindings says by what the machine of one config would be known, and what is in
// the way.
func proofFindings(c v1alpha1.Config) []finding {
	name := fmt.Sprintf("%s %s/%s", c.Kind(), c.GetNamespace(), c.GetName())
	conditions := c.ConfigStatus().Conditions
	known := meta.FindStatusCondition(conditions, v1alpha1.ConditionIdentifiable)
	all := []finding{identity(c, name, known)}
	for _, t := range []struct{ condition, do string }{
		{v1alpha1.ConditionClientAddressAmbiguous, "let machines reach the operator with their own addresses: externalTrafficPolicy: Local, hostNetwork, or PROXY protocol"},
		{v1alpha1.ConditionForeignBootOffer, "take the boot options for this machine out of that DHCP server; --interface shows what is offered"},
	} {
		if found := meta.FindStatusCondition(conditions, t.condition); found != nil && found.Status == metav1.ConditionTrue {
			all = append(all, fail(t.do, "%s: %s", name, found.Message))
		}
	}
	return all
}

// identity says whether the machine of a config would be known.
func identity(c v1alpha1.Config, name string, known *metav1.Condition) finding {
	minimum := cmp.Or(string(c.Common().MinimumProof), "that of the operator")
	switch {
	case known == nil || known.Status == metav1.ConditionUnknown:
		return warn("see whether an operator runs", "%s: no operator has looked at it.", name)
	case known.Status == metav1.ConditionFalse:
		return fail("bootctl explain "+c.GetName()+" -n "+c.GetNamespace(), "%s: %s (%s)", name, known.Message, known.Reason)
	case known.Reason == v1alpha1.ReasonIdentifiedByClaim:
		return warn("list an IP address of the machine, and take minimumProof away", "%s: %s", name, known.Message)
	}
	proof := reachable(c)
	if proof == boot.Unproven {
		return ok("%s: %s; asked for is %s.", name, known.Message, minimum)
	}
	return ok("%s: proof %s, %s; asked for is %s.", name, proof, known.Message, minimum)
}

// reachable is the proof that the machine would reach by what is known of it: a URL in
// its BMC, where it was seen before, the addresses that are listed.
func reachable(c v1alpha1.Config) boot.Proof {
	best := boot.Unproven
	take := func(p boot.Proof, err error) {
		if err == nil && p > best {
			best = p
		}
	}
	machine, _ := claim.Machine(c, "") // what cannot be read does not name it
	if len(machine.Addrs) > 0 {
		take(boot.Address, nil)
	}
	b := c.ConfigStatus().Boot
	if b == nil {
		return best
	}
	switch {
	case b.RelayPort != nil:
		take(boot.Relay, nil)
	case b.Offer != nil:
		take(boot.Proxy, nil)
	}
	if b.PinsURL != "" {
		take(boot.ParseProof(b.PinsProof))
	}
	return best
}
