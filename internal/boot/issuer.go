package boot

import (
	"fmt"
	"time"
)

// A boot token is the same text for everyone who asks within tokenWindow, on
// every replica, and is good for at least as long again.
const (
	tokenWindow = 15 * time.Minute
	tokenLife   = 2 * tokenWindow
)

// Issuer hands out tokens.
type Issuer struct {
	keys     *Keyring
	attempts Attempts
	now      func() time.Time
}

// NewIssuer returns an issuer that signs with keys; now is its clock.
func NewIssuer(keys *Keyring, attempts Attempts, now func() time.Time) *Issuer {
	return &Issuer{keys: keys, attempts: attempts, now: now}
}

// Boot returns a token for the boot bytes of the boot that comes next, to be
// handed to the client c: whoever has it is proven as c is. It returns
// ErrUnproven when c is proven less than the plan asks for, ErrArmed while a
// stronger token is out, ErrSpent and ErrNotReady as Attempts.Coming does, and
// ErrNotReady when there are no keys.
func (i *Issuer) Boot(p *Plan, c Client) (string, error) {
	if c.Proof < Address || c.Proof < p.MinimumProof {
		return "", fmt.Errorf("minting a token for %s: %w: %s", p.Object, ErrUnproven, c.Proof)
	}
	if c.Proof < BMC && i.attempts.Current(p).Armed {
		return "", fmt.Errorf("minting a token for %s: %w", p.Object, ErrArmed)
	}
	a, err := i.attempts.Coming(p)
	if err != nil {
		return "", fmt.Errorf("minting a token for %s: %w", p.Object, err)
	}
	return i.keys.Mint(Token{
		Object: UUID(p.Object.UID), Attempt: a.Number, Audience: AudienceBoot, Proof: c.Proof, Addr: c.Addr,
		Expires: i.now().Truncate(tokenWindow).Add(tokenLife),
	})
}

// Armed returns a token for the boot bytes of the boot that comes next, to be set
// in a URL through the machine's BMC, and the number of that boot's attempt.
// Whoever has it is proven by proof, which is BMC, or Proxy where the URL could
// have been seen on its way. The token is good for as long as an attempt can be.
// Its errors are those of Boot, but for ErrArmed: it takes the place of the one
// that is out.
func (i *Issuer) Armed(p *Plan, proof Proof) (token string, attempt int64, err error) {
	if proof < Proxy || proof < p.MinimumProof {
		return "", 0, fmt.Errorf("minting a token for %s: %w: %s", p.Object, ErrUnproven, proof)
	}
	a, err := i.attempts.Coming(p)
	if err != nil {
		return "", 0, fmt.Errorf("minting a token for %s: %w", p.Object, err)
	}
	token, err = i.keys.Mint(Token{
		Object: UUID(p.Object.UID), Attempt: a.Number, Audience: AudienceBoot, Proof: proof,
		Expires: i.now().Add(AttemptLifetime),
	})
	return token, a.Number, err
}

// Secret returns a token for the secrets of an attempt that the client c has
// begun; it is good for as long as the attempt can be. It returns ErrUnproven as
// Boot does, and ErrNotReady when there are no keys.
func (i *Issuer) Secret(p *Plan, a Attempt, c Client) (string, error) {
	if c.Proof < Address || c.Proof < p.MinimumProof {
		return "", fmt.Errorf("minting a token for %s: %w: %s", p.Object, ErrUnproven, c.Proof)
	}
	return i.keys.Mint(Token{
		Object: UUID(p.Object.UID), Attempt: a.Number, Audience: AudienceSecret, Proof: c.Proof, Addr: c.Addr,
		Expires: a.OpenedAt.Add(AttemptLifetime),
	})
}
