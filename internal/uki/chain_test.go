package uki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// signedWith is an image with a signature by the first, which brings the others'
// certificates. It is put together without a Signer, which refuses some of them.
func signedWith(t testing.TB, id *identity, others ...*identity) []byte {
	t.Helper()
	image := greeting(t, uki.AMD64)
	return withSignatures(image, forge(t, image, id, func(f *forgery) { f.certificates = append(f.certificates, others...) }))
}

func TestAnyCertificateOfDBMayEndAChain(t *testing.T) {
	root, intermediate, leaf := chain(t)
	whole, bare := signedWith(t, leaf, intermediate), signedWith(t, leaf)
	all := signedWith(t, leaf, intermediate, root)
	for name, c := range map[string]struct {
		image []byte
		db    *uki.Database
		chain []*x509.Certificate // none: refused
	}{
		"root":                              {whole, trusting(t, root), certificates(leaf, intermediate, root)},
		"root that came along":              {all, trusting(t, root), certificates(leaf, intermediate, root)},
		"intermediate":                      {whole, trusting(t, intermediate), certificates(leaf, intermediate)},
		"leaf":                              {whole, trusting(t, leaf), certificates(leaf)},
		"intermediate, alone":               {bare, trusting(t, intermediate), certificates(leaf, intermediate)},
		"leaf, alone":                       {bare, trusting(t, leaf), certificates(leaf)},
		"root without what is between":      {bare, trusting(t, root), nil},
		"root, and between from db":         {bare, trusting(t, root, intermediate), certificates(leaf, intermediate)},
		"another root":                      {all, trusting(t, issue(t, "another", nil, asCA)), nil},
		"another root with the same name":   {all, trusting(t, issueFor(t, rsaKey(t, "impostor"), "root", nil, asCA)), nil},
		"another leaf of the same CA":       {whole, trusting(t, issue(t, "leaf", intermediate)), nil},
		"root's key in another certificate": {whole, trusting(t, issue(t, "root", nil, asCA)), nil}, // below
	} {
		t.Run(name, func(t *testing.T) {
			s, err := verify(c.image, c.db)
			if name == "root's key in another certificate" { // a renewed root vouches as the old one did
				require.NoError(t, err)
				return
			}
			if c.chain == nil {
				require.ErrorIs(t, err, uki.ErrUntrusted)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.chain, s.Chain)
			require.Equal(t, c.chain[len(c.chain)-1], s.TrustedBy)
		})
	}
}

// The verdict on a chain is sbverify's, too, whose --cert vouches as db's do.
func TestWhoMayNotIssueDoesNot(t *testing.T) {
	root := issue(t, "root", nil, asCA)
	noCA := issue(t, "no CA", root)
	noConstraints := issue(t, "no constraints", root, func(c *x509.Certificate) { c.BasicConstraintsValid = false })
	mayNotIssue := issue(t, "may not issue", root, asCA, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	short := issue(t, "short", root, asCA, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below := issue(t, "below", short, asCA)
	odd := issue(t, "odd", root, asCA, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	})
	oddLeaf := issue(t, "odd leaf", root, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
	})
	impostor := issueFor(t, rsaKey(t, "impostor"), "root", nil, asCA)
	for _, c := range []struct {
		name  string
		image []byte
		db    *identity
		ok    bool
		says  string
	}{
		{"a CA", signedWith(t, issue(t, "leaf", root)), root, true, ""},
		{"a CA without CAs below it", signedWith(t, issue(t, "leaf", short), short), root, true, ""},
		{"a leaf", signedWith(t, issue(t, "leaf", noCA), noCA), root, false, "CN=no CA is not that of a CA"},
		{"a leaf in db", signedWith(t, issue(t, "leaf", noCA), noCA), noCA, false, "CN=no CA is not that of a CA"},
		{"who does not say", signedWith(t, issue(t, "leaf", noConstraints), noConstraints), root, false, "CN=no constraints is not that of a CA"},
		{"a CA without the key usage", signedWith(t, issue(t, "leaf", mayNotIssue), mayNotIssue), root, false, "CN=may not issue must not be used to issue"},
		{"a CA below one that allows none", signedWith(t, issue(t, "leaf", below), below, short), root, false, "CN=short allows only 0 CAs below it"},
		{"a CA with an unknown critical extension", signedWith(t, issue(t, "leaf", odd), odd), root, false, "the critical extension 1.2.3"},
		{"a leaf with an unknown critical extension", signedWith(t, oddLeaf), root, false, "the critical extension 1.2.3"},
		{"somebody with the name of another", signedWith(t, issue(t, "leaf", impostor), impostor), root, false, "not signed by the CN=root that was asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := verify(c.image, trusting(t, c.db))
			out, ok := sbverify(t, c.image, c.db)
			require.Equal(t, c.ok, ok, out)
			if c.ok {
				require.NoError(t, err)
				require.Equal(t, c.db.cert, s.TrustedBy)
				return
			}
			require.ErrorIs(t, err, uki.ErrUntrusted)
			require.ErrorContains(t, err, c.says)
			require.NoError(t, signatures(t, c.image)[0].Err, "the signature itself is intact")
		})
	}
}

