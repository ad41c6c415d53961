// Package bootconfig reconciles HTTPBootConfigs and IPXEBootConfigs: it checks
// whom a config is for, pulls what the machine boots into the artifact store,
// checks its Ignition, and says in the status how it went.
package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/phase"
)

// The names of the controllers.
const (
	ControllerHTTP = "httpbootconfig"
	ControllerIPXE = "ipxebootconfig"
)

// Store holds artifacts. artifact.Store is one, and says what its errors are.
type Store interface {
	// Resolve asks the registry what a machine boots; it pulls nothing.
	Resolve(ctx context.Context, reference string, arch boot.Architecture, auth artifact.Credentials) (artifact.Image, error)
	// Pull returns when the artifact is in the store and verified.
	Pull(ctx context.Context, a boot.Artifact, auth artifact.Credentials) error
	// PullURL pulls a UKI that is in no registry and says what it is.
	PullURL(ctx context.Context, url string) (boot.Artifact, error)
	// Has says whether a verified artifact is in the store.
	Has(d boot.Digest) bool
}

// Claims knows what all configs claim. It does no I/O.
type Claims interface {
	// MayClaim says whether configs of this namespace may claim machines.
	MayClaim(namespace string) bool
	// Conflict says which older config of the same kind claims one of cfg's
	// identifiers, and which.
	Conflict(cfg v1alpha1.Config) (with boot.Ref, identifier string, conflict bool)
}

// Opener opens boot attempts.
type Opener interface {
	// Open opens the attempt that a change of spec or the annotation
	// request-boot asks for, unless it is open already.
	Open(ctx context.Context, cfg v1alpha1.Config) error
	// ComingOf returns the attempt that the next boot belongs to, and until when that
	// stands if nobody boots; zero for as long as nothing happens. It returns
	// boot.ErrSpent where nothing more is booted.
	ComingOf(cfg v1alpha1.Config) (attempt int64, until time.Time, err error)
}

// Options of the controllers. Store, Claims, Changed and Attempts are required.
type Options struct {
	// Controllers are the names of those to run.
	Controllers []string

	Store    Store
	Claims   Claims
	Attempts Opener
	// Changed returns a channel of configs to look at again because another
	// config or a namespace changed; it is called once for each Setup.
	Changed func() <-chan event.GenericEvent
	// MadeFor says which architecture a UKI in the store really is for, whatever
	// its image claims; an error is taken for one that passes. Without it, images
	// are believed.
	MadeFor func(ctx context.Context, d boot.Digest) (boot.Architecture, error)
	// Takes says in which formats a UKI in the store reads user data. An error is
	// taken for one that passes. Without it, every image reads all.
	Takes func(ctx context.Context, d boot.Digest) (Formats, error)
	// Verifier checks signatures. Without it, configs that ask for any are refused.
	Verifier Verifier
	// Composer composes UKIs. Without it, configs that ask for one are refused.
	Composer Composer
	// SigningSecret holds the key of composed UKIs where a config names none. Optional.
	SigningSecret types.NamespacedName
	// SignedIPXE says why no iPXE for this architecture would start with Secure Boot
	// on. Without it, any does.
	SignedIPXE func(boot.Architecture) error
	// ArtifactURL says where the operator serves an artifact of an image, which
	// is named without tag and digest, or not at all for a foreign UKI. Optional.
	ArtifactURL func(image string, a boot.Artifact) string

	// Architecture of machines whose config names none. Default: amd64.
	Architecture boot.Architecture
	// MinimumProof where a config names none. Default: Address.
	MinimumProof boot.Proof
	// TrustedDHCP says that there are DHCP servers that may speak for a MAC
	// address: what they are told has a token for the address that they gave.
	TrustedDHCP bool
	// Netboot says that the operator offers boots itself, over ProxyDHCP, and
	// NetbootRelays that it does so over DHCP relays that it trusts.
	Netboot, NetbootRelays bool
	// DefaultImage is what an HTTPBootConfig boots that says nothing. Optional.
	DefaultImage string
	// Credentials for images of configs without a pull secret.
	Credentials artifact.Credentials

	// ResolveInterval is how often a tag is resolved again. Default: 5 minutes.
	ResolveInterval time.Duration
	// SecretWatch watches the metadata of all Secrets in place of polling those
	// that configs name. It needs list and watch on Secrets.
	SecretWatch bool
	// SecretPollBudget is how many requests a second polling may cost. Default: 20.
	SecretPollBudget float64
	// SecretPollPeriod is how often each Secret is polled as long as the budget
	// allows. Default: 45 seconds, to notice a change within a minute.
	SecretPollPeriod time.Duration

	// Spans takes what was done for a boot: resolve, pull, verify and compose. Optional.
	Spans boot.Spans
	// Registerer takes the metrics. Optional.
	Registerer prometheus.Registerer
	// Clock is the real one by default.
	Clock clock.WithTicker
}

