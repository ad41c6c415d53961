package timeline

import (
	"cmp"
	"fmt"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// observerManager is the field manager that writes what machines fetched.
const observerManager = "boot-operator-observer"

// view is a machine at one moment.
type view struct {
	*Machine
	now time.Time
	// config is the active one, and boot its boot status, which is never nil; record is
	// the boot through the BMC, if there was one that is still of this attempt.
	config v1alpha1.Config
	boot   *v1alpha1.BootStatus
	record *v1alpha1.NetworkBoot
}

// State tells how the machine is at this time.
func (m *Machine) State(now time.Time) State {
	v := newView(m, now)
	for _, rule := range []func() (State, bool){
		v.removing, v.paused, v.without, v.notReady, v.aborted, v.off, v.viaBMC, v.hostFailed, v.offered, v.fetching,
	} {
		if s, ok := rule(); ok {
			return v.finish(s)
		}
	}
	return v.finish(v.waiting())
}

func newView(m *Machine, now time.Time) *view {
	v := &view{Machine: m, now: now, config: m.Active(), boot: &v1alpha1.BootStatus{}}
	if v.config == nil {
		return v
	}
	if b := v.config.ConfigStatus().Boot; b != nil {
		v.boot = b
	}
	if r := m.Record(); r != nil && (underWay(r.Step) || r.Attempt >= v.boot.Attempt) {
		v.record = r
	}
	return v
}

// underWay says whether a boot is before the attempt that it will be counted as.
func underWay(s v1alpha1.NetworkBootStep) bool {
	return s == v1alpha1.NetworkBootPowerOff || s == v1alpha1.NetworkBootArm || s == v1alpha1.NetworkBootPowerOn
}

// finish adds what is said in every stage.
func (v *view) finish(s State) State {
	s.Attempt, s.BootID = v.boot.Attempt, v.boot.ID
	s.Address, s.Proof = v.boot.LastClientAddress, v.boot.Proof
	if v.config != nil && s.BootID == "" && s.Attempt > 0 {
		s.BootID = boot.NewID(string(v.config.GetUID()), s.Attempt).String()
	}
	v.inTheWay(&s)
	s.Why, s.Help = sentence(s.Why), clip(s.Help)
	return s
}

// inTheWay adds what the network does to the machine.
func (v *view) inTheWay(s *State) {
	if v.config == nil || s.Stage == StageBooted || s.Stage == StagePaused || s.Stage == StageRemoving || s.Stage == StageNotReady {
		return
	}
	for _, name := range []string{v1alpha1.ConditionForeignBootOffer, v1alpha1.ConditionClientAddressAmbiguous} {
		c := meta.FindStatusCondition(v.config.ConfigStatus().Conditions, name)
		early := s.Stage == StageWaiting || s.Stage == StageAwaitingFetch || s.Stage == StageOffered
		if c == nil || c.Status != metav1.ConditionTrue || name == v1alpha1.ConditionForeignBootOffer && !early {
			continue
		}
		s.Why, s.Help, s.Stuck = c.Message, cmp.Or(helps[c.Reason], helps[name]), true
		return
	}
}

func (v *view) removing() (State, bool) {
	switch {
	case v.Host != nil && v.Host.DeletionTimestamp != nil:
		return State{Stage: StageRemoving, Since: v.Host.DeletionTimestamp.Time, Why: "the host is being deleted" + after(hostMessage(v.Host))}, true
	case v.Host != nil && oneOf(v.Host.Status.Provisioning.State, metal3.StateDeprovisioning, metal3.StateDeleting, metal3.StatePoweringOffBeforeDelete):
		return State{Stage: StageRemoving, Since: hostSince(v.Host), Why: "the image is being taken from the host" + after(hostMessage(v.Host))}, true
	case v.Host == nil && v.config != nil && v.config.GetDeletionTimestamp() != nil:
		return State{Stage: StageRemoving, Since: v.config.GetDeletionTimestamp().Time, Why: "its config is being deleted; a finalizer holds it"}, true
	}
	return State{}, false
}

func (v *view) paused() (State, bool) {
	if v.Host != nil {
		for _, a := range []struct{ name, says string }{{metal3.PausedAnnotation, "paused"}, {metal3.DetachedAnnotation, "detached"}} {
			if _, is := v.Host.Annotations[a.name]; is {
				return State{Stage: StagePaused, Why: "the host is " + a.says, Help: "remove the annotation " + a.name + " from the BareMetalHost"}, true
			}
		}
	}
	if v.config == nil || !isPaused(v.config) {
		return State{}, false
	}
	since := time.Time{}
	if c := v.condition(v1alpha1.ConditionIdentifiable); c != nil && c.Reason == v1alpha1.ReasonPaused {
		since = c.LastTransitionTime.Time
	}
	return State{
		Stage: StagePaused, Since: since, Why: fmt.Sprintf("its %s is paused (%s), so that nothing is served to it", v.config.Kind(), clip(v.config.GetAnnotations()[v1alpha1.PausedAnnotation])),
		Help: "remove the annotation " + v1alpha1.PausedAnnotation,
	}, true
}

// without is a host that has no config.
func (v *view) without() (State, bool) {
	if v.config != nil {
		return State{}, false
	}
	h := v.Host
	s := State{Stage: StagePreparing, Since: hostSince(h), Why: hostMessage(h)}
	switch state := h.Status.Provisioning.State; {
	case h.Status.ErrorMessage != "":
		return v.hostFailed()
	case oneOf(state, metal3.StateAvailable, metal3.StateReady) && !hasImage(h):
		s.Stage = StageAvailable
	case oneOf(state, metal3.StateExternallyProvisioned, metal3.StateProvisioned):
		s.Stage = StageAvailable
		s.Why = "the host is " + string(state) + ", and no config of it is here"
	case oneOf(state, metal3.StateNone, metal3.StateUnmanaged):
		s.Stuck = true
		s.Why, s.Help = cmp.Or(s.Why, "no operator has taken the host up yet"), helpUndriven
	default:
		s.Why = cmp.Or(s.Why, "the host is "+string(state))
		s.Stuck = v.longer(s.Since, preparePatience)
	}
	return s, true
}

func hasImage(h *metal3.BareMetalHost) bool { return h.Spec.Image != nil || h.Spec.CustomDeploy != nil }

// notReady is a machine that would be served nothing.
func (v *view) notReady() (State, bool) {
	ready := v.condition(v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		since := v.config.GetCreationTimestamp().Time
		return State{Stage: StagePreparing, Since: since, Stuck: v.longer(since, powerPatience), Why: "no operator has looked at it yet", Help: helpNoOperator}, true
	case ready.Status == metav1.ConditionTrue && ready.ObservedGeneration >= v.config.GetGeneration():
		return State{}, false
	case ready.ObservedGeneration < v.config.GetGeneration():
		since := ready.LastTransitionTime.Time
		return State{Stage: StagePreparing, Since: since, Why: "the operator has not looked at the present spec yet", Help: ""}, true
	}
	s := State{Stage: StageNotReady, Since: ready.LastTransitionTime.Time, Why: cmp.Or(ready.Message, ready.Reason), Help: helps[ready.Reason], Stuck: true}
	if ready.Reason == v1alpha1.ReasonProgressing {
		s.Stage, s.Stuck = StagePreparing, v.longer(s.Since, preparePatience)
	}
	return s, true
}

func (v *view) aborted() (State, bool) {
	if v.boot.Attempt == 0 || v.boot.Aborted != v.boot.Attempt {
		return State{}, false
	}
	since := lastWritten(v.config) // nothing is delivered after it that would be written
	if since.IsZero() {
		since = v.opened()
	}
	return State{
		Stage: StageAborted, Since: since, Why: fmt.Sprintf("attempt %d was aborted: nothing is delivered in it any more", v.boot.Attempt),
		Help: "bootctl boot retry " + v.Name,
	}, true
}

func (v *view) off() (State, bool) {
	h := v.Host
	if h == nil || h.Spec.Online || h.Status.PoweredOn {
		return State{}, false
	}
	return State{Stage: StageOff, Since: hostSince(h)}, true
}

// steps are what a boot through a BMC does in each of its steps.
var steps = map[v1alpha1.NetworkBootStep]struct {
	stage    Stage
	why      string
	help     string
	patience time.Duration
}{
	v1alpha1.NetworkBootPowerOff:   {StagePoweringOff, "waits until the BMC says that the machine is off", helpPower, powerPatience},
	v1alpha1.NetworkBootArm:        {StageArming, "tells the BMC to boot from the network once", helpPower, powerPatience},
	v1alpha1.NetworkBootPowerOn:    {StagePoweringOn, "waits until the BMC says that the machine is on", helpPower, powerPatience},
	v1alpha1.NetworkBootAwaitFetch: {StageAwaitingFetch, "the machine is on; waits until its firmware asks for what it boots", helpNoFetch, fetchPatience},
}

// viaBMC is a machine whose BMC is told what to do.
func (v *view) viaBMC() (State, bool) {
	r := v.record
	if r == nil || r.Step == v1alpha1.NetworkBootDelivered || r.Step == v1alpha1.NetworkBootAwaitFetch && v.begun() {
		return State{}, false
	}
	if r.Step == v1alpha1.NetworkBootFailed {
		return State{Stage: StageFailed, Since: r.Since.Time, Why: cmp.Or(r.Message, "every way to boot it was tried"), Help: helpRetry(v.Name), Stuck: true}, true
	}
	step, known := steps[r.Step]
	if !known {
		return State{}, false
	}
	s := State{Stage: step.stage, Since: r.Since.Time, Why: step.why, Stuck: v.longer(r.Since.Time, step.patience)}
	if s.Stuck {
		s.Help = step.help
	}
	if r.Try > 1 && r.Message != "" {
		s.Why += fmt.Sprintf(" (try %d, since %s)", r.Try, clip(r.Message))
	}
	if h := v.Host; h != nil && h.Status.ErrorMessage != "" {
		s.Why, s.Help, s.Stuck = clip(h.Status.ErrorMessage), hostHelp(h), true
	}
	return s, true
}

// hostFailed is a host with an error while none of its boots is under way.
func (v *view) hostFailed() (State, bool) {
	h := v.Host
	if h == nil || h.Status.ErrorMessage == "" {
		return State{}, false
	}
	since := hostSince(h)
	if c := meta.FindStatusCondition(h.Status.Conditions, metal3.ReadyCondition); c != nil && c.Status == metav1.ConditionFalse {
		since = c.LastTransitionTime.Time
	}
	return State{Stage: StageFailed, Since: since, Why: clip(h.Status.ErrorMessage), Help: hostHelp(h), Stuck: true}, true
}

// offered is a boot that was offered over DHCP and has not begun.
func (v *view) offered() (State, bool) {
	o := v.boot.Offer
	switch {
	case o == nil, o.Attempt < v.boot.Attempt, o.Attempt == v.boot.Attempt && v.begun():
		return State{}, false
	case v.longer(o.Time.Time, boot.AttemptLifetime): // that boot came to nothing long ago
		return State{}, false
	}
	s := State{Stage: StageOffered, Since: o.Time.Time, Why: fmt.Sprintf("a boot was offered to %s (%s), which has not asked for it", o.MACAddress, cmp.Or(o.Firmware, "of unknown firmware"))}
	if s.Stuck = v.longer(o.Time.Time, offerPatience); s.Stuck {
		s.Help = helpOffered
	}
	return s, true
}

// fetching is a machine that has asked for something in this attempt.
func (v *view) fetching() (State, bool) {
	name := v.bootStage()
	what := v.stage(name)
	if s, ok := v.secret(); ok {
		return s, true
	}
	switch {
	case what == nil || what.StartedTime == nil && what.CompletedTime == nil:
		return State{}, false
	case what.CompletedTime == nil:
		return v.transfer(what, fetchingStage[name]), true
	case !v.wantsSecret():
		return State{Stage: StageBooted, Since: what.CompletedTime.Time}, true
	}
	return v.startingOS(what.CompletedTime.Time), true
}

var fetchingStage = map[v1alpha1.BootStageName]Stage{
	stageName(boot.StageUKI): StageFetchingUKI, stageName(boot.StageIPXEScript): StageFetchingScript,
	stageName(boot.StageIgnition): StageFetchingIgnition, stageName(boot.StageCloudInit): StageFetchingUserData,
}

func stageName(s boot.Stage) v1alpha1.BootStageName { return v1alpha1.BootStageName(s) }

// secret is the delivery of the machine's Ignition or user data.
func (v *view) secret() (State, bool) {
	var begun *v1alpha1.BootStage
	for _, name := range []boot.Stage{boot.StageIgnition, boot.StageCloudInit} {
		s := v.stage(stageName(name))
		switch {
		case s == nil:
		case s.CompletedTime != nil:
			return State{Stage: StageBooted, Since: s.CompletedTime.Time}, true
		default:
			begun = s
		}
	}
	if begun == nil {
		return State{}, false
	}
	return v.transfer(begun, fetchingStage[begun.Name]), true
}

// transfer is a delivery that is not complete.
func (v *view) transfer(b *v1alpha1.BootStage, stage Stage) State {
	s := State{Stage: stage, Why: "bytes are being sent"}
	if b.ClientAddress != "" {
		s.Why += " to " + b.ClientAddress
	}
	if b.StartedTime != nil {
		s.Since = b.StartedTime.Time
	}
	if b.Size > 0 {
		s.Progress = &Progress{Sent: b.Sent, Size: b.Size}
	}
	last := s.Since
	if w := lastWritten(v.config); w.After(last) {
		last = w
	}
	if s.Stuck = v.longer(last, transferPatience); s.Stuck {
		s.Why, s.Help = "the delivery stopped before its end", helpCut
	}
	return s
}

// startingOS is a machine that has what it boots, and not its document.
func (v *view) startingOS(since time.Time) State {
	s := State{Stage: StageStartingOS, Since: since, Why: "it has what it boots; waits until its operating system asks for " + v.document()}
	switch closes := v.opened().Add(boot.AttemptLifetime); {
	case !v.opened().IsZero() && v.now.After(closes):
		s.Stage, s.Stuck = StageIncomplete, true
		s.Why, s.Help = fmt.Sprintf("it has what it boots, and did not ask for %s before the attempt closed", v.document()), helpNoDocument(v.Name)
	case v.longer(since, osPatience):
		s.Stuck, s.Help = true, helpNoDocument(v.Name)
	}
	return s
}

func (v *view) waiting() State {
	s := State{Stage: StageWaiting, Since: v.opened(), Why: "everything is in place; the machine has not asked for it"}
	if v.Host == nil {
		s.Help = "switch the machine on, and let it boot from the network"
	}
	return s
}

// wantsSecret says whether the machine is to fetch a document after what it boots.
func (v *view) wantsSecret() bool {
	ref := v.config.Common().IgnitionSecretRef
	if ref == nil || ref.Name == "" {
		return false
	}
	return v.Host == nil || v1alpha1.ProvisionedWhen(v.Host.Annotations[v1alpha1.HostProvisionedWhenAnnotation]) != v1alpha1.ProvisionedWhenImage
}

// document is what the machine asks for, as far as the conditions tell.
func (v *view) document() string {
	if c := v.condition(v1alpha1.ConditionIgnitionValid); c != nil && c.Reason == v1alpha1.ReasonCloudConfig {
		return "its user data"
	}
	return "its Ignition"
}

// begun says whether something was delivered in this attempt, or began to be.
func (v *view) begun() bool {
	for _, s := range v.boot.Stages {
		if s.Attempt == v.boot.Attempt && (v.record == nil || s.Attempt >= v.record.Attempt) {
			return true
		}
	}
	return v.boot.Served != nil && v.boot.Served.Attempt == v.boot.Attempt && (v.record == nil || v.boot.Attempt >= v.record.Attempt)
}

// stage returns what was seen of a stage in this attempt, or nil.
func (v *view) stage(name v1alpha1.BootStageName) *v1alpha1.BootStage {
	for i := range v.boot.Stages {
		if s := &v.boot.Stages[i]; s.Name == name && s.Attempt == v.boot.Attempt {
			return s
		}
	}
	return nil
}

// bootStage is the stage that delivers what the machine boots.
func (v *view) bootStage() v1alpha1.BootStageName {
	if v.config.Kind() == v1alpha1.KindIPXEBootConfig {
		return stageName(boot.StageIPXEScript)
	}
	return stageName(boot.StageUKI)
}

func (v *view) condition(name string) *metav1.Condition {
	return meta.FindStatusCondition(v.config.ConfigStatus().Conditions, name)
}

func (v *view) opened() time.Time {
	if v.boot.OpenedTime == nil {
		return time.Time{}
	}
	return v.boot.OpenedTime.Time
}

// longer says whether something lasts longer than it should; what has no beginning
// does not.
func (v *view) longer(since time.Time, patience time.Duration) bool {
	return !since.IsZero() && v.now.Sub(since) > patience
}

// lastWritten is when what a machine fetched was written last.
func lastWritten(c v1alpha1.Config) time.Time {
	var last time.Time
	for _, f := range c.GetManagedFields() {
		if f.Manager == observerManager && f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last
}

func oneOf(s metal3.ProvisioningState, all ...metal3.ProvisioningState) bool {
	for _, a := range all {
		if s == a {
			return true
		}
	}
	return false
}

// hostSince is when the host's condition Progressing or Ready changed last.
func hostSince(h *metal3.BareMetalHost) time.Time {
	for _, name := range []string{metal3.ProgressingCondition, metal3.ReadyCondition} {
		if c := meta.FindStatusCondition(h.Status.Conditions, name); c != nil {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// hostMessage is what the host says that it waits for.
func hostMessage(h *metal3.BareMetalHost) string {
	if h.Status.ErrorMessage != "" {
		return clip(h.Status.ErrorMessage)
	}
	for _, name := range []string{metal3.ProgressingCondition, metal3.ReadyCondition} {
		if c := meta.FindStatusCondition(h.Status.Conditions, name); c != nil && c.Message != "" {
			return clip(c.Message)
		}
	}
	return ""
}
