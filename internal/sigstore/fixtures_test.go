package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	common "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	rekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	builder = "builder@example.com"
	issuer  = "https://accounts.example.com"
	v03     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	v01     = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	signed  = "https://sigstore.dev/cosign/sign/v1"
)

// image is the manifest that is signed, other is another one.
var (
	image = []byte(`{"schemaVersion":2,"layers":[]}`)
	other = []byte(`{"schemaVersion":2,"layers":[{}]}`)
)

func digestOf(b []byte) boot.Digest {
	sum := sha256.Sum256(b)
	return boot.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// kinds are the keys that people sign with.
var kinds = sync.OnceValue(func() map[string]crypto.Signer {
	must := func(k crypto.Signer, err error) crypto.Signer {
		if err != nil {
			panic(err)
		}
		return k
	}
	curve := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		return must(k, err)
	}
	rsaKey := func(bits int) crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		return must(k, err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{
		"ECDSA P-256": curve(elliptic.P256()), "ECDSA P-384": curve(elliptic.P384()), "ECDSA P-521": curve(elliptic.P521()),
		"RSA 2048": rsaKey(2048), "RSA 3072": rsaKey(3072), "Ed25519": must(ed, err),
	}
})

func ecdsaKey() crypto.Signer { return kinds()["ECDSA P-256"] }

// sign signs a message as cosign does with keys of this kind, and hash where the
// kind needs one.
func sign(t testing.TB, k crypto.Signer, hash crypto.Hash, message []byte) []byte {
	t.Helper()
	if _, ok := k.(ed25519.PrivateKey); ok {
		s, err := k.Sign(rand.Reader, message, crypto.Hash(0))
		require.NoError(t, err)
		return s
	}
	h := hash.New()
	h.Write(message)
	s, err := k.Sign(rand.Reader, h.Sum(nil), hash)
	require.NoError(t, err)
	return s
}

func publicPEM(t testing.TB, keys ...crypto.Signer) []byte {
	t.Helper()
	var all []byte
	for _, k := range keys {
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		require.NoError(t, err)
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	return all
}

func keyPolicy(t testing.TB, keys ...crypto.Signer) Policy {
	t.Helper()
	all, err := ParseKeys(publicPEM(t, keys...))
	require.NoError(t, err)
	return Policy{Keys: all}
}

// simple is the payload of a .sig tag.
func simple(of boot.Digest) []byte {
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"registry.example.com/os"},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":null}`, of)
}

func attach(mediaType string, content []byte, annotations map[string]string) Attachment {
	return Attachment{MediaType: mediaType, Digest: digestOf(content), Annotations: annotations, Content: content}
}

// dotSig is a layer of a .sig tag.
func dotSig(content, signature []byte, more map[string]string) Attachment {
	a := map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(signature)}
	maps.Copy(a, more)
	return attach(typeSimpleSigning, content, a)
}

// statementOf is an in-toto statement about these digests.
func statementOf(predicate string, digests ...boot.Digest) []byte {
	var subjects []map[string]any
	for _, d := range digests {
		subjects = append(subjects, map[string]any{"digest": map[string]string{"sha256": d.Hex()}})
	}
	b, err := json.Marshal(map[string]any{"_type": "https://in-toto.io/Statement/v1", "subject": subjects, "predicateType": predicate, "predicate": map[string]any{}})
	if err != nil {
		panic(err)
	}
	return b
}

const inToto = "application/vnd.in-toto+json"

// pae is what a DSSE envelope's signature is of (DSSE 1.0.2, protocol).
func pae(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inToto), inToto, len(payload), payload)
}

func envelope(payload, signature []byte) *protobundle.Bundle_DsseEnvelope {
	return &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload: payload, PayloadType: inToto, Signatures: []*protodsse.Signature{{Sig: signature}},
	}}
}

func message(digest, signature []byte) *protobundle.Bundle_MessageSignature {
	return &protobundle.Bundle_MessageSignature{MessageSignature: &common.MessageSignature{
		MessageDigest: &common.HashOutput{Algorithm: common.HashAlgorithm_SHA2_256, Digest: digest}, Signature: signature,
	}}
}

// byKey is what a bundle says of a key, as cosign writes it.
func byKey(t testing.TB, k crypto.Signer) *protobundle.VerificationMaterial {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	require.NoError(t, err)
	sum := sha256.Sum256(der)
	return &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{
		PublicKey: &common.PublicKeyIdentifier{Hint: base64.StdEncoding.EncodeToString(sum[:])},
	}}
}

