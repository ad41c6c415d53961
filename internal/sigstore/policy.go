package sigstore

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

const (
	// maxIdentities bounds the identities of one policy, maxIdentityText each of
	// their texts and maxTrustedRoot the trusted root, in bytes.
	maxIdentities   = 64
	maxIdentityText = 512
	maxTrustedRoot  = 1 << 20
	// maxAuthorities bounds the logs and authorities of each kind in it.
	maxAuthorities = 16
)

// Policy says who has to have signed. Any one of the keys and identities is enough.
type Policy struct {
	// Keys are what ParseKeys returns.
	Keys []crypto.PublicKey
	// Identities of keyless signatures.
	Identities []Identity
	// TrustedRoot is a sigstore trusted root as JSON (media type
	// application/vnd.dev.sigstore.trustedroot+json;version=0.1). Identities need one;
	// with keys alone it is used to check the log entries that there are.
	TrustedRoot []byte
}

// Identity is who a keyless signature is made by.
type Identity struct {
	// Issuer is the URL of the OpenID provider.
	Issuer string
	// Subject is the certificate's subject alternative name. Either it is set or
	// SubjectRegExp.
	Subject string
	// SubjectRegExp is a regular expression (RE2) that the whole of the subject has to
	// match.
	SubjectRegExp string
}

// Check returns ErrPolicy, with what is wrong, for an identity that nobody could ever
// have.
func (i Identity) Check() error {
	if _, err := i.compile(); err != nil {
		return fmt.Errorf("%w: the identity: %w", ErrPolicy, err)
	}
	return nil
}

// Check returns ErrPolicy, with what is wrong, for a policy that nothing could ever
// be checked by.
func (p Policy) Check() error {
	_, err := p.compile()
	return err
}

// Signers names those who may sign, a few of them where there are many.
func (p Policy) Signers() string {
	var all []string
	for _, i := range p.Identities {
		all = append(all, fmt.Sprintf("%s (%s)", clip(i.Subject+i.SubjectRegExp), clip(i.Issuer)))
	}
	for _, k := range p.Keys {
		all = append(all, "key "+Fingerprint(k))
	}
	if n := len(all); n > maxTold {
		all = append(all[:maxTold], fmt.Sprintf("%d more", n-maxTold))
	}
	return strings.Join(all, " or ")
}

// checker is a policy whose parts have been read.
type checker struct {
	keys       []trustedKey
	identities verify.CertificateIdentities
	// root is nil where the policy has none.
	root *root.TrustedRoot
	// demands are what the trusted root asks of a keyless signature.
	demands []verify.VerifierOption
}

func (p Policy) compile() (checker, error) {
	if len(p.Keys) == 0 && len(p.Identities) == 0 {
		return checker{}, fmt.Errorf("%w: it names neither keys nor identities", ErrPolicy)
	}
	if len(p.Keys) > maxKeys || len(p.Identities) > maxIdentities {
		return checker{}, fmt.Errorf("%w: it names %d keys and %d identities; %d and %d are the most", ErrPolicy, len(p.Keys), len(p.Identities), maxKeys, maxIdentities)
	}
	var c checker
	for i, k := range p.Keys {
		t, err := newTrustedKey(k)
		if err != nil {
			return checker{}, fmt.Errorf("%w: key %d: %w", ErrPolicy, i+1, err)
		}
		c.keys = append(c.keys, t)
	}
	for i, id := range p.Identities {
		m, err := id.compile()
		if err != nil {
			return checker{}, fmt.Errorf("%w: identity %d: %w", ErrPolicy, i+1, err)
		}
		c.identities = append(c.identities, m)
	}
	if len(p.TrustedRoot) == 0 {
		if len(c.identities) > 0 {
			return checker{}, fmt.Errorf("%w: its identities need a trusted root, and there is none", ErrPolicy)
		}
		return c, nil
	}
	if err := c.readRoot(p.TrustedRoot); err != nil {
		return checker{}, fmt.Errorf("%w: the trusted root: %w", ErrPolicy, err)
	}
	return c, nil
}

