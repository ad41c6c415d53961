package move

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func asStatus(err error, status *apierrors.APIStatus) bool { return errors.As(err, status) }

// owner finds what an owner reference of an object in this namespace names. It
// returns nil where the cluster has no such object or does not serve its kind.
func (c cluster) owner(ctx context.Context, ref metav1.OwnerReference, namespace string) (*metav1.PartialObjectMetadata, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // nothing has such a kind
	}
	// The cluster may serve another version of the same kind.
	mapping, err := c.RESTMapper().RESTMapping(gv.WithKind(ref.Kind).GroupKind())
	if meta.IsNoMatchError(err) {
		return nil, nil //nolint:nilnil // see above
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s of %s on the %s: %w", ref.Kind, ref.APIVersion, c.name, err)
	}
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(mapping.GroupVersionKind)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		namespace = ""
	}
	err = c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, o)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // see above
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s %s, which owns objects, on the %s: %w", ref.Kind, ref.Name, c.name, err)
	}
	o.SetGroupVersionKind(mapping.GroupVersionKind) // a client takes it out
	return o, nil
}

// ownersOn returns the owner references that the copy of an object has on the
// target: to the same owners there, which have other UIDs. Those without one
// come second.
func (m *mover) ownersOn(ctx context.Context, source *unstructured.Unstructured) (kept, missing []metav1.OwnerReference, err error) {
	for _, ref := range source.GetOwnerReferences() {
		o, err := m.target.owner(ctx, ref, source.GetNamespace())
		if err != nil {
			return nil, nil, err
		}
		if o == nil || o.GetDeletionTimestamp() != nil {
			missing = append(missing, ref)
			continue
		}
		ref.UID, ref.APIVersion = o.GetUID(), o.GroupVersionKind().GroupVersion().String()
		kept = append(kept, ref)
	}
	return kept, missing, nil
}

// checkOwners finds owners that the target lacks and that are not moved
// themselves: refused or noted, as asked.
func (m *mover) checkOwners(ctx context.Context, p *plan) error {
	for _, source := range p.copied() {
		_, missing, err := m.ownersOn(ctx, source)
		if err != nil {
			return err
		}
		for _, ref := range missing {
			if p.moves(key{ref.Kind, source.GetNamespace(), ref.Name}) {
				continue
			}
			if m.RequireOwners {
				p.refuse("%s is owned by %s %s, which the target does not have: move or create that first, or leave out --require-owners to move without it", keyOf(source), ref.Kind, ref.Name)
				continue
			}
			p.note(keyOf(source), "loses its owner %s %s, which the target does not have", ref.Kind, ref.Name)
		}
	}
	return nil
}

// copied are the objects whose copies on the target are this run's to make or
// complete.
func (p *plan) copied() []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, s := range p.secrets {
		if s.needed {
			out = append(out, s.source)
		}
	}
	for _, c := range p.configs {
		if c.stage != stageTaken {
			out = append(out, c.source)
		}
	}
	return out
}

// linkOwners points owner references at the target's owners, which exist by now
// even where they were moved themselves.
func (m *mover) linkOwners(ctx context.Context, p *plan) error {
	for _, source := range p.copied() {
		if len(source.GetOwnerReferences()) == 0 {
			continue
		}
		want, _, err := m.ownersOn(ctx, source)
		if err != nil {
			return err
		}
		_, err = m.target.amend(ctx, keyOf(source), func(u *unstructured.Unstructured) (bool, error) {
			if u.GetKind() == kindSecret && !markedFrom(u, source) {
				return false, nil // the target had it before
			}
			have := u.GetOwnerReferences()
			next := addOwners(have, want)
			if equality.Semantic.DeepEqual(have, next) {
				return false, nil
			}
			m.Log("  %s: owners", keyOf(source))
			u.SetOwnerReferences(next)
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addOwners adds the references that are missing. What the target's object has
// besides is the target's; of two controllers only the first can be one.
func addOwners(have, want []metav1.OwnerReference) []metav1.OwnerReference {
	out := append([]metav1.OwnerReference(nil), have...)
	for _, ref := range want {
		known := false
		for _, h := range have {
			known = known || h.UID == ref.UID
		}
		if known {
			continue
		}
		if ref.Controller != nil && *ref.Controller && metav1.GetControllerOfNoCopy(&metav1.ObjectMeta{OwnerReferences: out}) != nil {
			ref.Controller = nil
		}
		out = append(out, ref)
	}
	return out
}
