package dhcp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/dhcprecipe"
)

// What the recipes choose to lease to machines without a reservation.
var (
	range4 = dhcprecipe.Range{First: netip.MustParseAddr("10.77.0.100"), Last: netip.MustParseAddr("10.77.0.199")}
	range6 = dhcprecipe.Range{First: netip.MustParseAddr("fd00:77::100"), Last: netip.MustParseAddr("fd00:77::1ff")}
)

// startDnsmasq starts dnsmasq with a configuration as it was printed; only where
// it keeps its leases is said beside it.
func (s *site) startDnsmasq(config string) {
	s.t.Helper()
	s.start("sockets bound", nil, "dnsmasq", "--no-daemon", "--user=root", "--log-dhcp",
		"--conf-file="+write(s.t, "dnsmasq.conf", config), "--dhcp-leasefile="+s.t.TempDir()+"/leases")
}

// startKea starts Kea with a configuration as it was printed. Its leases go where
// Debian's Kea has them, under a file system of this process's own: ip netns gave
// it a mount namespace.
func (s *site) startKea(family, config string) {
	s.t.Helper()
	dir := s.t.TempDir()
	path := write(s.t, "kea.json", config)
	s.start("DHCP"+family+"_STARTED", []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=" + dir},
		"sh", "-c", "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/kea && exec kea-dhcp"+family+" -c "+path)
}

func TestDnsmasqTellsEveryIPv4Client(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "dnsmasq")
	s := newSite(t)
	s.startDnsmasq(recipe(t, dhcprecipe.Dnsmasq, 4))
	s.checkAll4()
}

func TestKeaTellsEveryIPv4Client(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "kea-dhcp4")
	s := newSite(t)
	s.startKea("4", recipe(t, dhcprecipe.Kea, 4))
	s.checkAll4()
}

// startISC starts ISC dhcpd with a configuration as it was printed.
func (s *site) startISC(family, config string) {
	s.t.Helper()
	leases := write(s.t, "leases", "")
	s.start("Server starting service.", nil, "dhcpd", "-"+family, "-f", "-d", "--no-pid",
		"-user", "root", "-group", "root", "-lf", leases, "-cf", write(s.t, "dhcpd.conf", config), "br0")
}

func TestISCTellsEveryIPv4Client(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "dhcpd")
	s := newSite(t)
	s.startISC("4", recipe(t, dhcprecipe.ISC, 4))
	s.checkAll4()
}

// everyDUID is for servers that know the MAC of a client however it names itself.
func everyDUID(dhcpv6.DUID) bool { return true }

func TestDnsmasqTellsEveryIPv6Client(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "dnsmasq")
	s := newSite(t)
	s.startDnsmasq(recipe(t, dhcprecipe.Dnsmasq, 6))
	s.checkAll6(everyDUID, forced6)
}

func TestKeaTellsEveryIPv6Client(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "kea-dhcp6")
	s := newSite(t)
	s.startKea("6", recipe(t, dhcprecipe.Kea, 6))
	s.checkAll6(everyDUID, forced6)
}

func TestISCTellsEveryIPv6Client(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "dhcpd")
	s := newSite(t)
	s.startISC("6", recipe(t, dhcprecipe.ISC, 6))
	s.checkAll6(func(d dhcpv6.DUID) bool { return d.DUIDType() == dhcpv6.DUID_LLT })
}

// One dnsmasq may serve both families from one file.
func TestDnsmasqTellsBothFamiliesAtOnce(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "dnsmasq")
	s := newSite(t)
	s.startDnsmasq(recipe(t, dhcprecipe.Dnsmasq, 4, 6))
	s.checkAll4()
	s.checkAll6(everyDUID, forced6)
}

// The negative control of the tests above: a server that minds client identifiers
// gives two systems of one machine, such as iPXE and what it boots, two addresses.
// (For a client without any, Kea and dhcpd look by the MAC all the same.)
func TestWithoutTheRecipeFirmwareAndSystemDiffer(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "dnsmasq", "kea-dhcp4", "dhcpd")
	for _, server := range []struct {
		format   dhcprecipe.Format
		old, new string
		start    func(s *site, config string)
	}{
		{dhcprecipe.Dnsmasq, "\ndhcp-ignore-clid\n", "\n", (*site).startDnsmasq},
		{dhcprecipe.Kea, `"match-client-id": false`, `"match-client-id": true`, func(s *site, config string) { s.startKea("4", config) }},
		{dhcprecipe.ISC, "\nignore-client-uids true;\n", "\n", func(s *site, config string) { s.startISC("4", config) }},
	} {
		t.Run(string(server.format), func(t *testing.T) {
			t.Parallel()
			config := recipe(t, server.format, 4)
			require.Equal(t, 1, strings.Count(config, server.old), config)
			s := newSite(t)
			server.start(s, strings.Replace(config, server.old, server.new, 1))
			nic := s.nic(stranger)
			_, first := s.ask(nic, stranger, client4{name: "a system", clientID: append([]byte{1}, stranger...)})
			_, second := s.ask(nic, stranger, client4{name: "another", clientID: []byte{255, 1, 2, 3, 4, 0, 2, 0, 0, 0xab, 0x11, 9, 9}})
			require.NotEqual(t, first.YourIPAddr.String(), second.YourIPAddr.String())
		})
	}
}
