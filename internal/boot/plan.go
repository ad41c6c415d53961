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
	// RoleStub is the EFI program that a UKI is composed around, such as systemd-stub.
	RoleStub Role = "Stub"
	// RoleExtraInitrd is appended to the initrd of a composed UKI.
	RoleExtraInitrd Role = "ExtraInitrd"
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
	// Strict says of a public artifact that no byte of it may flow before all of it
	// was verified: a plan that names it says so. Statuses leave it false.
	Strict bool
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
	// Composed is the UKI that was composed for this machine alone; nil where none
	// is. Such a plan has artifacts of the roles Stub, Kernel and Initrd, and no UKI.
	Composed *Composed
	// Composes says that the machine boots a UKI that is composed for it, also while
	// there is none yet.
	Composes bool
	// Strict says that no byte may flow before the whole blob was verified: a
	// verification policy applies, or Secure Boot.
	Strict bool
	// KernelArguments are added to the kernel's command line, of a script or of a
	// composed UKI.
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

// FetchesSecrets says whether the machine is told, as it boots, where its secrets
// are: a UKI that is composed for it then has a token in it, and is good for one
// attempt.
func (p *Plan) FetchesSecrets() bool { return p.HasIgnition || p.HasCloudInit }

// Composed is what is known of a composed UKI; its bytes are made of the plan's
// artifacts, the plan itself and the token keys.
type Composed struct {
	// Attempt that its token is for.
	Attempt int64
	// Digest and Size are of the whole file, with its signature.
	Digest Digest
	Size   int64
	// TokenKey is the ID of the key that signed the token in it.
	TokenKey byte
	// Signature is PKCS #7 (DER), of the file's Authenticode hash; empty where it is
	// not signed.
	Signature []byte
}

// Artifact is the composed UKI as an artifact. It has no source: nobody pulls it,
// and it is served to its machine alone.
func (c *Composed) Artifact() Artifact {
	return Artifact{Role: RoleUKI, Digest: c.Digest, Size: c.Size}
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

// Segmented is a blob that is made of several parts, each of which can be sent on
// its own: a composed UKI. Such a blob's File returns nil.
type Segmented interface {
	Blob
	// Segment returns the part that holds the byte at pos, and how many of its bytes
	// follow from there on, that one included. File is positioned there and is the
	// blob's own; where it is nil the bytes are in Data. It returns io.EOF at the end.
	Segment(pos int64) (part Segment, err error)
}

// Segment is a run of bytes of a Segmented blob.
type Segment struct {
	File *os.File
	Data []byte
	// Size in bytes.
	Size int64
}