func TestAlgorithmsOfCertificatesAreThoseOfSignatures(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ecRoot := issueFor(t, ec, "ec root", nil, asCA)
	root := issue(t, "root", nil, asCA)
	ecLeaf := issueFor(t, ec, "ec leaf", root)
	pss := issue(t, "leaf", root, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS })
	limits := issue(t, "limits", root, asCA, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} })
	for _, c := range []struct {
		image []byte
		db    *identity
		says  string
	}{
		{signedWith(t, issue(t, "leaf", ecRoot)), ecRoot, "CN=ec root has a key of type ECDSA"},
		{signedWith(t, pss), root, "is signed with SHA256-RSAPSS"},
		{signedWith(t, issue(t, "leaf", limits), limits), root, "CN=limits limits names"},
		{withSignatures(greeting(t, uki.AMD64), forge(t, greeting(t, uki.AMD64), ecLeaf)), root, "CN=ec leaf has a key of type ECDSA"},
	} {
		_, err := verify(c.image, trusting(t, c.db))
		require.ErrorIs(t, err, uki.ErrUntrusted)
		require.ErrorContains(t, err, c.says)
	}
}

// Certificates with one name and one key, all of which could have issued each other,
// make a maze; what looks for a way out of it has to give up.
func TestAMazeOfCertificatesIsLeftSoon(t *testing.T) {
	var maze []*identity
	root := issue(t, "maze", nil, asCA)
	for range 31 {
		maze = append(maze, issue(t, "maze", root, asCA))
	}
	leaf := issue(t, "leaf", maze[0])
	image := signedWith(t, leaf, maze...)
	start := time.Now()
	_, err := verify(image, trusting(t, issue(t, "other", nil, asCA)))
	require.ErrorIs(t, err, uki.ErrUntrusted)
	require.ErrorContains(t, err, "too many certificates have the same names")
	require.Less(t, time.Since(start), 5*time.Second)
	s, err := verify(image, trusting(t, maze[7]))
	require.NoError(t, err)
	require.Equal(t, maze[7].cert, s.TrustedBy)
}

func TestAChainMayBeSoLongAndNoLonger(t *testing.T) {
	root := issue(t, "root", nil, asCA)
	cas := []*identity{root}
	for i := range 7 {
		cas = append(cas, issue(t, fmt.Sprint("CA ", i), cas[len(cas)-1], asCA))
	}
	_, err := verify(signedWith(t, issue(t, "leaf", cas[6]), cas[1:7]...), trusting(t, root))
	require.NoError(t, err, "eight certificates")
	_, err = verify(signedWith(t, issue(t, "leaf", cas[7]), cas[1:8]...), trusting(t, root))
	require.ErrorIs(t, err, uki.ErrUntrusted)
}

