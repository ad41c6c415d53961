package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/publish"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/registry"
)

// cosign signs a digest as cosign does with a key, under a tag.
func cosign(t *testing.T, s *registry.Server, repository, digest string, key crypto.Signer) {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, digest)
	sum := sha256.Sum256(payload)
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	require.NoError(t, err)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": s.AddBlob([]byte("{}")), "size": 2},
		"layers": []map[string]any{{
			"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": s.AddBlob(payload), "size": len(payload),
			"annotations": map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
		}},
	})
	require.NoError(t, err)
	s.PublishRaw(repository, strings.Replace(digest, ":", "-", 1)+".sig", "application/vnd.oci.image.manifest.v1+json", manifest)
}

// publicKey makes a key for cosign, and writes its public half.
func (d desk) publicKey(name string) crypto.Signer {
	d.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(d, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(d, err)
	d.write(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return key
}

func TestAnImageIsVerifiedAsTheOperatorDoes(t *testing.T) {
	s := serveRegistry(t, registry.Options{})
	d := newDesk(t)
	d.keys()
	key := d.publicKey("cosign.pub")
	d.publicKey("stranger.pub")
	for _, arch := range []string{uki.AMD64, uki.ARM64} {
		d.uki("plain", arch)
		d.run("uki", "sign", "./plain", "--key", "./db.key", "--cert", "./db.crt", "--output", "./"+arch+".efi")
	}
	out, _ := d.run("image", "push", s.Host+"/os/debian:13", "--plain-http", "--uki", "./amd64.efi", "--arch", "arm64", "--uki", "./arm64.efi", "-o", "json")
	var pushed publish.Pushed
	decode(t, out, &pushed)
	verify := func(args ...string) (int, string, string) {
		return d.try(append([]string{"image", "verify", s.Host + "/os/debian:13", "--plain-http", "-q"}, args...)...)
	}
	code, _, errs := verify("--key", "./cosign.pub", "--db", "./db.crt")
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "verification failed")
	require.Contains(t, errs, "not signed")

	cosign(t, s, "os/debian", string(pushed.Digest), key)
	code, out, errs = verify("--key", "./cosign.pub", "--db", "./db.crt", "-o", "json")
	require.Zero(t, code, errs)
	var report imageVerifyReport
	decode(t, out, &report)
	require.Len(t, report.Checks, 4)
	require.Equal(t, pushed.Digest, report.Digest)
	require.Equal(t, pushed.Digest, report.Checks[0].Subject)
	require.Equal(t, "Index", report.Checks[0].Signed)
	require.Equal(t, "CosignSignature", report.Checks[0].Format)
	require.Equal(t, "CN=Example signing key", report.Checks[3].Signer)
	require.Equal(t, pushed.Manifests[1].Layers[0].Digest, report.Checks[3].Subject)

	code, out, errs = verify("--db", "./db.crt", "--arch", "arm64", "--uki-digest", string(pushed.Manifests[1].Layers[0].Digest))
	require.Zero(t, code, errs)
	require.Regexp(t, `(?m)^arm64 +UKI +sha256:[0-9a-f]{64} +CN=Example signing key$`, out)

	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"another key":     {[]string{"--key", "./stranger.pub"}, "verification failed"},
		"the manifest":    {[]string{"--key", "./cosign.pub", "--signed", "manifest"}, "verification failed"},
		"another db":      {[]string{"--db", "./other.crt"}, "not trusted: signature 1 by CN=Example signing key"},
		"refused":         {[]string{"--db", "./db.crt", "--dbx", "./db.crt"}, "verification failed"},
		"another UKI":     {[]string{"--uki-digest", "sha256:" + strings.Repeat("0", 64)}, "what it has to be"},
		"no architecture": {[]string{"--key", "./cosign.pub", "--arch", "riscv64"}, "must be amd64 or arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			other, err := rsa.GenerateKey(rand.Reader, 2048)
			require.NoError(t, err)
			d.certificate("other.crt", "Another", other, nil, nil)
			code, out, errs := verify(c.args...)
			require.NotZero(t, code)
			require.Empty(t, out)
			require.Contains(t, errs, c.says)
		})
	}
}

// Where there is no UKI it is the kernel that firmware starts.
func TestTheKernelIsVerifiedWhereThereIsNoUKI(t *testing.T) {
	s := serveRegistry(t, registry.Options{})
	d := newDesk(t)
	d.keys()
	d.run("uki", "sign", "./linux-amd64", "--key", "./db.key", "--cert", "./db.crt", "--output", "./vmlinuz")
	d.run("image", "push", s.Host+"/os/kernel:1", "--plain-http", "--kernel", "./vmlinuz", "--initrd", "./first.cpio")
	out, _ := d.run("image", "verify", s.Host+"/os/kernel:1", "--plain-http", "--db", "./db.crt", "-q")
	require.Regexp(t, `(?m)^amd64 +Kernel `, out)
}

func TestAVerificationThatIsCalledWronglySaysWhatIsMissing(t *testing.T) {
	d := newDesk(t)
	d.publicKey("cosign.pub")
	d.keys()
	const ref = "registry.example/os/debian:13"
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":                {nil, exitUsage, "nothing to check is named: use --key, --identity with --issuer, --db or --uki-digest"},
		"no issuer":              {[]string{"--identity", "a@example.com", "--trusted-root", "./root"}, exitUsage, "--issuer is missing"},
		"no trusted root":        {[]string{"--identity-regexp", ".*", "--issuer", "https://example.com"}, exitUsage, "--trusted-root is missing: signatures are checked offline"},
		"no identity":            {[]string{"--issuer", "https://example.com", "--key", "./cosign.pub"}, exitUsage, "--identity or --identity-regexp, which is missing"},
		"what is signed":         {[]string{"--key", "./cosign.pub", "--signed", "layer"}, exitUsage, "it must be any, index or manifest"},
		"dbx alone":              {[]string{"--key", "./cosign.pub", "--dbx", "./db.crt"}, exitUsage, "belong to --db, which is missing"},
		"no digest":              {[]string{"--uki-digest", "abc"}, exitUsage, "--uki-digest"},
		"a private key":          {[]string{"--key", "./db.key"}, exitFailure, "reading --key"},
		"no such key":            {[]string{"--key", "/nowhere"}, exitFailure, "reading --key: open /nowhere"},
		"no trusted root at all": {[]string{"--identity", "a@example.com", "--issuer", "https://example.com", "--trusted-root", "./root"}, exitFailure, "trusted root"},
		"no regular expression":  {[]string{"--identity-regexp", "(", "--issuer", "https://example.com", "--trusted-root", "./root"}, exitFailure, "("},
		"a key as certificate":   {[]string{"--db", "./cosign.pub"}, exitFailure, "cosign.pub"},
	} {
		t.Run(name, func(t *testing.T) {
			d.write("root", []byte("{}"))
			code, _, errs := d.try(append([]string{"image", "verify", ref}, c.args...)...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.says)
		})
	}
}
