package prefetch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// The defaults of Options.
const (
	DefaultConcurrency    = 8
	DefaultMaxSecrets     = 4096
	DefaultMaxSecretBytes = 128 << 20
	DefaultRevalidate     = time.Minute
	DefaultReadTimeout    = 2 * time.Second
)

// Store is what prefetch needs of an artifact.Store.
type Store interface {
	// Pull blocks until the blob is in the store, verified; it returns at once
	// when it is there.
	Pull(ctx context.Context, a boot.Artifact, auth artifact.Credentials) error
	// Has says whether the blob is in the store.
	Has(d boot.Digest) bool
}

var _ Store = (*artifact.Store)(nil)

// Options are what a Prefetch is made of.
type Options struct {
	Store Store
	// Reader reads Secrets by name. It must ask the API server itself: a cached
	// reader would hold every Secret of the cluster.
	Reader client.Reader
	// Convert makes Ignition JSON of a document in the format that its Secret
	// names: ignition.Convert.
	Convert func(data []byte, format string) ([]byte, error)
	// Credentials are for images of configs that name no pull secret.
	Credentials artifact.Credentials
	// Concurrency is how many pulls run at once, besides two for what a machine
	// is asking for.
	Concurrency int
	// MaxSecrets and MaxSecretBytes bound the documents in memory.
	MaxSecrets     int
	MaxSecretBytes int
	// Revalidate is how old a document may be before the API server is asked
	// whether it has changed.
	Revalidate time.Duration
	// ReadTimeout is how long a machine waits for a Secret.
	ReadTimeout time.Duration
	// Clock is the time of backoff and expiry; the real one if nil.
	Clock clock.WithDelayedExecution
	// Spans takes the pulls that boots waited for; nil means boot.NoSpans.
	Spans      boot.Spans
	Registerer prometheus.Registerer
	Logger     logr.Logger
}

// Prefetch pulls and keeps what machines will ask for. It implements
// boot.Secrets. Create it with New, connect it with Register, and Run it.
type Prefetch struct {
	options  Options
	metrics  *metrics
	configs  *configs
	pulls    *pulls
	secrets  *secrets
	register sync.Mutex
	handlers []toolscache.ResourceEventHandlerRegistration
}

var _ boot.Secrets = (*Prefetch)(nil)

// The right that all of the operator reads Secrets by. It is a role of its own, so that
// it can be granted in some namespaces only.
//
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get

// New returns a Prefetch that knows nothing yet. It returns boot.ErrInvalid
// when a part is missing, and an error when its metrics cannot be registered.
func New(o Options) (*Prefetch, error) {
	if o.Store == nil || o.Reader == nil || o.Convert == nil {
		return nil, fmt.Errorf("making prefetch: %w: it needs a store, a reader and a converter", boot.ErrInvalid)
	}
	o.setDefaults()
	p := &Prefetch{options: o, configs: newConfigs()}
	p.pulls = newPulls(o)
	p.secrets = newSecrets(o, p.configs)
	var err error
	if p.metrics, err = newMetrics(o.Registerer, p.pulls, p.secrets); err != nil {
		return nil, fmt.Errorf("making prefetch: %w", err)
	}
	p.pulls.metrics, p.secrets.metrics = p.metrics, p.metrics
	return p, nil
}

func (o *Options) setDefaults() {
	if o.Concurrency <= 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.MaxSecrets <= 0 {
		o.MaxSecrets = DefaultMaxSecrets
	}
	if o.MaxSecretBytes <= 0 {
		o.MaxSecretBytes = DefaultMaxSecretBytes
	}
	if o.Revalidate <= 0 {
		o.Revalidate = DefaultRevalidate
	}
	if o.ReadTimeout <= 0 {
		o.ReadTimeout = DefaultReadTimeout
	}
	if o.Spans == nil {
		o.Spans = boot.NoSpans{}
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
}

const (
	// syncPeriod is how often Run looks whether the informers have synced.
	syncPeriod = 20 * time.Millisecond
	// tidyPeriod is how often expired documents are dropped, and blobs that the
	// store lost are looked for.
	tidyPeriod = 15 * time.Second
)

// Run pulls until ctx ends; it returns nil then, after all its pulls ended.
func (p *Prefetch) Run(ctx context.Context) error {
	defer p.secrets.clear()
	if !p.waitForSync(ctx) {
		return nil
	}
	p.pulls.start(ctx)
	defer p.pulls.wait()
	tick := time.NewTicker(tidyPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			p.secrets.expire()
			p.pulls.recheck()
		}
	}
}

func (p *Prefetch) waitForSync(ctx context.Context) bool {
	tick := time.NewTicker(syncPeriod)
	defer tick.Stop()
	for !p.HasSynced() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// Ready returns nil as soon as everything that statuses named when Run began
// was pulled, or has failed once; until then an error that says what is
// missing. Once ready it stays so: what comes later is pulled while serving.
func (p *Prefetch) Ready() error {
	left, example, started := p.pulls.initial()
	switch {
	case !started:
		return errors.New("configs have not been listed yet")
	case left > 0:
		return fmt.Errorf("%d artifacts that statuses name are still being pulled, such as %s", left, example)
	}
	return nil
}
