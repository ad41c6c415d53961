package httpserver

import (
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// certificateCheck is how often the files of a certificate are looked at.
const certificateCheck = 5 * time.Second

// TLSOptions are the files of the certificate of a TLS listener, in PEM. They
// are read again when they change. Firmware takes RSA certificates only, with
// the host of the URL as a subjectAltName.
type TLSOptions struct {
	CertFile, KeyFile string
}

// cipherSuites are those of TLS 1.2, best first. The last two have no forward
// secrecy and are there for EDK2 as it was built for years, which offers
// nothing else that Go has: no secret is served over them.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
}

// weakTLS says whether a request came over RSA key exchange.
func weakTLS(r *http.Request) bool {
	if r.TLS == nil {
		return false
	}
	switch r.TLS.CipherSuite {
	case tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384:
		return true
	}
	return false
}

// tlsConfig returns the configuration of a listener whose certificate is
// reloaded; tell is told when each expires. It returns boot.ErrInvalid when the
// certificate cannot be read now.
func tlsConfig(o TLSOptions, log logr.Logger, now func() time.Time, tell func(notAfter time.Time)) (*tls.Config, error) {
	c := &certificate{options: o, log: log, now: now, tell: tell}
	if err := c.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   cipherSuites,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: c.get,
	}, nil
}

// certificate is a certificate that follows its files.
type certificate struct {
	options TLSOptions
	log     logr.Logger
	now     func() time.Time
	tell    func(notAfter time.Time)

	mu      sync.Mutex
	current *tls.Certificate
	stamp   fileStamp
	checked time.Time
}

// fileStamp changes when one of the two files does. Kubernetes swaps a link to
// change both at once, and stat follows it.
type fileStamp struct {
	cert, key       time.Time
	certSize, keyed int64
}

// get implements tls.Config.GetCertificate. A pair that cannot be loaded leaves
// the old one in use.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.checked) >= certificateCheck {
		c.checked = now
		c.reload()
	}
	return c.current, nil
}

func (c *certificate) reload() {
	stamp, err := c.options.stamp()
	if err == nil && stamp == c.stamp {
		return
	}
	if err == nil {
		err = c.load()
	}
	if err != nil {
		c.log.Error(err, "Kept the old TLS certificate", "file", c.options.CertFile)
		return
	}
	c.log.Info("Reloaded the TLS certificate", "file", c.options.CertFile, "expires", c.current.Leaf.NotAfter.UTC().Format(time.RFC3339))
}

func (c *certificate) load() error {
	stamp, err := c.options.stamp()
	if err != nil {
		return fmt.Errorf("%w: reading the TLS certificate: %w", boot.ErrInvalid, err)
	}
	pair, err := tls.LoadX509KeyPair(c.options.CertFile, c.options.KeyFile)
	if err != nil {
		return fmt.Errorf("%w: loading the TLS certificate %s with key %s: %w", boot.ErrInvalid, c.options.CertFile, c.options.KeyFile, err)
	}
	if _, ok := pair.Leaf.PublicKey.(*rsa.PublicKey); !ok {
		c.log.Info("TLS certificate has no RSA key: most firmware will refuse it", "file", c.options.CertFile)
	}
	c.current, c.stamp = &pair, stamp
	c.tell(pair.Leaf.NotAfter)
	return nil
}

func (o TLSOptions) stamp() (fileStamp, error) {
	cert, err := os.Stat(o.CertFile)
	key, keyErr := os.Stat(o.KeyFile)
	if err := errors.Join(err, keyErr); err != nil {
		return fileStamp{}, err //nolint:wrapcheck // names the file
	}
	return fileStamp{cert: cert.ModTime(), key: key.ModTime(), certSize: cert.Size(), keyed: key.Size()}, nil
}
