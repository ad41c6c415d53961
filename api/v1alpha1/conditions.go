package v1alpha1

// The conditions of both kinds. All but ClientAddressAmbiguous are good when True.
const (
	ConditionReady          = "Ready"
	ConditionArtifactsReady = "ArtifactsReady"
	ConditionIgnitionValid  = "IgnitionValid"
	ConditionIdentifiable   = "Identifiable"

	ConditionUKIFetched          = "UKIFetched"
	ConditionIPXEScriptFetched   = "IPXEScriptFetched"
	ConditionIgnitionDataFetched = "IgnitionDataFetched"

	// ConditionClientAddressAmbiguous: requests for several machines came from
	// this machine's address, so the address proves nothing in this attempt.
	ConditionClientAddressAmbiguous = "ClientAddressAmbiguous"
)

// The reasons of conditions and events.
const (
	ReasonReady       = "Ready"
	ReasonProgressing = "Progressing"
	// ReasonFailed is for what has no reason of its own; it is tried again.
	ReasonFailed = "Failed"

	ReasonArtifactsVerified  = "ArtifactsVerified"
	ReasonDefaultImage       = "DefaultImage"
	ReasonForeignURL         = "ForeignURL"
	ReasonNothingToBoot      = "NothingToBoot"
	ReasonInvalidReference   = "InvalidReference"
	ReasonRegistryNotAllowed = "RegistryNotAllowed"
	ReasonImageNotFound      = "ImageNotFound"
	ReasonNoArtifact         = "NoArtifact"
	ReasonNoPlatform         = "NoPlatform"
	ReasonNotAUKI            = "NotAUKI"
	ReasonUnauthorized       = "Unauthorized"
	ReasonRegistryError      = "RegistryError"
	ReasonDigestMismatch     = "DigestMismatch"
	ReasonArtifactTooLarge   = "ArtifactTooLarge"
	ReasonStoreFull          = "StoreFull"
	ReasonPullSecretInvalid  = "PullSecretInvalid"

	ReasonIgnitionValid    = "IgnitionValid"
	ReasonNoIgnition       = "NoIgnition"
	ReasonIgnitionInvalid  = "IgnitionInvalid"
	ReasonSecretNotFound   = "SecretNotFound"
	ReasonSecretKeyMissing = "SecretKeyMissing"

	ReasonIdentifiable            = "Identifiable"
	ReasonIdentifiedByClaim       = "IdentifiedByClaim"
	ReasonNoIdentity              = "NoIdentity"
	ReasonInvalidIdentity         = "InvalidIdentity"
	ReasonNoPathNamesThisMachine  = "NoPathNamesThisMachine"
	ReasonIdentityConflict        = "IdentityConflict"
	ReasonNamespaceMayNotClaim    = "NamespaceMayNotClaimMachines"
	ReasonSeveralMachines         = "SeveralMachinesFromOneAddress"
	ReasonOneMachine              = "OneMachine"
	ReasonUKIDelivered            = "UKIDelivered"
	ReasonUKIDeliveryIncomplete   = "UKIDeliveryIncomplete"
	ReasonIPXEScriptDelivered     = "IPXEScriptDelivered"
	ReasonIPXEScriptIncomplete    = "IPXEScriptDeliveryIncomplete"
	ReasonIgnitionDataDelivered   = "IgnitionDataDelivered"
	ReasonIgnitionDeliveryStarted = "IgnitionDeliveryIncomplete"
	ReasonNewAttempt              = "NewAttempt"
	ReasonAttemptOpened           = "AttemptOpened"
	ReasonSecretContested         = "SecretContested"
)
