package uki_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// identity is a key with its certificate.
type identity struct {
	key  crypto.Signer
	cert *x509.Certificate
}

var (
	keysLock sync.Mutex
	keys     = map[string]*rsa.PrivateKey{}
)

// rsaKey makes a key of 2048 bits once for each name: making them is slow.
func rsaKey(t testing.TB, name string) *rsa.PrivateKey {
	t.Helper()
	keysLock.Lock()
	defer keysLock.Unlock()
	if keys[name] == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		keys[name] = key
	}
	return keys[name]
}

// issue makes a certificate, by its own key where issuer is nil; change has the last
// word about what is in it.
func issue(t testing.TB, name string, issuer *identity, change ...func(*x509.Certificate)) *identity {
	t.Helper()
	return issueFor(t, rsaKey(t, name), name, issuer, change...)
}

var serials = big.NewInt(1000)

func issueFor(t testing.TB, key crypto.Signer, name string, issuer *identity, change ...func(*x509.Certificate)) *identity {
	t.Helper()
	keysLock.Lock()
	serials = new(big.Int).Add(serials, big.NewInt(1))
	template := &x509.Certificate{
		SerialNumber:          serials,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true,
	}
	keysLock.Unlock()
	for _, f := range change {
		f(template)
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &identity{key: key, cert: cert}
}

// asCA makes a certificate that of a CA.
func asCA(c *x509.Certificate) {
	c.IsCA = true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = nil
}

// expired makes a certificate one of the past.
func expired(c *x509.Certificate) {
	c.NotBefore = time.Now().Add(-48 * time.Hour)
	c.NotAfter = time.Now().Add(-24 * time.Hour)
}

// chain is a root, an intermediate CA below it, and a leaf below that.
func chain(t testing.TB) (root, intermediate, leaf *identity) {
	t.Helper()
	root = issue(t, "root", nil, asCA)
	intermediate = issue(t, "intermediate", root, asCA)
	return root, intermediate, issue(t, "leaf", intermediate)
}

func signer(t testing.TB, id *identity, intermediates ...*identity) *uki.Signer {
	t.Helper()
	s, err := uki.NewSigner(id.key, append([]*x509.Certificate{id.cert}, certificates(intermediates...)...)...)
	require.NoError(t, err)
	return s
}

func certificates(ids ...*identity) []*x509.Certificate {
	var all []*x509.Certificate
	for _, id := range ids {
		all = append(all, id.cert)
	}
	return all
}

func sign(t testing.TB, image []byte, s *uki.Signer) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, uki.Sign(&b, bytes.NewReader(image), int64(len(image)), s))
	return b.Bytes()
}

func certPEM(ids ...*identity) []byte {
	var b []byte
	for _, c := range certificates(ids...) {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

func keyPEM(t testing.TB, id *identity) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(id.key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// trusting is a database whose db has these certificates.
func trusting(t testing.TB, ids ...*identity) *uki.Database {
	t.Helper()
	db, err := uki.ParseDatabase(certPEM(ids...), nil)
	require.NoError(t, err)
	return db
}

func verify(image []byte, db *uki.Database, o ...uki.VerifyOptions) (uki.Signature, error) {
	return uki.Verify(bytes.NewReader(image), int64(len(image)), db, append(o, uki.VerifyOptions{})[0])
}

func signatures(t testing.TB, image []byte) []uki.Signature {
	t.Helper()
	all, err := uki.Signatures(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	return all
}

// program skips the test where a program is not installed, and fails it in CI.
func program(t testing.TB, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	missing(t, err, name, debianPackage)
	return path
}

// debianFile reads a file of a Debian package.
func debianFile(t testing.TB, path, debianPackage string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	missing(t, err, path, debianPackage)
	return b
}

func missing(t testing.TB, err error, what, debianPackage string) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("CI must have %s, of the package %s: %v", what, debianPackage, err)
	default:
		t.Skipf("NOT TESTED: %s of the package %s is missing: %v", what, debianPackage, err)
	}
}

// stub and systemdBoot are real EFI applications.
func stub(t testing.TB) []byte {
	t.Helper()
	return debianFile(t, "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi")
}

func systemdBoot(t testing.TB) []byte {
	t.Helper()
	return debianFile(t, "/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "systemd-boot-efi")
}

// put writes a file for a program.
func put(t testing.TB, content []byte) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	_, err = f.Write(content)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return f.Name()
}

// run runs a program and returns what it printed, and whether it was content.
func run(t testing.TB, path string, args ...string) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	require.NoError(t, ctx.Err(), path)
	return string(out), err == nil
}

// mustRun runs a program that has to succeed.
func mustRun(t testing.TB, path string, args ...string) string {
	t.Helper()
	out, ok := run(t, path, args...)
	require.True(t, ok, "%s %s: %s", path, strings.Join(args, " "), out)
	return out
}

// sbverify asks sbsigntool whether one of these certificates vouches for an image.
func sbverify(t testing.TB, image []byte, trusted ...*identity) (string, bool) {
	t.Helper()
	var args []string
	for _, id := range trusted {
		args = append(args, "--cert", put(t, certPEM(id)))
	}
	return run(t, program(t, "sbverify", "sbsigntool"), append(args, put(t, image))...)
}

// osslsigncode asks the same of osslsigncode, which wants roots.
func osslsigncode(t testing.TB, image []byte, roots ...*identity) (string, bool) {
	t.Helper()
	path := program(t, "osslsigncode", "osslsigncode")
	return run(t, path, "verify", "-CAfile", put(t, certPEM(roots...)), "-in", put(t, image))
}

// sbsign signs with sbsigntool.
func sbsign(t testing.TB, image []byte, id *identity, intermediates ...*identity) []byte {
	t.Helper()
	output := filepath.Join(t.TempDir(), "signed")
	args := []string{"--key", put(t, keyPEM(t, id)), "--cert", put(t, certPEM(id)), "--output", output}
	if len(intermediates) > 0 {
		args = append(args, "--addcert", put(t, certPEM(intermediates...)))
	}
	mustRun(t, program(t, "sbsign", "sbsigntool"), append(args, put(t, image))...)
	return read(t, output)
}

// osslsign signs with osslsigncode.
func osslsign(t testing.TB, image []byte, id *identity, args ...string) []byte {
	t.Helper()
	output := filepath.Join(t.TempDir(), "signed")
	args = append([]string{"sign", "-key", put(t, keyPEM(t, id)), "-certs", put(t, certPEM(id))}, args...)
	mustRun(t, program(t, "osslsigncode", "osslsigncode"), append(args, "-in", put(t, image), "-out", output)...)
	return read(t, output)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}
