package move

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// stage is how far a config is.
type stage int

const (
	// stageNew: the target has nothing of this name.
	stageNew stage = iota
	// stageEqual: the target has an object of its own that says the same and
	// whose boots do not contradict the source's.
	stageEqual
	// stageBegun: an earlier run put it on the target, where it is still paused.
	stageBegun
	// stageTaken: the target has taken over; only the source's is left to delete.
	stageTaken
	// stageSkipped: it is being deleted, and not moved.
	stageSkipped
)

// decide says how far a config is, or what has to be put right before it can be
// moved. It reads nothing but its arguments.
func decide(source, target *unstructured.Unstructured, id string) (stage, string) {
	k := keyOf(source)
	if source.GetDeletionTimestamp() != nil {
		return stageSkipped, ""
	}
	if by, paused := pausedBy(source); paused && by != id && strings.HasPrefix(by, movePrefix) {
		return 0, fmt.Sprintf("%s on the source is paused by another move, %s: finish that one first, or give it up by removing the annotation %s", k, by, v1alpha1.PausedAnnotation)
	}
	if target == nil {
		return stageNew, ""
	}
	if target.GetDeletionTimestamp() != nil {
		return 0, fmt.Sprintf("%s is being deleted on the target: wait until it is gone, or remove its finalizers %v", k, target.GetFinalizers())
	}
	by, paused := pausedBy(target)
	switch {
	case paused && by == id:
		return stageBegun, ""
	case markedFrom(target, source):
		return decideTaken(source, target)
	case paused && strings.HasPrefix(by, movePrefix):
		return 0, fmt.Sprintf("%s on the target is paused by another move, %s: finish that one first", k, by)
	}
	if why := contradicts(source, target); why != "" {
		return 0, fmt.Sprintf("%s exists on the target and %s: delete it there, or make both equal", k, why)
	}
	return stageEqual, ""
}

func decideTaken(source, target *unstructured.Unstructured) (stage, string) {
	mark, err := configMark(source)
	if err != nil {
		return 0, err.Error()
	}
	if target.GetAnnotations()[MovedFromAnnotation] != mark {
		return 0, fmt.Sprintf("%s was changed on the source (spec or status.boot) after the target had taken it over: bring the change to the target if it is wanted, then delete the source's", keyOf(source))
	}
	return stageTaken, ""
}

// contradicts says in what the target's own object differs from the source's; ""
// means that it can take its place.
func contradicts(source, target *unstructured.Unstructured) string {
	if fields := differing(source, target); len(fields) > 0 {
		return "differs in " + strings.Join(fields, ", ")
	}
	if names := contradictions(labelsOf(source), labelsOf(target)); len(names) > 0 {
		return "has other labels: " + strings.Join(names, ", ")
	}
	if names := contradictions(annotationsOf(source), annotationsOf(target)); len(names) > 0 {
		return "has other annotations: " + strings.Join(names, ", ")
	}
	if carried(target, 1) != nil && !sameBoots(source, target) {
		if carried(source, 1) != nil {
			return "has boot attempts of its own in status.boot, so that one of the two histories would be lost"
		}
	}
	return ""
}
