package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/controller/bootconfig"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/internal/verification"
)

// signer makes a key with a certificate of its own, and returns the certificate too.
func newSigner(t *testing.T, name string) (*uki.Signer, []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	s, err := uki.NewSigner(key, c)
	require.NoError(t, err)
	return s, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestWhoSignsComposedUKIsHasToBeInDB(t *testing.T) {
	ours, db := newSigner(t, "ours")
	theirs, theirDB := newSigner(t, "theirs")
	v := verifier{checks: verification.New(nil, nil)}
	demand := func(db string) bootconfig.Demands {
		return bootconfig.Demands{File: &bootconfig.FileDemand{Signed: true, DB: []byte(db)}}
	}
	check := func(v verifier, s *uki.Signer, d bootconfig.Demands) error {
		return v.Signer(s, "registry.example.com/os/parts:1", d)
	}
	require.NoError(t, check(v, ours, demand(string(db))))
	require.NoError(t, check(v, nil, bootconfig.Demands{}), "nobody asks")
	require.ErrorIs(t, check(v, theirs, demand(string(db))), bootconfig.ErrUnverified)
	require.ErrorContains(t, check(v, theirs, demand(string(db))), "theirs")
	require.ErrorIs(t, check(v, nil, demand(string(db))), bootconfig.ErrUnverified)
	require.ErrorContains(t, check(v, nil, demand(string(db))), "spec.compose.signingSecretRef")
	require.ErrorIs(t, check(v, ours, demand("")), bootconfig.ErrDemand, "there is no db at all")
	require.ErrorContains(t, check(v, ours, demand("")), "--secure-boot-db-file")
	require.ErrorIs(t, check(v, ours, demand("junk")), bootconfig.ErrDemand)

	operators, err := uki.ParseDatabase(theirDB, nil)
	require.NoError(t, err)
	v.db = operators
	require.NoError(t, check(v, theirs, demand("")), "the operator's own db")
	digest := demand(string(db))
	digest.File.Digest = boot.Digest("sha256:" + string(make([]byte, 64)))
	require.ErrorIs(t, check(v, ours, digest), bootconfig.ErrUnverified, "no digest is known before")
	refused, err := uki.ParseDatabase(theirDB, theirDB)
	require.NoError(t, err)
	v.db = refused
	require.ErrorIs(t, check(v, theirs, demand("")), bootconfig.ErrUnverified, "dbx goes before db")
}

// noSignatures is a registry that has an image and no signature of it.
type noSignatures struct{ verification.Store }

func TestKeysOfImagesThatCannotBeReadAreTheConfigsFault(t *testing.T) {
	v := verifier{checks: verification.New(noSignatures{}, nil)}
	digest := boot.Digest("sha256:" + strings.Repeat("1", 64))
	image := artifact.Image{Source: "registry.example.com/os/lab@" + string(digest), Name: "registry.example.com/os/lab", Manifest: digest}
	ask := func(d bootconfig.ImageDemand) error {
		_, err := v.Image(t.Context(), image, bootconfig.Demands{Image: &d}, artifact.Credentials{})
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for name, d := range map[string]bootconfig.ImageDemand{
		"junk":          {Keys: [][]byte{[]byte("junk")}},
		"a private key": {Keys: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}},
		"no root":       {Identities: []v1alpha1.SigningIdentity{{Issuer: "https://issuer.example.com", Subject: "me@example.com"}}},
		"a broken root": {Identities: []v1alpha1.SigningIdentity{{Issuer: "https://issuer.example.com", Subject: "me@example.com"}}, TrustedRoot: []byte("{}")},
	} {
		require.ErrorIs(t, ask(d), bootconfig.ErrDemand, name)
	}
	require.ErrorContains(t, ask(bootconfig.ImageDemand{Keys: [][]byte{[]byte("junk")}}), "spec.verification.image.keysSecretRef")
	none, err := v.Image(t.Context(), image, bootconfig.Demands{}, artifact.Credentials{})
	require.NoError(t, err)
	require.Nil(t, none, "nobody asks")
}

func TestErrorsOfVerificationKeepWhatTheyAre(t *testing.T) {
	passing := errors.New("connection refused")
	require.NoError(t, verdict(nil))
	require.Equal(t, passing, verdict(passing))
	failed := verdict(fmt.Errorf("%w: signed by somebody", verification.ErrFailed))
	require.ErrorIs(t, failed, bootconfig.ErrUnverified)
	require.Equal(t, "verification failed: signed by somebody", failed.Error(), "nothing is said twice")
	require.ErrorIs(t, verdict(fmt.Errorf("a key: %w", verification.ErrPolicy)), bootconfig.ErrDemand)
	require.NotErrorIs(t, verdict(context.Canceled), bootconfig.ErrUnverified)
}

func TestSignatureSettingsSayWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	_, db := newSigner(t, "ours")
	good := file("db.pem", string(db))
	policy := file("policy.yaml", "rules:\n- images: [registry.example.com/os]\n  uki: {}\n")
	for name, c := range map[string]struct {
		options signatureOptions
		says    string
	}{
		"no such file":        {signatureOptions{secureBootDBFile: filepath.Join(dir, "none")}, "--secure-boot-db-file: open"},
		"no certificate":      {signatureOptions{secureBootDBFile: file("junk", "junk")}, "--secure-boot-db-file"},
		"dbx alone":           {signatureOptions{secureBootDBXFile: good}, "give --secure-boot-db-file too"},
		"no policy":           {signatureOptions{policyFile: file("bad.yaml", "rules:\n- imges: []\n")}, "--verification-policy-file"},
		"policy without a db": {signatureOptions{policyFile: policy}, "--verification-policy-file"},
		"no CA":               {signatureOptions{bootCAFile: file("ca", "junk")}, "--boot-ca-file"},
	} {
		checks := &checker{}
		c.options.settings(checks, hostSettings{})
		require.ErrorContains(t, errors.Join(checks.errs...), c.says, name)
	}
	checks := &checker{}
	o := signatureOptions{secureBootDBFile: good, policyFile: policy}
	s := o.settings(checks, hostSettings{bootCA: []byte("of BMCs")})
	require.NoError(t, errors.Join(checks.errs...))
	require.NotNil(t, s.db)
	require.Len(t, s.rules.For("registry.example.com/os/lab:1"), 1)
	require.Empty(t, s.rules.For("registry.example.com/osx/lab:1"))
	require.Equal(t, "of BMCs", string(s.bootCA), "one file is enough for both")
}

