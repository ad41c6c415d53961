package inventory

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// Strip is a cache transform (cache.Options.DefaultTransform) that drops what
// nobody here reads: managed fields and kubectl's copy of the object from
// everything, all but addresses from nodes, all but labels from namespaces.
// Texts that many configs repeat are kept once. What it returns must not be
// written back with an update; apply and patch are fine.
func Strip(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
		if a := o.GetAnnotations(); a[corev1.LastAppliedConfigAnnotation] != "" {
			delete(a, corev1.LastAppliedConfigAnnotation)
			o.SetAnnotations(a)
		}
	}
	switch o := obj.(type) {
	case *corev1.Node:
		return stripNode(o), nil
	case *corev1.Namespace:
		return &corev1.Namespace{TypeMeta: o.TypeMeta, ObjectMeta: named(o.ObjectMeta, o.Labels)}, nil
	case *v1alpha1.HTTPBootConfig:
		share(&o.Spec.Image, &o.Spec.UKIURL, (*string)(&o.Spec.Architecture), (*string)(&o.Spec.BootPolicy))
		shareAll(o.Spec.KernelArguments)
		if o.Spec.Compose != nil {
			share(&o.Spec.Compose.InitrdImage)
		}
	case *v1alpha1.IPXEBootConfig:
		share(&o.Spec.Image, &o.Spec.KernelURL, &o.Spec.InitrdURL, &o.Spec.SquashfsURL, (*string)(&o.Spec.Architecture), (*string)(&o.Spec.BootPolicy))
		shareAll(o.Spec.KernelArguments)
		o.Spec.ScriptTemplate = templates.share(o.Spec.ScriptTemplate)
	}
	if cfg, ok := obj.(v1alpha1.Config); ok {
		shareStatus(cfg.ConfigStatus())
	}
	return obj, nil
}

func stripNode(n *corev1.Node) *corev1.Node {
	return &corev1.Node{
		TypeMeta:   n.TypeMeta,
		ObjectMeta: named(n.ObjectMeta, nil),
		Spec:       corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{Addresses: n.Status.Addresses},
	}
}

// named keeps what an informer needs to know an object.
func named(m metav1.ObjectMeta, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp, Labels: labels,
	}
}

func shareStatus(s *v1alpha1.ConfigStatus) {
	for n := range s.Artifacts {
		a := &s.Artifacts[n]
		share((*string)(&a.Role), &a.Digest, &a.Source, &a.URL)
	}
	for n := range s.Conditions {
		c := &s.Conditions[n]
		share(&c.Type, (*string)(&c.Status), &c.Reason, &c.Message)
	}
	if s.Boot != nil {
		shareBoot(s.Boot)
	}
	if s.Composed != nil {
		share(&s.Composed.Signer) // all else is the machine's own
	}
	if s.Verification != nil {
		shareVerification(s.Verification)
	}
}

func shareVerification(v *v1alpha1.VerificationStatus) {
	if i := v.Image; i != nil {
		share(&i.Subject, (*string)(&i.Signed), &i.Format, &i.Signer, &i.Attestation)
	}
	if u := v.UKI; u != nil {
		share(&u.Digest, &u.Signer, &u.Certificate, &u.TrustedBy)
	}
}

func shareBoot(b *v1alpha1.BootStatus) {
	share(&b.OpenedBy, &b.Proof)
	for n := range b.Stages {
		s := &b.Stages[n]
		share((*string)(&s.Name), &s.Proof, &s.Digest)
	}
	if b.Served != nil {
		share(&b.Served.Digest)
	}
	if b.Offer != nil {
		share(&b.Offer.Firmware)
	}
	if p := b.RelayPort; p != nil {
		share(&p.RelayAddress, &p.RemoteID)
	}
}

// texts holds one copy of what configs repeat: digests, sources, messages;
// templates holds the script templates, which are few and long.
var (
	texts     = interner{known: map[string]string{}, most: 16 << 10, longest: 1 << 10}
	templates = interner{known: map[string]string{}, most: 256, longest: 64 << 10}
)

// interner gives equal texts one copy. It forgets everything when it is full:
// then some texts are there twice, and nothing else happens.
type interner struct {
	// most is how many distinct texts are known before all are forgotten, longest
	// how many bytes a text may have that is worth sharing.
	most, longest int

	mu    sync.Mutex
	known map[string]string
}

func (n *interner) share(t string) string {
	if t == "" || len(t) > n.longest {
		return t
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if known, ok := n.known[t]; ok {
		return known
	}
	if len(n.known) >= n.most {
		clear(n.known)
	}
	n.known[t] = t
	return t
}

func shareAll(all []string) {
	for n := range all {
		share(&all[n])
	}
}

func share(all ...*string) {
	for _, t := range all {
		*t = texts.share(*t)
	}
}
