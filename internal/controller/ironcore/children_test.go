package ironcore

import (
	"fmt"
	"testing"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestAMachinesNextConfigWaitsForItsFormer(t *testing.T) {
	f := newFixture(t)
	f.run()
	s := f.server("s", serverUUID)
	a, b := f.configuration("a", "s", ukiImage), f.configuration("b", "s", ukiImage)
	f.refer(s, "a")
	former := httpOf(a)
	f.exists(former)
	f.update(former, func() { former.Finalizers = []string{"example.com/held"} })
	f.refer(s, "b")
	require.Contains(t, f.shows(b, sbcPending, "Ready", isFalse, v1alpha1.ReasonProgressing).Message, "waits until HTTPBootConfig "+f.ns+"/a")
	require.False(t, f.has(httpOf(b)))
	f.update(former, func() { former.Finalizers = nil })
	f.ready(httpOf(b))
	f.shows(b, sbcReady, "Ready", isTrue, "Ready")
}

func TestBothKindsAreMadeWhereTheOperatorIsToldSo(t *testing.T) {
	f := newFixture(t)
	stop := f.run(func(o *Options) { o.Both = true })
	f.server("s", serverUUID)
	c := f.configuration("c", "s", bothImage)
	h, i := httpOf(c), ipxeOf(c)
	f.ready(h)
	f.exists(i)
	f.shows(c, sbcPending, "Ready", isFalse, v1alpha1.ReasonProgressing)
	f.says(i, i.Generation, v1alpha1.StatePending, cond("Ready", isFalse, "StoreFull"))
	require.Contains(t, f.shows(c, sbcPending, "Ready", isFalse, "StoreFull").Message, "IPXEBootConfig: ")
	f.ready(i)
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	stop()
	f.run()
	f.gone(i)
	require.True(t, f.has(h))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
}

func TestAKindThatIsNotEnabledIsLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.server("s", serverUUID)
	c := f.configuration("c", "s", bothImage)
	h := httpOf(c)
	isController := true
	h.OwnerReferences = []metav1.OwnerReference{{APIVersion: "metal.ironcore.dev/v1alpha1", Kind: "ServerBootConfiguration", Name: "c", UID: c.UID, Controller: &isController}}
	h.Spec.UKIURL = "http://other.example.com/os.efi"
	f.create(h)
	f.run(func(o *Options) { o.Controllers = []string{ControllerPXE} })
	f.ready(ipxeOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.reread(h)
	require.Equal(t, "http://other.example.com/os.efi", h.Spec.UKIURL)

	f.update(c, func() { c.Spec.Image = ukiImage })
	require.Contains(t, f.shows(c, sbcError, ConditionImageValidation, isFalse, ReasonValidationFailed).Message, ControllerHTTP)
	f.update(c, func() { c.Spec.Image = "" })
	require.Contains(t, f.shows(c, sbcError, ConditionImageValidation, isFalse, ReasonValidationFailed).Message, "spec.image is empty")
	f.gone(ipxeOf(c))
	require.True(t, f.has(h))
}

func TestSomebodyElsesObjectIsNeverTouched(t *testing.T) {
	f := newFixture(t)
	foreign := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "c"}, Spec: v1alpha1.HTTPBootConfigSpec{UKIURL: "http://theirs.example.com/os.efi"}}
	f.create(foreign)
	f.ready(foreign)
	f.run()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	require.Contains(t, f.shows(c, sbcError, "Ready", isFalse, ReasonNameTaken).Message, "is left alone; delete it, or")
	f.poll(func() string { return fmt.Sprint(f.events("c")) }, func() bool { return f.events("c")[ReasonNameTaken] == corev1.EventTypeWarning })
	version := foreign.ResourceVersion
	f.update(c, func() { c.Spec.Image = pxeImage })
	f.ready(ipxeOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.update(c, func() { c.Spec.Image = ukiImage })
	f.shows(c, sbcError, "Ready", isFalse, ReasonNameTaken)
	f.reread(foreign)
	require.Equal(t, version, foreign.ResourceVersion)

	require.NoError(t, f.client.Delete(t.Context(), foreign))
	f.ready(httpOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
}

func TestAChildOfIroncoresBootOperatorIsTakenOver(t *testing.T) {
	f := newFixture(t)
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	isController := true
	h := httpOf(c)
	h.OwnerReferences = []metav1.OwnerReference{{APIVersion: "metal.ironcore.dev/v1alpha1", Kind: "ServerBootConfiguration", Name: "c", UID: c.UID, Controller: &isController, BlockOwnerDeletion: &isController}}
	h.Spec = v1alpha1.HTTPBootConfigSpec{
		SystemUUID: serverUUID, UKIURL: "http://old.example.com/httpboot/os/sha256-1.efi",
		IgnitionSecretRef: &corev1.LocalObjectReference{Name: "old"}, BootPolicy: v1alpha1.BootPolicyOnce,
	}
	require.NoError(t, f.client.Create(t.Context(), h, client.FieldOwner("server-boot-controller")))
	f.run()
	f.made(h, func() bool { return h.Spec.Image == ukiImage })
	require.Empty(t, h.Spec.UKIURL)
	require.Nil(t, h.Spec.IgnitionSecretRef, "the configuration names none")
	require.Equal(t, v1alpha1.BootPolicyOnce, h.Spec.BootPolicy, "what ServerBootConfigurations cannot say stays")
	require.EqualValues(t, 2, h.Generation, "one change of the spec is one boot attempt")
}

func TestADeletedConfigurationTakesItsChildrenAlong(t *testing.T) {
	f := newFixture(t)
	stop := f.run()
	f.server("s", serverUUID)
	c, held := f.configuration("c", "s", ukiImage), (*metalv1alpha1.ServerBootConfiguration)(nil)
	f.exists(httpOf(c))
	require.NoError(t, f.client.Delete(t.Context(), c))
	f.gone(httpOf(c))

	held = f.configuration("held", "s", ukiImage, func(c *metalv1alpha1.ServerBootConfiguration) { c.Finalizers = []string{"example.com/held"} })
	f.exists(httpOf(held))
	require.NoError(t, f.client.Delete(t.Context(), held))
	f.gone(httpOf(held))
	f.update(held, func() { held.Finalizers = nil })

	// What went while nobody looked, and came back under its name.
	c = f.configuration("c", "s", ukiImage)
	f.exists(httpOf(c))
	stop()
	require.NoError(t, f.client.Delete(t.Context(), c))
	c = f.configuration("c", "s", ukiImage)
	f.run()
	h := httpOf(c)
	f.made(h, func() bool { return metav1.IsControlledBy(h, c) })
}

func TestARefusedChildIsAnErrorThatSaysWhy(t *testing.T) {
	f := newFixture(t)
	const image = "[2001:db8::1]:5000/os:1" // a good reference that the child's rules do not take
	f.registry.set(func() { f.registry.images[image] = []boot.Role{boot.RoleUKI} })
	f.run()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", image)
	require.Contains(t, f.shows(c, sbcError, "Ready", isFalse, ReasonRefused).Message, "image must be an OCI reference")
}
