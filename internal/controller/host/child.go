package host

import (
	"context"
	"errors"
	"fmt"
	"maps"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/translate"
)

// hostKind is the kind of a child's owner.
var hostKind = metal3.GroupVersion.WithKind("BareMetalHost")

// imageAnnotation, on a child, says what the host named when the child was made.
const imageAnnotation = "boot.ironcore.dev/host-image"

// argumentsAnnotation, on a child, says that its kernel arguments are the host's.
const argumentsAnnotation = "boot.ironcore.dev/host-kernel-arguments"

// errNameTaken: the name of a child is taken by an object of somebody else's.
var errNameTaken = errors.New("the name is taken")

// child is an HTTPBootConfig or an IPXEBootConfig of a host.
type child interface {
	v1alpha1.Config
	client.Object
}

// children are those that a host has, the one that holds the record of its boots
// first.
type children []child

var childKinds = []func() child{
	func() child { return &v1alpha1.HTTPBootConfig{} },
	func() child { return &v1alpha1.IPXEBootConfig{} },
}

// children reads the host's children.
func (v *visit) children(ctx context.Context) (children, error) {
	var all children
	for _, kind := range childKinds {
		c := kind()
		err := v.client.Get(ctx, client.ObjectKeyFromObject(v.host), c)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("reading %s %s/%s: %w", c.Kind(), v.host.Namespace, v.host.Name, err)
		case metav1.IsControlledBy(c, v.host):
			all = append(all, c)
		}
	}
	return all, nil
}

// kind returns the child of this kind, or nil.
func (all children) kind(kind string) child {
	for _, c := range all {
		if c.Kind() == kind {
			return c
		}
	}
	return nil
}

// record is the last boot that was asked for through the BMC; nil: none was.
func (all children) record() *v1alpha1.NetworkBoot {
	if len(all) == 0 || all[0].ConfigStatus().Boot == nil {
		return nil
	}
	return all[0].ConfigStatus().Boot.NetworkBoot
}

// create makes a child, whose spec is there, with annotations beside those that it has.
func (v *visit) create(ctx context.Context, c child, annotations map[string]string) error {
	c.SetNamespace(v.host.Namespace)
	c.SetName(v.host.Name)
	for key, value := range annotations {
		annotate(c, key, value)
	}
	isController := true
	// No blockOwnerDeletion: that takes a right to the owner's finalizers.
	c.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: hostKind.GroupVersion().String(), Kind: hostKind.Kind,
		Name: v.host.Name, UID: v.host.UID, Controller: &isController,
	}})
	err := v.client.Create(ctx, c, client.FieldOwner(FieldManager))
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("%w: %s %s/%s exists and is not this host's; rename or delete one of them", errNameTaken, c.Kind(), v.host.Namespace, v.host.Name)
	}
	if err != nil {
		return fmt.Errorf("creating %s %s/%s: %w", c.Kind(), v.host.Namespace, v.host.Name, err)
	}
	return nil
}

// changeChild writes spec and metadata of a child where edit changes them, and says
// whether it did.
func (v *visit) changeChild(ctx context.Context, c child, edit func(child)) (bool, error) {
	before, ok := c.DeepCopyObject().(child)
	if !ok {
		return false, fmt.Errorf("a copy of %T is none", c)
	}
	edit(c)
	if equality.Semantic.DeepEqual(before, c) {
		return false, nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := v.client.Patch(ctx, c, patch, client.FieldOwner(FieldManager)); err != nil {
		return false, behind(fmt.Errorf("changing %s %s/%s: %w", c.Kind(), c.GetNamespace(), c.GetName(), err))
	}
	return true, nil
}

// translated makes a child what its host says. Kernel arguments that somebody gave the
// child itself stay for as long as the host has none; those of the host go with its
// annotation.
func translated(c child, b translate.HostBoot, m translate.Machine, arch boot.Architecture) {
	_, hosts := c.GetAnnotations()[argumentsAnnotation]
	switch {
	case b.KernelArguments != nil:
		annotate(c, argumentsAnnotation, "")
	case hosts:
		b.KernelArguments = []string{}
		all := maps.Clone(c.GetAnnotations())
		delete(all, argumentsAnnotation)
		c.SetAnnotations(all)
	}
	switch c := c.(type) {
	case *v1alpha1.HTTPBootConfig:
		translate.HTTPFromHost(b, m, arch, &c.Spec)
	case *v1alpha1.IPXEBootConfig:
		translate.IPXEFromHost(b, m, arch, &c.Spec)
	}
}

// annotate sets an annotation of a child.
func annotate(c child, key, value string) {
	all := map[string]string{}
	for k, v := range c.GetAnnotations() {
		all[k] = v
	}
	all[key] = value
	c.SetAnnotations(all)
}

// bootFields are what this controller owns of a child's status.
type bootFields struct {
	armed              *v1alpha1.BootArmed
	pinsURL, pinsProof string
	networkBoot        *v1alpha1.NetworkBoot
}

func fieldsOf(c child) bootFields {
	b := c.ConfigStatus().Boot
	if b == nil {
		return bootFields{}
	}
	return bootFields{b.Armed, b.PinsURL, b.PinsProof, b.NetworkBoot.DeepCopy()}
}

// writeBoot applies the complete set of what this controller owns of a child's
// status, guarded by the resourceVersion of the child as it was read.
func (v *visit) writeBoot(ctx context.Context, c child, f bootFields) error {
	status := v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{
		Armed: f.armed, PinsURL: f.pinsURL, PinsProof: f.pinsProof, NetworkBoot: f.networkBoot,
	}}
	body, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		return fmt.Errorf("encoding status: %w", err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": body}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(c.Kind()))
	u.SetNamespace(c.GetNamespace())
	u.SetName(c.GetName())
	u.SetResourceVersion(c.GetResourceVersion())
	err = v.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldManager), client.ForceOwnership)
	if err != nil {
		return behind(fmt.Errorf("writing the status of %s %s/%s: %w", c.Kind(), c.GetNamespace(), c.GetName(), err))
	}
	return nil
}

// deleteChildren deletes the host's children.
func (v *visit) deleteChildren(ctx context.Context, all children) error {
	for _, c := range all {
		uid := c.GetUID()
		err := v.client.Delete(ctx, c, client.Preconditions{UID: &uid})
		if err != nil && !apierrors.IsNotFound(err) {
			return behind(fmt.Errorf("deleting %s %s/%s: %w", c.Kind(), c.GetNamespace(), c.GetName(), err))
		}
	}
	return nil
}
