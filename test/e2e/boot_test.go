package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
)

const (
	uuid      = "00112233-4455-6677-8899-aabbccddeeff" // changes when its bytes are swapped
	otherUUID = "10213243-5465-7687-98a9-bacbdcedfe0f"

	bootTime = 90 * time.Second // firmware, transfer and kernel, on a busy machine
)

// ignitionFile is an Ignition document whose file the lab's OS shows.
func ignitionFile(content string) string {
	return fmt.Sprintf(`{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/etc/boot-operator-lab","contents":{"source":"data:,%s"}}]}}`, content)
}

// machineConfig is a config for one machine, with Ignition from the Secret of
// the same name.
func machineConfig(name, image string, identifiers ...string) *v1alpha1.HTTPBootConfig {
	return &v1alpha1.HTTPBootConfig{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.HTTPBootConfigSpec{
			SystemUUID: uuid, NetworkIdentifiers: identifiers, Image: image,
			IgnitionSecretRef: &corev1.LocalObjectReference{Name: name},
		},
	}
}

// url is a URL of the boot server.
func (s *site) url(path string) string {
	return fmt.Sprintf("http://%s:8082%s", s.network.Gateway(), path)
}

func labOS(t *testing.T, s *site, arch string) []byte {
	return lab.OS(t, arch, "ignition.platform.id=metal ignition.firstboot ignition.config.url="+s.url("/ignition"))
}

func TestAMachineBootsTheImageOfItsConfigAndNobodyElseGetsItsIgnition(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	machine, stranger, unknown := s.network.Addr(50), s.network.Addr(60), s.network.Addr(61)
	m := s.network.Machine(t, lab.MachineOptions{Name: "ours", UUID: uuid})
	impostor := s.network.Machine(t, lab.MachineOptions{Name: "impostor", UUID: uuid})
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	s.network.DHCP(lab.DHCPOptions{
		BootURL: s.url("/httpboot"), IgnoreClientID: true,
		Reservations: map[string]netip.Addr{m.MAC(): machine, impostor.MAC(): s.network.Addr(70)},
	})
	op := s.start("a", "--plain-http-registries="+registry.host)

	s.create(s.ignition("m", ignitionFile("for-this-machine-only")), machineConfig("m", image, machine.String(), m.MAC()))
	s.condition("m", v1alpha1.ConditionReady)
	m.PowerOn()
	m.Expect("UKI-BOOTED uuid="+uuid, bootTime)
	m.ExpectLine(`^IGNITION-APPLIED for-this-machine-only`, bootTime)
	m.WaitOff(bootTime)

	// The attempt is still open, the UKI is public, and the UUID is the same.
	impostor.BootNext(s.url("/images/" + registry.digest("amd64") + "/uki.efi"))
	impostor.PowerOn()
	impostor.Expect("UKI-BOOTED uuid="+uuid, bootTime)
	impostor.ExpectLine(`^IGNITION-FAILED 404`, bootTime)
	impostor.WaitOff(bootTime)

	for condition, reason := range map[string]string{v1alpha1.ConditionUKIFetched: v1alpha1.ReasonUKIDelivered, v1alpha1.ConditionIgnitionDataFetched: v1alpha1.ReasonIgnitionDataDelivered} {
		require.Equal(t, reason, s.condition("m", condition).Reason)
	}
	status := s.configOf("m").Status
	require.Equal(t, machine.String(), status.Boot.LastClientAddress)
	require.Equal(t, registry.digest("amd64"), status.Artifacts[0].Digest)
	i := slices.IndexFunc(status.Boot.Stages, func(st v1alpha1.BootStage) bool { return st.Name == v1alpha1.BootStageName(boot.StageIgnition) })
	require.GreaterOrEqual(t, i, 0)
	delivered := status.Boot.Stages[i].CompletedTime.Time

	s.network.AddAddress(stranger)
	s.network.AddAddress(unknown)
	none := s.get(unknown, s.url("/ignition"))
	require.Equal(t, 404, none.code)
	for what, a := range map[string]answer{
		"who says the UUID":           s.get(stranger, s.url("/ignition/"+uuid)),
		"who says it in upper case":   s.get(stranger, s.url("/ignition/"+strings.ToUpper(uuid))),
		"who says it in EFI order":    s.get(stranger, s.url("/ignition/33221100-5544-7766-8899-aabbccddeeff")),
		"who asks for its own":        s.get(stranger, s.url("/ignition")),
		"who says an unknown machine": s.get(stranger, s.url("/ignition/"+otherUUID)),
	} {
		require.Equal(t, none, a, "a stranger %s is answered as an unknown machine is", what)
	}
	forged := s.getWith(stranger, s.url("/ignition/"+uuid), "X-Forwarded-For", machine.String()+", "+m.MAC())
	require.Equal(t, none, forged, "X-Forwarded-For is not believed from anyone")

	s.network.AddAddress(machine) // a process on the provisioned machine, a while later
	within := s.get(machine, s.url("/ignition"))
	require.Equal(t, 200, within.code, "a client may try again within 2 minutes: %s", within.body)
	closed := s.served(machine, s.url("/ignition"), 403)
	require.GreaterOrEqual(t, time.Since(delivered), boot.SecretGrace, "not before that")
	require.NotContains(t, closed.body, "for-this-machine-only")
	require.NotContains(t, op.log.String(), "for-this-machine-only", "secrets are not logged")
}

