package boot

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Audience says what a token is good for.
type Audience byte

const (
	// AudienceBoot: boot bytes. Such a token may pass through DHCP and firmware.
	AudienceBoot Audience = 'b'
	// AudienceSecret: secrets.
	AudienceSecret Audience = 's'
)

// ErrToken is returned for every token that is not valid, whatever is wrong
// with it: nobody learns why.
var ErrToken = errors.New("invalid token")

// Token is a machine's proof of identity that the operator handed out itself.
// It is bound to one attempt of one object: a new attempt revokes it.
type Token struct {
	// Object is the UID of the API object; Kubernetes UIDs are UUIDs.
	Object   UUID
	Attempt  int64
	Audience Audience
	// Proof is how the token reached the machine.
	Proof   Proof
	Expires time.Time
}

// TokenKey is one key of a keyring.
type TokenKey struct {
	// ID names the key in the tokens that it signs.
	ID byte
	// Secret is at least 32 bytes.
	Secret []byte
}

// Keyring mints and checks tokens. It signs with its first key and accepts
// both, so that keys can be rotated without breaking a boot under way.
type Keyring struct {
	keys []TokenKey
}

const (
	tokenVersion = 1
	tokenBody    = 1 + 1 + 1 + 1 + 16 + 4 + 4 // version, key, audience, proof, object, attempt, expiry
	tokenSize    = tokenBody + sha256.Size
)

// NewKeyring returns a keyring of one or two keys. It returns ErrInvalid when
// a key is short, or two share an ID.
func NewKeyring(keys ...TokenKey) (*Keyring, error) {
	if len(keys) < 1 || len(keys) > 2 {
		return nil, fmt.Errorf("%w: a keyring has one or two keys, not %d", ErrInvalid, len(keys))
	}
	if len(keys) == 2 && keys[0].ID == keys[1].ID {
		return nil, fmt.Errorf("%w: two token keys share the ID %d", ErrInvalid, keys[0].ID)
	}
	for _, k := range keys {
		if len(k.Secret) < 32 {
			return nil, fmt.Errorf("%w: token key %d has %d bytes; it needs at least 32", ErrInvalid, k.ID, len(k.Secret))
		}
	}
	return &Keyring{keys: keys}, nil
}

// Mint returns the token as text that is safe in a URL, 80 characters. It
// returns ErrInvalid when a field cannot be carried.
func (k *Keyring) Mint(t Token) (string, error) {
	object, err := t.Object.Bytes()
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	expires := t.Expires.Unix()
	if t.Attempt < 1 || t.Attempt > 1<<32-1 || expires < 0 || expires > 1<<32-1 {
		return "", fmt.Errorf("minting a token: %w: attempt %d or expiry %s is out of range", ErrInvalid, t.Attempt, t.Expires)
	}
	b := make([]byte, 0, tokenSize)
	b = append(b, tokenVersion, k.keys[0].ID, byte(t.Audience), byte(t.Proof))
	b = append(b, object[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(t.Attempt)) //nolint:gosec // checked above
	b = binary.BigEndian.AppendUint32(b, uint32(expires))   //nolint:gosec // checked above
	b = append(b, seal(k.keys[0].Secret, b)...)
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// Verify reads a token for one audience. It returns ErrToken when it was not
// signed by one of the keys, is for something else, or has expired; whether its
// attempt is still the current one is for the caller to see.
func (k *Keyring) Verify(s string, want Audience, now time.Time) (Token, error) {
	if len(s) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return Token{}, ErrToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || !k.sealed(b) {
		return Token{}, ErrToken
	}
	t := Token{
		Object:   formatUUID([16]byte(b[4:20])),
		Attempt:  int64(binary.BigEndian.Uint32(b[20:])),
		Audience: Audience(b[2]),
		Proof:    Proof(b[3]),
		Expires:  time.Unix(int64(binary.BigEndian.Uint32(b[24:])), 0),
	}
	if b[0] != tokenVersion || t.Audience != want || !now.Before(t.Expires) {
		return Token{}, ErrToken
	}
	return t, nil
}

func (k *Keyring) sealed(b []byte) bool {
	for _, key := range k.keys {
		if key.ID == b[1] {
			return hmac.Equal(seal(key.Secret, b[:tokenBody]), b[tokenBody:])
		}
	}
	return false
}

func seal(key, body []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(body)
	return m.Sum(nil)
}
