package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// received is a span as the collector got it, with the attributes of who sent it.
type received struct {
	*otlp.Span
	resource, attributes map[string]string
}

// fakeCollector speaks OTLP over HTTP.
type fakeCollector struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []received
	headers http.Header
	path    string
	// answer is asked for a status before anything is read; 0 means to take the spans.
	answer func() int
}

func newCollector(t *testing.T) *fakeCollector {
	c := &fakeCollector{answer: func() int { return 0 }}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code := c.answer(); code != 0 {
			http.Error(w, "the collector said no", code)
			return
		}
		if err := c.take(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *fakeCollector) take(r *http.Request) error {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(r.Body); err != nil {
			return err
		}
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &request); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers, c.path = r.Header.Clone(), r.URL.Path
	for _, rs := range request.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans = append(c.spans, received{s, texts(rs.Resource.Attributes), texts(s.Attributes)})
			}
		}
	}
	return nil
}

func texts(in []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range in {
		out[kv.Key] = kv.Value.GetStringValue()
	}
	return out
}

func (c *fakeCollector) all() []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]received(nil), c.spans...)
}

// replica returns a tracer, and a function that ends it and returns what it counted.
func replica(t *testing.T, o Options) (*Tracer, func() map[string]float64) {
	registry := prometheus.NewRegistry()
	o.Registerer = registry
	tracer, err := New(t.Context(), o)
	require.NoError(t, err)
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = tracer.Shutdown(ctx)
	}
	t.Cleanup(stop)
	return tracer, func() map[string]float64 { stop(); return counts(t, registry) }
}