func (o *Options) complete() error {
	if o.Store == nil || o.Claims == nil || o.Attempts == nil || o.Changed == nil {
		return errors.New("bootconfig needs Store, Claims, Attempts and Changed")
	}
	for _, name := range o.Controllers {
		if name != ControllerHTTP && name != ControllerIPXE {
			return fmt.Errorf("there is no controller %q; there are %s and %s", name, ControllerHTTP, ControllerIPXE)
		}
	}
	orDefault(&o.Architecture, boot.AMD64)
	orDefault(&o.MinimumProof, boot.Address)
	orDefault(&o.ResolveInterval, 5*time.Minute)
	orDefault(&o.SecretPollBudget, 20)
	orDefault(&o.SecretPollPeriod, 45*time.Second)
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Spans == nil {
		o.Spans = boot.NoSpans{}
	}
	if o.ArtifactURL == nil {
		o.ArtifactURL = func(string, boot.Artifact) string { return "" }
	}
	return nil
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// What is watched is granted to inventory, and Secrets to prefetch.
//
// +kubebuilder:rbac:groups=boot.ironcore.dev,resources=httpbootconfigs/status;ipxebootconfigs/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Setup adds the controllers to a manager. It may be called again for another
// manager when the first has ended: nothing of the first stays registered with
// the cache, even where the cache outlives it.
func Setup(mgr ctrl.Manager, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	wake := &wakers{queues: map[string]queue{}}
	secrets, err := newSecrets(mgr.GetAPIReader(), wake.config, o)
	if err != nil {
		return fmt.Errorf("setting up the watch of Secrets: %w", err)
	}
	fetches := newFetches(o, secrets, wake.config)
	for _, r := range []manager.Runnable{
		fetches, manager.RunnableFunc(wake.follow(o.Changed)), secrets.runnable(mgr.GetCache()),
	} {
		if err := mgr.Add(r); err != nil {
			return err
		}
	}
	status := phase.Status{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("boot-operator"), Clock: o.Clock, Written: &phase.Written{}}
	for name, kind := range map[string]newConfig{ControllerHTTP: newHTTP, ControllerIPXE: newIPXE} {
		if !slices.Contains(o.Controllers, name) {
			continue
		}
		r := &reconciler{Options: o, new: kind, reader: mgr.GetClient(), status: status, secrets: secrets, fetches: fetches}
		if err := setupOne(mgr, name, r, wake); err != nil {
			return fmt.Errorf("setting up controller %s: %w", name, err)
		}
	}
	return nil
}

func setupOne(mgr ctrl.Manager, name string, r *reconciler, wake *wakers) error {
	c, err := controller.New(name, mgr, controller.Options{
		Reconciler:              r,
		MaxConcurrentReconciles: 8,
		// The priority queue of controller-runtime 0.24 can hang when it is shut
		// down (its issue 3538), and a lost lease would then cost half a minute.
		UsePriorityQueue: new(bool),
		RateLimiter:      workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](500*time.Millisecond, time.Minute),
	})
	if err != nil {
		return err
	}
	if err := c.Watch(wake.source(r.new().Kind())); err != nil {
		return err
	}
	return c.Watch(&watch{cache: mgr.GetCache(), object: r.new()})
}
