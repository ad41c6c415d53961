package render

import (
	"fmt"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Links says how the machine reaches the boot server, and what it is handed on
// the way.
type Links struct {
	// Base is the URL of the boot server as the machine reaches it, such as
	// http://10.0.0.1:8082, without a slash at the end.
	Base string
	// BootToken is for the boot bytes of a machine that is proven by a token; it
	// may be empty.
	BootToken string
	// SecretToken is for the machine's secrets; it may be empty.
	SecretToken string
}

// blobNames are the names of artifacts in their URLs. They count for nothing on
// the server and something for people and for firmware that goes by a suffix.
var blobNames = map[boot.Role]string{
	boot.RoleKernel:   "vmlinuz",
	boot.RoleInitrd:   "initrd.img",
	boot.RoleSquashfs: "rootfs.squashfs",
}

// checked returns the links with a base that is safe in a script. It returns
// ErrInvalid when the base is not an http or https URL.
func (l Links) checked() (Links, error) {
	base, err := safeURL(strings.TrimRight(l.Base, "/"))
	if err != nil {
		return Links{}, fmt.Errorf("the boot server's URL: %w", err)
	}
	return Links{Base: base, BootToken: escapeWord(l.BootToken), SecretToken: escapeWord(l.SecretToken)}, nil
}

// artifact returns where the machine fetches an artifact of the plan, and its
// digest: from our store, else from the URL that the user gave, of which no
// digest is known. Both are empty when the plan has none.
func (l Links) artifact(p *boot.Plan, role boot.Role) (url, digest string, err error) {
	if a, ok := p.Artifact(role); ok {
		digest = escapeWord(string(a.Digest))
		return l.Base + "/images/" + string(a.Digest) + "/" + blobNames[role], digest, checkDigest(a.Digest)
	}
	foreign := p.Foreign[role]
	if foreign == "" {
		return "", "", nil
	}
	if url, err = safeURL(foreign); err != nil {
		return "", "", fmt.Errorf("the URL of the %s: %w", strings.ToLower(string(role)), err)
	}
	return url, "", nil
}

// checkDigest is boot.ParseDigest without what it allocates.
func checkDigest(d boot.Digest) error {
	const prefix = "sha256:"
	if len(d) == len(prefix)+64 && strings.HasPrefix(string(d), prefix) && strings.Trim(string(d[len(prefix):]), "0123456789abcdef") == "" {
		return nil
	}
	_, err := boot.ParseDigest(string(d))
	return err
}

// uki returns where iPXE and GRUB fetch the machine's UKI. The plan's own route
// and not the blob's, so that the delivery counts as one.
func (l Links) uki(p *boot.Plan) (string, error) {
	if _, ok := p.Artifact(boot.RoleUKI); !ok && !p.Composes {
		url, _, err := l.artifact(p, boot.RoleUKI)
		return url, err
	}
	if l.BootToken != "" {
		return l.Base + "/httpboot/t/" + l.BootToken + "/uki.efi", nil
	}
	return l.Base + "/httpboot", nil
}

// ignition returns the URL of the machine's Ignition document, or nothing.
func (l Links) ignition(p *boot.Plan) string {
	switch {
	case !p.HasIgnition:
		return ""
	case l.SecretToken != "":
		return l.Base + "/ignition?token=" + l.SecretToken
	case p.Machine.UUID != "":
		return l.Base + "/ignition/" + escapeWord(string(p.Machine.UUID))
	}
	return l.Base + "/ignition"
}

// cloudInit returns the seed of cloud-init's NoCloud data source, which ends in
// a slash, or nothing.
func (l Links) cloudInit(p *boot.Plan) string {
	switch {
	case !p.HasCloudInit:
		return ""
	case l.SecretToken != "":
		return l.Base + "/cloud-init/t/" + l.SecretToken + "/"
	case p.Machine.UUID != "":
		return l.Base + "/cloud-init/" + escapeWord(string(p.Machine.UUID)) + "/"
	}
	return l.Base + "/cloud-init/"
}
