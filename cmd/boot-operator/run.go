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
	cluster, err := connect(cfg, logger)
	if err != nil {
		return err
	}
	p, err := assemble(ctx, s, cluster, logger)
	if err != nil {
		return err
	}
	if err := p.ipxeTemplate.Start(ctx); err != nil {
		return err
	}
	return p.run(ctx)
}

// run runs everything. At the end the servers and controllers go first, and what
// they stand on goes after the last transfer: the observer writes what was seen
// of it.
func (p *parts) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
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
		front.Go(start(ctx, "controllers", afterSync(p.inventory.HasSynced, p.leadership.Run)))
		return front.Wait()
	})
	return g.Wait()
}

// foundation is what servers and controllers stand on, by name. What pulls or
// sweeps begins once the inventory has seen everything: until then it does not
// know all that must not be evicted, nor who loses an identity.
func (p *parts) foundation() map[string]func(context.Context) error {
	synced := p.inventory.HasSynced
	return map[string]func(context.Context) error{
		"cache":         p.cluster.Start,
		"artifacts":     afterSync(synced, p.store.Run),
		"observer":      p.observer.Run,
		"prefetch":      afterSync(synced, p.prefetch.Run),
		"default image": afterSync(synced, p.defaultImage.Run),
		"token keys":    p.tokenKeys.Run,
		"iPXE template": p.ipxeTemplate.Run,
		"probes":        p.serveProbes,
		"metrics":       p.serveMetrics,
	}
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
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range p.listeners {
		g.Go(func() error { return l.serve(ctx) })
	}
	p.serving.Store(true)
	p.logger.Info("serving", "boot", p.settings.bootAddress, "tls", p.settings.bootTLSAddress, "images", p.settings.imageAddress)
	return g.Wait()
}

// serveMetrics serves the metrics on a port of their own.
func (p *parts) serveMetrics(ctx context.Context) error {
	o := metricsserver.Options{BindAddress: p.settings.metricsAddress, SecureServing: p.settings.metricsSecure}
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
	mux.Handle("/readyz", healthz.CheckHandler{Checker: func(*http.Request) error { return p.ready() }})
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

// ready says whether this replica serves, and has what statuses named when it
// started.
func (p *parts) ready() error {
	if !p.serving.Load() {
		return errors.New("caches have not synced")
	}
	return p.prefetch.Ready()
}
