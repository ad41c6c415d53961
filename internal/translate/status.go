package translate

import (
	"fmt"
	"slices"
	"strings"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// made are the conditions of children that say what the operator made of a
// spec: of two children, the worse is told. fetched say what the machine
// fetched: it boots one of the two, so that the better is told.
var (
	made    = []string{v1alpha1.ConditionIdentifiable, v1alpha1.ConditionArtifactsReady, v1alpha1.ConditionIgnitionValid}
	fetched = []string{
		v1alpha1.ConditionUKIFetched, v1alpha1.ConditionIPXEScriptFetched,
		v1alpha1.ConditionIgnitionDataFetched, v1alpha1.ConditionCloudInitFetched,
	}
	// warnings are bad when True.
	warnings = []string{v1alpha1.ConditionClientAddressAmbiguous, v1alpha1.ConditionForeignBootOffer}
)

// Copied are the conditions that Sum copies from children, but for Ready.
func Copied() []string { return slices.Concat(made, fetched, warnings) }

// Summary is what the children of a configuration say of it.
type Summary struct {
	State metalv1alpha1.ServerBootConfigurationState
	// Conditions are Ready and those of Copied that children have. Their
	// generations are the children's.
	Conditions []metav1.Condition
}

// Sum sums up the children of a configuration; there is at least one. Nothing is
// copied from any child as long as the status of one is for an older generation
// than its present one.
func Sum(children []v1alpha1.Config) Summary {
	for _, c := range children {
		if s := c.ConfigStatus(); s.ObservedGeneration != c.GetGeneration() || meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady) == nil {
			return Summary{
				State: metalv1alpha1.ServerBootConfigurationStatePending,
				Conditions: []metav1.Condition{{
					Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonProgressing,
					Message: fmt.Sprintf("%s %s is not reconciled yet", c.Kind(), c.GetName()),
				}},
			}
		}
	}
	s := Summary{State: state(children), Conditions: []metav1.Condition{ready(children)}}
	for _, group := range []struct {
		types  []string
		better []metav1.ConditionStatus
	}{
		{made, []metav1.ConditionStatus{metav1.ConditionFalse, metav1.ConditionUnknown, metav1.ConditionTrue}},
		{fetched, []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionUnknown, metav1.ConditionFalse}},
		{warnings, []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionUnknown, metav1.ConditionFalse}},
	} {
		for _, t := range group.types {
			if c := first(children, t, group.better); c != nil {
				s.Conditions = append(s.Conditions, *c)
			}
		}
	}
	return s
}

func state(children []v1alpha1.Config) metalv1alpha1.ServerBootConfigurationState {
	is := func(s v1alpha1.State) func(v1alpha1.Config) bool {
		return func(c v1alpha1.Config) bool { return c.ConfigStatus().State == s }
	}
	isNot := func(c v1alpha1.Config) bool { return !is(v1alpha1.StateReady)(c) }
	switch {
	case slices.ContainsFunc(children, is(v1alpha1.StateError)):
		return metalv1alpha1.ServerBootConfigurationStateError
	case slices.ContainsFunc(children, isNot):
		return metalv1alpha1.ServerBootConfigurationStatePending
	}
	return metalv1alpha1.ServerBootConfigurationStateReady
}

// ready is the worst Ready of the children, one in the state Error before one
// that waits, with the messages of all that are not ready.
func ready(children []v1alpha1.Config) metav1.Condition {
	var worst *metav1.Condition
	var worstState v1alpha1.State
	var messages []string
	for _, c := range children {
		s := c.ConfigStatus()
		r := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		if r.Status != metav1.ConditionTrue {
			messages = append(messages, c.Kind()+": "+r.Message)
		}
		if worst == nil || severity(s.State) > severity(worstState) {
			worst, worstState = r, s.State
		}
	}
	sum := *worst
	if len(messages) > 0 {
		sum.Message = strings.Join(messages, "; ")
	}
	return sum
}

func severity(s v1alpha1.State) int {
	return slices.Index([]v1alpha1.State{v1alpha1.StateReady, v1alpha1.StatePending, v1alpha1.StateError}, s)
}

// first returns the condition of this type whose status comes first in order,
// of the first child that has it.
func first(children []v1alpha1.Config, condition string, order []metav1.ConditionStatus) *metav1.Condition {
	for _, status := range order {
		for _, child := range children {
			if c := meta.FindStatusCondition(child.ConfigStatus().Conditions, condition); c != nil && c.Status == status {
				return c
			}
		}
	}
	return nil
}
