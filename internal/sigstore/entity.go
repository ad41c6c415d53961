package sigstore

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"

	rekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
)

// The bounds of what comes with a signature. Real ones have a tenth of it; what is
// read before it is trusted has to be cheap, also with the largest key that fits.
const (
	maxContent    = 1 << 20
	maxEntries    = 4
	maxEntryBody  = 16 << 10
	maxProof      = 64
	maxCheckpoint = 16 << 10
	maxTimestamps = 4
	maxTimestamp  = 16 << 10
)

// entity is a signature of either format, in the form that sigstore-go verifies. All
// of it is what whoever pushed it says.
type entity struct {
	version   string
	signature verify.SignatureContent
	// certificate is nil for a signature by a key; claims is then what is said of it.
	certificate *x509.Certificate
	claims      string
	// chain are certificates between the signer's and a root.
	chain   []*x509.Certificate
	entries []*tlog.Entry
	stamps  [][]byte
	// payload is what was signed, where it is not the image itself or an envelope.
	payload []byte
	// key takes the place of what the signature says that it was made with.
	key crypto.PublicKey
}

var _ verify.SignedEntity = (*entity)(nil)

func (e *entity) Version() (string, error)                           { return e.version, nil }
func (e *entity) SignatureContent() (verify.SignatureContent, error) { return e.signature, nil }
func (e *entity) TlogEntries() ([]*tlog.Entry, error)                { return e.entries, nil }
func (e *entity) Timestamps() ([][]byte, error)                      { return e.stamps, nil }

// HasInclusionPromise says that a log has promised to take it.
func (e *entity) HasInclusionPromise() bool {
	for _, t := range e.entries {
		if t.HasInclusionPromise() {
			return true
		}
	}
	return false
}

// HasInclusionProof says that a log has taken it.
func (e *entity) HasInclusionProof() bool {
	for _, t := range e.entries {
		if t.HasInclusionProof() {
			return true
		}
	}
	return false
}

// VerificationContent is what the signature is verified with.
func (e *entity) VerificationContent() (verify.VerificationContent, error) { return e, nil }

// CompareKey says whether a log entry names the key or the certificate.
func (e *entity) CompareKey(key any, _ root.TrustedMaterial) bool {
	c, isCertificate := key.(*x509.Certificate)
	if e.key == nil {
		return isCertificate && c.Equal(e.certificate)
	}
	if isCertificate {
		key = c.PublicKey
	}
	k, ok := key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(e.key)
}

// ValidAtTime says whether the certificate is valid then; a key always is.
func (e *entity) ValidAtTime(t time.Time, _ root.TrustedMaterial) bool {
	return e.key != nil || !t.Before(e.certificate.NotBefore) && !t.After(e.certificate.NotAfter)
}

// Certificate is nil where a key is to be used.
func (e *entity) Certificate() *x509.Certificate {
	if e.key != nil {
		return nil
	}
	return e.certificate
}

// Intermediates is the chain that came with the signature.
func (e *entity) Intermediates() []*x509.Certificate { return e.chain }

// PublicKey is nil where the certificate is to be used.
func (e *entity) PublicKey() verify.PublicKeyProvider {
	if e.key == nil {
		return nil
	}
	return hint("")
}

// hint is how a bundle names its key. A policy tries all of its keys.
type hint string

func (h hint) Hint() string { return string(h) }

// with returns the signature as one by this key.
func (e *entity) with(k crypto.PublicKey) *entity {
	c := *e
	c.key = k
	return &c
}

// signer says who made a signature by its own account: nothing of it is proven.
func (e *entity) signer() string {
	if e.certificate != nil {
		if s, err := certificate.SummarizeCertificate(e.certificate); err == nil {
			return "by " + identity(s)
		}
		return "by a certificate without a subject alternative name, with the key " + Fingerprint(e.certificate.PublicKey)
	}
	for _, t := range e.entries {
		if k := t.PublicKey(); k != nil {
			if c, ok := k.(*x509.Certificate); ok {
				k = c.PublicKey
			}
			return "by key " + Fingerprint(k)
		}
	}
	if e.claims != "" {
		return "by key " + clip(e.claims)
	}
	return "by a key that it does not name"
}

// identity names who a certificate was given to.
func identity(s certificate.Summary) string {
	return fmt.Sprintf("%s (%s)", clip(s.SubjectAlternativeName), clip(s.Issuer))
}

// claimed is what a bundle's hint says of its key. Cosign's is the fingerprint in
// base64.
func claimed(hint string) string {
	if b, err := base64.StdEncoding.DecodeString(hint); err == nil && len(b) == 32 {
		return "sha256:" + hex.EncodeToString(b)
	}
	return hint
}

// checkEntry bounds a log entry before it is read: reading checks the signature in
// it, with the key in it.
func checkEntry(t *rekor.TransparencyLogEntry) error {
	p := t.GetInclusionProof()
	switch {
	case len(t.GetCanonicalizedBody()) > maxEntryBody:
		return fmt.Errorf("its log entry has %d bytes; %d are the most", len(t.GetCanonicalizedBody()), maxEntryBody)
	case len(p.GetHashes()) > maxProof || len(p.GetCheckpoint().GetEnvelope()) > maxCheckpoint:
		return fmt.Errorf("the inclusion proof of its log entry is too large")
	}
	return nil
}

// checkStamps bounds signed timestamps before they are read.
func checkStamps(all [][]byte) error {
	if len(all) > maxTimestamps {
		return fmt.Errorf("it has %d timestamps; %d are the most", len(all), maxTimestamps)
	}
	for _, s := range all {
		if len(s) > maxTimestamp {
			return fmt.Errorf("its timestamp has %d bytes; %d are the most", len(s), maxTimestamp)
		}
	}
	return nil
}
