package ironcore

import (
	"fmt"
	"testing"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func cond(name string, status metav1.ConditionStatus, reason string) metav1.Condition {
	return metav1.Condition{Type: name, Status: status, Reason: reason}
}

func TestAConfigurationBecomesReadyWhenItsChildDoes(t *testing.T) {
	f := newFixture(t)
	f.run()
	s := f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage, func(c *metalv1alpha1.ServerBootConfiguration) {
		c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "ign"}
	})
	f.refer(s, "c")

	h := httpOf(c)
	f.exists(h)
	require.Equal(t, v1alpha1.HTTPBootConfigSpec{
		SystemUUID: serverUUID, NetworkIdentifiers: []string{"10.0.0.5", "52:54:00:aa:bb:01"}, Image: ukiImage, Architecture: "amd64",
		IgnitionSecretRef: &corev1.LocalObjectReference{Name: "ign"}, BootPolicy: v1alpha1.BootPolicyAlways,
	}, h.Spec)
	require.True(t, metav1.IsControlledBy(h, c))
	f.shows(c, sbcPending, "Ready", isFalse, v1alpha1.ReasonProgressing)
	require.False(t, f.has(ipxeOf(c)))

	f.says(h, h.Generation, v1alpha1.StatePending, cond("Ready", isFalse, "Progressing"), cond("ArtifactsReady", isFalse, "Progressing"))
	f.shows(c, sbcPending, "ArtifactsReady", isFalse, "Progressing")
	f.says(h, h.Generation, v1alpha1.StateReady, cond("Ready", isTrue, "Ready"), cond("ArtifactsReady", isTrue, "ArtifactsVerified"))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.shows(c, sbcReady, "ImageValidation", isTrue, ReasonImageValid)
	f.says(h, h.Generation, v1alpha1.StateReady, cond("UKIFetched", isTrue, "UKIDelivered"), cond("IgnitionDataFetched", isTrue, "IgnitionDataDelivered"))
	f.shows(c, sbcReady, "UKIFetched", isTrue, "UKIDelivered")
	got := f.shows(c, sbcReady, "IgnitionDataFetched", isTrue, "IgnitionDataDelivered")
	require.Equal(t, meta.FindStatusCondition(h.Status.Conditions, "IgnitionDataFetched").LastTransitionTime.Unix(), got.LastTransitionTime.Unix())
	f.poll(func() string { return fmt.Sprint(f.events("c")) }, func() bool { return f.events("c")["Ready"] == corev1.EventTypeNormal })

	f.says(h, h.Generation, v1alpha1.StateError, cond("Ready", isFalse, "IgnitionInvalid"))
	require.Contains(t, f.shows(c, sbcError, "Ready", isFalse, "IgnitionInvalid").Message, "told by the child")
	f.poll(func() string { return fmt.Sprint(f.events("c")) }, func() bool { return f.events("c")["IgnitionInvalid"] == corev1.EventTypeWarning })
}

func TestAStateOfAnOlderGenerationIsNotCopied(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	h := httpOf(c)
	f.ready(h)
	f.says(h, h.Generation, v1alpha1.StateReady, cond("UKIFetched", isTrue, "UKIDelivered"))
	f.shows(c, sbcReady, "UKIFetched", isTrue, "UKIDelivered")

	f.update(c, func() { c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "new"} })
	f.made(h, func() bool { return h.Spec.IgnitionSecretRef != nil && h.Generation == 2 })
	require.Equal(t, v1alpha1.StateReady, h.Status.State, "what it says of generation 1")
	f.shows(c, sbcPending, "Ready", isFalse, v1alpha1.ReasonProgressing)
	require.Nil(t, meta.FindStatusCondition(c.Status.Conditions, "UKIFetched"))
	f.says(h, 1, v1alpha1.StateReady, cond("Ready", isTrue, "Ready"), cond("ArtifactsReady", isTrue, "ArtifactsVerified"))
	f.quiet(c)
	require.Equal(t, sbcPending, c.Status.State, "a stale status, written again, changes nothing")
	require.Nil(t, meta.FindStatusCondition(c.Status.Conditions, "ArtifactsReady"))

	f.says(h, 2, v1alpha1.StateReady, cond("Ready", isTrue, "Ready"))
	f.shows(c, sbcReady, "UKIFetched", isTrue, "UKIDelivered")
}

