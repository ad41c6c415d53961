package e2e

import (
	"context"
	"net/netip"
	"testing"
	"time"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/lab"
)

// installMetal installs metal-operator's own CRDs, of the module that go.mod names.
func (s *site) installMetal() {
	s.t.Helper()
	crds, err := controlplane.MetalCRDs()
	require.NoError(s.t, err)
	_, err = envtest.InstallCRDs(s.config, crds)
	require.NoError(s.t, err)
	require.NoError(s.t, metalv1alpha1.AddToScheme(s.client.Scheme()))
}

// What metal-operator writes is all there is: a Server and a
// ServerBootConfiguration. Its machine boots.
func TestAServerOfMetalOperatorBootsWhatItsConfigurationSays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installMetal()
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	m := s.network.Machine(t, lab.MachineOptions{UUID: uuid})
	address := s.network.Addr(57)
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), IgnoreClientID: true, Reservations: map[string]netip.Addr{m.MAC(): address}})
	s.start("a", "--plain-http-registries="+registry.host)

	configuration := &metalv1alpha1.ServerBootConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "claimed"}}
	configuration.Spec.ServerRef.Name = "server-7"
	configuration.Spec.Image = image
	configuration.Spec.IgnitionSecretRef = &v1alpha1.SecretReference{Name: "claimed"}
	s.create(s.ignition("claimed", ignitionFile("for-a-server")), configuration)
	server := &metalv1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Name: "server-7"}}
	server.Spec.SystemUUID = uuid
	server.Spec.BootConfigurationRef = &metalv1alpha1.ObjectReference{Namespace: s.namespace, Name: "claimed"}
	require.NoError(t, s.client.Create(context.Background(), server))
	server.Status.NetworkInterfaces = []metalv1alpha1.NetworkInterface{{Name: "eth0", MACAddress: m.MAC(), IPs: []metalv1alpha1.IP{metalv1alpha1.MustParseIP(address.String())}}}
	require.NoError(t, s.client.Status().Update(context.Background(), server))

	state := func() metalv1alpha1.ServerBootConfigurationState {
		require.NoError(t, s.client.Get(context.Background(), client.ObjectKeyFromObject(configuration), configuration))
		return configuration.Status.State
	}
	require.Eventually(t, func() bool { return state() == metalv1alpha1.ServerBootConfigurationStateReady }, time.Minute, 100*time.Millisecond)
	m.PowerOn()
	m.Expect("UKI-BOOTED uuid="+uuid, bootTime)
	m.ExpectLine(`^IGNITION-APPLIED for-a-server`, bootTime)
	require.Eventually(t, func() bool {
		state()
		for _, c := range configuration.Status.Conditions {
			if c.Type == v1alpha1.ConditionIgnitionDataFetched && c.Status == metav1.ConditionTrue {
				return true
			}
		}
		return false
	}, time.Minute, 100*time.Millisecond, "what the machine fetched is told there too")
}
