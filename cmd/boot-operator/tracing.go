package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/tracing"
)

// flushTime is how long the last spans may take to reach their collector when the
// process ends.
const flushTime = 3 * time.Second

// tracingOptions are the settings of traces as they were given.
type tracingOptions struct{ otlpEndpoint string }

func (o *tracingOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.otlpEndpoint, "otlp-endpoint", "", "URL of an OpenTelemetry collector that gets a trace of each boot, by OTLP over HTTP, such as http://collector:4318; its headers are read from OTEL_EXPORTER_OTLP_HEADERS; empty: no traces")
}

// parseOTLPEndpoint checks an endpoint, which may be empty.
func parseOTLPEndpoint(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return tracing.ParseEndpoint(s)
}

// buildTracer makes what records the spans of boots.
func (p *parts) buildTracer(ctx context.Context) (err error) {
	p.spans = boot.NoSpans{}
	if p.settings.otlpEndpoint == "" {
		return nil
	}
	p.tracer, err = tracing.New(ctx, tracing.Options{
		Endpoint: p.settings.otlpEndpoint, Version: version, Instance: instance(),
		Registerer: metrics.Registry, Logger: p.logger.WithName("traces"),
	})
	if err == nil {
		p.spans = p.tracer
	}
	return err
}

// flushSpans sends the last spans; it is called when nothing else runs any more.
func (p *parts) flushSpans() {
	if p.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if err := p.tracer.Shutdown(ctx); err != nil {
		p.logger.Info("the last spans were lost", "reason", err.Error())
	}
}

// instance names this replica: its Pod, whose name is its host's.
func instance() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
