package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	metal3v1alpha1 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// HostBoot is what a BareMetalHost says that its machine boots. Secrets are
// names in the host's own namespace, empty where there is none.
type HostBoot struct {
	// Image is an OCI reference without a scheme, with its tag and digest. It is
	// empty where the host names nothing to boot.
	Image      string
	Policy     v1alpha1.BootPolicy
	PullSecret string

	UserData    string
	MetaData    string
	NetworkData string

	// Legacy: the machine boots as a BIOS does, which starts no UKI.
	Legacy bool
	// SecureBoot: Secure Boot is to be on.
	SecureBoot bool
	// KernelArguments are for the kernel's command line; nil where the host says
	// nothing of them, and empty where it says that there are none.
	KernelArguments []string

	ProvisionedWhen v1alpha1.ProvisionedWhen
	// Notes say which fields of the host are not followed, and what happens
	// instead. They are no reason not to boot.
	Notes []string
}

// ReadHostBoot reads what a BareMetalHost boots. It returns boot.ErrInvalid,
// naming the field and what is right, where that cannot be booted or where the
// host names a Secret of another namespace.
func ReadHostBoot(h *metal3v1alpha1.BareMetalHost) (HostBoot, error) {
	b := HostBoot{Legacy: h.Spec.BootMode == metal3v1alpha1.Legacy, SecureBoot: h.Spec.BootMode == metal3v1alpha1.UEFISecureBoot}
	for _, read := range []func(*metal3v1alpha1.BareMetalHost) error{
		b.readImage, b.readPolicy, b.readPullSecret, b.readData, b.readProvisionedWhen, b.readArguments,
	} {
		if err := read(h); err != nil {
			return HostBoot{}, fmt.Errorf("BareMetalHost %s: %w", h.Name, err)
		}
	}
	b.Notes = notes(h)
	return b, nil
}

// scheme is that of references in an OCI registry, as Metal3 writes them.
const scheme = "oci://"

func (b *HostBoot) readImage(h *metal3v1alpha1.BareMetalHost) error {
	url, method := imageURL(h), deployMethod(h)
	var err error
	switch {
	case url != "" && method != "":
		return fmt.Errorf("%w: spec.image.url and spec.customDeploy.method are both set; only one can be booted, so remove one", boot.ErrInvalid)
	case url != "":
		b.Image, err = reference("spec.image.url", url, "disk images are written by baremetal-operator")
	case method != "":
		b.Image, err = reference("spec.customDeploy.method", method, "other methods are baremetal-operator's")
	}
	return err
}

func imageURL(h *metal3v1alpha1.BareMetalHost) string {
	if h.Spec.Image == nil {
		return ""
	}
	return h.Spec.Image.URL
}

func deployMethod(h *metal3v1alpha1.BareMetalHost) string {
	if h.Spec.CustomDeploy == nil {
		return ""
	}
	return h.Spec.CustomDeploy.Method
}

