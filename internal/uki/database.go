package uki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// Bounds of what is read of a db or dbx. Firmware has room for some 64 KB of each.
const (
	maxDatabase             = 1 << 20 // bytes
	maxDatabaseCertificates = 512
)

// Database is what firmware trusts (db) and what it refuses nevertheless (dbx).
type Database struct {
	certificates        []*x509.Certificate
	hashes              digestSet // of files
	refusedCertificates []*x509.Certificate
	refusedHashes       digestSet // of files
	refusedTBS          digestSet // of the TBSCertificates of certificates
}

// digestSet holds hashes by several functions: their lengths tell them apart.
type digestSet map[string]struct{}

func (s digestSet) add(digest []byte) { s[string(digest)] = struct{}{} }

func (s digestSet) has(digest []byte) bool {
	_, ok := s[string(digest)]
	return ok
}

// ParseDatabase reads what firmware trusts and, if dbx has anything in it, what it
// refuses. Each may be
//
//   - certificates, as PEM (several) or DER;
//   - EFI signature lists (UEFI 2.11, section 32.4.1), as cert-to-efi-sig-list makes
//     them and as firmware keeps them: EFI_CERT_X509_GUID, hashes of files
//     (EFI_CERT_SHA256_GUID, 384, 512), and in dbx hashes of certificates
//     (EFI_CERT_X509_SHA256_GUID, 384, 512). With the four bytes of attributes
//     before them that Linux shows in /sys/firmware/efi/efivars, or with an
//     EFI_VARIABLE_AUTHENTICATION_2 header, as the files that update dbx have it.
//     Who signed such an update is not asked: whoever says what db is is trusted.
//
// A kind of entry that is not known here is left out of db, and is an error in dbx.
// A db that trusts nothing is an error. At most 1 MiB of each is taken.
func ParseDatabase(db, dbx []byte) (*Database, error) {
	trusted, err := parseLists(db, true)
	if err != nil {
		return nil, fmt.Errorf("reading db: %w", err)
	}
	if len(trusted.certificates)+len(trusted.hashes) == 0 {
		return nil, errors.New("reading db: it holds neither a certificate nor the hash of a file, so nothing would ever be trusted")
	}
	d := &Database{certificates: trusted.certificates, hashes: trusted.hashes}
	if len(bytes.TrimSpace(dbx)) == 0 {
		return d, nil
	}
	refused, err := parseLists(dbx, false)
	if err != nil {
		return nil, fmt.Errorf("reading dbx: %w", err)
	}
	d.refusedCertificates, d.refusedHashes, d.refusedTBS = refused.certificates, refused.hashes, refused.tbs
	return d, nil
}

// Certificates returns those of db, in its order.
func (d *Database) Certificates() []*x509.Certificate { return slices.Clone(d.certificates) }

// hashFunctions returns those by which the database knows files.
func (d *Database) hashFunctions() []crypto.Hash {
	var used []crypto.Hash
	for _, f := range allHashes {
		ofThis := func(s digestSet) bool {
			for digest := range s {
				if len(digest) == f.Size() {
					return true
				}
			}
			return false
		}
		if ofThis(d.hashes) || ofThis(d.refusedHashes) {
			used = append(used, f)
		}
	}
	return used
}

// refuse returns an error for a file that dbx names, or one of whose signatures it
// does.
func (d *Database) refuse(all []Signature, digests map[crypto.Hash]imageDigest) error {
	for _, f := range allHashes {
		if digest := digests[f]; d.refusedHashes.has(digest.asIs) || d.refusedHashes.has(digest.padded) {
			return fmt.Errorf("%w: dbx refuses the file itself, by its hash, %v %x", ErrUntrusted, f, digest.padded)
		}
	}
	for i, s := range all {
		if c, ok := d.refused(s); ok {
			return fmt.Errorf("%w: %s: dbx refuses the certificate %s, whatever else has signed the file", ErrUntrusted, s.title(i), Subject(c))
		}
	}
	return nil
}

// admits says whether db has a hash of the file. Firmware computes that of the file
// as it is, and tools that make entries that of the padded one: both are of this
// file and no other.
func (d *Database) admits(digests map[crypto.Hash]imageDigest) (Signature, bool) {
	for _, f := range allHashes {
		for _, digest := range [][]byte{digests[f].asIs, digests[f].padded} {
			if d.hashes.has(digest) {
				return Signature{Hash: f, Digest: digest}, true
			}
		}
	}
	return Signature{}, false
}

// lists is what is read of a db or dbx.
type lists struct {
	certificates []*x509.Certificate
	hashes, tbs  digestSet
}

// parseLists reads any of the formats of ParseDatabase. Trusted is for a db.
func parseLists(b []byte, trusted bool) (*lists, error) {
	if len(b) > maxDatabase {
		return nil, fmt.Errorf("it has %d bytes, more than %d are not read", len(b), maxDatabase)
	}
	l := &lists{hashes: digestSet{}, tbs: digestSet{}}
	var err error
	switch {
	case bytes.Contains(b, []byte("-----BEGIN ")):
		err = l.addPEM(b)
	case len(bytes.TrimSpace(b)) == 0:
		err = errors.New("it is empty")
	case b[0] == 0x30: // SEQUENCE; no signature list begins so
		err = l.addCertificates(b)
	default:
		err = l.addLists(withoutHeader(b), trusted)
	}
	return l, err
}

// addPEM reads PEM. A damaged block is passed over by package pem, which must not
// happen to what a dbx refuses: so they are counted.
func (l *lists) addPEM(b []byte) error {
	count, n := bytes.Count(b, []byte("-----BEGIN ")), 0
	for ; ; n++ {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("PEM block %d is a %s, not a CERTIFICATE", n+1, printable(block.Type))
		}
		if err := l.addCertificates(block.Bytes); err != nil {
			return fmt.Errorf("PEM block %d: %w", n+1, err)
		}
	}
	if n < count {
		return fmt.Errorf("%d of its %d PEM blocks are damaged", count-n, count)
	}
	return nil
}

