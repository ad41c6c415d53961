package translate

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metal3v1alpha1 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const reference1 = "registry.example.com:5000/os/image:1.2"

type metalHost = metal3v1alpha1.BareMetalHost

func host(change ...func(*metalHost)) *metalHost {
	h := &metalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "racks", Name: "node7", Annotations: map[string]string{}}}
	h.Spec.BootMACAddress = "52:54:00:AA:BB:01"
	for _, c := range change {
		c(h)
	}
	return h
}

func annotated(name, value string) func(*metalHost) {
	return func(h *metalHost) { h.Annotations[name] = value }
}

func withImage(url string, format ...string) func(*metalHost) {
	return func(h *metalHost) {
		h.Spec.Image = &metal3v1alpha1.Image{URL: url}
		if len(format) > 0 {
			h.Spec.Image.DiskFormat = &format[0]
		}
	}
}

func withMethod(method string) func(*metalHost) {
	return func(h *metalHost) { h.Spec.CustomDeploy = &metal3v1alpha1.CustomDeploy{Method: method} }
}

func withHardware(arch string, nics ...metal3v1alpha1.NIC) func(*metalHost) {
	return func(h *metalHost) {
		h.Status.HardwareDetails = &metal3v1alpha1.HardwareDetails{NIC: nics, CPU: metal3v1alpha1.CPU{Arch: arch}}
	}
}

func secretIn(namespace, name string) *corev1.SecretReference {
	return &corev1.SecretReference{Namespace: namespace, Name: name}
}

func TestAHostsIdentityIsCanonical(t *testing.T) {
	nic := func(mac, ip string) metal3v1alpha1.NIC { return metal3v1alpha1.NIC{Name: "eth", MAC: mac, IP: ip} }
	boot1 := boot.MAC("52:54:00:aa:bb:01")
	for _, c := range []struct {
		name  string
		host  *metalHost
		addrs []string
		macs  []boot.MAC
		skips []string
	}{
		{"only its MAC", host(), nil, []boot.MAC{boot1}, nil},
		{"what was found", host(withHardware("", nic("52-54-00-AA-BB-02", "10.0.0.7"), nic("52:54:00:aa:bb:01", "2001:DB8::5"))),
			[]string{"10.0.0.7", "2001:db8::5"}, []boot.MAC{boot1, "52:54:00:aa:bb:02"}, nil},
		{"what it will have", host(annotated(v1alpha1.HostAddressesAnnotation, " 10.0.0.9, ::ffff:10.0.0.8,10.0.0.9,, ")),
			[]string{"10.0.0.8", "10.0.0.9"}, []boot.MAC{boot1}, nil},
		{"what names nobody", host(annotated(v1alpha1.HostAddressesAnnotation, "127.0.0.1"), withHardware("", nic("", "fe80::1%eth0"), nic("00:00:00:00:00:00", "10.0.0.0/24"))),
			nil, []boot.MAC{boot1}, []string{"loopback", "is not a MAC", "own link", "multicast or zero", "is not an IP address"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ReadHost(c.host, uuid)
			require.NoError(t, err)
			require.EqualValues(t, uuid, m.UUID)
			require.Equal(t, c.addrs, texts(m.Addrs))
			require.Equal(t, c.macs, m.MACs)
			require.Len(t, m.Skipped, len(c.skips), "%q", m.Skipped)
			for i, s := range c.skips {
				require.Contains(t, m.Skipped[i], s)
			}
		})
	}
}

func TestWhatAHostsAuthorWroteIsKeptBeforeWhatWasFound(t *testing.T) {
	var nics []metal3v1alpha1.NIC
	for i := range 100 {
		nics = append(nics, metal3v1alpha1.NIC{MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), IP: fmt.Sprintf("10.0.0.%d", i+1)})
	}
	h := host(withHardware("", nics...), annotated(v1alpha1.HostAddressesAnnotation, "192.0.2.1"))
	m, err := ReadHost(h, "")
	require.NoError(t, err)
	require.Len(t, m.Addrs, maxIdentifiers-minMACs)
	require.Len(t, m.MACs, minMACs)
	require.Contains(t, m.MACs, boot.MAC("52:54:00:aa:bb:01"))
	require.Contains(t, texts(m.Addrs), "192.0.2.1")
	require.NotEmpty(t, m.Skipped)
}

