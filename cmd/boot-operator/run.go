package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// run is the operator: everything lives exactly as long as ctx.
func run(ctx context.Context, s settings, logger logr.Logger) error {
	cfg, err := restConfig(s.kubeconfig)
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	clock := newClusterClock(logger.WithName("clock"))
	cfg.Wrap(clock.follow)
	cluster, err := connect(cfg, logger)
	if err != nil {
		return err
	}
	p, err := assemble(ctx, s, cluster, clock, logger)
	if err != nil {
		return err
	}
	if !s.offersOnly() {
		if err := p.ipxeTemplate.Start(ctx); err != nil {
			return err
		}
	}
	return p.run(ctx)
}

// run runs everything. At the end the servers and controllers go first, and what
// they stand on goes after the last transfer: the observer writes what was seen
// of it.
func (p *parts) run(ctx context.Context) error {
	defer p.flushSpans()
	g, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { p.ending.Store(true) })
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	start := func(ctx context.Context, name string, part func(context.Context) error) func() error {
		return func() error {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		}
	}
	for name, part := range p.foundation() {
		g.Go(start(base, name, part))
	}
	g.Go(func() error {
		defer stop()
		front, ctx := errgroup.WithContext(ctx)
		front.Go(start(ctx, "servers", afterSync(p.inventory.HasSynced, p.serve)))
		if p.netboot != nil {
			front.Go(start(ctx, "netboot", afterSync(p.inventory.HasSynced, p.netboot.Run)))
		}
		if p.leadership != nil {
			front.Go(start(ctx, "controllers", afterSync(p.inventory.HasSynced, p.leadership.Run)))
		}
		return front.Wait()
	})
	return g.Wait()
}

// foundation is what servers and controllers stand on, by name. What pulls or
// sweeps begins once the inventory has seen everything: until then it does not
// know all that must not be evicted, nor who loses an identity. A process that only
// offers boots has nothing to pull, and renders no scripts.
func (p *parts) foundation() map[string]func(context.Context) error {
	synced := p.inventory.HasSynced
	all := map[string]func(context.Context) error{
		"cache":      p.cluster.Start,
		"observer":   p.observer.Run,
		"token keys": p.tokenKeys.Run,
		"store":      p.storeWatch.Run,
		"probes":     p.serveProbes,
		"metrics":    p.serveMetrics,
	}
	if !p.settings.offersOnly() {
		all["artifacts"] = afterSync(synced, p.store.Run)
		all["prefetch"] = afterSync(synced, p.prefetch.Run)
		all["default image"] = afterSync(synced, p.defaultImage.Run)
		all["iPXE template"] = p.ipxeTemplate.Run
	}
	return all
}

// afterSync delays a part until synced says so. A part whose context ends before
// that never runs.
func afterSync(synced func() bool, part func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for ctx.Err() == nil && !synced() {
			pause(ctx, 20*time.Millisecond)
		}
		if !synced() {
			return nil
		}
		return part(ctx)
	}
}

// serve opens the boot and image servers; before the caches have synced, a
// machine of ours would look unknown.
func (p *parts) serve(ctx context.Context) error {
	open, err := listen(ctx, p.listeners)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, l := range p.listeners {
		g.Go(func() error { return l.server.Serve(ctx, open[i], l.handler, l.options) })
	}
	p.serving.Store(true)
	p.logger.Info("serving", "boot", p.settings.bootAddress, "tls", p.settings.bootTLSAddress, "images", p.settings.imageAddress)
	return g.Wait()
}

// serveMetrics serves the metrics on a port of their own.
func (p *parts) serveMetrics(ctx context.Context) error {
	o := metricsserver.Options{BindAddress: p.settings.metricsAddress, SecureServing: p.settings.metricsSecure, CertDir: p.settings.metricsCertDir}
	if p.settings.metricsSecure {
		o.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	if off(o.BindAddress) == "" {
		return nil
	}
	server, err := metricsserver.NewServer(o, p.cluster.GetConfig(), p.cluster.GetHTTPClient())
	if err != nil {
		return err
	}
	return server.Start(ctx)
}

// serveProbes answers /healthz and /readyz on a port of their own.
func (p *parts) serveProbes(ctx context.Context) error {
	if p.settings.probeAddress == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("/healthz", healthz.CheckHandler{Checker: healthz.Ping})
	mux.HandleFunc("/readyz", p.readyz)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.settings.probeAddress)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
