package uki

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/foxboron/go-uefi/authenticode"
	"github.com/foxboron/go-uefi/pkcs7"
)

// maxIntermediates is how many certificates go into a signature beside the signer's.
const maxIntermediates = maxChain - 1

// Signer makes Authenticode signatures. It may be used by several goroutines if its
// key may.
type Signer struct {
	key          crypto.Signer
	certificates []*x509.Certificate
}

// NewSigner returns a Signer with a key, which may be one that an HSM or a KMS
// keeps, and the certificate that belongs to it. The other certificates are those
// of CAs between that one and a machine's db; they go into each signature.
//
// The key has to be RSA with 2048 to 8192 bits: firmware knows no other. An expired
// certificate is taken, as firmware takes it.
func NewSigner(key crypto.Signer, certificates ...*x509.Certificate) (*Signer, error) {
	if key == nil || len(certificates) == 0 {
		return nil, errors.New("signing takes a private key and its certificate")
	}
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the private key is not RSA, but made for %T; firmware verifies nothing else than RSA", key.Public())
	}
	if bits := public.N.BitLen(); bits < minModulus || bits > maxModulus {
		return nil, fmt.Errorf("the private key has %d bits; RSA keys of %d to %d are taken", bits, minModulus, maxModulus)
	}
	if !public.Equal(certificates[0].PublicKey) {
		return nil, fmt.Errorf("the private key does not belong to the certificate %s; that of the signer has to come first", Subject(certificates[0]))
	}
	if n := len(certificates) - 1; n > maxIntermediates {
		return nil, fmt.Errorf("%d certificates of CAs are too many, %d may go into a signature", n, maxIntermediates)
	}
	for _, c := range certificates[1:] {
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, fmt.Errorf("the certificate %s is not that of a CA: only the signer's and those of CAs above it belong into a signature", Subject(c))
		}
	}
	return &Signer{key: key, certificates: slices.Clone(certificates)}, nil
}

// Certificate returns that of the signer.
func (s *Signer) Certificate() *x509.Certificate { return s.certificates[0] }

// Certificates returns those that go into each signature, that of the signer first.
func (s *Signer) Certificates() []*x509.Certificate { return slices.Clone(s.certificates) }

