package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	nodeSeven = "name: node-7\nindex: 7\n"
	oneNIC    = `{"links":[{"id":"eth0","type":"phy","ethernet_mac_address":"52:54:00:aa:bb:01"}],"networks":[{"link":"eth0","type":"ipv4_dhcp"}]}`
)

func withBeside(metaData, networkData string) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.MetaDataSecretRef = &corev1.LocalObjectReference{Name: metaData}
		c.Spec.NetworkDataSecretRef = &corev1.LocalObjectReference{Name: networkData}
	}
}

func TestMetaDataAndNetworkDataAreCheckedBeforeAnyoneBoots(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.secret("user", map[string]string{"userData": "#cloud-config\n"})
	c := f.machine("m", withIgnition("user"), withBeside("meta", "net"))
	got := f.shows(c, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonSecretNotFound)
	assert.Contains(t, got.Message, "there is no Secret meta")
	meta := f.secret("meta", map[string]string{"metadata": "hunter2"})
	got = f.shows(c, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonSecretKeyMissing)
	assert.Contains(t, got.Message, `Secret meta has no key "metaData"`)
	f.update(meta, func() { meta.StringData = map[string]string{"metaData": "name: [hunter2]"} })
	got = f.shows(c, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonMetaDataInvalid)
	assert.Contains(t, got.Message, "key name: a string")
	assert.NotContains(t, got.Message, "hunter2")
	f.update(meta, func() { meta.StringData = map[string]string{"metaData": nodeSeven} })
	got = f.shows(c, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonSecretNotFound)
	assert.Contains(t, got.Message, "there is no Secret net")

	net := f.secret("net", map[string]string{"networkData": `{"links":[{"id":"hunter2"}]}`})
	got = f.shows(c, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonNetworkDataInvalid)
	assert.Contains(t, got.Message, "links[0].ethernet_mac_address: missing")
	assert.NotContains(t, got.Message, "hunter2")
	f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonNetworkDataInvalid)
	f.update(net, func() { net.StringData = map[string]string{"networkData": oneNIC} })
	f.ready(c)
	got = f.shows(c, v1alpha1.ConditionIgnitionValid, isTrue, v1alpha1.ReasonCloudConfig)
	assert.Equal(t, "user data for cloud-init, 14 bytes; meta data, 2 keys; network data, 1 links and 1 networks", got.Message)

	require.NoError(t, f.client.Delete(t.Context(), net))
	f.shows(c, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonSecretNotFound)
	f.update(c, func() { c.Spec.NetworkDataSecretRef = nil })
	f.ready(c)
}

func TestMetaDataWithoutADocumentIsSaidToReachNobody(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.secret("all", map[string]string{"ignition": validJSON, "metaData": nodeSeven, "networkData": oneNIC})
	c := f.machine("m", withBeside("all", "all"))
	f.ready(c)
	got := f.shows(c, v1alpha1.ConditionIgnitionValid, isTrue, v1alpha1.ReasonNoIgnition)
	assert.Contains(t, got.Message, "nobody is given it without ignitionSecretRef")
	f.update(c, func() { c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "all"} })
	got = f.shows(c, v1alpha1.ConditionIgnitionValid, isTrue, v1alpha1.ReasonIgnitionValid)
	assert.NotContains(t, got.Message, "nobody")
}

func TestAnUnknownFormatIsSaid(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.secret("host", map[string]string{"userData": validJSON, "format": "hunter2"})
	got := f.shows(f.machine("host", withIgnition("host")), v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonUserDataFormatUnknown)
	assert.Contains(t, got.Message, "write ignition, cloud-config or fcos")
	assert.NotContains(t, got.Message, "hunter2")
	f.secret("before", map[string]string{"ignition": validJSON, "format": "raw"})
	f.ready(f.machine("before", withIgnition("before")))
}

// fakeTakes says what UKIs read, by digest. Its knob is that nothing can be read.
type fakeTakes struct {
	mu    sync.Mutex
	takes map[boot.Digest]Formats
	fail  error
	asked int
}

