package bootconfig

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	isTrue  = metav1.ConditionTrue
	isFalse = metav1.ConditionFalse
)

func TestAConfigBecomesReadyWhenItsImageIsComplete(t *testing.T) {
	f := newFixture(t)
	release := f.store.hangPull(ukiDigest)
	f.run()
	f.secret("ign", map[string]string{"ignition": "variant: fcos\nversion: 1.5.0\n", "format": "fcos"})
	c := f.machine("m", withIgnition("ign"))

	f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonProgressing)
	f.shows(c, v1alpha1.ConditionIgnitionValid, isTrue, v1alpha1.ReasonIgnitionValid)
	assert.Equal(t, v1alpha1.StatePending, c.Status.State)
	assert.Empty(t, c.Status.Artifacts, "what is not complete is not shown")
	assert.Zero(t, f.opener.count("m"))

	release()
	f.ready(c)
	assert.Equal(t, []v1alpha1.Artifact{{
		Role: "UKI", Digest: string(ukiDigest), Size: 4096, Source: "registry.example.com/os/image@" + string(ukiDigest),
		URL: "http://boot.example.com/registry.example.com/os/image/" + ukiDigest.Hex() + ".efi",
	}}, c.Status.Artifacts)
	assert.Equal(t, v1alpha1.StateReady, c.Status.State)
	assert.Equal(t, c.Generation, c.Status.ObservedGeneration)
	assert.Positive(t, f.opener.count("m"), "the attempt is open before anyone sees Ready")
	f.eventually(c, "told by events", func() bool {
		e := f.events("m")
		return e[v1alpha1.ReasonProgressing] == corev1.EventTypeNormal && e[v1alpha1.ReasonArtifactsVerified] == corev1.EventTypeNormal && e[v1alpha1.ReasonReady] == corev1.EventTypeNormal
	})
}

func TestNilReferencesAreNoReferences(t *testing.T) {
	f := newFixture(t)
	f.run()
	c := f.machine("m") // ignitionSecretRef and pullSecretRef are nil
	f.ready(c)
	f.shows(c, v1alpha1.ConditionIgnitionValid, isTrue, v1alpha1.ReasonNoIgnition)

	empty := f.machine("empty", withIgnition(""), func(c *v1alpha1.HTTPBootConfig) { c.Spec.PullSecretRef = &corev1.LocalObjectReference{} })
	f.ready(empty)
}

func TestWhatTheObserverOwnsStaysUntouched(t *testing.T) {
	f := newFixture(t)
	f.run()
	c := f.machine("m")
	f.ready(c)
	observed := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": "m", "namespace": f.ns},
		"status": map[string]any{
			"boot": map[string]any{"attempt": int64(3)},
			"conditions": []any{map[string]any{
				"type": "UKIFetched", "status": "True", "reason": "UKIDelivered", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z",
			}},
		},
	}}
	observed.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindHTTPBootConfig))
	require.NoError(t, f.client.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(observed.DeepCopy()), client.FieldOwner("boot-operator-observer"), client.ForceOwnership))

	f.update(c, func() { c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "none"} })
	f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonSecretNotFound)
	f.shows(c, v1alpha1.ConditionArtifactsReady, isTrue, v1alpha1.ReasonArtifactsVerified)
	assert.EqualValues(t, 3, c.Status.Boot.Attempt)
	assert.Len(t, c.Status.Conditions, 5)

	// And the other way round: the observer's next apply takes nothing of ours.
	require.NoError(t, f.client.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(observed.DeepCopy()), client.FieldOwner("boot-operator-observer"), client.ForceOwnership))
	f.reread(c)
	assert.Len(t, c.Status.Conditions, 5)
	assert.NotEmpty(t, c.Status.Artifacts)
}

// direct returns a reconciler that is called by hand, as the operator's user.
func (f *fixture) direct(change ...func(*Options)) *reconciler {
	f.t.Helper()
	o := f.bootstrap
	for _, ch := range change {
		ch(&o)
	}
	return f.reconciler(o, newHTTP)
}