func pack(t testing.TB, b *protobundle.Bundle) Attachment {
	t.Helper()
	if b.MediaType == "" {
		b.MediaType = v03
	}
	text, err := protojson.Marshal(b)
	require.NoError(t, err)
	return attach(v03, text, nil)
}

// keyBundle is a statement that is signed with a key, as cosign 3 does.
func keyBundle(t testing.TB, k crypto.Signer, hash crypto.Hash, payload []byte) *protobundle.Bundle {
	t.Helper()
	return &protobundle.Bundle{VerificationMaterial: byKey(t, k), Content: envelope(payload, sign(t, k, hash, pae(payload)))}
}

// authority is a sigstore of its own: a certificate authority, a transparency log
// and a timestamp authority.
type authority struct {
	*ca.VirtualSigstore
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	require.NoError(t, err)
	return authority{v}
}

// logs with their IDs as a trusted root has them, not as the fixture does.
func raw(t testing.TB, logs map[string]*root.TransparencyLog) map[string]*root.TransparencyLog {
	t.Helper()
	all := map[string]*root.TransparencyLog{}
	for id, l := range logs {
		var err error
		l.ID, err = hex.DecodeString(id)
		require.NoError(t, err)
		all[id] = l
	}
	return all
}

// parts says what a trusted root has.
type parts struct{ noCAs, noLogs, noTSAs, ctLogs bool }

func (a authority) root(t testing.TB, p parts) []byte {
	t.Helper()
	cas, tsas := a.FulcioCertificateAuthorities(), a.TimestampingAuthorities()
	logs, ctLogs := raw(t, a.RekorLogs()), raw(t, a.CTLogs())
	if p.noCAs {
		cas = nil
	}
	if p.noLogs {
		logs = nil
	}
	if p.noTSAs {
		tsas = nil
	}
	if !p.ctLogs {
		ctLogs = nil
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, cas, ctLogs, tsas, logs)
	require.NoError(t, err)
	text, err := r.MarshalJSON()
	require.NoError(t, err)
	return text
}

// policy asks for the builder.
func (a authority) policy(t testing.TB) Policy {
	t.Helper()
	return Policy{Identities: []Identity{{Issuer: issuer, Subject: builder}}, TrustedRoot: a.root(t, parts{})}
}

// keyless is a signature by an identity, in parts.
type keyless struct {
	certificate *x509.Certificate
	signature   []byte
	digest      []byte
	envelope    []byte
	stamps      [][]byte
	entry       *rekor.TransparencyLogEntry
}

// taken takes apart what the fixture made.
func (a authority) taken(t testing.TB, e *ca.TestEntity, at time.Time) keyless {
	t.Helper()
	c, err := e.VerificationContent()
	require.NoError(t, err)
	s, err := e.SignatureContent()
	require.NoError(t, err)
	stamps, err := e.Timestamps()
	require.NoError(t, err)
	entries, err := e.TlogEntries()
	require.NoError(t, err)
	k := keyless{certificate: c.Certificate(), signature: s.Signature(), stamps: stamps}
	if m := s.MessageSignatureContent(); m != nil {
		k.digest = m.Digest()
	} else {
		k.envelope, err = base64.StdEncoding.DecodeString(s.EnvelopeContent().RawEnvelope().Payload)
		require.NoError(t, err)
	}
	k.entry = a.entry(t, entries[0].TransparencyLogEntry().CanonicalizedBody, at)
	return k
}

// entry is what the log answers to a body: a promise and a proof.
func (a authority) entry(t testing.TB, body []byte, at time.Time) *rekor.TransparencyLogEntry {
	t.Helper()
	id, err := a.RekorLogID()
	require.NoError(t, err)
	rawID, err := hex.DecodeString(id)
	require.NoError(t, err)
	set, err := a.RekorSignPayload(tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: at.Unix(), LogID: id})
	require.NoError(t, err)
	p, err := a.GetInclusionProof(body)
	require.NoError(t, err)
	rootHash, err := hex.DecodeString(*p.RootHash)
	require.NoError(t, err)
	var kind struct{ Kind, APIVersion string }
	require.NoError(t, json.Unmarshal(body, &kind))
	return &rekor.TransparencyLogEntry{
		LogId: &common.LogId{KeyId: rawID}, IntegratedTime: at.Unix(), CanonicalizedBody: body,
		KindVersion:      &rekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		InclusionPromise: &rekor.InclusionPromise{SignedEntryTimestamp: set},
		InclusionProof:   &rekor.InclusionProof{TreeSize: *p.TreeSize, RootHash: rootHash, Checkpoint: &rekor.Checkpoint{Envelope: *p.Checkpoint}},
	}
}

