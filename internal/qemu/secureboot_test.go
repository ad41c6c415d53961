package qemu

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keyPEM is a certificate as PEM.
func keyPEM(t *testing.T, name string) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// need skips a test without a file or a program; in CI it must be there.
func need(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("CI must run this test: %v", err)
	default:
		t.Skipf("NOT TESTED: %v", err)
	}
}

func TestKeysAreReadAsTheyWereWritten(t *testing.T) {
	s := blankStore(t)
	keys, err := SecureBoot{PK: keyPEM(t, "PK"), KEK: keyPEM(t, "KEK"), DB: append(keyPEM(t, "db 1"), keyPEM(t, "db 2")...)}.Keys()
	require.NoError(t, err)
	require.NoError(t, s.SetBootOrder(1))
	require.NoError(t, s.setKeys(keys, true))
	require.NoError(t, s.Save())
	s, err = OpenVarStore(s.path)
	require.NoError(t, err)
	read, err := s.Keys()
	require.NoError(t, err)
	assert.Equal(t, keys, read)
	assert.Len(t, read[DB], 2)
	assert.True(t, read[DB][0].IsCertificate())
	assert.Equal(t, "EFI_CERT_X509_GUID", read[DB][0].Kind())
	assert.Equal(t, "11111111-2222-3333-4444-123456789abc", read[DB][0].Owner())
	assert.Equal(t, []uint16{1}, s.BootOrder(), "other variables stay")

	_, free := s.variables()
	require.NoError(t, s.setKeys(keys, true))
	_, after := s.variables()
	assert.Equal(t, free, after, "writing what is there takes no room")
	require.NoError(t, s.setKeys(Keys{PK: keys[PK]}, true))
	read, err = s.Keys()
	require.NoError(t, err)
	assert.Equal(t, Keys{PK: keys[PK]}, read, "what is left out goes")
}

// The variables are those that firmware knows: by their vendors and attributes.
func TestKeysAreVariablesAsTheSpecificationHasThem(t *testing.T) {
	s := blankStore(t)
	keys, err := SecureBoot{PK: keyPEM(t, "PK"), KEK: keyPEM(t, "KEK"), DB: keyPEM(t, "db")}.Keys()
	require.NoError(t, err)
	keys[DBX] = keys[DB]
	require.NoError(t, s.setKeys(keys, false))
	all, _ := s.variables()
	vendors := map[string]string{}
	for _, v := range all {
		vendors[v.name] = v.header.Vendor.String()
		switch v.name {
		case "SecureBootEnable":
			assert.EqualValues(t, 0x3, v.header.Attributes)
			assert.Equal(t, []byte{0}, v.data)
		default:
			assert.EqualValues(t, 0x27, v.header.Attributes, v.name)
			assert.EqualValues(t, 2020, binary.LittleEndian.Uint16(v.header.Time[:]), v.name)
		}
	}
	assert.Equal(t, map[string]string{
		"PK": "8be4df61-93ca-11d2-aa0d-00e098032b8c", "KEK": "8be4df61-93ca-11d2-aa0d-00e098032b8c",
		"db": "d719b2cb-3d3a-4596-a3bc-dad00e67656f", "dbx": "d719b2cb-3d3a-4596-a3bc-dad00e67656f",
		"SecureBootEnable": "f0a30bc7-af08-4556-99c4-001009c93a44",
	}, vendors)
}

// A time that firmware or an operating system gave a database stays: they take only
// younger changes.
func TestTheTimeOfADatabaseStays(t *testing.T) {
	s := blankStore(t)
	one, err := CertificateSignatures(keyPEM(t, "one"))
	require.NoError(t, err)
	later := [16]byte{0xea, 0x07, 5, 6}
	require.NoError(t, s.set("db", encodeSignatures(one), variableHeader{Attributes: 0x27, Vendor: imageSecurity, Time: later}))
	two, err := CertificateSignatures(keyPEM(t, "two"))
	require.NoError(t, err)
	require.NoError(t, s.SetSignatures(DB, append(one, two...)))
	v, err := s.find("db", imageSecurity)
	require.NoError(t, err)
	assert.Equal(t, later, v.header.Time)
}

