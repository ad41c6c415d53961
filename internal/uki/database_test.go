package uki_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// Types of EFI signature lists.
const (
	x509List       = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
	sha256List     = "c1c41626-504c-4092-aca9-41f936934328"
	sha512List     = "093e0fae-a6c4-4f50-9f1b-d41e2b89c19a"
	x509SHA256List = "3bd2a492-96c0-4079-b420-fcf98ef103ed"
	x509SHA512List = "446dbf63-2502-4cda-bcfa-2465d2b0fe9d"
	rsa2048List    = "3c5766e8-269c-4e34-aa14-ed776e85b3b6"
	owner          = "11111111-2222-3333-4444-123456789abc"
)

// guid encodes a GUID as EFI does.
func guid(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil {
		panic(err)
	}
	slices.Reverse(b[:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

// list is an EFI signature list of entries that have one size.
func list(id string, entries ...[]byte) []byte {
	size := 16 + len(entries[0])
	b := guid(id)
	b = binary.LittleEndian.AppendUint32(b, uint32(28+size*len(entries)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	for _, e := range entries {
		b = append(append(b, guid(owner)...), e...)
	}
	return b
}

// efiTime encodes a time as EFI does.
func efiTime(at time.Time) []byte {
	at = at.UTC()
	b := binary.LittleEndian.AppendUint16(nil, uint16(at.Year()))
	b = append(b, byte(at.Month()), byte(at.Day()), byte(at.Hour()), byte(at.Minute()), byte(at.Second()))
	return append(b, make([]byte, 16-len(b))...)
}

func TestADatabaseIsReadInAllItsFormats(t *testing.T) {
	one, other := issue(t, "one", nil), issue(t, "other", nil)
	both := certificates(one, other)
	toList := func(id *identity) []byte {
		output := put(t, nil)
		mustRun(t, program(t, "cert-to-efi-sig-list", "efitools"), "-g", owner, put(t, certPEM(id)), output)
		return read(t, output)
	}
	lists := append(toList(one), toList(other)...)
	require.Equal(t, list(x509List, one.cert.Raw), toList(one), "as the tool makes it")
	signedUpdate := filepath.Join(t.TempDir(), "db.auth")
	mustRun(t, program(t, "sign-efi-sig-list", "efitools"), "-k", put(t, keyPEM(t, one)), "-c", put(t, certPEM(one)), "db", put(t, lists), signedUpdate)
	for name, db := range map[string][]byte{
		"PEM":                                  certPEM(one, other),
		"PEM with text around it":              slices.Concat([]byte("subject=one\n"), certPEM(one), []byte("\n# other\n"), certPEM(other), []byte("bye\n")),
		"DER":                                  append(bytes.Clone(one.cert.Raw), other.cert.Raw...),
		"signature lists":                      lists,
		"a variable of Linux":                  append([]byte{0x27, 0, 0, 0}, lists...),
		"a signed update":                      read(t, signedUpdate),
		"types that are not known among lists": slices.Concat(list(rsa2048List, make([]byte, 256)), lists, list("00000000-0000-0000-0000-000000000001", []byte{1})),
		"hashes of certificates among lists":   slices.Concat(list(x509SHA256List, make([]byte, 48)), lists),
	} {
		t.Run(name, func(t *testing.T) {
			d, err := uki.ParseDatabase(db, nil)
			require.NoError(t, err)
			require.Equal(t, both, d.Certificates())
			parsed, err := uki.ParseCertificates(db)
			require.NoError(t, err)
			require.Equal(t, both, parsed)
			image := sign(t, greeting(t, uki.AMD64), signer(t, other))
			s, err := verify(image, d)
			require.NoError(t, err)
			require.Equal(t, other.cert, s.TrustedBy)
		})
	}
}

func TestCertificatesOfADatabaseCannotBeChanged(t *testing.T) {
	db := trusting(t, issue(t, "one", nil))
	db.Certificates()[0] = issue(t, "other", nil).cert
	require.Equal(t, "CN=one", uki.Subject(db.Certificates()[0]))
}

func TestABadDatabaseIsRefused(t *testing.T) {
	one := issue(t, "one", nil)
	good := list(x509List, one.cert.Raw)
	patch := func(offset int, value uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[offset:], value)
		return b
	}
	for _, c := range []struct {
		name string
		db   []byte
		says string
	}{
		{"nothing", nil, "reading db: it is empty"},
		{"a line end", []byte("\n"), "it is empty"},
		{"text", []byte("certificates, please, and some more of them"), "neither certificates (PEM, DER) nor EFI signature lists"},
		{"short text", []byte("hello"), "list 1 has only 5 bytes"},
		{"a private key", keyPEM(t, one), "PEM block 1 is a PRIVATE KEY"},
		{"a damaged certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.cert.Raw[:100]}), "PEM block 1: reading a certificate"},
		{"damaged PEM", certPEM(one)[:100], "damaged"},
		{"damaged PEM behind a good one", append(certPEM(one), certPEM(one)[:100]...), "1 of its 2 PEM blocks are damaged"},
		{"damaged PEM before a good one", bytes.Replace(certPEM(one, one), []byte("\nMII"), []byte("\n*II"), 1), "1 of its 2 PEM blocks are damaged"},
		{"cut DER", one.cert.Raw[:100], "reading a certificate"},
		{"DER of something else", []byte{0x30, 3, 2, 1, 1}, "reading a certificate"},
		{"a cut list", good[:len(good)-1], "does not fit in the"},
		{"a list that claims more", patch(16, uint32(len(good)+1)), "does not fit in the"},
		{"a list that claims 4 GiB", patch(16, 1<<32-1), "does not fit in the"},
		{"a list without room for its header", patch(16, 27), "does not fit in the"},
		{"a header beyond the list", patch(20, 1<<32-1), "does not fit in the"},
		{"entries of no size", patch(24, 0), "does not fit in the"},
		{"entries of an owner alone", patch(24, 16), "does not fit in the"},
		{"entries of another size", patch(24, 17), "does not fit in the"},
		{"hashes of another size", list(sha256List, make([]byte, 31)), "wrong for type c1c41626"},
		{"something behind a list", append(bytes.Clone(good), 0), "list 2 has only 1 bytes"},
		{"a list with a damaged certificate", list(x509List, one.cert.Raw[:100]), "EFI signature list 1: entry 1, of owner " + owner},
		{"types that are not known alone", list(rsa2048List, make([]byte, 256)), "nothing would ever be trusted"},
		{"too much", make([]byte, 1<<20+1), "more than 1048576 are not read"},
		{"too many certificates", list(x509List, slices.Repeat([][]byte{one.cert.Raw}, 513)...), "more than 512 certificates"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := uki.ParseDatabase(c.db, nil)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "reading db: ")
			_, err = uki.ParseCertificates(c.db)
			require.ErrorContains(t, err, "reading certificates: ")
			if len(bytes.TrimSpace(c.db)) == 0 {
				return // that is a dbx, too
			}
			_, err = uki.ParseDatabase(good, c.db)
			require.ErrorContains(t, err, "reading dbx: ")
		})
	}
	_, err := uki.ParseDatabase(good, list(rsa2048List, make([]byte, 256)))
	require.ErrorContains(t, err, "type "+rsa2048List+" is not known here")
	_, err = uki.ParseCertificates(list(sha256List, make([]byte, 32)))
	require.ErrorContains(t, err, "there is none in it")
	_, err = uki.ParseDatabase(list(x509SHA256List, make([]byte, 48)), nil)
	require.ErrorContains(t, err, "nothing would ever be trusted", "hashes of certificates are of dbx alone")
}

// Debian's OVMF comes with a certificate and a variable store that has it.
func TestTheCertificateOfOVMFIsRead(t *testing.T) {
	all, err := uki.ParseCertificates(debianFile(t, "/usr/share/ovmf/PkKek-1-snakeoil.pem", "ovmf"))
	require.NoError(t, err)
	require.Len(t, all, 1)
}

func TestSubjectsArePrintable(t *testing.T) {
	id := issue(t, "line\nend \x1b[31m "+strings.Repeat("ü", 300), nil)
	name := uki.Subject(id.cert)
	require.LessOrEqual(t, len(name), 256)
	require.NotContains(t, name, "\n")
	require.NotContains(t, name, "\x1b")
	require.True(t, strings.HasPrefix(name, "CN=line?end ?[31m"), name)
	require.True(t, strings.HasSuffix(name, "ü..."), name)
	require.Equal(t, "(a certificate without a subject)", uki.Subject(&x509.Certificate{}))
}

func FuzzParseDatabase(f *testing.F) {
	one := snakeoil(f)
	good := list(x509List, one.cert.Raw)
	for _, seed := range [][]byte{
		certPEM(one), one.cert.Raw, good, append([]byte{0x27, 0, 0, 0}, good...),
		list(sha256List, make([]byte, 32), make([]byte, 32)), list(x509SHA256List, make([]byte, 48)), list(sha512List, make([]byte, 64)),
		slices.Concat(efiTime(time.Now()), []byte{24, 0, 0, 0, 0, 2, 0xf1, 0x0e}, make([]byte, 16), good),
		[]byte("-----BEGIN CERTIFICATE-----"), nil, {0x30, 0x80},
	} {
		f.Add(seed, seed)
		f.Add(good, seed)
	}
	image := sign(f, greeting(f, uki.AMD64), signer(f, one))
	f.Fuzz(func(t *testing.T, db, dbx []byte) {
		d, err := uki.ParseDatabase(db, dbx)
		if err != nil {
			if d != nil || err.Error() == "" || len(err.Error()) > 4096 {
				t.Fatalf("a bad error: %v", err)
			}
			return
		}
		if s, err := verify(image, d); err == nil && s.Certificate != nil && !slices.ContainsFunc(d.Certificates(), s.TrustedBy.Equal) {
			t.Fatal("trusted by a certificate that is not in db")
		}
		if _, err := uki.ParseCertificates(db); err != nil && len(d.Certificates()) > 0 {
			t.Fatalf("certificates that db has are not read: %v", err)
		}
	})
}
