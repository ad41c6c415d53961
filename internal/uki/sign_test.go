package uki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// images are what is signed in tests: small ones of both architectures, one whose
// size is not a multiple of 8, and real ones where they are installed.
func images(t *testing.T) map[string][]byte {
	t.Helper()
	amd64 := greeting(t, uki.AMD64)
	return map[string][]byte{
		"amd64":         amd64,
		"arm64":         greeting(t, uki.ARM64),
		"trailing data": append(bytes.Clone(amd64), "symbols"...),
		"systemd-stub":  stub(t),
		"systemd-boot":  systemdBoot(t), // whose size is not a multiple of 8 either
	}
}

func TestOthersAcceptWhatWeSign(t *testing.T) {
	root, intermediate, leaf := chain(t)
	for name, image := range images(t) {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				signer  *uki.Signer
				trusted *identity
			}{{signer(t, root), root}, {signer(t, leaf, intermediate), root}} {
				signed := sign(t, image, c.signer)
				require.Zero(t, len(signed)%8)
				out, ok := sbverify(t, signed, c.trusted)
				require.True(t, ok, out)
				out, ok = osslsigncode(t, signed, c.trusted)
				require.True(t, ok, out)
				require.NotContains(t, out, "invalid PE checksum")
				s, err := verify(signed, trusting(t, c.trusted))
				require.NoError(t, err)
				require.Equal(t, c.signer.Certificate(), s.Certificate)
				require.Equal(t, root.cert, s.TrustedBy)
				require.Equal(t, crypto.SHA256, s.Hash)
				require.False(t, s.SigningTime.IsZero())
			}
		})
	}
}

func TestWeAcceptWhatOthersSign(t *testing.T) {
	root, intermediate, leaf := chain(t)
	db := trusting(t, root)
	ac := put(t, certPEM(intermediate))
	for name, image := range images(t) {
		t.Run(name, func(t *testing.T) {
			for how, c := range map[string]struct {
				signed []byte
				hash   crypto.Hash
			}{
				"sbsign":                      {sbsign(t, image, leaf, intermediate), crypto.SHA256},
				"osslsigncode":                {osslsign(t, image, leaf, "-ac", ac, "-h", "sha256"), crypto.SHA256},
				"osslsigncode, SHA-384":       {osslsign(t, image, leaf, "-ac", ac, "-h", "sha384"), crypto.SHA384},
				"osslsigncode, SHA-512":       {osslsign(t, image, leaf, "-ac", ac, "-h", "sha512"), crypto.SHA512},
				"osslsigncode, another title": {osslsign(t, image, leaf, "-ac", ac, "-h", "sha256", "-n", "name", "-i", "http://h/"), crypto.SHA256},
			} {
				s, err := verify(c.signed, db)
				require.NoError(t, err, how)
				require.Equal(t, leaf.cert, s.Certificate, how)
				require.Equal(t, c.hash, s.Hash, how)
				require.Equal(t, certificates(leaf, intermediate, root), s.Chain, how)
			}
		})
	}
}

// Page hashes are more that is signed; osslsigncode crashes when it makes those of
// systemd's files.
func TestWeAcceptPageHashes(t *testing.T) {
	id := issue(t, "one", nil)
	s, err := verify(osslsign(t, greeting(t, uki.AMD64), id, "-h", "sha256", "-ph"), trusting(t, id))
	require.NoError(t, err)
	require.Equal(t, id.cert, s.Certificate)
}

func TestSignaturesOfSeveralStandBesideEachOther(t *testing.T) {
	one, other := issue(t, "one", nil), issue(t, "other", nil)
	for name, image := range images(t) {
		for how, signed := range map[string][]byte{
			"sbsign twice":         sbsign(t, sbsign(t, image, one), other),
			"ours on sbsign's":     sign(t, sbsign(t, image, one), signer(t, other)),
			"sbsign's on ours":     sbsign(t, sign(t, image, signer(t, one)), other),
			"ours twice":           sign(t, sign(t, image, signer(t, one)), signer(t, other)),
			"ours on osslsigncode": sign(t, osslsign(t, image, one), signer(t, other)),
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				all := signatures(t, signed)
				require.Len(t, all, 2)
				for i, id := range []*identity{one, other} {
					require.NoError(t, all[i].Err)
					require.Equal(t, id.cert, all[i].Certificate)
					s, err := verify(signed, trusting(t, id))
					require.NoError(t, err)
					require.Equal(t, id.cert, s.Certificate)
					out, ok := sbverify(t, signed, id)
					require.True(t, ok, out)
				}
			})
		}
	}
}

// osslsigncode does not add an entry to the table but hides its signature within the
// one that is there, where firmware does not look for it.
func TestANestedSignatureCountsForNothing(t *testing.T) {
	one, other := issue(t, "one", nil), issue(t, "other", nil)
	nested := osslsign(t, sign(t, greeting(t, uki.AMD64), signer(t, one)), other, "-nest")
	all := signatures(t, nested)
	require.Len(t, all, 1)
	require.NoError(t, all[0].Err)
	_, err := verify(nested, trusting(t, one))
	require.NoError(t, err)
	_, err = verify(nested, trusting(t, other))
	require.ErrorIs(t, err, uki.ErrUntrusted)
}

func TestSigningChangesNothingElse(t *testing.T) {
	image := systemdBoot(t)
	before, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	signed := sign(t, image, signer(t, issue(t, "one", nil)))
	after, err := uki.Hash(bytes.NewReader(signed), int64(len(signed)))
	require.NoError(t, err)
	require.Equal(t, before, after)
	peOffset := int(binary.LittleEndian.Uint32(image[0x3c:]))
	for _, field := range [][2]int{{peOffset + 24 + 64, 4}, {peOffset + 24 + 112 + 32, 8}} {
		clear(image[field[0]:][:field[1]])
		clear(signed[field[0]:][:field[1]])
	}
	require.Equal(t, image, signed[:len(image)])
	require.Equal(t, make([]byte, -len(image)&7), signed[len(image):][:-len(image)&7])
}