func TestOnlyTheFirmwareSwitchesSecureBootOn(t *testing.T) {
	s := blankStore(t)
	keys, err := SecureBoot{PK: keyPEM(t, "PK")}.Keys()
	require.NoError(t, err)
	require.NoError(t, s.setKeys(keys, true))
	assert.False(t, s.SecureBootEnabled())
	assert.False(t, s.SecureBootSwitchedOff())
	started := func(on byte) {
		require.NoError(t, s.set(enableVariable, []byte{on}, variableHeader{Attributes: 3, Vendor: secureBootEnable}))
	}
	started(1)
	assert.True(t, s.SecureBootEnabled())
	require.NoError(t, s.setKeys(keys, true))
	assert.True(t, s.SecureBootEnabled(), "it was, and stays")
	require.NoError(t, s.setKeys(keys, false))
	assert.False(t, s.SecureBootEnabled())
	assert.True(t, s.SecureBootSwitchedOff())
	started(1)
	require.NoError(t, s.setKeys(nil, true))
	assert.False(t, s.SecureBootEnabled(), "without a platform key nothing is checked")
}

func TestKeysThatAreNoneAreRefused(t *testing.T) {
	for says, o := range map[string]SecureBoot{
		"reading the keys of PK: no certificate":             {PK: []byte("x")},
		"reading the keys of db: no certificate":             {DB: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})},
		"reading the keys of KEK: parsing a certificate":     {KEK: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})},
		"reading the keys of PK: it has one certificate, no": {PK: append(keyPEM(t, "1"), keyPEM(t, "2")...)},
	} {
		_, err := o.Keys()
		assert.ErrorContains(t, err, says)
	}
	o := MachineOptions{Boot: BIOS, SecureBoot: &SecureBoot{}}
	o.complete()
	assert.ErrorContains(t, o.check(), "a BIOS has no Secure Boot")
}

func TestAListOfSignaturesThatIsCutShortIsRefused(t *testing.T) {
	one, err := CertificateSignatures(keyPEM(t, "one"))
	require.NoError(t, err)
	whole := encodeSignatures(append(one, one...))
	for length := range whole {
		all, err := parseSignatures(whole[:length])
		if length == 0 || length == len(whole)/2 {
			assert.NoError(t, err)
			continue
		}
		assert.Error(t, err, "%d bytes of %d: %v", length, len(whole), all)
	}
	s := blankStore(t)
	require.NoError(t, s.set("db", whole[:40], variableHeader{Attributes: 0x27, Vendor: imageSecurity}))
	_, err = s.Keys()
	assert.ErrorContains(t, err, "reading db")
}

// What reads signatures neither panics nor grows, and what it read is what it writes.
func FuzzSignatures(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeSignatures([]Signature{CertificateSignature([]byte{1}), {kind: certSHA256, Data: make([]byte, 32)}}))
	f.Add(append(make([]byte, 16), 28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
	f.Add(append(make([]byte, 16), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 17, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseSignatures(b)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(all), len(b))
		again, err := parseSignatures(encodeSignatures(all))
		require.NoError(t, err)
		require.Equal(t, all, again)
	})
}

func TestSignatureListsAreThoseOfEfitools(t *testing.T) {
	_, err := exec.LookPath("cert-to-efi-sig-list")
	need(t, err)
	dir := t.TempDir()
	certificate, list := filepath.Join(dir, "c.pem"), filepath.Join(dir, "c.esl")
	text := keyPEM(t, "one")
	require.NoError(t, os.WriteFile(certificate, text, 0o600))
	out, err := exec.CommandContext(t.Context(), "cert-to-efi-sig-list", "-g", "11111111-2222-3333-4444-123456789abc", certificate, list).CombinedOutput()
	require.NoError(t, err, "%s", out)
	theirs, err := os.ReadFile(list)
	require.NoError(t, err)
	ours, err := SignatureList(text)
	require.NoError(t, err)
	assert.Equal(t, theirs, ours)
}

// Debian's template has the keys that firmware itself has written.
func TestKeysThatFirmwareWroteAreRead(t *testing.T) {
	s, err := OpenVarStore("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
	need(t, err)
	assert.True(t, s.SecureBootEnabled())
	keys, err := s.Keys()
	require.NoError(t, err)
	var names []string
	for _, k := range keys[DB] {
		parsed, err := x509.ParseCertificate(k.Data)
		require.NoError(t, err)
		names = append(names, parsed.Subject.CommonName)
	}
	assert.Equal(t, []string{"Microsoft Windows Production PCA 2011", "Microsoft Corporation UEFI CA 2011"}, names)
	require.Len(t, keys[DBX], 1)
	assert.Equal(t, "EFI_CERT_SHA256_GUID", keys[DBX][0].Kind())
	assert.Len(t, keys[DBX][0].Data, 32)
	assert.Len(t, keys[PK], 1)
}
