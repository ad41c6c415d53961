package uki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

func TestAKeyIsReadHoweverOpenSSLWritesIt(t *testing.T) {
	id := issue(t, "one", nil)
	openssl := program(t, "openssl", "openssl")
	plain := put(t, keyPEM(t, id))
	made := func(args ...string) []byte {
		output := put(t, nil)
		mustRun(t, openssl, append(args, "-in", plain, "-out", output)...)
		return read(t, output)
	}
	pkcs8 := func(args ...string) []byte {
		return made(append([]string{"pkcs8", "-topk8", "-passout", "pass:correct horse"}, args...)...)
	}
	for name, c := range map[string]struct {
		key       []byte
		encrypted bool
	}{
		"PKCS #8":                     {keyPEM(t, id), false},
		"PKCS #1":                     {made("rsa", "-traditional"), false},
		"behind a certificate":        {append(certPEM(id), keyPEM(t, id)...), false},
		"AES-256, SHA-256":            {pkcs8("-v2", "aes-256-cbc"), true},
		"AES-192":                     {pkcs8("-v2", "aes-192-cbc"), true},
		"AES-128":                     {pkcs8("-v2", "aes-128-cbc"), true},
		"3DES":                        {pkcs8("-v2", "des3"), true},
		"SHA-1, which is not named":   {pkcs8("-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"), true},
		"SHA-224":                     {pkcs8("-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA224"), true},
		"SHA-384":                     {pkcs8("-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA384"), true},
		"SHA-512":                     {pkcs8("-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"), true},
		"many iterations":             {pkcs8("-v2", "aes-256-cbc", "-iter", "100000"), true},
		"legacy PEM encryption":       {made("rsa", "-traditional", "-aes256", "-passout", "pass:correct horse"), true},
		"legacy PEM encryption, 3DES": {made("rsa", "-traditional", "-des3", "-passout", "pass:correct horse"), true},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := uki.ParseKey(c.key, []byte("correct horse"))
			require.NoError(t, err)
			require.Equal(t, id.key.Public(), key.Public())
			_, err = uki.NewSigner(key, id.cert)
			require.NoError(t, err)
			_, err = uki.ParseKey(c.key, []byte("correct horse\r\n"))
			require.NoError(t, err, "as a file has it")
			if !c.encrypted {
				return
			}
			for _, none := range [][]byte{nil, {}, []byte("\n")} {
				_, err = uki.ParseKey(c.key, none)
				require.ErrorIs(t, err, uki.ErrEncrypted)
			}
			for i := range 600 { // one in 256 wrong passphrases leaves padding that looks right
				if i == 40 && name != "AES-256, SHA-256" && name != "legacy PEM encryption" {
					break
				}
				_, err = uki.ParseKey(c.key, []byte{'x', byte(i), byte(i >> 8), 'x'})
				require.ErrorIs(t, err, uki.ErrPassphrase)
			}
		})
	}
}

func TestTheKeyOfOVMFIsRead(t *testing.T) {
	key := debianFile(t, "/usr/share/ovmf/PkKek-1-snakeoil.key", "ovmf")
	_, err := uki.ParseKey(key, nil)
	require.ErrorIs(t, err, uki.ErrEncrypted)
	_, err = uki.ParseKey(key, []byte("wrong"))
	require.ErrorIs(t, err, uki.ErrPassphrase)
	private, err := uki.ParseKey(key, []byte("snakeoil"))
	require.NoError(t, err)
	certificates, err := uki.ParseCertificates(debianFile(t, "/usr/share/ovmf/PkKek-1-snakeoil.pem", "ovmf"))
	require.NoError(t, err)
	s, err := uki.NewSigner(private, certificates...)
	require.NoError(t, err)
	id := &identity{private, certificates[0]}
	out, ok := sbverify(t, sign(t, greeting(t, uki.AMD64), s), id)
	require.True(t, ok, out)
}

func TestOtherKeysAreReadAndRefusedByTheSigner(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(ec)
	require.NoError(t, err)
	parameters := &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for _, key := range [][]byte{
		append(pem.EncodeToMemory(parameters), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...),
		keyPEM(t, &identity{key: ec}),
		keyPEM(t, &identity{key: ed}),
	} {
		private, err := uki.ParseKey(key, nil)
		require.NoError(t, err)
		_, err = uki.NewSigner(private, issueFor(t, private, "other", nil).cert)
		require.ErrorContains(t, err, "the private key is not RSA")
	}
}