func counts(t *testing.T, r *prometheus.Registry) map[string]float64 {
	families, err := r.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if len(m.GetLabel()) == 1 {
				out[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return out
}

var (
	began  = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	bootID = boot.NewID("6a0bd7f4-5a55-4b7f-9c1e-2f1f2f2a9d10", 3)
)

func span(name boot.SpanName, from, to time.Duration) boot.Span {
	return boot.Span{Boot: bootID, Name: name, Start: began.Add(from), End: began.Add(to), Attributes: []string{"object", "HTTPBootConfig default/node-1", "address", "10.0.0.5"}}
}

func TestOneTraceForABootOverTwoReplicas(t *testing.T) {
	c := newCollector(t)
	a, stopA := replica(t, Options{Endpoint: c.URL, Version: "1.2", Instance: "pod-a"})
	b, stopB := replica(t, Options{Endpoint: c.URL + "/v1/traces", Version: "1.2", Instance: "pod-b"})
	a.Record(span(boot.SpanPull, 0, time.Second))
	b.Record(span(boot.SpanUKI, 2*time.Second, 4*time.Second)) // before its parent, and from elsewhere
	a.Record(span(boot.SpanBoot, 0, 9*time.Second))
	other := span(boot.SpanBoot, 0, time.Second)
	other.Boot = boot.NewID("6a0bd7f4-5a55-4b7f-9c1e-2f1f2f2a9d10", 4)
	b.Record(other)
	require.Equal(t, map[string]float64{"exported": 2, "failed": 0, "dropped": 0}, stopA())
	require.Equal(t, map[string]float64{"exported": 2, "failed": 0, "dropped": 0}, stopB())

	require.Equal(t, "/v1/traces", c.path)
	root, instances := bootID.Root(), map[string]string{}
	seen := 0
	for _, s := range c.all() {
		require.Equal(t, "boot-operator", s.resource["service.name"])
		require.Equal(t, "1.2", s.resource["service.version"])
		require.Equal(t, "HTTPBootConfig default/node-1", s.attributes["boot.object"])
		require.Equal(t, "10.0.0.5", s.attributes["client.address"])
		if !bytes.Equal(s.TraceId, bootID[:]) {
			require.Equal(t, other.Boot[:], s.TraceId, "the next attempt is a trace of its own")
			continue
		}
		seen++
		instances[s.Name] = s.resource["service.instance.id"]
		if s.Name == string(boot.SpanBoot) {
			require.Equal(t, root[:], s.SpanId)
			require.Empty(t, s.ParentSpanId)
			require.EqualValues(t, began.UnixNano(), s.StartTimeUnixNano)
			require.EqualValues(t, began.Add(9*time.Second).UnixNano(), s.EndTimeUnixNano)
			continue
		}
		require.Equal(t, root[:], s.ParentSpanId, s.Name)
		require.NotEqual(t, root[:], s.SpanId)
	}
	require.Equal(t, 3, seen)
	require.Equal(t, map[string]string{"pull": "pod-a", "fetch UKI": "pod-b", "boot": "pod-a"}, instances)
}

func TestAFailureIsTheStatusOfItsSpan(t *testing.T) {
	c := newCollector(t)
	tracer, stop := replica(t, Options{Endpoint: c.URL})
	failed := span(boot.SpanArm, 0, time.Second)
	failed.Err = errors.New("the BMC said no")
	tracer.Record(failed)
	tracer.Record(span(boot.SpanPowerOn, 0, time.Second))
	stop()
	for _, s := range c.all() {
		if s.Name == string(boot.SpanArm) {
			require.Equal(t, otlp.Status_STATUS_CODE_ERROR, s.Status.Code)
			require.Equal(t, "the BMC said no", s.Status.Message)
			continue
		}
		require.NotEqual(t, otlp.Status_STATUS_CODE_ERROR, s.Status.GetCode())
	}
	require.Len(t, c.all(), 2)
}

func TestNothingThatASpanSaysSpoilsABatch(t *testing.T) {
	c := newCollector(t)
	tracer, stop := replica(t, Options{Endpoint: c.URL})
	ring, err := boot.NewKeyring(boot.TokenKey{ID: 255, Secret: bytes.Repeat([]byte{7}, 32)})
	require.NoError(t, err)
	token, err := ring.Mint(boot.Token{Object: "6a0bd7f4-5a55-4b7f-9c1e-2f1f2f2a9d10", Attempt: 1, Audience: boot.AudienceBoot, Expires: began.Add(time.Hour)})
	require.NoError(t, err)
	odd := span(boot.SpanArm, time.Second, 0) // ends before it began
	odd.Err = errors.New("PATCH http://10.0.0.1/httpboot/" + token + "\xff " + strings.Repeat("x", 1<<20))
	odd.Attributes = append(odd.Attributes, "text", "\xc3(", "token", token, "a key without a value")
	for range 100 {
		odd.Attributes = append(odd.Attributes, "more", "and more")
	}
	tracer.Record(odd)
	tracer.Record(boot.Span{Boot: bootID, Name: boot.SpanPull})
	tracer.Record(boot.Span{Name: boot.SpanPull}) // of no boot
	require.Equal(t, map[string]float64{"exported": 2, "failed": 0, "dropped": 0}, stop())
	for _, s := range c.all() {
		require.LessOrEqual(t, s.StartTimeUnixNano, s.EndTimeUnixNano)
		require.NotContains(t, s.String(), token)
		require.LessOrEqual(t, len(s.Attributes), mostAttributes+1)
		require.LessOrEqual(t, len(s.Status.GetMessage()), mostText)
	}
}

func TestHeadersAndAttributesOfTheEnvironmentAreSent(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret, x-tenant=racks")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=lab")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	c := newCollector(t)
	tracer, stop := replica(t, Options{Endpoint: c.URL + "/otlp"})
	tracer.Record(span(boot.SpanBoot, 0, time.Second))
	stop()
	require.Len(t, c.all(), 1)
	require.Equal(t, "Bearer secret", c.headers.Get("Authorization"))
	require.Equal(t, "racks", c.headers.Get("X-Tenant"))
	require.Equal(t, "lab", c.all()[0].resource["deployment.environment.name"])
	require.Equal(t, "boot-operator", c.all()[0].resource["service.name"])
	require.Equal(t, "/otlp", c.path)
}

func TestAHeaderThatCannotBeReadIsRefusedWithoutItsContent(t *testing.T) {
	for _, value := range []string{"Bearer hush", "authorization=hush%zz", "a b=hush", "a=hush%0ahush"} {
		t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "fine=1,"+value)
		_, err := New(t.Context(), Options{Endpoint: "http://127.0.0.1:4318"})
		require.ErrorIs(t, err, boot.ErrInvalid, value)
		require.ErrorContains(t, err, "header 2 in OTEL_EXPORTER_OTLP_HEADERS")
		require.NotContains(t, err.Error(), "hush")
	}
}

