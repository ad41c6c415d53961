package uki

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // keys that others made, such as OVMF's, are encrypted with 3DES
	"crypto/pbkdf2"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strings"

	"crypto/sha1" //nolint:gosec // the default of PBKDF2
	"crypto/sha256"
	"crypto/sha512"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Errors of ParseKey.
var (
	// ErrEncrypted is for a key that is encrypted, where no passphrase was given.
	ErrEncrypted = errors.New("the private key is encrypted, and there is no passphrase")
	// ErrPassphrase is for a passphrase that does not open the key.
	ErrPassphrase = errors.New("the passphrase does not open the private key")
)

// Bounds of what is read of a file with a key.
const (
	maxKeyFile    = 256 << 10 // bytes
	maxIterations = 5_000_000 // of PBKDF2: some seconds; OpenSSL's default is 2048
	maxSalt       = 1024      // bytes
)

// howToConvert goes into errors about keys that are encrypted in other ways.
const howToConvert = "convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc"

// ParseKey returns the first private key of a PEM file: PKCS #1, PKCS #8 and SEC 1,
// encrypted by PKCS #5 v2 (PBES2 with PBKDF2 and AES or 3DES in CBC mode, as openssl
// pkcs8 does it; RFC 8018) or the older way of PEM headers. Line ends at the end of
// the passphrase are no part of it; it is not needed for a key that is not encrypted.
// Whether the kind of key is of any use is for NewSigner to say.
//
// Its error wraps ErrEncrypted where a passphrase is missing and ErrPassphrase where
// it is wrong, and says otherwise what the file holds.
func ParseKey(pemText, passphrase []byte) (crypto.Signer, error) {
	if len(pemText) > maxKeyFile {
		return nil, fmt.Errorf("the file has %d bytes: no private key is that long", len(pemText))
	}
	passphrase = bytes.TrimRight(passphrase, "\r\n")
	var found []string
	for rest := pemText; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			key, err := parseKeyBlock(block, passphrase)
			if err != nil {
				return nil, err
			}
			return asSigner(key)
		}
		found = append(found, printable(block.Type))
	}
	if len(found) == 0 {
		return nil, errors.New("the file has no PEM in it; a private key begins with -----BEGIN PRIVATE KEY-----")
	}
	return nil, fmt.Errorf("the file has no private key in it, but: %s", strings.Join(found[:min(len(found), 4)], ", "))
}

func asSigner(key any) (crypto.Signer, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a private key of type %T cannot sign", key)
	}
	return signer, nil
}

func parseKeyBlock(block *pem.Block, passphrase []byte) (any, error) {
	b := block.Bytes
	encrypted := block.Type == "ENCRYPTED PRIVATE KEY"
	legacy := x509.IsEncryptedPEMBlock(block) //nolint:staticcheck // weak, but what openssl rsa -aes128 makes
	if encrypted || legacy {
		if len(passphrase) == 0 {
			return nil, ErrEncrypted
		}
		var err error
		if legacy {
			b, err = x509.DecryptPEMBlock(block, passphrase) //nolint:staticcheck // as above
			if errors.Is(err, x509.IncorrectPasswordError) {
				err = ErrPassphrase
			} else if err != nil {
				err = fmt.Errorf("reading the encrypted private key: %w", err)
			}
		} else {
			b, err = decryptPKCS8(b, passphrase)
		}
		if err != nil {
			return nil, err
		}
	}
	if (encrypted || legacy) && !isSequence(b) {
		return nil, ErrPassphrase // a padding that is right by chance: one in 256
	}
	return parseKeyDER(block.Type, b)
}

// isSequence tells DER of a key from noise.
func isSequence(b []byte) bool {
	s := cryptobyte.String(b)
	return s.SkipASN1(der.SEQUENCE) && s.Empty()
}

func parseKeyDER(kind string, b []byte) (any, error) {
	var key any
	var err error
	switch kind {
	case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b)
	default:
		return nil, fmt.Errorf("the file has a private key of the kind %s, which is not read; %s", printable(kind), howToConvert)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	return key, nil
}

// Object identifiers of PKCS #5 (RFC 8018).
var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

