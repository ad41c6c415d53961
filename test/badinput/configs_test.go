//go:build linux

package badinput

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/registry"
)

const (
	identity  = v1alpha1.ConditionIdentifiable
	artifacts = v1alpha1.ConditionArtifactsReady
	ignition  = v1alpha1.ConditionIgnitionValid
)

// badConfig is a mistake, and what users see of it.
type badConfig struct {
	name string
	// make spoils a config that would be fine.
	make               func(s *site, m machine)
	condition, reason  string
	message            string
	httpboot, ignition int
}

// badConfigs are told by a condition that is False, by an event of its reason,
// and by the answers to the machine.
var badConfigs = []badConfig{
	{"younger-claim", func(s *site, m machine) {
		m.Spec.NetworkIdentifiers = append(m.Spec.NetworkIdentifiers, s.objects[1].(*v1alpha1.HTTPBootConfig).Spec.NetworkIdentifiers[0])
	}, identity, v1alpha1.ReasonIdentityConflict, "is claimed by the older HTTPBootConfig ", 404, 404},

	{"no-secret", func(_ *site, m machine) { m.Spec.IgnitionSecretRef.Name = "nowhere" },
		ignition, v1alpha1.ReasonSecretNotFound, "there is no Secret nowhere", 503, 503},
	{"no-key", func(s *site, m machine) {
		m.Spec.IgnitionSecretRef = s.secret("typo", map[string]string{"ignitoin": marker})
	},
		ignition, v1alpha1.ReasonSecretKeyMissing, `Secret typo: there is no key "ignition"`, 503, 503},
	{"broken-json", func(s *site, m machine) {
		m.Spec.IgnitionSecretRef = s.secret("broken-json", map[string]string{"ignition": "{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":" + marker})
	}, ignition, v1alpha1.ReasonIgnitionInvalid, "line 2, column 11", 503, 503},
	{"broken-ignition", func(s *site, m machine) {
		m.Spec.IgnitionSecretRef = s.secret("broken-ignition", map[string]string{"ignition": "{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":{\"files\":[{\"path\":\"" + marker + "\"}]}}"})
	}, ignition, v1alpha1.ReasonIgnitionInvalid, "line 2, column 29, key storage.files[0].path", 503, 503},
	{"wrong-kind", func(s *site, m machine) {
		m.Spec.IgnitionSecretRef = s.secret("wrong-kind", map[string]string{"ignition": `{"ignition":{"version":"3.4.0"},"passwd":{"users":"` + marker + `"}}`})
	}, ignition, v1alpha1.ReasonIgnitionInvalid, "key passwd.users", 503, 503},
	{"broken-butane", func(s *site, m machine) {
		m.Spec.IgnitionSecretRef = s.secret("broken-butane", map[string]string{"format": "fcos", "ignition": "variant: fcos\nversion: 1.5.0\npasswd: " + marker + "\n"})
	}, ignition, v1alpha1.ReasonIgnitionInvalid, "line 3, column 9, key passwd", 503, 503},
	{"broken-yaml", func(s *site, m machine) {
		m.Spec.IgnitionSecretRef = s.secret("broken-yaml", map[string]string{"format": "fcos", "ignition": "variant: fcos\n" + marker + ": {" + marker + "\n"})
	}, ignition, v1alpha1.ReasonIgnitionInvalid, "line ", 503, 503},

	{"no-uki", func(s *site, m machine) {
		m.Spec.Image = s.publishLayer("os/no-uki", registry.Layer{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Data: []byte("layer")})
	}, artifacts, v1alpha1.ReasonNoArtifact, "its layers are application/vnd.oci.image.layer.v1.tar+gzip", 503, 503},
	{"other-architecture", func(s *site, m machine) {
		m.Spec.Image = s.publish(s.good, "os/arm64", map[string][]byte{"arm64": s.uki("arm64", 0)})
	}, artifacts, v1alpha1.ReasonNoPlatform, "for amd64; it has linux/arm64", 503, 503},
	{"other-machine-code", func(s *site, m machine) { // the manifest says amd64
		m.Spec.Image = s.publish(s.good, "os/mislabelled", map[string][]byte{"amd64": s.uki("arm64", 0)})
	}, artifacts, v1alpha1.ReasonNoPlatform, "is a program for arm64, and the machine is amd64", 503, 503},
	{"other-machine-code-at-url", func(s *site, m machine) {
		arm64 := s.uki("arm64", 0)
		file := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(arm64) }))
		s.t.Cleanup(file.Close)
		s.urls = append(s.urls, file.URL)
		m.Spec.Image, m.Spec.UKIURL = "", file.URL+"/os.efi"
	}, artifacts, v1alpha1.ReasonNoPlatform, "/os.efi is a program for arm64, and the machine is amd64", 503, 503},
	{"no-platform", func(s *site, m machine) {
		d, err := s.good.PublishImage("os/plain", "", registry.Image{Layers: []registry.Layer{{MediaType: registry.UKI, Data: s.uki("amd64", 0)}}})
		require.NoError(s.t, err)
		_, err = s.good.PublishIndex("os/plain", "1", false, d)
		require.NoError(s.t, err)
		m.Spec.Image = s.good.Host + "/os/plain:1"
	}, artifacts, v1alpha1.ReasonNoPlatform, "it has a manifest without platform", 503, 503},
	{"not-pe", func(s *site, m machine) {
		m.Spec.Image = s.publishLayer("os/gzip", registry.Layer{MediaType: registry.UKI, Data: append([]byte("\x1f\x8b"), make([]byte, 5000)...)})
	}, artifacts, v1alpha1.ReasonNotAUKI, "not a PE file: it looks like a gzip archive", 503, 503},
	{"no-image", func(s *site, m machine) { m.Spec.Image = s.good.Host + "/os/nothing:1" },
		artifacts, v1alpha1.ReasonImageNotFound, "/os/nothing:1", 503, 503},
	{"html-at-url", func(s *site, m machine) {
		page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in first</html>")) }))
		s.t.Cleanup(page.Close)
		s.urls = append(s.urls, page.URL)
		m.Spec.Image, m.Spec.UKIURL = "", page.URL+"/os.efi"
	}, artifacts, v1alpha1.ReasonNotAUKI, "it looks like an HTML page", 503, 503},

	{"registry-down", func(s *site, m machine) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(s.t, err)
		require.NoError(s.t, l.Close())
		s.plain = append(s.plain, l.Addr().String())
		m.Spec.Image = l.Addr().String() + "/os/image:1"
	}, artifacts, v1alpha1.ReasonRegistryError, "connection refused", 503, 503},
	{"registry-broken", func(s *site, m machine) { _, m.Spec.Image = s.faulty(registry.Options{}, registry.Faults{Broken: 503}) },
		artifacts, v1alpha1.ReasonRegistryError, "503", 503, 503},
	{"registry-slow", func(s *site, m machine) {
		_, m.Spec.Image = s.faulty(registry.Options{}, registry.Faults{BytesPerSecond: 2 << 10})
	}, artifacts, v1alpha1.ReasonProgressing, "pulling 127.0.0.1:", 503, 503},
	{"lies-about-digest", func(s *site, m machine) {
		_, m.Spec.Image = s.faulty(registry.Options{}, registry.Faults{WrongDigest: true})
	}, artifacts, v1alpha1.ReasonDigestMismatch, "content differs from its digest or size", 503, 503},
	{"lies-about-size", func(s *site, m machine) {
		data := s.uki("amd64", 1<<20)
		m.Spec.Image = s.publishLayer("os/longer", registry.Layer{MediaType: registry.UKI, Digest: s.good.AddBlob(data), Size: int64(len(data)) - 4096})
	}, artifacts, v1alpha1.ReasonDigestMismatch, "content differs from its digest or size", 503, 503},
	{"truncated", func(s *site, m machine) {
		data := s.uki("amd64", 1<<20)
		m.Spec.Image = s.publishLayer("os/shorter", registry.Layer{MediaType: registry.UKI, Digest: s.good.AddBlob(data), Size: int64(len(data)) + 4096})
	}, artifacts, v1alpha1.ReasonDigestMismatch, "content differs from its digest or size", 503, 503},
	{"breaks-always", func(s *site, m machine) {
		_, m.Spec.Image = s.faulty(registry.Options{}, registry.Faults{CutAfter: 100_000, NoRange: true})
	}, artifacts, v1alpha1.ReasonRegistryError, "unexpected EOF", 503, 503},

	{"redirect-to-http", func(s *site, m machine) {
		_, m.Spec.Image = s.faulty(registry.Options{TLS: true}, registry.Faults{RedirectTo: "http://192.0.2.1"})
	}, artifacts, v1alpha1.ReasonRegistryNotAllowed, "a redirect from https to plain http", 503, 503},
	{"redirect-to-loopback", func(s *site, m machine) {
		inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.t.Error("a redirect reached this machine") }))
		s.t.Cleanup(inside.Close)
		_, m.Spec.Image = s.faulty(registry.Options{}, registry.Faults{RedirectTo: inside.URL})
	}, artifacts, v1alpha1.ReasonRegistryNotAllowed, "127.0.0.1 is an address of this machine", 503, 503},
	{"redirect-to-link-local", func(s *site, m machine) {
		_, m.Spec.Image = s.faulty(registry.Options{}, registry.Faults{RedirectTo: "http://169.254.169.254"})
	}, artifacts, v1alpha1.ReasonRegistryNotAllowed, "169.254.169.254 is an address of this machine or its link", 503, 503},
	{"not-allowed", func(_ *site, m machine) { m.Spec.Image = "registry.example.com/os/image:1" },
		artifacts, v1alpha1.ReasonRegistryNotAllowed, "registry.example.com/os/image is in none of the allowed registries", 503, 503},

	{"no-credentials", func(s *site, m machine) {
		_, m.Spec.Image = s.faulty(registry.Options{Auth: registry.Token, Username: "u", Password: "p"}, registry.Faults{})
	}, artifacts, v1alpha1.ReasonUnauthorized, "unauthorized", 503, 503},
	{"wrong-credentials", func(s *site, m machine) {
		r, image := s.faulty(registry.Options{Auth: registry.Basic, Username: "u", Password: "p"}, registry.Faults{})
		m.Spec.Image, m.Spec.PullSecretRef = image, s.pullSecret("wrong", r.Host, "u", marker)
	}, artifacts, v1alpha1.ReasonUnauthorized, "unauthorized", 503, 503},
	{"no-pull-secret", func(_ *site, m machine) { m.Spec.PullSecretRef = &corev1.LocalObjectReference{Name: "nowhere"} },
		artifacts, v1alpha1.ReasonSecretNotFound, "/nowhere does not exist", 503, 503},
	{"broken-pull-secret", func(s *site, m machine) {
		m.Spec.PullSecretRef = s.secret("no-json", map[string]string{corev1.DockerConfigJsonKey: marker})
	}, artifacts, v1alpha1.ReasonPullSecretInvalid, "it is not JSON", 503, 503},

	{"store-full", func(s *site, m machine) {
		m.Spec.Image = s.publishLayer("os/big", registry.Layer{MediaType: registry.UKI, Digest: s.good.AddBlob([]byte("big")), Size: budget - 1})
	}, artifacts, v1alpha1.ReasonStoreFull, "the artifact store is full", 503, 503},
	{"too-large", func(s *site, m machine) {
		m.Spec.Image = s.publishLayer("os/huge", registry.Layer{MediaType: registry.UKI, Digest: s.good.AddBlob([]byte("?")), Size: budget + 1})
	}, artifacts, v1alpha1.ReasonArtifactTooLarge, "the store takes blobs of at most", 503, 503},
}

