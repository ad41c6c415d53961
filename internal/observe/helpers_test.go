package observe

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

var (
	t0    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	addrA = netip.MustParseAddr("10.0.0.5")
	addrB = netip.MustParseAddr("10.0.0.6")
)

const (
	digestA = boot.Digest("sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	uidA    = "uid-a"
)

func after(d time.Duration) time.Time { return t0.Add(d) }

// config returns a config with a boot status that edits have changed.
func config(edits ...func(*v1alpha1.HTTPBootConfig)) *v1alpha1.HTTPBootConfig {
	c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{
		Name: "m", Namespace: "default", UID: types.UID(uidA), Generation: 1,
	}}
	for _, e := range edits {
		e(c)
	}
	return c
}

func once(c *v1alpha1.HTTPBootConfig) { c.Spec.BootPolicy = v1alpha1.BootPolicyOnce }

// opened is the status of an object whose attempt was opened.
func opened(number int64, at time.Time, by string) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Status.Boot = &v1alpha1.BootStatus{Attempt: number, OpenedTime: micro(at), OpenedBy: by, OpenedGeneration: 1}
	}
}

func saw(attempt int64, stage boot.Stage, complete bool, at time.Time) boot.Observation {
	return boot.Observation{
		Object:  boot.Ref{Kind: v1alpha1.KindHTTPBootConfig, Namespace: "default", Name: "m", UID: uidA},
		Attempt: attempt, Stage: stage, Complete: complete, Addr: addrA, Proof: boot.Address, Time: at,
	}
}

func from(addr netip.Addr, o boot.Observation) boot.Observation {
	o.Addr = addr
	return o
}

func planOf(cfg v1alpha1.Config) *boot.Plan {
	return &boot.Plan{
		Object: refOf(cfg), Policy: boot.Policy(cfg.Common().BootPolicy), MinimumProof: boot.Address, Attempt: claim.Attempt(cfg),
	}
}

func condition(t *testing.T, cfg v1alpha1.Config, kind string) metav1.Condition {
	t.Helper()
	for _, c := range cfg.ConfigStatus().Conditions {
		if c.Type == kind {
			return c
		}
	}
	require.Fail(t, "no condition "+kind)
	return metav1.Condition{}
}