func TestDatesCountOnRequest(t *testing.T) {
	root, intermediate, leaf := chain(t)
	old := issue(t, "old root", nil, asCA, expired)
	oldIntermediate := issue(t, "old intermediate", root, asCA, expired)
	future := issue(t, "future", root, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	refuse := uki.VerifyOptions{RefuseExpired: true}
	for _, c := range []struct {
		name  string
		image []byte
		db    *identity
		says  string // where dates count
	}{
		{"leaf", signedWith(t, issue(t, "old", root, expired)), root, "CN=old expired on "},
		{"leaf in db", signedWith(t, issue(t, "old", root, expired)), issue(t, "old", nil), "CN=old expired on "},
		{"intermediate", signedWith(t, issue(t, "leaf", oldIntermediate), oldIntermediate), root, "CN=old intermediate expired on "},
		{"certificate of db", signedWith(t, issue(t, "leaf", old)), old, "CN=old root expired on "},
		{"not yet valid", signedWith(t, future), root, "CN=future is not valid before "},
		{"valid", signedWith(t, leaf, intermediate), root, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := trusting(t, c.db)
			if c.name == "leaf in db" {
				var err error
				db, err = uki.ParseDatabase(signatures(t, c.image)[0].Certificate.Raw, nil)
				require.NoError(t, err)
			}
			_, err := verify(c.image, db)
			require.NoError(t, err, "as firmware does")
			_, err = verify(c.image, db, refuse)
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, uki.ErrUntrusted)
			require.ErrorContains(t, err, c.says)
		})
	}
	_, err := verify(signedWith(t, leaf, intermediate), trusting(t, root), uki.VerifyOptions{RefuseExpired: true, Now: time.Now().Add(48 * time.Hour)})
	require.ErrorContains(t, err, "CN=leaf expired on")
	_, err = verify(signedWith(t, leaf, oldIntermediate, renewed(t, oldIntermediate, root)), trusting(t, root), refuse)
	require.Error(t, err, "another CA's leaf")
	leaf = issue(t, "leaf", oldIntermediate)
	s, err := verify(signedWith(t, leaf, oldIntermediate, renewed(t, oldIntermediate, root)), trusting(t, root), refuse)
	require.NoError(t, err, "there is another way than the expired one")
	require.Len(t, s.Chain, 3)
}

// renewed is a certificate of the same key and name that is valid again.
func renewed(t testing.TB, id, issuer *identity) *identity {
	t.Helper()
	return issueFor(t, id.key, id.cert.Subject.CommonName, issuer, asCA)
}

// withDBX is a database with a dbx of EFI signature lists.
func withDBX(t testing.TB, dbx []byte, db ...*identity) *uki.Database {
	t.Helper()
	d, err := uki.ParseDatabase(certPEM(db...), dbx)
	require.NoError(t, err)
	return d
}

