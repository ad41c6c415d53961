package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
)

const (
	// netbootTime is bootTime with another network stack or two before the kernel.
	netbootTime = 2 * bootTime
	// leaveTime is for firmware that nobody offers anything: OVMF asks for a minute.
	leaveTime = 3 * bootTime
)

// ipxeMachine is a config for one machine that boots kernel and initrd, with
// Ignition or user data from the Secret of the same name.
func ipxeMachine(name, image string, identifiers ...string) *v1alpha1.IPXEBootConfig {
	return &v1alpha1.IPXEBootConfig{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.IPXEBootConfigSpec{
			SystemUUID: uuid, NetworkIdentifiers: identifiers, Image: image,
			IgnitionSecretRef: &corev1.LocalObjectReference{Name: name},
		},
	}
}

func (s *site) userData(name, text string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{
		v1alpha1.SecretKeyFormat: v1alpha1.FormatCloudConfig, v1alpha1.SecretKeyUserData: "#cloud-config\n" + text + "\n",
	}}
}

// addressesOnly is a DHCP server of somebody else, on a host of its own, that
// gives addresses and knows of no boot.
func (s *site) addressesOnly() *lab.DHCPServer {
	return s.network.Neighbour(s.t, s.network.Addr(2)).DHCP(lab.DHCPOptions{IgnoreClientID: true})
}

// startNetboot runs a replica that offers boots itself.
func (s *site) startNetboot(registry *siteRegistry, args ...string) *operator {
	op := s.start("a", append([]string{"--plain-http-registries=" + registry.host, "--netboot-interface=br0"}, args...)...)
	require.Eventually(s.t, func() bool { return strings.Contains(op.log.String(), "serving") }, time.Minute, 50*time.Millisecond)
	return op
}

// tokens are boot tokens and tokens for secrets, as text.
var tokens = regexp.MustCompile(`\bAQ[A-Za-z0-9_-]{78}`)

// tellsNoToken greps everything that a person or a collector reads for tokens.
func (s *site) tellsNoToken(op *operator) {
	s.t.Helper()
	require.NotRegexp(s.t, tokens, op.log.String(), "the log")
	for _, list := range []client.ObjectList{&v1alpha1.HTTPBootConfigList{}, &v1alpha1.IPXEBootConfigList{}, &corev1.EventList{}} {
		require.NoError(s.t, s.client.List(context.Background(), list))
		text, err := json.Marshal(list)
		require.NoError(s.t, err)
		require.NotRegexp(s.t, tokens, string(text), "%T", list)
	}
}

// Firmware that can do PXE only, on a LAN whose DHCP server gives addresses: TFTP,
// iPXE, a script, and kernel and initrd from the registry. Nothing but a MAC address
// names the machine.
func TestAUEFIPXEMachineBootsBesideAForeignDHCPServer(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.IPXE)
	s := newSite(t)
	registry := s.registry()
	image := registry.publishKernel("os/pxe")
	s.addressesOnly()
	m := s.network.Machine(t, lab.MachineOptions{Name: "ours", UUID: uuid, Boot: lab.UEFIPXE})
	lan := s.network.Sniff(t)
	op := s.startNetboot(registry)
	config := ipxeMachine("m", image, m.MAC())
	s.create(s.ignition("m", ignitionFile("over-pxe")), config)
	s.conditionOf(config, v1alpha1.ConditionReady)

	m.PowerOn()
	booted := m.Expect("UKI-BOOTED uuid="+uuid, netbootTime)
	booted += m.Expect("\n", bootTime)
	m.ExpectLine(`^IGNITION-APPLIED over-pxe`, bootTime)
	m.WaitOff(bootTime)

	s.conditionOf(config, v1alpha1.ConditionIPXEScriptFetched)
	s.conditionOf(config, v1alpha1.ConditionIgnitionDataFetched)
	require.Equal(t, "Proxy", config.Status.Boot.Proof)
	require.Equal(t, strings.ToLower(m.MAC()), config.Status.Boot.Offer.MACAddress)
	require.Regexp(t, tokens, booted, "the kernel's command line has a token: that is what is looked for below")
	s.tellsNoToken(op)
	require.NotEmpty(t, lan.Frames(), "the sniffer hears the segment")
	for _, frame := range lan.Frames() {
		require.NotRegexp(t, tokens, string(frame), "a third port on the LAN")
	}
	s.forgedRequestsGetNothing(lan, m.MAC())
}

