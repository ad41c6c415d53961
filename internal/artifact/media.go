package artifact

import (
	"mime"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// The media types of manifests: OCI image spec 1.1, and Docker's image
// manifest version 2, schema 2.
const (
	typeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	typeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	typeOCIConfig      = "application/vnd.oci.image.config.v1+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// acceptManifests is what we tell a registry that we read.
var acceptManifests = strings.Join([]string{typeOCIIndex, typeOCIManifest, typeDockerList, typeDockerManifest}, ", ")

// The media types of layers that images are published with.
const (
	typeUKI      = "application/vnd.ironcore.image.uki"
	typeStub     = "application/vnd.ironcore.image.stub"
	typeKernel   = "application/vnd.ironcore.image.kernel"
	typeInitrd   = "application/vnd.ironcore.image.initramfs"
	typeSquashfs = "application/vnd.ironcore.image.squashfs"
)

// layerRoles knows the layers that can be booted by their media types: ours,
// the legacy ones of Garden Linux, and those that other tools give a UKI.
var layerRoles = map[string]boot.Role{
	typeUKI:      boot.RoleUKI,
	typeStub:     boot.RoleStub,
	typeKernel:   boot.RoleKernel,
	typeInitrd:   boot.RoleInitrd,
	typeSquashfs: boot.RoleSquashfs,

	"application/io.gardenlinux.uki":      boot.RoleUKI,
	"application/io.gardenlinux.kernel":   boot.RoleKernel,
	"application/io.gardenlinux.initrd":   boot.RoleInitrd,
	"application/io.gardenlinux.squashfs": boot.RoleSquashfs,

	"application/vnd.gardenlinux.uki": boot.RoleUKI,
	"application/efi":                 boot.RoleUKI,
}

// LayerRole says what a layer of this media type is for; false: nothing that is
// booted.
func LayerRole(mediaTypeOfLayer string) (boot.Role, bool) {
	r, ok := layerRoles[mediaType(mediaTypeOfLayer)]
	return r, ok
}

// LayerType is the media type that a layer of this role is published with; empty
// for a role that no layer has.
func LayerType(r boot.Role) string {
	for _, t := range []string{typeUKI, typeStub, typeKernel, typeInitrd, typeSquashfs} {
		if layerRoles[t] == r {
			return t
		}
	}
	return ""
}

// mediaType drops parameters and case.
func mediaType(s string) string {
	t, _, err := mime.ParseMediaType(s)
	if err != nil {
		return strings.ToLower(strings.TrimSpace(s))
	}
	return t
}