func TestAnUnknownMachineGoesOnToItsNextBootEntry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": greeting(t, "amd64", "NOT-FOR-YOU")})
	s.start("a", "--plain-http-registries="+registry.host)
	s.create(s.ignition("other", ignitionFile("x")), machineConfig("other", image, s.network.Addr(50).String()))
	s.condition("other", v1alpha1.ConditionReady)

	// The same UUID as the config's machine, at another address.
	m := s.network.Machine(t, lab.MachineOptions{UUID: uuid, NextBoot: greeting(t, "amd64", "NEXT-ENTRY")})
	dhcp := s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), Reservations: map[string]netip.Addr{m.MAC(): s.network.Addr(70)}})
	m.PowerOn()
	m.Expect("NEXT-ENTRY", bootTime)
	require.NotContains(t, m.Transcript(), "NOT-FOR-YOU")
	require.Contains(t, dhcp.Log(), "10.77.", "the machine did ask for an address")
	require.Nil(t, condition(s.configOf("other"), v1alpha1.ConditionUKIFetched))
}

func TestAMachineBootsOverHTTPSFromItsOwnCAOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ours, theirs := lab.NewCA(t, "ours"), lab.NewCA(t, "theirs")
	chain, key := ours.Issue(s.network.Gateway().String())
	certFile, keyFile := filepath.Join(s.dir, "tls.crt"), filepath.Join(s.dir, "tls.key")
	require.NoError(t, os.WriteFile(certFile, chain, 0o600))
	require.NoError(t, os.WriteFile(keyFile, key, 0o600))
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": greeting(t, "amd64", "BOOTED-OVER-HTTPS")})
	op := s.start("a", "--plain-http-registries="+registry.host, "--boot-server-tls-address=:8443", "--tls-cert-file="+certFile, "--tls-key-file="+keyFile)
	url := fmt.Sprintf("https://%s:8443/httpboot", s.network.Gateway())
	reservations := map[string]netip.Addr{}
	machines := map[string]*lab.Machine{}
	for i, c := range []struct {
		name string
		ca   *lab.CA
	}{{"right", ours}, {"wrong", theirs}} {
		m := s.network.Machine(t, lab.MachineOptions{Name: c.name, HTTPSCA: c.ca.PEM, NextBoot: greeting(t, "amd64", "NEXT-ENTRY")})
		machines[c.name], reservations[m.MAC()] = m, s.network.Addr(byte(50+i))
		config := machineConfig(c.name, image, reservations[m.MAC()].String())
		config.Spec.SystemUUID = m.UUID()
		s.create(s.ignition(c.name, ignitionFile("x")), config)
		s.condition(c.name, v1alpha1.ConditionReady)
	}
	s.network.DHCP(lab.DHCPOptions{BootURL: url, Reservations: reservations})

	machines["right"].PowerOn()
	machines["right"].Expect("BOOTED-OVER-HTTPS", bootTime)
	machines["right"].PowerOff()
	s.condition("right", v1alpha1.ConditionUKIFetched)
	machines["wrong"].PowerOn()
	machines["wrong"].Expect("NEXT-ENTRY", bootTime)
	require.Nil(t, condition(s.configOf("wrong"), v1alpha1.ConditionUKIFetched))
	require.Contains(t, op.log.String(), "TLS handshake", "the log says what the firmware's console does not")
}

