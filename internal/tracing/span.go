package tracing

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	mostAttributes = 32
	mostText       = 512 // bytes of a value, and of an error
)

// Record implements boot.Spans. A span of no boot is not sent: it would be a trace of
// its own that nobody finds.
func (t *Tracer) Record(s boot.Span) {
	if s.Boot == (boot.ID{}) {
		return
	}
	if s.End.IsZero() {
		s.End = time.Now()
	}
	if s.Start.IsZero() || s.Start.After(s.End) {
		s.Start = s.End
	}
	_, span := t.tracer.Start(parent(s), string(s.Name), trace.WithTimestamp(s.Start), trace.WithAttributes(attributes(s)...), trace.WithSpanKind(kind(s.Name)))
	if s.Err != nil {
		span.SetStatus(codes.Error, text(s.Err.Error()))
	}
	span.End(trace.WithTimestamp(s.End))
}

// bootKey is the key of the boot whose root span is being made.
type bootKey struct{}

// parent returns what a span is to be a child of: the root span, whoever records that.
func parent(s boot.Span) context.Context {
	if s.Name == boot.SpanBoot {
		return context.WithValue(context.Background(), bootKey{}, s.Boot)
	}
	return trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(s.Boot), SpanID: s.Boot.Root(), TraceFlags: trace.FlagsSampled, Remote: true,
	}))
}

// kind says on which side of a request the operator stands.
func kind(name boot.SpanName) trace.SpanKind {
	switch name {
	case boot.SpanScript, boot.SpanUKI, boot.SpanIgnition, boot.SpanCloudInit, boot.SpanOffer:
		return trace.SpanKindServer
	case boot.SpanResolve, boot.SpanPull, boot.SpanPowerOff, boot.SpanArm, boot.SpanPowerOn:
		return trace.SpanKindClient
	}
	return trace.SpanKindInternal
}

// ids gives root spans the ID that follows from their boot, and others random ones.
type ids struct{}

// NewIDs implements sdk.IDGenerator; it is asked for spans without a parent.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, _ := ctx.Value(bootKey{}).(boot.ID)
	return trace.TraceID(id), id.Root()
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	binary.NativeEndian.PutUint64(id[:], rand.Uint64()|1) //nolint:gosec // a name, not a secret; never 0, which is none
	return id
}

func limits() sdk.SpanLimits {
	return sdk.SpanLimits{AttributeCountLimit: mostAttributes + 1, AttributeValueLengthLimit: mostText}
}

// standard are the attributes that OpenTelemetry has a name for.
var standard = map[string]string{"address": "client.address"}

// attributes returns those of a span under their names in traces: boot.object and the
// like.
func attributes(s boot.Span) []attribute.KeyValue {
	out := []attribute.KeyValue{attribute.String("boot.id", s.Boot.String())}
	for i := 0; i+1 < len(s.Attributes) && len(out) <= mostAttributes; i += 2 {
		key, ok := standard[s.Attributes[i]]
		if !ok {
			key = "boot." + text(s.Attributes[i])
		}
		out = append(out, attribute.String(key, text(s.Attributes[i+1])))
	}
	return out
}

// token is the shape of a boot token. Nobody puts one into a span; but an error may
// quote what a BMC answered.
var token = regexp.MustCompile(`A[Q-Za-f][A-Za-z0-9_-]{78}`)

// text makes a text fit for a collector: short, UTF-8 (protobuf refuses a whole batch
// for one letter), and without tokens.
func text(s string) string {
	s = token.ReplaceAllString(strings.ToValidUTF8(s, "\uFFFD"), "<token>")
	if len(s) > mostText {
		s = strings.ToValidUTF8(s[:mostText-len("…")], "") + "…"
	}
	return s
}
