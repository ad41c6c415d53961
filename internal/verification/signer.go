package verification

import (
	"fmt"
	"time"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// Signer checks who signs the UKIs that are composed, nil where nobody does, against
// all policies that have a UKI part. It returns ErrFailed or ErrPolicy.
func (v *Verifier) Signer(s *uki.Signer, all []Policy) error {
	for _, p := range all {
		if p.UKI == nil {
			continue
		}
		if err := p.UKI.signer(s); err != nil {
			return err
		}
	}
	return nil
}

func (p *UKIPolicy) signer(s *uki.Signer) error {
	switch {
	case p.Digest != "":
		return fmt.Errorf("%w: a UKI that is composed for each machine cannot have the digest that is asked for, %s", ErrFailed, p.Digest)
	case p.Database == nil && !p.Required:
		return nil
	case s == nil:
		return fmt.Errorf("%w: composed UKIs are not signed, as no signing key is named (spec.compose.signingSecretRef, or the operator's --uki-signing-secret)", ErrFailed)
	case p.Database == nil:
		return fmt.Errorf("%w: there are no certificates to check signatures against", ErrPolicy)
	}
	if err := p.Database.Trusts(s, uki.VerifyOptions{RefuseExpired: p.RefuseExpired, Now: time.Now()}); err != nil {
		return fmt.Errorf("%w: the key that composed UKIs are signed with: %w", ErrFailed, err)
	}
	return nil
}