func TestAFileThatIsNoKeySaysWhatItIs(t *testing.T) {
	id := issue(t, "one", nil)
	openssl := program(t, "openssl", "openssl")
	plain := put(t, keyPEM(t, id))
	convert := func(args ...string) []byte {
		return []byte(mustRun(t, openssl, append([]string{"pkcs8", "-topk8", "-in", plain, "-passout", "pass:x"}, args...)...))
	}
	good := convert("-v2", "aes-256-cbc")
	block, _ := pem.Decode(good)
	patched := func(old, other []byte) []byte {
		require.Equal(t, 1, bytes.Count(block.Bytes, old))
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: bytes.Replace(block.Bytes, old, other, 1)})
	}
	for _, c := range []struct {
		name string
		file []byte
		says string
	}{
		{"nothing", nil, "no PEM in it"},
		{"a certificate", certPEM(id), "no private key in it, but: CERTIFICATE"},
		{"certificates", certPEM(id, id, id, id, id, id), "but: CERTIFICATE, CERTIFICATE, CERTIFICATE, CERTIFICATE"},
		{"a public key", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}), "but: PUBLIC KEY"},
		{"DER", block.Bytes, "no PEM in it"},
		{"a key of OpenSSH", pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte{1}}), "of the kind OPENSSH PRIVATE KEY, which is not read; convert it with: openssl pkcs8"},
		{"a damaged key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30, 1}}), "reading the private key"},
		{"a damaged key of PKCS #1", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte{0x30, 1}}), "reading the private key"},
		{"a damaged encrypted key", pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes[:200]}), "reading the encrypted private key"},
		{"a very long file", slices.Repeat([]byte{'x'}, 256<<10+1), "no private key is that long"},
		{"PBES1", convert("-v1", "PBE-SHA1-3DES"), "not with PBES2; convert it with: openssl pkcs8 -topk8 -v2 aes-256-cbc"},
		{"scrypt", convert("-scrypt"), "not with PBKDF2; convert it"},
		{"another cipher", convert("-v2", "camellia-256-cbc"), "with the cipher 1.2.392"},
		{"another number of iterations", patched([]byte{2, 2, 8, 0}, []byte{2, 2, 0x7f, 0xff}), "the passphrase does not open the private key"},
		{"another function", patched([]byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 99}), "pseudorandom function is not known"},
		{"no iterations", patched([]byte{2, 2, 8, 0}, []byte{2, 2, 0x80, 0}), "iterations"},
		{"a broken legacy key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "ROT-13,00"}, Bytes: []byte{1}}), "reading the encrypted private key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := uki.ParseKey(c.file, []byte("x"))
			require.Error(t, err)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// A file may ask for more work than anybody has time for.
func TestIterationsAreBounded(t *testing.T) {
	key := put(t, keyPEM(t, issue(t, "one", nil)))
	text := mustRun(t, program(t, "openssl", "openssl"), "pkcs8", "-topk8", "-in", key, "-passout", "pass:x", "-iter", "65536")
	block, _ := pem.Decode([]byte(text))
	count := []byte{2, 3, 1, 0, 0}
	require.Equal(t, 1, bytes.Count(block.Bytes, count))
	block.Bytes = bytes.Replace(block.Bytes, count, []byte{2, 3, 0x7f, 0xff, 0xff}, 1)
	_, err := uki.ParseKey(pem.EncodeToMemory(block), []byte("x"))
	require.ErrorContains(t, err, "it has 8388607 iterations")
}

func FuzzParseKey(f *testing.F) {
	id := issue(f, "one", nil)
	f.Add(keyPEM(f, id), []byte("x"))
	f.Add(certPEM(id), []byte(""))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,60ED0EF65D96715C55A494EAFA37831D\n\nAAAAAAAAAAAAAAAAAAAAAA==\n-----END RSA PRIVATE KEY-----\n"), []byte("x"))
	key := put(f, keyPEM(f, id))
	f.Add([]byte(mustRun(f, program(f, "openssl", "openssl"), "pkcs8", "-topk8", "-in", key, "-passout", "pass:x")), []byte("x"))
	f.Fuzz(func(t *testing.T, file, passphrase []byte) {
		if signer, err := uki.ParseKey(file, passphrase); (signer == nil) == (err == nil) {
			t.Fatalf("neither a key nor an error, or both: %v", err)
		}
	})
}