func TestTheArchitectureOfAHost(t *testing.T) {
	of := func(spec, found string) *metalHost {
		return host(withHardware(found), func(h *metalHost) { h.Spec.Architecture = spec })
	}
	for _, c := range []struct {
		spec, found string
		want        boot.Architecture
	}{
		{"", "", ""}, {"x86_64", "", boot.AMD64}, {"AMD64", "", boot.AMD64}, {"aarch64", "aarch64", boot.ARM64},
		{"arm64", "aarch64", boot.ARM64}, {"", "x86_64", boot.AMD64}, {"", "ppc64le", ""}, {"x86_64", "ppc64le", boot.AMD64},
	} {
		m, err := ReadHost(of(c.spec, c.found), "")
		require.NoError(t, err, "%+v", c)
		require.Equal(t, c.want, m.Architecture, "%+v", c)
	}
	for text, h := range map[string]*metalHost{
		`spec.architecture of BareMetalHost node7: "ppc64le" is none that can be booted; there are x86_64 and aarch64`: of("ppc64le", ""),
		"it is aarch64, but the machine is x86_64 (status.hardware.cpu.arch)":                                          of("aarch64", "x86_64"),
	} {
		_, err := ReadHost(h, "")
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, text)
	}
}

func TestAHostThatNamesNoMachineIsRefused(t *testing.T) {
	nameless := func(h *metalHost) { h.Spec.BootMACAddress = "" }
	for text, h := range map[string]*metalHost{
		"has no spec.bootMACAddress, no annotation boot.ironcore.dev/system-uuid or boot.ironcore.dev/addresses, and no usable address": host(nameless),
		`network interface "": invalid: "x" is not a MAC`:                                 host(nameless, withHardware("", metal3v1alpha1.NIC{MAC: "x"})),
		`spec.bootMACAddress of BareMetalHost node7: invalid: "node-7"`:                   host(func(h *metalHost) { h.Spec.BootMACAddress = "node-7" }),
		`annotation boot.ironcore.dev/addresses of BareMetalHost node7: invalid: "a.b.c"`: host(annotated(v1alpha1.HostAddressesAnnotation, "10.0.0.1,a.b.c")),
	} {
		_, err := ReadHost(h, "")
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, text)
	}
	m, err := ReadHost(host(nameless), uuid)
	require.NoError(t, err, "a UUID is enough")
	require.Empty(t, m.MACs)
}

func TestTheRecordedUUIDOfAHostIsRead(t *testing.T) {
	got, err := HostUUID(host())
	require.NoError(t, err)
	require.Empty(t, got)
	got, err = HostUUID(host(annotated(v1alpha1.HostSystemUUIDAnnotation, strings.ToUpper(uuid))))
	require.NoError(t, err)
	require.EqualValues(t, uuid, got)
	_, err = HostUUID(host(annotated(v1alpha1.HostSystemUUIDAnnotation, "00000000-0000-0000-0000-000000000000")))
	require.ErrorIs(t, err, boot.ErrInvalid)
	require.ErrorContains(t, err, "annotation boot.ironcore.dev/system-uuid of BareMetalHost node7")
}

