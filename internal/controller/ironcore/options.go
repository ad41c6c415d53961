// Package ironcore translates the ServerBootConfigurations of metal-operator:
// each that counts gets an HTTPBootConfig, an IPXEBootConfig or both, and their
// statuses become its own. It does so while metal-operator's kinds are served,
// and waits for them otherwise.
package ironcore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/presence"
	"github.com/boot-operator/boot-operator/internal/translate"
)

// The names of the controllers. They are two to --controllers and one inside:
// two that write one status would make it flap.
const (
	// ControllerHTTP makes HTTPBootConfigs.
	ControllerHTTP = "serverbootconfighttp"
	// ControllerPXE makes IPXEBootConfigs.
	ControllerPXE = "serverbootconfigpxe"
)

// FieldManager is who writes children and the status of ServerBootConfigurations.
const FieldManager = "boot-operator-ironcore"

// Resolver asks a registry what an image holds. artifact.Store is one, and says
// what its errors are; it returns when ctx ends.
type Resolver interface {
	Resolve(ctx context.Context, reference string, arch boot.Architecture, auth artifact.Credentials) (artifact.Image, error)
}

// Options of the translator. Resolver is required.
type Options struct {
	// Controllers are the names of those to run: ControllerHTTP, ControllerPXE.
	// With neither, Setup does nothing.
	Controllers []string
	// Both makes both kinds for an image that has a UKI as well as a kernel and
	// an initrd. Otherwise it gets an HTTPBootConfig alone.
	Both bool

	Resolver Resolver
	// Architecture of Servers that do not tell theirs. Default: amd64.
	Architecture boot.Architecture
	// Credentials for registries.
	Credentials artifact.Credentials
	// ResolveInterval is how often an image is looked at again, and the longest
	// time between two attempts while that fails. Default: 5 minutes.
	ResolveInterval time.Duration
	// RetryInterval is the time before the first retry. Default: 5 seconds.
	RetryInterval time.Duration

	// DiscoveryInterval is how often the API server is asked whether
	// metal-operator's kinds are there. Default: 30 seconds.
	DiscoveryInterval time.Duration
	// CacheSyncTimeout is how long the informers may take to list everything
	// before they are started anew. Default: 2 minutes.
	CacheSyncTimeout time.Duration

	// Recorder takes events. Default: the manager's.
	Recorder events.EventRecorder
	// Registerer takes the metrics. Optional.
	Registerer prometheus.Registerer
	// Logger is the manager's by default.
	Logger logr.Logger
}

func (o *Options) complete() (translate.Paths, error) {
	var enabled translate.Paths
	for _, name := range o.Controllers {
		switch name {
		case ControllerHTTP:
			enabled.HTTP = true
		case ControllerPXE:
			enabled.PXE = true
		default:
			return enabled, fmt.Errorf("there is no controller %q; there are %s and %s", name, ControllerHTTP, ControllerPXE)
		}
	}
	if o.Resolver == nil {
		return enabled, errors.New("ironcore needs a Resolver")
	}
	if o.Architecture == "" {
		o.Architecture = boot.AMD64
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"ResolveInterval", &o.ResolveInterval, 5 * time.Minute},
		{"RetryInterval", &o.RetryInterval, 5 * time.Second},
		{"DiscoveryInterval", &o.DiscoveryInterval, 30 * time.Second},
		{"CacheSyncTimeout", &o.CacheSyncTimeout, 2 * time.Minute},
	} {
		if *d.value < 0 {
			return enabled, fmt.Errorf("%s is %s; it must be positive, or 0 for %s", d.name, *d.value, d.def)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	return enabled, nil
}

// What is read of boot.ironcore.dev is granted to inventory, Secrets to prefetch, and
// events to controller/bootconfig.
//
// +kubebuilder:rbac:groups=metal.ironcore.dev,resources=servers;serverbootconfigurations,verbs=list;watch
// +kubebuilder:rbac:groups=metal.ironcore.dev,resources=serverbootconfigurations/status,verbs=patch
// +kubebuilder:rbac:groups=boot.ironcore.dev,resources=httpbootconfigs;ipxebootconfigs,verbs=create;patch;delete

// Setup adds the translator to a manager, of which it uses only the connection:
// its informers are its own, and go when the manager or metal-operator's kinds
// do. It may be called again for another manager when the first has ended.
func Setup(mgr ctrl.Manager, o Options) error {
	enabled, err := o.complete()
	if err != nil {
		return err
	}
	if !enabled.Any() {
		return nil
	}
	if o.Recorder == nil {
		o.Recorder = mgr.GetEventRecorder("boot-operator")
	}
	if o.Logger.GetSink() == nil {
		o.Logger = mgr.GetLogger().WithName("ironcore")
	}
	t := &translator{Options: o, enabled: enabled, config: mgr.GetConfig(), http: mgr.GetHTTPClient()}
	if err := t.watch(); err != nil {
		return err
	}
	return mgr.Add(t.presence)
}

// translator runs a session for as long as metal-operator's kinds are there.
type translator struct {
	Options
	enabled  translate.Paths
	config   *rest.Config
	http     *http.Client
	presence *presence.Watcher
}
