package translate

import (
	"testing"
	"time"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

const (
	yes     = metav1.ConditionTrue
	no      = metav1.ConditionFalse
	unknown = metav1.ConditionUnknown

	pending = metalv1alpha1.ServerBootConfigurationStatePending
	isReady = metalv1alpha1.ServerBootConfigurationStateReady
	failed  = metalv1alpha1.ServerBootConfigurationStateError
)

func status(generation int64, state v1alpha1.State, conditions ...metav1.Condition) v1alpha1.ConfigStatus {
	return v1alpha1.ConfigStatus{State: state, ObservedGeneration: generation, Conditions: conditions}
}

func cond(name string, s metav1.ConditionStatus, reason string) metav1.Condition {
	return metav1.Condition{Type: name, Status: s, Reason: reason, Message: "about " + reason, LastTransitionTime: metav1.NewTime(time.Unix(1000, 0))}
}

func children(http, ipxe v1alpha1.ConfigStatus) []v1alpha1.Config {
	h, i := &v1alpha1.HTTPBootConfig{Status: http}, &v1alpha1.IPXEBootConfig{Status: ipxe}
	h.Name, h.Generation, i.Name, i.Generation = "c", 2, "c", 2
	return []v1alpha1.Config{h, i}
}

func TestNothingIsCopiedFromAChildThatHasNotSeenItsSpec(t *testing.T) {
	fresh := status(2, v1alpha1.StateReady, cond("Ready", yes, "Ready"), cond("UKIFetched", yes, "UKIDelivered"))
	stale := status(1, v1alpha1.StateReady, cond("Ready", yes, "Ready"), cond("UKIFetched", yes, "UKIDelivered"))
	early := status(2, "", cond("UKIFetched", no, "NewAttempt")) // only the observer has written
	for name, all := range map[string][]v1alpha1.Config{
		"stale":                   children(stale, fresh)[:1],
		"one of two is stale":     children(fresh, stale),
		"the other of the two is": children(stale, fresh),
		"new":                     children(v1alpha1.ConfigStatus{}, fresh)[:1],
		"not reconciled":          children(early, fresh)[:1],
	} {
		s := Sum(all)
		require.Equal(t, pending, s.State, name)
		require.Len(t, s.Conditions, 1, name)
		require.Equal(t, "Ready", s.Conditions[0].Type, name)
		require.Equal(t, no, s.Conditions[0].Status, name)
		require.Equal(t, v1alpha1.ReasonProgressing, s.Conditions[0].Reason, name)
	}
}

func TestTheStateIsThatOfTheChildren(t *testing.T) {
	of := func(s v1alpha1.State) v1alpha1.ConfigStatus {
		return status(2, s, cond("Ready", map[bool]metav1.ConditionStatus{true: yes, false: no}[s == v1alpha1.StateReady], string(s)))
	}
	ready, waits, fails := of(v1alpha1.StateReady), of(v1alpha1.StatePending), of(v1alpha1.StateError)
	for _, c := range []struct {
		all    []v1alpha1.Config
		state  metalv1alpha1.ServerBootConfigurationState
		status metav1.ConditionStatus
		reason string
	}{
		{children(ready, ready)[:1], isReady, yes, "Ready"},
		{children(waits, ready)[1:], isReady, yes, "Ready"},
		{children(ready, ready), isReady, yes, "Ready"},
		{children(ready, waits), pending, no, "Pending"},
		{children(waits, fails), failed, no, "Error"},
		{children(fails, ready), failed, no, "Error"},
	} {
		s := Sum(c.all)
		require.Equal(t, c.state, s.State)
		r := meta.FindStatusCondition(s.Conditions, "Ready")
		require.Equal(t, c.status, r.Status)
		require.Equal(t, c.reason, r.Reason)
	}
	both := Sum(children(waits, fails))
	require.Equal(t, "HTTPBootConfig: about Pending; IPXEBootConfig: about Error", both.Conditions[0].Message)
}

func TestConditionsOfTwoChildrenAreMerged(t *testing.T) {
	all := children(
		status(2, v1alpha1.StateReady, cond("Ready", yes, "Ready"), cond("ArtifactsReady", yes, "ArtifactsVerified"), cond("IgnitionValid", unknown, "Progressing"),
			cond("UKIFetched", no, "NewAttempt"), cond("IgnitionDataFetched", no, "NewAttempt"), cond("ClientAddressAmbiguous", no, "OneMachine"), cond("Foreign", yes, "X")),
		status(2, v1alpha1.StateReady, cond("Ready", yes, "Ready"), cond("ArtifactsReady", no, "StoreFull"), cond("IgnitionValid", yes, "IgnitionValid"),
			cond("IPXEScriptFetched", yes, "IPXEScriptDelivered"), cond("IgnitionDataFetched", yes, "IgnitionDataDelivered"), cond("ClientAddressAmbiguous", yes, "SeveralMachines")),
	)
	got := map[string]string{}
	for _, c := range Sum(all).Conditions {
		got[c.Type] = string(c.Status) + "/" + c.Reason
		require.Equal(t, time.Unix(1000, 0), c.LastTransitionTime.Time, "when it changed is copied too")
	}
	require.Equal(t, map[string]string{
		"Ready": "True/Ready", "ArtifactsReady": "False/StoreFull", "IgnitionValid": "Unknown/Progressing",
		"UKIFetched": "False/NewAttempt", "IPXEScriptFetched": "True/IPXEScriptDelivered", "IgnitionDataFetched": "True/IgnitionDataDelivered",
		"ClientAddressAmbiguous": "True/SeveralMachines",
	}, got)
}
