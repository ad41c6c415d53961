package uki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of the search for a chain. Certificates that came with a signature may be
// made so that there are very many ways through them.
const (
	maxChain  = 8  // certificates, from the signer's to db's
	maxChecks = 64 // signatures of certificates that are checked for one of a file
)

// oidNameConstraints is the extension that limits the names below a CA.
var oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

// search looks for a chain from a signer to a certificate of db.
type search struct {
	db            *Database
	intermediates []*x509.Certificate
	refuseExpired bool
	now           time.Time
	checks        int
	reasons       []string // why certificates that could have been in it were not
}

// chain returns the certificates that lead from a signature's to one of db.
func (d *Database) chain(s Signature, o VerifyOptions) ([]*x509.Certificate, error) {
	w := &search{db: d, intermediates: s.Intermediates, refuseExpired: o.RefuseExpired, now: o.Now}
	if w.now.IsZero() {
		w.now = time.Now()
	}
	if err := w.usable(s.Certificate); err != nil {
		return nil, err
	}
	if chain := w.extend([]*x509.Certificate{s.Certificate}); chain != nil {
		return chain, nil
	}
	if len(w.reasons) > 0 {
		return nil, fmt.Errorf("no certificate of db vouches for it: %s", strings.Join(w.reasons, ", "))
	}
	return nil, fmt.Errorf("no certificate of db vouches for it; its issuer is %s", printable(s.Certificate.Issuer.String()))
}

// extend goes on with a chain until a certificate of db ends it.
func (w *search) extend(chain []*x509.Certificate) []*x509.Certificate {
	last := chain[len(chain)-1]
	if slices.ContainsFunc(w.db.certificates, last.Equal) {
		return chain
	}
	if len(chain) == maxChain {
		return nil
	}
	for _, c := range slices.Concat(w.db.certificates, w.intermediates) {
		if !bytes.Equal(c.RawSubject, last.RawIssuer) || slices.ContainsFunc(chain, c.Equal) {
			continue
		}
		if err := w.issues(c, chain); err != nil {
			w.note(err)
			continue
		}
		if found := w.extend(append(slices.Clip(chain), c)); found != nil {
			return found
		}
	}
	return nil
}

// note remembers why a certificate was of no use; the first are enough to tell.
func (w *search) note(err error) {
	if text := err.Error(); len(w.reasons) < 2 && !slices.Contains(w.reasons, text) {
		w.reasons = append(w.reasons, text)
	}
}

// usable says whether a certificate may be in a chain, wherever that is.
func (w *search) usable(c *x509.Certificate) error {
	switch {
	case len(c.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("the certificate %s has the critical extension %v, which is not known here", Subject(c), printable(c.UnhandledCriticalExtensions[0].String()))
	case w.refuseExpired && w.now.After(c.NotAfter):
		return fmt.Errorf("the certificate %s expired on %s", Subject(c), c.NotAfter.UTC().Format(time.RFC3339))
	case w.refuseExpired && w.now.Before(c.NotBefore):
		return fmt.Errorf("the certificate %s is not valid before %s", Subject(c), c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// issues says whether a certificate is that of a CA that may go on with the chain,
// and did issue the last of it.
func (w *search) issues(ca *x509.Certificate, chain []*x509.Certificate) error {
	if err := w.usable(ca); err != nil {
		return err
	}
	if err := isCA(ca, chain); err != nil {
		return err
	}
	if _, err := rsaKey(ca); err != nil {
		return err
	}
	last := chain[len(chain)-1]
	switch last.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA:
	default:
		return fmt.Errorf("the certificate %s is signed with %v; only RSA with SHA-256, SHA-384 or SHA-512 is accepted", Subject(last), last.SignatureAlgorithm)
	}
	if w.checks++; w.checks > maxChecks {
		return errors.New("too many certificates have the same names")
	}
	if err := ca.CheckSignature(last.SignatureAlgorithm, last.RawTBSCertificate, last.Signature); err != nil {
		return fmt.Errorf("the certificate %s is not signed by the %s that was asked", Subject(last), Subject(ca))
	}
	return nil
}

// isCA says whether a certificate may issue the chain below it (RFC 5280, section
// 6.1.4).
func isCA(ca *x509.Certificate, chain []*x509.Certificate) error {
	switch {
	case !ca.BasicConstraintsValid || !ca.IsCA:
		return fmt.Errorf("the certificate %s is not that of a CA", Subject(ca))
	case ca.KeyUsage != 0 && ca.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("the certificate %s must not be used to issue others", Subject(ca))
	case slices.ContainsFunc(ca.Extensions, hasNameConstraints):
		return fmt.Errorf("the certificate %s limits names, which is not supported here", Subject(ca))
	}
	below := 0 // CAs that are not their own issuer
	for _, c := range chain[1:] {
		if !bytes.Equal(c.RawSubject, c.RawIssuer) {
			below++
		}
	}
	if limited := ca.MaxPathLen > 0 || ca.MaxPathLenZero; limited && below > ca.MaxPathLen {
		return fmt.Errorf("the certificate %s allows only %d CAs below it", Subject(ca), ca.MaxPathLen)
	}
	return nil
}

// refused looks for a certificate that dbx has, among the signature's own and all
// that it is below. Whatever could have been a CA counts as one here, and so does
// one whose signature uses an algorithm that is refused elsewhere.
func (d *Database) refused(s Signature) (*x509.Certificate, bool) {
	if s.Certificate == nil {
		return nil, false
	}
	pool := slices.Concat(s.Intermediates, d.certificates, d.refusedCertificates)
	found := []*x509.Certificate{s.Certificate}
	checks := 0
	for i := 0; i < len(found); i++ {
		c := found[i]
		if d.refusesCertificate(c) {
			return c, true
		}
		for _, ca := range pool {
			if !bytes.Equal(ca.RawSubject, c.RawIssuer) || slices.ContainsFunc(found, ca.Equal) {
				continue
			}
			if checks++; checks > maxChecks || couldHaveIssued(ca, c) {
				found = append(found, ca)
			}
		}
	}
	return nil, false
}

// couldHaveIssued says whether a certificate is signed by another's key, or in a way
// that cannot be checked here.
func couldHaveIssued(ca, c *x509.Certificate) bool {
	if _, err := rsaKey(ca); err != nil {
		return true
	}
	err := ca.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	var insecure x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &insecure) || errors.Is(err, x509.ErrUnsupportedAlgorithm)
}

func (d *Database) refusesCertificate(c *x509.Certificate) bool {
	if slices.ContainsFunc(d.refusedCertificates, c.Equal) {
		return true
	}
	return slices.ContainsFunc(allHashes, func(f crypto.Hash) bool {
		return d.refusedTBS.has(sum(f, c.RawTBSCertificate))
	})
}

func hasNameConstraints(e pkix.Extension) bool { return e.Id.Equal(oidNameConstraints) }
