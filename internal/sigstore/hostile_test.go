package sigstore

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	common "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// slowKey is a public key that nobody has the private one of, and whose signatures
// take long to check: 4 s at 256 Kibit, and with the square of its size.
func slowKey(t *testing.T, bits int) *rsa.PublicKey {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
	require.NoError(t, err)
	n.SetBit(n, 0, 1)
	n.SetBit(n, bits-1, 1)
	return &rsa.PublicKey{N: n, E: 1<<31 - 1}
}

// slowCertificate has a slow key, and is signed by an honest one.
func slowCertificate(t *testing.T, bits int) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "slow"}, EmailAddresses: []string{builder},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, slowKey(t, bits), ecdsaKey())
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return c
}

func certificatePEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// slowBody is a log entry whose key is slow; reading it checks its signature.
func slowBody(t *testing.T, bits int) []byte {
	t.Helper()
	k := slowKey(t, bits)
	der, err := x509.MarshalPKIXPublicKey(k)
	require.NoError(t, err)
	body, err := json.Marshal(map[string]any{
		"apiVersion": "0.0.1", "kind": "hashedrekord",
		"spec": map[string]any{
			"data": map[string]any{"hash": map[string]string{"algorithm": "sha256", "value": digestOf(image).Hex()}},
			"signature": map[string]any{
				"content":   make([]byte, bits/8),
				"publicKey": map[string]any{"content": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})},
			},
		},
	})
	require.NoError(t, err)
	return body
}

func TestSignaturesThatAreMadeToBeSlowAreRefusedInTime(t *testing.T) {
	a := newAuthority(t)
	p := a.policy(t)
	payload := simple(digestOf(image))
	good := a.signs(t, builder, payload)
	inChain := good.dotSig(t, payload)
	inChain.Annotations[annotationChain] = certificatePEM(slowCertificate(t, 128<<10))
	leaf := good
	leaf.certificate = slowCertificate(t, 1<<20)
	smallLeaf := good
	smallLeaf.certificate = slowCertificate(t, 128<<10)
	logged := func(bits, entries int) Attachment {
		b := good.bundle()
		e := proto.CloneOf(good.entry)
		e.CanonicalizedBody = slowBody(t, bits)
		b.VerificationMaterial.TlogEntries = nil
		for range entries {
			b.VerificationMaterial.TlogEntries = append(b.VerificationMaterial.TlogEntries, e)
		}
		return pack(t, b)
	}
	stamped := good.bundle()
	for range 5 {
		stamped.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps = append(stamped.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps, &common.RFC3161SignedTimestamp{})
	}
	largeStamp := good.bundle()
	largeStamp.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps[0].SignedTimestamp = make([]byte, maxTimestamp+1)
	proof := proto.CloneOf(good.bundle())
	proof.VerificationMaterial.TlogEntries[0].InclusionProof.Hashes = make([][]byte, maxProof+1)

	for name, c := range map[string]struct {
		a   Attachment
		why string
	}{
		"a certificate":                 {pack(t, leaf.bundle()), "RSA key of 1048576 bits"},
		"a certificate of a .sig tag":   {smallLeaf.dotSig(t, payload), "RSA key of 131072 bits"},
		"a chain":                       {inChain, "RSA key of 131072 bits"},
		"a log entry":                   {logged(1<<20, 1), "16384 are the most"},
		"as many as can be":             {logged(32<<10, maxEntries), "not valid"},
		"more log entries than can be":  {logged(2048, maxEntries+1), "4 are the most"},
		"more timestamps than can be":   {pack(t, stamped), "4 are the most"},
		"a large timestamp":             {pack(t, largeStamp), "16384 are the most"},
		"a proof of more than can be":   {pack(t, proof), "inclusion proof"},
		"a MiB of opening brackets":     {attach(v03, []byte(strings.Repeat("[", maxContent)), nil), "cannot be read"},
		"a MiB of braces in a field":    {attach(v03, []byte(`{"mediaType":`+strings.Repeat(`{"a":`, 200_000)), nil), "cannot be read"},
		"a payload of opening brackets": {dotSig([]byte(strings.Repeat("[", maxPayload)), []byte("x"), nil), "not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			started := time.Now()
			refused(t, p, c.why, c.a)
			require.Less(t, time.Since(started), 3*time.Second)
		})
	}
}

func TestManySlowSignaturesAreGivenUp(t *testing.T) {
	before := patience
	patience = 0
	t.Cleanup(func() { patience = before })
	payload := simple(digestOf(image))
	good := dotSig(payload, sign(t, ecdsaKey(), crypto.SHA256, payload), nil)
	refused(t, keyPolicy(t, ecdsaKey()), "gave up after 0s, with 2 of 3 left: sha256:", attach(v03, []byte("junk"), nil), good, good)
	accepted(t, keyPolicy(t, ecdsaKey()), good)
}

