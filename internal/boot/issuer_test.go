package boot

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fixedAttempts answers what it holds.
type fixedAttempts struct {
	Attempts
	current Attempt
	coming  int64
	err     error
}

func (f *fixedAttempts) Current(*Plan) Attempt                { return f.current }
func (f *fixedAttempts) Coming(*Plan) (Attempt, error)        { return Attempt{Number: f.coming}, f.err }
func (f *fixedAttempts) Observe(Observation)                  {}
func (f *fixedAttempts) Begin(*Plan, Client) (Attempt, error) { panic("a token opens nothing") }
func (f *fixedAttempts) Refresh(context.Context, *Plan) (Attempt, error) {
	panic("minting waits for nobody")
}

func issuing(t *testing.T) (*Issuer, *fixedAttempts, *Keyring, *time.Time) {
	t.Helper()
	keys, err := NewKeyring(testKey(1))
	require.NoError(t, err)
	now := tokenNow.Truncate(tokenWindow)
	attempts := &fixedAttempts{coming: 4, current: Attempt{Number: 3, OpenedAt: now}}
	return NewIssuer(keys, attempts, func() time.Time { return now }), attempts, keys, &now
}

func issuedPlan() *Plan {
	return &Plan{Object: Ref{UID: "00112233-4455-6677-8899-aabbccddeeff"}, MinimumProof: Address}
}

func TestABootTokenIsForTheComingAttemptAndTheSameForEveryoneWhoAsks(t *testing.T) {
	i, attempts, keys, now := issuing(t)
	first, err := i.Boot(issuedPlan(), Client{Proof: Proxy})
	require.NoError(t, err)
	got, err := keys.Verify(first, AudienceBoot, netip.MustParseAddr("10.0.0.9"), *now)
	require.NoError(t, err)
	require.Equal(t, Token{Object: UUID(issuedPlan().Object.UID), Attempt: 4, Audience: AudienceBoot, Proof: Proxy, Expires: now.Add(tokenLife)}, got)
	_, err = keys.Verify(first, AudienceSecret, netip.Addr{}, *now)
	require.ErrorIs(t, err, ErrToken, "a boot token opens no secret")

	*now = now.Add(tokenWindow - time.Second)
	again, err := i.Boot(issuedPlan(), Client{Proof: Proxy})
	require.NoError(t, err)
	require.Equal(t, first, again, "never one for each DISCOVER")
	_, err = keys.Verify(first, AudienceBoot, netip.Addr{}, now.Add(tokenWindow))
	require.NoError(t, err, "good for at least a window")
	attempts.coming = 5
	again, err = i.Boot(issuedPlan(), Client{Proof: Proxy})
	require.NoError(t, err)
	require.NotEqual(t, first, again)
}

func TestATokenOfTheProofAddressIsGoodForThatAddressAlone(t *testing.T) {
	i, _, keys, now := issuing(t)
	mine := netip.MustParseAddr("10.0.0.5")
	s, err := i.Boot(issuedPlan(), Client{Proof: Address, Addr: mine})
	require.NoError(t, err)
	require.Len(t, s, 80)
	got, err := keys.Verify(s, AudienceBoot, mine, *now)
	require.NoError(t, err)
	require.Equal(t, mine, got.Addr)
	for _, other := range []netip.Addr{{}, netip.MustParseAddr("10.0.0.6"), netip.MustParseAddr("::ffff:10.0.0.5")} {
		_, err = keys.Verify(s, AudienceBoot, other, *now)
		require.ErrorIs(t, err, ErrToken, "%s", other)
	}
	_, err = i.Boot(issuedPlan(), Client{Proof: Address})
	require.ErrorIs(t, err, ErrInvalid)
}

func TestNobodyGetsATokenForLessThanThePlanAsks(t *testing.T) {
	i, attempts, _, _ := issuing(t)
	p := issuedPlan()
	for _, proof := range []Proof{Unproven, Claimed} {
		p.MinimumProof = Claimed
		_, err := i.Boot(p, Client{Proof: proof})
		require.ErrorIs(t, err, ErrUnproven)
		_, err = i.Secret(p, attempts.current, Client{Proof: proof})
		require.ErrorIs(t, err, ErrUnproven)
	}
	p.MinimumProof = Relay
	_, err := i.Boot(p, Client{Proof: Proxy})
	require.ErrorIs(t, err, ErrUnproven)
	_, err = i.Boot(p, Client{Proof: Relay})
	require.NoError(t, err)
}

func TestNothingWeakerIsHandedOutWhileABMCTokenIsLive(t *testing.T) {
	i, attempts, _, _ := issuing(t)
	attempts.current.Armed = true
	_, err := i.Boot(issuedPlan(), Client{Proof: Relay})
	require.ErrorIs(t, err, ErrArmed)
	_, err = i.Boot(issuedPlan(), Client{Proof: BMC})
	require.NoError(t, err)
	attempts.current.Armed, attempts.err = false, ErrSpent
	_, err = i.Boot(issuedPlan(), Client{Proof: Proxy})
	require.ErrorIs(t, err, ErrSpent)
}

func TestASecretTokenEndsWithItsAttempt(t *testing.T) {
	i, attempts, keys, now := issuing(t)
	s, err := i.Secret(issuedPlan(), attempts.current, Client{Proof: Proxy})
	require.NoError(t, err)
	got, err := keys.Verify(s, AudienceSecret, netip.Addr{}, *now)
	require.NoError(t, err)
	require.Equal(t, int64(3), got.Attempt)
	_, err = keys.Verify(s, AudienceSecret, netip.Addr{}, now.Add(AttemptLifetime))
	require.ErrorIs(t, err, ErrToken)
}

// What is set through a BMC takes the place of what was set before, and proves no
// more than its way was worth.
func TestATokenForABMCIsForTheComingAttemptAndLastsAsLong(t *testing.T) {
	i, attempts, keys, now := issuing(t)
	attempts.current.Armed = true
	text, attempt, err := i.Armed(issuedPlan(), BMC)
	require.NoError(t, err)
	require.Equal(t, int64(4), attempt)
	got, err := keys.Verify(text, AudienceBoot, netip.MustParseAddr("10.0.0.9"), now.Add(AttemptLifetime-time.Second))
	require.NoError(t, err)
	require.Equal(t, Token{Object: UUID(issuedPlan().Object.UID), Attempt: 4, Audience: AudienceBoot, Proof: BMC, Expires: now.Add(AttemptLifetime)}, got)

	demanding := issuedPlan()
	demanding.MinimumProof = BMC
	_, _, err = i.Armed(demanding, Proxy)
	require.ErrorIs(t, err, ErrUnproven)
	_, _, err = i.Armed(issuedPlan(), Address)
	require.ErrorIs(t, err, ErrUnproven, "a token of the proof Address is good for one address, which nobody knows yet")
	attempts.err = ErrSpent
	_, _, err = i.Armed(issuedPlan(), Proxy)
	require.ErrorIs(t, err, ErrSpent)
}
