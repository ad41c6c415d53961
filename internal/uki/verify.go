package uki

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Errors of Verify; their text goes on to say who did sign, and why that is not
// enough.
var (
	// ErrUnsigned is for a file without a signature, whose hash is not in db.
	ErrUnsigned = errors.New("not signed")
	// ErrUntrusted is for a file none of whose signatures is intact and by
	// somebody whom db trusts, and for one that dbx refuses.
	ErrUntrusted = errors.New("not trusted")
)

// Sizes of RSA keys, in bits. UEFI wants 2048 at least; the upper bound is one of
// time.
const (
	minModulus = 2048
	maxModulus = 8192
)

// VerifyOptions is what a policy decides about signatures.
type VerifyOptions struct {
	// RefuseExpired refuses a chain that has a certificate in it, db's own
	// included, that is not valid at the time Now. Firmware does not ask: it
	// cannot trust its clock.
	RefuseExpired bool
	// Now is the time that counts for RefuseExpired; zero means time.Now().
	Now time.Time
}

// Signature is one entry of a file's certificate table: an Authenticode signature,
// or what stands in the place of one.
type Signature struct {
	// Certificate is that of the signer, nil where none is known: where Err says
	// so, and where Verify accepted a file by its hash.
	Certificate *x509.Certificate
	// Intermediates are the other certificates that came with it.
	Intermediates []*x509.Certificate
	// Chain leads from Certificate to TrustedBy, both included. Only Verify says.
	Chain []*x509.Certificate
	// TrustedBy is the certificate of db that vouches for the signature: the last
	// of Chain. Only Verify says.
	TrustedBy *x509.Certificate
	// Hash and Digest are the function and the value of the hash that was signed,
	// and those of the entry in db where Verify accepted a file by its hash.
	Hash   crypto.Hash
	Digest []byte
	// SigningTime is when the signer says it was made; nobody vouches for that.
	// Zero where it does not say.
	SigningTime time.Time
	// Err is nil for an intact signature: the hash that was signed is the file's,
	// its attributes are right, and it was made with the certificate's key. Nothing
	// is said by that of whether anyone trusts the certificate.
	Err error
}

// Signer names who made the signature, in at most 256 bytes of printable text: the
// certificate's subject.
func (s Signature) Signer() string {
	switch {
	case s.Certificate != nil:
		return Subject(s.Certificate)
	case s.Err == nil && len(s.Digest) > 0:
		return "nobody: db holds the hash of the file"
	}
	return "nobody who is known"
}

// Subject returns a certificate's subject as printable text of at most 256 bytes.
func Subject(c *x509.Certificate) string { return printable(c.Subject.String()) }

func printable(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(name, "?"))
	if name == "" {
		return "(a certificate without a subject)"
	}
	const limit = 253
	if len(name) > limit {
		name = strings.ToValidUTF8(name[:limit], "") + "..."
	}
	return name
}

// Signatures reads all signatures of the PE file of size bytes behind r, in the
// order of its certificate table, and says of each whether it is intact (Err), and
// nothing of trust. A file that is not signed has none.
//
// It reads the file once, and a megabyte of it into memory at most. Signatures that
// are nested in others are left out, as firmware does not see them. Its error wraps
// ErrNotPE, or ErrMalformed where the table itself cannot be read, or is an error
// of r.
func Signatures(r io.ReaderAt, size int64) ([]Signature, error) {
	all, _, err := readSignatures(r, size, nil)
	return all, err
}

// Verify says whether firmware with this db and dbx starts the PE file of size
// bytes behind r, and returns the first signature that is enough for that. Where it
// is the file's hash that db holds, the signature has no certificate.
//
// What firmware does decides (UEFI 2.11, section 32.5.3.3, and EDK2's
// DxeImageVerificationLib and AuthenticodeVerify), and where versions of EDK2
// differ, what all of them accept:
//
//   - Any certificate of db may be the end of a chain: a root, an intermediate CA,
//     or the signer's own. All issuers in a chain have to be CAs (basic constraints,
//     key usage, path length); they come with the signature or from db. Purposes
//     (extended key usage) are not asked for.
//   - dbx refuses a file by its hash, or if any of its signatures, whether or not
//     others are better, is by or below a certificate that dbx has, raw or as hash
//     of its TBSCertificate. The time that such an entry may name is not asked: it
//     needs a trusted time stamp.
//   - A hash of the file in db is enough, signed or not.
//   - Dates are not checked, unless the options ask for it.
//
// It is stricter than firmware where that has been careless: RSA with 2048 to 8192
// bits, PKCS #1 v1.5 and SHA-256, SHA-384 or SHA-512, for certificates too; strict
// DER; the signed attributes contentType and messageDigest present, once, and
// right; the certificate table whole.
//
// Its error wraps ErrUnsigned, ErrUntrusted, ErrNotPE or ErrMalformed, or is an
// error of r.
func Verify(r io.ReaderAt, size int64, db *Database, o VerifyOptions) (Signature, error) {
	if db == nil {
		db = &Database{} // trusts nobody
	}
	all, digests, err := readSignatures(r, size, db.hashFunctions())
	if err != nil {
		return Signature{}, err
	}
	if err := db.refuse(all, digests); err != nil {
		return Signature{}, err
	}
	var reasons []string
	for i, s := range all {
		if s.Err == nil {
			s.Chain, s.Err = db.chain(s, o)
		}
		if s.Err == nil {
			s.TrustedBy = s.Chain[len(s.Chain)-1]
			return s, nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", s.title(i), s.Err))
	}
	if s, ok := db.admits(digests); ok {
		return s, nil
	}
	if len(all) == 0 {
		return Signature{}, fmt.Errorf("%w: it has no signature, and db does not hold its hash, SHA-256 %x",
			ErrUnsigned, digests[crypto.SHA256].padded)
	}
	const told = 4 // a condition has no room for more
	if n := len(reasons) - told; n > 0 {
		reasons = append(reasons[:told], fmt.Sprintf("%d more", n))
	}
	return Signature{}, fmt.Errorf("%w: %s", ErrUntrusted, strings.Join(reasons, "; "))
}

// title names a signature in an error.
func (s Signature) title(i int) string {
	if s.Certificate == nil {
		return fmt.Sprintf("signature %d", i+1)
	}
	return fmt.Sprintf("signature %d by %s (certificate %.8x)", i+1, s.Signer(), sha256.Sum256(s.Certificate.Raw))
}

// allHashes are the hash functions that signatures and databases may use.
var allHashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}