func (l *lists) addCertificates(b []byte) error {
	certificates, err := x509.ParseCertificates(b)
	if err != nil {
		return fmt.Errorf("reading a certificate: %s", printable(err.Error())) // some quote what they could not read
	}
	l.certificates = append(l.certificates, certificates...)
	if len(l.certificates) > maxDatabaseCertificates {
		return fmt.Errorf("it has more than %d certificates", maxDatabaseCertificates)
	}
	return nil
}

// efiGUID is a GUID as it stands in an EFI data structure: the first three of its
// parts are little endian.
type efiGUID [16]byte

func (g efiGUID) String() string {
	b := slices.Clone(g[:])
	slices.Reverse(b[:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	text := hex.EncodeToString(b)
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// What an entry of a signature list is.
type entryKind int

const (
	entryCertificate entryKind = iota + 1
	entryFileHash
	entryCertificateHash // with the time of its revocation
)

// listTypes are the types of signature lists that are known here (UEFI 2.11,
// section 32.4.1), with the size of what an entry holds; 0 is for any.
var listTypes = map[string]struct {
	kind entryKind
	size int
}{
	"a5c059a1-94e4-4aa7-87b5-ab155c2bf072": {entryCertificate, 0},
	"c1c41626-504c-4092-aca9-41f936934328": {entryFileHash, 32},
	"ff3e5307-9fd0-48c9-85f1-8ad56c701e01": {entryFileHash, 48},
	"093e0fae-a6c4-4f50-9f1b-d41e2b89c19a": {entryFileHash, 64},
	"3bd2a492-96c0-4079-b420-fcf98ef103ed": {entryCertificateHash, 32},
	"7076876e-80c2-4ee6-aad2-28b349a6865b": {entryCertificateHash, 48},
	"446dbf63-2502-4cda-bcfa-2465d2b0fe9d": {entryCertificateHash, 64},
}

const (
	listHeaderSize = 28 // of EFI_SIGNATURE_LIST: type, size, sizes of header and entry
	ownerSize      = 16 // of the GUID before each entry
	efiTimeSize    = 16 // of EFI_TIME
)

// addLists reads EFI signature lists.
func (l *lists) addLists(b []byte, trusted bool) error {
	for n := 1; len(b) > 0; n++ {
		if len(b) < listHeaderSize {
			return fmt.Errorf("it is neither certificates (PEM, DER) nor EFI signature lists: list %d has only %d bytes", n, len(b))
		}
		size, header, entry := uint64(binary.LittleEndian.Uint32(b[16:])), uint64(binary.LittleEndian.Uint32(b[20:])), uint64(binary.LittleEndian.Uint32(b[24:]))
		id := efiGUID(b[:16]).String()
		if size > uint64(len(b)) || size < listHeaderSize+header || entry <= ownerSize || (size-listHeaderSize-header)%entry != 0 {
			return fmt.Errorf("it is neither certificates (PEM, DER) nor EFI signature lists: list %d, of type %s, of %d bytes with a header of %d and entries of %d, does not fit in the %d bytes that are left",
				n, id, size, header, entry, len(b))
		}
		if err := l.addList(id, b[listHeaderSize+header:size], int(entry), trusted); err != nil {
			return fmt.Errorf("EFI signature list %d: %w", n, err)
		}
		b = b[size:]
	}
	return nil
}

// addList reads the entries of one list, each of which has this size.
func (l *lists) addList(id string, b []byte, size int, trusted bool) error {
	known := listTypes[id]
	if known.kind == 0 || known.kind == entryCertificateHash && trusted {
		if trusted {
			return nil // firmware may trust more than we do
		}
		return fmt.Errorf("its type %s is not known here, so that what it refuses would be let through", id)
	}
	content := size - ownerSize
	if known.kind == entryCertificateHash {
		content -= efiTimeSize
	}
	if known.size != 0 && content != known.size {
		return fmt.Errorf("its entries have %d bytes, which is wrong for type %s", size, id)
	}
	for n := 1; len(b) > 0; n, b = n+1, b[size:] {
		data := b[ownerSize:][:content]
		switch known.kind {
		case entryFileHash:
			l.hashes.add(data)
		case entryCertificateHash:
			l.tbs.add(data)
		default:
			if err := l.addCertificates(data); err != nil {
				return fmt.Errorf("entry %d, of owner %s: %w", n, efiGUID(b[:ownerSize]), err)
			}
		}
	}
	return nil
}

// withoutHeader takes off what may precede signature lists in a file: the
// attributes of a variable, as Linux shows them, or EFI_VARIABLE_AUTHENTICATION_2
// (UEFI 2.11, section 8.2.6): a time and a WIN_CERTIFICATE_UEFI_GUID.
func withoutHeader(b []byte) []byte {
	isList := func(b []byte) bool {
		return len(b) >= listHeaderSize && listTypes[efiGUID(b[:16]).String()].kind != 0
	}
	if len(b) > 4 && isList(b[4:]) {
		return b[4:]
	}
	const authenticated = 0x0ef1 // WIN_CERT_TYPE_EFI_GUID
	if len(b) > efiTimeSize+entryHeaderSize && !isList(b) {
		h := b[efiTimeSize:]
		length := uint64(binary.LittleEndian.Uint32(h))
		if binary.LittleEndian.Uint16(h[4:]) == entryRevision && binary.LittleEndian.Uint16(h[6:]) == authenticated && length <= uint64(len(h)) {
			return h[length:]
		}
	}
	return b
}