func TestAPanicOfALibraryIsASignatureThatCannotBeRead(t *testing.T) {
	a := newAuthority(t)
	c, err := a.policy(t).compile()
	require.NoError(t, err)
	c.root = nil // which no policy leads to
	_, err = c.try(digestOf(image), pack(t, a.attests(t, builder, statementOf(signed, digestOf(image))).bundle()))
	require.ErrorContains(t, err, "cannot be read: runtime error")
}

// Log entries of other shapes than a log writes must not end the operator.
func TestLogEntriesOfOddShapes(t *testing.T) {
	a := newAuthority(t)
	statement := statementOf(signed, digestOf(image))
	for name, body := range map[string]string{
		"no signature":         `{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":{"payloadType":"x","signatures":[null]},"hash":{"algorithm":"sha256","value":"` + digestOf(image).Hex() + `"}}}}`,
		"no signatures":        `{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":{"payloadType":"x","signatures":[]}}}}`,
		"no envelope":          `{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{}}}`,
		"nothing":              `{"apiVersion":"0.0.2","kind":"intoto","spec":{}}`,
		"an empty DSSE":        `{"apiVersion":"0.0.1","kind":"dsse","spec":{}}`,
		"DSSE without key":     `{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":{"algorithm":"sha256","value":"` + digestOf(image).Hex() + `"},"payloadHash":{"algorithm":"sha256","value":"` + digestOf(image).Hex() + `"},"signatures":[null]}}`,
		"another kind":         `{"apiVersion":"0.0.1","kind":"rpm","spec":{}}`,
		"version 2, empty":     `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{}}}`,
		"version 2, no key":    `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"digest":"AA=="},"signature":{"content":"AA==","verifier":{}}}}}`,
		"null":                 `null`,
		"a list":               `[]`,
		"a number":             `1e999`,
		"an unknown algorithm": `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"md5","value":"00"}},"signature":{"content":"AA==","publicKey":{"content":"AA=="}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range []Policy{a.policy(t), keyPolicy(t, ecdsaKey())} {
				k := a.attests(t, builder, statement)
				e := a.entry(t, []byte(`{}`), soon())
				e.CanonicalizedBody = []byte(body)
				var kind struct{ Kind, APIVersion string }
				_ = json.Unmarshal([]byte(body), &kind)
				e.KindVersion = &rekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion}
				k.entry = e
				refused(t, p, "", pack(t, k.bundle()), dotSig(simple(digestOf(image)), []byte("x"), map[string]string{annotationLog: logAnnotation(t, e)}))

				b := keyBundle(t, ecdsaKey(), crypto.SHA256, statement)
				b.VerificationMaterial.TlogEntries = []*rekor.TransparencyLogEntry{e}
				refused(t, p, "", pack(t, b))
			}
		})
	}
}

// A trusted root can come from a tenant.
func TestTrustedRootsThatCannotBeUsed(t *testing.T) {
	a := newAuthority(t)
	parsed, err := root.NewTrustedRootProtobuf(a.root(t, parts{}))
	require.NoError(t, err)
	parsed.CertificateAuthorities[0].CertChain.Certificates = []*common.X509Certificate{{RawBytes: slowCertificate(t, 64<<10).Raw}}
	slow, err := protojson.Marshal(parsed)
	require.NoError(t, err)
	for len(parsed.TimestampAuthorities) <= maxAuthorities {
		parsed.TimestampAuthorities = append(parsed.TimestampAuthorities, parsed.TimestampAuthorities[0])
	}
	many, err := protojson.Marshal(parsed)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		root []byte
		why  string
	}{
		"none":          {nil, "need a trusted root"},
		"junk":          {[]byte("junk"), "cannot be read"},
		"no media type": {[]byte("{}"), "media type"},
		"huge":          {make([]byte, maxTrustedRoot+1), "1048576 are the most"},
		"many":          {many, "16 are the most"},
		"slow":          {slow, "RSA key of 65536 bits"},
		"no authority":  {a.root(t, parts{noCAs: true}), "no certificate authority"},
		"no time":       {a.root(t, parts{noLogs: true, noTSAs: true}), "neither a transparency log nor a timestamp authority"},
	} {
		p := a.policy(t)
		p.TrustedRoot = c.root
		require.ErrorIs(t, p.Check(), ErrPolicy, name)
		require.ErrorContains(t, p.Check(), c.why, name)
		_, err := Verify(digestOf(image), []Attachment{pack(t, a.attests(t, builder, statementOf(signed, digestOf(image))).bundle())}, p)
		require.ErrorIs(t, err, ErrPolicy, name)
	}
}
