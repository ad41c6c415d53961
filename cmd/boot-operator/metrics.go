package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// buildMetrics registers what the process as a whole tells of itself.
func (p *parts) buildMetrics(context.Context) error {
	var errs []error
	for _, c := range p.processMetrics() {
		errs = append(errs, metrics.Registry.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("registering the process's metrics: %w", err)
	}
	return nil
}

func (p *parts) processMetrics() []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "boot_operator", Name: name, Help: help}, value)
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "boot_operator", Name: "info", Help: "Always 1; its label tells the version of this replica.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	all := []prometheus.Collector{info, p.clock.metric(), gauge("ready", "1 while this replica's /readyz says yes, else 0.", func() float64 { return truth(p.ready() == nil) })}
	if !p.settings.servesOnly() {
		all = append(all, gauge("leader", "1 on the replica whose controllers run, 0 on the others; not there in processes without controllers.",
			func() float64 { return truth(p.leadership != nil && p.leadership.leading.Load()) }))
	}
	if p.settings.handsOutTokens() {
		all = append(all, gauge("token_keys", "Keys of boot tokens that this replica knows: 0 while it has read none, 2 while keys are rotated; not there where no tokens are handed out.",
			func() float64 { return float64(p.keyring.Len()) }))
	}
	return all
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
