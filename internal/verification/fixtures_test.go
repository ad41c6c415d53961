package verification

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/registry"
)

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func digestOf(b []byte) boot.Digest {
	sum := sha256.Sum256(b)
	return boot.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return k
}

func publicPEM(t testing.TB, k crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// asks is a policy for signatures by these keys.
func asks(s Signed, keys ...crypto.Signer) Policy {
	p := &ImagePolicy{Signed: s}
	for _, k := range keys {
		p.Sigstore.Keys = append(p.Sigstore.Keys, k.Public())
	}
	return Policy{Image: p}
}

// site is a registry with an image, and a store that may use it.
type site struct {
	*registry.Server
	store *artifact.Store
	*Verifier
	referrers bool
}

func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteWith(t, registry.Options{Referrers: true})
}

func newSiteWith(t *testing.T, o registry.Options) *site {
	t.Helper()
	reg, err := registry.Serve("127.0.0.1:0", o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	s, err := artifact.New(artifact.Options{Dir: t.TempDir(), AllowedRegistries: []string{reg.Host}, PlainHTTPRegistries: []string{reg.Host}, RetryDelay: time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return &site{Server: reg, store: s, Verifier: New(s, s), referrers: o.Referrers}
}

// publish makes a new image under the tag and resolves it.
func (s *site) publish(t *testing.T, content string) artifact.Image {
	t.Helper()
	_, err := s.Publish("os/images", "1", map[string][]byte{"amd64": []byte(content)})
	require.NoError(t, err)
	return s.resolve(t, ":1")
}

func (s *site) resolve(t *testing.T, reference string) artifact.Image {
	t.Helper()
	img, err := s.store.Resolve(deadline(t), s.Host+"/os/images"+reference, boot.AMD64, artifact.Credentials{})
	require.NoError(t, err)
	return img
}

func (s *site) image(t *testing.T, img artifact.Image, all ...Policy) (Attestation, error) {
	t.Helper()
	return s.Image(deadline(t), img, all, artifact.Credentials{})
}

func sign(t *testing.T, k *ecdsa.PrivateKey, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	require.NoError(t, err)
	return sig
}

// dotSig signs a digest as cosign 2 does.
func (s *site) dotSig(t *testing.T, of boot.Digest, keys ...*ecdsa.PrivateKey) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"}}`, of)
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: s.descriptor(ocispec.MediaTypeImageConfig, []byte("{}"))}
	for _, k := range keys {
		l := s.descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload)
		l.Annotations = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sign(t, k, payload))}
		m.Layers = append(m.Layers, l)
	}
	s.put(t, "sha256-"+of.Hex()+".sig", m)
}

const inToto = "application/vnd.in-toto+json"

func statementOf(of boot.Digest) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`, of.Hex())
}

// bundle signs a digest as cosign 3 does.
func (s *site) bundle(t *testing.T, of boot.Digest, k *ecdsa.PrivateKey) boot.Digest {
	t.Helper()
	statement := statementOf(of)
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(inToto), inToto, len(statement), statement)
	return s.attach(t, of, bundleOf(`{"publicKey":{"hint":""}}`, statement, sign(t, k, pae)))
}

func bundleOf(material string, statement, signature []byte) []byte {
	return fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":%s,"dsseEnvelope":{"payload":%q,"payloadType":%q,"signatures":[{"sig":%q}]}}`,
		material, base64.StdEncoding.EncodeToString(statement), inToto, base64.StdEncoding.EncodeToString(signature))
}

// attach puts a bundle where tools do: a manifest that refers to the image and, where
// the registry does not list those, a list of it under a tag.
func (s *site) attach(t *testing.T, of boot.Digest, bundle []byte) boot.Digest {
	t.Helper()
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		Config: s.descriptor("application/vnd.oci.empty.v1+json", []byte("{}")), Layers: []ocispec.Descriptor{s.descriptor("application/vnd.dev.sigstore.bundle.v0.3+json", bundle)},
		Subject: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(of), Size: 1},
	}
	m.SchemaVersion = 2
	s.put(t, "", m)
	if !s.referrers {
		d := ocispec.Descriptor{MediaType: m.MediaType, ArtifactType: m.ArtifactType, Digest: digest.Digest(digestOf(jsonOf(t, m))), Size: 1}
		list := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}
		s.PublishRaw("os/images", "sha256-"+of.Hex(), ocispec.MediaTypeImageIndex, jsonOf(t, list))
	}
	return digestOf(bundle)
}

