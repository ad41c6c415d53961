package inventory

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func planOf(t *testing.T, o Options, cfg v1alpha1.Config) *boot.Plan {
	t.Helper()
	p, err := filled(o, cfg).ByObject(string(cfg.GetUID()))
	require.NoError(t, err)
	return p
}

func TestPlanOfAnEmptyConfig(t *testing.T) {
	p := planOf(t, Options{}, httpConfig("one", 0, func(cfg v1alpha1.Config) { *cfg.ConfigStatus() = v1alpha1.ConfigStatus{} }))
	require.Equal(t, &boot.Plan{
		Object:       boot.Ref{Kind: "HTTPBootConfig", Namespace: "default", Name: "one", UID: "uid-HTTPBootConfig-one"},
		Machine:      boot.Machine{Architecture: boot.AMD64},
		Policy:       boot.Always,
		MinimumProof: boot.Address,
		NotReady:     "the operator has not looked at this config yet",
	}, p)
}

func TestPlanOfAFullConfig(t *testing.T) {
	cfg := httpConfig("one", 0, claiming(uuidA, macA, addrA), spec(func(s *v1alpha1.HTTPBootConfigSpec) {
		s.Image = "registry.example.com:5000/os/images:1.2@sha256:dd"
		s.Architecture = v1alpha1.ArchitectureARM64
		s.BootPolicy = v1alpha1.BootPolicyOnce
		s.MinimumProof = "Claimed"
		s.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "document"}
	}), withBoot(v1alpha1.BootStatus{
		Attempt: 4, OpenedTime: micro(epoch), SecretAddress: "::ffff:10.0.0.5",
		Served: &v1alpha1.BootServed{Attempt: 4},
		Stages: []v1alpha1.BootStage{
			{Name: "UKI", Attempt: 4, CompletedTime: micro(epoch.Add(time.Second))},
			{Name: "Ignition", Attempt: 4, CompletedTime: micro(epoch.Add(time.Minute))},
		},
	}), func(cfg v1alpha1.Config) {
		s := cfg.ConfigStatus()
		s.Conditions = append(s.Conditions, metav1.Condition{Type: v1alpha1.ConditionClientAddressAmbiguous, Status: metav1.ConditionTrue})
	})
	require.Equal(t, &boot.Plan{
		Object:       boot.Ref{Kind: "HTTPBootConfig", Namespace: "default", Name: "one", UID: "uid-HTTPBootConfig-one"},
		Machine:      boot.Machine{UUID: uuidA, MACs: []boot.MAC{macA}, Addrs: []netip.Addr{netip.MustParseAddr(addrA)}, Architecture: boot.ARM64},
		Artifacts:    []boot.Artifact{{Role: boot.RoleUKI, Digest: digestA, Size: 4096, Source: sourceA}},
		Image:        "registry.example.com:5000/os/images",
		Policy:       boot.Once,
		MinimumProof: boot.Claimed,
		HasIgnition:  true,
		Attempt: boot.Attempt{
			Number: 4, OpenedAt: epoch, SecretServedAt: epoch.Add(time.Minute), SecretAddr: netip.MustParseAddr(addrA),
			UKIServedAt: epoch.Add(time.Second), Spent: true, Ambiguous: true,
		},
	}, planOf(t, Options{MinimumProof: boot.BMC}, cfg))
}

func TestWhatEarlierAttemptsDidDoesNotCount(t *testing.T) {
	p := planOf(t, Options{}, httpConfig("one", 0, withBoot(v1alpha1.BootStatus{
		Attempt: 5, OpenedTime: micro(epoch), Served: &v1alpha1.BootServed{Attempt: 4},
		Stages: []v1alpha1.BootStage{
			{Name: "UKI", Attempt: 4, CompletedTime: micro(epoch)},
			{Name: "Ignition", Attempt: 5, StartedTime: micro(epoch)},
		},
	})))
	require.Equal(t, boot.Attempt{Number: 5, OpenedAt: epoch}, p.Attempt)
}

func TestTextThatIsNoAddressDoesNotFreeTheSecret(t *testing.T) {
	p := planOf(t, Options{}, httpConfig("one", 0, withBoot(v1alpha1.BootStatus{Attempt: 1, OpenedTime: micro(epoch), SecretAddress: "someone"})))
	require.ErrorIs(t, p.Attempt.Admit(netip.MustParseAddr(addrA), epoch), boot.ErrContested)
}