func TestACertificateTableIsLaidOutAsTheSpecificationSays(t *testing.T) {
	require.Empty(t, uki.CertificateTable())
	table := uki.CertificateTable([]byte("12345"), []byte("12345678"))
	require.Equal(t, "\x10\x00\x00\x00\x00\x02\x02\x00"+"12345\x00\x00\x00"+"\x10\x00\x00\x00\x00\x02\x02\x00"+"12345678", string(table))
}

func TestSignRefusesWhatItCannotSign(t *testing.T) {
	s := signer(t, issue(t, "one", nil))
	const optional = 64 + 24
	le := binary.LittleEndian
	for _, c := range []struct {
		name  string
		image func(b []byte) []byte
		is    error
		want  string
	}{
		{"no PE file", func([]byte) []byte { return []byte("\x1f\x8b\x08") }, uki.ErrNotPE, "gzip"},
		{"no entry for the table", func(b []byte) []byte { le.PutUint32(b[optional+108:], 4); return b }, uki.ErrNoRoom, "data directory ends"},
		{"an entry beyond the header", func(b []byte) []byte { le.PutUint16(b[64+20:], 128); return b }, uki.ErrMalformed, ""},
		{"a damaged table", func(b []byte) []byte { return withTable(b, []byte("damaged!")) }, uki.ErrMalformed, "entry 1"},
		{"a full table", func(b []byte) []byte { return withTable(b, bytes.Repeat(uki.CertificateTable([]byte("x")), 16)) }, uki.ErrNoRoom, "16 signatures"},
		{"a table without room", func(b []byte) []byte { return withTable(b, uki.CertificateTable(make([]byte, 1<<20-8))) }, uki.ErrNoRoom, "would have 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := c.image(greeting(t, uki.AMD64))
			err := uki.Sign(io.Discard, bytes.NewReader(image), int64(len(image)), s)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// longFile is one that goes on with zeroes, as long as anybody reads.
type longFile struct{ head []byte }

func (z longFile) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	if at < int64(len(z.head)) {
		copy(b, z.head[at:])
	}
	return len(b), nil
}

func TestSignRefusesAFileThatWouldPassFourGiB(t *testing.T) {
	image := longFile{greeting(t, uki.AMD64)}
	err := uki.Sign(io.Discard, image, 1<<32-100, signer(t, issue(t, "one", nil)))
	require.ErrorIs(t, err, uki.ErrNoRoom)
	require.ErrorContains(t, err, "4 GiB")
}

func TestSignPassesErrorsOn(t *testing.T) {
	broken := errors.New("disk on fire")
	s := signer(t, issue(t, "one", nil))
	require.ErrorIs(t, uki.Sign(io.Discard, brokenReader{broken}, 1<<20, s), broken)
	image := greeting(t, uki.AMD64)
	require.ErrorIs(t, uki.Sign(fullDisk{broken}, bytes.NewReader(image), int64(len(image)), s), broken)
}

type fullDisk struct{ err error }

func (b fullDisk) Write([]byte) (int, error) { return 0, b.err }

func TestOnlyKeysThatFirmwareKnowsSign(t *testing.T) {
	root, intermediate, leaf := chain(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	for _, c := range []struct {
		name  string
		key   crypto.Signer
		certs []*x509.Certificate
		want  string
	}{
		{"no key", nil, certificates(leaf), "a private key and its certificate"},
		{"no certificate", leaf.key, nil, "a private key and its certificate"},
		{"ECDSA", ec, certificates(issueFor(t, ec, "ec", nil)), "not RSA"},
		{"Ed25519", ed, certificates(issueFor(t, ed, "ed", nil)), "not RSA"},
		{"RSA with 1024 bits", small, certificates(issueFor(t, small, "small", nil)), "1024 bits"},
		{"RSA with 16384 bits", huge{}, certificates(leaf), "16384 bits"},
		{"another's certificate", leaf.key, certificates(intermediate), "does not belong to the certificate CN=intermediate"},
		{"certificates in the wrong order", leaf.key, certificates(intermediate, leaf), "has to come first"},
		{"an intermediate that is no CA", leaf.key, certificates(leaf, issue(t, "other", root)), "CN=other is not that of a CA"},
		{"too many intermediates", leaf.key, certificates(leaf, root, root, root, root, root, root, root, root), "too many"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := uki.NewSigner(c.key, c.certs...)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// huge says that it has a key of 16384 bits.
type huge struct{ crypto.Signer }

func (huge) Public() crypto.PublicKey {
	key := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 16383), E: 65537}
	return key
}

// lying is a key that signs something else, as a broken HSM might.
type lying struct{ crypto.Signer }

func (l lying) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return l.Signer.Sign(random, bytes.Repeat([]byte{1}, len(digest)), o)
}

// refusing is a key that is out of reach.
type refusing struct{ crypto.Signer }

func (refusing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the HSM is on holiday")
}

func TestASignatureIsVerifiedBeforeItIsHandedOut(t *testing.T) {
	id := issue(t, "one", nil)
	_, err := signer(t, &identity{lying{id.key}, id.cert}).SignHash([32]byte{1})
	require.ErrorContains(t, err, "verifying what was signed as CN=one")
	_, err = signer(t, &identity{refusing{id.key}, id.cert}).SignHash([32]byte{1})
	require.ErrorContains(t, err, "signing as CN=one: the HSM is on holiday")
}
