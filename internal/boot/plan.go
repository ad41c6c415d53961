package boot

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
)

// Architecture is a processor architecture as OCI and Go name it.
type Architecture string

// The architectures that a plan can be for.
const (
	AMD64 Architecture = "amd64"
	ARM64 Architecture = "arm64"
)

// Policy says how often a plan may be delivered.
type Policy string

const (
	// Always delivers at every boot.
	Always Policy = "Always"
	// Once delivers exactly once in each attempt.
	Once Policy = "Once"
)

// Role says what an artifact is for.
type Role string

// The roles of a plan's artifacts.
const (
	RoleUKI      Role = "UKI"
	RoleKernel   Role = "Kernel"
	RoleInitrd   Role = "Initrd"
	RoleSquashfs Role = "Squashfs"
)

// Digest is the SHA-256 of a blob, as OCI writes it: "sha256:" and 64 lower
// case hexadecimal digits (OCI image spec 1.1, descriptor, digests).
type Digest string

// ParseDigest checks s. It returns ErrInvalid for any other algorithm or form.
func ParseDigest(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	b, err := hex.DecodeString(h)
	if !ok || err != nil || len(b) != 32 || strings.ToLower(h) != h {
		return "", fmt.Errorf("%w: %q is not a digest of the form sha256:<64 hexadecimal digits>", ErrInvalid, clip(s))
	}
	return Digest(s), nil
}

// Hex returns the digest without its algorithm.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// Artifact is one verified blob of a plan, or one that a status names.
type Artifact struct {
	Role   Role
	Digest Digest
	// Size in bytes.
	Size int64
	// Source is where any replica can pull it again: "registry/repository@digest"
	// of the image manifest, or the http(s) URL of a foreign UKI.
	Source string
}

// Machine is what a plan knows of the machine it is for.
type Machine struct {
	UUID         UUID
	MACs         []MAC
	Addrs        []netip.Addr
	Architecture Architecture
	// Labels are what the machine said of itself when it asked for its script:
	// nothing that proves anything. Sources leave them empty.
	Labels map[string]string
}

// Ref names the API object that a plan was made from.
type Ref struct {
	Kind, Namespace, Name, UID string
}

func (r Ref) String() string { return r.Kind + " " + r.Namespace + "/" + r.Name }

// Plan is everything that is needed to serve one machine. It is shared and
// must not be changed after it was published by a Source.
type Plan struct {
	Object    Ref
	Machine   Machine
	Artifacts []Artifact
	// Foreign are URLs, by role, of what is not in the store. That of a UKI is
	// only told to those who ask for JSON, since no firmware follows a redirect;
	// iPXE fetches the others itself.
	Foreign map[Role]string
	// KernelArguments are added to the kernel's command line of a script.
	KernelArguments []string
	// ScriptTemplate takes the place of the operator's template; see render.
	ScriptTemplate string
	// Image is the image reference as the user wrote it, without digest or
	// tag; it is part of compatibility URLs.
	Image  string
	Policy Policy
	// MinimumProof is the weakest proof that this plan accepts.
	MinimumProof Proof
	// HasIgnition says whether the plan names an Ignition document.
	HasIgnition bool
	// HasCloudInit says the same of user data for cloud-init.
	HasCloudInit bool
	// HasScript says that the machine has an iPXE script of its own, which may
	// hold secrets.
	HasScript bool
	// NotReady says why the plan cannot be served; empty when it can.
	NotReady string
	// Paused says that nothing of the plan may be served, its secrets included,
	// which a plan that is only not ready may be. Such a plan is not ready either.
	Paused bool
	// Attempt is the boot attempt as the API object told it last.
	Attempt Attempt
}

// Artifact returns the plan's artifact of this role.
func (p *Plan) Artifact(role Role) (Artifact, bool) {
	for _, a := range p.Artifacts {
		if a.Role == role {
			return a, true
		}
	}
	return Artifact{}, false
}

// Blob is an open artifact. Bytes that have not arrived yet are waited for;
// the last 64 KiB of a blob are never readable before its digest is verified.
type Blob interface {
	io.ReadSeekCloser
	// Size in bytes.
	Size() int64
	// File returns the verified file, or nil while the blob is arriving: only
	// a file can be sent by the kernel itself.
	File() *os.File
}
