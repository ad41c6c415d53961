package sigstore

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Errors of this package; their text goes on to say who did sign and what is wrong.
var (
	// ErrUnsigned is for a subject without any signature.
	ErrUnsigned = errors.New("not signed")
	// ErrUntrusted is for a subject none of whose signatures is enough.
	ErrUntrusted = errors.New("no signature that counts")
	// ErrPolicy is for a policy that nothing can be checked by.
	ErrPolicy = fmt.Errorf("%w verification policy", boot.ErrInvalid)
)

// maxTold bounds how many signatures an error tells of.
const maxTold = 4

// patience bounds the time of one call. What one signature takes is bounded besides,
// by the bounds of its parts. Tests change it.
var patience = 10 * time.Second

// predicates are the statements that say: this is what I made, or what I stand for.
// Any other (a list of packages, the result of a test) says something of the image
// that need not be good.
var predicates = []string{
	"https://sigstore.dev/cosign/sign/v1",
	"https://slsa.dev/provenance/v1",
	"https://slsa.dev/provenance/v0.2",
}

// Attachment is a signature as a registry keeps it.
type Attachment struct {
	// MediaType of the content: a sigstore bundle's, or cosign's simple signing.
	MediaType string
	// Digest of the content.
	Digest boot.Digest
	// Annotations of the layer: where cosign keeps the signature of a .sig tag.
	Annotations map[string]string
	Content     []byte
}

// Format is how a signature is kept.
type Format string

// The formats of signatures.
const (
	SigstoreBundle  Format = "SigstoreBundle"
	CosignSignature Format = "CosignSignature"
)

// Attestation is a signature that was checked.
type Attestation struct {
	Format Format
	// Signer is the key, as "key sha256:" and the SHA-256 of its SubjectPublicKeyInfo,
	// or the identity, as "subject (issuer)".
	Signer string
	// Digest of the signature's own blob in the registry.
	Digest boot.Digest
	// LoggedTime is when a transparency log that the trusted root knows took it; zero
	// where none did.
	LoggedTime time.Time
}

// Verify looks for a signature of the subject, the digest of an index or manifest,
// that the policy asks for. It returns ErrUnsigned, ErrUntrusted or ErrPolicy. What
// its text says of who did sign is what the signatures say of themselves.
func Verify(subject boot.Digest, all []Attachment, p Policy) (Attestation, error) {
	c, err := p.compile()
	if err != nil {
		return Attestation{}, err
	}
	if _, err := boot.ParseDigest(string(subject)); err != nil {
		return Attestation{}, fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if len(all) == 0 {
		return Attestation{}, ErrUnsigned
	}
	var told []string
	started := time.Now()
	for i, a := range all {
		if i > 0 && time.Since(started) > patience {
			return Attestation{}, fmt.Errorf("%w: gave up after %s, with %d of %d left: %s", ErrUntrusted, patience, len(all)-i, len(all), tell(told))
		}
		found, err := c.try(subject, a)
		if err == nil {
			return found, nil
		}
		told = append(told, err.Error())
	}
	return Attestation{}, fmt.Errorf("%w: %s", ErrUntrusted, tell(told))
}

func tell(told []string) string {
	if n := len(told); n > maxTold {
		told = append(told[:maxTold-1], fmt.Sprintf("and %d more", n-maxTold+1))
	}
	return strings.Join(told, "; ")
}

// try checks one signature.
func (c checker) try(subject boot.Digest, a Attachment) (found Attestation, err error) {
	// What the libraries read was written by anyone.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s cannot be read: %s", a.Digest, clip(fmt.Sprint(r)))
		}
	}()
	e, format, err := read(a)
	if err != nil {
		return Attestation{}, fmt.Errorf("%s: %w", a.Digest, err)
	}
	found = Attestation{Format: format, Digest: a.Digest}
	if err = e.isOf(subject); err == nil {
		found.Signer, found.LoggedTime, err = c.check(subject, e)
	}
	if err != nil {
		return Attestation{}, fmt.Errorf("one %s: %w", e.signer(), err)
	}
	return found, nil
}

func read(a Attachment) (*entity, Format, error) {
	switch {
	case len(a.Content) > maxContent:
		return nil, "", fmt.Errorf("it has %d bytes; %d are the most", len(a.Content), maxContent)
	case isBundle(a.MediaType):
		e, err := readBundle(a.Content)
		return e, SigstoreBundle, err
	case a.MediaType == typeSimpleSigning:
		e, err := readCosign(a.Content, a.Annotations)
		return e, CosignSignature, err
	}
	return nil, "", fmt.Errorf("%q is no media type of a signature", clip(a.MediaType))
}

// isOf says what is wrong where a signature is not one of the subject. What it reads
// is checked to be what was signed afterwards.
func (e *entity) isOf(subject boot.Digest) error {
	if e.payload != nil {
		of, err := subjectOf(e.payload)
		if err == nil && of != string(subject) {
			err = fmt.Errorf("it is a signature of %s", clip(of))
		}
		return err
	}
	if m := e.signature.MessageSignatureContent(); m != nil {
		if a := m.DigestAlgorithm(); a != "SHA2_256" {
			return fmt.Errorf("it is a signature of a %s, and the image is known by its SHA-256; sign a statement (DSSE), as cosign does", clip(a))
		}
		if of := hex.EncodeToString(m.Digest()); of != subject.Hex() {
			return fmt.Errorf("it is a signature of sha256:%s", clip(of))
		}
		return nil
	}
	return e.states(subject)
}

// statement is an in-toto statement, without its predicate.
type statement struct {
	Type          string `json:"_type"` //nolint:tagliatelle // in-toto's name
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
}

