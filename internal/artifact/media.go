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

// layerRoles knows the layers that can be booted by their media types: ours,
// the legacy ones of Garden Linux, and those that other tools give a UKI.
var layerRoles = map[string]boot.Role{
	"application/vnd.ironcore.image.uki":       boot.RoleUKI,
	"application/vnd.ironcore.image.kernel":    boot.RoleKernel,
	"application/vnd.ironcore.image.initramfs": boot.RoleInitrd,
	"application/vnd.ironcore.image.squashfs":  boot.RoleSquashfs,

	"application/io.gardenlinux.uki":      boot.RoleUKI,
	"application/io.gardenlinux.kernel":   boot.RoleKernel,
	"application/io.gardenlinux.initrd":   boot.RoleInitrd,
	"application/io.gardenlinux.squashfs": boot.RoleSquashfs,

	"application/vnd.gardenlinux.uki": boot.RoleUKI,
	"application/efi":                 boot.RoleUKI,
}

// mediaType drops parameters and case.
func mediaType(s string) string {
	t, _, err := mime.ParseMediaType(s)
	if err != nil {
		return strings.ToLower(strings.TrimSpace(s))
	}
	return t
}