func TestWhatAHostBoots(t *testing.T) {
	once, always := v1alpha1.BootPolicyOnce, v1alpha1.BootPolicyAlways
	const digest = "@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
	for _, c := range []struct {
		name   string
		host   *metalHost
		image  string
		policy v1alpha1.BootPolicy
	}{
		{"nothing", host(), "", once},
		{"an empty image, as of a host that was released", host(withImage("")), "", once},
		{"an image", host(withImage("oci://" + reference1)), reference1, once},
		{"tag and digest are kept", host(withImage("OCI://"+reference1+digest, "raw")), reference1 + digest, once},
		{"a method", host(withMethod("oci://" + reference1)), reference1, once},
		{"a method beside an empty image", host(withImage(""), withMethod("oci://"+reference1)), reference1, once},
		{"live", host(withImage("oci://"+reference1, "live-iso")), reference1, always},
		{"an empty format", host(withImage("oci://"+reference1, "")), reference1, once},
		{"live, but once", host(withImage("oci://"+reference1, "live-iso"), annotated(v1alpha1.HostBootPolicyAnnotation, "Once")), reference1, once},
		{"a method, always", host(withMethod("oci://"+reference1), annotated(v1alpha1.HostBootPolicyAnnotation, "Always")), reference1, always},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := ReadHostBoot(c.host)
			require.NoError(t, err)
			require.Equal(t, c.image, b.Image)
			require.Equal(t, c.policy, b.Policy)
			require.Equal(t, v1alpha1.ProvisionedWhenImageAndUserData, b.ProvisionedWhen)
			require.Empty(t, b.Notes)
		})
	}
}

func TestTheSecretsOfAHostAreItsOwn(t *testing.T) {
	auth := "auth"
	b, err := ReadHostBoot(host(withImage("oci://"+reference1), annotated(v1alpha1.HostPullSecretAnnotation, "login"), func(h *metalHost) {
		h.Spec.UserData, h.Spec.MetaData = secretIn("", "user"), secretIn("racks", "meta")
		h.Spec.NetworkData, h.Spec.PreprovisioningNetworkDataName = secretIn("elsewhere", ""), "pre"
	}))
	require.NoError(t, err)
	require.Equal(t, []string{"login", "user", "meta", "pre"}, []string{b.PullSecret, b.UserData, b.MetaData, b.NetworkData})

	b, err = ReadHostBoot(host(withImage("oci://"+reference1), annotated(v1alpha1.HostPullSecretAnnotation, "login"), func(h *metalHost) {
		h.Spec.Image.OCIAuthSecretName, h.Spec.NetworkData, h.Spec.PreprovisioningNetworkDataName = &auth, secretIn("racks", "net"), "pre"
	}))
	require.NoError(t, err)
	require.Equal(t, []string{"auth", "net"}, []string{b.PullSecret, b.NetworkData})
	require.Len(t, b.Notes, 1)
	require.Contains(t, b.Notes[0], "spec.preprovisioningNetworkDataName")

	for field, set := range map[string]func(*metalHost, *corev1.SecretReference){
		"spec.userData":    func(h *metalHost, r *corev1.SecretReference) { h.Spec.UserData = r },
		"spec.metaData":    func(h *metalHost, r *corev1.SecretReference) { h.Spec.MetaData = r },
		"spec.networkData": func(h *metalHost, r *corev1.SecretReference) { h.Spec.NetworkData = r },
	} {
		_, err := ReadHostBoot(host(func(h *metalHost) { set(h, secretIn("kube-system", "s")) }))
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, field+`.namespace is "kube-system"; a Secret of another namespace is refused: copy it to racks`)
		_, err = ReadHostBoot(host(func(h *metalHost) { set(h, secretIn("", "No Name")) }))
		require.ErrorContains(t, err, field+`.name is "No Name", which is no Secret's name`)
	}
}

