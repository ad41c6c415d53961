package uki_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/foxboron/go-uefi/authenticode"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// verdicts are what three programs think of one file. Where they do not agree, why
// says who is right.
type verdicts struct {
	ours, sbverify, osslsigncode bool
	why                          string
}

var (
	accepted = verdicts{true, true, true, ""}
	refused  = verdicts{false, false, false, ""}
)

// differ is for files about which the others disagree with us.
func differ(ours, sbverify, osslsigncode bool, why string) verdicts {
	return verdicts{ours, sbverify, osslsigncode, why}
}

// Reasons why others come to another verdict.
const (
	byOpenSSL     = "Authenticode wants contentType, and each attribute once; OpenSSL's PKCS7_verify, which the others ask, looks for a messageDigest that is right"
	oneSigner     = "Authenticode has one signer; OpenSSL verifies each"
	looseDER      = "OpenSSL's decoder is content with it; Authenticode says DER, and what is in it"
	looseTable    = "sbverify is content with the entries that it can read; EDK2 refuses a table that does not end with an entry"
	loosePadding  = "padding is zeroes; the others do not look at it, and nobody signs it"
	ourBounds     = "nobody has a file like this one; the bound is one of time and memory"
	givesUp       = "sbverify gives up at an entry that it cannot read, osslsigncode takes tables of one entry alone; firmware tries each"
	oneEntry      = "osslsigncode takes tables of one entry alone; firmware tries each"
	noAttributes  = "PKCS #7 has signatures without signed attributes, Authenticode has not"
	oldHash       = "osslsigncode takes SHA-1; no firmware has to"
	smallKey      = "UEFI wants 2048 bits; OpenSSL leaves that to whoever configures it"
	gapsUncovered = "osslsigncode hashes each byte of the file; the specification, EDK2 and sbsign leave out what is between sections, and hash the end twice"
)

// judge holds our verdict to what is expected, and the others' to it or to what is
// known of them.
func judge(t *testing.T, image []byte, trusted *identity, want verdicts) {
	t.Helper()
	s, err := verify(image, trusting(t, trusted))
	if err == nil {
		require.NotNil(t, s.TrustedBy)
	} else {
		known := errors.Is(err, uki.ErrUntrusted) || errors.Is(err, uki.ErrUnsigned) || errors.Is(err, uki.ErrMalformed) || errors.Is(err, uki.ErrNotPE)
		require.True(t, known, "an error of no known kind: %v", err)
	}
	bySbverify, ok1 := sbverify(t, image, trusted)
	byOsslsigncode, ok2 := osslsigncode(t, image, trusted)
	require.Equal(t, want, verdicts{err == nil, ok1, ok2, want.why}, "ours: %v\nsbverify: %s\nosslsigncode: %s", err, bySbverify, byOsslsigncode)
	alike := want == accepted || want == refused
	require.Equal(t, alike, want.why == "", "a difference has a reason, and nothing else does")
}

func TestEveryByteOfAnImageCounts(t *testing.T) {
	id := issue(t, "one", nil)
	image := append(greeting(t, uki.AMD64), "trailing"...)
	signed := sign(t, image, signer(t, id))
	judge(t, signed, id, accepted)
	const pe = 64
	at, _ := table(signed)
	for name, c := range map[string]struct {
		offset int
		want   verdicts
	}{
		"DOS header":               {4, refused},
		"time stamp":               {pe + 8, refused},
		"entry point":              {pe + 24 + 16, refused},
		"image version":            {pe + 24 + 44, refused},
		"checksum":                 {pe + 24 + 64, accepted},
		"data directory before":    {pe + 24 + 112 + 8, refused},
		"data directory after":     {pe + 24 + 112 + 40, refused},
		"section table":            {pe + 24 + 240 + 36, refused},
		"behind the section table": {pe + 24 + 240 + 3*40, refused},
		"first section":            {0x1000, refused},
		"last section":             {len(image) - 9, refused},
		"trailing data":            {len(image) - 1, refused},
	} {
		t.Run(name, func(t *testing.T) {
			require.Less(t, c.offset, at)
			altered := bytes.Clone(signed)
			altered[c.offset] ^= 1
			judge(t, altered, id, c.want)
		})
	}
	t.Run("behind the table", func(t *testing.T) {
		judge(t, append(bytes.Clone(signed), make([]byte, 8)...), id, refused)
	})
	t.Run("padding between image and table", func(t *testing.T) {
		signed := sign(t, append(image, "odd"...), signer(t, id))
		judge(t, signed, id, accepted)
		signed[len(image)+3] = 1
		judge(t, signed, id, refused)
	})
}

