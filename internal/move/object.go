package move

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// movePrefix begins the name of every move.
const movePrefix = "move-"

const kindSecret = "Secret"

// kinds are what is moved beside Secrets.
var kinds = []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig}

// key names an object in either cluster.
type key struct{ kind, namespace, name string }

func keyOf(u *unstructured.Unstructured) key {
	return key{u.GetKind(), u.GetNamespace(), u.GetName()}
}

func (k key) String() string {
	if k.namespace == "" {
		return k.kind + " " + k.name
	}
	return k.kind + " " + k.namespace + "/" + k.name
}

func (k key) gvk() schema.GroupVersionKind {
	if slices.Contains(kinds, k.kind) {
		return v1alpha1.GroupVersion.WithKind(k.kind)
	}
	return corev1.SchemeGroupVersion.WithKind(k.kind)
}

func compareKeys(a, b key) int {
	return cmp.Or(strings.Compare(a.namespace, b.namespace), strings.Compare(a.kind, b.kind), strings.Compare(a.name, b.name))
}

// typed reads a config. Fields that this build does not know are missing in it:
// it is for looking, never for writing.
func typed(u *unstructured.Unstructured) (v1alpha1.Config, error) {
	var cfg v1alpha1.Config = &v1alpha1.HTTPBootConfig{}
	if u.GetKind() == v1alpha1.KindIPXEBootConfig {
		cfg = &v1alpha1.IPXEBootConfig{}
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, cfg); err != nil {
		return nil, fmt.Errorf("reading %s: %w", keyOf(u), err)
	}
	return cfg, nil
}

// secretsOf returns the Secrets that a config names, by the field that does: all
// fields of the spec that end in SecretRef, also those of a later version.
func secretsOf(u *unstructured.Unstructured) map[string]string {
	out := map[string]string{}
	spec, _, _ := unstructured.NestedMap(u.Object, "spec")
	for field, value := range spec {
		ref, ok := value.(map[string]any)
		if !ok || !strings.HasSuffix(field, "SecretRef") {
			continue
		}
		if name, _ := ref["name"].(string); name != "" {
			out["spec."+field] = name
		}
	}
	return out
}

// copyOf is what a source object becomes on the target: it and nothing that its
// cluster added to it. Finalizers stay behind: whoever wants one there adds it.
func copyOf(source *unstructured.Unstructured) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{}}
	for field, value := range source.DeepCopy().Object {
		if field != "metadata" && field != "status" {
			out.Object[field] = value
		}
	}
	out.SetNamespace(source.GetNamespace())
	out.SetName(source.GetName())
	out.SetLabels(labelsOf(source))
	out.SetAnnotations(annotationsOf(source))
	return out
}

// labelsOf are the labels to carry.
func labelsOf(u *unstructured.Unstructured) map[string]string {
	out := maps.Clone(u.GetLabels())
	delete(out, MovingLabel)
	return out
}

// annotationsOf are the annotations to carry.
func annotationsOf(u *unstructured.Unstructured) map[string]string {
	out := maps.Clone(u.GetAnnotations())
	for _, ours := range []string{v1alpha1.PausedAnnotation, PausedBeforeAnnotation, MovedFromAnnotation} {
		delete(out, ours)
	}
	return out
}

// contradictions are the labels or annotations that both have with different
// values. How kubectl applied it last is no content.
func contradictions(source, target map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(source)) {
		if v, ok := target[k]; ok && v != source[k] && k != corev1.LastAppliedConfigAnnotation {
			out = append(out, k)
		}
	}
	return out
}

// merge adds what is missing or different, and says whether there was any.
func merge(into, from map[string]string) (map[string]string, bool) {
	out, changed := maps.Clone(into), false
	if out == nil {
		out = map[string]string{}
	}
	for k, v := range from {
		if old, ok := out[k]; !ok || old != v {
			out[k], changed = v, true
		}
	}
	return out, changed
}

// covers says whether all of want is in have. Maps may have more, which is what
// defaults of a newer API add.
func covers(have, want any) bool {
	w, ok := want.(map[string]any)
	if !ok {
		return equality.Semantic.DeepEqual(have, want)
	}
	h, ok := have.(map[string]any)
	if !ok {
		return false
	}
	for k, v := range w {
		if got, ok := h[k]; !ok || !covers(got, v) {
			return false
		}
	}
	return true
}

// sameSecret says whether two Secrets hold the same.
func sameSecret(a, b *unstructured.Unstructured) bool {
	for _, field := range []string{"data", "type"} {
		if !equality.Semantic.DeepEqual(a.Object[field], b.Object[field]) {
			return false
		}
	}
	return true
}

// differing names the fields of two specs that differ.
func differing(a, b *unstructured.Unstructured) []string {
	left, _, _ := unstructured.NestedMap(a.Object, "spec")
	right, _, _ := unstructured.NestedMap(b.Object, "spec")
	var out []string
	for _, values := range []map[string]any{left, right} {
		for field := range values {
			if !slices.Contains(out, "spec."+field) && !equality.Semantic.DeepEqual(left[field], right[field]) {
				out = append(out, "spec."+field)
			}
		}
	}
	slices.Sort(out)
	return out
}

// configMark is the value of MovedFromAnnotation for a config: it changes when
// the source's spec or what is known of its boots does.
func configMark(source *unstructured.Unstructured) (string, error) {
	text, err := json.Marshal([]any{source.Object["spec"], carried(source, 1)})
	if err != nil {
		return "", fmt.Errorf("encoding %s: %w", keyOf(source), err)
	}
	sum := sha256.Sum256(text)
	return string(source.GetUID()) + "/" + hex.EncodeToString(sum[:16]), nil
}

// secretMark is the same for a Secret. It is no digest: one of a weak secret
// would tell what it is.
func secretMark(source *unstructured.Unstructured) string {
	return string(source.GetUID()) + "/" + source.GetResourceVersion()
}

// markedFrom says whether the target's object was taken over from this source
// object, changed since or not.
func markedFrom(target, source *unstructured.Unstructured) bool {
	uid, _, ok := strings.Cut(target.GetAnnotations()[MovedFromAnnotation], "/")
	return ok && uid == string(source.GetUID())
}

// pausedBy is the value of the annotation.
func pausedBy(u *unstructured.Unstructured) (string, bool) {
	v, ok := u.GetAnnotations()[v1alpha1.PausedAnnotation]
	return v, ok
}

// setAnnotation sets an annotation, and says whether it was different.
func setAnnotation(u *unstructured.Unstructured, name, value string) bool {
	annotations, changed := merge(u.GetAnnotations(), map[string]string{name: value})
	u.SetAnnotations(annotations)
	return changed
}

// pauseFor pauses a config for a move; how a user had paused it is kept.
func pauseFor(u *unstructured.Unstructured, id string) bool {
	by, paused := pausedBy(u)
	if paused && by == id {
		return false
	}
	if paused {
		setAnnotation(u, PausedBeforeAnnotation, by)
	}
	return setAnnotation(u, v1alpha1.PausedAnnotation, id)
}

// resume ends the pause for a move: the config is as the user had it.
func resume(u *unstructured.Unstructured) {
	annotations := maps.Clone(u.GetAnnotations())
	before, paused := annotations[PausedBeforeAnnotation]
	delete(annotations, PausedBeforeAnnotation)
	delete(annotations, v1alpha1.PausedAnnotation)
	if paused {
		annotations[v1alpha1.PausedAnnotation] = before
	}
	u.SetAnnotations(annotations)
}
