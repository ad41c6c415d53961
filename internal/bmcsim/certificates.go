package bmcsim

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// What a collection of certificates holds, at most.
const (
	maxCertificates = 16
	maxPEM          = 32 << 10 // bytes
)

// certificate is one that a client installed.
type certificate struct {
	id, pem string
	parsed  *x509.Certificate
}

func (b *BMC) bootCertificatesPath() string { return b.systemPath() + "/Boot/Certificates" }

// certificateCollection adds a collection that certificates can be added to.
func (b *BMC) certificateCollection(path string) {
	b.certs[path] = nil
	b.add(path, &resource{post: func(c *call) reply { return b.addCertificate(path, c) }, get: func() object {
		var ids []string
		for _, c := range b.certs[path] {
			ids = append(ids, c.id)
		}
		return members("Certificate", path, ids)
	}})
}

// addCertificate takes a PEM certificate for a collection.
func (b *BMC) addCertificate(path string, c *call) reply {
	added, refused := b.readCertificate(c)
	if refused != nil {
		return *refused
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.certs[path]
	if len(list) >= maxCertificates {
		return b.refuse(say("CreateLimitReachedForResource"))
	}
	b.number++
	added.id = strconv.Itoa(b.number)
	b.certs[path] = append(list, added)
	return b.created(path + "/" + added.id)
}

// readCertificate reads a PEM certificate (Certificate 1.6), or says why it is none.
func (b *BMC) readCertificate(c *call) (certificate, *reply) {
	text, okText := c.body["CertificateString"].(string)
	kind, okKind := c.body["CertificateType"].(string)
	var m message
	switch {
	case !okText:
		m = say("PropertyMissing", "CertificateString").about("CertificateString")
	case !okKind:
		m = say("PropertyMissing", "CertificateType").about("CertificateType")
	case kind != "PEM":
		m = say("PropertyValueNotInList", bounded(kind, 100), "CertificateType").about("CertificateType")
	case len(text) > maxPEM:
		m = say("PropertyValueFormatError", "(too long)", "CertificateString").about("CertificateString")
	default:
		if block, _ := pem.Decode([]byte(text)); block != nil {
			if parsed, err := x509.ParseCertificate(block.Bytes); err == nil {
				return certificate{pem: text, parsed: parsed}, nil
			}
		}
		m = say("PropertyValueFormatError", "(not a certificate)", "CertificateString").about("CertificateString")
	}
	refused := b.refuse(m)
	return certificate{}, &refused
}

// created is the answer to a POST that made what is at a path. The lock is held.
func (b *BMC) created(path string) reply {
	h := http.Header{}
	h.Set("Location", path)
	return reply{status: http.StatusCreated, header: h, body: b.represent(b.find(path), path)}
}

// certificateResource is one certificate; nil: there is none. The lock is held.
func (b *BMC) certificateResource(path, id string) *resource {
	i := slices.IndexFunc(b.certs[path], func(c certificate) bool { return c.id == id })
	if i < 0 {
		return nil
	}
	c := b.certs[path][i]
	return &resource{
		get: func() object { return describe(c) },
		remove: func() reply {
			b.certs[path] = slices.DeleteFunc(slices.Clone(b.certs[path]), func(other certificate) bool { return other.id == id })
			return reply{status: http.StatusNoContent}
		},
	}
}

// describe is a certificate's representation (Certificate 1.6).
func describe(c certificate) object {
	sum := sha256.Sum256(c.parsed.Raw)
	return object{
		"@odata.type": "#Certificate.v1_6_0.Certificate", "Id": c.id, "Name": "Certificate " + c.id, "CertificateString": c.pem, "CertificateType": "PEM",
		"Subject": object{"CommonName": c.parsed.Subject.CommonName}, "Issuer": object{"CommonName": c.parsed.Issuer.CommonName},
		"ValidNotBefore": stamp(c.parsed.NotBefore), "ValidNotAfter": stamp(c.parsed.NotAfter), "SerialNumber": c.parsed.SerialNumber.Text(16),
		"Fingerprint": strings.ToUpper(hex.EncodeToString(sum[:])), "FingerprintHashAlgorithm": "TPM_ALG_SHA256",
	}
}

// BootCertificates are the PEM certificates that were installed for HTTPS Boot.
func (b *BMC) BootCertificates() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, c := range b.certs[b.bootCertificatesPath()] {
		list = append(list, c.pem)
	}
	return list
}