// The digest in the signature's content is replaced by another file's, and the
// signature is put on that file. The attributes, which hold the digest of the old
// content, and the signature over them are still right.
func TestAReplacedDigestIsNotACorrectSignature(t *testing.T) {
	id := issue(t, "one", nil)
	image, other := greeting(t, uki.AMD64), greeting(t, uki.ARM64)
	of := func(image []byte) []byte {
		hash, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
		require.NoError(t, err)
		return hash[:]
	}
	signature := forge(t, image, id)
	judge(t, withSignatures(image, signature), id, accepted)
	require.Equal(t, 1, bytes.Count(signature, of(image)))
	fixture := withSignatures(other, bytes.Replace(signature, of(image), of(other), 1))

	judge(t, fixture, id, refused)
	_, err := verify(fixture, trusting(t, id))
	require.ErrorContains(t, err, "messageDigest attribute is not the digest of its content")
	parsed, err := authenticode.Parse(bytes.NewReader(fixture))
	require.NoError(t, err)
	fooled, err := parsed.Verify(id.cert)
	require.NoError(t, err)
	require.True(t, fooled, "go-uefi finds it out now: let it verify, too?")
}

func TestEveryPartOfASignatureCounts(t *testing.T) {
	id, other := issue(t, "one", nil), issue(t, "other", nil)
	image := greeting(t, uki.AMD64)
	octets := func(b ...byte) []byte { return encoded(t, b) }
	zero := make([]byte, 32)
	for _, c := range []struct {
		name   string
		change func(*forgery)
		want   verdicts
		says   string
	}{
		{"nothing", func(*forgery) {}, accepted, ""},
		{"an attribute that is not known", adding(asn1.ObjectIdentifier{1, 2, 3}, octets(1)), accepted, ""},
		{"attributes in another order", func(f *forgery) { f.attributes = func(a []attribute) []attribute { slices.Reverse(a); return a } }, accepted, ""},
		{"no signing time", without(oidSigningTime), accepted, ""},
		{"RSA with SHA-256 by name", func(f *forgery) { f.signatureAlgorithm = oidSHA256RSA }, accepted, ""},
		{"no parameters of the signature algorithm", func(f *forgery) { f.parameters = nil }, accepted, ""},
		{"other certificates", func(f *forgery) { f.certificates = []*identity{other, id} }, accepted, ""},

		{"the image's digest", func(f *forgery) { f.image = zero }, refused, "of another image"},
		{"a digest that is too long", func(f *forgery) { f.image = append(f.image, 0) }, differ(false, false, true, looseDER), "33 bytes"},
		{"a digest that is too short", func(f *forgery) { f.image = f.image[:31] }, refused, "31 bytes"},
		{"no digest", func(f *forgery) { f.image = nil }, refused, "0 bytes"},
		{"no messageDigest", without(oidMessageDigest), refused, "no messageDigest attribute"},
		{"wrong messageDigest", replacing(oidMessageDigest, encoded(t, zero)), refused, "not the digest of its content"},
		{"empty messageDigest", replacing(oidMessageDigest, encoded(t, []byte{})), refused, "not the digest of its content"},
		{"two messageDigests, the second wrong", adding(oidMessageDigest, encoded(t, zero)), differ(false, true, true, byOpenSSL), "two messageDigest"},
		{"messageDigest of two values", replacing(oidMessageDigest, encoded(t, zero), encoded(t, zero)), refused, "has to have one value"},
		{"messageDigest without value", replacing(oidMessageDigest), refused, "value of its messageDigest"},
		{"no contentType", without(oidContentType), differ(false, true, true, byOpenSSL), "no contentType attribute"},
		{"wrong contentType", replacing(oidContentType, encoded(t, oidData)), differ(false, true, true, byOpenSSL), "contentType attribute is 1.2.840.113549.1.7.1"},
		{"two contentTypes", adding(oidContentType, encoded(t, oidIndirectData)), differ(false, true, true, byOpenSSL), "two contentType"},
		{"contentType of two values", replacing(oidContentType, encoded(t, oidIndirectData), encoded(t, oidData)), refused, "has to have one value"},
		{"no attributes", func(f *forgery) { f.noAttributes = true }, differ(false, true, true, noAttributes), "no signed attributes"},
		{"many attributes", func(f *forgery) {
			f.attributes = func(a []attribute) []attribute {
				return append(a, slices.Repeat([]attribute{{asn1.ObjectIdentifier{1, 2, 3}, nil}}, 64)...)
			}
		}, differ(false, true, true, ourBounds), "more than 64"},

		{"the signature's first byte", func(f *forgery) { f.signature = flipped(0) }, refused, "was not made with the key"},
		{"the signature's last byte", func(f *forgery) { f.signature = flipped(255) }, refused, "was not made with the key"},
		{"a shorter signature", func(f *forgery) { f.signature = func(s []byte) []byte { return s[:255] } }, refused, "was not made with the key"},
		{"no signature", func(f *forgery) { f.signature = func([]byte) []byte { return nil } }, refused, "was not made with the key"},
		{"another's key", func(f *forgery) { f.signer = &identity{other.key, id.cert} }, refused, "was not made with the key"},
		{"another's certificate", func(f *forgery) { f.certificates = []*identity{other} }, refused, "not among the 1"},
		{"no certificate", func(f *forgery) { f.certificates = nil }, refused, "not among the 0"},
		{"a serial number without end", func(f *forgery) { f.longSerial = true }, refused, "no serial number"},
		{"an object identifier without end", adding(slices.Repeat(asn1.ObjectIdentifier{1}, 33), octets(1)), differ(false, true, true, ourBounds), "no type of a signed attribute"},
		{"another serial number", func(f *forgery) { f.serial = 1 }, refused, "not among the 1"},
		{"a certificate that cannot be read", func(f *forgery) { f.certificates, f.certificatesDER = nil, []byte{0x30, 0} }, refused, "its certificate 1 cannot be read"},
		{"many certificates", func(f *forgery) { f.certificates = slices.Repeat([]*identity{id}, 33) }, differ(false, true, true, ourBounds), "more than 32"},
		{"no signer", func(f *forgery) { f.signers = 0 }, refused, "no signer"},
		{"two signers", func(f *forgery) { f.signers = 2 }, differ(false, true, false, oneSigner), "set of signers, which has to have one"},

		{"not SignedData", func(f *forgery) { f.signedData = oidData }, refused, "not SignedData"},
		{"content of another type", func(f *forgery) { f.contentType = oidContentType }, differ(false, true, false, looseDER), "not SpcIndirectDataContent"},
		{"a signature of a cabinet file", func(f *forgery) { f.imageType = oidCabinetData }, differ(false, true, true, looseDER), "not of a PE image"},
		{"version 3", func(f *forgery) { f.version = 3 }, differ(false, true, true, looseDER), "SignedData is not of version 1"},
		{"signer of version 3", func(f *forgery) { f.signerVersion = 3 }, differ(false, true, true, looseDER), "signer is not of version 1"},
		{"a second digest algorithm", func(f *forgery) { f.digestAlgorithms = append(f.digestAlgorithms, oidSHA384) }, differ(false, true, true, looseDER), "which has to have one"},
		{"another digest algorithm", func(f *forgery) { f.digestAlgorithms = []asn1.ObjectIdentifier{oidSHA384} }, refused, "SHA-256"},
		{"another algorithm of the signer", func(f *forgery) { f.signerAlgorithm = oidSHA384 }, refused, "SHA-384"},
		{"ECDSA by name", func(f *forgery) { f.signatureAlgorithm = oidECDSASHA256 }, differ(false, true, true, looseDER), "is ECDSA with SHA-256"},
		{"parameters", func(f *forgery) { f.parameters = []byte{2, 1, 1} }, differ(false, true, true, looseDER), "something follows"},
		{"something behind the content", func(f *forgery) { f.afterContent = []byte{5, 0} }, refused, "something follows in its SpcIndirectDataContent"},
		{"something behind the digest", func(f *forgery) { f.afterDigest = []byte{5, 0} }, refused, "something follows in its DigestInfo"},
		{"something behind the signers", func(f *forgery) { f.afterSignedData = []byte{5, 0} }, refused, "something follows in its SignedData"},
		{"something in the signer", func(f *forgery) { f.afterSigner = []byte{5, 0} }, refused, "something follows in its signer"},
		{"something behind all", func(f *forgery) { f.afterEverything = []byte{1} }, differ(false, true, true, looseDER), "follow its PKCS #7 data"},
		{"many zeroes behind all", func(f *forgery) { f.afterEverything = make([]byte, 8) }, differ(false, true, true, looseDER), "follow its PKCS #7 data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			signed := withSignatures(image, forge(t, image, id, c.change))
			judge(t, signed, id, c.want)
			all := signatures(t, signed)
			require.Len(t, all, 1)
			if c.want.ours {
				require.NoError(t, all[0].Err)
				return
			}
			require.ErrorContains(t, all[0].Err, c.says)
			_, err := verify(signed, trusting(t, id))
			require.ErrorIs(t, err, uki.ErrUntrusted)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func flipped(i int) func([]byte) []byte {
	return func(s []byte) []byte {
		s[i] ^= 1
		return s
	}
}

func TestSHA1IsNoHash(t *testing.T) {
	id := issue(t, "one", nil)
	image := greeting(t, uki.AMD64)
	signed := osslsign(t, image, id, "-h", "sha1")
	judge(t, signed, id, differ(false, false, true, oldHash))
	_, err := verify(signed, trusting(t, id))
	require.ErrorContains(t, err, "digest algorithm is SHA-1")
	one := withSignatures(image, forge(t, image, id, func(f *forgery) { f.imageAlgorithm = oidSHA1 }))
	require.ErrorContains(t, signatures(t, one)[0].Err, "image digest algorithm is SHA-1")
}

func TestATableThatFirmwareCannotReadIsMalformed(t *testing.T) {
	id := issue(t, "one", nil)
	image := greeting(t, uki.AMD64)
	signature := forge(t, image, id)
	le := binary.LittleEndian
	good := withSignatures(image, signature)
	judge(t, good, id, accepted)
	at, size := table(good)
	entryLength := func(length int) []byte {
		b := bytes.Clone(good)
		le.PutUint32(b[at:], uint32(length))
		return b
	}
	directory := func(at, size int) []byte {
		b := bytes.Clone(good)
		setTable(b, at, size)
		return b
	}
	unpadded := 8 + len(signature)
	require.NotZero(t, unpadded%8, "the signature has to need padding")
	for _, c := range []struct {
		name  string
		image []byte
		want  verdicts
		says  string
	}{
		{"table far past the end", directory(at, 1<<31), refused, "the file has"},
		{"table that begins past the end", directory(len(good)+8, size), refused, "the file has"},
		{"table that ends before the file", directory(at, size-8), refused, "8 bytes follow its certificate table"},
		{"table that begins in a section", directory(at-16, size+16), refused, "beyond byte"},
		{"table that begins at no multiple of 8", directory(at+4, size-4), refused, "not at a multiple of 8"},
		{"table in the headers", directory(0, len(good)), refused, ""},
		{"entry length 0", entryLength(0), refused, "no more than its header"},
		{"entry length 7", entryLength(7), refused, "no more than its header"},
		{"entry length 8", entryLength(8), refused, "no more than its header"},
		{"entry longer than the table", entryLength(size + 1), differ(false, true, false, looseTable), "but"},
		{"entry of 4 GiB", entryLength(1<<32 - 1), refused, "but"},
		{"entry that is too short", entryLength(size - 8), refused, ""},
		{"padding that the length does not count", entryLength(unpadded), accepted, ""},
		{"padding of something else", func() []byte {
			b := entryLength(unpadded)
			b[len(b)-1] = 1
			return b
		}(), differ(false, true, true, loosePadding), "padded with something else"},
		{"padding of something else, counted", func() []byte {
			b := bytes.Clone(good)
			b[len(b)-1] = 1
			return b
		}(), differ(false, true, true, loosePadding), "follow its PKCS #7 data"},
		{"no padding at the end of the file", func() []byte {
			b := directory(at, unpadded)
			le.PutUint32(b[at:], uint32(unpadded))
			return b[:at+unpadded]
		}(), differ(false, true, false, looseTable), "are left"},
		{"eight more bytes in the table", withTable(image, append(uki.CertificateTable(signature), make([]byte, 8)...)), differ(false, true, false, looseTable), "8 bytes are left"},
		{"an empty second entry", withTable(image, slices.Concat(uki.CertificateTable(signature), []byte{8, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0})), differ(false, true, false, looseTable), "no more than its header"},
		{"17 entries", withTable(image, bytes.Repeat(uki.CertificateTable(signature), 17)), differ(false, true, false, ourBounds), "more than 16 entries"},
		{"more than a megabyte", withTable(image, append(uki.CertificateTable(signature), uki.CertificateTable(make([]byte, 1<<20))...)), differ(false, true, false, ourBounds), "are not read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judge(t, c.image, id, c.want)
			if c.want.ours {
				return
			}
			_, err := verify(c.image, trusting(t, id))
			require.ErrorContains(t, err, c.says)
		})
	}
	// sbverify reads beyond the file here, and its verdict is that of chance.
	_, err := verify(directory(at, size+8), trusting(t, id))
	require.ErrorIs(t, err, uki.ErrMalformed)
	require.ErrorContains(t, err, "the file has")
}

func TestAnEntryOfAnotherKindIsNoSignature(t *testing.T) {
	id := issue(t, "one", nil)
	image := greeting(t, uki.AMD64)
	good := withSignatures(image, forge(t, image, id))
	at, _ := table(good)
	for name, c := range map[string]struct {
		offset int
		value  uint16
		want   verdicts
	}{
		"revision 1": {4, 0x0100, refused},
		"X.509":      {6, 0x0001, refused},
		"EFI GUID":   {6, 0x0ef1, refused},
	} {
		t.Run(name, func(t *testing.T) {
			image := bytes.Clone(good)
			binary.LittleEndian.PutUint16(image[at+c.offset:], c.value)
			judge(t, image, id, c.want)
			_, err := verify(image, trusting(t, id))
			require.ErrorIs(t, err, uki.ErrUntrusted)
			require.ErrorContains(t, err, "signature 1: it is an entry of revision")
		})
	}
}

func TestEachSignatureIsTried(t *testing.T) {
	id, other := issue(t, "one", nil), issue(t, "other", nil)
	image := greeting(t, uki.AMD64)
	good, altered := forge(t, image, id), forge(t, image, id, func(f *forgery) { f.signature = flipped(3) })
	foreign, garbage := forge(t, image, other), []byte("not DER at all")
	sha1 := forge(t, image, id, func(f *forgery) { f.digestAlgorithms = []asn1.ObjectIdentifier{oidSHA1} })
	for name, c := range map[string]struct {
		signatures [][]byte
		want       verdicts
	}{
		"good, altered":    {[][]byte{good, altered}, differ(true, true, false, oneEntry)},
		"good, garbage":    {[][]byte{good, garbage}, differ(true, true, false, oneEntry)},
		"altered, good":    {[][]byte{altered, good}, differ(true, true, false, oneEntry)},
		"foreign, good":    {[][]byte{foreign, good}, differ(true, true, false, oneEntry)},
		"SHA-1, good":      {[][]byte{sha1, good}, differ(true, true, false, oneEntry)},
		"garbage, good":    {[][]byte{garbage, good}, differ(true, false, false, givesUp)},
		"altered, altered": {[][]byte{altered, altered}, refused},
		"foreign, altered": {[][]byte{foreign, altered}, refused},
	} {
		t.Run(name, func(t *testing.T) {
			signed := withSignatures(image, c.signatures...)
			judge(t, signed, id, c.want)
			require.Len(t, signatures(t, signed), 2)
		})
	}
	_, err := verify(withSignatures(image, foreign, altered, garbage), trusting(t, id))
	require.ErrorIs(t, err, uki.ErrUntrusted)
	require.ErrorContains(t, err, "signature 1 by CN=other (certificate ")
	require.ErrorContains(t, err, "no certificate of db vouches for it; its issuer is CN=other; signature 2 by CN=one (certificate ")
	require.ErrorContains(t, err, "was not made with the key of its certificate, or was altered since; signature 3: it has no PKCS #7 ContentInfo")
}

func TestAnErrorAboutManySignaturesIsShort(t *testing.T) {
	long := issue(t, "one", nil)
	image := greeting(t, uki.AMD64)
	_, err := verify(withSignatures(image, slices.Repeat([][]byte{forge(t, image, long)}, 16)...), trusting(t, issue(t, "other", nil)))
	require.ErrorIs(t, err, uki.ErrUntrusted)
	require.ErrorContains(t, err, "; 12 more")
}

func TestAFileWithoutSignatureIsUnsigned(t *testing.T) {
	id := issue(t, "one", nil)
	image := greeting(t, uki.AMD64)
	require.Empty(t, signatures(t, image))
	judge(t, image, id, refused)
	_, err := verify(image, trusting(t, id))
	require.ErrorIs(t, err, uki.ErrUnsigned)
	binary.LittleEndian.PutUint32(image[64+24+108:], 4) // no entry of the certificate table
	_, err = verify(image, trusting(t, id))
	require.ErrorIs(t, err, uki.ErrUnsigned)
	_, err = verify(sign(t, greeting(t, uki.AMD64), signer(t, id)), nil)
	require.ErrorIs(t, err, uki.ErrUntrusted, "no database trusts nobody")
}

func TestVerifyPassesOnAReadersError(t *testing.T) {
	broken := errors.New("disk on fire")
	_, err := uki.Verify(brokenReader{broken}, 1<<20, trusting(t, issue(t, "one", nil)), uki.VerifyOptions{})
	require.ErrorIs(t, err, broken)
	for _, is := range []error{uki.ErrUnsigned, uki.ErrUntrusted, uki.ErrMalformed, uki.ErrNotPE} {
		require.NotErrorIs(t, err, is, "a bad disk must not condemn the image")
	}
	image := sign(t, greeting(t, uki.AMD64), signer(t, issue(t, "one", nil)))
	for at := range int64(len(image)) / 512 {
		_, err = uki.Signatures(failsAt{bytes.NewReader(image), at * 512, broken}, int64(len(image)))
		require.ErrorIs(t, err, broken)
	}
}

// failsAt is a disk with a bad sector.
type failsAt struct {
	r   *bytes.Reader
	at  int64
	err error
}

func (f failsAt) ReadAt(b []byte, at int64) (int, error) {
	if at <= f.at && f.at < at+int64(len(b)) {
		return 0, f.err
	}
	return f.r.ReadAt(b, at)
}

func TestACutFileIsMalformed(t *testing.T) {
	image := sign(t, greeting(t, uki.AMD64), signer(t, issue(t, "one", nil)))
	for size := 600; size < len(image); size += 511 {
		_, err := uki.Signatures(bytes.NewReader(image[:size]), int64(len(image)))
		require.ErrorIs(t, err, uki.ErrMalformed, size)
		_, err = uki.Signatures(bytes.NewReader(image[:size]), int64(size))
		require.ErrorIs(t, err, uki.ErrMalformed, size)
	}
}

func TestSmallAndHugeKeysAreNotVerifiedWith(t *testing.T) {
	image := greeting(t, uki.AMD64)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	id := issueFor(t, small, "small", nil)
	judge(t, withSignatures(image, forge(t, image, id)), id, differ(false, true, true, smallKey))
	_, err = verify(withSignatures(image, forge(t, image, id)), trusting(t, id))
	require.ErrorContains(t, err, "an RSA key of 1024 bits")
}

func TestASignatureSaysWhatIsKnownOfIt(t *testing.T) {
	root, intermediate, leaf := chain(t)
	s := signatures(t, sign(t, greeting(t, uki.AMD64), signer(t, leaf, intermediate)))[0]
	require.NoError(t, s.Err)
	require.Equal(t, leaf.cert, s.Certificate)
	require.Equal(t, "CN=leaf", s.Signer())
	require.Equal(t, certificates(intermediate), s.Intermediates)
	require.Equal(t, crypto.SHA256, s.Hash)
	require.Nil(t, s.Chain, "nothing is said of trust")
	require.Nil(t, s.TrustedBy)
	require.NotEqual(t, root.cert, s.Certificate)
	require.Equal(t, "nobody who is known", uki.Signature{}.Signer())
}

// Firmware computes no checksum, and everything else counts, byte by byte.
func TestNoByteOfASignedFileMayChange(t *testing.T) {
	root, intermediate, leaf := chain(t)
	db := trusting(t, root)
	const checksum = 64 + 24 + 64
	for _, signed := range [][]byte{sign(t, tiny(t), signer(t, leaf, intermediate)), sbsign(t, tiny(t), root)} {
		_, err := verify(signed, db)
		require.NoError(t, err)
		for i := range signed {
			for _, mask := range []byte{1, 0x80} {
				signed[i] ^= mask
				_, err := verify(signed, db)
				require.Equal(t, i >= checksum && i < checksum+4, err == nil, "byte %d", i)
				signed[i] ^= mask
			}
			_, err := verify(signed[:i], db)
			require.Error(t, err, "up to byte %d", i)
		}
	}
}
