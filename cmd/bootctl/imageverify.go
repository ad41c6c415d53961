package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/publish"
	"github.com/boot-operator/boot-operator/internal/sigstore"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/internal/verification"
)

// imageVerifyFlags are those of the verb image verify.
type imageVerifyFlags struct {
	registryFlags
	trustFlags
	keys             []string
	identities       []string
	identityPatterns []string
	issuer           string
	trustedRoot      string
	signed           string
	ukiDigest        string
	architectures    []string
	output           string
}

const imageVerifyLong = `Verify checks an image as the operator checks it before a machine is given it:

  - with --key, or --identity and --issuer, its sigstore signature (bundles, and the older
    tags of cosign), offline: keyless signatures need a --trusted-root;
  - with --db, the Authenticode signature of the UKI of each architecture or, where there
    is none, of the kernel, against what the machine's firmware trusts;
  - with --uki-digest, that the UKI is this very file; of an image for several
    architectures, say which with --arch.

All that is asked for has to be right, for every architecture that the image has or that
--arch names. When something is not, the exit code is 1, and the error says which check
failed and who did sign.`

const imageVerifyExample = `  bootctl image verify registry.example.com/os/debian:13 --key cosign.pub --db db.crt
  bootctl image verify registry.example.com/os/debian:13 --trusted-root trusted_root.json \
    --issuer https://token.actions.githubusercontent.com \
    --identity https://github.com/example/os/.github/workflows/image.yaml@refs/heads/main`

// newImageVerifyCommand makes the verb image verify.
func newImageVerifyCommand(env *environment) *cobra.Command {
	var o imageVerifyFlags
	cmd := &cobra.Command{
		Use:     "verify REFERENCE [flags]",
		Short:   "Check the signatures of an image and of its UKIs",
		Long:    imageVerifyLong,
		Example: imageVerifyExample,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0])
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "public key (PEM) whose signature is enough, such as cosign.pub; may be repeated")
	f.StringArrayVar(&o.identities, "identity", nil, "who may have signed without a key of their own: a mail address, or the URL of a workflow; may be repeated")
	f.StringArrayVar(&o.identityPatterns, "identity-regexp", nil, "the same as a regular expression that has to match the whole; may be repeated")
	f.StringVar(&o.issuer, "issuer", "", "OpenID provider that vouches for the identities, such as https://token.actions.githubusercontent.com")
	f.StringVar(&o.trustedRoot, "trusted-root", "", "sigstore's trusted root (trusted_root.json), for identities")
	f.StringVar(&o.signed, "signed", "any", "what has to be signed: index, manifest, or any of them")
	f.StringVar(&o.ukiDigest, "uki-digest", "", "digest that the UKI has to have, as sha256:…")
	f.StringSliceVar(&o.architectures, "arch", nil, "amd64 or arm64; may be repeated (default: all that the image has)")
	f.StringVarP(&o.output, "output", "o", "text", "how to print: text or json")
	o.trustFlags.add(cmd)
	o.registryFlags.add(cmd)
	return cmd
}

// checkReport is one check that was passed.
type checkReport struct {
	Architecture boot.Architecture `json:"architecture"`
	Check        string            `json:"check"` // image or uki
	Subject      boot.Digest       `json:"subject"`
	// Signed says what Subject is: Index, Manifest, UKI or Kernel.
	Signed string `json:"signed"`
	Signer string `json:"signer,omitempty"`
	Format string `json:"format,omitempty"`
	// LoggedTime is when a transparency log took the signature, where it did.
	LoggedTime string `json:"loggedTime,omitempty"`
	TrustedBy  string `json:"trustedBy,omitempty"`
}

// imageVerifyReport is an image that passed.
type imageVerifyReport struct {
	Reference string        `json:"reference"`
	Digest    boot.Digest   `json:"digest"`
	Checks    []checkReport `json:"checks"`
}

func (o *imageVerifyFlags) run(ctx context.Context, env *environment, reference string) error {
	if err := errors.Join(printFormat(o.output), o.check()); err != nil {
		return err
	}
	architectures, err := parseArchitectures(o.architectures)
	if err != nil {
		return err
	}
	policy, err := o.policy()
	if err != nil {
		return err
	}
	r, err := o.open(ctx, env, reference, newProgress(env, o.quiet))
	if err != nil {
		return err
	}
	var report imageVerifyReport
	err = withBlobs(r, func(b *publish.Blobs) error {
		d, err := r.Resolve(ctx)
		if err != nil {
			return err
		}
		report = imageVerifyReport{Reference: r.Reference().String(), Digest: d, Checks: []checkReport{}}
		return report.verify(ctx, b, policy, architectures)
	})
	if err != nil {
		return err
	}
	if o.output == "json" {
		return printJSON(env.Out, report)
	}
	w := tabwriter.NewWriter(env.Out, 0, 0, 2, ' ', 0)
	row := rows(w)
	row("ARCHITECTURE", "VERIFIED", "DIGEST", "SIGNED BY")
	for _, c := range report.Checks {
		row(string(c.Architecture), c.Signed, string(c.Subject), c.signer())
	}
	return w.Flush()
}

// signer says who signed, and who vouches for that.
func (c checkReport) signer() string {
	if c.TrustedBy != "" && c.TrustedBy != c.Signer {
		return c.Signer + ", whom " + c.TrustedBy + " vouches for"
	}
	return dash(c.Signer)
}

