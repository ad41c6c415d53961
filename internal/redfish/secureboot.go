package redfish

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"

	"github.com/stmcginnis/gofish/schemas"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// SecureBoot says whether Secure Boot is on.
func (b *bmc) SecureBoot(ctx context.Context) (SecureBootState, error) {
	_, s, err := b.secureBoot(b.conn.with(ctx))
	return s, err
}

func (b *bmc) secureBoot(c *conn) (resource, SecureBootState, error) {
	path := b.sys.link("SecureBoot")
	if path == "" {
		return resource{}, SecureBootState{}, b.cannot("its system has no SecureBoot")
	}
	r, err := c.get(path)
	if err != nil {
		return r, SecureBootState{}, unsupported(err)
	}
	s, err := as[schemas.SecureBoot](c, r)
	if err != nil {
		return r, SecureBootState{}, err
	}
	return r, SecureBootState{Enabled: s.SecureBootEnable, Current: clip(string(s.SecureBootCurrentBoot)), Mode: clip(string(s.SecureBootMode))}, nil
}

// SetSecureBoot sets it for the next boot.
func (b *bmc) SetSecureBoot(ctx context.Context, on bool) error {
	c := b.conn.with(ctx)
	r, s, err := b.secureBoot(c)
	if err != nil || s.Enabled == on {
		return err
	}
	to := r
	pending, err := c.settings(r)
	if err != nil {
		return err
	}
	if pending != nil {
		to = *pending
	}
	return unsupported(c.patch(to, map[string]bool{"SecureBootEnable": on}))
}

// AddBootCertificate installs a certificate authority for HTTPS boot.
func (b *bmc) AddBootCertificate(ctx context.Context, text []byte) error {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return fmt.Errorf("%w: a boot certificate is one PEM block of the type CERTIFICATE", boot.ErrInvalid)
	}
	c := b.conn.with(ctx)
	path := b.sys.at("Boot").link("Certificates")
	if path == "" {
		return b.cannot("its system has no Boot/Certificates")
	}
	there, err := c.members(path)
	if err != nil {
		return unsupported(err)
	}
	for _, p := range there {
		old, err := c.get(p)
		if err != nil {
			return err
		}
		if known, _ := pem.Decode([]byte(old.text("CertificateString"))); known != nil && slices.Equal(known.Bytes, block.Bytes) {
			return nil
		}
	}
	body := map[string]string{"CertificateString": string(pem.EncodeToMemory(block)), "CertificateType": "PEM"}
	_, err = c.send(http.MethodPost, path, body, nil)
	return unsupported(err)
}
