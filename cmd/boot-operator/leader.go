package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// leadership runs the controllers that write, in a manager of their own. A
// manager ends when its lease is lost, which an API outage of ten seconds is
// enough for; serving must not end with it, so a new manager is built for as
// long as the process lives.
type leadership struct {
	cluster cluster.Cluster
	options settings
	setup   func(ctrl.Manager) error
	logger  logr.Logger
	// leading says that this replica's controllers run.
	leading atomic.Bool
}

// Run returns only when ctx ends.
func (l *leadership) Run(ctx context.Context) error {
	backoff := wait.Backoff{Duration: time.Second, Factor: 2, Steps: 5, Cap: 15 * time.Second}
	for ctx.Err() == nil {
		started := time.Now()
		if err := l.lead(ctx); err != nil && ctx.Err() == nil {
			l.logger.Error(err, "controllers stopped; serving goes on")
		}
		if time.Since(started) > time.Minute {
			backoff.Duration, backoff.Steps = time.Second, 5
		}
		pause(ctx, backoff.Step())
	}
	return nil
}

// lead runs one manager until its lease is lost or ctx ends.
func (l *leadership) lead(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	again := true
	mgr, err := ctrl.NewManager(l.cluster.GetConfig(), ctrl.Options{
		Scheme:                        l.cluster.GetScheme(),
		MapperProvider:                staticMapper,
		NewCache:                      l.borrowCache,
		Client:                        client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Logger:                        l.logger,
		LeaderElection:                l.options.leaderElect,
		LeaderElectionID:              l.options.leaderElectID,
		LeaderElectionNamespace:       l.options.namespace,
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:        "0",
		// Controllers of a manager that ended are set up again under their names.
		Controller: config.Controller{SkipNameValidation: &again},
	})
	if err != nil {
		return fmt.Errorf("building the controllers' manager: %w", err)
	}
	if err := l.setup(mgr); err != nil {
		return fmt.Errorf("setting up controllers: %w", err)
	}
	l.logger.V(1).Info("manager built, waiting to lead")
	return l.start(ctx, mgr)
}

// start runs a manager, and notes whether its controllers run.
func (l *leadership) start(ctx context.Context, mgr ctrl.Manager) error {
	ctx, cancel := context.WithCancel(ctx)
	noted := make(chan struct{})
	go func() {
		defer close(noted)
		select {
		case <-mgr.Elected():
			l.leading.Store(true)
		case <-ctx.Done():
		}
	}()
	err := mgr.Start(ctx)
	cancel()
	<-noted
	l.leading.Store(false)
	return err
}

func (l *leadership) borrowCache(*rest.Config, cache.Options) (cache.Cache, error) {
	return borrowedCache{l.cluster.GetCache()}, nil
}

// borrowedCache is the process's cache in the hands of a manager that must not
// start it again, and may end before it.
type borrowedCache struct{ cache.Cache }

// Start waits for ctx.
func (borrowedCache) Start(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
