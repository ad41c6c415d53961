package lab

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// FirmwareCipherSuites are what a server must offer for firmware to find one
// that it knows: OVMF up to 2025.02 does TLS 1.2 with RSA key exchange or DHE,
// and Go has no DHE. Newer firmware takes the first.
var FirmwareCipherSuites = []uint16{
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
}

// CA issues certificates that OVMF accepts: RSA keys, the address among the
// alternative names (it ignores the common name).
type CA struct {
	// PEM is the CA's certificate, as MachineOptions.HTTPSCA takes it.
	PEM []byte

	t           testing.TB
	key         crypto.Signer
	certificate *x509.Certificate
}

// NewCA makes a CA.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	ca := &CA{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca.key = ca.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatalf("making a CA: %v", err)
	}
	ca.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if ca.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatalf("making a CA: %v", err)
	}
	return ca
}

func (ca *CA) newKey() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		ca.t.Fatalf("making a key: %v", err)
	}
	return key
}

// Issue returns a server's certificate for hosts, IPs or names, and its key,
// both in PEM.
func (ca *CA) Issue(hosts ...string) (certificate, key []byte) {
	ca.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: hosts[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	signer := ca.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, signer.Public(), ca.key)
	if err != nil {
		ca.t.Fatalf("issuing a certificate: %v", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		ca.t.Fatalf("issuing a certificate: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// ServerConfig returns a TLS configuration for hosts that OVMF can talk to.
func (ca *CA) ServerConfig(hosts ...string) *tls.Config {
	ca.t.Helper()
	certificate, err := tls.X509KeyPair(ca.Issue(hosts...))
	if err != nil {
		ca.t.Fatalf("issuing a certificate: %v", err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		CipherSuites: FirmwareCipherSuites,
	}
}