func TestAnARM64MachineBootsTheARM64ManifestOfTheSameIndex(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.ARM64)
	s := newSite(t)
	m := s.network.Machine(t, lab.MachineOptions{Arch: "arm64", UUID: uuid})
	machine := s.network.Addr(50)
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": greeting(t, "amd64", "WRONG-ARCHITECTURE"), "arm64": labOS(t, s, "arm64")})
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), Reservations: map[string]netip.Addr{m.MAC(): machine}, IgnoreClientID: true})
	s.start("a", "--plain-http-registries="+registry.host)
	config := machineConfig("m", image, machine.String())
	config.Spec.Architecture = v1alpha1.ArchitectureARM64
	s.create(s.ignition("m", ignitionFile("arm64-machine")), config)
	s.condition("m", v1alpha1.ConditionReady)
	require.Equal(t, registry.digest("arm64"), s.configOf("m").Status.Artifacts[0].Digest)
	m.PowerOn()
	m.Expect("UKI-BOOTED", 2*bootTime)
	m.ExpectLine(`^IGNITION-APPLIED arm64-machine`, bootTime)
}

// The firmware sends no DHCP client identifier and most operating systems do, so
// a server that tells them apart gives the OS an address of its own.
func TestAnOSWithAnotherAddressGetsItsIgnitionOnlyIfItsConfigListsIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), SeparatePools: true})
	s.start("a", "--plain-http-registries="+registry.host)
	firmware, os := addresses(s, 50, 74), addresses(s, 75, 99)
	s.create(s.ignition("m", ignitionFile("listed")), machineConfig("m", image, firmware...))
	s.condition("m", v1alpha1.ConditionReady)
	m := s.network.Machine(t, lab.MachineOptions{UUID: uuid})
	m.PowerOn()
	m.Expect("UKI-BOOTED", bootTime)
	m.ExpectLine(`^IGNITION-FAILED 404`, bootTime)
	m.WaitOff(bootTime)

	config := s.configOf("m") // whose status may be written just now
	before := config.DeepCopy()
	config.Spec.NetworkIdentifiers = slices.Concat(firmware, os)
	require.NoError(t, s.client.Patch(context.Background(), config, client.MergeFrom(before)))
	s.condition("m", v1alpha1.ConditionReady)
	m.PowerOn()
	m.ExpectLine(`^IGNITION-APPLIED listed`, 2*bootTime)
}

func TestAPullThatIsStillRunningWhenTheFirmwareAsksDoesNotFailTheBoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	registry := s.registry()
	uki, err := demoimage.Padded("amd64", "BOOTED-WHILE-PULLING", 24<<20)
	require.NoError(t, err)
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": uki})
	m := s.network.Machine(t, lab.MachineOptions{UUID: uuid})
	machine := s.network.Addr(50)
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), Reservations: map[string]netip.Addr{m.MAC(): machine}})

	first := s.start("a", "--plain-http-registries="+registry.host)
	s.create(s.ignition("m", ignitionFile("x")), machineConfig("m", image, machine.String()))
	s.condition("m", v1alpha1.ConditionReady)
	first.kill()

	// Another replica, which has nothing yet, on a slow line to the registry.
	registry.slow(1 << 20) // 24 s for the whole image
	m.PowerOn()
	m.Expect("Start HTTP Boot", bootTime)
	s.start("b", "--plain-http-registries="+registry.host)
	m.Expect("BOOTED-WHILE-PULLING", 2*bootTime)
	s.condition("m", v1alpha1.ConditionUKIFetched)
}

func greeting(t *testing.T, arch, text string) []byte {
	t.Helper()
	b, err := demoimage.Greeting(arch, text)
	require.NoError(t, err)
	return b
}

func addresses(s *site, first, last byte) []string {
	var all []string
	for host := first; host <= last; host++ {
		all = append(all, s.network.Addr(host).String())
	}
	return all
}

func condition(c *v1alpha1.HTTPBootConfig, name string) *metav1.Condition {
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Type == name && c.Status.Conditions[i].Status == metav1.ConditionTrue {
			return &c.Status.Conditions[i]
		}
	}
	return nil
}