// forgedRequestsGetNothing asks as a machine from another port of the LAN.
func (s *site) forgedRequestsGetNothing(lan *lab.ThirdParty, machine string) {
	s.t.Helper()
	mac, err := net.ParseMAC(machine)
	require.NoError(s.t, err)
	discover := func() *dhcpv4.DHCPv4 {
		d, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
			dhcpv4.WithOption(dhcpv4.OptUserClass("iPXE")), dhcpv4.WithOption(dhcpv4.OptClientArch(7)))
		require.NoError(s.t, err)
		d.SetBroadcast()
		return d
	}
	mine := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	relayed := discover()
	relayed.GatewayIPAddr = s.network.Addr(9).AsSlice()
	relay := netip.AddrPortFrom(s.network.Addr(9), dhcpv4.ServerPort)
	for what, forged := range map[string]lab.ForgedDHCP{
		"a DISCOVER for another's MAC":     {Message: discover(), Source: mine},
		"a relay that nobody trusts":       {Message: relayed, Source: mine, From: relay, To: netip.AddrPortFrom(s.network.Gateway(), dhcpv4.ServerPort)},
		"a relay's broadcast":              {Message: relayed, Source: mine, From: relay},
		"a forged giaddr as the machine's": {Message: relayed},
	} {
		lan.SendDHCP(forged)
		for _, reply := range lan.Replies(forged.Message.TransactionID, 2*time.Second) {
			require.NotRegexp(s.t, tokens, string(reply.ToBytes()), what)
			require.Empty(s.t, reply.BootFileName, what)
		}
	}
	// The control: who has the machine's own hardware address on the LAN is the
	// machine, as far as ProxyDHCP can tell. That is what the proof says.
	spoofed := discover()
	lan.SendDHCP(lab.ForgedDHCP{Message: spoofed})
	var text string
	for _, reply := range lan.Replies(spoofed.TransactionID, 2*time.Second) {
		text += string(reply.ToBytes())
	}
	require.Regexp(s.t, tokens, text)
}

// A BIOS, whose network ROM is iPXE, configured by cloud-init; and one that nobody
// told us about, which is left alone.
func TestABIOSMachineBootsAndAStrangerIsLeftAlone(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.IPXE)
	s := newSite(t)
	registry := s.registry()
	image := registry.publishKernel("os/pxe")
	s.addressesOnly()
	m := s.network.Machine(t, lab.MachineOptions{Name: "ours", UUID: uuid, Boot: lab.BIOS})
	stranger := s.network.Machine(t, lab.MachineOptions{Name: "stranger", UUID: otherUUID, Boot: lab.BIOS, NextBoot: bootSector(t, "NEXT-DISK")})
	op := s.startNetboot(registry)
	config := ipxeMachine("m", image, m.MAC())
	s.create(s.userData("m", "hostname: from-cloud-init"), config)
	s.conditionOf(config, v1alpha1.ConditionReady)

	m.PowerOn()
	m.Expect("UKI-BOOTED uuid="+uuid, netbootTime)
	id := m.ExpectLine(`^CLOUD-INIT-META instance-id=(\S+)`, bootTime)
	m.ExpectLine(`^CLOUD-INIT-USER-DATA hostname: from-cloud-init`, bootTime)
	m.WaitOff(bootTime)
	s.conditionOf(config, v1alpha1.ConditionCloudInitFetched)

	stranger.PowerOn()
	stranger.Expect("NEXT-DISK", leaveTime)
	stranger.PowerOff()
	require.Contains(t, stranger.Transcript(), "Nothing to boot", "it got an address, and no offer of a boot")

	// The next boot is another attempt of the same instance.
	m.PowerOn()
	m.Expect("UKI-BOOTED uuid="+uuid, netbootTime)
	require.Equal(t, id[1], m.ExpectLine(`^CLOUD-INIT-META instance-id=(\S+)`, bootTime)[1])
	m.ExpectLine(`^CLOUD-INIT-USER-DATA hostname: from-cloud-init`, bootTime)
	s.tellsNoToken(op)
}

// UEFI HTTP Boot with nobody's DHCP server touched: the offer's URL names the
// machine, and the address that fetched the UKI is given the Ignition.
func TestAUEFIHTTPMachineBootsBesideAForeignDHCPServer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	s.addressesOnly()
	m := s.network.Machine(t, lab.MachineOptions{Name: "ours", UUID: uuid, NextBoot: greeting(t, "amd64", "NEXT-ENTRY")})
	stranger := s.network.Machine(t, lab.MachineOptions{Name: "stranger", UUID: otherUUID, NextBoot: greeting(t, "amd64", "NEXT-ENTRY")})
	op := s.startNetboot(registry)
	config := machineConfig("m", image, m.MAC())
	config.Spec.BootPolicy = v1alpha1.BootPolicyOnce
	s.create(s.ignition("m", ignitionFile("by-mac-alone")), config)
	s.condition("m", v1alpha1.ConditionReady)

	m.PowerOn()
	m.Expect("UKI-BOOTED uuid="+uuid, bootTime)
	m.ExpectLine(`^IGNITION-APPLIED by-mac-alone`, bootTime)
	m.WaitOff(bootTime)
	s.condition("m", v1alpha1.ConditionUKIFetched)
	s.condition("m", v1alpha1.ConditionIgnitionDataFetched)
	require.Equal(t, "Proxy", s.configOf("m").Status.Boot.Proof)

	m.PowerOn() // Once is spent: no reinstall
	stranger.PowerOn()
	m.Expect("NEXT-ENTRY", leaveTime)
	stranger.Expect("NEXT-ENTRY", leaveTime)
	s.tellsNoToken(op)
}

func bootSector(t *testing.T, text string) []byte {
	t.Helper()
	b, err := demoimage.BootSector(text)
	require.NoError(t, err)
	return b
}