func TestReconcilingAgainWritesNothing(t *testing.T) {
	f := newFixture(t)
	r := f.direct()
	f.secret("ign", map[string]string{"ignition": brokenJSON})
	good, bad := f.machine("good"), f.machine("bad", withIgnition("ign"))
	for _, c := range []*v1alpha1.HTTPBootConfig{good, bad} {
		f.eventually(c, "done", func() bool {
			f.reconcile(r, c)
			return len(c.Status.Artifacts) == 1
		})
		f.reconcile(r, c)
		f.reread(c)
		before := c.ResourceVersion
		for range 5 {
			f.reconcile(r, c)
		}
		f.reread(c)
		assert.Equal(t, before, c.ResourceVersion, "%s: a status that is right is not written again", c.Name)
	}
}

func TestBadInput(t *testing.T) {
	type row struct {
		name    string
		spec    func(*v1alpha1.HTTPBootConfig)
		world   func(*fixture)
		cond    string
		reason  string
		message string
		state   v1alpha1.State
	}
	fails := func(err error) func(*fixture) {
		return func(f *fixture) { f.store.set(func() { f.store.fails[imageTag] = err }) }
	}
	identifiers := func(ids ...string) func(*v1alpha1.HTTPBootConfig) {
		return func(c *v1alpha1.HTTPBootConfig) { c.Spec.NetworkIdentifiers = ids }
	}
	pull := func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.PullSecretRef = &corev1.LocalObjectReference{Name: "pull"}
	}
	secret := func(name, key, value string) func(*fixture) {
		return func(f *fixture) { f.secret(name, map[string]string{key: value}) }
	}
	const (
		identity, artifacts, ignition = v1alpha1.ConditionIdentifiable, v1alpha1.ConditionArtifactsReady, v1alpha1.ConditionIgnitionValid
		pending, failed               = v1alpha1.StatePending, v1alpha1.StateError
	)
	rows := []row{
		{"no identity", identifiers(), nil, identity, v1alpha1.ReasonNoIdentity, "set spec.systemUUID or an IP or MAC address", failed},
		{"bad identifiers", identifiers("10.0.0.5", "10.0.0.999", "01:00:5e:00:00:01"), nil, identity, v1alpha1.ReasonInvalidIdentity, "10.0.0.999", failed},
		{"placeholder", func(c *v1alpha1.HTTPBootConfig) { c.Spec.SystemUUID = "00000000-0000-0000-0000-000000000000" }, nil, identity, v1alpha1.ReasonInvalidIdentity, "placeholder", failed},
		{"MAC alone", identifiers("52:54:00:aa:bb:01"), nil, identity, v1alpha1.ReasonNoPathNamesThisMachine, "--trusted-dhcp", failed},
		{"Once that cannot be counted", func(c *v1alpha1.HTTPBootConfig) {
			c.Spec.NetworkIdentifiers, c.Spec.MinimumProof, c.Spec.BootPolicy = []string{"52:54:00:aa:bb:01"}, "Claimed", v1alpha1.BootPolicyOnce
		}, nil, identity, v1alpha1.ReasonNoPathNamesThisMachine, "set spec.bootPolicy to Always", failed},
		{"proof nobody gives", func(c *v1alpha1.HTTPBootConfig) { c.Spec.MinimumProof = "BMC" }, nil, identity, v1alpha1.ReasonNoPathNamesThisMachine, "minimumProof is BMC", failed},
		{"namespace", nil, func(f *fixture) { f.claims.forbidden[f.ns] = true }, identity, v1alpha1.ReasonNamespaceMayNotClaim, "may not claim machines", failed},
		{"conflict", nil, func(f *fixture) {
			f.claims.loses["m"] = boot.Ref{Kind: "HTTPBootConfig", Namespace: "other", Name: "older"}
		}, identity, v1alpha1.ReasonIdentityConflict, "10.0.0.5 is claimed by the older HTTPBootConfig other/older", failed},

		{"nothing to boot", func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = "" }, nil, artifacts, v1alpha1.ReasonNothingToBoot, "set spec.image", failed},
		{"bad reference", nil, fails(artifact.ErrInvalidReference), artifacts, v1alpha1.ReasonInvalidReference, imageTag, failed},
		{"registry not allowed", nil, fails(artifact.ErrNotAllowed), artifacts, v1alpha1.ReasonRegistryNotAllowed, imageTag, failed},
		{"no such image", nil, fails(artifact.ErrNotFound), artifacts, v1alpha1.ReasonImageNotFound, imageTag, pending},
		{"other architecture", nil, fails(artifact.ErrNoPlatform), artifacts, v1alpha1.ReasonNoPlatform, "amd64", failed},
		{"the config's own architecture", func(c *v1alpha1.HTTPBootConfig) { c.Spec.Architecture = "arm64" }, fails(artifact.ErrNoPlatform), artifacts, v1alpha1.ReasonNoPlatform, "for arm64", failed},
		{"no UKI", nil, func(f *fixture) {
			f.store.images[imageTag] = artifact.Image{Source: "registry.example.com/os/image@sha256:1"}
		}, artifacts, v1alpha1.ReasonNoArtifact, "has no UKI", failed},
		{"unauthorized", nil, fails(artifact.ErrUnauthorized), artifacts, v1alpha1.ReasonUnauthorized, imageTag, pending},
		{"registry down", nil, fails(errors.New("connection refused")), artifacts, v1alpha1.ReasonRegistryError, "connection refused", pending},
		{"too large", nil, fails(artifact.ErrTooLarge), artifacts, v1alpha1.ReasonArtifactTooLarge, imageTag, failed},
		{"disk full", nil, func(f *fixture) { f.store.fails[string(ukiDigest)] = artifact.ErrFull }, artifacts, v1alpha1.ReasonStoreFull, ": pulling UKI sha256:aaaa", pending},
		{"lying registry", nil, func(f *fixture) { f.store.fails[string(ukiDigest)] = artifact.ErrDigestMismatch }, artifacts, v1alpha1.ReasonDigestMismatch, "sha256:aaaa", failed},
		{"not a UKI", nil, func(f *fixture) {
			f.store.fails[string(ukiDigest)] = fmt.Errorf("%w: it is a gzip file", artifact.ErrNotAUKI)
		}, artifacts, v1alpha1.ReasonNotAUKI, "it is a gzip file", failed},
		{"no pull secret", pull, nil, artifacts, v1alpha1.ReasonSecretNotFound, "/pull does not exist", pending},
		{"pull secret without key", pull, secret("pull", "password", "hunter2"), artifacts, v1alpha1.ReasonSecretKeyMissing, ".dockerconfigjson", failed},
		{"pull secret that is none", pull, secret("pull", ".dockerconfigjson", "hunter2"), artifacts, v1alpha1.ReasonPullSecretInvalid, "it is not JSON", failed},

		{"no Secret", withIgnition("ign"), nil, ignition, v1alpha1.ReasonSecretNotFound, "there is no Secret ign", pending},
		{"no key", withIgnition("ign"), secret("ign", "ignitoin", "hunter2"), ignition, v1alpha1.ReasonSecretKeyMissing, `Secret ign: there is no key "ignition"`, failed},
		{"bad Ignition", withIgnition("ign"), secret("ign", "ignition", brokenJSON), ignition, v1alpha1.ReasonIgnitionInvalid, "line 2, column 29, key storage.files[0].path", failed},
		{"bad Butane", withIgnition("ign"), func(f *fixture) {
			f.secret("ign", map[string]string{"format": "fcos", "ignition": "variant: fcos\nversion: 1.5.0\npasswd: hunter2\n"})
		}, ignition, v1alpha1.ReasonIgnitionInvalid, "line 3, column 9, key passwd", failed},
	}
	for _, c := range rows {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			if c.world != nil {
				c.world(f)
			}
			f.run()
			m := f.machine("m", func(m *v1alpha1.HTTPBootConfig) {
				if c.spec != nil {
					c.spec(m)
				}
			})
			got := f.shows(m, c.cond, isFalse, c.reason)
			assert.Contains(t, got.Message, c.message)
			assert.NotContains(t, fmt.Sprint(m.Status), "hunter2")
			assert.LessOrEqual(t, strings.Count(got.Message, "pulling "), 1, "nothing is said twice: %s", got.Message)
			f.shows(m, v1alpha1.ConditionReady, isFalse, c.reason)
			assert.Equal(t, c.state, m.Status.State)
			assert.Len(t, m.Status.Conditions, 4, "every condition is always there")
			f.eventually(m, "told by an event", func() bool { return f.events("m")[c.reason] == corev1.EventTypeWarning })
		})
	}
}