func TestWhyAPlanIsNotReady(t *testing.T) {
	ready := func(change func(*metav1.Condition)) edit {
		return func(cfg v1alpha1.Config) { change(&cfg.ConfigStatus().Conditions[0]) }
	}
	for _, tc := range []struct {
		name string
		edit edit
		want string
	}{
		{"ready", func(v1alpha1.Config) {}, ""},
		{"no status", notReadyYet, "the operator has not looked at this config yet"},
		{"an older spec", ready(func(c *metav1.Condition) { c.ObservedGeneration = 2 }), "the operator has not looked at generation 3 yet; its status is about generation 2"},
		{"a message", ready(func(c *metav1.Condition) { c.Status, c.Reason, c.Message = "False", "ImageNotFound", "no such tag" }), "ImageNotFound: no such tag"},
		{"no message", ready(func(c *metav1.Condition) { c.Status, c.Reason = "Unknown", "Progressing" }), "the condition Ready is Unknown, reason Progressing"},
		{"a UUID that names nobody", claiming("03000200-0400-0500-0006-000700080009"), "spec.systemUUID: invalid: 03000200-0400-0500-0006-000700080009 is a placeholder that many machines carry and identifies none"},
		{"a digest that is none", withDigest("sha256:12"), `status.artifacts, role UKI: invalid: "sha256:12" is not a digest of the form sha256:<64 hexadecimal digits>`},
		{"a size that is none", func(cfg v1alpha1.Config) { cfg.ConfigStatus().Artifacts[0].Size = -1 }, "status.artifacts, role UKI: invalid: size -1 is negative"},
		{"a proof that is none", spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.MinimumProof = "Trust" }), `spec.minimumProof: invalid: proof "Trust" is not one of Claimed, Address, Proxy, Relay, BMC`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, tc.want, planOf(t, Options{}, httpConfig("one", 0, tc.edit)).NotReady)
		})
	}
	require.Equal(t, boot.BMC, planOf(t, Options{}, httpConfig("one", 0, spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.MinimumProof = "Trust" }))).MinimumProof)
}

func TestForeignURLOnlyWhereTheStoreHasNoUKI(t *testing.T) {
	url := spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.UKIURL = "https://images.example.com/os.efi" })
	without := func(cfg v1alpha1.Config) { cfg.ConfigStatus().Artifacts = nil }
	require.Empty(t, planOf(t, Options{DefaultImage: "r/d:1"}, httpConfig("one", 0, url)).ForeignURL)
	p := planOf(t, Options{DefaultImage: "r/d:1"}, httpConfig("one", 0, url, without))
	require.Equal(t, "https://images.example.com/os.efi", p.ForeignURL)
	require.Empty(t, p.Image)
	require.Equal(t, "r/d", planOf(t, Options{DefaultImage: "r/d:1"}, httpConfig("one", 0)).Image)
	require.Empty(t, planOf(t, Options{DefaultImage: "r/d:1"}, ipxeConfig("one", 0)).Image)
}

func TestRepositoryOfAReference(t *testing.T) {
	for reference, want := range map[string]string{
		"":                                "",
		"image":                           "image",
		"image:1.2":                       "image",
		"registry:5000/image":             "registry:5000/image",
		"registry:5000/image:1.2":         "registry:5000/image",
		"registry:5000/image@sha256:dd":   "registry:5000/image",
		"registry:5000/a/b:1.2@sha256:dd": "registry:5000/a/b",
		"registry.example.com/a:b/c":      "registry.example.com/a:b/c",
	} {
		require.Equal(t, want, repository(reference), reference)
	}
}

func TestANilSecretReferenceIsNoIgnition(t *testing.T) {
	require.False(t, planOf(t, Options{}, httpConfig("one", 0)).HasIgnition)
	require.False(t, planOf(t, Options{}, ipxeConfig("one", 0)).HasIgnition)
	empty := spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.IgnitionSecretRef = &corev1.LocalObjectReference{} })
	require.False(t, planOf(t, Options{}, httpConfig("one", 0, empty)).HasIgnition)
}
