package host

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/internal/translate"
)

// translateOnly makes the configs of a host that somebody else powers. Nothing is
// written to the host; what is wrong is told in events.
func (v *visit) translateOnly(ctx context.Context) error {
	image := translate.HostImageID(v.host)
	all, err := v.children(ctx)
	if err != nil {
		return err
	}
	if v.host.DeletionTimestamp != nil || image == "" || all.areOfAnother(image) {
		v.images.forget(v.host.UID)
		err := v.deleteChildren(ctx, all)
		if v.host.DeletionTimestamp == nil && image != "" {
			v.after = atOnce // another image may be booted another way
		}
		return err
	}
	_, _, _, err = v.sync(ctx)
	var f *failure
	if errors.As(err, &f) {
		v.event(corev1.EventTypeWarning, f.reason, "%s", f)
		v.after = max(f.after, f.least, v.PowerInterval)
		return nil
	}
	return err
}

// areOfAnother says whether configs were made for another image than this.
func (all children) areOfAnother(image string) bool {
	return slices.ContainsFunc(all, func(c child) bool { return c.GetAnnotations()[imageAnnotation] != image })
}
