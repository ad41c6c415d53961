package claim

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// openedByBoot is what status.boot.openedBy says of an attempt that a boot opened.
const openedByBoot = "BootDelivery"

// Attempt returns the present boot attempt as the status of cfg tells it; its
// Number is 0 when there never was one. What a status says of an earlier
// attempt is not part of it, but for the port, see port.
func Attempt(cfg v1alpha1.Config) boot.Attempt {
	status := cfg.ConfigStatus()
	b := status.Boot
	if b == nil || b.Attempt < 1 {
		return boot.Attempt{}
	}
	a := boot.Attempt{
		Number:     b.Attempt,
		SecretAddr: address(b.SecretAddress),
		Aborted:    b.Aborted == b.Attempt,
		Spent:      b.Served != nil && b.Served.Attempt == b.Attempt,
		Port:       port(b),
		Ambiguous:  ambiguous(status.Conditions),
	}
	if b.OpenedTime != nil {
		a.OpenedAt = b.OpenedTime.Time
	}
	for _, s := range b.Stages {
		if s.Attempt == b.Attempt {
			add(&a, cfg.Kind(), s)
		}
	}
	a.Armed = armed(b, a)
	return a
}

// ambiguous says whether several machines were seen at this machine's address. That
// its address was translated on the way takes nothing away: anyone on a node of the
// cluster could have it said.
func ambiguous(conditions []metav1.Condition) bool {
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionClientAddressAmbiguous)
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason != v1alpha1.ReasonAddressTranslated
}

// add takes in a stage of the present attempt.
func add(a *boot.Attempt, kind string, s v1alpha1.BootStage) {
	stage := boot.Stage(s.Name)
	if BootBytes(kind, stage) {
		a.BootAddr, a.BootProof = BootClient(s)
	}
	if s.CompletedTime == nil {
		return
	}
	at := s.CompletedTime.Time
	switch {
	case BootBytes(kind, stage):
		a.BootServedAt = at
	case Secret(stage) && (a.SecretServedAt.IsZero() || at.Before(a.SecretServedAt)):
		a.SecretServedAt = at
	}
}

// armed says whether a URL in the machine's BMC is in force: it is for the
// present attempt, of which neither boot bytes nor a secret were delivered yet,
// or for the next. Time alone does not take it away: it stays in the BMC until
// whoever set it says that it is gone, or until another attempt is opened.
func armed(b *v1alpha1.BootStatus, a boot.Attempt) bool {
	switch {
	case b.Armed == nil:
		return false
	case b.Armed.Attempt == a.Number:
		return !Used(a)
	}
	return b.Armed.Attempt == a.Number+1
}

// Used says that boot bytes or a secret of the attempt were delivered: a boot
// that begins now does not belong to it.
func Used(a boot.Attempt) bool {
	return !a.BootServedAt.IsZero() || !a.SecretServedAt.IsZero() || a.Spent
}

// port is where a relay saw the machine. It stays the same over attempts that
// boots open; one that the control plane opened makes it void. (The observer
// takes it out of the status then, so what was recorded before the present
// attempt is only there still if boots have opened all of them since.)
func port(b *v1alpha1.BootStatus) boot.RelayPort {
	p := b.RelayPort
	if p == nil || (p.Attempt < b.Attempt && b.OpenedBy != openedByBoot) {
		return boot.RelayPort{}
	}
	return Port(*p)
}

// Port reads a port as a status keeps it. A relay whose text is no address is
// the unspecified one, which relays nothing.
func Port(p v1alpha1.RelayPort) boot.RelayPort {
	return boot.RelayPort{Relay: address(p.RelayAddress), Circuit: p.CircuitID, Remote: p.RemoteID}
}

// BootClient returns who got the boot bytes of a stage, and how the machine was
// known there; boot.Unproven where the stage does not say.
func BootClient(s v1alpha1.BootStage) (netip.Addr, boot.Proof) {
	addr, err := boot.ParseAddr(s.ClientAddress)
	if err != nil {
		return netip.Addr{}, boot.Unproven
	}
	proof, err := boot.ParseProof(s.Proof)
	if err != nil {
		return addr, boot.Unproven
	}
	return addr, proof
}

// address reads who fetched the secret, or a relay. Text that is no address must
// not look like nothing: the unspecified address is nobody's.
func address(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	a, err := boot.ParseAddr(s)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return a
}

// BootBytes says whether this stage delivers what the machine boots: the UKI,
// or the script of a machine that boots with iPXE.
func BootBytes(kind string, stage boot.Stage) bool {
	if kind == v1alpha1.KindIPXEBootConfig {
		return stage == boot.StageIPXEScript
	}
	return stage == boot.StageUKI
}

// Secret says whether this stage delivers a secret of the machine: the first of
// them that is complete closes the attempt soon.
func Secret(stage boot.Stage) bool {
	return stage == boot.StageIgnition || stage == boot.StageCloudInit
}