func (f *fakeTakes) of(_ context.Context, d boot.Digest) (Formats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.takes[d], f.fail
}

func TestUserDataThatTheImageDoesNotReadIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		takes  Formats
		secret map[string]string
		want   string
	}{
		"cloud-init for Ignition":  {Formats{Ignition: true}, map[string]string{"value": "#cloud-config\n"}, "holds user data for cloud-init, and the command line of UKI " + string(ukiDigest) + " has the arguments of Ignition"},
		"Ignition for cloud-init":  {Formats{CloudInit: true}, map[string]string{"value": validJSON}, "holds Ignition, and the command line of UKI " + string(ukiDigest) + " has the arguments of cloud-init (ds=nocloud): write user data for cloud-init"},
		"Ignition":                 {Formats{Ignition: true}, map[string]string{"value": validJSON}, ""},
		"cloud-init":               {Formats{CloudInit: true}, map[string]string{"value": "#cloud-config\n"}, ""},
		"a UKI that says nothing":  {Formats{}, map[string]string{"value": "#cloud-config\n"}, ""},
		"a UKI that reads both":    {Formats{Ignition: true, CloudInit: true}, map[string]string{"value": validJSON}, ""},
		"no document for anything": {Formats{Ignition: true}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			takes := &fakeTakes{takes: map[boot.Digest]Formats{ukiDigest: c.takes}}
			f.run(func(o *Options) { o.Takes = takes.of })
			var change []func(*v1alpha1.HTTPBootConfig)
			if c.secret != nil {
				f.secret("user", c.secret)
				change = append(change, withIgnition("user"))
			}
			m := f.machine("m", change...)
			if c.want == "" {
				f.ready(m)
				return
			}
			f.shows(m, v1alpha1.ConditionArtifactsReady, isTrue, v1alpha1.ReasonArtifactsVerified)
			got := f.shows(m, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonUserDataFormatUnsupported)
			assert.Contains(t, got.Message, c.want)
			f.shows(m, v1alpha1.ConditionIgnitionValid, isFalse, v1alpha1.ReasonUserDataFormatUnsupported)
			assert.Zero(t, f.opener.count("m"), "no attempt is opened")
		})
	}
}

func TestAnOpinionOfAnImageOutlivesTheImagesAbsence(t *testing.T) {
	takes := &fakeTakes{takes: map[boot.Digest]Formats{ukiDigest: {Ignition: true}}}
	cfg := &v1alpha1.HTTPBootConfig{}
	cfg.Generation = 3
	cfg.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "user"}
	cfg.Status.Artifacts = []v1alpha1.Artifact{{Role: "UKI", Digest: string(ukiDigest)}}
	user := &found{cloudInit: true}
	ask := func(r *reconciler) error { return r.taken(t.Context(), cfg, user) }

	first := &reconciler{Options: Options{Takes: takes.of}}
	refusal := ask(first)
	require.ErrorContains(t, refusal, "write Ignition or Butane")
	takes.fail = errors.New("not in the store")
	require.ErrorContains(t, ask(first), "write Ignition or Butane", "it is remembered")
	require.Equal(t, 1, takes.asked)

	next := &reconciler{Options: Options{Takes: takes.of}}
	require.NoError(t, ask(next), "what is not known is not refused")
	cfg.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionIgnitionValid, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonUserDataFormatUnsupported,
		Message: refusal.Error(), ObservedGeneration: 3,
	}}
	require.EqualError(t, ask(next), refusal.Error(), "what was refused stays so until it can be read")
	cfg.Generation = 4
	require.NoError(t, ask(next), "another spec")
}

func TestOpinionsAreBounded(t *testing.T) {
	var o opinions
	for i := range 3 * maxOpinions {
		_, err := o.of(t.Context(), boot.Digest(fmt.Sprint(i)), func(context.Context, boot.Digest) (Formats, error) { return Formats{}, nil })
		require.NoError(t, err)
		require.LessOrEqual(t, len(o.known), maxOpinions)
	}
}
