package uki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of what is read of one signature. The parser goes as deep as the
// structures below and no deeper, so that there is no bound of depth to watch.
const (
	maxCertificates = 32
	maxAttributes   = 64
	maxSerial       = 64 // bytes; RFC 5280 has 20
	maxArcs         = 32 // of an object identifier
)

// Object identifiers of PKCS #7 (RFC 2315), PKCS #9 (RFC 2985) and Authenticode.
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidIndirectData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImageData   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
)

// hashFunctions are those that a signature may use, by object identifier, with the
// signature algorithm that some programs name instead of plain RSA.
var hashFunctions = map[string]struct {
	hash    crypto.Hash
	withRSA asn1.ObjectIdentifier
}{
	"2.16.840.1.101.3.4.2.1": {crypto.SHA256, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}},
	"2.16.840.1.101.3.4.2.2": {crypto.SHA384, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}},
	"2.16.840.1.101.3.4.2.3": {crypto.SHA512, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}},
}

// refusedAlgorithms are named in errors, for those who have to find another.
var refusedAlgorithms = map[string]string{
	"1.2.840.113549.2.5":    "MD5",
	"1.3.14.3.2.26":         "SHA-1",
	"1.2.840.113549.1.1.4":  "RSA with MD5",
	"1.2.840.113549.1.1.5":  "RSA with SHA-1",
	"1.2.840.113549.1.1.10": "RSASSA-PSS",
	"1.2.840.10040.4.1":     "DSA",
	"1.2.840.10045.2.1":     "ECDSA",
	"1.2.840.10045.4.3.2":   "ECDSA with SHA-256",
	"1.2.840.10045.4.3.3":   "ECDSA with SHA-384",
	"1.2.840.10045.4.3.4":   "ECDSA with SHA-512",
	"1.3.101.112":           "Ed25519",
}

// signedData is what is read of a PKCS #7 SignedData with Authenticode's content.
type signedData struct {
	hash         crypto.Hash
	imageDigest  []byte // that of SpcIndirectDataContent
	content      []byte // what the messageDigest attribute is the digest of
	certificates []*x509.Certificate
	issuer       []byte
	serial       *big.Int
	attributes   []byte // as they were signed: SET OF
	attribute    attributes
	signature    []byte
}

// attributes are those signed attributes that mean something here.
type attributes struct {
	contentType   asn1.ObjectIdentifier
	messageDigest []byte
	signingTime   time.Time // zero where there is none, or none that can be read
}

// parser reads DER and remembers the first thing that was wrong; after that it
// returns nothing.
type parser struct{ err error }

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// read takes the next element, which has to have this tag, and returns its content.
func (p *parser) read(s *cryptobyte.String, tag der.Tag, what string) cryptobyte.String {
	var content cryptobyte.String
	if p.err == nil && !s.ReadASN1(&content, tag) {
		p.fail("it has no %s where one has to be", what)
	}
	return content
}

// element is read, but returns the element with tag and length.
func (p *parser) element(s *cryptobyte.String, tag der.Tag, what string) cryptobyte.String {
	var all cryptobyte.String
	if p.err == nil && !s.ReadASN1Element(&all, tag) {
		p.fail("it has no %s where one has to be", what)
	}
	return all
}

// optional takes the next element if it has this tag.
func (p *parser) optional(s *cryptobyte.String, tag der.Tag, what string) (content cryptobyte.String, present bool) {
	if p.err == nil && !s.ReadOptionalASN1(&content, &present, tag) {
		p.fail("its %s cannot be read", what)
	}
	return content, present
}

func (p *parser) oid(s *cryptobyte.String, what string) asn1.ObjectIdentifier {
	var id asn1.ObjectIdentifier
	if p.err == nil && (!s.ReadASN1ObjectIdentifier(&id) || len(id) > maxArcs) {
		p.fail("it has no %s where one has to be", what)
	}
	return id
}

// end makes sure that nothing follows.
func (p *parser) end(s cryptobyte.String, what string) {
	if p.err == nil && !s.Empty() {
		p.fail("something follows in its %s", what)
	}
}

// version takes a version number, which has to be 1.
func (p *parser) version(s *cryptobyte.String, what string) {
	var v int64
	if p.err == nil && (!s.ReadASN1Integer(&v) || v != 1) {
		p.fail("its %s is not of version 1", what)
	}
}

// algorithm takes an AlgorithmIdentifier, whose parameters have to be NULL or
// absent. Whether the algorithm is any good has to be asked before that.
func (p *parser) algorithm(s *cryptobyte.String, what string, good func(asn1.ObjectIdentifier) bool) asn1.ObjectIdentifier {
	sequence := p.read(s, der.SEQUENCE, what)
	id := p.oid(&sequence, what)
	if p.err == nil && !good(id) {
		name := id.String()
		if known := refusedAlgorithms[name]; known != "" {
			name = known
		}
		p.fail("its %s is %s; only RSA with SHA-256, SHA-384 or SHA-512 is accepted", what, name)
	}
	if parameters, present := p.optional(&sequence, der.NULL, what); present && len(parameters) > 0 {
		p.fail("its %s has parameters", what)
	}
	p.end(sequence, what)
	return id
}