func TestAHostThatCannotBeBootedSaysWhatIsRight(t *testing.T) {
	right := "oci://" + reference1
	for text, h := range map[string]*metalHost{
		"spec.image.url does not begin with oci://; it must name an image in an OCI registry, such as oci://registry.example.com/os/images:1.2 (disk images are written by baremetal-operator)": host(withImage("https://images.example.com/a.qcow2")),
		"spec.customDeploy.method does not begin with oci://": host(withMethod("install_everything")),
		"both set":                     host(withImage(right), withMethod(right)),
		"spec.image.url is no ref":     host(withImage("oci://")),
		`spec.image.format is "qcow2"`: host(withImage(right, "qcow2")),
		`raw (booted once, an installation) or live-iso (booted always, a diskless machine)`:                                host(withImage(right, "vmdk")),
		`annotation boot.ironcore.dev/boot-policy is "once"; it must be Once or Always`:                                     host(annotated(v1alpha1.HostBootPolicyAnnotation, "once")),
		`annotation boot.ironcore.dev/provisioned-when is "Booted"; it must be ImageAndUserData, Image or UserData`:         host(annotated(v1alpha1.HostProvisionedWhenAnnotation, "Booted")),
		`annotation boot.ironcore.dev/provisioned-when is UserData, but spec.userData names no Secret`:                      host(withImage(right), annotated(v1alpha1.HostProvisionedWhenAnnotation, "UserData")),
		`annotation boot.ironcore.dev/pull-secret is "a/b", which is no Secret's name`:                                      host(annotated(v1alpha1.HostPullSecretAnnotation, "a/b")),
		"without credentials (they are in the Secret of spec.image.ociAuthSecretName or of the annotation boot.ironcore.de": host(withImage("oci://robot:secret@registry.example.com/os")),
	} {
		_, err := ReadHostBoot(h)
		require.ErrorIs(t, err, boot.ErrInvalid, text)
		require.ErrorContains(t, err, text)
		require.ErrorContains(t, err, "BareMetalHost node7")
		require.NotContains(t, err.Error(), "robot:secret")
	}
}

func TestFieldsThatAreNotFollowedAreTold(t *testing.T) {
	b, err := ReadHostBoot(host(withImage("oci://"+reference1, "raw"), func(h *metalHost) {
		s := &h.Spec
		s.Image.Checksum, s.RAID, s.Firmware, s.RootDeviceHints = "https://x/SUMS", &metal3v1alpha1.RAIDConfig{}, &metal3v1alpha1.FirmwareConfig{}, &metal3v1alpha1.RootDeviceHints{} //nolint:staticcheck // a deprecated field
		s.AutomatedCleaningMode, s.Taints, s.HardwareProfile, s.InspectionMode = metal3v1alpha1.CleaningModeMetadata, []corev1.Taint{{Key: "a"}}, "dell", metal3v1alpha1.InspectionModeAgent
		s.BootMode = metal3v1alpha1.UEFISecureBoot
	}))
	require.NoError(t, err)
	require.True(t, b.SecureBoot)
	require.False(t, b.Legacy)
	fields := []string{"image.checksum", "raid", "firmware", "rootDeviceHints", "taints", "hardwareProfile", "inspectionMode"}
	require.Len(t, b.Notes, len(fields))
	for i, f := range fields {
		require.Contains(t, b.Notes[i], "spec."+f+" ")
	}
}

func TestALegacyHostBootsNoUKI(t *testing.T) {
	uki := []boot.Artifact{{Role: boot.RoleUKI}}
	kernel := []boot.Artifact{{Role: boot.RoleKernel}, {Role: boot.RoleInitrd}}
	all := slices.Concat(uki, kernel)
	uefi, legacy := HostBoot{}, HostBoot{Legacy: true}
	for _, c := range []struct {
		name      string
		host      HostBoot
		artifacts []boot.Artifact
		both      bool
		want      Paths
		err       string
	}{
		{"UEFI", uefi, all, false, Paths{HTTP: true}, ""},
		{"UEFI, both", uefi, all, true, Paths{HTTP: true, PXE: true}, ""},
		{"UEFI without a UKI", uefi, kernel, true, Paths{PXE: true}, ""},
		{"UEFI, nothing", uefi, nil, true, Paths{}, "it has nothing that can be booted"},
		{"legacy", legacy, all, true, Paths{PXE: true}, ""},
		{"legacy with a UKI", legacy, uki, true, Paths{}, "it has UKI, but spec.bootMode is legacy, which needs a kernel and an initrd; use such an image, or set spec.bootMode to UEFI"},
	} {
		got, err := ChooseForHost(c.host, c.artifacts, c.both)
		require.Equal(t, c.want, got, c.name)
		if c.err == "" {
			require.NoError(t, err, c.name)
			continue
		}
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, c.err)
	}
}