func TestOneConfigsErrorIsNotAnothers(t *testing.T) {
	f := newFixture(t)
	f.store.fails["registry.example.com/broken:1"] = errors.New("connection refused")
	release := f.store.hangPull(newDigest)
	defer release()
	f.store.publish("registry.example.com/slow:1", newDigest)
	f.run()
	for i := range 10 {
		f.machine(fmt.Sprintf("broken-%d", i), func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = "registry.example.com/broken:1" })
		f.machine(fmt.Sprintf("slow-%d", i), func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = "registry.example.com/slow:1" })
	}
	f.ready(f.machine("m"))
	assert.Equal(t, 1, f.store.count("registry.example.com/slow:1"), "one fetch however many ask")
}

func TestMinimumProofClaimedIsReadyWithAWarning(t *testing.T) {
	f := newFixture(t)
	f.run()
	c := f.machine("m", func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.NetworkIdentifiers, c.Spec.MinimumProof = []string{"52:54:00:aa:bb:01"}, "Claimed"
	})
	f.ready(c)
	f.shows(c, v1alpha1.ConditionIdentifiable, isTrue, v1alpha1.ReasonIdentifiedByClaim)
	f.eventually(c, "warned of", func() bool { return f.events("m")[v1alpha1.ReasonIdentifiedByClaim] == corev1.EventTypeWarning })
}

