package claim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestAttemptIsWhatTheStatusSaysOfThePresentOne(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := metav1.NewMicroTime(t0)
	stage := func(name string, attempt int64) v1alpha1.BootStage {
		return v1alpha1.BootStage{Name: v1alpha1.BootStageName(name), Attempt: attempt, CompletedTime: &at}
	}
	ambiguous := []metav1.Condition{{Type: v1alpha1.ConditionClientAddressAmbiguous, Status: metav1.ConditionTrue}}
	tests := map[string]struct {
		status v1alpha1.ConfigStatus
		want   boot.Attempt
	}{
		"none":               {v1alpha1.ConfigStatus{}, boot.Attempt{}},
		"none, but a commit": {v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{Served: &v1alpha1.BootServed{}}}, boot.Attempt{}},
		"opened":             {v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{Attempt: 2, OpenedTime: &at}}, boot.Attempt{Number: 2, OpenedAt: t0}},
		"over": {v1alpha1.ConfigStatus{Conditions: ambiguous, Boot: &v1alpha1.BootStatus{
			Attempt: 2, OpenedTime: &at, Served: &v1alpha1.BootServed{Attempt: 2}, SecretAddress: "::ffff:10.0.0.5",
			Stages: []v1alpha1.BootStage{stage("UKI", 2), stage("Ignition", 2)},
		}}, boot.Attempt{Number: 2, OpenedAt: t0, Spent: true, Ambiguous: true, UKIServedAt: t0, SecretServedAt: t0, SecretAddr: netip.MustParseAddr("10.0.0.5")}},
		"what is of an earlier attempt": {v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{
			Attempt: 2, OpenedTime: &at, Served: &v1alpha1.BootServed{Attempt: 1}, Stages: []v1alpha1.BootStage{stage("UKI", 1), stage("Ignition", 1)},
		}}, boot.Attempt{Number: 2, OpenedAt: t0}},
		"an incomplete stage":     {v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{Attempt: 2, Stages: []v1alpha1.BootStage{{Name: "UKI", Attempt: 2}}}}, boot.Attempt{Number: 2}},
		"an address that is none": {v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{Attempt: 2, SecretAddress: "nobody"}}, boot.Attempt{Number: 2, SecretAddr: netip.IPv6Unspecified()}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tt.want, Attempt(&v1alpha1.HTTPBootConfig{Status: tt.status}))
		})
	}
}

func TestBootBytesOfEachKind(t *testing.T) {
	require.True(t, BootBytes(v1alpha1.KindHTTPBootConfig, boot.StageUKI))
	require.False(t, BootBytes(v1alpha1.KindHTTPBootConfig, boot.StageIPXEScript))
	require.True(t, BootBytes(v1alpha1.KindIPXEBootConfig, boot.StageIPXEScript))
	require.False(t, BootBytes(v1alpha1.KindIPXEBootConfig, boot.StageIgnition))
}
