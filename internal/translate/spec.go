package translate

import (
	"fmt"
	"slices"
	"strings"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Paths are the ways to boot that are enabled, or those that are chosen.
type Paths struct {
	// HTTP is UEFI HTTP Boot of a UKI: HTTPBootConfig.
	HTTP bool
	// PXE is a kernel and an initrd with iPXE: IPXEBootConfig.
	PXE bool
}

// Any says whether there is a path.
func (p Paths) Any() bool { return p.HTTP || p.PXE }

// Choose picks the paths for an image with these artifacts. A stub beside a kernel and
// an initrd is as good as a UKI: the operator composes one of them. Where an image has
// a UKI as well as a kernel and an initrd, HTTP alone wins unless both is set. It
// returns boot.ErrInvalid, with what the image has and what would be right,
// where no enabled path can boot it.
func Choose(artifacts []boot.Artifact, enabled Paths, both bool) (Paths, error) {
	has := func(r boot.Role) bool {
		return slices.ContainsFunc(artifacts, func(a boot.Artifact) bool { return a.Role == r })
	}
	parts := has(boot.RoleKernel) && has(boot.RoleInitrd)
	can := Paths{
		HTTP: enabled.HTTP && (has(boot.RoleUKI) || has(boot.RoleStub) && parts),
		PXE:  enabled.PXE && parts,
	}
	if can.HTTP && can.PXE && !both {
		can.PXE = false
	}
	if !can.Any() {
		return can, fmt.Errorf("%w image: it has %s, but %s", boot.ErrInvalid, roles(artifacts), enabled.needs())
	}
	return can, nil
}

// ChooseWithoutImage picks the path of a configuration that names no image: an
// HTTPBootConfig gives the operator's default image if there is one, and else
// only the Ignition; an IPXEBootConfig has to say what to boot. It returns
// boot.ErrInvalid where HTTP is not enabled.
func ChooseWithoutImage(enabled Paths) (Paths, error) {
	if !enabled.HTTP {
		return Paths{}, fmt.Errorf("%w image: spec.image is empty; set it to an image with a kernel and an initrd, or enable the controller serverbootconfighttp, which can do without an image", boot.ErrInvalid)
	}
	return Paths{HTTP: true}, nil
}

func roles(artifacts []boot.Artifact) string {
	if len(artifacts) == 0 {
		return "nothing that can be booted"
	}
	var all []string
	for _, a := range artifacts {
		all = append(all, string(a.Role))
	}
	return strings.Join(all, ", ")
}

func (p Paths) needs() string {
	const uki, kernel = "a UKI", "a kernel and an initrd"
	switch {
	case p.HTTP && p.PXE:
		return "it needs " + uki + ", or " + kernel
	case p.HTTP:
		return "it needs " + uki + "; a kernel and an initrd are booted only where the controller serverbootconfigpxe is enabled"
	}
	return "it needs " + kernel + "; a UKI is booted only where the controller serverbootconfighttp is enabled"
}

// HTTP fills in the spec of a configuration's HTTPBootConfig; what the spec says
// beyond that (bootPolicy, minimumProof, pullSecretRef) stays.
func HTTP(c *metalv1alpha1.ServerBootConfiguration, m Machine, arch boot.Architecture, spec *v1alpha1.HTTPBootConfigSpec) {
	spec.SystemUUID = string(m.UUID)
	spec.NetworkIdentifiers = append(texts(m.Addrs), texts(m.MACs)...)
	spec.Image = c.Spec.Image
	spec.UKIURL = ""
	spec.Architecture = v1alpha1.Architecture(arch)
	spec.IgnitionSecretRef = secretRef(c.Spec.IgnitionSecretRef)
}

// IPXE fills in the spec of a configuration's IPXEBootConfig; what the spec says
// beyond that (bootPolicy, minimumProof, pullSecretRef, kernelArguments, scripts)
// stays.
func IPXE(c *metalv1alpha1.ServerBootConfiguration, m Machine, arch boot.Architecture, spec *v1alpha1.IPXEBootConfigSpec) {
	spec.SystemUUID = string(m.UUID)
	spec.SystemIPs = texts(m.Addrs)
	spec.NetworkIdentifiers = texts(m.MACs)
	spec.Image = c.Spec.Image
	spec.KernelURL, spec.InitrdURL, spec.SquashfsURL, spec.IPXEServerURL = "", "", "", ""
	spec.Architecture = v1alpha1.Architecture(arch)
	spec.IgnitionSecretRef = secretRef(c.Spec.IgnitionSecretRef)
}

// secretRef takes a reference without a name for none: that is what the default
// of the field makes of an empty object.
func secretRef(ref *corev1.LocalObjectReference) *corev1.LocalObjectReference {
	if ref == nil || ref.Name == "" {
		return nil
	}
	return &corev1.LocalObjectReference{Name: ref.Name}
}

func texts[T any](all []T) []string {
	var out []string
	for _, a := range all {
		out = append(out, fmt.Sprint(a))
	}
	return out
}
