package ironcore

import (
	"context"
	"slices"
	"strings"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/translate"
)

// maxMessage bounds a condition's message in bytes; an event's note may not be
// longer either (events.k8s.io/v1).
const maxMessage = 1000

// told are the conditions that this package makes; the children's own events
// tell of the rest.
var told = []string{v1alpha1.ConditionReady, ConditionImageValidation}

// writeStatus makes a configuration's status what out says, if it is not yet.
// Conditions of others stay.
//
// The list of conditions has no keys in metal-operator's CRD, so that a
// server-side apply would own, and drop, all of them; and metal-operator sets an
// empty state to Pending. So the status is patched under a lock: who comes too
// late looks again.
func (r *reconciler) writeStatus(ctx context.Context, cfg *metalv1alpha1.ServerBootConfiguration, out outcome) error {
	before := cfg.DeepCopy()
	cfg.Status.State = out.state
	owned := append(translate.Copied(), told...)
	cfg.Status.Conditions = slices.DeleteFunc(cfg.Status.Conditions, func(c metav1.Condition) bool {
		return slices.Contains(owned, c.Type) && meta.FindStatusCondition(out.conditions, c.Type) == nil
	})
	for _, c := range out.conditions {
		c.ObservedGeneration = cfg.Generation
		c.Message = clip(c.Message)
		meta.SetStatusCondition(&cfg.Status.Conditions, c)
	}
	if equality.Semantic.DeepEqual(before.Status, cfg.Status) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.client.Status().Patch(ctx, cfg, patch, client.FieldOwner(FieldManager)); err != nil {
		return err
	}
	r.tell(before, cfg)
	return nil
}

// tell records an event for each condition of ours that changed.
func (r *reconciler) tell(before, cfg *metalv1alpha1.ServerBootConfiguration) {
	for _, name := range told {
		was := meta.FindStatusCondition(before.Status.Conditions, name)
		is := meta.FindStatusCondition(cfg.Status.Conditions, name)
		switch {
		case is == nil || is.Status == metav1.ConditionUnknown && is.Reason == v1alpha1.ReasonProgressing,
			name == v1alpha1.ConditionReady && is.Reason == ReasonValidationFailed, // the other one tells
			was == nil && is.Status == metav1.ConditionTrue && name != v1alpha1.ConditionReady,
			was != nil && was.Status == is.Status && was.Reason == is.Reason:
			continue
		}
		// The recorder's scheme knows nothing of metal-operator's kinds.
		cfg.SetGroupVersionKind(configurationKind)
		r.Recorder.Eventf(cfg, nil, eventType(*is), is.Reason, name, "%s", clip(strings.TrimSpace(name+": "+is.Message)))
	}
}

func eventType(c metav1.Condition) string {
	quiet := []string{v1alpha1.ReasonProgressing, ReasonNotReferenced}
	if c.Status == metav1.ConditionTrue || slices.Contains(quiet, c.Reason) {
		return corev1.EventTypeNormal
	}
	return corev1.EventTypeWarning
}

func clip(s string) string {
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage-3], "") + "…"
	}
	return s
}
