package bootconfig

import (
	"errors"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
)

// reasons says, in order, which reason an error of a fetch becomes.
var reasons = []struct {
	err    error
	reason string
}{
	{errSecretNotFound, v1alpha1.ReasonSecretNotFound},
	{errSecretKey, v1alpha1.ReasonSecretKeyMissing},
	{ErrUnverified, v1alpha1.ReasonVerificationFailed},
	{ErrDemand, v1alpha1.ReasonVerificationInvalid},
	{errFinished, v1alpha1.ReasonComposeRequired},
	{artifact.ErrPullSecret, v1alpha1.ReasonPullSecretInvalid},
	{artifact.ErrInvalidReference, v1alpha1.ReasonInvalidReference},
	{artifact.ErrNotAllowed, v1alpha1.ReasonRegistryNotAllowed},
	{artifact.ErrNoPlatform, v1alpha1.ReasonNoPlatform},
	{artifact.ErrNoArtifact, v1alpha1.ReasonNoArtifact},
	{artifact.ErrUnauthorized, v1alpha1.ReasonUnauthorized},
	{artifact.ErrDigestMismatch, v1alpha1.ReasonDigestMismatch},
	{artifact.ErrTooLarge, v1alpha1.ReasonArtifactTooLarge},
	{artifact.ErrFull, v1alpha1.ReasonStoreFull},
	{artifact.ErrNotAUKI, v1alpha1.ReasonNotAUKI},
	{artifact.ErrNotFound, v1alpha1.ReasonImageNotFound},
}

// reasonOf is the reason of an error of a fetch; what is none of the known ones
// is the registry's fault and passes.
func reasonOf(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	return v1alpha1.ReasonRegistryError
}
