package uki_test

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// tiny is an image of 1 KB: headers and one section. Fuzzing wants its inputs small.
func tiny(t testing.TB) []byte {
	t.Helper()
	image := greeting(t, uki.AMD64)
	const optional, sections = 64 + 24, 64 + 24 + 240
	le := binary.LittleEndian
	le.PutUint16(image[64+6:], 1)            // sections
	le.PutUint32(image[optional+36:], 0x200) // file alignment
	le.PutUint32(image[optional+60:], 0x200) // size of headers
	le.PutUint32(image[sections+16:], 0x200) // size of raw data
	le.PutUint32(image[sections+20:], 0x200) // offset of raw data
	clear(image[sections+40 : 0x200])        // the other section headers
	return append(image[:0x200:0x200], image[0x1000:0x1200]...)
}

// snakeoil is the identity that comes with OVMF, that of a CA. The processes that fuzz
// have to have the same one.
func snakeoil(t testing.TB) *identity {
	t.Helper()
	key, err := uki.ParseKey(debianFile(t, "/usr/share/ovmf/PkKek-1-snakeoil.key", "ovmf"), []byte("snakeoil"))
	require.NoError(t, err)
	all, err := uki.ParseCertificates(debianFile(t, "/usr/share/ovmf/PkKek-1-snakeoil.pem", "ovmf"))
	require.NoError(t, err)
	return &identity{key, all[0]}
}

// forgeries are signatures of all kinds, good and bad.
func forgeries(t testing.TB, image []byte, id *identity) map[string][]byte {
	t.Helper()
	forgeries := map[string][]byte{"good": forge(t, image, id)}
	for name, change := range map[string]func(*forgery){
		"no contentType":   without(oidContentType),
		"no messageDigest": without(oidMessageDigest),
		"no attributes":    func(f *forgery) { f.noAttributes = true },
		"no certificate":   func(f *forgery) { f.certificates = nil },
		"altered":          func(f *forgery) { f.signature = flipped(7) },
		"two signers":      func(f *forgery) { f.signers = 2 },
		"SHA-1":            func(f *forgery) { f.digestAlgorithms = []asn1.ObjectIdentifier{oidSHA1} },
	} {
		forgeries[name] = forge(t, image, id, change)
	}
	return forgeries
}

// checkError holds an error to what is promised of it: of a known kind, and short
// enough for a condition.
func checkError(t *testing.T, err error) {
	t.Helper()
	known := false
	for _, is := range []error{uki.ErrNotPE, uki.ErrMalformed, uki.ErrUnsigned, uki.ErrUntrusted} {
		known = known || errors.Is(err, is)
	}
	if !known || len(err.Error()) > 8192 {
		t.Fatalf("an error of no known kind, or a very long one: %v", err)
	}
}

func FuzzSignatures(f *testing.F) {
	id := snakeoil(f)
	image := tiny(f)
	all := forgeries(f, image, id)
	for _, signature := range all {
		f.Add(uki.CertificateTable(signature))
		f.Add(uki.CertificateTable(signature, all["good"]))
	}
	f.Add([]byte{})
	f.Add(uki.CertificateTable([]byte{0x30, 0x80, 0, 0}, nil, []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 2, 2, 0, 1})
	db := trusting(f, id)
	f.Fuzz(func(t *testing.T, table []byte) {
		signed := withTable(image, table)
		found, err := uki.Signatures(bytes.NewReader(signed), int64(len(signed)))
		if err != nil {
			checkError(t, err)
			return
		}
		if len(found) > 16 {
			t.Fatalf("%d signatures", len(found))
		}
		intact := false
		for _, s := range found {
			if s.Err == nil && (s.Certificate == nil || !bytes.Equal(s.Digest, hash(t, image))) {
				t.Fatal("an intact signature of nobody, or of something else")
			}
			intact = intact || s.Err == nil && s.Certificate.Equal(id.cert)
		}
		if _, err := verify(signed, db); (err == nil) != intact {
			t.Fatalf("a signature that is intact and by somebody in db: %v, yet: %v", intact, err)
		} else if err != nil {
			checkError(t, err)
		}
	})
}

// Whatever becomes of a signed image: what Verify accepts, sbverify does.
func FuzzVerify(f *testing.F) {
	program(f, "sbverify", "sbsigntool")
	root := snakeoil(f)
	intermediate := issue(f, "intermediate", root, asCA)
	leaf := issue(f, "leaf", intermediate)
	image := tiny(f)
	f.Add(sign(f, image, signer(f, leaf, intermediate)))
	f.Add(sign(f, append(image, "odd"...), signer(f, root)))
	f.Add(sign(f, sign(f, image, signer(f, leaf, intermediate)), signer(f, root)))
	f.Add(sbsign(f, image, leaf, intermediate))
	for _, signature := range forgeries(f, image, root) {
		f.Add(withSignatures(image, signature))
	}
	f.Add(image)
	db := trusting(f, root)
	f.Fuzz(func(t *testing.T, image []byte) {
		s, err := verify(image, db)
		if err != nil {
			checkError(t, err)
			return
		}
		if s.TrustedBy == nil || !s.TrustedBy.Equal(root.cert) || !s.Chain[0].Equal(s.Certificate) {
			t.Fatal("trusted by nobody")
		}
		if signatures(t, image)[0].Err != nil {
			return // sbverify gives up at a first signature that it cannot read
		}
		// OpenSSL and Go do not quite agree on what a certificate is that nobody needs.
		if out, ok := sbverify(t, image, root); !ok && !strings.Contains(out, "Unable to parse signature data") {
			t.Fatalf("sbverify refuses what we accept: %s", out)
		}
	})
}
