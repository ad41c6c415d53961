package v1alpha1

// The conditions of both kinds. All but ClientAddressAmbiguous and
// ForeignBootOffer are good when True.
const (
	ConditionReady          = "Ready"
	ConditionArtifactsReady = "ArtifactsReady"
	ConditionIgnitionValid  = "IgnitionValid"
	ConditionIdentifiable   = "Identifiable"

	ConditionUKIFetched          = "UKIFetched"
	ConditionIPXEScriptFetched   = "IPXEScriptFetched"
	ConditionIgnitionDataFetched = "IgnitionDataFetched"
	ConditionCloudInitFetched    = "CloudInitDataFetched"

	// ConditionClientAddressAmbiguous: requests for several machines came from
	// this machine's address, so the address proves nothing in this attempt; or, with
	// the reason ClientAddressTranslated, requests for this machine come from a node of
	// the operator's own cluster, where the machine's own address is not to be seen.
	ConditionClientAddressAmbiguous = "ClientAddressAmbiguous"
	// ConditionForeignBootOffer: in this attempt another DHCP server offered the
	// machine a boot, and firmware prefers that to an offer beside it.
	ConditionForeignBootOffer = "ForeignBootOffer"
)

// The reasons of conditions and events.
const (
	ReasonReady       = "Ready"
	ReasonProgressing = "Progressing"
	// ReasonFailed is for what has no reason of its own; it is tried again.
	ReasonFailed = "Failed"
	// ReasonPaused is for a config with the annotation boot.ironcore.dev/paused.
	ReasonPaused = "Paused"

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

	// ReasonVerificationFailed: something is not signed as it has to be; the message
	// says which check failed, and who did sign.
	ReasonVerificationFailed = "VerificationFailed"
	// ReasonVerificationInvalid: what signatures are to be checked against cannot be
	// read.
	ReasonVerificationInvalid = "VerificationInvalid"
	// ReasonSecureBootUnsupported: with Secure Boot the machine could not start what
	// it would be given.
	ReasonSecureBootUnsupported = "SecureBootUnsupported"
	// ReasonComposeRequired: a finished UKI cannot be given what the spec asks for.
	ReasonComposeRequired = "ComposeRequired"
	// ReasonComposeFailed: no UKI can be composed of what the image carries.
	ReasonComposeFailed = "ComposeFailed"
	// ReasonSigningKeyInvalid: the key that composed UKIs are signed with cannot be
	// used.
	ReasonSigningKeyInvalid = "SigningKeyInvalid"

	ReasonIgnitionValid    = "IgnitionValid"
	ReasonCloudConfig      = "CloudConfig"
	ReasonNoIgnition       = "NoIgnition"
	ReasonIgnitionInvalid  = "IgnitionInvalid"
	ReasonSecretNotFound   = "SecretNotFound"
	ReasonSecretKeyMissing = "SecretKeyMissing"

	ReasonMetaDataInvalid           = "MetaDataInvalid"
	ReasonNetworkDataInvalid        = "NetworkDataInvalid"
	ReasonUserDataFormatUnknown     = "UserDataFormatUnknown"
	ReasonUserDataFormatUnsupported = "UserDataFormatUnsupported"

	ReasonIdentifiable            = "Identifiable"
	ReasonIdentifiedByClaim       = "IdentifiedByClaim"
	ReasonIdentifiedByBMC         = "IdentifiedByBMC"
	ReasonNoIdentity              = "NoIdentity"
	ReasonInvalidIdentity         = "InvalidIdentity"
	ReasonNoPathNamesThisMachine  = "NoPathNamesThisMachine"
	ReasonIdentityConflict        = "IdentityConflict"
	ReasonNamespaceMayNotClaim    = "NamespaceMayNotClaimMachines"
	ReasonSeveralMachines         = "SeveralMachinesFromOneAddress"
	ReasonAddressTranslated       = "ClientAddressTranslated"
	ReasonOneMachine              = "OneMachine"
	ReasonUKIDelivered            = "UKIDelivered"
	ReasonUKIDeliveryIncomplete   = "UKIDeliveryIncomplete"
	ReasonIPXEScriptDelivered     = "IPXEScriptDelivered"
	ReasonIPXEScriptIncomplete    = "IPXEScriptDeliveryIncomplete"
	ReasonIgnitionDataDelivered   = "IgnitionDataDelivered"
	ReasonIgnitionDeliveryStarted = "IgnitionDeliveryIncomplete"
	ReasonCloudInitDelivered      = "CloudInitDataDelivered"
	ReasonCloudInitIncomplete     = "CloudInitDeliveryIncomplete"
	ReasonNewAttempt              = "NewAttempt"
	ReasonAttemptOpened           = "AttemptOpened"
	ReasonBootAborted             = "BootAborted"
	ReasonBootInterfaceChanged    = "BootInterfaceChanged"
	ReasonSecretContested         = "SecretContested"

	ReasonScriptInvalid    = "ScriptInvalid"
	ReasonTemplateInvalid  = "TemplateInvalid"
	ReasonArgumentInvalid  = "KernelArgumentInvalid"
	ReasonBootOffered      = "BootOffered"
	ReasonForeignBootOffer = "ForeignBootOffer"
	ReasonNoForeignOffer   = "NoForeignBootOffer"
	ReasonNoBootProgram    = "NoBootProgram"
	ReasonRelayPortChanged = "RelayPortChanged"
)
