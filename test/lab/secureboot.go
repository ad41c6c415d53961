package lab

import (
	"bytes"
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
	"testing"
	"time"

	"github.com/boot-operator/boot-operator/internal/qemu"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// SecureBootOptions describe firmware with Secure Boot, and its keys at first; see
// SigningKey.Firmware.
type SecureBootOptions = qemu.SecureBoot

// SigningKey is a key with a certificate that firmware can be made to trust.
type SigningKey struct {
	// KeyFile and CertificateFile are PEM, for programs; Passphrase opens the key, and
	// is empty where it is not encrypted.
	KeyFile, CertificateFile, Passphrase string
	// Certificate is what is in CertificateFile.
	Certificate []byte

	signer *uki.Signer
}

// snakeoilDirectories are where distributions keep the key pair with which one tries
// Secure Boot. Everybody has it, and its passphrase.
var snakeoilDirectories = []string{"/usr/share/ovmf", "/usr/share/OVMF", "/usr/share/qemu-efi-aarch64"}

const (
	snakeoilKey         = "PkKek-1-snakeoil.key"
	snakeoilCertificate = "PkKek-1-snakeoil.pem"
	snakeoilPassphrase  = "snakeoil"
)

// Snakeoil returns Debian's key pair for trying Secure Boot. It skips the test where
// that is not installed.
func Snakeoil(t testing.TB) *SigningKey {
	t.Helper()
	Require(t, SnakeoilKey)
	k := &SigningKey{Passphrase: snakeoilPassphrase}
	var keyErr, certificateErr error
	k.KeyFile, keyErr = findFile(snakeoilDirectories, snakeoilKey)
	k.CertificateFile, certificateErr = findFile(snakeoilDirectories, snakeoilCertificate)
	if err := errors.Join(keyErr, certificateErr, k.load()); err != nil {
		t.Fatalf("reading the snakeoil key: %v", err)
	}
	return k
}

// NewSigningKey makes a key of the test's own, with a certificate of this name.
func NewSigningKey(t testing.TB, name string) *SigningKey {
	t.Helper()
	k, err := makeSigningKey(t.TempDir(), name)
	if err != nil {
		t.Fatalf("making a signing key: %v", err)
	}
	return k
}

func makeSigningKey(directory, name string) (*SigningKey, error) {
	k := &SigningKey{KeyFile: filepath.Join(directory, "signing.key"), CertificateFile: filepath.Join(directory, "signing.pem")}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return k, errors.Join(
		os.WriteFile(k.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
		os.WriteFile(k.CertificateFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		k.load())
}

// load reads the files.
func (k *SigningKey) load() error {
	text, err := os.ReadFile(k.KeyFile)
	if err != nil {
		return err
	}
	key, err := uki.ParseKey(text, []byte(k.Passphrase))
	if err != nil {
		return err
	}
	if k.Certificate, err = os.ReadFile(k.CertificateFile); err != nil {
		return err
	}
	certificates, err := uki.ParseCertificates(k.Certificate)
	if err != nil {
		return err
	}
	k.signer, err = uki.NewSigner(key, certificates...)
	return err
}

// Sign returns an EFI application with a signature of this key.
func (k *SigningKey) Sign(t testing.TB, image []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := uki.Sign(&out, bytes.NewReader(image), int64(len(image)), k.signer); err != nil {
		t.Fatalf("signing an EFI application: %v", err)
	}
	return out.Bytes()
}

// Firmware is one with Secure Boot on that trusts this key in PK, KEK and db, and no
// other.
func (k *SigningKey) Firmware() *SecureBootOptions {
	return &SecureBootOptions{PK: k.Certificate, KEK: k.Certificate, DB: k.Certificate}
}

// SignedOS is OS with a signature of a key.
func SignedOS(t testing.TB, architecture, cmdline string, k *SigningKey) []byte {
	t.Helper()
	return k.Sign(t, OS(t, architecture, cmdline))
}

// AccessDenied is what OVMF and AAVMF say of what they do not trust.
const AccessDenied = "Access Denied"

func checkSnakeoil() error {
	for _, name := range []string{snakeoilKey, snakeoilCertificate} {
		if _, err := findFile(snakeoilDirectories, name); err != nil {
			return fmt.Errorf("looking for a key to try Secure Boot with: %w", err)
		}
	}
	return nil
}
