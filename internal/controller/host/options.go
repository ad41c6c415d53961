// Package host looks after BareMetalHosts (metal3.io) without baremetal-operator:
// it registers and inspects the machines behind them over Redfish, boots them once
// from the network, believes that they did when the boot server has sent the
// bytes, switches them as their specs say, and hands them back clean. Or, where
// somebody else powers them, it only says what they boot.
//
// It is the only reconciler of hosts and the only place that knows the mode. What
// a host boots goes into an HTTPBootConfig or an IPXEBootConfig of its name; how
// far a boot has come is in that object's status.boot.networkBoot, written before
// each side effect.
package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// Mode is what is done for BareMetalHosts.
type Mode string

// The modes.
const (
	// ModeOff: nothing.
	ModeOff Mode = "off"
	// ModeTranslate makes configs for hosts that somebody else powers, and writes
	// nothing to the hosts.
	ModeTranslate Mode = "translate"
	// ModeDrive owns the whole life of the hosts.
	ModeDrive Mode = "drive"
)

// ParseMode reads a mode; it says what would be right.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case ModeOff, ModeTranslate, ModeDrive:
		return m, nil
	}
	return "", fmt.Errorf("%q is not %s, %s or %s", s, ModeOff, ModeTranslate, ModeDrive)
}

// FieldManager is who writes hosts, their configs and of those statuses what
// belongs to a BMC.
const FieldManager = "boot-operator-host"

// BMCs lends BMCs, one operation at a time each. redfish.Clients is one, and says
// what its errors are.
type BMCs interface {
	Do(ctx context.Context, c redfish.Connection, f func(ctx context.Context, bmc redfish.BMC) error) error
}

// Resolver asks a registry what an image holds. artifact.Store is one.
type Resolver interface {
	Resolve(ctx context.Context, reference string, arch boot.Architecture, auth artifact.Credentials) (artifact.Image, error)
}

// Links hands out the URLs that are set through BMCs.
type Links interface {
	// Proof is what a URL proves that was set over a connection which is verified,
	// or not; boot.Unproven where there is no URL to set.
	Proof(verified bool) boot.Proof
	// Boot returns the URL of the boot that comes next for the config with this
	// UID, and that boot's attempt. It returns boot.ErrNotReady and
	// boot.ErrNotFound until the servers know of the attempt.
	Boot(uid string, verified bool) (url string, attempt int64, err error)
}

// Options of the controller. BMCs, Resolver and Links are required to drive.
type Options struct {
	Mode Mode
	// Namespaces whose hosts are looked after; empty: all.
	Namespaces []string

	BMCs     BMCs
	Resolver Resolver
	Links    Links
	// Architecture of hosts of which it is not known. Default: amd64.
	Architecture boot.Architecture
	// Credentials for images of hosts that name no pull secret.
	Credentials artifact.Credentials
	// BMCCA is a PEM bundle of authorities that are trusted for BMCs beside the
	// system's.
	BMCCA []byte
	// BMCSessions logs in to BMCs in place of basic authentication.
	BMCSessions bool
	// BootCA is a PEM certificate that firmware is to trust for HTTPS boot, set
	// through the BMC where it can be.
	BootCA []byte
	// AllowPXE lets a host boot by PXE where its image has a kernel and HTTP boot
	// is not to be had.
	AllowPXE bool
	// SignedIPXE says why the iPXE that machines of this architecture load by PXE does
	// not start with Secure Boot on; nil: it does. Without it, nothing is known of
	// iPXE, and a host with Secure Boot boots over HTTP or not at all.
	SignedIPXE func(boot.Architecture) error
	// ProvisionedWhen says what a host must have fetched to be provisioned, where
	// its annotation does not. Default: image and user data.
	ProvisionedWhen v1alpha1.ProvisionedWhen

	// FetchTimeout is how long a machine that was switched on may take to fetch what
	// it boots. It is below boot.AttemptLifetime. Default: 20 minutes.
	FetchTimeout time.Duration
	// PowerOffTimeout is how long a machine may take to switch off, and its
	// operating system to shut down. Default: 3 minutes.
	PowerOffTimeout time.Duration
	// PowerInterval is how often a BMC in peace is asked for its machine's power
	// state. Default: 1 minute.
	PowerInterval time.Duration
	// PollInterval is how often a BMC is asked while something is awaited of it.
	// Default: 2 seconds.
	PollInterval time.Duration
	// RetryInterval is the time before the first retry after an error; it doubles
	// up to 5 minutes. Default: 5 seconds.
	RetryInterval time.Duration

	// DiscoveryInterval is how often the API server is asked whether Metal3's kinds
	// are there. Default: 30 seconds.
	DiscoveryInterval time.Duration
	// CacheSyncTimeout is how long the informers may take to list everything
	// before they are started anew. Default: 2 minutes.
	CacheSyncTimeout time.Duration

	// Clock is the real one by default.
	Clock clock.PassiveClock
	// Recorder takes events. Default: the manager's.
	Recorder events.EventRecorder
	// Registerer takes the metrics. Optional.
	Registerer prometheus.Registerer
	// Spans takes the spans of boots as they end. Default: none.
	Spans boot.Spans
	// Logger is the manager's by default.
	Logger logr.Logger

	metrics *metrics
}

func (o *Options) complete() error {
	if _, err := ParseMode(string(o.Mode)); err != nil {
		return err
	}
	if o.Mode != ModeOff && o.Resolver == nil {
		return errors.New("host needs a Resolver")
	}
	if o.Mode == ModeDrive && (o.BMCs == nil || o.Links == nil) {
		return errors.New("host needs BMCs and Links to drive hosts")
	}
	orDefault(&o.Architecture, boot.AMD64)
	orDefault(&o.ProvisionedWhen, v1alpha1.ProvisionedWhenImageAndUserData)
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Spans == nil {
		o.Spans = boot.NoSpans{}
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"FetchTimeout", &o.FetchTimeout, 20 * time.Minute},
		{"PowerOffTimeout", &o.PowerOffTimeout, 3 * time.Minute},
		{"PowerInterval", &o.PowerInterval, time.Minute},
		{"PollInterval", &o.PollInterval, 2 * time.Second},
		{"RetryInterval", &o.RetryInterval, 5 * time.Second},
		{"DiscoveryInterval", &o.DiscoveryInterval, 30 * time.Second},
		{"CacheSyncTimeout", &o.CacheSyncTimeout, 2 * time.Minute},
	} {
		if *d.value < 0 {
			return fmt.Errorf("%s is %s; it must be positive, or 0 for %s", d.name, *d.value, d.def)
		}
		orDefault(d.value, d.def)
	}
	if o.FetchTimeout >= boot.AttemptLifetime {
		return fmt.Errorf("FetchTimeout is %s; it must be below %s, when a boot attempt closes", o.FetchTimeout, boot.AttemptLifetime)
	}
	if o.Mode == ModeOff {
		return nil
	}
	var err error
	o.metrics, err = register(o.Registerer)
	return err
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
