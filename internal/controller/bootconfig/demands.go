package bootconfig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

var (
	// ErrUnverified: something is not signed as it has to be.
	ErrUnverified = errors.New("verification failed")
	// ErrDemand: what signatures are to be checked against cannot be read.
	ErrDemand = fmt.Errorf("%w verification", boot.ErrInvalid)
)

// maxKeys bounds the keys that one Secret may hold for the signatures of images.
const maxKeys = 16

// Demands are what the signatures of an image are checked against, besides what the
// operator's own policy asks for.
type Demands struct {
	// Image is nil where the image need not be signed.
	Image *ImageDemand
	// File is about what firmware starts; nil where that need not be signed.
	File *FileDemand
}

// ImageDemand is what spec.verification.image says, with the content of its Secrets.
type ImageDemand struct {
	// Keys are PEM texts; any one of the keys, or of the identities, is enough.
	Keys       [][]byte
	Identities []v1alpha1.SigningIdentity
	// TrustedRoot is a sigstore trusted root in JSON; empty for the operator's.
	TrustedRoot []byte
	Signed      v1alpha1.SignedSubject
}

// FileDemand is what spec.verification.uki and spec.secureBoot say.
type FileDemand struct {
	// Signed asks for a signature that the certificates in DB vouch for, and DBX does
	// not refuse; without DB they are the operator's.
	Signed        bool
	DB, DBX       []byte
	RefuseExpired bool
	// Digest is the one that the file has to have; empty for any.
	Digest boot.Digest
}

// Verifier checks signatures, by the demands of a config and by the policy of the
// operator. Its errors wrap ErrUnverified or ErrDemand; any other one may pass.
type Verifier interface {
	// Image checks the signatures of an image that was resolved, before anything of
	// it is pulled. It returns nil where nobody asks for one.
	Image(ctx context.Context, image artifact.Image, d Demands, auth artifact.Credentials) (*v1alpha1.ImageAttestation, error)
	// File checks what firmware starts, which is in the store; image is the name of
	// the image that it is from, empty for that of a URL. It returns nil where nobody
	// asks for a signature.
	File(ctx context.Context, a boot.Artifact, image string, d Demands) (*v1alpha1.UKISignature, error)
	// Signer checks who signs the UKIs that are composed of an image, nil where nobody
	// does, as File checks a signature. It does no I/O.
	Signer(signer *uki.Signer, image string, d Demands) error
}

// demand is what a config asks for, in a form that can be compared: configs that ask
// for the same share a fetch.
type demand struct {
	image, file bool
	// keys, root and certificates are Secrets.
	keys, root, certificates types.NamespacedName
	signed                   v1alpha1.SignedSubject
	identities               string // JSON
	mustSign, refuseExpired  bool
	digest                   boot.Digest
}

// demandOf reads the spec of a config.
func demandOf(cfg v1alpha1.Config) demand {
	c := cfg.Common()
	var d demand
	in := func(ref *corev1.LocalObjectReference) (n types.NamespacedName) {
		if name := secretName(ref); name != "" {
			n = types.NamespacedName{Namespace: cfg.GetNamespace(), Name: name}
		}
		return n
	}
	d.mustSign, d.file = c.SecureBoot, c.SecureBoot
	if c.Verification == nil {
		return d
	}
	if i := c.Verification.Image; i != nil {
		d.image, d.keys, d.root, d.signed = true, in(i.KeysSecretRef), in(i.TrustedRootSecretRef), i.Signed
		if len(i.Identities) > 0 {
			text, _ := json.Marshal(i.Identities) // strings can always be encoded
			d.identities = string(text)
		}
	}
	if u := c.Verification.UKI; u != nil {
		d.file, d.certificates, d.digest = true, in(u.CertificatesSecretRef), boot.Digest(u.Digest)
		d.refuseExpired = u.Expired == v1alpha1.ExpiredRefuse
		// Who only says a digest need not have signed it.
		d.mustSign = d.mustSign || d.digest == "" || d.certificates.Name != ""
	}
	return d
}

// demands reads the Secrets of a demand.
func (f *fetches) demands(ctx context.Context, d demand, seen versions) (Demands, error) {
	var out Demands
	if d.image {
		out.Image = &ImageDemand{Signed: d.signed}
		if d.identities != "" {
			if err := json.Unmarshal([]byte(d.identities), &out.Image.Identities); err != nil {
				return out, fmt.Errorf("%w: identities: %w", ErrDemand, err)
			}
		}
		var err error
		if out.Image.Keys, err = f.keys(ctx, d.keys, seen); err != nil {
			return out, err
		}
		if out.Image.TrustedRoot, err = f.entry(ctx, d.root, seen, v1alpha1.SecretKeyTrustedRoot, true); err != nil {
			return out, err
		}
	}
	if !d.file {
		return out, nil
	}
	out.File = &FileDemand{Signed: d.mustSign, RefuseExpired: d.refuseExpired, Digest: d.digest}
	var err error
	if out.File.DB, err = f.entry(ctx, d.certificates, seen, v1alpha1.SecretKeyDB, true); err == nil {
		out.File.DBX, err = f.entry(ctx, d.certificates, seen, v1alpha1.SecretKeyDBX, false)
	}
	return out, err
}

// keys returns every entry of a Secret.
func (f *fetches) keys(ctx context.Context, name types.NamespacedName, seen versions) ([][]byte, error) {
	s, err := f.read(ctx, name, seen)
	if err != nil || s == nil {
		return nil, err
	}
	if n := len(s.Data); n == 0 || n > maxKeys {
		return nil, fmt.Errorf("%w: Secret %s has %d entries; it needs 1 to %d, a public key in PEM each", ErrDemand, name, n, maxKeys)
	}
	var all [][]byte
	for _, text := range s.Data {
		all = append(all, text)
	}
	slices.SortFunc(all, slices.Compare)
	return all, nil
}

// entry returns one entry of a Secret.
func (f *fetches) entry(ctx context.Context, name types.NamespacedName, seen versions, key string, required bool) ([]byte, error) {
	s, err := f.read(ctx, name, seen)
	if err != nil || s == nil {
		return nil, err
	}
	text, ok := s.Data[key]
	if !ok && required {
		return nil, fmt.Errorf("Secret %s %w %s", name, errSecretKey, key) //nolint:staticcheck // a kind's name
	}
	return text, nil
}

// read reads a Secret, which nobody keeps, and notes its version; nil where no name
// is given.
func (f *fetches) read(ctx context.Context, name types.NamespacedName, seen versions) (*corev1.Secret, error) {
	if name.Name == "" {
		return nil, nil //nolint:nilnil // no Secret is asked for
	}
	at := f.secrets.look(name)
	secret, v, err := f.secrets.get(ctx, name)
	switch {
	case err == nil || apierrors.IsNotFound(err):
		f.secrets.found(at, v)
		seen[name] = v
	default:
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("Secret %s %w", name, errSecretNotFound) //nolint:staticcheck // a kind's name
	}
	return secret, nil
}

// versions are those of the Secrets that a fetch has read.
type versions map[types.NamespacedName]version
