package inventory

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// namespaces knows which may claim machines by their labels, and who is in
// them. It is empty where no label decides.
type namespaces struct {
	allowed map[string]bool
	entries map[string]map[*entry]struct{}
}

func newNamespaces(o Options) namespaces {
	if o.ClaimNamespaceSelector == nil {
		return namespaces{}
	}
	return namespaces{allowed: map[string]bool{}, entries: map[string]map[*entry]struct{}{}}
}

func (n *namespaces) insert(e *entry) {
	if n.entries == nil {
		return
	}
	ns := e.plan.Object.Namespace
	if n.entries[ns] == nil {
		n.entries[ns] = map[*entry]struct{}{}
	}
	n.entries[ns][e] = struct{}{}
}

func (n *namespaces) remove(e *entry) {
	ns := e.plan.Object.Namespace
	delete(n.entries[ns], e)
	if len(n.entries[ns]) == 0 {
		delete(n.entries, ns)
	}
}

// MayClaim says whether configs of this namespace may claim machines: all may
// if the options name none, else those that are listed or have the labels.
func (i *Inventory) MayClaim(namespace string) bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.mayClaim(namespace)
}

func (i *Inventory) mayClaim(namespace string) bool {
	o := &i.options
	if len(o.ClaimNamespaces) == 0 && o.ClaimNamespaceSelector == nil {
		return true
	}
	return slices.Contains(o.ClaimNamespaces, namespace) || i.namespaces.allowed[namespace]
}

func (i *Inventory) putNamespace(ns *corev1.Namespace) {
	i.allow(ns.Name, i.options.ClaimNamespaceSelector.Matches(labels.Set(ns.Labels)))
}

func (i *Inventory) removeNamespace(name string) { i.allow(name, false) }

// allow decides about a namespace anew; everyone in it begins or ceases to
// claim.
func (i *Inventory) allow(namespace string, allowed bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	before := i.mayClaim(namespace)
	if allowed {
		i.namespaces.allowed[namespace] = true
	} else {
		delete(i.namespaces.allowed, namespace)
	}
	if i.mayClaim(namespace) == before {
		return
	}
	var doubt []*entry
	for e := range i.namespaces.entries[namespace] {
		doubt = append(doubt, i.detach(e)...)
		doubt = append(doubt, e)
		if i.claims(e) {
			i.attach(e)
		}
		i.changes.tell(e.plan.Object)
	}
	i.settle(doubt)
}
