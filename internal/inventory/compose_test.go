package inventory

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const digestComposed = boot.Digest("sha256:" + "cc00000000000000000000000000000000000000000000000000000000000000")

// partsOnly is the status of a config whose image carries what a UKI is composed of.
func partsOnly(cfg v1alpha1.Config) {
	cfg.ConfigStatus().Artifacts = []v1alpha1.Artifact{
		{Role: "Stub", Digest: string(digestA), Size: 100, Source: sourceA},
		{Role: "Kernel", Digest: string(digestB), Size: 200, Source: sourceA},
	}
}

func composedAs(c v1alpha1.ComposedUKI) edit {
	return func(cfg v1alpha1.Config) { cfg.ConfigStatus().Composed = &c }
}

var goodComposed = v1alpha1.ComposedUKI{
	Attempt: 4, Digest: string(digestComposed), Size: 70000, TokenKey: 200, Signer: "CN=uki", Signature: []byte("pkcs7"),
}

func arguments(cfg v1alpha1.Config) {
	cfg.(*v1alpha1.HTTPBootConfig).Spec.KernelArguments = []string{"console=ttyS0", "a=b"}
}

func TestPlanOfAComposedUKI(t *testing.T) {
	p := planOf(t, Options{}, httpConfig("one", 0, partsOnly, arguments, composedAs(goodComposed)))
	require.Empty(t, p.NotReady)
	require.True(t, p.Composes)
	require.Equal(t, []string{"console=ttyS0", "a=b"}, p.KernelArguments)
	require.Equal(t, &boot.Composed{Attempt: 4, Digest: digestComposed, Size: 70000, TokenKey: 200, Signature: []byte("pkcs7")}, p.Composed)
	_, uki := p.Artifact(boot.RoleUKI)
	require.False(t, uki)
	require.Len(t, p.Artifacts, 2)
}

func TestWhatIsComposedIsServedOnlyOnceItIs(t *testing.T) {
	with := func(change func(c *v1alpha1.ComposedUKI)) edit {
		c := goodComposed
		change(&c)
		return composedAs(c)
	}
	for name, c := range map[string]struct {
		edits    []edit
		composes bool
		notReady string
	}{
		"an image with a UKI":         {nil, false, ""},
		"not composed yet":            {[]edit{partsOnly}, true, "being composed"},
		"arguments and a UKI only":    {[]edit{arguments}, true, "being composed"},
		"asked for, but a UKI only":   {[]edit{spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.Compose = &v1alpha1.Compose{} })}, true, "being composed"},
		"a digest that is none":       {[]edit{partsOnly, with(func(c *v1alpha1.ComposedUKI) { c.Digest = "sha256:1" })}, true, "status.composed"},
		"a size that is none":         {[]edit{partsOnly, with(func(c *v1alpha1.ComposedUKI) { c.Size = 0 })}, true, "status.composed"},
		"an attempt that is none":     {[]edit{partsOnly, with(func(c *v1alpha1.ComposedUKI) { c.Attempt = -1 })}, true, "status.composed"},
		"a key that is none":          {[]edit{partsOnly, with(func(c *v1alpha1.ComposedUKI) { c.TokenKey = 256 })}, true, "status.composed"},
		"composed, and not ready yet": {[]edit{partsOnly, composedAs(goodComposed), notReadyYet}, true, "has not looked"},
	} {
		t.Run(name, func(t *testing.T) {
			p := planOf(t, Options{}, httpConfig("one", 0, c.edits...))
			require.Equal(t, c.composes, p.Composes)
			if c.notReady == "" {
				require.Empty(t, p.NotReady)
			} else {
				require.Contains(t, p.NotReady, c.notReady)
			}
		})
	}
	p := planOf(t, Options{}, httpConfig("one", 0, arguments, spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.UKIURL = "https://images.example.com/os.efi" })))
	require.Empty(t, p.Foreign, "a foreign UKI has not what the spec asks for")
	require.False(t, planOf(t, Options{}, ipxeConfig("one", 0, partsOnly, composedAs(goodComposed))).Composes, "iPXE boots a kernel")
}

func TestThePartsArePublicAndTheComposedUKINever(t *testing.T) {
	i := filled(Options{}, httpConfig("one", 0, partsOnly, composedAs(goodComposed)))
	for _, d := range []boot.Digest{digestA, digestB} {
		_, err := i.PublicArtifact(d)
		require.NoError(t, err)
		require.Contains(t, i.Digests(), d)
	}
	_, err := i.PublicArtifact(digestComposed)
	require.ErrorIs(t, err, boot.ErrNotFound)
	require.NotContains(t, i.Digests(), digestComposed, "no store has it")
}

func TestWhereASignatureCountsNoByteFlowsUnverified(t *testing.T) {
	for name, c := range map[string]struct {
		edit edit
		want bool
	}{
		"nothing is asked for": {func(v1alpha1.Config) {}, false},
		"Secure Boot":          {spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.SecureBoot = true }), true},
		"verification":         {spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.Verification = &v1alpha1.Verification{} }), true},
		"the operator's policy": {func(cfg v1alpha1.Config) {
			cfg.ConfigStatus().Verification = &v1alpha1.VerificationStatus{UKI: &v1alpha1.UKISignature{}}
		}, true},
	} {
		require.Equal(t, c.want, planOf(t, Options{}, httpConfig("one", 0, c.edit)).Strict, name)
	}
	require.True(t, planOf(t, Options{}, ipxeConfig("one", 0, ipxeSpec(func(s *v1alpha1.IPXEBootConfigSpec) { s.SecureBoot = true }))).Strict)
}

func TestABlobIsStrictForAllAsLongAsOnePlanSaysSo(t *testing.T) {
	secure := spec(func(s *v1alpha1.HTTPBootConfigSpec) { s.SecureBoot = true })
	i := filled(Options{}, httpConfig("one", 0), httpConfig("two", 1), httpConfig("three", 2, secure))
	strict := func() bool {
		a, err := i.PublicArtifact(digestA)
		require.NoError(t, err)
		return a.Strict
	}
	require.True(t, strict())
	i.put(httpConfig("two", 1, secure))
	i.put(httpConfig("three", 2))
	require.True(t, strict())
	i.put(httpConfig("two", 1, secure, notReadyYet))
	require.False(t, strict(), "a plan that is not ready publishes nothing")
}

func TestStripSharesWhatComposedConfigsRepeat(t *testing.T) {
	cfg := httpConfig("one", 0, partsOnly, arguments, composedAs(goodComposed), func(cfg v1alpha1.Config) {
		cfg.ConfigStatus().Verification = &v1alpha1.VerificationStatus{Image: &v1alpha1.ImageAttestation{Signer: "key"}, UKI: &v1alpha1.UKISignature{Signer: "CN=uki"}}
	})
	before := cfg.DeepCopyObject()
	after, err := Strip(cfg)
	require.NoError(t, err)
	require.Equal(t, before, after, "what it says stays the same")
}
