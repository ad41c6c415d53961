package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/compose"
	"github.com/boot-operator/boot-operator/internal/controller/bootconfig"
	"github.com/boot-operator/boot-operator/internal/inventory"
	"github.com/boot-operator/boot-operator/internal/netboot"
	"github.com/boot-operator/boot-operator/internal/sigstore"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/internal/verification"
)

// signatureOptions are the flags about what is signed, by whom.
type signatureOptions struct {
	policyFile        string
	trustedRootFile   string
	secureBootDBFile  string
	secureBootDBXFile string
	ukiSigningSecret  string
	bootCAFile        string
}

func (o *signatureOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.policyFile, "verification-policy-file", "", "YAML file that says which images have to be signed, and by whom, besides what spec.verification of a config asks for; see docs/verification.md")
	f.StringVar(&o.trustedRootFile, "sigstore-trusted-root-file", "", "sigstore trusted root (trusted_root.json) for keyless signatures of images; nothing is ever downloaded")
	f.StringVar(&o.secureBootDBFile, "secure-boot-db-file", "", "certificates that the firmware of machines with spec.secureBoot trusts (db), as PEM or as an EFI signature list; for configs that name none of their own")
	f.StringVar(&o.secureBootDBXFile, "secure-boot-dbx-file", "", "what the firmware of those machines refuses (dbx), as PEM or as an EFI signature list; needs --secure-boot-db-file")
	f.StringVar(&o.ukiSigningSecret, "uki-signing-secret", "", "name of the Secret of type kubernetes.io/tls, in the operator's namespace, with the RSA key that composed UKIs are signed with; empty: those of configs that name none are not signed")
	f.StringVar(&o.bootCAFile, "boot-ca-file", "", "PEM certificates of the authority of an https boot server, which composed UKIs bring with them; without it --bmc-boot-ca-file is used")
}

// signatureSettings are signatureOptions once they are checked.
type signatureSettings struct {
	rules       verification.Rules
	trustedRoot []byte
	// db is nil where nothing is trusted.
	db     *uki.Database
	bootCA []byte
}

func (o *signatureOptions) settings(c *checker, hosts hostSettings) signatureSettings {
	s := signatureSettings{
		trustedRoot: check(c, "sigstore-trusted-root-file", o.trustedRootFile, readOptional),
		bootCA:      check(c, "boot-ca-file", o.bootCAFile, readCertificates),
	}
	db := check(c, "secure-boot-db-file", o.secureBootDBFile, readOptional)
	dbx := check(c, "secure-boot-dbx-file", o.secureBootDBXFile, readOptional)
	switch {
	case len(db) > 0:
		s.db = check(c, "secure-boot-db-file, --secure-boot-dbx-file", db, func(db []byte) (*uki.Database, error) { return uki.ParseDatabase(db, dbx) })
	case o.secureBootDBXFile != "":
		c.errs = append(c.errs, errors.New("--secure-boot-dbx-file: give --secure-boot-db-file too"))
	}
	s.rules = check(c, "verification-policy-file", o.policyFile, func(path string) (verification.Rules, error) {
		text, err := readOptional(path)
		if err != nil || path == "" {
			return verification.Rules{}, err
		}
		rules, err := verification.ParsePolicies(text)
		if err == nil {
			rules, err = rules.Complete(verification.Defaults{TrustedRoot: s.trustedRoot, Database: s.db})
		}
		return rules, err
	})
	if len(s.bootCA) == 0 {
		s.bootCA = hosts.bootCA
	}
	return s
}

// verifier tells the controllers what signatures are worth.
type verifier struct {
	signatureSettings
	checks *verification.Verifier
}

// Image implements bootconfig.Verifier.
func (v verifier) Image(ctx context.Context, image artifact.Image, d bootconfig.Demands, auth artifact.Credentials) (*v1alpha1.ImageAttestation, error) {
	all := v.rules.For(image.Source)
	if d.Image != nil {
		p, err := v.imagePolicy(d.Image)
		if err != nil {
			return nil, verdict(err)
		}
		all = append([]verification.Policy{{Image: p}}, all...) // what the config asks for is told in its status
	}
	found, err := v.checks.Image(ctx, image, all, auth)
	if err != nil || found.Subject == "" {
		return nil, verdict(err)
	}
	a := &v1alpha1.ImageAttestation{
		Subject: string(found.Subject), Signed: v1alpha1.SignedSubject(found.Signed), Format: string(found.Format),
		Signer: found.Signer, Attestation: string(found.Digest),
	}
	if !found.LoggedTime.IsZero() {
		t := metav1.NewTime(found.LoggedTime)
		a.LoggedTime = &t
	}
	return a, nil
}

func (v verifier) imagePolicy(d *bootconfig.ImageDemand) (*verification.ImagePolicy, error) {
	p := &verification.ImagePolicy{Signed: verification.Signed(d.Signed)}
	for _, text := range d.Keys {
		keys, err := sigstore.ParseKeys(text)
		if err != nil {
			return nil, fmt.Errorf("%w: spec.verification.image.keysSecretRef: %w", verification.ErrPolicy, err)
		}
		p.Sigstore.Keys = append(p.Sigstore.Keys, keys...)
	}
	for _, i := range d.Identities {
		p.Sigstore.Identities = append(p.Sigstore.Identities, sigstore.Identity{Issuer: i.Issuer, Subject: i.Subject, SubjectRegExp: i.SubjectRegExp})
	}
	if p.Sigstore.TrustedRoot = d.TrustedRoot; len(d.TrustedRoot) == 0 {
		p.Sigstore.TrustedRoot = v.trustedRoot
	}
	if len(p.Sigstore.Identities) > 0 && len(p.Sigstore.TrustedRoot) == 0 {
		return nil, fmt.Errorf("%w: spec.verification.image.identities need a sigstore trusted root: set trustedRootSecretRef, or the operator's --sigstore-trusted-root-file", verification.ErrPolicy)
	}
	return p, nil
}

