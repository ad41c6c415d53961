package e2e

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/lab"
)

// recipe writes what bootctl prints for this site to a file.
func (s *site) recipe(format string, args ...string) string {
	s.t.Helper()
	args = append([]string{"dhcp", "--format=" + format, "--interface=br0", "--machines", "--namespace=" + s.namespace}, args...)
	path := filepath.Join(s.t.TempDir(), format)
	require.NoError(s.t, os.WriteFile(path, []byte(s.bootctl(args...)), 0o644))
	return path
}

// A NIC whose ROM is iPXE already, and dnsmasq as bootctl configures it: it is
// led to /boot.ipxe, which tells all of the machine's NICs.
func TestIPXEInANICBootsWithThePrintedDnsmasqConfiguration(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.IPXE)
	s := newSite(t)
	registry := s.registry()
	image := registry.publishKernel("os/pxe")
	machine := s.network.Addr(57)
	m := s.network.Machine(t, lab.MachineOptions{UUID: uuid, Boot: lab.UEFIIPXE, MoreMACs: []string{"52:54:00:77:ff:01"}})
	s.start("a", "--plain-http-registries="+registry.host, "--ipxe-service-url="+s.url(""))
	config := ipxeMachine("m", image, machine.String(), m.MAC())
	config.Spec.KernelArguments = []string{"lab.argument=passed-on"}
	s.create(s.ignition("m", ignitionFile("by-boot.ipxe")), config)
	s.conditionOf(config, v1alpha1.ConditionReady)
	dnsmasq := s.recipe("dnsmasq", "--server="+s.network.Gateway().String())
	s.network.Neighbour(t, s.network.Addr(2)).RunDHCP("dnsmasq", "--no-daemon", "--user=root", "--conf-file="+dnsmasq, "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"))

	m.PowerOn()
	m.ExpectLine(`^UKI-BOOTED uuid=`+uuid+` cmdline=.*lab.argument=passed-on`, netbootTime)
	m.ExpectLine(`^IGNITION-APPLIED by-boot.ipxe`, bootTime)
	s.conditionOf(config, v1alpha1.ConditionIPXEScriptFetched)
	require.Equal(t, machine.String(), config.Status.Boot.LastClientAddress)
	require.Equal(t, "Address", config.Status.Boot.Proof)
}

func TestUEFIHTTPBootsWithThePrintedKeaConfiguration(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Kea)
	s := newSite(t)
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	m := s.network.Machine(t, lab.MachineOptions{UUID: uuid})
	s.start("a", "--plain-http-registries="+registry.host)
	s.create(s.ignition("m", ignitionFile("with-kea")), machineConfig("m", image, s.network.Addr(57).String(), m.MAC()))
	s.condition("m", v1alpha1.ConditionReady)
	kea := s.recipe("kea", "--server="+s.network.Gateway().String())
	// Its leases go where Debian's Kea has them, under a file system of its own.
	s.network.Neighbour(t, s.network.Addr(2)).RunDHCP("sh", "-c", "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/kea && exec kea-dhcp4 -c "+kea)

	m.PowerOn()
	m.Expect("UKI-BOOTED uuid="+uuid, bootTime)
	m.ExpectLine(`^IGNITION-APPLIED with-kea`, bootTime)
}

// No IPv4 at all: DHCPv6 names the URL, as bootctl configures dnsmasq, and the operating system has the address
// that it made of its MAC.
func TestUEFIHTTPBootsOverIPv6(t *testing.T) {
	t.Parallel()
	s := newSiteOn(t, lab.NetworkOptions{IPv6: true})
	registry := s.registry()
	base := "http://[" + s.network.Gateway6().String() + "]:8082"
	uki := lab.OS(t, "amd64", "ip=auto6 ignition.platform.id=metal ignition.firstboot ignition.config.url="+base+"/ignition")
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": uki})
	m := s.network.Machine(t, lab.MachineOptions{UUID: uuid, Boot: lab.UEFIHTTPv6})
	firmware, system := s.network.Addr6(0x57), s.network.SLAAC(m.MAC())
	// OVMF names itself by a DUID-UUID (RFC 6355), in EFI_GUID order.
	reservation := "--dhcp-host=id:00:04:33:22:11:00:55:44:77:66:88:99:aa:bb:cc:dd:ee:ff,[" + firmware.String() + "]"
	recipe := s.recipe("dnsmasq", "--server="+base)
	s.slaac(recipe)
	s.network.RunDHCP("dnsmasq", "--no-daemon", "--user=root", "--log-dhcp", "--conf-file="+recipe, "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), reservation)
	s.start("a", "--plain-http-registries="+registry.host)
	s.create(s.ignition("m", ignitionFile("over-ipv6")), machineConfig("m", image, firmware.String(), system.String()))
	s.condition("m", v1alpha1.ConditionReady)

	m.PowerOn()
	m.Expect("UKI-BOOTED uuid="+uuid, netbootTime)
	m.ExpectLine(`^IGNITION-APPLIED over-ipv6`, bootTime)
	s.condition("m", v1alpha1.ConditionUKIFetched)
	require.Equal(t, system.String(), s.configOf("m").Status.Boot.LastClientAddress)
}

// slaac adapts a printed configuration to the lab's operating system, which makes
// its address itself and does no DHCPv6.
func (s *site) slaac(path string) {
	s.t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(s.t, err)
	adapted := strings.Replace(string(text), ",64,3600", ",slaac,64,3600", 1)
	require.NotEqual(s.t, string(text), adapted)
	require.NoError(s.t, os.WriteFile(path, []byte(adapted), 0o644))
}

// A DHCP server asks for the boot URL as FeDHCP's plugin does: one GET that names
// the machine by the address that it gives and the MAC that it sees.
func TestADHCPServerThatAsksLikeFeDHCPIsToldAURLForThatMachineAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": greeting(t, "amd64", "x")})
	server, machine, other := s.network.Addr(2), s.network.Addr(57), s.network.Addr(58)
	for _, a := range []netip.Addr{server, machine, other} {
		s.network.AddAddress(a)
	}
	op := s.start("a", "--plain-http-registries="+registry.host, "--trusted-dhcp="+server.String(), "--ipxe-service-url="+s.url(""))
	const mac = "52:54:00:77:aa:01"
	s.create(s.ignition("m", ignitionFile("by-fedhcp")), machineConfig("m", image, mac)) // no address
	s.condition("m", v1alpha1.ConditionReady)

	a := s.getWith(server, s.url("/httpboot"), "X-Forwarded-For", machine.String()+", "+mac)
	require.Equal(t, 200, a.code, a.body)
	var told struct{ UKIURL string }
	require.NoError(t, json.Unmarshal([]byte(a.body), &told))
	require.Regexp(t, tokens, told.UKIURL)
	require.LessOrEqual(t, len(told.UKIURL), 200)
	forged := s.getWith(other, s.url("/httpboot"), "X-Forwarded-For", machine.String()+", "+mac)
	require.Equal(t, 404, forged.code, "anyone else's X-Forwarded-For counts for nothing")

	require.Equal(t, 404, s.get(other, told.UKIURL).code, "the URL is good from the address that was named")
	require.Equal(t, 404, s.get(machine, s.url("/ignition")).code, "nothing was booted yet")
	require.Equal(t, 200, s.get(machine, told.UKIURL).code)
	ignition := s.get(machine, s.url("/ignition"))
	require.Equal(t, 200, ignition.code, ignition.body)
	require.Contains(t, ignition.body, "by-fedhcp")
	require.Equal(t, 404, s.get(other, s.url("/ignition")).code)
	s.tellsNoToken(op)
}
