package translate

import (
	"net/netip"
	"slices"
	"testing"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

var machine = Machine{
	UUID:  uuid,
	Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")},
	MACs:  []boot.MAC{"52:54:00:aa:bb:01"},
}

func configuration(image, ignition string) *metalv1alpha1.ServerBootConfiguration {
	c := &metalv1alpha1.ServerBootConfiguration{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}}
	c.Spec.ServerRef.Name = "node7"
	c.Spec.Image = image
	if ignition != "none" {
		c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: ignition}
	}
	return c
}

func TestEveryFieldIsTranslated(t *testing.T) {
	c := configuration("registry.example.com/os:1", "ign")
	var h v1alpha1.HTTPBootConfigSpec
	HTTP(c, machine, boot.ARM64, &h)
	require.Equal(t, v1alpha1.HTTPBootConfigSpec{
		SystemUUID: uuid, NetworkIdentifiers: []string{"10.0.0.1", "2001:db8::1", "52:54:00:aa:bb:01"},
		Image: "registry.example.com/os:1", Architecture: "arm64", IgnitionSecretRef: &corev1.LocalObjectReference{Name: "ign"},
	}, h)

	var i v1alpha1.IPXEBootConfigSpec
	IPXE(c, machine, boot.AMD64, &i)
	require.Equal(t, v1alpha1.IPXEBootConfigSpec{
		SystemUUID: uuid, SystemIPs: []string{"10.0.0.1", "2001:db8::1"}, NetworkIdentifiers: []string{"52:54:00:aa:bb:01"},
		Image: "registry.example.com/os:1", Architecture: "amd64", IgnitionSecretRef: &corev1.LocalObjectReference{Name: "ign"},
	}, i)
	require.NotSame(t, c.Spec.IgnitionSecretRef, i.IgnitionSecretRef, "nothing is shared with the cache")
}

func TestWhatTheConfigurationDoesNotSayAnyMoreGoes(t *testing.T) {
	h := v1alpha1.HTTPBootConfigSpec{
		SystemUUID: "old", NetworkIdentifiers: []string{"10.0.0.9"}, UKIURL: "http://old.example.com/a.efi",
		Architecture: "arm64", IgnitionSecretRef: &corev1.LocalObjectReference{Name: "old"},
		BootPolicy: v1alpha1.BootPolicyOnce, MinimumProof: "BMC", PullSecretRef: &corev1.LocalObjectReference{Name: "pull"},
	}
	HTTP(configuration("os:1", "none"), Machine{UUID: uuid}, boot.AMD64, &h)
	require.Equal(t, v1alpha1.HTTPBootConfigSpec{
		SystemUUID: uuid, Image: "os:1", Architecture: "amd64",
		BootPolicy: v1alpha1.BootPolicyOnce, MinimumProof: "BMC", PullSecretRef: &corev1.LocalObjectReference{Name: "pull"},
	}, h)

	i := v1alpha1.IPXEBootConfigSpec{
		SystemIPs: []string{"10.0.0.9"}, KernelURL: "http://old/k", InitrdURL: "http://old/i", SquashfsURL: "http://old/s", IPXEServerURL: "http://old",
		IgnitionSecretRef: &corev1.LocalObjectReference{Name: "old"}, KernelArguments: []string{"quiet"},
	}
	IPXE(configuration("os:1", ""), Machine{UUID: uuid}, boot.AMD64, &i)
	require.Equal(t, v1alpha1.IPXEBootConfigSpec{SystemUUID: uuid, Image: "os:1", Architecture: "amd64", KernelArguments: []string{"quiet"}}, i)
}

