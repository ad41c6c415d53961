package boot

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
)

// Audience says what a token is good for.
type Audience byte

const (
	// AudienceBoot: boot bytes. Such a token may pass through DHCP and firmware.
	AudienceBoot Audience = 'b'
	// AudienceSecret: secrets.
	AudienceSecret Audience = 's'
	// AudienceComposed: secrets, for the machine that a composed UKI was delivered
	// to. Such a token is minted before anyone boots: its proof is that of the
	// delivery of its attempt's boot bytes, and it says nothing without one.
	AudienceComposed Audience = 'c'
)

// ErrToken is returned for every token that is not valid, whatever is wrong
// with it: nobody learns why.
var ErrToken = errors.New("invalid token")

// What is told of a token that is not valid to who checks it, who may have to read
// the keys again; no client learns it. Both wrap ErrToken.
var (
	// ErrUnknownKey: the keyring has no key of the token's key ID.
	ErrUnknownKey = fmt.Errorf("%w: signed with a key that is not known here", ErrToken)
	// ErrSeal: the key of that ID did not sign it, not for this address at least.
	ErrSeal = fmt.Errorf("%w: not signed with the key that is known here", ErrToken)
)

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
	// Addr is the one address that a token of the proof Address is good for: it
	// is part of what is signed, not of the text.
	Addr netip.Addr
}

// TokenKey is one key of a keyring.
type TokenKey struct {
	// ID names the key in the tokens that it signs.
	ID byte
	// Secret is at least 32 bytes.
	Secret []byte
}

// Keyring mints and checks tokens. It signs with its first key and accepts
// both, so that keys can be rotated without breaking a boot under way. The zero
// Keyring has no keys: it mints nothing and accepts no token.
type Keyring struct {
	keys atomic.Pointer[[]TokenKey]
}

const (
	tokenVersion = 1
	tokenBody    = 1 + 1 + 1 + 1 + 16 + 4 + 4 // version, key, audience, proof, object, attempt, expiry
	tokenSize    = tokenBody + sha256.Size
)

// NewKeyring returns a keyring of one or two keys. It returns the errors of
// Replace.
func NewKeyring(keys ...TokenKey) (*Keyring, error) {
	k := &Keyring{}
	if err := k.Replace(keys...); err != nil {
		return nil, err
	}
	return k, nil
}

// Replace puts one or two other keys in force. It returns ErrInvalid, and
// changes nothing, when a key is short or two share an ID.
func (k *Keyring) Replace(keys ...TokenKey) error {
	if len(keys) < 1 || len(keys) > 2 {
		return fmt.Errorf("%w: a keyring has one or two keys, not %d", ErrInvalid, len(keys))
	}
	if len(keys) == 2 && keys[0].ID == keys[1].ID {
		return fmt.Errorf("%w: two token keys share the ID %d", ErrInvalid, keys[0].ID)
	}
	for _, key := range keys {
		if len(key.Secret) < 32 {
			return fmt.Errorf("%w: token key %d has %d bytes; it needs at least 32", ErrInvalid, key.ID, len(key.Secret))
		}
	}
	k.keys.Store(&keys)
	return nil
}

// active returns the keys in force.
func (k *Keyring) active() []TokenKey {
	if keys := k.keys.Load(); keys != nil {
		return *keys
	}
	return nil
}

// Len returns how many keys are in force: 0, 1 or 2.
func (k *Keyring) Len() int { return len(k.active()) }

// Active returns the ID of the key that signs; false when the keyring has no
// keys.
func (k *Keyring) Active() (keyID byte, ok bool) {
	keys := k.active()
	if len(keys) == 0 {
		return 0, false
	}
	return keys[0].ID, true
}

// Mint returns the token as text that is safe in a URL, 80 characters. It
// returns ErrInvalid when a field cannot be carried, and ErrNotReady when the
// keyring has no keys.
func (k *Keyring) Mint(t Token) (string, error) {
	keys := k.active()
	if len(keys) == 0 {
		return "", fmt.Errorf("minting a token: the keyring has no keys: %w", ErrNotReady)
	}
	return mint(keys[0], t)
}

// MintWith is Mint with the key of this ID, which need not be the one that signs
// by itself any more: replicas make the same token with it. It returns
// ErrNotReady when the keyring does not have that key.
func (k *Keyring) MintWith(keyID byte, t Token) (string, error) {
	for _, key := range k.active() {
		if key.ID == keyID {
			return mint(key, t)
		}
	}
	return "", fmt.Errorf("minting a token: the keyring has no key with the ID %d: %w", keyID, ErrNotReady)
}

func mint(key TokenKey, t Token) (string, error) {
	object, err := t.Object.Bytes()
	if err != nil {
		return "", fmt.Errorf("minting a token: %w", err)
	}
	expires := t.Expires.Unix()
	if t.Proof != Address {
		t.Addr = netip.Addr{}
	} else if !t.Addr.IsValid() {
		return "", fmt.Errorf("minting a token: %w: a token of the proof Address needs the address", ErrInvalid)
	}
	if t.Attempt < 1 || t.Attempt > 1<<32-1 || expires < 0 || expires > 1<<32-1 {
		return "", fmt.Errorf("minting a token: %w: attempt %d or expiry %s is out of range", ErrInvalid, t.Attempt, t.Expires)
	}
	b := make([]byte, 0, tokenSize)
	b = append(b, tokenVersion, key.ID, byte(t.Audience), byte(t.Proof))
	b = append(b, object[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(t.Attempt)) //nolint:gosec // checked above
	b = binary.BigEndian.AppendUint32(b, uint32(expires))   //nolint:gosec // checked above
	b = append(b, seal(key.Secret, b, t.Addr)...)
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// Verify reads a token for one audience that came from addr. It returns ErrToken
// when it was not signed by one of the keys (ErrUnknownKey, ErrSeal), is for
// something else or for another address, or has expired; whether its attempt is still the current one is for
// the caller to see.
func (k *Keyring) Verify(s string, want Audience, addr netip.Addr, now time.Time) (Token, error) {
	if len(s) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return Token{}, ErrToken
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != tokenSize || b[0] != tokenVersion { // decoding skips line ends
		return Token{}, ErrToken
	}
	if Proof(b[3]) != Address {
		addr = netip.Addr{}
	}
	if err := k.check(b, addr); err != nil {
		return Token{}, err
	}
	t := Token{
		Object:   formatUUID([16]byte(b[4:20])),
		Attempt:  int64(binary.BigEndian.Uint32(b[20:])),
		Audience: Audience(b[2]),
		Proof:    Proof(b[3]),
		Expires:  time.Unix(int64(binary.BigEndian.Uint32(b[24:])), 0),
		Addr:     addr,
	}
	if t.Audience != want || !now.Before(t.Expires) {
		return Token{}, ErrToken
	}
	return t, nil
}

// check makes sure that one of the keys signed a token.
func (k *Keyring) check(b []byte, addr netip.Addr) error {
	for _, key := range k.active() {
		if key.ID != b[1] {
			continue
		}
		if !hmac.Equal(seal(key.Secret, b[:tokenBody], addr), b[tokenBody:]) {
			return ErrSeal
		}
		return nil
	}
	return ErrUnknownKey
}

func seal(key, body []byte, addr netip.Addr) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(body)
	m.Write(addr.AsSlice())
	return m.Sum(nil)
}
