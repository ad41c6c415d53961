package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestPublicKeysAreReadAsTheyAre(t *testing.T) {
	var all []crypto.Signer
	for _, k := range kinds() {
		all = append(all, k)
	}
	got, err := ParseKeys(append([]byte("cosign.pub of the build farm\n"), publicPEM(t, all...)...))
	require.NoError(t, err)
	require.Len(t, got, len(all))
	for i, k := range all {
		require.Equal(t, k.Public(), got[i])
	}
}

func TestKeysThatCannotBeUsedSayWhy(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(ecdsaKey())
	require.NoError(t, err)
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	rsaPEM := func(bits int) []byte {
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: slowKey(t, bits).N, E: 65537})
		require.NoError(t, err)
		return block("PUBLIC KEY", der)
	}
	good := publicPEM(t, ecdsaKey())
	for name, c := range map[string]struct {
		text []byte
		why  string
	}{
		"nothing":           {nil, "-----BEGIN PUBLIC KEY-----"},
		"text":              {[]byte("cosign.pub"), "-----BEGIN PUBLIC KEY-----"},
		"a private key":     {block("PRIVATE KEY", private), "it is a PRIVATE KEY; a PUBLIC KEY is needed"},
		"a cosign key":      {block("ENCRYPTED SIGSTORE PRIVATE KEY", private), "ENCRYPTED SIGSTORE PRIVATE KEY"},
		"junk inside":       {block("PUBLIC KEY", []byte("junk")), "cannot be read"},
		"the second cut":    {append(bytes.Clone(good), good[:len(good)/2]...), "public key 2: the PEM is broken"},
		"the second bad":    {append(bytes.Clone(good), block("CERTIFICATE", nil)...), "public key 2: it is a CERTIFICATE"},
		"P-224":             {publicPEM(t, p224), "P-224"},
		"a short RSA key":   {rsaPEM(1024), "1024 bits"},
		"a long RSA key":    {rsaPEM(16384), "16384 bits"},
		"too many":          {bytes.Repeat(good, maxKeys+1), "more than 64"},
		"too much":          {make([]byte, maxKeyText+1), "262144 are the most"},
		"too much of a key": {[]byte("-----BEGIN PUBLIC KEY-----\n"), "broken or cut short"},
	} {
		_, err := ParseKeys(c.text)
		require.ErrorContains(t, err, c.why, name)
	}
}

func TestAFingerprintIsThatOfOpenSSL(t *testing.T) {
	// openssl pkey -pubin -outform der | sha256sum
	key, err := ParseKeys([]byte(`-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2G2Y+2tabdTV5BcGiBIx0a9fAFwr
kBbmLSGtks4L3qX6yYY0zufBnhC8Ur/iy55GhWP/9A/bY2LhC30M9+RYtw==
-----END PUBLIC KEY-----
`))
	require.NoError(t, err)
	require.Equal(t, "sha256:c0d23d6ad406973f9559f3ba2d1ca01f84147d8ffc5b8445c224f98b9591801d", Fingerprint(key[0]))
}

func TestPoliciesThatCannotBeUsedSayWhy(t *testing.T) {
	id := func(issuer, subject, pattern string) Policy {
		return Policy{Identities: []Identity{{Issuer: issuer, Subject: subject, SubjectRegExp: pattern}}}
	}
	for name, c := range map[string]struct {
		p   Policy
		why string
	}{
		"nothing":              {Policy{}, "neither keys nor identities"},
		"no issuer":            {id("", "a", ""), "identity 1: it has no issuer"},
		"no subject":           {id("a", "", ""), "either a subject or a subjectRegExp"},
		"two subjects":         {id("a", "b", "c"), "either a subject or a subjectRegExp"},
		"a broken pattern":     {id("a", "", "("), "not valid"},
		"a pattern that opens": {id("a", "", ".*)|(.*"), "not valid"},
		"a long pattern":       {id("a", "", strings.Repeat("a", 600)), "longer than 512"},
		"many identities":      {Policy{Identities: make([]Identity, maxIdentities+1)}, "64"},
		"many keys":            {Policy{Keys: make([]crypto.PublicKey, maxKeys+1)}, "64"},
		"no key":               {Policy{Keys: []crypto.PublicKey{nil}}, "key 1"},
		"a private key":        {Policy{Keys: []crypto.PublicKey{ecdsaKey()}}, "key 1"},
	} {
		require.ErrorIs(t, c.p.Check(), ErrPolicy, name)
		require.ErrorIs(t, c.p.Check(), boot.ErrInvalid, name)
		require.ErrorContains(t, c.p.Check(), c.why, name)
	}
	require.NoError(t, keyPolicy(t, ecdsaKey()).Check())
}

func TestAPolicyNamesAFewOfItsSigners(t *testing.T) {
	p := keyPolicy(t, ecdsaKey(), ecdsaKey(), ecdsaKey())
	p.Identities = []Identity{{Issuer: issuer, Subject: builder}, {Issuer: issuer, SubjectRegExp: ".*"}, {Issuer: issuer, Subject: "a"}}
	require.Contains(t, p.Signers(), builder+" ("+issuer+") or .* ("+issuer+") or ")
	require.Contains(t, p.Signers(), "key "+Fingerprint(ecdsaKey().Public()))
	require.Contains(t, p.Signers(), "2 more")
}