// readSignatures is Signatures, and returns the file's hashes by the functions that
// its signatures use and more besides.
func readSignatures(r io.ReaderAt, size int64, more []crypto.Hash) ([]Signature, map[crypto.Hash]imageDigest, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return nil, nil, err
	}
	c, err := h.coverage(size)
	if err != nil {
		return nil, nil, err
	}
	entries, err := c.entries(r)
	if err != nil {
		return nil, nil, err
	}
	all := make([]Signature, len(entries))
	parsed := make([]*signedData, len(entries))
	functions := append([]crypto.Hash{crypto.SHA256}, more...)
	for i, e := range entries {
		if parsed[i], all[i].Err = e.parse(); all[i].Err == nil {
			functions = append(functions, parsed[i].hash)
		}
	}
	digests, err := c.digests(r, functions)
	if err != nil {
		return nil, nil, err
	}
	for i, d := range parsed {
		if all[i].Err == nil {
			all[i] = d.inspect(digests[d.hash].padded)
		}
	}
	return all, digests, nil
}

func (e entry) parse() (*signedData, error) {
	if e.revision != entryRevision || e.kind != entryTypeSigned {
		return nil, fmt.Errorf("it is an entry of revision %#x and type %#x; only %#x and %#x, PKCS #7 SignedData, is a signature",
			e.revision, e.kind, entryRevision, entryTypeSigned)
	}
	return parseSignedData(e.content)
}

// inspect says of a signature what there is to say without a database.
func (d *signedData) inspect(image []byte) Signature {
	s := Signature{Hash: d.hash, Digest: d.imageDigest, SigningTime: d.attribute.signingTime}
	s.Certificate, s.Err = d.signer()
	if s.Certificate == nil {
		s.Intermediates = d.certificates
		return s
	}
	s.Intermediates = slices.DeleteFunc(slices.Clone(d.certificates), s.Certificate.Equal)
	if err := d.check(image); err != nil { // tells more than a signature that does not match
		s.Err = err
	}
	return s
}

// signer finds the certificate whose key made the signature. Where there is an
// error, the certificate is the one that claims to have.
func (d *signedData) signer() (*x509.Certificate, error) {
	var claimant *x509.Certificate
	err := fmt.Errorf("the signer's certificate, serial number %x, is not among the %d that came with it", d.serial, len(d.certificates))
	for _, c := range d.certificates {
		if !bytes.Equal(c.RawIssuer, d.issuer) || c.SerialNumber.Cmp(d.serial) != 0 {
			continue
		}
		if claimant == nil {
			claimant = c
		}
		var key *rsa.PublicKey
		if key, err = rsaKey(c); err != nil {
			continue
		}
		if err = rsa.VerifyPKCS1v15(key, d.hash, sum(d.hash, d.attributes), d.signature); err == nil {
			return c, nil
		}
		err = errors.New("it was not made with the key of its certificate, or was altered since")
	}
	return claimant, err
}

// rsaKey returns a certificate's key if it is one that firmware verifies with.
func rsaKey(c *x509.Certificate) (*rsa.PublicKey, error) {
	key, ok := c.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the certificate %s has a key of type %v; only RSA is accepted", Subject(c), c.PublicKeyAlgorithm)
	}
	if bits := key.N.BitLen(); bits < minModulus || bits > maxModulus {
		return nil, fmt.Errorf("the certificate %s has an RSA key of %d bits; %d to %d are accepted", Subject(c), bits, minModulus, maxModulus)
	}
	return key, nil
}