// digest takes the AlgorithmIdentifier of a hash function.
func (p *parser) digest(s *cryptobyte.String, what string) crypto.Hash {
	id := p.algorithm(s, what, func(id asn1.ObjectIdentifier) bool { return hashFunctions[id.String()].hash != 0 })
	return hashFunctions[id.String()].hash
}

// parseSignedData reads the PKCS #7 SignedData of an Authenticode signature. It is
// strict: DER, one digest algorithm that is the same everywhere, one signer. Zeroes
// that fill it up to a multiple of 8 bytes may follow, as some programs count them
// in.
func parseSignedData(b []byte) (*signedData, error) {
	p, d := &parser{}, &signedData{}
	rest := cryptobyte.String(b)
	outer := p.read(&rest, der.SEQUENCE, "PKCS #7 ContentInfo in DER")
	if p.err == nil && (len(rest) >= entryAlignment || len(bytes.Trim(rest, "\x00")) > 0) {
		p.fail("%d bytes follow its PKCS #7 data", len(rest))
	}
	if id := p.oid(&outer, "content type"); p.err == nil && !id.Equal(oidSignedData) {
		p.fail("its PKCS #7 content is %s, not SignedData", id)
	}
	explicit := p.read(&outer, der.Tag(0).Constructed().ContextSpecific(), "SignedData")
	p.end(outer, "ContentInfo")
	signed := p.read(&explicit, der.SEQUENCE, "SignedData")
	p.end(explicit, "content")
	p.version(&signed, "SignedData")
	algorithms := p.read(&signed, der.SET, "set of digest algorithms")
	d.hash = p.digest(&algorithms, "digest algorithm")
	p.end(algorithms, "set of digest algorithms, which has to have one")
	d.parseContent(p, &signed)
	if certificates, present := p.optional(&signed, der.Tag(0).Constructed().ContextSpecific(), "certificates"); present {
		d.parseCertificates(p, certificates)
	}
	p.optional(&signed, der.Tag(1).Constructed().ContextSpecific(), "revocation lists") // firmware reads none
	signers := p.read(&signed, der.SET, "set of signers")
	d.parseSigner(p, &signers)
	p.end(signers, "set of signers, which has to have one")
	p.end(signed, "SignedData")
	return d, p.err
}

// parseContent reads SpcIndirectDataContent: what kind of file it is about, and the
// digest of that.
func (d *signedData) parseContent(p *parser, s *cryptobyte.String) {
	info := p.read(s, der.SEQUENCE, "content")
	if id := p.oid(&info, "type of its content"); p.err == nil && !id.Equal(oidIndirectData) {
		p.fail("its content is %s, not SpcIndirectDataContent", id)
	}
	explicit := p.read(&info, der.Tag(0).Constructed().ContextSpecific(), "SpcIndirectDataContent")
	p.end(info, "content")
	content := p.read(&explicit, der.SEQUENCE, "SpcIndirectDataContent")
	p.end(explicit, "content")
	d.content = content
	data := p.read(&content, der.SEQUENCE, "SpcAttributeTypeAndOptionalValue")
	if id := p.oid(&data, "type of what is signed"); p.err == nil && !id.Equal(oidPEImageData) {
		p.fail("it is a signature of %s, not of a PE image", id)
	}
	info = p.read(&content, der.SEQUENCE, "DigestInfo")
	p.end(content, "SpcIndirectDataContent")
	if hash := p.digest(&info, "image digest algorithm"); p.err == nil && hash != d.hash {
		p.fail("its image digest is %v, its digest algorithm %v", hash, d.hash)
	}
	d.imageDigest = p.read(&info, der.OCTET_STRING, "image digest")
	p.end(info, "DigestInfo")
	if p.err == nil && len(d.imageDigest) != d.hash.Size() {
		p.fail("its image digest has %d bytes, not %d", len(d.imageDigest), d.hash.Size())
	}
}

// parseCertificates reads the certificates that came with a signature. One that
// cannot be read spoils it even where nobody needs it: firmware, which uses OpenSSL,
// reads all of them or none.
func (d *signedData) parseCertificates(p *parser, s cryptobyte.String) {
	for n := 0; p.err == nil && !s.Empty(); n++ {
		if n == maxCertificates {
			p.fail("it has more than %d certificates", maxCertificates)
			return
		}
		var raw cryptobyte.String
		var tag der.Tag
		if !s.ReadAnyASN1Element(&raw, &tag) {
			p.fail("its certificates cannot be read")
			return
		}
		certificate, err := x509.ParseCertificate(raw)
		if err != nil {
			p.fail("its certificate %d cannot be read: %v", n+1, err)
			return
		}
		d.certificates = append(d.certificates, certificate)
	}
}