// policy is what the flags ask for.
func (o *imageVerifyFlags) policy() (verification.Policy, error) {
	var p verification.Policy
	var err error
	if p.Image, err = o.imagePolicy(); err != nil {
		return p, err
	}
	if p.UKI, err = o.ukiPolicy(); err != nil {
		return p, err
	}
	if p.Image == nil && p.UKI == nil {
		return p, usageError{errors.New("nothing to check is named: use --key, --identity with --issuer, --db or --uki-digest")}
	}
	return p, nil
}

func (o *imageVerifyFlags) imagePolicy() (*verification.ImagePolicy, error) {
	signed := map[string]verification.Signed{"any": verification.SignedAny, "index": verification.SignedIndex, "manifest": verification.SignedManifest}
	what, ok := signed[strings.ToLower(o.signed)]
	named := len(o.identities)+len(o.identityPatterns) > 0
	switch {
	case !ok:
		return nil, usageError{fmt.Errorf("--signed is %q; it must be any, index or manifest", o.signed)}
	case named && o.issuer == "":
		return nil, usageError{errors.New("--issuer is missing: an identity is worth what the provider is that vouches for it")}
	case named && o.trustedRoot == "":
		return nil, usageError{errors.New("--trusted-root is missing: signatures are checked offline, and nothing is downloaded")}
	case !named && (o.issuer != "" || o.trustedRoot != ""):
		return nil, usageError{errors.New("--issuer and --trusted-root belong to --identity or --identity-regexp, which is missing")}
	case !named && len(o.keys) == 0:
		return nil, nil //nolint:nilnil // nothing is asked for
	}
	p := &verification.ImagePolicy{Signed: what}
	for _, path := range o.keys {
		text, err := readSmall("key", path)
		if err != nil {
			return nil, err
		}
		keys, err := sigstore.ParseKeys(text)
		if err != nil {
			return nil, fmt.Errorf("reading --key %s: %w", path, err)
		}
		p.Sigstore.Keys = append(p.Sigstore.Keys, keys...)
	}
	for _, s := range o.identities {
		p.Sigstore.Identities = append(p.Sigstore.Identities, sigstore.Identity{Issuer: o.issuer, Subject: s})
	}
	for _, s := range o.identityPatterns {
		p.Sigstore.Identities = append(p.Sigstore.Identities, sigstore.Identity{Issuer: o.issuer, SubjectRegExp: s})
	}
	var err error
	if p.Sigstore.TrustedRoot, err = readSmall("trusted-root", o.trustedRoot); err != nil {
		return nil, err
	}
	return p, p.Sigstore.Check()
}

func (o *imageVerifyFlags) ukiPolicy() (*verification.UKIPolicy, error) {
	if o.db == "" && (o.dbx != "" || o.refuseExpired) {
		return nil, usageError{errors.New("--dbx and --refuse-expired belong to --db, which is missing")}
	}
	if o.db == "" && o.ukiDigest == "" {
		return nil, nil //nolint:nilnil // nothing is asked for
	}
	p := &verification.UKIPolicy{RefuseExpired: o.refuseExpired, Required: o.db != ""}
	var err error
	if o.ukiDigest != "" {
		if p.Digest, err = boot.ParseDigest(o.ukiDigest); err != nil {
			return nil, usageError{fmt.Errorf("--uki-digest: %w", err)}
		}
	}
	if o.db != "" {
		p.Database, err = o.database()
	}
	return p, err
}

// verify checks these architectures or, without any, those that there are.
func (r *imageVerifyReport) verify(ctx context.Context, b *publish.Blobs, p verification.Policy, architectures []boot.Architecture) error {
	asked := architectures
	if len(asked) == 0 {
		asked = publish.Architectures
	}
	v := verification.New(b, b)
	var missing error
	for _, arch := range asked {
		img, err := b.Image(ctx, r.Digest, arch)
		switch {
		case errors.Is(err, artifact.ErrNoPlatform) && len(architectures) == 0:
			missing = errors.Join(missing, err)
			continue
		case err != nil:
			return err
		}
		if err := r.one(ctx, v, b, img, arch, p); err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
	}
	if len(r.Checks) == 0 {
		return missing
	}
	return nil
}

// one checks one architecture.
func (r *imageVerifyReport) one(ctx context.Context, v *verification.Verifier, b *publish.Blobs, img artifact.Image, arch boot.Architecture, p verification.Policy) error {
	all := []verification.Policy{p}
	if p.Image != nil {
		a, err := v.Image(ctx, img, all, b.Credentials)
		if err != nil {
			return err
		}
		c := checkReport{Architecture: arch, Check: "image", Subject: a.Subject, Signed: string(a.Signed), Signer: a.Signer, Format: string(a.Format)}
		if !a.LoggedTime.IsZero() {
			c.LoggedTime = a.LoggedTime.UTC().Format(time.RFC3339)
		}
		r.Checks = append(r.Checks, c)
	}
	if p.UKI == nil {
		return nil
	}
	a, err := img.Artifact(boot.RoleUKI)
	if err != nil {
		if a, err = img.Artifact(boot.RoleKernel); err != nil {
			return err
		}
	}
	blob, err := b.Fetch(ctx, a, fmt.Sprintf("%s %s", arch, strings.ToLower(string(a.Role))))
	if err != nil {
		return err
	}
	defer blob.Close() //nolint:errcheck // it is only kept open
	s, err := v.UKI(ctx, a.Digest, all)
	if err != nil {
		return err
	}
	c := checkReport{Architecture: arch, Check: "uki", Subject: a.Digest, Signed: string(a.Role)}
	if s.Certificate != nil {
		c.Signer = s.Signer()
	}
	if s.TrustedBy != nil {
		c.TrustedBy = uki.Subject(s.TrustedBy)
	}
	r.Checks = append(r.Checks, c)
	return nil
}
