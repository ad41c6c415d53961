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
		}}, boot.Attempt{Number: 2, OpenedAt: t0, Spent: true, Ambiguous: true, BootServedAt: t0, SecretServedAt: t0, SecretAddr: netip.MustParseAddr("10.0.0.5")}},
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

func TestWhoGotTheBootBytes(t *testing.T) {
	at := metav1.NewMicroTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	stage := func(name v1alpha1.BootStageName, addr, proof string) v1alpha1.BootStage {
		return v1alpha1.BootStage{Name: name, Attempt: 2, ClientAddress: addr, Proof: proof, StartedTime: &at}
	}
	other := stage("UKI", "10.0.0.5", "Proxy")
	other.Attempt = 1
	mine := netip.MustParseAddr("10.0.0.5")
	for name, tt := range map[string]struct {
		stage v1alpha1.BootStage
		addr  netip.Addr
		proof boot.Proof
	}{
		"begun is enough":           {stage("UKI", "10.0.0.5", "Proxy"), mine, boot.Proxy},
		"an address as IPv6 has it": {stage("UKI", "::ffff:10.0.0.5", "Address"), mine, boot.Address},
		"of an earlier attempt":     {other, netip.Addr{}, boot.Unproven},
		"a script, but not of iPXE": {stage("IPXEScript", "10.0.0.5", "Proxy"), netip.Addr{}, boot.Unproven},
		"a secret":                  {stage("Ignition", "10.0.0.5", "Proxy"), netip.Addr{}, boot.Unproven},
		"before there were proofs":  {stage("UKI", "10.0.0.5", ""), mine, boot.Unproven},
		"a proof that is none":      {stage("UKI", "10.0.0.5", "Trust"), mine, boot.Unproven},
		"an address that is none":   {stage("UKI", "nobody", "BMC"), netip.Addr{}, boot.Unproven},
	} {
		t.Run(name, func(t *testing.T) {
			a := Attempt(&v1alpha1.HTTPBootConfig{Status: v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{Attempt: 2, Stages: []v1alpha1.BootStage{tt.stage}}}})
			require.Equal(t, tt.addr, a.BootAddr)
			require.Equal(t, tt.proof, a.BootProof)
			require.Zero(t, a.BootServedAt)
		})
	}
	a := Attempt(&v1alpha1.IPXEBootConfig{Status: v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{Attempt: 2, Stages: []v1alpha1.BootStage{stage("IPXEScript", "10.0.0.5", "Relay")}}}})
	require.Equal(t, boot.Relay, a.BootProof, "what iPXE boots is its script")
}

func TestTheFirstSecretClosesTheAttempt(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	served := func(ignition, cloud time.Duration) boot.Attempt {
		stage := func(name v1alpha1.BootStageName, after time.Duration) v1alpha1.BootStage {
			at := metav1.NewMicroTime(t0.Add(after))
			return v1alpha1.BootStage{Name: name, Attempt: 2, CompletedTime: &at}
		}
		return Attempt(&v1alpha1.HTTPBootConfig{Status: v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{
			Attempt: 2, Stages: []v1alpha1.BootStage{stage("Ignition", ignition), stage("CloudInit", cloud)},
		}}})
	}
	require.Equal(t, t0.Add(time.Second), served(time.Second, time.Hour).SecretServedAt)
	require.Equal(t, t0.Add(time.Second), served(time.Hour, time.Second).SecretServedAt)
}

func TestWhatTheBMCWasToldIsInForceUntilItWasUsed(t *testing.T) {
	at := metav1.NewMicroTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	seen := func(name v1alpha1.BootStageName) func(*v1alpha1.BootStatus) {
		return func(b *v1alpha1.BootStatus) {
			b.Stages = []v1alpha1.BootStage{{Name: name, Attempt: 2, CompletedTime: &at}}
		}
	}
	spent := func(b *v1alpha1.BootStatus) { b.Served = &v1alpha1.BootServed{Attempt: 2} }
	begun := func(b *v1alpha1.BootStatus) {
		b.Stages = []v1alpha1.BootStage{{Name: "UKI", Attempt: 2, StartedTime: &at}}
	}
	for name, tt := range map[string]struct {
		armed int64
		edit  func(*v1alpha1.BootStatus)
		want  bool
	}{
		"for the present attempt":       {2, func(*v1alpha1.BootStatus) {}, true},
		"whose boot has begun":          {2, begun, true},
		"whose boot bytes were served":  {2, seen("UKI"), false},
		"whose Ignition was fetched":    {2, seen("Ignition"), false},
		"whose user data was fetched":   {2, seen("CloudInit"), false},
		"whose delivery is committed":   {2, spent, false},
		"for the next attempt":          {3, seen("UKI"), true},
		"for the next, this one unused": {3, begun, true},
		"for an earlier attempt":        {1, func(*v1alpha1.BootStatus) {}, false},
		"for one that cannot come next": {9, seen("UKI"), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := &v1alpha1.BootStatus{Attempt: 2, OpenedTime: &at, Armed: &v1alpha1.BootArmed{Attempt: tt.armed}}
			tt.edit(b)
			require.Equal(t, tt.want, Attempt(&v1alpha1.HTTPBootConfig{Status: v1alpha1.ConfigStatus{Boot: b}}).Armed)
		})
	}
	require.False(t, Attempt(&v1alpha1.HTTPBootConfig{Status: v1alpha1.ConfigStatus{Boot: &v1alpha1.BootStatus{Attempt: 2}}}).Armed)
}

func TestThePortStaysOverAttemptsThatBootsOpen(t *testing.T) {
	want := boot.RelayPort{Relay: netip.MustParseAddr("10.1.0.1"), Circuit: "ge-0/0/1", Remote: "0xff"}
	for name, tt := range map[string]struct {
		attempt  int64
		openedBy string
		want     boot.RelayPort
	}{
		"seen in this attempt":               {5, "SpecChanged", want},
		"offered for the next":               {6, "SpecChanged", want},
		"then a boot opened one":             {4, "BootDelivery", want},
		"then the spec changed":              {4, "SpecChanged", boot.RelayPort{}},
		"then someone asked for another one": {4, "Requested", boot.RelayPort{}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &v1alpha1.BootStatus{Attempt: 5, OpenedBy: tt.openedBy, RelayPort: &v1alpha1.RelayPort{
				Attempt: tt.attempt, RelayAddress: "::ffff:10.1.0.1", CircuitID: "ge-0/0/1", RemoteID: "0xff",
			}}
			require.Equal(t, tt.want, Attempt(&v1alpha1.HTTPBootConfig{Status: v1alpha1.ConfigStatus{Boot: b}}).Port)
		})
	}
	require.Equal(t, netip.IPv6Unspecified(), Port(v1alpha1.RelayPort{RelayAddress: "somewhere"}).Relay, "no relay has this address")
}

func TestBootBytesOfEachKind(t *testing.T) {
	require.True(t, BootBytes(v1alpha1.KindHTTPBootConfig, boot.StageUKI))
	require.False(t, BootBytes(v1alpha1.KindHTTPBootConfig, boot.StageIPXEScript))
	require.True(t, BootBytes(v1alpha1.KindIPXEBootConfig, boot.StageIPXEScript))
	require.False(t, BootBytes(v1alpha1.KindIPXEBootConfig, boot.StageIgnition))
}