// SignHash returns the signature of the image with this Authenticode hash (see
// Hash): PKCS #7 SignedData in DER, RSA with SHA-256, with the time it was made. It
// is verified before it is returned, since nothing is known of the key but that it
// says Sign.
func (s *Signer) SignHash(hash [32]byte) ([]byte, error) {
	content, err := authenticode.CreateSpcIndirectDataContent(hash[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("encoding the hash of an image: %w", err)
	}
	signature, err := pkcs7.SignPKCS7(s.key, s.Certificate(), authenticode.OIDSpcIndirectDataContent, content,
		pkcs7.WithAdditionalCerts(s.certificates[1:]))
	if err != nil {
		return nil, fmt.Errorf("signing as %s: %w", Subject(s.Certificate()), err)
	}
	d, err := parseSignedData(signature)
	if err != nil {
		return nil, fmt.Errorf("verifying what was signed as %s: %w", Subject(s.Certificate()), err)
	}
	made := d.inspect(hash[:])
	if made.Err == nil && !s.Certificate().Equal(made.Certificate) {
		made.Err = fmt.Errorf("it is by %s", made.Signer())
	}
	if made.Err != nil {
		return nil, fmt.Errorf("verifying what was signed as %s: %w", Subject(s.Certificate()), made.Err)
	}
	return signature, nil
}

// CertificateTable lays signatures out as they stand at the end of a PE file, from a
// multiple of 8 bytes on: each with a WIN_CERTIFICATE header, and filled up to a
// multiple of 8 bytes, which its length counts, as some programs want it to.
func CertificateTable(signatures ...[]byte) []byte {
	var table []byte
	for _, s := range signatures {
		length := int64(entryHeaderSize + len(s))
		length += padding(length)
		table = binary.LittleEndian.AppendUint32(table, uint32(length))
		table = binary.LittleEndian.AppendUint16(table, entryRevision)
		table = binary.LittleEndian.AppendUint16(table, entryTypeSigned)
		table = append(table, s...)
		table = append(table, make([]byte, length-entryHeaderSize-int64(len(s)))...)
	}
	return table
}

// Sign writes the PE file of size bytes behind r to w, with a signature behind those
// that it has. The file is filled up to a multiple of 8 bytes first; its checksum is
// computed anew, although firmware does not look at it. The file is read three times.
//
// Its error wraps ErrNotPE, ErrMalformed (about the file, its certificate table
// included) or ErrNoRoom (the headers have no place for the table, or the table none
// for another signature), or is one of r, w or the key. Something may have been
// written by then.
func Sign(w io.Writer, r io.ReaderAt, size int64, s *Signer) error {
	h, err := readHeaders(r, size)
	if err != nil {
		return err
	}
	c, err := h.coverage(size)
	if err != nil {
		return err
	}
	table, err := c.tableWith(h, r, s)
	if err != nil {
		return err
	}
	f := &signedFile{body: c.body, table: table, checksumAt: h.checksumOffset()}
	f.entryAt, _ = h.certificateEntry()
	checksum, err := f.checksum(r)
	if err != nil {
		return err
	}
	return f.write(w, r, checksum)
}

// tableWith returns a file's certificate table with one more signature in it.
func (c coverage) tableWith(h *headers, r io.ReaderAt, s *Signer) ([]byte, error) {
	if _, ok := h.certificateEntry(); !ok {
		return nil, fmt.Errorf("%w: its data directory ends before the entry of the certificate table", ErrNoRoom)
	}
	if c.body > math.MaxUint32-maxCertificateTable-entryAlignment {
		return nil, fmt.Errorf("%w: a PE file ends at 4 GiB, and it has %d bytes without any signature", ErrNoRoom, c.body)
	}
	there, err := c.entries(r)
	if err != nil {
		return nil, err
	}
	digests, err := c.digests(r, []crypto.Hash{crypto.SHA256})
	if err != nil {
		return nil, err
	}
	signature, err := s.SignHash([32]byte(digests[crypto.SHA256].padded))
	if err != nil {
		return nil, err
	}
	table := make([]byte, c.table.to-c.table.from)
	if err := readFull(r, table, c.table.from); err != nil {
		return nil, err
	}
	table = append(table, CertificateTable(signature)...)
	if len(there) >= maxSignatures || len(table) > maxCertificateTable {
		return nil, fmt.Errorf("%w: its certificate table has %d signatures and would have %d bytes; at most %d and %d are read",
			ErrNoRoom, len(there), len(table), maxSignatures, maxCertificateTable)
	}
	return table, nil
}

// signedFile is a PE file with a new certificate table.
type signedFile struct {
	body                int64 // of the file without any table and padding
	table               []byte
	checksumAt, entryAt int64
}

// tableAt is where the table begins.
func (f *signedFile) tableAt() int64 { return f.body + padding(f.body) }

// write writes the file: its body with checksum and directory entry replaced,
// padding, and the table.
func (f *signedFile) write(w io.Writer, r io.ReaderAt, checksum uint32) error {
	field := binary.LittleEndian.AppendUint32(nil, checksum)
	entry := binary.LittleEndian.AppendUint32(nil, uint32(f.tableAt()))
	entry = binary.LittleEndian.AppendUint32(entry, uint32(len(f.table)))
	for _, part := range []struct {
		from, to int64
		then     []byte
	}{
		{0, f.checksumAt, field},
		{f.checksumAt + 4, f.entryAt, entry},
		{f.entryAt + directoryEntries, f.body, make([]byte, padding(f.body))},
		{f.body, f.body, f.table},
	} {
		if err := copySpan(w, r, span{part.from, part.to}); err != nil {
			return err
		}
		if _, err := w.Write(part.then); err != nil {
			return fmt.Errorf("writing a signed PE file: %w", err)
		}
	}
	return nil
}

// checksum computes the CheckSum field, as the loader of Windows does: the sum of
// the file's 16-bit words with the carry added, its own field being zero, and the
// file's size.
func (f *signedFile) checksum(r io.ReaderAt) (uint32, error) {
	s := &wordSum{}
	if err := f.write(s, r, 0); err != nil {
		return 0, err
	}
	return s.folded() + uint32(f.tableAt()) + uint32(len(f.table)), nil
}

// wordSum adds up the 16-bit words that are written to it.
type wordSum struct {
	sum uint64
	odd bool // whether the next byte is the upper half of a word
}

func (s *wordSum) Write(b []byte) (int, error) {
	n := len(b)
	if s.odd && n > 0 {
		s.sum += uint64(b[0]) << 8
		s.odd, b = false, b[1:]
	}
	for ; len(b) > 1; b = b[2:] {
		s.sum += uint64(binary.LittleEndian.Uint16(b))
	}
	if len(b) == 1 {
		s.sum += uint64(b[0])
		s.odd = true
	}
	return n, nil
}

func (s *wordSum) folded() uint32 {
	for s.sum > math.MaxUint16 {
		s.sum = s.sum>>16 + s.sum&math.MaxUint16
	}
	return uint32(s.sum)
}
