package host

import (
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The conditions of a host that are not Metal3's own. All are good when True.
const (
	// ConditionDriven: this operator owns the host's life.
	ConditionDriven = "Driven"
	// ConditionReturns: a diskless machine comes back after a reboot of its own and
	// after a power cut.
	ConditionReturns = "ReturnsAfterReboot"
	// ConditionFollowed: every field of the spec is followed.
	ConditionFollowed = "SpecFollowed"
)

// The reasons of conditions and events of hosts.
const (
	ReasonDriven                = "Driven"
	ReasonManagedElsewhere      = "ManagedByBaremetalOperator"
	ReasonStateChanged          = "StateChanged"
	ReasonInvalidAddress        = "InvalidBMCAddress"
	ReasonNoCredentials         = "NoCredentials"
	ReasonCredentialsRefused    = "CredentialsRefused"
	ReasonCertificateNotTrusted = "BMCCertificateNotTrusted"
	ReasonBMCUnreachable        = "BMCUnreachable"
	ReasonBMCRefused            = "BMCRefused"
	ReasonBMCUnusable           = "BMCUnusable"
	ReasonAnotherMachine        = "AnotherMachine"
	ReasonInvalidAnnotation     = "InvalidAnnotation"
	ReasonInvalidSpec           = "InvalidSpec"
	ReasonUnknownState          = "UnknownState"
	ReasonInspectionIncomplete  = "InspectionIncomplete"
	ReasonImageNotUsable        = "ImageNotUsable"
	ReasonNameTaken             = "NameTaken"
	ReasonNoNetworkBoot         = "NoNetworkBoot"
	ReasonNoSecureBoot          = "NoSecureBoot"
	ReasonIdentityNotObservable = "IdentityNotObservable"
	ReasonPowerFailed           = "PowerFailed"
	ReasonBootArmed             = "BootArmed"
	ReasonBootBegun             = "BootBegun"
	ReasonBootRetried           = "BootRetried"
	ReasonBootDelivered         = "BootDelivered"
	ReasonBootFailed            = "BootFailed"
	ReasonBootAborted           = "BootAborted"
	ReasonUserDataNotFetched    = "UserDataNotFetched"
	ReasonBootOrderNotWritable  = "BootOrderNotWritable"
	ReasonIdentityOnlyByBMC     = "IdentityOnlyByBMC"
	ReasonNetworkFirst          = "NetworkFirst"
	ReasonFieldsIgnored         = "FieldsIgnored"
	ReasonAllFollowed           = "AllFollowed"
	ReasonRemovedWithoutBMC     = "RemovedWithoutBMC"
)

// set sets a condition of the host; it says whether anything changed.
func (v *visit) set(name string, value bool, reason, message string) bool {
	status := metav1.ConditionFalse
	if value {
		status = metav1.ConditionTrue
	}
	return meta.SetStatusCondition(&v.host.Status.Conditions, metav1.Condition{
		Type: name, Status: status, Reason: reason, Message: clip(message),
		ObservedGeneration: v.host.Generation, LastTransitionTime: metav1.NewTime(v.Clock.Now()),
	})
}

func (v *visit) unset(name string) { meta.RemoveStatusCondition(&v.host.Status.Conditions, name) }

// notes says which fields are not followed.
func (v *visit) notes(notes []string) {
	if len(notes) == 0 {
		v.set(ConditionFollowed, true, ReasonAllFollowed, "")
		return
	}
	v.set(ConditionFollowed, false, ReasonFieldsIgnored, strings.Join(notes, "; "))
}

// conditions makes Metal3's conditions say what the state says, and what is wrong.
func (v *visit) conditions(f *failure) {
	state := v.host.Status.Provisioning.State
	v.set(ConditionDriven, true, ReasonDriven, "")
	v.manageable(f, state)
	reason, message := metal3.NotAvailableReason, ""
	switch state {
	case metal3.StateAvailable, metal3.StateReady:
		reason = metal3.AvailableReason
	case metal3.StateInspecting:
		reason = metal3.InspectingReason
	}
	if f != nil && reason == metal3.AvailableReason {
		reason, message = f.reason, f.Error()
	}
	v.set(metal3.AvailableForProvisioningCondition, reason == metal3.AvailableReason, reason, message)
	v.whetherProvisioned(f, state)
	v.progressing(f, state)
	v.set(metal3.HealthyCondition, f == nil, healthReason(f), "What the BMC says of the machine's health is not watched.")
}

func healthReason(f *failure) string {
	if f == nil {
		return metal3.HealthyReason
	}
	return metal3.UnknownHealthReason
}

// manageable tells whether the BMC can be used.
func (v *visit) manageable(f *failure, state metal3.ProvisioningState) {
	switch {
	case f != nil && f.kind != metal3.ProvisioningError && f.kind != metal3.InspectionError:
		v.set(metal3.ManageableCondition, false, f.reason, f.Error())
	case state == metal3.StateNone || state == metal3.StateUnmanaged:
		v.set(metal3.ManageableCondition, false, metal3.NotManagedReason, "Set spec.bmc.address and spec.bmc.credentialsName.")
	case state == metal3.StateRegistering:
		v.set(metal3.ManageableCondition, false, metal3.RegisteringReason, "")
	default:
		v.set(metal3.ManageableCondition, true, metal3.ManageableReason, "")
	}
}

// whetherProvisioned tells whether the machine runs what it was given, and whether
// all is well with that.
func (v *visit) whetherProvisioned(f *failure, state metal3.ProvisioningState) {
	done := state == metal3.StateProvisioned || state == metal3.StateExternallyProvisioned
	reason := metal3.NotProvisionedReason
	switch {
	case done:
		reason = metal3.ProvisionedReason
	case state == metal3.StateProvisioning:
		reason = metal3.ProvisioningReason
	}
	v.set(metal3.ProvisionedCondition, done, reason, "")
	switch {
	case isDetached(v.host):
		v.set(metal3.ReadyCondition, false, metal3.DetachedReason, "")
	case f != nil:
		v.set(metal3.ReadyCondition, false, f.reason, f.Error())
	default:
		v.set(metal3.ReadyCondition, done, reason, "")
	}
}

// inProgress are the states that pass by themselves, with their reasons.
var inProgress = map[metal3.ProvisioningState]string{
	metal3.StateRegistering:             metal3.RegisteringReason,
	metal3.StateInspecting:              metal3.InspectingReason,
	metal3.StatePreparing:               metal3.PreparingReason,
	metal3.StateProvisioning:            metal3.ProvisioningReason,
	metal3.StateDeprovisioning:          metal3.DeprovisioningReason,
	metal3.StatePoweringOffBeforeDelete: metal3.PoweringOffBeforeDeleteReason,
	metal3.StateDeleting:                metal3.DeletingReason,
}

// was says whether the condition Progressing is True for this reason.
func (v *visit) was(reason string) bool {
	c := meta.FindStatusCondition(v.host.Status.Conditions, metal3.ProgressingCondition)
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason == reason
}

// progressing tells what is awaited.
func (v *visit) progressing(f *failure, state metal3.ProvisioningState) {
	reason, passing := inProgress[state]
	switch {
	case f != nil:
		v.set(metal3.ProgressingCondition, false, f.reason, f.Error())
	case passing && v.after == atOnce && state == v.before.Status.Provisioning.State && v.was(reason):
		// The next step says more; what is awaited would come and go.
	case passing:
		v.set(metal3.ProgressingCondition, true, reason, v.progress)
	default:
		v.set(metal3.ProgressingCondition, v.progress != "", metal3.NotProgressingReason, v.progress)
	}
}
