package qemu

import (
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
)

// certX509 is EFI_CERT_X509_GUID in memory order.
var certX509 = guid{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}

// SignatureOwner is the vendor that the lab's signature lists name.
var signatureOwner = guid{0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}

// SignatureList turns the certificates of a PEM bundle into EFI_SIGNATURE_LISTs
// (UEFI 2.10, section 32.4.1), one list each as their sizes differ: what OVMF
// takes as TLS CAs from fw_cfg etc/edk2/https/cacerts.
func SignatureList(bundle []byte) ([]byte, error) {
	var out []byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("parsing a CA certificate: %w", err)
		}
		signature := len(signatureOwner) + len(block.Bytes)
		out = append(out, certX509[:]...)
		out = binary.LittleEndian.AppendUint32(out, uint32(28+signature))
		out = binary.LittleEndian.AppendUint32(out, 0) // no header
		out = binary.LittleEndian.AppendUint32(out, uint32(signature))
		out = append(out, signatureOwner[:]...)
		out = append(out, block.Bytes...)
	}
	if out == nil {
		return nil, errors.New("no PEM certificate among the CAs")
	}
	return out, nil
}