func TestTheImageDecidesThePath(t *testing.T) {
	all := func(roles ...boot.Role) []boot.Artifact {
		var out []boot.Artifact
		for _, r := range roles {
			out = append(out, boot.Artifact{Role: r})
		}
		return out
	}
	uki, pxe := all(boot.RoleUKI), all(boot.RoleKernel, boot.RoleInitrd, boot.RoleSquashfs)
	everything := slices.Concat(uki, pxe)
	onlyHTTP, onlyPXE, either := Paths{HTTP: true}, Paths{PXE: true}, Paths{HTTP: true, PXE: true}
	for _, c := range []struct {
		name    string
		image   []boot.Artifact
		enabled Paths
		both    bool
		want    Paths
		err     string
	}{
		{"UKI", uki, either, true, onlyHTTP, ""},
		{"kernel and initrd", pxe, either, true, onlyPXE, ""},
		{"everything: the UKI wins", everything, either, false, onlyHTTP, ""},
		{"everything, and told so", everything, either, true, either, ""},
		{"everything, only HTTP", everything, onlyHTTP, true, onlyHTTP, ""},
		{"everything, only PXE", everything, onlyPXE, false, onlyPXE, ""},
		{"a stub with kernel and initrd, of which a UKI is composed", slices.Concat(pxe, all(boot.RoleStub)), either, false, onlyHTTP, ""},
		{"the same, only PXE", slices.Concat(pxe, all(boot.RoleStub)), onlyPXE, false, onlyPXE, ""},
		{"a stub alone", all(boot.RoleStub, boot.RoleKernel), either, false, Paths{}, "it needs a UKI, or a kernel and an initrd"},
		{"no initrd", all(boot.RoleKernel, boot.RoleSquashfs), either, false, Paths{}, "it has Kernel, Squashfs, but it needs a UKI, or a kernel and an initrd"},
		{"nothing", nil, either, false, Paths{}, "it has nothing that can be booted"},
		{"UKI, only PXE", uki, onlyPXE, false, Paths{}, "only where the controller serverbootconfighttp is enabled"},
		{"kernel, only HTTP", pxe, onlyHTTP, false, Paths{}, "only where the controller serverbootconfigpxe is enabled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Choose(c.image, c.enabled, c.both)
			require.Equal(t, c.want, got)
			if c.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.ErrorContains(t, err, c.err)
		})
	}
	got, err := ChooseWithoutImage(either)
	require.NoError(t, err)
	require.Equal(t, onlyHTTP, got)
	_, err = ChooseWithoutImage(onlyPXE)
	require.ErrorIs(t, err, boot.ErrInvalid)
}

func TestOneConfigurationOfAServerCounts(t *testing.T) {
	ref := func(name string) *metalv1alpha1.ObjectReference {
		return &metalv1alpha1.ObjectReference{Namespace: "ns", Name: name}
	}
	now := metav1.Now()
	named := func(name string) metalv1alpha1.ServerBootConfiguration {
		c := *configuration("os:1", "none")
		c.Name = name
		return c
	}
	going := named("going")
	going.DeletionTimestamp = &now
	a, b := named("a"), named("b")
	elsewhere := named("a")
	elsewhere.Namespace = "other"
	type configs = []metalv1alpha1.ServerBootConfiguration
	for _, c := range []struct {
		name             string
		ref, maintenance *metalv1alpha1.ObjectReference
		state            metalv1alpha1.ServerState
		all              configs
		counts           string // name of the one in ns that counts
		whyOther         string
	}{
		{"the one that is named", ref("b"), nil, "Reserved", configs{a, b}, "b", "boots ns/b now (spec.bootConfigurationRef)"},
		{"the name includes the namespace", ref("a"), nil, "", configs{elsewhere}, "", "boots ns/a now"},
		{"a name of one that is gone", ref("gone"), nil, "", configs{a}, "", "boots ns/gone now"},
		{"maintenance", ref("a"), ref("b"), metalv1alpha1.ServerStateMaintenance, configs{a, b}, "b", "(spec.maintenanceBootConfigurationRef)"},
		{"maintenance that has nothing to boot", ref("a"), nil, metalv1alpha1.ServerStateMaintenance, configs{a, b}, "a", "boots ns/a"},
		{"maintenance that is over or has not begun", ref("a"), ref("b"), metalv1alpha1.ServerStateReserved, configs{a, b}, "a", "boots ns/a"},
		{"maintenance that has not begun, and nothing else", nil, ref("a"), "", configs{a}, "", "in the state Maintenance only"},
		{"the only one", nil, nil, "", configs{a}, "a", ""},
		{"the only one that stays", nil, nil, "", configs{a, going}, "a", ""},
		{"the only one but that for maintenance", nil, ref("b"), "", configs{a, b}, "a", "in the state Maintenance only"},
		{"several and none is named", nil, nil, "", configs{a, b}, "", "set its spec.bootConfigurationRef"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := server(uuid)
			s.Spec.BootConfigurationRef, s.Spec.MaintenanceBootConfigurationRef, s.Status.State = c.ref, c.maintenance, c.state
			for _, cfg := range c.all {
				if cfg.DeletionTimestamp != nil {
					continue
				}
				counts, why := Counts(&cfg, s, c.all)
				require.Equal(t, cfg.Namespace == "ns" && cfg.Name == c.counts, counts, "%s/%s: %s", cfg.Namespace, cfg.Name, why)
				if !counts {
					require.Contains(t, why, c.whyOther)
				}
			}
		})
	}
}
