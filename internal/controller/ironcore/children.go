package ironcore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/translate"
)

var (
	// errBehind: the cache has not seen what the API server has.
	errBehind = errors.New("the cache is behind")
	// errForeign: the name is taken by an object of somebody else's.
	errForeign = errors.New("the name is taken")
)

// child is an HTTPBootConfig or an IPXEBootConfig.
type child interface {
	v1alpha1.Config
	client.Object
}

// childKind is what differs between the two.
type childKind struct {
	name    string
	new     func() child
	newList func() client.ObjectList
	wanted  func(translate.Paths) bool
	fill    func(child, *metalv1alpha1.ServerBootConfiguration, translate.Machine, boot.Architecture)
}

var childKinds = []childKind{
	{
		v1alpha1.KindHTTPBootConfig,
		func() child { return &v1alpha1.HTTPBootConfig{} },
		func() client.ObjectList { return &v1alpha1.HTTPBootConfigList{} },
		func(p translate.Paths) bool { return p.HTTP },
		func(c child, cfg *metalv1alpha1.ServerBootConfiguration, m translate.Machine, a boot.Architecture) {
			if h, ok := c.(*v1alpha1.HTTPBootConfig); ok {
				translate.HTTP(cfg, m, a, &h.Spec)
			}
		},
	},
	{
		v1alpha1.KindIPXEBootConfig,
		func() child { return &v1alpha1.IPXEBootConfig{} },
		func() client.ObjectList { return &v1alpha1.IPXEBootConfigList{} },
		func(p translate.Paths) bool { return p.PXE },
		func(c child, cfg *metalv1alpha1.ServerBootConfiguration, m translate.Machine, a boot.Architecture) {
			if i, ok := c.(*v1alpha1.IPXEBootConfig); ok {
				translate.IPXE(cfg, m, a, &i.Spec)
			}
		},
	},
}

// kindsOf are the kinds of children of these paths. One that is not enabled is
// neither made, changed nor deleted: another operator may look after it.
func kindsOf(enabled translate.Paths) []childKind {
	return slices.DeleteFunc(slices.Clone(childKinds), func(k childKind) bool { return !k.wanted(enabled) })
}

// get reads the object of a name from the cache; it is nil where there is none.
func (r *reconciler) get(ctx context.Context, k childKind, name types.NamespacedName) (child, error) {
	c := k.new()
	err := r.cache.Get(ctx, name, c)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", k.name, name, err)
	}
	return c, nil
}

// children are those that a configuration has.
func (r *reconciler) children(ctx context.Context, cfg *metalv1alpha1.ServerBootConfiguration) ([]child, error) {
	var all []child
	for _, k := range r.kinds {
		c, err := r.get(ctx, k, client.ObjectKeyFromObject(cfg))
		if err != nil {
			return nil, err
		}
		if c != nil && metav1.IsControlledBy(c, cfg) && c.GetDeletionTimestamp() == nil {
			all = append(all, c)
		}
	}
	return all, nil
}

func pathsOf(all []child) translate.Paths {
	has := func(kind string) bool {
		return slices.ContainsFunc(all, func(c child) bool { return c.Kind() == kind })
	}
	return translate.Paths{HTTP: has(v1alpha1.KindHTTPBootConfig), PXE: has(v1alpha1.KindIPXEBootConfig)}
}

// verified are those that hold what was verified of this very image.
func verified(all []child, image string) []child {
	return slices.DeleteFunc(slices.Clone(all), func(c child) bool {
		s := c.ConfigStatus()
		return c.Common().Image != image || s.State != v1alpha1.StateReady || s.ObservedGeneration != c.GetGeneration()
	})
}

// predecessor names a config of another configuration for the same machine. It
// is about to go; before that a child of ours would be in conflict with it. A
// configuration that has a child already does not ask.
func (r *reconciler) predecessor(ctx context.Context, cfg *metalv1alpha1.ServerBootConfiguration, m translate.Machine, existing []child) (string, error) {
	if len(existing) > 0 || m.UUID == "" {
		return "", nil
	}
	for _, k := range r.kinds {
		list := k.newList()
		if err := r.cache.List(ctx, list, client.MatchingFields{byUUID: string(m.UUID)}); err != nil {
			return "", fmt.Errorf("listing %ss: %w", k.name, err)
		}
		for _, c := range items(list) {
			if c.GetNamespace() == cfg.Namespace && c.GetName() == cfg.Name {
				continue
			}
			if owner := ownerOf(c); owner != nil {
				return fmt.Sprintf("%s %s/%s", k.name, c.GetNamespace(), c.GetName()), nil
			}
		}
	}
	return "", nil
}

func items(list client.ObjectList) []child {
	var out []child
	switch l := list.(type) {
	case *v1alpha1.HTTPBootConfigList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *v1alpha1.IPXEBootConfigList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	}
	return out
}

// ownerOf is the ServerBootConfiguration that controls an object, if one does.
func ownerOf(o metav1.Object) *metav1.OwnerReference {
	ref := metav1.GetControllerOf(o)
	if ref == nil || ref.APIVersion != metalv1alpha1.SchemeGroupVersion.String() || ref.Kind != configurationKind.Kind {
		return nil
	}
	return ref
}

