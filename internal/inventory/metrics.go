package inventory

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// census is what configs are counted by. It has few values whatever objects say: a
// status can be written by others too.
type census struct{ kind, ready, reason string }

// The values of census for what has no reason, and for reasons that we do not know.
const (
	noReason    = "none"
	otherReason = "other"
)

// readyReasons are the reasons that the condition Ready can have: its own, and those of
// the conditions that it follows from.
var readyReasons = setOf(
	v1alpha1.ReasonReady, v1alpha1.ReasonProgressing, v1alpha1.ReasonFailed, v1alpha1.ReasonPaused,
	v1alpha1.ReasonNothingToBoot, v1alpha1.ReasonInvalidReference, v1alpha1.ReasonRegistryNotAllowed, v1alpha1.ReasonImageNotFound,
	v1alpha1.ReasonNoArtifact, v1alpha1.ReasonNoPlatform, v1alpha1.ReasonNotAUKI, v1alpha1.ReasonUnauthorized, v1alpha1.ReasonRegistryError,
	v1alpha1.ReasonDigestMismatch, v1alpha1.ReasonArtifactTooLarge, v1alpha1.ReasonStoreFull, v1alpha1.ReasonPullSecretInvalid,
	v1alpha1.ReasonVerificationFailed, v1alpha1.ReasonVerificationInvalid, v1alpha1.ReasonSecureBootUnsupported,
	v1alpha1.ReasonComposeRequired, v1alpha1.ReasonComposeFailed, v1alpha1.ReasonSigningKeyInvalid,
	v1alpha1.ReasonIgnitionInvalid, v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonSecretKeyMissing,
	v1alpha1.ReasonMetaDataInvalid, v1alpha1.ReasonNetworkDataInvalid, v1alpha1.ReasonUserDataFormatUnknown, v1alpha1.ReasonUserDataFormatUnsupported,
	v1alpha1.ReasonNoIdentity, v1alpha1.ReasonInvalidIdentity, v1alpha1.ReasonNoPathNamesThisMachine, v1alpha1.ReasonIdentityConflict, v1alpha1.ReasonNamespaceMayNotClaim,
	v1alpha1.ReasonScriptInvalid, v1alpha1.ReasonTemplateInvalid, v1alpha1.ReasonArgumentInvalid,
)

func setOf(all ...string) map[string]bool {
	set := map[string]bool{}
	for _, s := range all {
		set[s] = true
	}
	return set
}

// censusOf is what a config counts as.
func censusOf(cfg v1alpha1.Config) census {
	c := census{kind: cfg.Kind(), ready: "unknown", reason: noReason}
	ready := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return c
	}
	switch ready.Status {
	case "True":
		c.ready = "true"
	case "False":
		c.ready = "false"
	}
	if c.reason = ready.Reason; !readyReasons[c.reason] {
		c.reason = otherReason
	}
	return c
}

// counts counts configs; a value that nobody has is not in it.
type counts map[census]int

func (c counts) add(k census) { c[k]++ }

func (c counts) remove(k census) {
	if c[k]--; c[k] <= 0 {
		delete(c, k)
	}
}

// collector tells what the inventory holds, as it is when somebody asks.
type collector struct {
	inventory *Inventory
	now       func() time.Time
}

var (
	configsDesc = prometheus.NewDesc("boot_operator_configs",
		"HTTPBootConfigs and IPXEBootConfigs, by kind, by the status of their condition Ready (true, false or unknown) and by its reason. Every replica counts them all.",
		[]string{"kind", "ready", "reason"}, nil)
	bootingDesc = prometheus.NewDesc("boot_operator_machines_booting",
		"Boot attempts that are open and in which the boot bytes (UKI or iPXE script) were not delivered completely yet. Every replica counts them all.", nil, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(out chan<- *prometheus.Desc) {
	out <- configsDesc
	out <- bootingDesc
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	now, booting := c.now(), 0
	c.inventory.mu.RLock()
	for _, e := range c.inventory.objects {
		if a := &e.plan.Attempt; a.BootServedAt.IsZero() && a.Open(now) {
			booting++
		}
	}
	configs := make(counts, len(c.inventory.counts))
	for k, n := range c.inventory.counts {
		configs[k] = n
	}
	c.inventory.mu.RUnlock()
	out <- prometheus.MustNewConstMetric(bootingDesc, prometheus.GaugeValue, float64(booting))
	for k, n := range configs {
		out <- prometheus.MustNewConstMetric(configsDesc, prometheus.GaugeValue, float64(n), k.kind, k.ready, k.reason)
	}
}