// What a trusted DHCP server is told for a MAC address has a token in it, and
// what ProxyDHCP offers too.
func TestAMACAddressIsEnoughWhereSomebodySeesIt(t *testing.T) {
	mac := func(c *v1alpha1.HTTPBootConfig) { c.Spec.NetworkIdentifiers = []string{"52:54:00:aa:bb:01"} }
	uuid := func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.SystemUUID, c.Spec.NetworkIdentifiers = "00112233-4455-6677-8899-aabbccddeeff", nil
	}
	asks := func(proof v1alpha1.Proof) func(*v1alpha1.HTTPBootConfig) {
		return func(c *v1alpha1.HTTPBootConfig) { c.Spec.MinimumProof = proof }
	}
	once := func(c *v1alpha1.HTTPBootConfig) { c.Spec.BootPolicy = v1alpha1.BootPolicyOnce }
	for name, c := range map[string]struct {
		operator func(*Options)
		changes  []func(*v1alpha1.HTTPBootConfig)
		refused  string
	}{
		"a trusted DHCP server":           {func(o *Options) { o.TrustedDHCP = true }, []func(*v1alpha1.HTTPBootConfig){mac, once}, ""},
		"a trusted DHCP server, by UUID":  {func(o *Options) { o.TrustedDHCP = true }, []func(*v1alpha1.HTTPBootConfig){uuid}, "does not show who is asking"},
		"a trusted DHCP server for Proxy": {func(o *Options) { o.TrustedDHCP = true }, []func(*v1alpha1.HTTPBootConfig){mac, asks("Proxy")}, "--netboot-interface"},
		"ProxyDHCP":                       {func(o *Options) { o.Netboot = true }, []func(*v1alpha1.HTTPBootConfig){mac, once, asks("Proxy")}, ""},
		"ProxyDHCP, by address only":      {func(o *Options) { o.Netboot = true }, []func(*v1alpha1.HTTPBootConfig){asks("Proxy")}, "list a MAC address"},
		"ProxyDHCP for Relay":             {func(o *Options) { o.Netboot = true }, []func(*v1alpha1.HTTPBootConfig){mac, asks("Relay")}, "--netboot-relays"},
		"ProxyDHCP over relays":           {func(o *Options) { o.Netboot, o.NetbootRelays = true, true }, []func(*v1alpha1.HTTPBootConfig){mac, asks("Relay")}, ""},
		"ProxyDHCP over relays is no BMC": {func(o *Options) { o.Netboot, o.NetbootRelays = true, true }, []func(*v1alpha1.HTTPBootConfig){mac, asks("BMC")}, "minimumProof is BMC"},
		"nobody":                          {func(*Options) {}, []func(*v1alpha1.HTTPBootConfig){mac}, "--netboot-interface"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.run(c.operator)
			f.secret("ign", map[string]string{"ignition": validJSON})
			m := f.machine("m", append(c.changes, withIgnition("ign"))...)
			if c.refused == "" {
				f.ready(m)
				return
			}
			got := f.shows(m, v1alpha1.ConditionIdentifiable, isFalse, v1alpha1.ReasonNoPathNamesThisMachine)
			assert.Contains(t, got.Message, c.refused)
		})
	}
}