// File implements bootconfig.Verifier.
func (v verifier) File(ctx context.Context, a boot.Artifact, image string, d bootconfig.Demands) (*v1alpha1.UKISignature, error) {
	if image == "" {
		image = a.Source
	}
	all, err := v.filePolicies(image, d)
	if err != nil {
		return nil, verdict(err)
	}
	found, err := v.checks.UKI(ctx, a.Digest, all)
	if err != nil || found.Certificate == nil {
		return nil, verdict(err)
	}
	s := &v1alpha1.UKISignature{
		Digest: string(found.Digest), Signer: subject(found.Certificate.Subject.String()), Certificate: fingerprint(found.Certificate.Raw),
	}
	if found.TrustedBy != nil {
		s.TrustedBy = subject(found.TrustedBy.Subject.String())
	}
	return s, nil
}

// Signer implements bootconfig.Verifier.
func (v verifier) Signer(signer *uki.Signer, image string, d bootconfig.Demands) error {
	all, err := v.filePolicies(image, d)
	if err != nil {
		return verdict(err)
	}
	return verdict(v.checks.Signer(signer, all))
}

// filePolicies are what a config and the operator ask of what firmware starts.
func (v verifier) filePolicies(image string, d bootconfig.Demands) ([]verification.Policy, error) {
	all := v.rules.For(image)
	if d.File == nil {
		return all, nil
	}
	p := &verification.UKIPolicy{Required: d.File.Signed, RefuseExpired: d.File.RefuseExpired, Digest: d.File.Digest}
	switch {
	case len(d.File.DB) > 0:
		db, err := uki.ParseDatabase(d.File.DB, d.File.DBX)
		if err != nil {
			return nil, fmt.Errorf("%w: spec.verification.uki.certificatesSecretRef: %w", verification.ErrPolicy, err)
		}
		p.Database = db
	case d.File.Signed && v.db == nil:
		return nil, fmt.Errorf("%w: there are no certificates to check signatures against: set spec.verification.uki.certificatesSecretRef, or the operator's --secure-boot-db-file", verification.ErrPolicy)
	case d.File.Signed:
		p.Database = v.db
	}
	return append([]verification.Policy{{UKI: p}}, all...), nil
}

// verdict makes an error of a verification one of the controllers'.
func verdict(err error) error {
	switch {
	case errors.Is(err, verification.ErrFailed):
		return fmt.Errorf("%w: %s", bootconfig.ErrUnverified, strings.TrimPrefix(err.Error(), verification.ErrFailed.Error()+": "))
	case errors.Is(err, verification.ErrPolicy):
		return fmt.Errorf("%w: %w", bootconfig.ErrDemand, err)
	}
	return err
}

// composer makes the UKIs of configs.
type composer struct {
	inventory *inventory.Inventory
	composer  *compose.Composer
}

// Compose implements bootconfig.Composer.
func (c composer) Compose(ctx context.Context, cfg v1alpha1.Config, attempt int64, signer *uki.Signer) (*v1alpha1.ComposedUKI, error) {
	made, err := c.composer.Compose(ctx, c.inventory.Plan(cfg), attempt, signer)
	if err != nil {
		return nil, err
	}
	out := &v1alpha1.ComposedUKI{Attempt: made.Attempt, Digest: string(made.Digest), Size: made.Size, TokenKey: int32(made.TokenKey), Signature: made.Signature}
	if signer != nil {
		out.Signer = subject(signer.Certificate().Subject.String())
	}
	return out, nil
}

// UpToDate implements bootconfig.Composer.
func (c composer) UpToDate(ctx context.Context, cfg v1alpha1.Config, attempt int64, signer *uki.Signer) (bool, error) {
	return c.composer.UpToDate(ctx, c.inventory.Plan(cfg), attempt, signer)
}

// buildComposer makes what composes UKIs.
func (p *parts) buildComposer(context.Context) (err error) {
	p.composer, err = compose.New(compose.Options{
		Blobs: p.store, Keyring: p.keyring, BaseURL: p.settings.ipxeServiceURL, CA: p.settings.signatures.bootCA,
	})
	return err
}

// signingSecret is where the key of composed UKIs is.
func (s settings) signingSecret() types.NamespacedName {
	if s.ukiSigningSecret == "" {
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: s.namespace, Name: s.ukiSigningSecret}
}

// signedIPXE says why the iPXE that is served would not start with Secure Boot on;
// nothing is known of one that others serve.
func (s settings) signedIPXE(arch boot.Architecture) error {
	if !s.offersBoots() {
		return nil
	}
	programs := netboot.ProgramsFor(s.ipxeDir, arch)
	if len(programs) == 0 {
		return fmt.Errorf("--ipxe-dir %s holds no iPXE for %s", s.ipxeDir, arch)
	}
	for _, program := range programs {
		if err := signedProgram(program); err != nil {
			return fmt.Errorf("%s in --ipxe-dir %s: %w", program.Name, s.ipxeDir, err)
		}
	}
	return nil
}

func signedProgram(program netboot.Program) error {
	f, err := os.Open(program.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := uki.Inspect(f, program.Size)
	if err == nil && !info.Signed {
		err = errors.New("it is not signed, and firmware would not start it with Secure Boot on")
	}
	return err
}

// maxSubject is how long a certificate's subject may be in a status.
const maxSubject = 512

func subject(s string) string {
	if len(s) > maxSubject {
		return strings.ToValidUTF8(s[:maxSubject-3], "") + "…"
	}
	return s
}

// fingerprint is the SHA-256 of a certificate.
func fingerprint(der []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(der)) }
