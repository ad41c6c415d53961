package boot

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var tokenNow = time.Unix(1_800_000_000, 0)

func testKey(id byte) TokenKey { return TokenKey{ID: id, Secret: bytes.Repeat([]byte{id}, 32)} }

func testToken() Token {
	return Token{Object: "00112233-4455-6677-8899-aabbccddeeff", Attempt: 7, Audience: AudienceBoot, Proof: BMC, Expires: tokenNow.Add(time.Minute)}
}

func TestTokenRoundTrip(t *testing.T) {
	k, err := NewKeyring(testKey(1))
	require.NoError(t, err)
	s, err := k.Mint(testToken())
	require.NoError(t, err)
	require.Len(t, s, 80, "a URL with it stays under 200 characters")
	got, err := k.Verify(s, AudienceBoot, netip.Addr{}, tokenNow)
	require.NoError(t, err)
	require.Equal(t, testToken(), got)
}

func TestTokensThatDoNotHold(t *testing.T) {
	k, err := NewKeyring(testKey(1))
	require.NoError(t, err)
	s, err := k.Mint(testToken())
	require.NoError(t, err)
	_, err = k.Verify(s, AudienceSecret, netip.Addr{}, tokenNow)
	require.ErrorIs(t, err, ErrToken, "for another audience")
	_, err = k.Verify(s, AudienceBoot, netip.Addr{}, tokenNow.Add(time.Minute))
	require.ErrorIs(t, err, ErrToken, "expired")
	stranger, err := NewKeyring(TokenKey{ID: 1, Secret: bytes.Repeat([]byte{9}, 32)})
	require.NoError(t, err)
	_, err = stranger.Verify(s, AudienceBoot, netip.Addr{}, tokenNow)
	require.ErrorIs(t, err, ErrToken, "of another key with the same ID")

	raw, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		_, err = k.Verify(base64.RawURLEncoding.EncodeToString(changed), AudienceBoot, netip.Addr{}, tokenNow)
		require.ErrorIs(t, err, ErrToken, "byte %d changed", i)
	}
	for _, bad := range []string{"", s[:79], s + "A", s[:40] + "\n" + s[41:], s[:40] + "+" + s[41:]} {
		_, err = k.Verify(bad, AudienceBoot, netip.Addr{}, tokenNow)
		require.ErrorIs(t, err, ErrToken)
	}
}

func TestKeyRotation(t *testing.T) {
	first, err := NewKeyring(testKey(1))
	require.NoError(t, err)
	both, err := NewKeyring(testKey(2), testKey(1))
	require.NoError(t, err)
	second, err := NewKeyring(testKey(2))
	require.NoError(t, err)
	old, err := first.Mint(testToken())
	require.NoError(t, err)
	fresh, err := both.Mint(testToken())
	require.NoError(t, err)
	for _, s := range []string{old, fresh} {
		_, err = both.Verify(s, AudienceBoot, netip.Addr{}, tokenNow)
		require.NoError(t, err, "a boot under way goes on")
	}
	_, err = second.Verify(fresh, AudienceBoot, netip.Addr{}, tokenNow)
	require.NoError(t, err, "the first key signs")
	_, err = second.Verify(old, AudienceBoot, netip.Addr{}, tokenNow)
	require.ErrorIs(t, err, ErrToken, "a key that is gone proves nothing")
}

func TestKeyringsThatAreWrong(t *testing.T) {
	for name, keys := range map[string][]TokenKey{
		"none": nil, "three": {testKey(1), testKey(2), testKey(3)}, "one ID": {testKey(1), testKey(1)}, "short": {{ID: 1, Secret: make([]byte, 31)}},
	} {
		_, err := NewKeyring(keys...)
		require.ErrorIs(t, err, ErrInvalid, name)
	}
}

