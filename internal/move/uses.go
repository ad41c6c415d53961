package move

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// users are the kinds beside ours that are known to name Secrets. One that a
// cluster does not serve names none.
var users = []schema.GroupVersionKind{
	{Version: "v1", Kind: "Pod"},
	{Version: "v1", Kind: "ServiceAccount"},
	{Group: "apps", Version: "v1", Kind: "Deployment"},
	{Group: "apps", Version: "v1", Kind: "StatefulSet"},
	{Group: "apps", Version: "v1", Kind: "DaemonSet"},
	{Group: "batch", Version: "v1", Kind: "Job"},
	{Group: "batch", Version: "v1", Kind: "CronJob"},
	{Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"},
	{Group: "metal.ironcore.dev", Version: "v1alpha1", Kind: "ServerBootConfiguration"},
	{Group: "metal.ironcore.dev", Version: "v1alpha1", Kind: "ServerClaim"},
	{Group: "metal3.io", Version: "v1alpha1", Kind: "BareMetalHost"},
}

// findUses finds the Secrets that something else on the source needs: they are
// copied and stay. Where nobody could look, they stay too.
func (m *mover) findUses(ctx context.Context, p *plan) error {
	byNamespace := map[string][]*secret{}
	for _, s := range p.secrets {
		s.keep, s.later = "", false
		byNamespace[s.namespace] = append(byNamespace[s.namespace], s)
	}
	for namespace, secrets := range byNamespace {
		if err := m.findConfigUses(ctx, p, namespace, secrets); err != nil {
			return err
		}
		for _, s := range secrets {
			m.findOwnerUses(ctx, p, s)
		}
		for _, gvk := range users {
			m.findOtherUses(ctx, gvk, namespace, secrets)
		}
	}
	return nil
}

// findConfigUses finds configs that are not moved.
func (m *mover) findConfigUses(ctx context.Context, p *plan, namespace string, secrets []*secret) error {
	for _, kind := range kinds {
		_, err := m.source.list(ctx, key{kind: kind}.gvk(), []string{namespace}, func(u *unstructured.Unstructured) {
			if p.moves(keyOf(u)) {
				return
			}
			for _, name := range secretsOf(u) {
				if s := keepFor(secrets, name, keyOf(u).String()+" names it"); s != nil {
					s.later = u.GetDeletionTimestamp() != nil
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// findOwnerUses finds owners that stay.
func (m *mover) findOwnerUses(ctx context.Context, p *plan, s *secret) {
	for _, ref := range s.source.GetOwnerReferences() {
		if p.moves(key{ref.Kind, s.namespace, ref.Name}) {
			continue
		}
		o, err := m.source.owner(ctx, ref, s.namespace)
		switch {
		case err != nil:
			s.keepBecause(fmt.Sprintf("its owner could not be looked for: %v", err))
		case o != nil && o.GetUID() == ref.UID:
			s.keepBecause(fmt.Sprintf("%s %s owns it", ref.Kind, ref.Name))
		}
	}
}

// findOtherUses finds objects of other kinds.
func (m *mover) findOtherUses(ctx context.Context, gvk schema.GroupVersionKind, namespace string, secrets []*secret) {
	_, err := m.source.list(ctx, gvk, []string{namespace}, func(u *unstructured.Unstructured) {
		for field, value := range u.Object {
			if field != "metadata" && field != "status" {
				names(value, func(text string) { _ = keepFor(secrets, text, keyOf(u).String()+" names it") })
			}
		}
	})
	if err != nil {
		for _, s := range secrets {
			s.keepBecause(fmt.Sprintf("nobody could see whether a %s names it: %v", gvk.Kind, err))
		}
	}
}

// names calls each with every text in value. Any field may name a Secret; one
// that happens to hold the same word costs no more than a Secret that stays.
func names(value any, each func(string)) {
	switch v := value.(type) {
	case string:
		each(v)
	case []any:
		for _, item := range v {
			names(item, each)
		}
	case map[string]any:
		for _, item := range v {
			names(item, each)
		}
	}
}

// keepFor keeps the Secret of this name, and returns it if this is the first
// reason to.
func keepFor(secrets []*secret, name, why string) *secret {
	i := slices.IndexFunc(secrets, func(s *secret) bool { return s.name == name })
	if i < 0 || !secrets[i].keepBecause(why) {
		return nil
	}
	return secrets[i]
}

// keepBecause notes the first reason, and says whether this is one. A reason
// that will stay counts more than one that is going away.
func (s *secret) keepBecause(why string) bool {
	if s.keep != "" && !s.later {
		return false
	}
	s.keep, s.later = why, false
	return true
}