func TestDBXRefuses(t *testing.T) {
	root, intermediate, leaf := chain(t)
	other, second := issue(t, "other", nil, asCA), issue(t, "second", root)
	image := greeting(t, uki.AMD64)
	signed := signedWith(t, leaf, intermediate)
	hash, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	tbs := func(id *identity) []byte { h := sha256.Sum256(id.cert.RawTBSCertificate); return h[:] }
	tbs512 := sha512.Sum512(leaf.cert.RawTBSCertificate)
	sha512Hash := signatures(t, osslsign(t, image, leaf, "-h", "sha512"))[0].Digest
	both := withSignatures(image, forge(t, image, leaf, func(f *forgery) { f.certificates = append(f.certificates, intermediate) }), forge(t, image, second))
	revoked := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name  string
		image []byte
		dbx   []byte
		says  string // none: accepted
	}{
		{"nothing", signed, nil, ""},
		{"another", signed, certPEM(other), ""},
		{"another image", signed, list(sha256List, make([]byte, 32)), ""},
		{"another certificate's hash", signed, list(x509SHA256List, append(tbs(other), efiTime(revoked)...)), ""},
		{"the leaf", signed, certPEM(leaf), "dbx refuses the certificate CN=leaf"},
		{"the leaf in DER", signed, leaf.cert.Raw, "dbx refuses the certificate CN=leaf"},
		{"the leaf in a list", signed, list(x509List, leaf.cert.Raw), "dbx refuses the certificate CN=leaf"},
		{"the leaf's hash", signed, list(x509SHA256List, append(tbs(leaf), efiTime(revoked)...)), "dbx refuses the certificate CN=leaf"},
		{"the leaf's hash, whenever", signed, list(x509SHA256List, append(tbs(leaf), make([]byte, 16)...)), "dbx refuses the certificate CN=leaf"},
		{"the leaf's SHA-512", signed, list(x509SHA512List, append(tbs512[:], make([]byte, 16)...)), "dbx refuses the certificate CN=leaf"},
		{"the intermediate", signed, certPEM(intermediate), "dbx refuses the certificate CN=intermediate"},
		{"the intermediate, which did not come along", signedWith(t, leaf), certPEM(intermediate), "dbx refuses the certificate CN=intermediate"},
		{"the intermediate's hash", signed, list(x509SHA256List, append(tbs(intermediate), make([]byte, 16)...)), "dbx refuses the certificate CN=intermediate"},
		{"the root", signed, certPEM(root), "dbx refuses the certificate CN=root"},
		{"the root's hash", signed, list(x509SHA256List, append(tbs(root), make([]byte, 16)...)), "dbx refuses the certificate CN=root"},
		{"the image", signed, list(sha256List, hash[:]), "dbx refuses the file itself, by its hash, SHA-256"},
		{"the image's SHA-512", signed, list(sha512List, sha512Hash), "dbx refuses the file itself, by its hash, SHA-512"},
		{"one of two signatures", both, certPEM(leaf), "signature 1 by CN=leaf"},
		{"the other of two signatures", both, certPEM(second), "signature 2 by CN=second"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := verify(c.image, withDBX(t, c.dbx, root, intermediate))
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, uki.ErrUntrusted)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// A certificate that is signed in a way that nobody trusts any more is none of a
// chain, but that is no way around dbx.
func TestDBXSeesThroughOldAlgorithms(t *testing.T) {
	root := issue(t, "root", nil, asCA)
	pss := issue(t, "leaf", root, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS })
	weak := issue(t, "weak", root, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	for _, leaf := range []*identity{pss, weak} {
		image := signedWith(t, leaf)
		_, err := verify(image, trusting(t, leaf))
		require.NoError(t, err)
		_, err = verify(image, withDBX(t, certPEM(root), leaf))
		require.ErrorContains(t, err, "dbx refuses the certificate CN=root")
	}
	_, err := verify(signedWith(t, weak), trusting(t, root))
	require.ErrorContains(t, err, "is signed with SHA1-RSA")
}

func TestAHashInDBIsEnough(t *testing.T) {
	id := issue(t, "one", nil)
	tool := program(t, "hash-to-efi-sig-list", "efitools")
	for name, image := range images(t) {
		t.Run(name, func(t *testing.T) {
			esl := put(t, nil)
			mustRun(t, tool, put(t, image), esl)
			db, err := uki.ParseDatabase(read(t, esl), nil)
			require.NoError(t, err)
			s, err := verify(image, db)
			require.NoError(t, err)
			require.Nil(t, s.Certificate)
			require.Equal(t, "nobody: db holds the hash of the file", s.Signer())
			hash, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
			require.NoError(t, err)
			require.Equal(t, hash[:], s.Digest)
			_, err = verify(sign(t, image, signer(t, id)), db)
			require.NoError(t, err, "signed by somebody, it is still the same")
			altered := bytes.Clone(image)
			altered[len(altered)-1] ^= 1
			_, err = verify(altered, db)
			require.ErrorIs(t, err, uki.ErrUnsigned)
			require.ErrorContains(t, err, "db does not hold its hash, SHA-256 ")

			refusing, err := uki.ParseDatabase(read(t, esl), read(t, esl))
			require.NoError(t, err)
			_, err = verify(image, refusing)
			require.ErrorIs(t, err, uki.ErrUntrusted)
			require.ErrorContains(t, err, "dbx refuses the file itself")
		})
	}
}

// EDK2 hashes an unsigned file as it is, and does not fill it up to a multiple of 8
// bytes, as the specification and programs that make hashes do.
func TestBothHashesOfAnOddFileCount(t *testing.T) {
	image := append(greeting(t, uki.AMD64), "odd"...)
	const checksum, entry = 64 + 24 + 64, 64 + 24 + 112 + 32
	h := sha256.New()
	h.Write(image[:checksum])
	h.Write(image[checksum+4 : entry])
	h.Write(image[entry+8:])
	asIs := h.Sum(nil)
	h.Write(make([]byte, -len(image)&7))
	padded, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	require.Equal(t, h.Sum(nil), padded[:])
	for _, hash := range [][]byte{asIs, padded[:]} {
		db, err := uki.ParseDatabase(list(sha256List, hash), nil)
		require.NoError(t, err)
		_, err = verify(image, db)
		require.NoError(t, err)
		_, err = verify(sign(t, image, signer(t, issue(t, "one", nil))), withDBX(t, list(sha256List, padded[:]), issue(t, "one", nil)))
		require.ErrorContains(t, err, "dbx refuses the file itself")
		db, err = uki.ParseDatabase(list(sha256List, hash), list(sha256List, asIs))
		require.NoError(t, err)
		_, err = verify(image, db)
		require.ErrorContains(t, err, "dbx refuses the file itself")
	}
}