func TestWhatMetalOperatorWritesIsSetRight(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	f.ready(httpOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.status(c, func() {
		c.Status.State = sbcPending // its view of the status was older
		meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: "Theirs", Status: isTrue, Reason: "Theirs", Message: "x"})
	})
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	require.NotNil(t, meta.FindStatusCondition(c.Status.Conditions, "Theirs"), "conditions of others stay")
}

func TestReconcilingAgainWritesNothing(t *testing.T) {
	f := newFixture(t)
	f.run()
	s := f.server("s", serverUUID)
	c := f.configuration("c", "s", bothImage)
	h := httpOf(c)
	f.ready(h)
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.quiet(c)
	version, generation := c.ResourceVersion, h.Generation
	for i := range 3 {
		f.status(s, func() { s.Status.PowerState = metalv1alpha1.ServerPowerState(fmt.Sprint(i)) })
		f.update(s, func() { s.Spec.Power = metalv1alpha1.Power(fmt.Sprint(i)) })
		f.says(h, h.Generation, v1alpha1.StateReady)
	}
	f.quiet(c)
	f.reread(h)
	require.Equal(t, version, c.ResourceVersion)
	require.Equal(t, generation, h.Generation)
	require.Equal(t, 1, f.registry.count(bothImage))
}

func TestAChangedServerChangesItsChild(t *testing.T) {
	f := newFixture(t)
	f.run()
	s := f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	h := httpOf(c)
	f.ready(h)
	f.status(s, func() {
		s.Status.NetworkInterfaces = append(s.Status.NetworkInterfaces, metalv1alpha1.NetworkInterface{Name: "eth1", MACAddress: "52:54:00:aa:bb:02", IPs: []metalv1alpha1.IP{metalv1alpha1.MustParseIP("2001:db8::5")}})
		s.Status.Processors = []metalv1alpha1.Processor{{ID: "1", Type: "CPU", Architecture: "ARM", InstructionSet: "ARM-A64"}}
	})
	f.made(h, func() bool { return len(h.Spec.NetworkIdentifiers) == 4 && h.Spec.Architecture == "arm64" })
	require.Equal(t, []string{"10.0.0.5", "2001:db8::5", "52:54:00:aa:bb:01", "52:54:00:aa:bb:02"}, h.Spec.NetworkIdentifiers)
	f.shows(c, sbcPending, "Ready", isFalse, v1alpha1.ReasonProgressing)
	f.poll(func() string { return "never asked for arm64" }, func() (is bool) {
		f.registry.set(func() { is = f.registry.archs[ukiImage] == boot.ARM64 })
		return is
	})
	f.update(s, func() { s.Spec.SystemUUID = "99112233-4455-6677-8899-aabbccddeeff" })
	f.made(h, func() bool { return h.Spec.SystemUUID == "99112233-4455-6677-8899-aabbccddeeff" })

	f.update(s, func() { s.Spec.SystemUUID = "unknown" })
	require.Contains(t, f.shows(c, sbcError, "Ready", isFalse, v1alpha1.ReasonInvalidIdentity).Message, `"unknown" is not a UUID`)
	f.gone(h)
}

func TestOneBrokenServerIsNotEverybodys(t *testing.T) {
	f := newFixture(t)
	broken := f.server("broken", "11112233-4455-6677-8899-aabbccddeeff")
	lie := newServer()
	lie.SetName(broken.Name)
	patch := `{"status":{"networkInterfaces":[{"name":"eth0","macAddress":"52:54:00:aa:bb:09","ips":["10.0.0.9/24"]},{"name":"eth1","macAddress":"52:54:00:aa:bb:0a"}]}}`
	require.NoError(t, f.client.Status().Patch(t.Context(), lie, client.RawPatch("application/merge-patch+json", []byte(patch))), "the CRD lets it pass")
	f.server("s", serverUUID)
	f.run()
	f.ready(httpOf(f.configuration("c", "s", ukiImage)))
	h := httpOf(f.configuration("b", "broken", ukiImage))
	f.exists(h)
	require.Equal(t, []string{"52:54:00:aa:bb:0a"}, h.Spec.NetworkIdentifiers, "what can be read is used")
}