// pseudorandom are PBKDF2's functions.
var pseudorandom = map[string]func() hash.Hash{
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

// blockCiphers are PBES2's, in CBC mode.
var blockCiphers = map[string]struct {
	keySize int
	make    func([]byte) (cipher.Block, error)
}{
	"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
	"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
}

// decryptPKCS8 decrypts EncryptedPrivateKeyInfo (RFC 5958).
func decryptPKCS8(b, passphrase []byte) ([]byte, error) {
	p, rest := &parser{}, cryptobyte.String(b)
	info := p.read(&rest, der.SEQUENCE, "EncryptedPrivateKeyInfo")
	p.end(rest, "EncryptedPrivateKeyInfo")
	scheme := p.read(&info, der.SEQUENCE, "encryption algorithm")
	if id := p.oid(&scheme, "encryption algorithm"); p.err == nil && !id.Equal(oidPBES2) {
		return nil, fmt.Errorf("the private key is encrypted with %v, not with PBES2; %s", id, howToConvert)
	}
	parameters := p.read(&scheme, der.SEQUENCE, "parameters of PBES2")
	derivation := p.read(&parameters, der.SEQUENCE, "key derivation function")
	encryption := p.read(&parameters, der.SEQUENCE, "encryption scheme")
	data := p.read(&info, der.OCTET_STRING, "encrypted data")
	if p.err != nil {
		return nil, fmt.Errorf("reading the encrypted private key: %w", p.err)
	}
	id := p.oid(&encryption, "encryption scheme")
	vector := p.read(&encryption, der.OCTET_STRING, "initialization vector")
	cipherOf, ok := blockCiphers[id.String()]
	if !ok {
		return nil, fmt.Errorf("the private key is encrypted with the cipher %v, which is not read; %s", id, howToConvert)
	}
	key, err := derive(derivation, passphrase, cipherOf.keySize)
	if err != nil {
		return nil, err
	}
	block, err := cipherOf.make(key)
	if err != nil {
		return nil, fmt.Errorf("decrypting the private key: %w", err)
	}
	return decryptCBC(block, vector, data)
}

// derive makes a key of a passphrase, by PBKDF2.
func derive(s cryptobyte.String, passphrase []byte, size int) ([]byte, error) {
	p := &parser{}
	if id := p.oid(&s, "key derivation function"); p.err == nil && !id.Equal(oidPBKDF2) {
		return nil, fmt.Errorf("the private key is encrypted with the key derivation function %v, not with PBKDF2; %s", id, howToConvert)
	}
	parameters := p.read(&s, der.SEQUENCE, "parameters of PBKDF2")
	salt := p.read(&parameters, der.OCTET_STRING, "salt")
	var iterations, length int64
	if p.err == nil && !parameters.ReadASN1Integer(&iterations) {
		p.fail("it has no iteration count where one has to be")
	}
	if parameters.PeekASN1Tag(der.INTEGER) && (!parameters.ReadASN1Integer(&length) || length != int64(size)) {
		p.fail("its key length is %d, not %d", length, size)
	}
	function := sha1.New // the default
	if prf, present := p.optional(&parameters, der.SEQUENCE, "pseudorandom function"); present {
		if function = pseudorandom[p.oid(&prf, "pseudorandom function").String()]; function == nil {
			p.fail("its pseudorandom function is not known here")
		}
	}
	if p.err == nil && (iterations < 1 || iterations > maxIterations || len(salt) > maxSalt) {
		p.fail("it has %d iterations and %d bytes of salt; up to %d and %d are read", iterations, len(salt), maxIterations, maxSalt)
	}
	if p.err != nil {
		return nil, fmt.Errorf("reading the encrypted private key: %w", p.err)
	}
	return pbkdf2.Key(function, string(passphrase), salt, int(iterations), size)
}

// decryptCBC decrypts and takes off the padding. Wrong padding means a wrong
// passphrase.
func decryptCBC(block cipher.Block, vector, data []byte) ([]byte, error) {
	size := block.BlockSize()
	if len(vector) != size || len(data) == 0 || len(data)%size != 0 {
		return nil, errors.New("reading the encrypted private key: its length or that of its initialization vector is wrong")
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, vector).CryptBlocks(plain, data)
	n := int(plain[len(plain)-1])
	if n == 0 || n > size || !bytes.Equal(plain[len(plain)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, ErrPassphrase
	}
	return plain[:len(plain)-n], nil
}

// ParseCertificates reads certificates, in the order of the file: PEM (one or
// several), DER, or EFI signature lists, of which hashes are left out. At most 1 MiB
// and 512 certificates are taken; that there is none is an error.
func ParseCertificates(b []byte) ([]*x509.Certificate, error) {
	l, err := parseLists(b, true)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	if len(l.certificates) == 0 {
		return nil, errors.New("reading certificates: there is none in it")
	}
	return l.certificates, nil
}