// authority is a sigstore of its own, without a transparency log: timestamps prove
// when its signatures were made.
type authority struct {
	*ca.VirtualSigstore
	root []byte
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	require.NoError(t, err)
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, v.FulcioCertificateAuthorities(), nil, v.TimestampingAuthorities(), nil)
	require.NoError(t, err)
	text, err := r.MarshalJSON()
	require.NoError(t, err)
	return authority{v, text}
}

// keyless is a bundle by an identity of example.com.
func (a authority) keyless(t *testing.T, of boot.Digest, who string) []byte {
	t.Helper()
	statement := statementOf(of)
	e, err := a.Attest(who, "https://accounts.example.com", statement)
	require.NoError(t, err)
	c, err := e.VerificationContent()
	require.NoError(t, err)
	s, err := e.SignatureContent()
	require.NoError(t, err)
	stamps, err := e.Timestamps()
	require.NoError(t, err)
	material := fmt.Sprintf(`{"certificate":{"rawBytes":%q},"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":%q}]}}`,
		base64.StdEncoding.EncodeToString(c.Certificate().Raw), base64.StdEncoding.EncodeToString(stamps[0]))
	return bundleOf(material, statement, s.Signature())
}

func (s *site) descriptor(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(s.AddBlob(content)), Size: int64(len(content))}
}

func (s *site) put(t *testing.T, name string, m ocispec.Manifest) {
	t.Helper()
	m.SchemaVersion = 2
	body := jsonOf(t, m)
	if name == "" {
		name = string(digestOf(body))
	}
	req, err := http.NewRequestWithContext(deadline(t), http.MethodPut, s.URL+"/v2/os/images/manifests/"+name, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusCreated, resp.StatusCode)
}

// identity is a key with a certificate that firmware could trust.
type identity struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	var all []*rsa.PrivateKey
	for range 3 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		all = append(all, k)
	}
	return all
})

// firmwareKey issues a certificate for one of three keys.
func firmwareKey(t testing.TB, n int, name string, notAfter time.Time) identity {
	t.Helper()
	k := rsaKeys()[n]
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(n + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return identity{key: k, cert: c}
}

func (i identity) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
}

// signed is an EFI program that these have signed.
func signed(t *testing.T, by ...identity) []byte {
	t.Helper()
	image, err := demoimage.Greeting("amd64", "hello")
	require.NoError(t, err)
	for _, i := range by {
		s, err := uki.NewSigner(i.key, i.cert)
		require.NoError(t, err)
		var out bytes.Buffer
		require.NoError(t, uki.Sign(&out, bytes.NewReader(image), int64(len(image)), s))
		image = out.Bytes()
	}
	return image
}

func database(t testing.TB, db, dbx []byte) *uki.Database {
	t.Helper()
	d, err := uki.ParseDatabase(db, dbx)
	require.NoError(t, err)
	return d
}

// keep publishes a file as an image's UKI and pulls it.
func (s *site) keep(t *testing.T, content []byte) boot.Digest {
	t.Helper()
	img := s.publish(t, string(content))
	a, err := img.Artifact(boot.RoleUKI)
	require.NoError(t, err)
	require.NoError(t, s.store.Pull(deadline(t), a, artifact.Credentials{}))
	return a.Digest
}

// arriving is a blob that is not here yet.
type arriving struct{ boot.Blob }

func (arriving) Open(context.Context, boot.Digest) (boot.Blob, error) { return arriving{}, nil }
func (arriving) File() *os.File                                       { return nil }
func (arriving) Close() error                                         { return nil }

func jsonOf(t *testing.T, doc any) []byte {
	t.Helper()
	b, err := json.Marshal(doc)
	require.NoError(t, err)
	return b
}

// dotSigOf is a .sig tag with this layer, of whatever image it was.
func dotSigOf(s *site, a artifact.Attachment) ocispec.Manifest {
	l := s.descriptor(a.MediaType, a.Content)
	l.Annotations = a.Annotations
	return ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: s.descriptor(ocispec.MediaTypeImageConfig, []byte("{}")), Layers: []ocispec.Descriptor{l}}
}
