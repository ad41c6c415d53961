package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"
)

// Server is a registry that listens.
type Server struct {
	*Registry
	// Host is host:port, as it stands in image references.
	Host string
	// URL is the scheme and Host.
	URL string
	// CA is the PEM certificate to trust, with Options.TLS.
	CA []byte

	http *http.Server
	done chan error
}

// Serve listens on addr, such as 127.0.0.1:0, and serves a new registry.
func Serve(addr string, o Options) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("serving a registry: %w", err)
	}
	s := &Server{Registry: New(o), Host: l.Addr().String(), URL: "http://" + l.Addr().String(), done: make(chan error, 1)}
	s.http = &http.Server{Handler: s.Registry, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	if o.TLS {
		cert, ca, err := selfSigned(l.Addr())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("serving a registry: %w", err), l.Close())
		}
		s.URL, s.CA = "https://"+s.Host, ca
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	}
	go func() { s.done <- s.http.Serve(l); close(s.done) }()
	return s, nil
}

// Close ends the server and all its connections. It may be called twice.
func (s *Server) Close() error {
	err := s.http.Close()
	if e, ok := <-s.done; ok && !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// selfSigned makes a certificate that is its own CA.
func selfSigned(addr net.Addr) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "test registry"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{"localhost"},
	}
	if a, ok := addr.(*net.TCPAddr); ok {
		t.IPAddresses = []net.IP{a.IP}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
