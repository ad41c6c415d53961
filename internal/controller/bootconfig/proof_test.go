package bootconfig

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

func TestAProofThatAUKICannotCarryIsWarnedOf(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.Netboot, o.NetbootRelays = true, true })
	f.secret("ign", map[string]string{"ignition": validJSON})
	behindRelay := func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.NetworkIdentifiers, c.Spec.MinimumProof = []string{"52:54:00:aa:bb:01"}, "Relay"
	}
	m := f.machine("m", behindRelay, withIgnition("ign"))
	f.ready(m)
	got := f.shows(m, v1alpha1.ConditionIdentifiable, isTrue, v1alpha1.ReasonIdentifiable)
	assert.Contains(t, got.Message, "proves Proxy at most")
	f.eventually(m, "warned of", func() bool { return f.events("m")[v1alpha1.ReasonIdentifiable] == corev1.EventTypeWarning })

	got = f.shows(f.machine("n", behindRelay, func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.NetworkIdentifiers = []string{"52:54:00:aa:bb:02"}
	}), v1alpha1.ConditionIdentifiable, isTrue, v1alpha1.ReasonIdentifiable)
	assert.NotContains(t, got.Message, "Proxy at most", "it asks for nothing")
}
