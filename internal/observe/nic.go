package observe

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// bootStage is the stage of the boot bytes; its Attempt is -1 where there is none.
func (s *state) bootStage() v1alpha1.BootStage {
	return findStage(s.boot().Stages, bytesOf(s.cfg.Kind()))
}

// bytesOf is the stage in which what this kind boots is delivered.
func bytesOf(kind string) v1alpha1.BootStageName {
	if claim.BootBytes(kind, boot.StageIPXEScript) {
		return v1alpha1.BootStageName(boot.StageIPXEScript)
	}
	return v1alpha1.BootStageName(boot.StageUKI)
}

// nameInterface notes by which NIC the machine boots, where the boot did not say: the
// one that it was offered to last.
func (s *state) nameInterface() {
	b := s.boot()
	st := s.bootStage()
	if st.Attempt != b.Attempt || st.MACAddress != "" || b.Offer == nil || b.Offer.Attempt != b.Attempt {
		return
	}
	st.MACAddress = b.Offer.MACAddress
	b.Stages = putStage(b.Stages, st)
}

// interfaceChanged says by what another NIC shows than in the boot before, or
// nothing. An address is looked at only where no NIC is known of either boot.
func interfaceChanged(before, next *state) string {
	was, is := before.bootStage(), next.bootStage()
	if was.Attempt < 1 || is.Attempt <= was.Attempt {
		return ""
	}
	old, now := was.MACAddress, is.MACAddress
	if old == "" && now == "" {
		old, now = was.ClientAddress, is.ClientAddress
	}
	if old == "" || now == "" || old == now {
		return ""
	}
	return fmt.Sprintf("The machine boots by %s in attempt %d; in attempt %d it was %s. If nobody meant that, look at the boot order in its firmware, "+
		"at the link of the NIC that it booted by before (cable, switch port), and at its lease in the DHCP server.", now, is.Attempt, was.Attempt, old)
}

// translated keeps the condition that the machine's address does not arrive here: until
// a boot arrives that is proven. It never takes the place of the graver one.
func (s *state) translated(r *report, now time.Time) {
	c := meta.FindStatusCondition(s.cfg.ConfigStatus().Conditions, v1alpha1.ConditionClientAddressAmbiguous)
	said := c != nil && c.Status == metav1.ConditionTrue
	b, t := s.boot(), r.Translated
	switch {
	case said && c.Reason != v1alpha1.ReasonAddressTranslated:
	case t != nil && t.Attempt >= b.Attempt && s.proven(r, t.Time.Time) == nil:
		s.set(now, v1alpha1.ConditionClientAddressAmbiguous, true, v1alpha1.ReasonAddressTranslated, fmt.Sprintf(
			"A request for this machine came from %s in attempt %d, which is a node of this operator's own cluster: the machine's address was translated on its way, and proves nothing. "+
				"Give the Service externalTrafficPolicy: Local, let the Pods use the host's network, or have the balancer speak PROXY protocol (--proxy-protocol-from); bootctl doctor shows which address arrives.", t.Addr, b.Attempt))
	case said:
		if st := s.proven(r, c.LastTransitionTime.Time); st != nil {
			s.set(now, v1alpha1.ConditionClientAddressAmbiguous, false, v1alpha1.ReasonOneMachine,
				fmt.Sprintf("The machine was known at %s (%s) in attempt %d.", st.ClientAddress, st.Proof, st.Attempt))
		}
	}
}

// proven returns a stage of the present attempt that a report tells of, was seen
// since, and proves the machine; nil where there is none.
func (s *state) proven(r *report, since time.Time) *v1alpha1.BootStage {
	for i := range r.Stages {
		st := &r.Stages[i]
		_, proof := claim.BootClient(*st)
		if proof >= boot.Address && st.Attempt >= s.boot().Attempt && latest(r.Stages[i:i+1]).After(since) {
			return st
		}
	}
	return nil
}

// isTranslated says whether the condition tells that the address was translated.
func (s *state) isTranslated() bool {
	c := meta.FindStatusCondition(s.cfg.ConfigStatus().Conditions, v1alpha1.ConditionClientAddressAmbiguous)
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason == v1alpha1.ReasonAddressTranslated
}

// announcePlace tells of a machine that boots from elsewhere than before, or whose
// address does not arrive.
func (o *Observer) announcePlace(before, next *state) {
	if message := interfaceChanged(before, next); message != "" {
		o.event(next, corev1.EventTypeWarning, v1alpha1.ReasonBootInterfaceChanged, message)
	}
	if next.isTranslated() && !before.isTranslated() {
		c := meta.FindStatusCondition(next.cfg.ConfigStatus().Conditions, v1alpha1.ConditionClientAddressAmbiguous)
		o.event(next, corev1.EventTypeWarning, v1alpha1.ReasonAddressTranslated, c.Message)
	}
}