func TestOfTwoConfigurationsTheOneThatIsNamedCounts(t *testing.T) {
	f := newFixture(t)
	f.run()
	s := f.server("s", serverUUID)
	a := f.configuration("a", "s", ukiImage)
	f.ready(httpOf(a))
	f.shows(a, sbcReady, "Ready", isTrue, "Ready")

	b := f.configuration("b", "s", pxeImage)
	require.Contains(t, f.shows(a, sbcPending, "Ready", isFalse, ReasonNotReferenced).Message, "set its spec.bootConfigurationRef")
	f.gone(httpOf(a))
	f.shows(b, sbcPending, "Ready", isFalse, ReasonNotReferenced)
	require.False(t, f.has(ipxeOf(b)))

	f.refer(s, "b")
	f.ready(ipxeOf(b))
	f.shows(b, sbcReady, "Ready", isTrue, "Ready")
	require.Contains(t, f.shows(a, sbcPending, "Ready", isFalse, ReasonNotReferenced).Message, "boots "+f.ns+"/b now")
	require.Nil(t, meta.FindStatusCondition(a.Status.Conditions, "ImageValidation"))

	f.update(s, func() {
		s.Spec.MaintenanceBootConfigurationRef = &metalv1alpha1.ObjectReference{Namespace: f.ns, Name: "a"}
	})
	f.status(s, func() { s.Status.State = metalv1alpha1.ServerStateMaintenance })
	f.ready(httpOf(a))
	f.shows(a, sbcReady, "Ready", isTrue, "Ready")
	f.shows(b, sbcPending, "Ready", isFalse, ReasonNotReferenced)
	f.gone(ipxeOf(b))

	require.NoError(t, f.client.Delete(t.Context(), a))
	f.gone(httpOf(a))
	f.update(s, func() { s.Spec.MaintenanceBootConfigurationRef = nil })
	f.status(s, func() { s.Status.State = metalv1alpha1.ServerStateReserved })
	f.ready(ipxeOf(b))
	f.shows(b, sbcReady, "Ready", isTrue, "Ready")
}

func TestAPausedConfigurationIsLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	h := httpOf(c)
	f.ready(h)
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.update(c, func() {
		c.Annotations = map[string]string{v1alpha1.PausedAnnotation: "test"}
		c.Spec.Image = pxeImage
	})
	f.quiet(c)
	require.True(t, f.has(h))
	require.Equal(t, ukiImage, h.Spec.Image)
	f.update(c, func() { c.Annotations = nil })
	f.exists(ipxeOf(c))
}

func TestAServerThatIsNotThereIsWaitedFor(t *testing.T) {
	f := newFixture(t)
	f.run()
	c := f.configuration("c", "s", ukiImage)
	f.shows(c, sbcPending, "Ready", isFalse, ReasonServerNotFound)
	s := f.server("s", serverUUID)
	h := httpOf(c)
	f.made(h, func() bool { return len(h.Spec.NetworkIdentifiers) == 2 })
	f.ready(h)
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	require.NoError(t, f.client.Delete(t.Context(), s))
	f.shows(c, sbcPending, "Ready", isFalse, ReasonServerNotFound)
	require.True(t, f.has(httpOf(c)), "it may come back")

	nameless := f.configuration("nameless", "s", ukiImage, func(c *metalv1alpha1.ServerBootConfiguration) { c.Spec.ServerRef.Name = "" })
	require.Contains(t, f.shows(nameless, sbcError, "Ready", isFalse, ReasonServerNotFound).Message, "set it to the name of a Server")
}