func TestAPausedConfigIsLeftAloneUntilItIsNot(t *testing.T) {
	f := newFixture(t)
	f.run()
	c := f.machine("m", func(c *v1alpha1.HTTPBootConfig) { c.Annotations = map[string]string{v1alpha1.PausedAnnotation: "move"} })
	got := f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonPaused)
	assert.Contains(t, got.Message, "remove it to go on")
	assert.Equal(t, v1alpha1.StatePending, c.Status.State)
	assert.Zero(t, f.store.count(imageTag), "nothing is fetched")
	assert.Zero(t, f.opener.count("m"), "no attempt is opened")
	f.update(c, func() { c.Annotations = nil })
	f.ready(c)
	f.update(c, func() { c.Annotations = map[string]string{v1alpha1.PausedAnnotation: ""} })
	f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonPaused)
}

func TestUserDataForCloudInitIsCheckedAndNamed(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.secret("user", map[string]string{"format": "cloud-config", "ignition": "#cloud-config\nusers: []\n"})
	c := f.machine("m", withIgnition("user"))
	f.ready(c)
	f.shows(c, v1alpha1.ConditionIgnitionValid, isTrue, v1alpha1.ReasonCloudConfig)
	f.secret("bad", map[string]string{"format": "cloud-config", "ignition": "hunter2\n"})
	b := f.machine("b", withIgnition("bad"))
	got := f.shows(b, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonIgnitionInvalid)
	assert.Contains(t, got.Message, "first line")
	assert.NotContains(t, got.Message, "hunter2")
}

func TestALoserTakesOverWhenTheWinnerGoes(t *testing.T) {
	f := newFixture(t)
	f.claims.loses["loser"] = boot.Ref{Kind: "HTTPBootConfig", Namespace: f.ns, Name: "winner"}
	f.run()
	f.ready(f.machine("winner"))
	loser := f.machine("loser")
	f.shows(loser, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonIdentityConflict)
	f.shows(loser, v1alpha1.ConditionArtifactsReady, isTrue, v1alpha1.ReasonArtifactsVerified)

	f.claims.mu.Lock()
	delete(f.claims.loses, "loser")
	f.claims.mu.Unlock()
	f.claims.changed <- event.GenericEvent{Object: &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "loser"}}}
	f.ready(loser)
}

func TestReadyWaitsForTheAttemptAndKeepsItsWord(t *testing.T) {
	f := newFixture(t)
	f.opener.fail = errors.New("api away")
	r := f.direct()
	c := f.machine("m")
	f.eventually(c, "waiting for its attempt", func() bool {
		_, _ = r.Reconcile(t.Context(), request(c))
		return len(c.Status.Artifacts) == 1
	})
	got := f.shows(c, v1alpha1.ConditionReady, isFalse, "Failed")
	assert.Contains(t, got.Message, "opening a boot attempt: api away")

	f.opener.fail = nil
	f.reconcile(r, c)
	f.ready(c)
	f.opener.fail = errors.New("api away")
	_, err := r.Reconcile(t.Context(), request(c))
	require.Error(t, err, "it comes back with backoff")
	f.ready(c)
}

