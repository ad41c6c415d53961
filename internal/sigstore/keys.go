package sigstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"
)

const (
	// maxKeys bounds the keys of one policy, maxKeyText the PEM that they are read
	// from, in bytes.
	maxKeys    = 64
	maxKeyText = 256 << 10
	// The sizes of RSA keys in bits. Larger ones take seconds to check, and who
	// signs chooses the key.
	minRSA = 2048
	maxRSA = 8192
)

// ParseKeys reads public keys, one or more, as PEM (PKIX, RFC 7468 section 13), such
// as cosign.pub: ECDSA with P-256, P-384 or P-521, RSA from 2048 to 8192 bits, and
// Ed25519. Its error says which of them is wrong.
func ParseKeys(text []byte) ([]crypto.PublicKey, error) {
	if len(text) > maxKeyText {
		return nil, fmt.Errorf("the public keys have %d bytes; %d are the most", len(text), maxKeyText)
	}
	var all []crypto.PublicKey
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if len(all) == maxKeys {
			return nil, fmt.Errorf("there are more than %d public keys", maxKeys)
		}
		key, err := parseKey(block)
		if err != nil {
			return nil, fmt.Errorf("public key %d: %w", len(all)+1, err)
		}
		all = append(all, key)
	}
	switch {
	case bytes.Contains(text, []byte("-----BEGIN")):
		return nil, fmt.Errorf("public key %d: the PEM is broken or cut short", len(all)+1)
	case len(all) == 0:
		return nil, errors.New("there is no public key: it has to be PEM that begins with -----BEGIN PUBLIC KEY-----")
	}
	return all, nil
}

func parseKey(block *pem.Block) (crypto.PublicKey, error) {
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("it is a %s; a PUBLIC KEY is needed, such as cosign.pub", clip(block.Type))
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %s", clip(err.Error()))
	}
	return key, checkKey(key)
}

// checkKey refuses keys of kinds and sizes that nobody should sign with, or that
// take too long to check.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("an ECDSA key on %s; the curve has to be P-256, P-384 or P-521", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSA || n > maxRSA {
			return fmt.Errorf("an RSA key of %d bits; it has to have from %d to %d", n, minRSA, maxRSA)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("a key of kind %T; it has to be ECDSA, RSA or Ed25519", key)
}

// Fingerprint names a public key: "sha256:" and the SHA-256 of its
// SubjectPublicKeyInfo in hexadecimal digits.
func Fingerprint(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return fmt.Sprintf("(a key of kind %T)", key)
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// trustedKey verifies with one key, in each of the ways in which clients sign with
// its kind.
type trustedKey struct {
	key crypto.PublicKey
	all []signature.Verifier
}

var _ root.TimeConstrainedVerifier = trustedKey{}

func newTrustedKey(key crypto.PublicKey) (trustedKey, error) {
	if err := checkKey(key); err != nil {
		return trustedKey{}, err
	}
	k := trustedKey{key: key}
	for _, h := range hashes(key) {
		v, err := signature.LoadVerifier(key, h)
		if err != nil {
			return trustedKey{}, err
		}
		k.all = append(k.all, v)
	}
	return k, nil
}

// hashes are what clients hash with: cosign 2 takes SHA-256 for every curve, others
// the hash that fits the curve. Ed25519 does not care.
func hashes(key crypto.PublicKey) []crypto.Hash {
	if k, ok := key.(*ecdsa.PublicKey); ok {
		switch k.Curve {
		case elliptic.P384():
			return []crypto.Hash{crypto.SHA384, crypto.SHA256}
		case elliptic.P521():
			return []crypto.Hash{crypto.SHA512, crypto.SHA256}
		}
	}
	return []crypto.Hash{crypto.SHA256}
}

// PublicKey returns the key.
func (k trustedKey) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return k.key, nil
}

// ValidAtTime is true: what a policy names is good until the policy changes.
func (k trustedKey) ValidAtTime(time.Time) bool { return true }

// VerifySignature tries every way.
func (k trustedKey) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	var digest []byte
	for _, o := range opts {
		o.ApplyDigest(&digest)
	}
	if _, ok := k.key.(ed25519.PublicKey); ok && len(digest) > 0 {
		// The library would check the signature of no bytes at all.
		return errors.New("an Ed25519 key signs content, not a digest")
	}
	s, err := io.ReadAll(sig)
	if err != nil {
		return err
	}
	m, err := io.ReadAll(message)
	if err != nil {
		return err
	}
	for _, v := range k.all {
		if err = v.VerifySignature(bytes.NewReader(s), bytes.NewReader(m), opts...); err == nil {
			return nil
		}
	}
	return err
}

// clip bounds what an error repeats of text that others wrote, and keeps it on one
// line.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, []byte(s)))
}