func TestAHostsConfigsSayTheSameAndKeepTheRest(t *testing.T) {
	h := host(withImage("oci://"+reference1, "live-iso"), annotated(v1alpha1.HostAddressesAnnotation, "10.0.0.5"), annotated(v1alpha1.HostPullSecretAnnotation, "login"))
	h.Spec.UserData, h.Spec.MetaData, h.Spec.NetworkData = secretIn("", "user"), secretIn("", "meta"), secretIn("", "net")
	m, err := ReadHost(h, uuid)
	require.NoError(t, err)
	b, err := ReadHostBoot(h)
	require.NoError(t, err)

	http := v1alpha1.HTTPBootConfigSpec{UKIURL: "https://old/", MinimumProof: "Proxy"}
	HTTPFromHost(b, m, boot.ARM64, &http)
	require.Equal(t, v1alpha1.HTTPBootConfigSpec{
		SystemUUID: uuid, NetworkIdentifiers: []string{"10.0.0.5", "52:54:00:aa:bb:01"}, Image: reference1, Architecture: v1alpha1.ArchitectureARM64,
		PullSecretRef: named("login"), IgnitionSecretRef: named("user"), MetaDataSecretRef: named("meta"), NetworkDataSecretRef: named("net"),
		BootPolicy: v1alpha1.BootPolicyAlways, MinimumProof: "Proxy",
	}, http)

	ipxe := v1alpha1.IPXEBootConfigSpec{KernelURL: "https://old/", KernelArguments: []string{"quiet"}, MinimumProof: "Proxy"}
	IPXEFromHost(b, m, boot.ARM64, &ipxe)
	require.Equal(t, v1alpha1.IPXEBootConfigSpec{
		SystemUUID: uuid, SystemIPs: []string{"10.0.0.5"}, NetworkIdentifiers: []string{"52:54:00:aa:bb:01"}, Image: reference1, Architecture: v1alpha1.ArchitectureARM64,
		PullSecretRef: named("login"), IgnitionSecretRef: named("user"), MetaDataSecretRef: named("meta"), NetworkDataSecretRef: named("net"),
		BootPolicy: v1alpha1.BootPolicyAlways, MinimumProof: "Proxy", KernelArguments: []string{"quiet"},
	}, ipxe)

	HTTPFromHost(HostBoot{Image: "other"}, m, boot.ARM64, &http) // what the host no longer says goes
	require.Nil(t, http.PullSecretRef)
	require.Nil(t, http.IgnitionSecretRef)
	require.Nil(t, http.MetaDataSecretRef)
	require.Nil(t, http.NetworkDataSecretRef)
}

