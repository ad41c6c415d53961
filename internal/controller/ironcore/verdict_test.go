package ironcore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestBadImages(t *testing.T) {
	const image = "registry.example.com/bad:1"
	fails := func(err error) func(*registry) { return func(r *registry) { r.fails[image] = err } }
	holds := func(roles ...boot.Role) func(*registry) {
		return func(r *registry) { r.images[image] = roles }
	}
	for _, c := range []struct {
		name    string
		world   func(*registry)
		state   metalv1alpha1.ServerBootConfigurationState
		status  metav1.ConditionStatus
		reason  string
		message string
	}{
		{"no such image", fails(artifact.ErrNotFound), sbcError, isFalse, ReasonValidationFailed, image},
		{"not allowed", fails(fmt.Errorf("registry.example.com is %w; see --allowed-registries", artifact.ErrNotAllowed)), sbcError, isFalse, ReasonValidationFailed, "--allowed-registries"},
		{"other architecture", fails(artifact.ErrNoPlatform), sbcError, isFalse, ReasonValidationFailed, "amd64"},
		{"no reference", fails(artifact.ErrInvalidReference), sbcError, isFalse, ReasonValidationFailed, "reference"},
		{"no right", fails(artifact.ErrUnauthorized), sbcError, isFalse, ReasonValidationFailed, "unauthorized"},
		{"no initrd", holds(boot.RoleKernel), sbcError, isFalse, ReasonValidationFailed, image + ": invalid image: it has Kernel, but it needs a UKI, or a kernel and an initrd"},
		{"registry down", fails(errors.New("connection refused")), sbcPending, isUnknown, v1alpha1.ReasonRegistryError, "connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.registry.set(func() { c.world(f.registry) })
			f.run(func(o *Options) { o.ResolveInterval = 300 * time.Millisecond })
			f.server("s", serverUUID)
			cfg := f.configuration("c", "s", image)
			require.Contains(t, f.shows(cfg, c.state, ConditionImageValidation, c.status, c.reason).Message, c.message)
			require.Contains(t, f.shows(cfg, c.state, "Ready", isFalse, c.reason).Message, c.message)
			require.False(t, f.has(httpOf(cfg)))
			f.poll(func() string { return fmt.Sprint(f.events("c")) }, func() bool { return f.events("c")[c.reason] == corev1.EventTypeWarning })

			f.registry.set(func() { delete(f.registry.fails, image); f.registry.images[image] = []boot.Role{boot.RoleUKI} })
			f.ready(httpOf(cfg))
			f.shows(cfg, sbcReady, ConditionImageValidation, isTrue, ReasonImageValid)
		})
	}
}

func TestAConfigurationWhoseImageIsChangedToABadOneBootsNothing(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	f.ready(httpOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.update(c, func() { c.Spec.Image = "registry.example.com/nothing:1" })
	h := httpOf(c)
	f.poll(func() string { return "the old image can still be booted" }, func() bool { return !f.has(h) || h.Spec.Image != ukiImage })
	f.shows(c, sbcError, ConditionImageValidation, isFalse, ReasonValidationFailed)
	f.gone(h)
	f.update(c, func() { c.Spec.Image = ukiImage })
	f.ready(h)
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
}

func TestAnImageThatTurnsBadLeavesWhatWasVerified(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.ResolveInterval = 50 * time.Millisecond })
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	h := httpOf(c)
	f.ready(h)
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")

	f.registry.set(func() { f.registry.fails[ukiImage] = errors.New("connection refused") })
	f.poll(func() string { return fmt.Sprint(c.Status) }, func() bool {
		v := f.shows(c, sbcReady, ConditionImageValidation, isTrue, ReasonImageValid)
		return strings.Contains(v.Message, "found earlier") && strings.Contains(v.Message, "connection refused")
	})

	f.registry.set(func() { delete(f.registry.fails, ukiImage); f.registry.images[ukiImage] = []boot.Role{boot.RoleKernel} })
	f.shows(c, sbcReady, ConditionImageValidation, isFalse, ReasonValidationFailed)
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	require.True(t, f.has(h))
	f.says(h, h.Generation, v1alpha1.StatePending, cond("Ready", isFalse, "StoreFull"))
	f.shows(c, sbcError, "Ready", isFalse, ReasonValidationFailed)
	f.gone(h)
}

func TestAnImageOfAnotherKindChangesTheChild(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	f.ready(httpOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.update(c, func() { c.Spec.Image = pxeImage })
	i := ipxeOf(c)
	f.exists(i)
	f.gone(httpOf(c))
	require.Equal(t, []string{"10.0.0.5"}, i.Spec.SystemIPs)
	require.Equal(t, []string{"52:54:00:aa:bb:01"}, i.Spec.NetworkIdentifiers)
	f.ready(i)
	f.says(i, i.Generation, v1alpha1.StateReady, cond("IPXEScriptFetched", isTrue, "IPXEScriptDelivered"))
	f.shows(c, sbcReady, "IPXEScriptFetched", isTrue, "IPXEScriptDelivered")
	f.update(c, func() { c.Spec.Image = bothImage })
	f.exists(httpOf(c))
	f.gone(i)
}

func TestAConfigurationWithoutAnImage(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", "", func(c *metalv1alpha1.ServerBootConfiguration) {
		c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "ign"}
	})
	h := httpOf(c)
	f.ready(h)
	require.Empty(t, h.Spec.Image)
	require.Equal(t, "ign", h.Spec.IgnitionSecretRef.Name)
	f.shows(c, sbcReady, ConditionImageValidation, isTrue, ReasonNoImage)
}

func TestASlowRegistryHoldsUpNobodyElse(t *testing.T) {
	f := newFixture(t)
	for i := range 2 * maxLookups {
		f.server(fmt.Sprint("slow-", i), fmt.Sprintf("%08d-4455-6677-8899-aabbccddeeff", i+1))
	}
	f.registry.set(func() { f.registry.hangs["registry.example.com/slow:1"] = true })
	stop := f.run()
	for i := range 2 * maxLookups {
		f.configuration(fmt.Sprint("slow-", i), fmt.Sprint("slow-", i), "registry.example.com/slow:1")
	}
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	f.ready(httpOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	require.Equal(t, 1, f.registry.count("registry.example.com/slow:1"), "one question however many ask")
	stop()
}
