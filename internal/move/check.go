package move

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// identity is one identifier of a machine, as a config of this kind claims it.
type identity struct{ kind, what string }

// identities returns what a config claims; both byte orders of a UUID are one
// machine. What cannot be read claims nothing.
func identities(u *unstructured.Unstructured) ([]identity, error) {
	cfg, err := typed(u)
	if err != nil {
		return nil, err
	}
	machine, _ := claim.Machine(cfg, "")
	var out []identity
	if machine.UUID != "" {
		uuid := machine.UUID
		if s := uuid.Swapped(); s < uuid {
			uuid = s
		}
		out = append(out, identity{cfg.Kind(), "the UUID " + string(uuid)})
	}
	for _, mac := range machine.MACs {
		out = append(out, identity{cfg.Kind(), "the MAC address " + string(mac)})
	}
	for _, addr := range machine.Addrs {
		out = append(out, identity{cfg.Kind(), "the IP address " + boot.CanonicalAddr(addr).String()})
	}
	return out, nil
}

// checkIdentities refuses configs that claim a machine which another config
// claims too: of two the older wins, and on the target the ages are others.
func (m *mover) checkIdentities(ctx context.Context, p *plan) error {
	claimed := map[identity]string{}
	for _, c := range p.configs {
		ids, err := identities(c.source)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if other, taken := claimed[id]; taken {
				p.refuse("%s and %s of the source both claim %s: only the older is served, and which one that is could change; delete one of them", c.key, other, id.what)
				break
			}
			claimed[id] = c.String()
		}
	}
	for _, kind := range kinds {
		_, err := m.target.list(ctx, key{kind: kind}.gvk(), nil, func(u *unstructured.Unstructured) {
			checkClaim(p, claimed, u)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkClaim refuses a config of the target that claims what is to be moved.
func checkClaim(p *plan, claimed map[identity]string, u *unstructured.Unstructured) {
	if u.GetDeletionTimestamp() != nil || p.moves(keyOf(u)) {
		return
	}
	ids, err := identities(u)
	if err != nil {
		return // what nobody can read, nobody serves
	}
	for _, id := range ids {
		if other, taken := claimed[id]; taken {
			p.refuse("%s on the target claims %s, as %s of the source does: delete one of them", keyOf(u), id.what, other)
			return
		}
	}
}

// checkAdmission lets the target's API server say whether it would take what is
// new there. It writes nothing.
func (m *mover) checkAdmission(ctx context.Context, p *plan) error {
	for _, ns := range p.namespaces {
		if err := m.admit(ctx, p, key{kind: "Namespace", name: ns.Name}, ns.DeepCopy()); err != nil {
			return err
		}
	}
	for _, s := range p.secrets {
		if !s.onTarget {
			if err := m.admit(ctx, p, s.key, m.rehearsal(p, copyOf(s.source))); err != nil {
				return err
			}
		}
	}
	for _, c := range p.configs {
		if c.stage == stageNew {
			if err := m.admit(ctx, p, c.key, m.rehearsal(p, copyOf(c.source))); err != nil {
				return err
			}
		}
	}
	return nil
}

// rehearsal is an object that can be tried although its namespace is not there
// yet: in another, under a name that nobody has.
func (m *mover) rehearsal(p *plan, u *unstructured.Unstructured) *unstructured.Unstructured {
	pauseFor(u, m.id) // nothing that looks at it must take it for a live one
	for _, ns := range p.namespaces {
		if ns.Name == u.GetNamespace() {
			u.SetNamespace(metav1.NamespaceDefault)
			u.SetGenerateName(u.GetName() + "-")
			u.SetName("")
		}
	}
	return u
}

func (m *mover) admit(ctx context.Context, p *plan, k key, o client.Object) error {
	err := m.target.Create(ctx, o, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict), client.FieldOwner(FieldManager))
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case asStatus(err, &status) && slices.Contains([]int32{400, 403, 404, 409, 422}, status.Status().Code):
		p.refuse("%s: the target would refuse it: %v", k, err)
		return nil
	}
	return fmt.Errorf("trying %s on the target: %w", k, err)
}