func TestAHostsKernelArguments(t *testing.T) {
	annotation := func(text string) (HostBoot, error) {
		return ReadHostBoot(host(annotated(v1alpha1.HostKernelArgumentsAnnotation, text)))
	}
	none, err := ReadHostBoot(host())
	require.NoError(t, err)
	require.Nil(t, none.KernelArguments)
	for text, want := range map[string][]string{
		"console=ttyS0,115200 quiet":       {"console=ttyS0,115200", "quiet"},
		"  a  b ":                          {"a", "b"},
		"":                                 {},
		strings.Repeat("x", maxArgument):   {strings.Repeat("x", maxArgument)},
		strings.Repeat("y ", maxArguments): slices.Repeat([]string{"y"}, maxArguments),
	} {
		b, err := annotation(text)
		require.NoError(t, err)
		require.Equal(t, want, b.KernelArguments)
	}
	for text, says := range map[string]string{
		"quiet\nshell":                        `has the character '\n'`,
		"a\tb":                                `has the character '\t'`,
		"a=\x00":                              `has the character '\x00'`,
		"a=ä":                                 `has the character 'ä'`,
		"a=\xff":                              "has the character",
		strings.Repeat("y ", maxArguments+1):  "has 65 arguments; at most 64",
		strings.Repeat("x", maxArgument+1):    "has an argument of 257 bytes",
		"ok " + strings.Repeat("x", 1<<16):    "has an argument of 65536 bytes",
		strings.Repeat("z ", 1<<16) + "z\x7f": "has the character",
	} {
		_, err := annotation(text)
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, "annotation boot.ironcore.dev/kernel-arguments "+says[:4])
		require.ErrorContains(t, err, says)
		require.Less(t, len(err.Error()), 1000)
	}

	var http v1alpha1.HTTPBootConfigSpec
	var ipxe v1alpha1.IPXEBootConfigSpec
	fill := func(b HostBoot) {
		HTTPFromHost(b, Machine{UUID: uuid}, boot.AMD64, &http)
		IPXEFromHost(b, Machine{UUID: uuid}, boot.AMD64, &ipxe)
	}
	fill(HostBoot{KernelArguments: []string{"quiet"}, SecureBoot: true})
	require.Equal(t, []string{"quiet"}, http.KernelArguments)
	require.Equal(t, []string{"quiet"}, ipxe.KernelArguments)
	require.True(t, http.SecureBoot && ipxe.SecureBoot)
	fill(HostBoot{})
	require.Equal(t, []string{"quiet"}, http.KernelArguments, "a host that says nothing of them leaves them")
	require.False(t, http.SecureBoot || ipxe.SecureBoot)
	fill(HostBoot{KernelArguments: []string{}})
	require.Empty(t, http.KernelArguments)
	require.Empty(t, ipxe.KernelArguments)
}

func TestAHostsImageIDChangesWithWhatItBoots(t *testing.T) {
	require.Empty(t, HostImageID(host()))
	require.Empty(t, HostImageID(host(withImage("", "raw"))))
	seen := map[string]bool{}
	all := []*metalHost{
		host(withImage("oci://a")), host(withImage("oci://a", "raw")), host(withImage("oci://a", "live-iso")), host(withImage("oci://b")),
		host(withMethod("oci://a")), host(withImage("oci://a"), withMethod("oci://a")),
	}
	for _, h := range all {
		id := HostImageID(h)
		require.Len(t, id, 64)
		seen[id] = true
		h.Spec.UserData, h.Spec.Online, h.Labels = secretIn("", "other"), true, map[string]string{"a": "b"}
		require.Equal(t, id, HostImageID(h), "nothing else changes it")
	}
	require.Len(t, seen, len(all))
}

func FuzzAHostThatAnyoneWrote(f *testing.F) {
	f.Add("oci://"+reference1, "raw", "", "10.0.0.5, 2001:db8::5", "52:54:00:aa:bb:01", "10.0.0.9", "x86_64")
	f.Add("https://a/b.iso", "live-iso", "oci://a@sha256:00", "fe80::1%eth0", "x", "", "ppc")
	f.Fuzz(func(t *testing.T, url, format, method, addresses, mac, ip, arch string) {
		h := host(withImage(url, format), annotated(v1alpha1.HostAddressesAnnotation, addresses),
			withHardware(arch, metal3v1alpha1.NIC{Name: url, MAC: mac, IP: ip}), func(h *metalHost) { h.Spec.BootMACAddress, h.Spec.Architecture = mac, arch })
		if method != "" {
			withMethod(method)(h)
		}
		HostImageID(h)
		m, err := ReadHost(h, "")
		if err != nil {
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.Less(t, len(err.Error()), 2000)
		} else {
			require.LessOrEqual(t, len(m.Addrs)+len(m.MACs), maxIdentifiers)
			require.Positive(t, len(m.Addrs)+len(m.MACs))
		}
		b, err := ReadHostBoot(h)
		if err != nil {
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.Less(t, len(err.Error()), 1000)
			return
		}
		require.NotContains(t, b.Image, "://")
		require.NotContains(t, b.Image, " ")
		require.LessOrEqual(t, len(b.Image), maxReference)
	})
}