// ociReference is repository, tag and digest; what it looks like in detail is
// for the registry's client. It has no place for credentials.
var ociReference = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]*(@[a-z0-9]+:[0-9a-f]+)?$`)

const maxReference = 512

// reference returns what follows oci://. Its errors do not repeat the text, which
// may hold credentials by mistake.
func reference(field, text, otherwise string) (string, error) {
	const right = "such as oci://registry.example.com/os/images:1.2"
	if len(text) < len(scheme) || !strings.EqualFold(text[:len(scheme)], scheme) {
		return "", fmt.Errorf("%w: %s does not begin with oci://; it must name an image in an OCI registry, %s (%s)", boot.ErrInvalid, field, right, otherwise)
	}
	ref := text[len(scheme):]
	if len(ref) > maxReference || !ociReference.MatchString(ref) || strings.Contains(ref, "://") {
		return "", fmt.Errorf("%w: %s is no reference to an image; it must be oci://registry/repository with a tag or a digest, %s, without credentials (they are in the Secret of spec.image.ociAuthSecretName or of the annotation %s), at most %d characters",
			boot.ErrInvalid, field, right, v1alpha1.HostPullSecretAnnotation, maxReference)
	}
	return ref, nil
}

func (b *HostBoot) readPolicy(h *metal3v1alpha1.BareMetalHost) error {
	b.Policy = v1alpha1.BootPolicyOnce
	switch format := diskFormat(h); format {
	case "", "raw":
	case "live-iso":
		b.Policy = v1alpha1.BootPolicyAlways
	default:
		return fmt.Errorf("%w: spec.image.format is %q, a disk image that baremetal-operator would write; an image that is booted is raw (booted once, an installation) or live-iso (booted always, a diskless machine)", boot.ErrInvalid, clip(format))
	}
	switch text := v1alpha1.BootPolicy(h.Annotations[v1alpha1.HostBootPolicyAnnotation]); text {
	case "":
	case v1alpha1.BootPolicyOnce, v1alpha1.BootPolicyAlways:
		b.Policy = text
	default:
		return fmt.Errorf("%w: annotation %s is %q; it must be Once or Always", boot.ErrInvalid, v1alpha1.HostBootPolicyAnnotation, clip(string(text)))
	}
	return nil
}

func diskFormat(h *metal3v1alpha1.BareMetalHost) string {
	if h.Spec.Image == nil || h.Spec.Image.DiskFormat == nil {
		return ""
	}
	return *h.Spec.Image.DiskFormat
}

func (b *HostBoot) readPullSecret(h *metal3v1alpha1.BareMetalHost) error {
	field, name := "annotation "+v1alpha1.HostPullSecretAnnotation, h.Annotations[v1alpha1.HostPullSecretAnnotation]
	if i := h.Spec.Image; i != nil && i.OCIAuthSecretName != nil && *i.OCIAuthSecretName != "" {
		field, name = "spec.image.ociAuthSecretName", *i.OCIAuthSecretName
	}
	var err error
	b.PullSecret, err = secretName(field, name)
	return err
}

func (b *HostBoot) readData(h *metal3v1alpha1.BareMetalHost) error {
	for _, d := range []struct {
		field string
		ref   *corev1.SecretReference
		name  *string
	}{
		{"spec.userData", h.Spec.UserData, &b.UserData},
		{"spec.metaData", h.Spec.MetaData, &b.MetaData},
		{"spec.networkData", h.Spec.NetworkData, &b.NetworkData},
	} {
		if d.ref == nil || d.ref.Name == "" {
			continue
		}
		if d.ref.Namespace != "" && d.ref.Namespace != h.Namespace {
			return fmt.Errorf("%w: %s.namespace is %q; a Secret of another namespace is refused: copy it to %s, the host's own, and leave namespace out", boot.ErrInvalid, d.field, clip(d.ref.Namespace), h.Namespace)
		}
		var err error
		if *d.name, err = secretName(d.field+".name", d.ref.Name); err != nil {
			return err
		}
	}
	if b.NetworkData != "" {
		return nil
	}
	var err error
	b.NetworkData, err = secretName("spec.preprovisioningNetworkDataName", h.Spec.PreprovisioningNetworkDataName)
	return err
}

func secretName(field, name string) (string, error) {
	if name != "" && len(validation.IsDNS1123Subdomain(name)) > 0 {
		return "", fmt.Errorf("%w: %s is %q, which is no Secret's name (lower-case letters, digits, - and .)", boot.ErrInvalid, field, clip(name))
	}
	return name, nil
}

// readProvisionedWhen comes after readData.
func (b *HostBoot) readProvisionedWhen(h *metal3v1alpha1.BareMetalHost) error {
	const name = v1alpha1.HostProvisionedWhenAnnotation
	switch text := v1alpha1.ProvisionedWhen(h.Annotations[name]); text {
	case "":
		b.ProvisionedWhen = v1alpha1.ProvisionedWhenImageAndUserData
	case v1alpha1.ProvisionedWhenImageAndUserData, v1alpha1.ProvisionedWhenImage, v1alpha1.ProvisionedWhenUserData:
		b.ProvisionedWhen = text
	default:
		return fmt.Errorf("%w: annotation %s is %q; it must be ImageAndUserData, Image or UserData", boot.ErrInvalid, name, clip(string(text)))
	}
	if b.ProvisionedWhen == v1alpha1.ProvisionedWhenUserData && b.Image != "" && b.UserData == "" {
		return fmt.Errorf("%w: annotation %s is UserData, but spec.userData names no Secret, so that the host would never be provisioned; set spec.userData, or the annotation to Image", boot.ErrInvalid, name)
	}
	return nil
}

// What a config takes of kernel arguments.
const (
	maxArguments = 64
	maxArgument  = 256 // bytes
)

// readArguments reads the annotation with the kernel's arguments.
func (b *HostBoot) readArguments(h *metal3v1alpha1.BareMetalHost) error {
	const name = v1alpha1.HostKernelArgumentsAnnotation
	text, ok := h.Annotations[name]
	if !ok {
		return nil
	}
	for _, c := range text {
		if c != ' ' && (c < '!' || c > '~') {
			return fmt.Errorf("%w: annotation %s has the character %q; arguments are of printable ASCII, with spaces between them", boot.ErrInvalid, name, c)
		}
	}
	b.KernelArguments = append([]string{}, strings.Fields(text)...)
	if n := len(b.KernelArguments); n > maxArguments {
		return fmt.Errorf("%w: annotation %s has %d arguments; at most %d are passed on", boot.ErrInvalid, name, n, maxArguments)
	}
	for _, a := range b.KernelArguments {
		if len(a) > maxArgument {
			return fmt.Errorf("%w: annotation %s has an argument of %d bytes, %q; at most %d are passed on", boot.ErrInvalid, name, len(a), clip(a), maxArgument)
		}
	}
	return nil
}

// notes are the fields that baremetal-operator would follow and we do not.
func notes(h *metal3v1alpha1.BareMetalHost) []string {
	s, image := h.Spec, h.Spec.Image
	var all []string
	for _, n := range []struct {
		set  bool
		text string
	}{
		{image != nil && (image.Checksum != "" || image.ChecksumType != ""), "spec.image.checksum is not used: what is pulled is verified by the digests of the OCI image"},
		{s.RAID != nil, "spec.raid is not used: no RAID is made"},
		{s.Firmware != nil, "spec.firmware is not used: no firmware setting is changed but those that a boot needs"}, //nolint:staticcheck // deprecated, and still set by some
		{s.RootDeviceHints != nil, "spec.rootDeviceHints is not used: the image that is booted chooses its disks"},
		{len(s.Taints) > 0, "spec.taints is not used"},
		{!slices.Contains([]string{"", "unknown", "empty"}, s.HardwareProfile), "spec.hardwareProfile is not used"},
		{s.InspectionMode == metal3v1alpha1.InspectionModeAgent, "spec.inspectionMode agent is not followed: no ramdisk is booted, details of the hardware are those that the BMC tells"},
		{s.PreprovisioningNetworkDataName != "" && s.NetworkData != nil && s.NetworkData.Name != "", "spec.preprovisioningNetworkDataName is not used: there is no ramdisk, and spec.networkData is set"},
	} {
		if n.set {
			all = append(all, n.text)
		}
	}
	return all
}

// ChooseForHost picks the paths by which a host can boot an image with these
// artifacts: both, where the image has a UKI as well as a kernel and an initrd
// and both is set, and otherwise the UKI before those. It returns
// boot.ErrInvalid, with what would be right, where there is none.
func ChooseForHost(b HostBoot, artifacts []boot.Artifact, both bool) (Paths, error) {
	if !b.Legacy {
		return Choose(artifacts, Paths{HTTP: true, PXE: true}, both)
	}
	paths, err := Choose(artifacts, Paths{PXE: true}, false)
	if err != nil {
		return paths, fmt.Errorf("%w image: it has %s, but spec.bootMode is legacy, which needs a kernel and an initrd; use such an image, or set spec.bootMode to UEFI", boot.ErrInvalid, roles(artifacts))
	}
	return paths, nil
}

// HTTPFromHost fills in the spec of a host's HTTPBootConfig; what the spec says
// beyond that (minimumProof, verification, compose, and kernelArguments where the host
// says nothing of them) stays.
func HTTPFromHost(b HostBoot, m Machine, arch boot.Architecture, spec *v1alpha1.HTTPBootConfigSpec) {
	spec.SystemUUID = string(m.UUID)
	spec.NetworkIdentifiers = append(texts(m.Addrs), texts(m.MACs)...)
	spec.Image, spec.UKIURL = b.Image, ""
	spec.Architecture = v1alpha1.Architecture(arch)
	spec.PullSecretRef = named(b.PullSecret)
	spec.IgnitionSecretRef = named(b.UserData)
	spec.MetaDataSecretRef = named(b.MetaData)
	spec.NetworkDataSecretRef = named(b.NetworkData)
	spec.BootPolicy = b.Policy
	spec.SecureBoot = b.SecureBoot
	if b.KernelArguments != nil {
		spec.KernelArguments = b.KernelArguments
	}
}

// IPXEFromHost fills in the spec of a host's IPXEBootConfig; what the spec says
// beyond that (minimumProof, verification, scripts, and kernelArguments where the host
// says nothing of them) stays.
func IPXEFromHost(b HostBoot, m Machine, arch boot.Architecture, spec *v1alpha1.IPXEBootConfigSpec) {
	spec.SystemUUID = string(m.UUID)
	spec.SystemIPs = texts(m.Addrs)
	spec.NetworkIdentifiers = texts(m.MACs)
	spec.Image = b.Image
	spec.KernelURL, spec.InitrdURL, spec.SquashfsURL, spec.IPXEServerURL = "", "", "", ""
	spec.Architecture = v1alpha1.Architecture(arch)
	spec.PullSecretRef = named(b.PullSecret)
	spec.IgnitionSecretRef = named(b.UserData)
	spec.MetaDataSecretRef = named(b.MetaData)
	spec.NetworkDataSecretRef = named(b.NetworkData)
	spec.BootPolicy = b.Policy
	spec.SecureBoot = b.SecureBoot
	if b.KernelArguments != nil {
		spec.KernelArguments = b.KernelArguments
	}
}

func named(secret string) *corev1.LocalObjectReference {
	return secretRef(&corev1.LocalObjectReference{Name: secret})
}

// HostImageID tells one choice of what a host boots from another: it changes
// when spec.image.url, spec.image.format or spec.customDeploy.method does. It is
// empty where the host names nothing to boot, and at most 64 characters.
func HostImageID(h *metal3v1alpha1.BareMetalHost) string {
	url, method := imageURL(h), deployMethod(h)
	if url == "" && method == "" {
		return ""
	}
	format := ""
	if url != "" {
		format = diskFormat(h)
	}
	text, err := json.Marshal([]string{url, format, method}) // keeps them apart
	if err != nil {
		panic(err) // strings can be marshalled
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
