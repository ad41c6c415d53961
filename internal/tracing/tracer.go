package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// DefaultQueueSize is how many spans wait for the collector at most: those of some
// hundred boots.
const DefaultQueueSize = 4096

const (
	// batchSize and batchDelay end a batch, whichever comes first.
	batchSize  = 512
	batchDelay = 2 * time.Second
	// retryFor bounds the time that one batch is tried again.
	retryFor = 30 * time.Second
)

// Options are what a Tracer is made of.
type Options struct {
	// Endpoint is the URL of a collector that speaks OTLP over HTTP, such as
	// http://collector:4318. Without a path it is /v1/traces there.
	Endpoint string
	// Version and Instance are those of this process: service.version and
	// service.instance.id of its spans.
	Version, Instance string
	// QueueSize is how many spans may wait; 0 means DefaultQueueSize.
	QueueSize int
	// Registerer takes the metrics; nil means that they are not published.
	Registerer prometheus.Registerer
	Logger     logr.Logger
}

// Tracer sends the spans of boots to a collector. It implements boot.Spans. Create it
// with New, and end it with Shutdown.
type Tracer struct {
	log      logr.Logger
	metrics  *metrics
	tracer   trace.Tracer
	provider *sdk.TracerProvider
	exporter *otlptrace.Exporter
	queue    chan sdk.ReadOnlySpan

	// life bounds the requests to the collector.
	life context.Context //nolint:containedctx // Shutdown ends it
	end  context.CancelFunc
	done chan struct{}

	mu     sync.RWMutex // closed, and the closing of queue
	closed bool

	failing bool // only export touches it
}

var _ boot.Spans = (*Tracer)(nil)

// New returns a tracer that sends to o.Endpoint; it does not wait for the collector,
// and does not mind that it is away. The variables OTEL_EXPORTER_OTLP_HEADERS,
// _TIMEOUT, _CERTIFICATE and _COMPRESSION of OpenTelemetry's specification count, and
// OTEL_RESOURCE_ATTRIBUTES. It returns boot.ErrInvalid for an endpoint or for headers
// that cannot be read.
func New(ctx context.Context, o Options) (*Tracer, error) {
	endpoint, err := ParseEndpoint(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("making the tracer: %w", err)
	}
	if err := checkHeaders(); err != nil {
		return nil, fmt.Errorf("making the tracer: %w", err)
	}
	// OpenTelemetry logs what it cannot read of the environment, credentials among it.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	t := &Tracer{log: o.Logger, queue: make(chan sdk.ReadOnlySpan, queueSize(o)), done: make(chan struct{})}
	if t.metrics, err = newMetrics(o.Registerer, func() int { return len(t.queue) }); err != nil {
		return nil, fmt.Errorf("making the tracer: %w", err)
	}
	t.exporter, err = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 10 * time.Second, MaxElapsedTime: retryFor}))
	if err != nil {
		return nil, fmt.Errorf("making the tracer: %w: %w", boot.ErrInvalid, err)
	}
	t.life, t.end = context.WithCancel(context.WithoutCancel(ctx))
	t.provider = sdk.NewTracerProvider(
		sdk.WithResource(resourceOf(ctx, o)), sdk.WithSampler(sdk.AlwaysSample()), sdk.WithIDGenerator(ids{}),
		sdk.WithRawSpanLimits(limits()), sdk.WithSpanProcessor(enqueuer{t}))
	t.tracer = t.provider.Tracer("github.com/boot-operator/boot-operator", trace.WithInstrumentationVersion(o.Version))
	go t.run()
	return t, nil
}

func queueSize(o Options) int {
	if o.QueueSize > 0 {
		return o.QueueSize
	}
	return DefaultQueueSize
}

// resourceOf says whose spans these are. What the environment says counts more, as
// OpenTelemetry's specification has it.
func resourceOf(ctx context.Context, o Options) *resource.Resource {
	ours := resource.NewSchemaless(
		attribute.String("service.name", "boot-operator"),
		attribute.String("service.version", o.Version),
		attribute.String("service.instance.id", o.Instance))
	env, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		o.Logger.Info("OTEL_RESOURCE_ATTRIBUTES cannot be read in whole") // its text is somebody's, and may be long
	}
	both, err := resource.Merge(ours, env)
	if err != nil || both == nil {
		return ours
	}
	return both
}

// ParseEndpoint returns where spans are sent, for an endpoint as it is given. It
// returns boot.ErrInvalid for one that is no URL of a host over http or https, and for
// one with credentials: those belong into OTEL_EXPORTER_OTLP_HEADERS, which no log shows.
func ParseEndpoint(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("%w: the endpoint of traces is no URL such as http://collector:4318", boot.ErrInvalid)
	case u.User != nil:
		return "", fmt.Errorf("%w: the endpoint of traces holds credentials; give them in OTEL_EXPORTER_OTLP_HEADERS", boot.ErrInvalid)
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%w: the endpoint of traces has a query or a fragment, which OTLP knows nothing of", boot.ErrInvalid)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// Shutdown sends what waits, until ctx ends; what is recorded from then on is dropped.
// It may be called twice.
func (t *Tracer) Shutdown(ctx context.Context) error {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.queue)
	}
	t.mu.Unlock()
	defer t.end()
	select {
	case <-t.done:
	case <-ctx.Done():
		t.end()
		<-t.done
	}
	if err := errors.Join(context.Cause(ctx), t.exporter.Shutdown(context.WithoutCancel(ctx))); err != nil {
		return fmt.Errorf("sending the last spans: %w", err)
	}
	return nil
}
