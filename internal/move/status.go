package move

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// observed are the conditions that the operator's observer writes: they tell what
// a machine did. The others are the
// target's own to find out.
var observed = []string{
	v1alpha1.ConditionUKIFetched, v1alpha1.ConditionIPXEScriptFetched,
	v1alpha1.ConditionIgnitionDataFetched, v1alpha1.ConditionCloudInitFetched,
	v1alpha1.ConditionClientAddressAmbiguous, v1alpha1.ConditionForeignBootOffer,
}

// ofBMCs are the fields of status.boot that whoever speaks to the machine's BMC
// writes: the target's finds them out anew.
var ofBMCs = []string{"armed", "networkBoot", "pinsURL", "pinsProof"}

// carried is the part of a status that the target cannot find out by itself: the
// boot attempt with everything that says whether it is spent, and the conditions
// observed. It is nil when no attempt was ever opened.
//
// Generations are counted by each cluster. What is about the source's present
// generation is about the target's; what is about an earlier one must not look
// like any that the target has: a change of spec that had opened no attempt yet
// opens one there.
func carried(source *unstructured.Unstructured, generation int64) map[string]any {
	boot, _, _ := unstructured.NestedMap(source.Object, "status", "boot")
	if attempt, _ := boot["attempt"].(int64); attempt < 1 {
		return nil
	}
	for _, field := range ofBMCs {
		delete(boot, field)
	}
	translate(boot, "openedGeneration", source.GetGeneration(), generation)
	out := map[string]any{"boot": boot}
	conditions := []any{}
	all, _, _ := unstructured.NestedSlice(source.Object, "status", "conditions")
	for _, c := range all {
		condition, ok := c.(map[string]any)
		if kind, _ := condition["type"].(string); !ok || !slices.Contains(observed, kind) {
			continue
		}
		translate(condition, "observedGeneration", source.GetGeneration(), generation)
		conditions = append(conditions, condition)
	}
	if len(conditions) > 0 {
		out["conditions"] = conditions
	}
	return out
}

// translate makes a field that holds a generation mean the same elsewhere.
func translate(fields map[string]any, name string, from, to int64) {
	if fields[name] == from {
		fields[name] = to
		return
	}
	delete(fields, name)
}

// sameBoots says whether the target knows of a machine's boots what the source
// does.
func sameBoots(source, target *unstructured.Unstructured) bool {
	want := carried(source, target.GetGeneration())
	if want == nil {
		return true
	}
	have := carried(target, target.GetGeneration())
	return have != nil && equality.Semantic.DeepEqual(byType(want), byType(have))
}

// byType makes conditions comparable whatever their order.
func byType(status map[string]any) map[string]any {
	out := map[string]any{"boot": status["boot"]}
	conditions, _ := status["conditions"].([]any)
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		kind, _ := condition["type"].(string)
		out["condition "+kind] = condition
	}
	return out
}

// writeStatus makes the target know of a machine's boots what the source does.
func (m *mover) writeStatus(ctx context.Context, source *unstructured.Unstructured) error {
	k := keyOf(source)
	for try := 1; ; try++ {
		target, err := m.target.must(ctx, k)
		if err != nil {
			return err
		}
		if sameBoots(source, target) {
			return nil
		}
		if by, _ := pausedBy(target); by != m.id {
			return fmt.Errorf("%s on the target was unpaused by someone else during the move: its status could not be written", k)
		}
		m.Log("  %s: status of boot attempts", k)
		err = m.applyStatus(ctx, target, carried(source, target.GetGeneration()))
		if err == nil {
			return nil
		}
		if !apierrors.IsConflict(err) || try == amendTries {
			return fmt.Errorf("writing the status of %s on the target: %w", k, err)
		}
	}
}

// applyStatus writes the whole of what the observer owns, guarded by the
// resourceVersion of the object that was looked at.
func (m *mover) applyStatus(ctx context.Context, target *unstructured.Unstructured, status map[string]any) error {
	u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	u.SetGroupVersionKind(target.GroupVersionKind())
	u.SetNamespace(target.GetNamespace())
	u.SetName(target.GetName())
	u.SetResourceVersion(target.GetResourceVersion())
	return m.target.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(observerManager), client.ForceOwnership)
}
