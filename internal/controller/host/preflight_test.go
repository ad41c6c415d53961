package host

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// offering are BMCs that offer other ways to boot than they say.
type offering struct {
	BMCs
	paths func(host string, said redfish.BootPaths) redfish.BootPaths
}

// Do implements BMCs.
func (o offering) Do(ctx context.Context, c redfish.Connection, f func(context.Context, redfish.BMC) error) error {
	return o.BMCs.Do(ctx, c, func(ctx context.Context, bmc redfish.BMC) error {
		return f(ctx, offers{bmc, func(said redfish.BootPaths) redfish.BootPaths { return o.paths(c.Address.Host, said) }})
	})
}

type offers struct {
	redfish.BMC
	paths func(redfish.BootPaths) redfish.BootPaths
}

// BootPaths implements redfish.BootOnce.
func (o offers) BootPaths(ctx context.Context) (redfish.BootPaths, error) {
	said, err := o.BMC.BootPaths(ctx)
	return o.paths(said), err
}

// untouched says that a machine was neither switched nor told anything.
func (f *fixture) untouched(m *machine) {
	f.t.Helper()
	require.Empty(f.t, m.executed())
	require.Empty(f.t, m.sent("PATCH", ""))
}

func TestAMachineThatNothingNamesIsNotSwitchedOff(t *testing.T) {
	f := newFixture(t)
	f.site.unidentified, f.site.proof = true, boot.Unproven
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	require.NoError(t, m.bmc.PressPower())
	h := f.host("n1", m, boots(ukiImage))
	message := f.fails(h, metal3.ProvisioningError, ReasonIdentityNotObservable)
	require.Contains(t, message, "it was not switched off: no path names this machine")
	require.Contains(t, message, v1alpha1.HostAddressesAnnotation)
	require.Equal(t, []string{"On"}, m.executed())
	require.Empty(t, m.sent("PATCH", ""))
	f.quiet(h)
	f.site.set(func() { f.site.unidentified = false })
	f.site.again("n1")
	f.is(h, metal3.StateProvisioned)
}

func TestABMCThatCannotBootFromTheNetworkIsFoundBeforeAnythingIsSwitched(t *testing.T) {
	f := newFixture(t)
	var mu sync.Mutex
	paths := map[string]redfish.BootPaths{}
	f.run(func(o *Options) {
		o.BMCs = offering{f.bmcs, func(host string, said redfish.BootPaths) redfish.BootPaths {
			mu.Lock()
			defer mu.Unlock()
			if p, ok := paths[host]; ok {
				return p
			}
			return said
		}}
	})
	for name, c := range map[string]struct {
		paths       redfish.BootPaths
		image, says string
	}{
		"none":  {redfish.BootPaths{}, bothImage, "neither UefiHttp nor Pxe"},
		"nopxe": {redfish.BootPaths{HTTP: true}, pxeImage, "the BMC offers only UefiHttp"},
	} {
		m := f.newMachine(name, bmcOptions{})
		mu.Lock()
		paths[strings.TrimPrefix(m.server.URL, "http://")] = c.paths
		mu.Unlock()
		h := f.host(name, m, withAddress, boots(c.image))
		require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonNoNetworkBoot), c.says)
		f.untouched(m)
	}
	m := f.newMachine("nooverride", bmcOptions{profile: "openbmc-no-override"})
	h := f.host("nooverride", m, withAddress, boots(bothImage))
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonNoNetworkBoot), "neither UefiHttp nor Pxe")
	f.untouched(m)
	for name, image := range map[string]string{"pxe": bothImage, "uki": ukiImage} {
		m := f.newMachine(name, bmcOptions{profile: "openbmc"})
		h := f.host(name, m, withAddress, boots(image))
		f.is(h, metal3.StateProvisioned)
		require.Equal(t, "Pxe", f.record(h).Tactic)
		require.EqualValues(t, 1, f.record(h).Try)
	}
}

func TestPXEIsNotUsedWhereTheOperatorMustNot(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.AllowPXE = false })
	m := f.newMachine("n1", bmcOptions{profile: "openbmc"})
	h := f.host("n1", m, withAddress, boots(ukiImage))
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonNoNetworkBoot), "the BMC offers only Pxe")
	f.untouched(m)
}

