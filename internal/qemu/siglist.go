package qemu

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
)

// The kinds of signatures that have names here.
var (
	certSHA256 = guid{0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28}
	certX509   = guid{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
)

// signatureOwner is the vendor that the signatures which we make name.
var signatureOwner = guid{0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}

// signatureListHeader is the size of an EFI_SIGNATURE_LIST's header in bytes: type,
// and the sizes of the list, of its own header and of one signature.
const signatureListHeader = 28

// Signature is one entry of an EFI_SIGNATURE_LIST (UEFI 2.10, section 32.4.1): what
// firmware trusts, or refuses.
type Signature struct {
	kind, owner guid
	// Data is a certificate in DER, a hash, or what else the kind says.
	Data []byte
}

// CertificateSignature is the signature that trusts a certificate in DER.
func CertificateSignature(der []byte) Signature {
	return Signature{kind: certX509, owner: signatureOwner, Data: der}
}

// Kind is the name of what Data is, as the specification has it, or its GUID.
func (s Signature) Kind() string {
	switch s.kind {
	case certX509:
		return "EFI_CERT_X509_GUID"
	case certSHA256:
		return "EFI_CERT_SHA256_GUID"
	}
	return s.kind.String()
}

// Owner is the GUID of whoever put it there.
func (s Signature) Owner() string { return s.owner.String() }

// IsCertificate tells whether Data is a certificate.
func (s Signature) IsCertificate() bool { return s.kind == certX509 }

// Same tells whether two signatures say the same, whoever owns them.
func (s Signature) Same(other Signature) bool {
	return s.kind == other.kind && bytes.Equal(s.Data, other.Data)
}

// CertificateSignatures are those of the certificates of a PEM bundle.
func CertificateSignatures(bundle []byte) ([]Signature, error) {
	var all []Signature
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("parsing a certificate: %w", err)
		}
		all = append(all, CertificateSignature(block.Bytes))
	}
	if all == nil {
		return nil, errors.New("no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----")
	}
	return all, nil
}

// SignatureList turns the certificates of a PEM bundle into EFI_SIGNATURE_LISTs: what
// OVMF takes as TLS CAs from fw_cfg etc/edk2/https/cacerts.
func SignatureList(bundle []byte) ([]byte, error) {
	all, err := CertificateSignatures(bundle)
	if err != nil {
		return nil, err
	}
	return encodeSignatures(all), nil
}

// encodeSignatures makes a list for each signature, as their sizes differ.
func encodeSignatures(all []Signature) []byte {
	var out []byte
	for _, s := range all {
		signature := len(s.owner) + len(s.Data)
		out = append(out, s.kind[:]...)
		out = binary.LittleEndian.AppendUint32(out, uint32(signatureListHeader+signature))
		out = binary.LittleEndian.AppendUint32(out, 0) // no header
		out = binary.LittleEndian.AppendUint32(out, uint32(signature))
		out = append(out, s.owner[:]...)
		out = append(out, s.Data...)
	}
	return out
}

// parseSignatures reads the lists in a variable.
func parseSignatures(b []byte) ([]Signature, error) {
	var all []Signature
	for len(b) > 0 {
		if len(b) < signatureListHeader {
			return nil, errors.New("a list of signatures is cut short")
		}
		list := int64(binary.LittleEndian.Uint32(b[16:]))
		header := int64(binary.LittleEndian.Uint32(b[20:]))
		size := int64(binary.LittleEndian.Uint32(b[24:]))
		content := list - signatureListHeader - header
		if list > int64(len(b)) || content < 0 || size <= int64(len(signatureOwner)) || content%size != 0 {
			return nil, fmt.Errorf("a list of signatures has impossible sizes: %d bytes, of which a header of %d, and %d for each signature", list, header, size)
		}
		for at := signatureListHeader + header; at < list; at += size {
			one := b[at : at+size]
			all = append(all, Signature{kind: guid(b[:16]), owner: guid(one[:16]), Data: bytes.Clone(one[16:])})
		}
		b = b[list:]
	}
	return all, nil
}
