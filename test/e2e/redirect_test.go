package e2e

import (
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/registry"
)

// Large registries keep their blobs with a CDN, which must not see the
// credentials that the registry asked for.
func TestAPullFollowsItsRegistryToACDNWithoutCredentials(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ukis := map[string][]byte{"amd64": greeting(t, "amd64", "BY-WAY-OF-A-CDN")}
	cdn := s.registryAt(s.network.Gateway().String()+":0", registry.Options{}) // no flag names it
	cdn.publish("os/lab", "1", ukis)
	origin := s.registryAt("127.0.0.1:0", registry.Options{Auth: registry.Basic, Username: "user", Password: "password"})
	config := machineConfig("m", origin.publish("os/lab", "1", ukis), s.network.Addr(50).String())
	origin.Set(registry.Faults{RedirectTo: "http://" + cdn.host})
	config.Spec.PullSecretRef = &corev1.LocalObjectReference{Name: "pull"}
	auth := base64.StdEncoding.EncodeToString([]byte("user:password"))
	s.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pull"}, Type: corev1.SecretTypeDockerConfigJson,
		StringData: map[string]string{corev1.DockerConfigJsonKey: fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, origin.host, auth)},
	}, s.ignition("m", ignitionFile("x")), config)
	s.start("a", "--plain-http-registries="+origin.host)
	s.condition("m", v1alpha1.ConditionReady)

	require.NotEmpty(t, cdn.Requests())
	for _, r := range cdn.Requests() {
		require.Empty(t, r.Authorization)
		require.Empty(t, r.Referer)
	}
	require.NotZero(t, origin.Count("GET", "/blobs/"), "the registry itself was asked, with credentials")
}