// soon is when the fixture's certificates are valid.
func soon() time.Time { return time.Now().Add(5 * time.Minute) }

func (a authority) signs(t testing.TB, who string, content []byte) keyless {
	t.Helper()
	e, err := a.SignAtTime(who, issuer, content, soon())
	require.NoError(t, err)
	return a.taken(t, e, soon())
}

func (a authority) attests(t testing.TB, who string, payload []byte) keyless {
	t.Helper()
	e, err := a.AttestAtTime(who, issuer, payload, soon(), false)
	require.NoError(t, err)
	return a.taken(t, e, soon())
}

func (k keyless) material() *protobundle.VerificationMaterial {
	m := &protobundle.VerificationMaterial{
		Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: &common.X509Certificate{RawBytes: k.certificate.Raw}},
		TimestampVerificationData: &protobundle.TimestampVerificationData{},
	}
	if k.entry != nil {
		m.TlogEntries = []*rekor.TransparencyLogEntry{k.entry}
	}
	for _, s := range k.stamps {
		m.TimestampVerificationData.Rfc3161Timestamps = append(m.TimestampVerificationData.Rfc3161Timestamps, &common.RFC3161SignedTimestamp{SignedTimestamp: s})
	}
	return m
}

func (k keyless) bundle() *protobundle.Bundle {
	b := &protobundle.Bundle{VerificationMaterial: k.material()}
	if k.envelope != nil {
		b.Content = envelope(k.envelope, k.signature)
	} else {
		b.Content = message(k.digest, k.signature)
	}
	return b
}

// dotSig is the signature as cosign 2 attaches it. The payload is what k signs.
func (k keyless) dotSig(t testing.TB, content []byte) Attachment {
	t.Helper()
	a := map[string]string{annotationCertificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.certificate.Raw}))}
	if k.entry != nil {
		a[annotationLog] = logAnnotation(t, k.entry)
	}
	return dotSig(content, k.signature, a)
}

func logAnnotation(t testing.TB, e *rekor.TransparencyLogEntry) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"SignedEntryTimestamp": e.InclusionPromise.SignedEntryTimestamp,
		"Payload": map[string]any{
			"body": e.CanonicalizedBody, "integratedTime": e.IntegratedTime, "logIndex": e.LogIndex, "logID": hex.EncodeToString(e.LogId.KeyId),
		},
	})
	require.NoError(t, err)
	return string(text)
}

// logged is the body of a hashedrekord entry for a signature by a key.
func loggedBody(t testing.TB, k crypto.Signer, content, signature []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(content)
	body, err := json.Marshal(map[string]any{
		"apiVersion": "0.0.1", "kind": "hashedrekord",
		"spec": map[string]any{
			"data":      map[string]any{"hash": map[string]string{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}},
			"signature": map[string]any{"content": signature, "publicKey": map[string]any{"content": bytes.TrimSpace(publicPEM(t, k))}},
		},
	})
	require.NoError(t, err)
	return body
}

// refused says that none of the signatures counts, and why.
func refused(t testing.TB, p Policy, why string, all ...Attachment) {
	t.Helper()
	_, err := Verify(digestOf(image), all, p)
	require.ErrorIs(t, err, ErrUntrusted)
	require.ErrorContains(t, err, why)
}

// accepted says that a signature counts.
func accepted(t testing.TB, p Policy, all ...Attachment) Attestation {
	t.Helper()
	got, err := Verify(digestOf(image), all, p)
	require.NoError(t, err)
	return got
}

func hexOf(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func digestOfSum(sum []byte) boot.Digest { return boot.Digest("sha256:" + hex.EncodeToString(sum)) }

func intermediateOf(c root.CertificateAuthority) *x509.Certificate {
	return c.(*root.FulcioCertificateAuthority).Intermediates[0]
}

// rootWithout drops the intermediate certificates of a trusted root's authorities.
func rootWithout(text []byte) ([]byte, error) {
	p, err := root.NewTrustedRootProtobuf(text)
	if err != nil {
		return nil, err
	}
	for _, a := range p.CertificateAuthorities {
		a.CertChain.Certificates = a.CertChain.Certificates[len(a.CertChain.Certificates)-1:]
	}
	return protojson.Marshal(p)
}

func validText(all ...string) bool {
	for _, s := range all {
		if !utf8.ValidString(s) {
			return false
		}
	}
	return true
}