func TestEndpointsThatAreRefused(t *testing.T) {
	for endpoint, why := range map[string]string{
		"collector:4318":              "no URL",
		"grpc://collector:4317":       "no URL",
		"http://":                     "no URL",
		"http://me:hush@collector":    "credentials",
		"http://collector/?key=hush":  "query",
		"http://collector\x00/":       "no URL",
		"http://collector:4318/#here": "fragment",
	} {
		_, err := ParseEndpoint(endpoint)
		require.ErrorIs(t, err, boot.ErrInvalid, endpoint)
		require.ErrorContains(t, err, why)
		require.NotContains(t, err.Error(), "hush")
	}
	got, err := ParseEndpoint("https://[2001:db8::1]:4318/")
	require.NoError(t, err)
	require.Equal(t, "https://[2001:db8::1]:4318/v1/traces", got)
}

// lines is a logger that keeps what it is given.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) logger() logr.Logger {
	return funcr.New(func(_, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.text = append(l.text, args)
	}, funcr.Options{})
}

func TestACollectorThatRefusesCostsSpansAndTwoLines(t *testing.T) {
	c := newCollector(t)
	var status atomic.Int32
	status.Store(http.StatusBadRequest)
	asked := make(chan struct{}, 16)
	c.answer = func() int {
		code := int(status.Load())
		asked <- struct{}{}
		return code
	}
	var log lines
	tracer, stop := replica(t, Options{Endpoint: c.URL, Logger: log.logger()})
	for range 2 {
		tracer.Record(span(boot.SpanPull, 0, time.Second))
		<-asked
	}
	status.Store(0)
	tracer.Record(span(boot.SpanPull, 0, time.Second))
	require.Equal(t, map[string]float64{"exported": 1, "failed": 2, "dropped": 0}, stop())
	require.Len(t, log.text, 2)
	require.Contains(t, log.text[0], "did not take spans")
	require.Contains(t, log.text[1], "takes spans again")
}

func TestAFullQueueDropsAndNeverWaits(t *testing.T) {
	c := newCollector(t)
	held, asked := make(chan struct{}), make(chan struct{}, 1)
	c.answer = func() int {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-held
		return 0
	}
	tracer, stop := replica(t, Options{Endpoint: c.URL, QueueSize: 8})
	tracer.Record(span(boot.SpanPull, 0, time.Second))
	<-asked // the first batch is at the collector, which does not answer
	started := time.Now()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 250 {
				tracer.Record(span(boot.SpanPull, 0, time.Second))
			}
		})
	}
	group.Wait()
	require.Less(t, time.Since(started), 5*time.Second, "recording waited for the collector")
	close(held)
	got := stop()
	require.InDelta(t, 9, got["exported"], 0)
	require.InDelta(t, 992, got["dropped"], 0)
	require.Len(t, c.all(), 9)
}

func TestShutdownIsBoundedWhereNobodyAnswers(t *testing.T) {
	c := newCollector(t)
	held := make(chan struct{})
	c.answer = func() int { <-held; return 0 }
	defer close(held)
	tracer, err := New(t.Context(), Options{Endpoint: c.URL})
	require.NoError(t, err)
	tracer.Record(span(boot.SpanBoot, 0, time.Second))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	started := time.Now()
	require.Error(t, tracer.Shutdown(ctx))
	require.Less(t, time.Since(started), 5*time.Second)
	tracer.Record(span(boot.SpanBoot, 0, time.Second)) // neither panics nor waits
	require.NoError(t, tracer.Shutdown(t.Context()))
}

func TestAnUnreachableCollectorIsNoErrorOfTheOperator(t *testing.T) {
	c := newCollector(t)
	c.Close()
	tracer, err := New(t.Context(), Options{Endpoint: c.URL})
	require.NoError(t, err)
	tracer.Record(span(boot.SpanBoot, 0, time.Second))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = tracer.Shutdown(ctx)
	require.Zero(t, len(tracer.queue))
}
