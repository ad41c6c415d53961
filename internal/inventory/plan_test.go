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
		Served: &v1alpha1.BootServed{Attempt: 4}, Armed: &v1alpha1.BootArmed{Attempt: 5},
		RelayPort: &v1alpha1.RelayPort{Attempt: 4, RelayAddress: "10.1.0.1", CircuitID: "ge-0/0/1"},
		Stages: []v1alpha1.BootStage{
			{Name: "UKI", Attempt: 4, ClientAddress: "10.0.0.9", Proof: "Relay", CompletedTime: micro(epoch.Add(time.Second))},
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
			BootServedAt: epoch.Add(time.Second), BootAddr: netip.MustParseAddr("10.0.0.9"), BootProof: boot.Relay,
			Spent: true, Ambiguous: true, Armed: true, Port: boot.RelayPort{Relay: netip.MustParseAddr("10.1.0.1"), Circuit: "ge-0/0/1"},
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
		{"paused", func(cfg v1alpha1.Config) { cfg.SetAnnotations(map[string]string{v1alpha1.PausedAnnotation: ""}) }, "paused by the annotation boot.ironcore.dev/paused"},
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
	require.Empty(t, planOf(t, Options{DefaultImage: "r/d:1"}, httpConfig("one", 0, url)).Foreign)
	p := planOf(t, Options{DefaultImage: "r/d:1"}, httpConfig("one", 0, url, without))
	require.Equal(t, "https://images.example.com/os.efi", p.Foreign[boot.RoleUKI])
	require.Empty(t, p.Image)
	require.Equal(t, "r/d", planOf(t, Options{DefaultImage: "r/d:1"}, httpConfig("one", 0)).Image)
	require.Empty(t, planOf(t, Options{DefaultImage: "r/d:1"}, ipxeConfig("one", 0)).Image)
}

func TestPlanOfAScript(t *testing.T) {
	cfg := ipxeConfig("one", 0, ipxeSpec(func(s *v1alpha1.IPXEBootConfigSpec) {
		s.KernelURL, s.InitrdURL, s.SquashfsURL = "http://h/k", "http://h/i", "http://h/s"
		s.KernelArguments, s.ScriptTemplate = []string{"quiet", "a=b"}, "#!ipxe\nboot"
		s.IPXEScriptSecretRef = &corev1.LocalObjectReference{Name: "script"}
	}), func(cfg v1alpha1.Config) {
		cfg.ConfigStatus().Artifacts[0].Role = v1alpha1.ArtifactRole(boot.RoleInitrd)
	})
	p := planOf(t, Options{DefaultImage: "r/d:1"}, cfg)
	require.Equal(t, map[boot.Role]string{boot.RoleKernel: "http://h/k", boot.RoleSquashfs: "http://h/s"}, p.Foreign, "the initrd is in the store")
	require.Equal(t, []string{"quiet", "a=b"}, p.KernelArguments)
	require.Equal(t, "#!ipxe\nboot", p.ScriptTemplate)
	require.True(t, p.HasScript)
	require.False(t, p.HasIgnition)

	p = planOf(t, Options{}, ipxeConfig("two", 0, ipxeSpec(func(s *v1alpha1.IPXEBootConfigSpec) { s.IPXEScriptSecretRef = &corev1.LocalObjectReference{} })))
	require.False(t, p.HasScript, "a reference that names nothing")
	require.Nil(t, p.Foreign)
}

func TestUserDataIsNotIgnition(t *testing.T) {
	found := func(reason string, generation int64) edit {
		return func(cfg v1alpha1.Config) {
			s := cfg.ConfigStatus()
			s.Conditions = append(s.Conditions, metav1.Condition{Type: v1alpha1.ConditionIgnitionValid, Status: metav1.ConditionTrue, Reason: reason, ObservedGeneration: generation})
		}
	}
	names := func(cfg v1alpha1.Config) {
		cfg.(*v1alpha1.HTTPBootConfig).Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "document"}
	}
	for _, tc := range []struct {
		name            string
		edits           []edit
		ignition, cloud bool
	}{
		{"no secret", nil, false, false},
		{"no secret any more", []edit{found(v1alpha1.ReasonCloudConfig, 3)}, false, false},
		{"not looked at yet", []edit{names}, true, false},
		{"Ignition", []edit{names, found(v1alpha1.ReasonIgnitionValid, 3)}, true, false},
		{"user data", []edit{names, found(v1alpha1.ReasonCloudConfig, 3)}, false, true},
		{"user data, for an earlier spec", []edit{names, found(v1alpha1.ReasonCloudConfig, 2)}, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := planOf(t, Options{}, httpConfig("one", 0, tc.edits...))
			require.Equal(t, tc.ignition, p.HasIgnition)
			require.Equal(t, tc.cloud, p.HasCloudInit)
		})
	}
}

func TestAPausedConfigKeepsItsMachineAndServesNothing(t *testing.T) {
	paused := httpConfig("paused", 0, claiming(uuidA), func(cfg v1alpha1.Config) {
		cfg.SetAnnotations(map[string]string{v1alpha1.PausedAnnotation: "moving"})
	})
	younger := httpConfig("younger", 1, claiming(uuidA), withDigest(digestB))
	i := filled(Options{}, paused, younger)
	require.Equal(t, "HTTPBootConfig paused", lookup(t, i, uuidA))
	plans, err := i.ByUUID(uuidA)
	require.NoError(t, err)
	require.True(t, plans[0].Paused)
	_, lost := i.Conflict(younger)
	require.True(t, lost)
	_, err = i.PublicArtifact(digestA)
	require.ErrorIs(t, err, boot.ErrNotFound)
	require.Contains(t, i.Digests(), digestA, "its blobs stay in the store")
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
