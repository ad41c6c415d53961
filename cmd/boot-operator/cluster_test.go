package main

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// A kind that the mapper does not know cannot be read, whatever the API server has.
func TestEveryKindThatIsReadIsKnown(t *testing.T) {
	c, err := connect(&rest.Config{Host: "http://127.0.0.1:1"}, logr.Discard())
	require.NoError(t, err)
	for object, namespaced := range map[client.Object]bool{
		&v1alpha1.HTTPBootConfig{}: true, &v1alpha1.IPXEBootConfig{}: true, &corev1.Secret{}: true, &corev1.ConfigMap{}: true,
		&corev1.Event{}: true, &eventsv1.Event{}: true, &coordinationv1.Lease{}: true, &corev1.Namespace{}: false, &corev1.Node{}: false,
	} {
		got, err := c.GetClient().IsObjectNamespaced(object)
		require.NoError(t, err, "%T", object)
		require.Equal(t, namespaced, got, "%T", object)
	}
	_, err = c.GetClient().IsObjectNamespaced(&corev1.Pod{})
	require.Error(t, err, "or this test would see nothing")
}
