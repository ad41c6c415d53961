package uki_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// Object identifiers that forgeries are made of.
var (
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidIndirectData  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidPEImageData   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
	oidCabinetData   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 25}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidSHA256RSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidECDSASHA256   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidSHA1          = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
)

// attribute is a signed attribute with its values in DER.
type attribute struct {
	id     asn1.ObjectIdentifier
	values [][]byte
}

// forgery is a signature that is built by hand, so that each part of it can be wrong
// while all others are right, the signature over the attributes included.
type forgery struct {
	signer       *identity
	certificates []*identity
	image        []byte // its digest

	signedData, contentType, imageType                                       asn1.ObjectIdentifier
	digestAlgorithms                                                         []asn1.ObjectIdentifier
	imageAlgorithm, signerAlgorithm, signatureAlgorithm                      asn1.ObjectIdentifier
	hash                                                                     crypto.Hash
	parameters                                                               []byte // of the signature algorithm
	version, signerVersion                                                   int64
	attributes                                                               func([]attribute) []attribute
	noAttributes                                                             bool
	signature                                                                func([]byte) []byte
	signers                                                                  int
	serial                                                                   int64 // added to the right one
	longSerial                                                               bool
	afterContent, afterSignedData, afterSigner, afterDigest, afterEverything []byte
	certificatesDER                                                          []byte // beside the certificates
}

// forge makes a signature of an image, changed in some way.
func forge(t testing.TB, image []byte, id *identity, change ...func(*forgery)) []byte {
	t.Helper()
	hash, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	f := &forgery{
		signer: id, certificates: []*identity{id}, image: hash[:],
		signedData: oidSignedData, contentType: oidIndirectData, imageType: oidPEImageData,
		digestAlgorithms: []asn1.ObjectIdentifier{oidSHA256}, imageAlgorithm: oidSHA256, signerAlgorithm: oidSHA256,
		signatureAlgorithm: oidRSA, hash: crypto.SHA256, parameters: []byte{5, 0}, version: 1, signerVersion: 1, signers: 1,
		attributes: func(a []attribute) []attribute { return a },
		signature:  func(s []byte) []byte { return s },
	}
	for _, c := range change {
		c(f)
	}
	return f.build(t)
}

type builder = cryptobyte.Builder

func explicit(tag uint8) der.Tag { return der.Tag(tag).Constructed().ContextSpecific() }

func algorithm(b *builder, id asn1.ObjectIdentifier, parameters []byte) {
	b.AddASN1(der.SEQUENCE, func(b *builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddBytes(parameters)
	})
}

func built(t testing.TB, f func(b *builder)) []byte {
	t.Helper()
	b := cryptobyte.NewBuilder(nil)
	f(b)
	out, err := b.Bytes()
	require.NoError(t, err)
	return out
}

func (f *forgery) build(t testing.TB) []byte {
	content := built(t, f.content)
	attributes := built(t, func(b *builder) { f.addAttributes(t, b, content) })
	signed := built(t, func(b *builder) { b.AddASN1(der.SET, func(b *builder) { b.AddBytes(attributes) }) })
	if f.noAttributes {
		signed = content
	}
	signature, err := f.signer.key.Sign(rand.Reader, digest(f.hash, signed), f.hash)
	require.NoError(t, err)
	return built(t, func(b *builder) {
		b.AddASN1(der.SEQUENCE, func(b *builder) {
			b.AddASN1ObjectIdentifier(f.signedData)
			b.AddASN1(explicit(0), func(b *builder) {
				b.AddASN1(der.SEQUENCE, func(b *builder) { f.addSignedData(b, content, attributes, f.signature(signature)) })
			})
		})
		b.AddBytes(f.afterEverything)
	})
}

func (f *forgery) content(b *builder) {
	b.AddASN1(der.SEQUENCE, func(b *builder) {
		b.AddASN1ObjectIdentifier(f.imageType)
		b.AddASN1(der.SEQUENCE, func(b *builder) {
			b.AddASN1BitString(nil)
			b.AddASN1(explicit(0), func(b *builder) {
				b.AddASN1(explicit(2), func(b *builder) { b.AddASN1(der.Tag(0).ContextSpecific(), func(*builder) {}) })
			})
		})
	})
	b.AddASN1(der.SEQUENCE, func(b *builder) {
		algorithm(b, f.imageAlgorithm, []byte{5, 0})
		b.AddASN1OctetString(f.image)
		b.AddBytes(f.afterDigest)
	})
	b.AddBytes(f.afterContent)
}