func TestADeletedConfigIsForgotten(t *testing.T) {
	f := newFixture(t)
	r := f.direct()
	release := f.store.hangPull(ukiDigest)
	defer release()
	f.secret("ign", map[string]string{"ignition": validJSON})
	c := f.machine("m", withIgnition("ign"))
	f.reconcile(r, c)
	require.NoError(t, f.client.Delete(t.Context(), c))
	f.reconcile(r, c)
	assert.Empty(t, r.fetches.all)
	assert.Empty(t, r.fetches.wanted)
	assert.Empty(t, r.secrets.uses)
	assert.Empty(t, r.secrets.entries)
}

func TestAnIPXEConfigBootsWhatItSays(t *testing.T) {
	f := newFixture(t)
	source := "registry.example.com/os/pxe@" + string(newDigest)
	layers := []boot.Artifact{{Role: boot.RoleKernel, Digest: ukiDigest, Size: 1, Source: source}, {Role: boot.RoleInitrd, Digest: newDigest, Size: 2, Source: source}}
	f.store.images["registry.example.com/os/pxe:1"] = artifact.Image{Source: source, Name: "registry.example.com/os/pxe", Artifacts: layers}
	f.run()
	ipxe := func(name string, change func(*v1alpha1.IPXEBootConfigSpec)) *v1alpha1.IPXEBootConfig {
		c := &v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name}, Spec: v1alpha1.IPXEBootConfigSpec{SystemIPs: []string{"10.0.0.5"}}}
		change(&c.Spec)
		f.create(c)
		return c
	}
	image := ipxe("image", func(s *v1alpha1.IPXEBootConfigSpec) { s.Image = "registry.example.com/os/pxe:1" })
	f.ready(image)
	assert.Equal(t, []v1alpha1.ArtifactRole{"Initrd", "Kernel"}, []v1alpha1.ArtifactRole{image.Status.Artifacts[0].Role, image.Status.Artifacts[1].Role})

	noKernel := ipxe("uki", func(s *v1alpha1.IPXEBootConfigSpec) { s.Image = imageTag })
	assert.Contains(t, f.shows(noKernel, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonNoArtifact).Message, "has no Kernel")

	urls := ipxe("urls", func(s *v1alpha1.IPXEBootConfigSpec) {
		s.KernelURL, s.InitrdURL = "http://example.com/k", "http://example.com/i"
	})
	f.ready(urls)
	f.shows(urls, v1alpha1.ConditionArtifactsReady, isTrue, v1alpha1.ReasonForeignURL)

	script := ipxe("script", func(s *v1alpha1.IPXEBootConfigSpec) {
		s.IPXEScriptSecretRef = &corev1.LocalObjectReference{Name: "script"}
	})
	f.shows(script, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonSecretNotFound)
	s := f.secret("script", map[string]string{"other": "x"})
	f.shows(script, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonSecretKeyMissing)
	f.update(s, func() { s.StringData = map[string]string{"ipxe-script": "echo no header"} })
	f.shows(script, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonScriptInvalid)
	f.update(s, func() { s.StringData = map[string]string{"ipxe-script": "#!ipxe\n"} })
	f.ready(script)

	for reason, change := range map[string]func(*v1alpha1.IPXEBootConfigSpec){
		v1alpha1.ReasonArgumentInvalid: func(s *v1alpha1.IPXEBootConfigSpec) { s.KernelArguments = []string{"quiet", "||"} },
		v1alpha1.ReasonTemplateInvalid: func(s *v1alpha1.IPXEBootConfigSpec) { s.ScriptTemplate = "#!ipxe\n{{ .NoSuchField }}\n" },
	} {
		bad := ipxe(strings.ToLower(reason), func(s *v1alpha1.IPXEBootConfigSpec) { s.Image = "registry.example.com/os/pxe:1"; change(s) })
		f.shows(bad, v1alpha1.ConditionArtifactsReady, isFalse, reason)
	}
}

func TestAnAnnotationAsksForABoot(t *testing.T) {
	f := newFixture(t)
	f.run()
	c := f.machine("m")
	f.ready(c)
	before := f.opener.count("m")
	f.update(c, func() { c.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: "1"} })
	f.eventually(c, "opened", func() bool { return f.opener.count("m") > before })
}