func (i Identity) compile() (verify.CertificateIdentity, error) {
	var none verify.CertificateIdentity
	switch {
	case i.Issuer == "":
		return none, fmt.Errorf("it has no issuer")
	case (i.Subject == "") == (i.SubjectRegExp == ""):
		return none, fmt.Errorf("it needs either a subject or a subjectRegExp")
	case max(len(i.Issuer), len(i.Subject), len(i.SubjectRegExp)) > maxIdentityText:
		return none, fmt.Errorf("its issuer or subject is longer than %d bytes", maxIdentityText)
	}
	whole := ""
	if i.SubjectRegExp != "" {
		// On its own first: "a)|(b" would be valid between parentheses only.
		if _, err := regexp.Compile(i.SubjectRegExp); err != nil {
			return none, fmt.Errorf("its subjectRegExp is not valid: %s", clip(err.Error()))
		}
		whole = `\A(?:` + i.SubjectRegExp + `)\z`
	}
	id, err := verify.NewShortCertificateIdentity(i.Issuer, "", i.Subject, whole)
	if err != nil {
		return none, fmt.Errorf("it is not valid: %s", clip(err.Error()))
	}
	return id, nil
}

// readRoot reads the trusted root, and what it demands of keyless signatures: where
// it knows transparency logs, an entry in one of them; else a signed timestamp; and
// where it knows certificate transparency logs, that one of them has the certificate.
func (c *checker) readRoot(text []byte) error {
	if len(text) > maxTrustedRoot {
		return fmt.Errorf("it has %d bytes; %d are the most", len(text), maxTrustedRoot)
	}
	r, err := root.NewTrustedRootFromJSON(text)
	if err != nil {
		return fmt.Errorf("it cannot be read: %s", clip(err.Error()))
	}
	if err := checkRoot(r); err != nil {
		return err
	}
	c.root = r
	if len(c.identities) == 0 {
		return nil
	}
	if len(r.FulcioCertificateAuthorities()) == 0 {
		return fmt.Errorf("it has no certificate authority, so that no identity can be checked")
	}
	switch {
	case len(r.RekorLogs()) > 0:
		c.demands = append(c.demands, verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1))
	case len(r.TimestampingAuthorities()) > 0:
		c.demands = append(c.demands, verify.WithSignedTimestamps(1))
	default:
		return fmt.Errorf("it has neither a transparency log nor a timestamp authority, so that nothing says when a signature was made")
	}
	if len(r.CTLogs()) > 0 {
		c.demands = append(c.demands, verify.WithSignedCertificateTimestamps(1))
	}
	return nil
}

// checkRoot refuses keys that take too long to check: a trusted root can come from
// a tenant.
func checkRoot(r *root.TrustedRoot) error {
	if n := max(len(r.RekorLogs()), len(r.CTLogs()), len(r.FulcioCertificateAuthorities()), len(r.TimestampingAuthorities())); n > maxAuthorities {
		return fmt.Errorf("it has %d logs or authorities of one kind; %d are the most", n, maxAuthorities)
	}
	for _, logs := range []map[string]*root.TransparencyLog{r.RekorLogs(), r.CTLogs()} {
		for _, l := range logs {
			if err := checkKey(l.PublicKey); err != nil {
				return fmt.Errorf("the key of the log %s: %w", clip(l.BaseURL), err)
			}
		}
	}
	for _, a := range r.FulcioCertificateAuthorities() {
		if f, ok := a.(*root.FulcioCertificateAuthority); ok {
			if err := checkCertificates(slices.Concat(f.Intermediates, []*x509.Certificate{f.Root})); err != nil {
				return fmt.Errorf("the certificate authority %s: %w", clip(f.URI), err)
			}
		}
	}
	for _, a := range r.TimestampingAuthorities() {
		if t, ok := a.(*root.SigstoreTimestampingAuthority); ok {
			if err := checkCertificates(slices.Concat(t.Intermediates, []*x509.Certificate{t.Root, t.Leaf})); err != nil {
				return fmt.Errorf("the timestamp authority %s: %w", clip(t.URI), err)
			}
		}
	}
	return nil
}

func checkCertificates(all []*x509.Certificate) error {
	for _, c := range all {
		if c == nil {
			continue
		}
		if err := checkKey(c.PublicKey); err != nil {
			return fmt.Errorf("the certificate of %s: %w", clip(c.Subject.String()), err)
		}
	}
	return nil
}