// pullSecret holds a password for a registry.
func (s *site) pullSecret(name, host, user, password string) *corev1.LocalObjectReference {
	return s.secret(name, map[string]string{corev1.DockerConfigJsonKey: `{"auths":{"` + host + `":{"username":"` + user + `","password":"` + password + `"}}}`})
}

func (c badConfig) check(t *testing.T, s *site, m machine) {
	got := s.shows(t, m.Name, c.condition, metav1.ConditionFalse, c.reason)
	require.Contains(t, got.Message, c.message)
	require.LessOrEqual(t, strings.Count(got.Message, "pulling "), 1, "nothing is said twice: %s", got.Message)
	s.shows(t, m.Name, v1alpha1.ConditionReady, metav1.ConditionFalse, c.reason)
	kind := corev1.EventTypeWarning
	if c.reason == v1alpha1.ReasonProgressing {
		kind = corev1.EventTypeNormal
	}
	s.event(t, m.Name, c.reason, kind)
	for path, want := range map[string]int{"/httpboot": c.httpboot, "/ignition": c.ignition} {
		a := s.get(m.address, path)
		require.NoError(t, a.err)
		require.Equal(t, want, a.code, "%s: %s", path, a.body)
		requireError(t, a)
		if want == http.StatusServiceUnavailable {
			require.NotEmpty(t, a.header.Get("Retry-After"))
		}
	}
}

// requireError holds the form of an error's body.
func requireError(t *testing.T, a answer) {
	t.Helper()
	var e map[string]string
	require.NoError(t, json.Unmarshal(a.body, &e), "%s", a.body)
	require.Len(t, e, 2)
	require.NotEmpty(t, e["error"])
	require.NotEmpty(t, e["reason"])
	require.NotContains(t, string(a.body), marker)
}