func TestTokensThatCannotBeMinted(t *testing.T) {
	k, err := NewKeyring(testKey(1))
	require.NoError(t, err)
	for name, change := range map[string]func(*Token){
		"object":  func(x *Token) { x.Object = "default/machine" },
		"attempt": func(x *Token) { x.Attempt = 0 },
		"large":   func(x *Token) { x.Attempt = 1 << 32 },
		"expiry":  func(x *Token) { x.Expires = time.Time{} },
		"far":     func(x *Token) { x.Expires = time.Unix(1<<33, 0) },
	} {
		x := testToken()
		change(&x)
		_, err := k.Mint(x)
		require.ErrorIs(t, err, ErrInvalid, name)
	}
}

func FuzzVerifyToken(f *testing.F) {
	k, err := NewKeyring(testKey(1), testKey(2))
	require.NoError(f, err)
	good, err := k.Mint(testToken())
	require.NoError(f, err)
	f.Add(good)
	f.Add("")
	f.Add(good[:79] + "=")
	f.Add("\n\n\n\n" + good[:76])
	f.Add("\r\n" + strings.Repeat("A", 78))
	f.Fuzz(func(t *testing.T, s string) {
		got, err := k.Verify(s, AudienceBoot, netip.Addr{}, tokenNow)
		if err != nil {
			require.ErrorIs(t, err, ErrToken)
			require.Equal(t, Token{}, got)
			return
		}
		require.Equal(t, good, s, "only what was minted is valid, in one spelling")
	})
}

func TestEveryReplicaMintsTheSameWithAKeyItNames(t *testing.T) {
	_, ok := (&Keyring{}).Active()
	require.False(t, ok)
	_, err := (&Keyring{}).MintWith(1, testToken())
	require.ErrorIs(t, err, ErrNotReady)

	old, err := NewKeyring(testKey(1))
	require.NoError(t, err)
	rotated, err := NewKeyring(testKey(2), testKey(1))
	require.NoError(t, err)
	for want, k := range map[byte]*Keyring{1: old, 2: rotated} {
		id, ok := k.Active()
		require.True(t, ok)
		require.Equal(t, want, id)
		s, err := k.Mint(testToken())
		require.NoError(t, err)
		again, err := k.MintWith(id, testToken())
		require.NoError(t, err)
		require.Equal(t, s, again)
	}
	before, err := old.MintWith(1, testToken())
	require.NoError(t, err)
	after, err := rotated.MintWith(1, testToken())
	require.NoError(t, err)
	require.Equal(t, before, after, "also with the key that signs no more")
	_, err = rotated.MintWith(3, testToken())
	require.ErrorIs(t, err, ErrNotReady)
	_, err = old.MintWith(1, Token{Object: "no UUID", Attempt: 1})
	require.ErrorIs(t, err, ErrInvalid)
}

// Who checks a token learns whether reading the keys again may help.
func TestAKeyringSaysWhetherItLacksTheKey(t *testing.T) {
	one, err := NewKeyring(testKey(1))
	require.NoError(t, err)
	require.Equal(t, 1, one.Len())
	require.Zero(t, (&Keyring{}).Len())
	two, err := NewKeyring(testKey(2))
	require.NoError(t, err)
	other, err := NewKeyring(TokenKey{ID: 1, Secret: bytes.Repeat([]byte{9}, 32)})
	require.NoError(t, err)
	for _, tt := range []struct {
		by      *Keyring
		want    Audience
		unknown bool
		seal    bool
	}{
		{by: one, want: AudienceBoot},
		{by: one, want: AudienceSecret},
		{by: two, want: AudienceBoot, unknown: true},
		{by: other, want: AudienceBoot, seal: true},
	} {
		s, err := tt.by.Mint(testToken())
		require.NoError(t, err)
		_, err = one.Verify(s, tt.want, netip.Addr{}, tokenNow)
		require.Equal(t, tt.unknown, errors.Is(err, ErrUnknownKey))
		require.Equal(t, tt.seal, errors.Is(err, ErrSeal))
		if tt.by != one || tt.want != AudienceBoot {
			require.ErrorIs(t, err, ErrToken)
		}
	}
	_, err = one.Verify("junk", AudienceBoot, netip.Addr{}, tokenNow)
	require.NotErrorIs(t, err, ErrUnknownKey, "what is no token has no key")
}
