package host

import (
	"time"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// fetched is what our server sent to a machine in a boot. It alone proves the boot:
// what a BMC says of it does not.
type fetched struct {
	// boot: all bytes of what it boots. cut: some of them, and not all.
	boot, cut bool
	// secret: its Ignition or its user data.
	secret bool
	// committed is when the one delivery of an installation was spent of which
	// nobody told whether its last bytes left; zero where there is none such.
	committed time.Time
}

// fetched says what was sent in the boot of a record, or in later ones.
func (all children) fetched(record *v1alpha1.NetworkBoot) fetched {
	var f fetched
	c := all.booted(record)
	if c == nil || c.ConfigStatus().Boot == nil {
		return f
	}
	b := c.ConfigStatus().Boot
	if s := b.Served; s != nil && s.Attempt >= record.Attempt {
		f.committed = s.Time.Time
	}
	for _, s := range b.Stages {
		stage := boot.Stage(s.Name)
		switch {
		case s.Attempt < record.Attempt:
		case claim.Secret(stage):
			f.secret = f.secret || s.CompletedTime != nil
		case !claim.BootBytes(c.Kind(), stage):
		case s.CompletedTime != nil:
			f.boot = true
		case s.StartedTime != nil:
			f.cut = true
		}
	}
	// Whoever fetched a secret by the attempt of a delivery had it whole.
	f.boot = f.boot || f.secret && !f.committed.IsZero()
	if f.boot {
		f.cut, f.committed = false, time.Time{}
	}
	return f
}

// booted is the config that a record's tactic boots.
func (all children) booted(record *v1alpha1.NetworkBoot) child {
	if record == nil || len(all) == 0 {
		return nil
	}
	return all.bootedBy(redfish.Tactic(record.Tactic))
}

// bootedBy is the config that a tactic boots: for PXE that with a kernel and an
// initrd if there is one, else the one with a UKI, which iPXE starts too. There is
// one at least.
func (all children) bootedBy(t redfish.Tactic) child {
	kind := v1alpha1.KindHTTPBootConfig
	if t == redfish.TacticPXE {
		kind = v1alpha1.KindIPXEBootConfig
	}
	if c := all.kind(kind); c != nil {
		return c
	}
	return all[0]
}