func TestNothingIsSwitchedBeforeWhatIsBootedIsReady(t *testing.T) {
	f := newFixture(t)
	f.site.unready["n1"] = "pulling the image"
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	require.NoError(t, m.bmc.PressPower())
	h := f.host("n1", m, withAddress, boots(ukiImage))
	f.until(h, "it waits", func() bool {
		return h.Status.Provisioning.State == metal3.StateProvisioning && h.Status.ErrorMessage == "" && len(f.children(h)) > 0
	})
	f.waits(h, "waits for HTTPBootConfig n1: pulling the image")
	f.quiet(h)
	f.site.set(func() { f.site.error["n1"] = true })
	f.site.again("n1")
	require.Contains(t, f.fails(h, metal3.ProvisioningError, "Pulling"), "HTTPBootConfig n1: pulling the image")
	require.Equal(t, []string{"On"}, m.executed())
	f.site.set(func() { f.site.unready["n1"] = "" })
	f.site.again("n1")
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, []string{"On", "ForceOff", "On"}, m.executed())
}

func TestAnImageThatCannotBeUsedIsSaidSo(t *testing.T) {
	f := newFixture(t)
	f.registry.fails[ukiImage] = errors.New("the registry is down")
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, withAddress, boots(ukiImage))
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonImageNotUsable), "the registry is down")
	f.registry.set(func() { delete(f.registry.fails, ukiImage) })
	f.is(h, metal3.StateProvisioned)

	m = f.newMachine("n2", bmcOptions{change: nil})
	h = f.host("n2", m, withAddress, boots(ukiImage), func(h *metal3.BareMetalHost) { h.Spec.Architecture = "aarch64" })
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonInvalidSpec), "but the machine is x86_64")
	f.untouched(m)

	m = f.newMachine("n3", bmcOptions{})
	h = f.host("n3", m, withAddress, boots(ukiImage), annotated(metal3.InspectAnnotationPrefix, "disabled"), func(h *metal3.BareMetalHost) { h.Spec.Architecture = "aarch64" })
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonImageNotUsable), "for arm64")
	f.untouched(m)
}

func TestWhatBaremetalOperatorWouldWriteToDisksIsRefused(t *testing.T) {
	f := newFixture(t)
	f.run()
	for name, change := range map[string]func(*metal3.BareMetalHost){
		"http": func(h *metal3.BareMetalHost) {
			h.Spec.Image.URL, h.Spec.Image.Checksum = "https://example.com/disk.raw", "abc"
		},
		"qcow": func(h *metal3.BareMetalHost) { format := "qcow2"; h.Spec.Image.DiskFormat = &format },
		"elsewhere": func(h *metal3.BareMetalHost) {
			h.Spec.UserData = &corev1.SecretReference{Name: "user", Namespace: "kube-system"}
		},
		"creds": func(h *metal3.BareMetalHost) { h.Spec.Image.URL = "oci://user:hunter2@" + ukiImage },
	} {
		m := f.newMachine(name, bmcOptions{})
		h := f.host(name, m, withAddress, boots(ukiImage), change)
		message := f.fails(h, metal3.ProvisioningError, ReasonInvalidSpec)
		require.Contains(t, message, "spec.")
		require.NotContains(t, message, "hunter2")
		f.untouched(m)
		require.Empty(t, f.children(h))
		f.quiet(h)
	}
}

func TestAConfigOfSomebodyElseIsLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	theirs := &v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "n1"}}
	theirs.Spec.SystemIPs, theirs.Spec.Image = []string{"10.9.9.9"}, pxeImage
	f.create(theirs)
	h := f.host("n1", m, withAddress, boots(bothImage))
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonNameTaken), "IPXEBootConfig "+f.ns+"/n1 exists and is not this host's")
	f.quiet(h)
	f.fails(h, metal3.ProvisioningError, ReasonNameTaken)
	f.untouched(m)
	f.reread(theirs)
	require.Equal(t, []string{"10.9.9.9"}, theirs.Spec.SystemIPs)
	require.NoError(t, f.client.Delete(t.Context(), theirs))
	f.change(h, annotated("look", "again"))
	f.is(h, metal3.StateProvisioned)
}

func TestAPullSecretThatIsMissingIsWaitedFor(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, withAddress, boots(ukiImage), annotated(v1alpha1.HostPullSecretAnnotation, "login"))
	require.Contains(t, f.fails(h, metal3.ProvisioningError, v1alpha1.ReasonPullSecretInvalid), "there is no Secret "+f.ns+"/login")
	f.quiet(h)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "login"}, Type: corev1.SecretTypeDockerConfigJson}
	s.StringData = map[string]string{corev1.DockerConfigJsonKey: `{"auths":{"registry.example.com":{"username":"robot","password":"x"}}}`}
	f.create(s)
	f.is(h, metal3.StateProvisioned)
}