// apply makes the children of these paths what the configuration and its Server
// say, and sums them up.
func (r *reconciler) apply(ctx context.Context, cfg *metalv1alpha1.ServerBootConfiguration, paths translate.Paths, m translate.Machine, arch boot.Architecture) (outcome, error) {
	var all []v1alpha1.Config
	var refused []error
	for _, k := range r.kinds {
		if !k.wanted(paths) {
			continue
		}
		c, err := r.applyOne(ctx, k, cfg, func(c child) { k.fill(c, cfg, m, arch) })
		switch {
		case errors.Is(err, errForeign) || apierrors.IsInvalid(err):
			refused = append(refused, err)
		case err != nil:
			return outcome{}, err
		default:
			all = append(all, c)
		}
	}
	switch {
	case len(refused) > 0:
		reason := ReasonRefused
		if errors.Is(refused[0], errForeign) {
			reason = ReasonNameTaken
		}
		return failed(reason, errors.Join(refused...).Error()), nil
	case len(all) == 0: // the verdict on the image says why
		return pending(v1alpha1.ReasonProgressing, "waits for "+ConditionImageValidation), nil
	}
	sum := translate.Sum(all)
	return outcome{state: sum.State, conditions: sum.Conditions}, nil
}

// applyOne creates or changes one child, and returns it as the API server has it.
func (r *reconciler) applyOne(ctx context.Context, k childKind, cfg *metalv1alpha1.ServerBootConfiguration, fill func(child)) (child, error) {
	c, err := r.get(ctx, k, client.ObjectKeyFromObject(cfg))
	switch {
	case err != nil:
		return nil, err
	case c == nil:
		return r.create(ctx, k, cfg, fill)
	case !metav1.IsControlledBy(c, cfg):
		return nil, r.inTheWay(ctx, cfg, c)
	case c.GetDeletionTimestamp() != nil:
		return nil, fmt.Errorf("%s %s is being deleted: %w", k.name, c.GetName(), errBehind)
	case paused(c):
		return c, nil
	}
	before, ok := c.DeepCopyObject().(child)
	if !ok {
		return nil, fmt.Errorf("a copy of %T is none", c)
	}
	fill(c)
	if equality.Semantic.DeepEqual(before, c) {
		return c, nil
	}
	// The lock sees to it that a change is made to what the cache showed. Fields
	// that others set on the child, such as bootPolicy, stay out of the patch.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, c, patch, client.FieldOwner(FieldManager)); err != nil {
		return nil, behind(fmt.Errorf("changing %s %s/%s: %w", k.name, cfg.Namespace, cfg.Name, err))
	}
	return c, nil
}

func (r *reconciler) create(ctx context.Context, k childKind, cfg *metalv1alpha1.ServerBootConfiguration, fill func(child)) (child, error) {
	c := k.new()
	c.SetNamespace(cfg.Namespace)
	c.SetName(cfg.Name)
	isController := true
	// No blockOwnerDeletion: that takes a right to the owner's finalizers, and
	// nothing is gained by the owner's waiting.
	c.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: configurationKind.GroupVersion().String(), Kind: configurationKind.Kind,
		Name: cfg.Name, UID: cfg.UID, Controller: &isController,
	}})
	fill(c)
	err := r.client.Create(ctx, c, client.FieldOwner(FieldManager))
	if apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("creating %s %s/%s: %w", k.name, cfg.Namespace, cfg.Name, errBehind)
	}
	if err != nil {
		return nil, fmt.Errorf("creating %s %s/%s: %w", k.name, cfg.Namespace, cfg.Name, err)
	}
	return c, nil
}

// behind marks what is not there any more as the cache's delay: its absence is
// no reason to leave the configuration alone.
func behind(err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", errBehind, err)
	}
	return err
}

// inTheWay is for an object that has a child's name and another controller. One
// of an earlier configuration of this name is deleted, as garbage collection
// would; any other is left alone.
func (r *reconciler) inTheWay(ctx context.Context, cfg *metalv1alpha1.ServerBootConfiguration, c child) error {
	if owner := ownerOf(c); owner != nil && owner.Name == cfg.Name {
		if err := r.delete(ctx, c); err != nil {
			return err
		}
		return fmt.Errorf("%s %s was of an earlier configuration: %w", c.Kind(), c.GetName(), errBehind)
	}
	return fmt.Errorf("%w: %s %s/%s exists and is not controlled by this ServerBootConfiguration, so that it is left alone; delete it, or give the ServerBootConfiguration another name", errForeign, c.Kind(), c.GetNamespace(), c.GetName())
}

// deleteChildren deletes the children of a configuration that it is not to keep.
func (r *reconciler) deleteChildren(ctx context.Context, cfg *metalv1alpha1.ServerBootConfiguration, keep translate.Paths) error {
	for _, k := range r.kinds {
		c, err := r.get(ctx, k, client.ObjectKeyFromObject(cfg))
		if err != nil {
			return err
		}
		if c == nil || k.wanted(keep) || !metav1.IsControlledBy(c, cfg) {
			continue
		}
		if err := r.delete(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// deleteOrphans deletes what a configuration that is gone has left. Garbage
// collection does the same, later; the machine's next configuration waits for it.
func (r *reconciler) deleteOrphans(ctx context.Context, name types.NamespacedName) error {
	for _, k := range r.kinds {
		c, err := r.get(ctx, k, name)
		if err != nil {
			return err
		}
		if c == nil {
			continue
		}
		if owner := ownerOf(c); owner == nil || owner.Name != name.Name {
			continue
		}
		if err := r.delete(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// delete deletes exactly the object that the cache showed.
func (r *reconciler) delete(ctx context.Context, c child) error {
	if c.GetDeletionTimestamp() != nil || paused(c) {
		return nil
	}
	uid, version := c.GetUID(), c.GetResourceVersion()
	err := r.client.Delete(ctx, c, client.Preconditions{UID: &uid, ResourceVersion: &version})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting %s %s/%s: %w", c.Kind(), c.GetNamespace(), c.GetName(), err)
	}
	return nil
}
