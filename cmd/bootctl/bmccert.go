package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// secure puts TLS on a listener. The certificate is made, unless the state
// directory has one; it is printed if it is not kept.
func (o *simulateFlags) secure(env *environment, inner net.Listener) (net.Listener, string, error) {
	certificate, err := o.certificate(inner.Addr())
	if err != nil {
		return nil, "", fmt.Errorf("making the certificate: %w", err)
	}
	sum := sha256.Sum256(certificate.Certificate[0])
	if o.stateDir == "" {
		if err := pem.Encode(env.Out, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}); err != nil {
			return nil, "", err
		}
	}
	// HTTP/1.1 only, as BMCs speak.
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	return tls.NewListener(inner, config), hex.EncodeToString(sum[:]), nil
}

// certificate reads the one of the state directory, or makes one for the address.
func (o *simulateFlags) certificate(addr net.Addr) (tls.Certificate, error) {
	if o.stateDir == "" {
		certPEM, keyPEM, err := newCertificate(addr)
		if err != nil {
			return tls.Certificate{}, err
		}
		return tls.X509KeyPair(certPEM, keyPEM)
	}
	certPath, keyPath := filepath.Join(o.stateDir, "bmc.crt"), filepath.Join(o.stateDir, "bmc.key")
	pair, err := tls.LoadX509KeyPair(certPath, keyPath)
	if !errors.Is(err, fs.ErrNotExist) {
		return pair, err
	}
	certPEM, keyPEM, err := newCertificate(addr)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := errors.Join(os.WriteFile(keyPath, keyPEM, 0o600), os.WriteFile(certPath, certPEM, 0o644)); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// newCertificate makes a certificate that signs itself, for an address and for this
// host's loopback, and its key; both in PEM.
func newCertificate(addr net.Addr) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "simulated BMC"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(2, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"localhost"}, IPAddresses: addresses(addr),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// addresses are those under which the BMC is reached: of a listener on all
// addresses, all that this host has.
func addresses(addr net.Addr) []net.IP {
	list := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	tcp, ok := addr.(*net.TCPAddr)
	switch {
	case !ok:
	case !tcp.IP.IsUnspecified():
		list = append(list, tcp.IP)
	default:
		own, _ := net.InterfaceAddrs() // without them, the loopback's are there
		for _, a := range own {
			if n, ok := a.(*net.IPNet); ok {
				list = append(list, n.IP)
			}
		}
	}
	return list
}