func (f *forgery) addAttributes(t testing.TB, b *builder, content []byte) {
	all := f.attributes([]attribute{
		{oidContentType, [][]byte{encoded(t, oidIndirectData)}},
		{oidSigningTime, [][]byte{encoded(t, time.Now().UTC())}},
		{oidMessageDigest, [][]byte{encoded(t, digest(f.hash, content))}},
	})
	for _, a := range all {
		b.AddASN1(der.SEQUENCE, func(b *builder) {
			b.AddASN1ObjectIdentifier(a.id)
			b.AddASN1(der.SET, func(b *builder) { b.AddBytes(slices.Concat(a.values...)) })
		})
	}
}

func (f *forgery) addSignedData(b *builder, content, attributes, signature []byte) {
	b.AddASN1Int64(f.version)
	b.AddASN1(der.SET, func(b *builder) {
		for _, id := range f.digestAlgorithms {
			algorithm(b, id, []byte{5, 0})
		}
	})
	b.AddASN1(der.SEQUENCE, func(b *builder) {
		b.AddASN1ObjectIdentifier(f.contentType)
		b.AddASN1(explicit(0), func(b *builder) { b.AddASN1(der.SEQUENCE, func(b *builder) { b.AddBytes(content) }) })
	})
	if len(f.certificates)+len(f.certificatesDER) > 0 {
		b.AddASN1(explicit(0), func(b *builder) {
			for _, id := range f.certificates {
				b.AddBytes(id.cert.Raw)
			}
			b.AddBytes(f.certificatesDER)
		})
	}
	b.AddASN1(der.SET, func(b *builder) {
		for range f.signers {
			b.AddASN1(der.SEQUENCE, func(b *builder) { f.addSigner(b, attributes, signature) })
		}
	})
	b.AddBytes(f.afterSignedData)
}

func (f *forgery) addSigner(b *builder, attributes, signature []byte) {
	b.AddASN1Int64(f.signerVersion)
	b.AddASN1(der.SEQUENCE, func(b *builder) {
		b.AddBytes(f.signer.cert.RawIssuer)
		serial := new(big.Int).Add(f.signer.cert.SerialNumber, big.NewInt(f.serial))
		if f.longSerial {
			serial.Lsh(serial, 600)
		}
		b.AddASN1BigInt(serial)
	})
	algorithm(b, f.signerAlgorithm, []byte{5, 0})
	if !f.noAttributes {
		b.AddASN1(explicit(0), func(b *builder) { b.AddBytes(attributes) })
	}
	algorithm(b, f.signatureAlgorithm, f.parameters)
	b.AddASN1OctetString(signature)
	b.AddBytes(f.afterSigner)
}

func encoded(t testing.TB, value any) []byte {
	t.Helper()
	b, err := asn1.Marshal(value)
	require.NoError(t, err)
	return b
}

func digest(hash crypto.Hash, b []byte) []byte {
	h := hash.New()
	h.Write(b)
	return h.Sum(nil)
}

// without and with change the list of attributes.
func without(id asn1.ObjectIdentifier) func(*forgery) {
	return func(f *forgery) {
		f.attributes = func(all []attribute) []attribute {
			return slices.DeleteFunc(all, func(a attribute) bool { return a.id.Equal(id) })
		}
	}
}

func replacing(id asn1.ObjectIdentifier, values ...[]byte) func(*forgery) {
	return func(f *forgery) {
		f.attributes = func(all []attribute) []attribute {
			for i := range all {
				if all[i].id.Equal(id) {
					all[i].values = values
				}
			}
			return all
		}
	}
}

func adding(id asn1.ObjectIdentifier, value []byte) func(*forgery) {
	return func(f *forgery) {
		f.attributes = func(all []attribute) []attribute { return append(all, attribute{id, [][]byte{value}}) }
	}
}

// withTable returns an image with a certificate table of these bytes behind it.
func withTable(image, table []byte) []byte {
	image = append(bytes.Clone(image), make([]byte, -len(image)&7)...)
	setTable(image, len(image), len(table))
	return append(image, table...)
}

// setTable writes the data directory's entry of the certificate table.
func setTable(image []byte, at, size int) {
	entry := image[directoryEntry(image):]
	binary.LittleEndian.PutUint32(entry, uint32(at))
	binary.LittleEndian.PutUint32(entry[4:], uint32(size))
}

// table returns where the certificate table is.
func table(image []byte) (at, size int) {
	entry := image[directoryEntry(image):]
	return int(binary.LittleEndian.Uint32(entry)), int(binary.LittleEndian.Uint32(entry[4:]))
}

func directoryEntry(image []byte) int {
	return int(binary.LittleEndian.Uint32(image[0x3c:])) + 24 + 112 + 4*8
}

// withSignatures returns an image with these signatures.
func withSignatures(image []byte, signatures ...[]byte) []byte {
	return withTable(image, uki.CertificateTable(signatures...))
}
