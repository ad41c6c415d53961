package verification

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/sigstore"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// Policy says what has to be signed, and by whom. A nil part asks for nothing.
type Policy struct {
	// Name says whose policy it is, for errors; empty for that of a config.
	Name  string
	Image *ImagePolicy
	UKI   *UKIPolicy
}

// Signed is the part of an image that a signature is of.
type Signed string

// The parts of an image that can be signed.
const (
	// SignedAny accepts either of them; in a policy, the empty string is the same.
	SignedAny      Signed = "Any"
	SignedIndex    Signed = "Index"
	SignedManifest Signed = "Manifest"
)

// ImagePolicy says who has to have signed an image.
type ImagePolicy struct {
	Sigstore sigstore.Policy
	// Signed says what has to be signed.
	Signed Signed
}

// UKIPolicy says who has to have signed what firmware starts.
type UKIPolicy struct {
	// Database is what the machine's firmware trusts. Without one no signature is
	// asked for, unless Required.
	Database *uki.Database
	// RefuseExpired refuses certificates that have expired, which firmware does not.
	RefuseExpired bool
	// Digest is what the file has to have; empty means any.
	Digest boot.Digest
	// Required says that there has to be a signature, as with Secure Boot: without a
	// Database nothing passes.
	Required bool
}

// any: the empty text comes from policies that say nothing.
func (s Signed) any() bool { return s == SignedAny || s == "" }

// by says whose policy it is.
func (p Policy) by() string {
	if p.Name == "" {
		return ""
	}
	return ", by " + p.Name
}

// Key is the same for policies that ask for the same, in whatever order.
func (p Policy) Key() string {
	h := sha256.New()
	if i := p.Image; i != nil {
		signed := i.Signed
		if signed.any() {
			signed = SignedAny
		}
		var keys, identities []string
		for _, k := range i.Sigstore.Keys {
			keys = append(keys, sigstore.Fingerprint(k))
		}
		for _, id := range i.Sigstore.Identities {
			identities = append(identities, fmt.Sprintf("%q", []string{id.Issuer, id.Subject, id.SubjectRegExp}))
		}
		_, _ = fmt.Fprintf(h, "image %q %q %q %x\n", signed, distinct(keys), distinct(identities), sha256.Sum256(i.Sigstore.TrustedRoot))
	}
	if u := p.UKI; u != nil {
		database := "none"
		if u.Database != nil {
			database = fmt.Sprintf("%x", u.Database.Fingerprint())
		}
		_, _ = fmt.Fprintf(h, "uki %s %t %q %t\n", database, u.RefuseExpired, u.Digest, u.Required)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func distinct(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}