// parseSigner reads SignerInfo.
func (d *signedData) parseSigner(p *parser, s *cryptobyte.String) {
	signer := p.read(s, der.SEQUENCE, "signer")
	p.version(&signer, "signer")
	name := p.read(&signer, der.SEQUENCE, "issuer and serial number")
	d.issuer = p.element(&name, der.SEQUENCE, "issuer")
	d.serial = new(big.Int)
	if p.err == nil && (!name.ReadASN1Integer(d.serial) || d.serial.BitLen() > 8*maxSerial) {
		p.fail("it has no serial number where one has to be")
	}
	p.end(name, "issuer and serial number")
	if hash := p.digest(&signer, "signer's digest algorithm"); p.err == nil && hash != d.hash {
		p.fail("its signer's digest algorithm is %v, its digest algorithm %v", hash, d.hash)
	}
	set, present := p.optional(&signer, der.Tag(0).Constructed().ContextSpecific(), "signed attributes")
	if p.err == nil && !present {
		p.fail("it has no signed attributes")
	}
	d.parseAttributes(p, set)
	p.algorithm(&signer, "signature algorithm", func(id asn1.ObjectIdentifier) bool {
		return id.Equal(oidRSA) || id.Equal(withRSA(d.hash))
	})
	d.signature = p.read(&signer, der.OCTET_STRING, "signature")
	p.optional(&signer, der.Tag(1).Constructed().ContextSpecific(), "unsigned attributes") // time stamps, nested signatures
	p.end(signer, "signer")
}

// withRSA returns the identifier of RSA with a hash function, if it is one of ours.
func withRSA(hash crypto.Hash) asn1.ObjectIdentifier {
	for _, f := range hashFunctions {
		if f.hash == hash {
			return f.withRSA
		}
	}
	return nil
}

// parseAttributes reads the signed attributes. What is signed is not what stands in
// the file: it has the tag of a SET OF there (RFC 2315, section 9.3). Their order
// is left as it was, which is that in which they were signed.
func (d *signedData) parseAttributes(p *parser, s cryptobyte.String) {
	var b cryptobyte.Builder
	b.AddASN1(der.SET, func(b *cryptobyte.Builder) { b.AddBytes(s) })
	d.attributes, _ = b.Bytes() // fails beyond 4 GiB
	for n := 0; p.err == nil && !s.Empty(); n++ {
		if n == maxAttributes {
			p.fail("it has more than %d signed attributes", maxAttributes)
		}
		attribute := p.read(&s, der.SEQUENCE, "signed attribute")
		id := p.oid(&attribute, "type of a signed attribute")
		values := p.read(&attribute, der.SET, "values of a signed attribute")
		p.end(attribute, "signed attribute")
		d.attribute.parse(p, id, values)
	}
	switch {
	case p.err != nil:
	case d.attribute.contentType == nil:
		p.fail("it has no contentType attribute")
	case d.attribute.messageDigest == nil:
		p.fail("it has no messageDigest attribute")
	}
}

func (a *attributes) parse(p *parser, id asn1.ObjectIdentifier, values cryptobyte.String) {
	switch {
	case p.err != nil:
	case id.Equal(oidContentType):
		if a.contentType != nil {
			p.fail("it has two contentType attributes")
		}
		a.contentType = p.oid(&values, "value of its contentType attribute")
		p.end(values, "contentType attribute, which has to have one value")
	case id.Equal(oidMessageDigest):
		if a.messageDigest != nil {
			p.fail("it has two messageDigest attributes")
		}
		a.messageDigest = p.read(&values, der.OCTET_STRING, "value of its messageDigest attribute")
		p.end(values, "messageDigest attribute, which has to have one value")
	case id.Equal(oidSigningTime):
		if !values.ReadASN1UTCTime(&a.signingTime) && !values.ReadASN1GeneralizedTime(&a.signingTime) {
			a.signingTime = time.Time{}
		}
	}
}

// check says whether all that a signature consists of belongs together, from the
// image to the certificate, which it returns. Trust is another question.
func (d *signedData) check(image []byte) error {
	switch {
	case !bytes.Equal(d.imageDigest, image):
		return fmt.Errorf("it is of another image: it signs %v %x, the file's is %x", d.hash, d.imageDigest, image)
	case !d.attribute.contentType.Equal(oidIndirectData):
		return fmt.Errorf("its contentType attribute is %v, not SpcIndirectDataContent", d.attribute.contentType)
	case !bytes.Equal(d.attribute.messageDigest, sum(d.hash, d.content)):
		return errors.New("its messageDigest attribute is not the digest of its content")
	}
	return nil
}

func sum(hash crypto.Hash, b []byte) []byte {
	h := hash.New()
	_, _ = h.Write(b) // a hash never fails
	return h.Sum(nil)
}