func TestIPXEWithoutASignatureIsToldByName(t *testing.T) {
	dir := t.TempDir()
	s := settings{options: options{netbootInterfaces: []string{"eth0"}, ipxeDir: dir}}
	require.ErrorContains(t, s.signedIPXE(boot.AMD64), "holds no iPXE for amd64")
	stub, err := os.ReadFile("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
	if os.Getenv("CI") == "true" {
		require.NoError(t, err, "install systemd-boot-efi")
	}
	if err != nil {
		t.Skipf("SKIPPED: no EFI program to try with: %v", err)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "snponly.efi"), stub, 0o600))
	require.ErrorContains(t, s.signedIPXE(boot.AMD64), "snponly.efi in --ipxe-dir "+dir+": it is not signed")
	signer, _ := newSigner(t, "ours")
	out, err := os.Create(filepath.Join(dir, "signed.efi"))
	require.NoError(t, err)
	in, err := os.Open(filepath.Join(dir, "snponly.efi"))
	require.NoError(t, err)
	require.NoError(t, uki.Sign(out, in, int64(len(stub)), signer))
	require.NoError(t, errors.Join(out.Close(), in.Close(), os.Rename(out.Name(), in.Name())))
	require.NoError(t, s.signedIPXE(boot.AMD64))
	require.NoError(t, settings{}.signedIPXE(boot.AMD64), "nothing is known of what others serve")
}