// states checks the statement of an envelope: it is about the subject, and stands
// for it.
func (e *entity) states(subject boot.Digest) error {
	raw := e.signature.EnvelopeContent().RawEnvelope()
	text, err := base64.StdEncoding.DecodeString(raw.Payload)
	if err != nil {
		return fmt.Errorf("its envelope is not in base64")
	}
	var s statement
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("its statement is not valid JSON: %s", clip(err.Error()))
	}
	if s.Type != "https://in-toto.io/Statement/v1" && s.Type != "https://in-toto.io/Statement/v0.1" {
		return fmt.Errorf("it is a %q, not an in-toto statement", clip(s.Type))
	}
	of := ""
	for _, one := range s.Subject {
		if of = one.Digest["sha256"]; of == subject.Hex() {
			break
		}
	}
	switch {
	case of != subject.Hex():
		return fmt.Errorf("its statement is of sha256:%s", clip(of))
	case !slices.Contains(predicates, s.PredicateType):
		return fmt.Errorf("its statement is a %q, which does not say that the image is good; signatures are %s", clip(s.PredicateType), strings.Join(predicates, ", "))
	}
	return nil
}

// check looks for the key or the identity that made a signature.
func (c checker) check(subject boot.Digest, e *entity) (signer string, logged time.Time, err error) {
	for _, k := range c.keys {
		if c.madeBy(subject, e, k) == nil {
			logged, err = c.checkLog(e.with(k.key), k)
			return "key " + Fingerprint(k.key), logged, err
		}
	}
	if e.certificate == nil || len(c.identities) == 0 {
		return "", time.Time{}, c.otherSigner()
	}
	return c.checkIdentity(subject, e)
}

func (c checker) otherSigner() error {
	if len(c.keys) == 0 {
		return errors.New("it is not keyless, and the policy names identities only")
	}
	return errors.New("none of the policy's keys made it")
}

// artifact is what a signature is verified against.
func (e *entity) artifact(subject boot.Digest) (verify.ArtifactPolicyOption, error) {
	if e.payload != nil {
		return verify.WithArtifact(bytes.NewReader(e.payload)), nil
	}
	sum, err := hex.DecodeString(subject.Hex())
	return verify.WithArtifactDigest("sha256", sum), err
}

func (c checker) madeBy(subject boot.Digest, e *entity, k trustedKey) error {
	v, err := verify.NewVerifier(c.material(k), verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate())
	if err != nil {
		return err
	}
	of, err := e.artifact(subject)
	if err != nil {
		return err
	}
	_, err = v.Verify(e.with(k.key), verify.NewPolicy(of, verify.WithKey()))
	return err
}

// checkLog checks the log entries of a signature by a key. It needs none, but one
// that is there has to be right: it is what others find the signature by.
func (c checker) checkLog(e *entity, k trustedKey) (time.Time, error) {
	logs := c.material(k).RekorLogs()
	known := map[string]bool{}
	for _, t := range e.entries {
		if err := tlog.ValidateEntry(t); err != nil {
			return time.Time{}, fmt.Errorf("its log entry is not valid: %s", clip(err.Error()))
		}
		if !bytes.Equal(t.Signature(), e.signature.Signature()) || !e.CompareKey(t.PublicKey(), nil) {
			return time.Time{}, errors.New("its log entry is of another signature")
		}
		if id := hex.EncodeToString([]byte(t.LogKeyID())); logs[id] != nil {
			known[id] = true
		}
	}
	if len(known) == 0 {
		return time.Time{}, nil
	}
	stamps, err := verify.VerifyTlogEntry(e, c.material(k), len(known), true)
	if err != nil {
		return time.Time{}, fmt.Errorf("its log entry does not hold: %s", clip(err.Error()))
	}
	for _, s := range stamps {
		return s.Time, nil
	}
	return time.Time{}, nil
}

func (c checker) checkIdentity(subject boot.Digest, e *entity) (string, time.Time, error) {
	var options []verify.PolicyOption
	for _, id := range c.identities {
		options = append(options, verify.WithCertificateIdentity(id))
	}
	if !c.names(e) {
		return "", time.Time{}, errors.New("the policy does not name who it says that it is by")
	}
	v, err := verify.NewVerifier(c.root, append(slices.Clone(c.demands), verify.WithoutStatementPredicate())...)
	if err != nil {
		return "", time.Time{}, err
	}
	of, err := e.artifact(subject)
	if err != nil {
		return "", time.Time{}, err
	}
	r, err := v.Verify(e, verify.NewPolicy(of, options...))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("it does not hold: %s", clip(err.Error()))
	}
	return identity(*r.Signature.Certificate), loggedTime(r), nil
}

func loggedTime(r *verify.VerificationResult) time.Time {
	for _, t := range r.VerifiedTimestamps {
		if t.Type == "Tlog" {
			return t.Timestamp
		}
	}
	return time.Time{}
}

// material is what a signature by a key is verified with.
func (c checker) material(k trustedKey) root.TrustedMaterial {
	if c.root == nil {
		return keyMaterial{TrustedMaterial: &root.BaseTrustedMaterial{}, key: k}
	}
	return keyMaterial{TrustedMaterial: c.root, key: k}
}

type keyMaterial struct {
	root.TrustedMaterial
	key trustedKey
}

// PublicKeyVerifier returns the key, whatever the signature calls it.
func (m keyMaterial) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	return m.key, nil
}

// names says whether the policy names the identity of the certificate, which is
// nothing proven yet.
func (c checker) names(e *entity) bool {
	s, err := certificate.SummarizeCertificate(e.certificate)
	if err != nil {
		return false
	}
	_, err = c.identities.Verify(s)
	return err == nil
}
