package claim

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Attempt returns the present boot attempt as the status of cfg tells it; its
// Number is 0 when there never was one. What a status says of an earlier
// attempt is not part of it.
func Attempt(cfg v1alpha1.Config) boot.Attempt {
	status := cfg.ConfigStatus()
	b := status.Boot
	if b == nil || b.Attempt < 1 {
		return boot.Attempt{}
	}
	a := boot.Attempt{
		Number:     b.Attempt,
		SecretAddr: secretAddr(b.SecretAddress),
		Spent:      b.Served != nil && b.Served.Attempt == b.Attempt,
		Ambiguous:  meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionClientAddressAmbiguous),
	}
	if b.OpenedTime != nil {
		a.OpenedAt = b.OpenedTime.Time
	}
	for _, s := range b.Stages {
		if s.Attempt != b.Attempt || s.CompletedTime == nil {
			continue
		}
		switch stage := boot.Stage(s.Name); {
		case stage == boot.StageIgnition:
			a.SecretServedAt = s.CompletedTime.Time
		case BootBytes(cfg.Kind(), stage):
			a.UKIServedAt = s.CompletedTime.Time
		}
	}
	return a
}

// secretAddr reads who fetched the secret. Text that is no address must not
// make the attempt look unfetched: the unspecified address is nobody's.
func secretAddr(s string) netip.Addr {
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
