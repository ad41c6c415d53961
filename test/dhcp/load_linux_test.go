package dhcp

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/dhcprecipe"
)

// loaders are the servers' own test modes, which the recipes tell people to use.
var loaders = []struct {
	format   dhcprecipe.Format
	families []int
	program  string
	args     []string // the file's path follows
}{
	{dhcprecipe.Dnsmasq, []int{4}, "dnsmasq", []string{"--test", "--conf-file="}},
	{dhcprecipe.Dnsmasq, []int{6}, "dnsmasq", []string{"--test", "--conf-file="}},
	{dhcprecipe.Dnsmasq, []int{4, 6}, "dnsmasq", []string{"--test", "--conf-file="}},
	{dhcprecipe.Kea, []int{4}, "kea-dhcp4", []string{"-t", ""}},
	{dhcprecipe.Kea, []int{6}, "kea-dhcp6", []string{"-t", ""}},
	{dhcprecipe.ISC, []int{4}, "dhcpd", []string{"-4", "-t", "-cf", ""}},
	{dhcprecipe.ISC, []int{6}, "dhcpd", []string{"-6", "-t", "-cf", ""}},
}

// rack are machines whose objects are complete, incomplete and hostile.
var rack = []dhcprecipe.Machine{
	{Name: "default/one", MACs: []boot.MAC{"52:54:00:aa:bb:01"}, Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.11"), addresses[0], addresses[1]}},
	{Name: "default/in-the-range", MACs: []boot.MAC{"52:54:00:aa:bb:02"}, Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.150"), netip.MustParseAddr("fd00:77::150")}},
	{Name: "default/elsewhere", MACs: []boot.MAC{"52:54:00:aa:bb:03"}, Addrs: []netip.Addr{netip.MustParseAddr("192.168.7.7"), netip.MustParseAddr("fd00:7::7")}},
	{Name: "default/two-nics", MACs: []boot.MAC{"52:54:00:aa:bb:04", "52:54:00:aa:bb:05"}, Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.12"), netip.MustParseAddr("fd00:77::12")}},
	{Name: "evil\n\"}]}}\ndhcp-option=6,6.6.6.6", MACs: []boot.MAC{"52:54:00:aa:bb:06"}, Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.13"), netip.MustParseAddr("fd00:77::13")}},
}

func TestEveryServerLoadsItsConfiguration(t *testing.T) {
	t.Parallel()
	requirePrograms(t, "dnsmasq", "kea-dhcp4", "kea-dhcp6", "dhcpd")
	s := newSite(t) // Kea wants to see the interface
	for _, l := range loaders {
		for name, o := range variants() {
			o.Format = l.format
			if !slices.Contains(l.families, 4) {
				o.V4 = nil
			}
			if !slices.Contains(l.families, 6) {
				o.V6 = nil
			}
			var out strings.Builder
			require.NoError(t, dhcprecipe.Print(&out, o))
			said, err := s.load(l.program, l.args, out.String())
			require.NoError(t, err, "%s of %s, %v: %s", name, l.format, l.families, said)

			// That it would say so: a line that is none of the language's.
			broken := strings.Replace(out.String(), "\n\n", "\nno such thing;}\n\n", 1)
			require.NotEqual(t, out.String(), broken)
			said, err = s.load(l.program, l.args, broken)
			require.Error(t, err, "%s loads anything: %s", l.program, said)
		}
	}
}

// variants are the facts that change what is printed.
func variants() map[string]dhcprecipe.Options {
	plain := func() dhcprecipe.Options {
		return dhcprecipe.Options{Interface: "br0", V4: &dhcprecipe.Network{Server: server4}, V6: &dhcprecipe.Network{Server: server6}}
	}
	full := plain()
	full.Reserve, full.Machines, full.LeaseTime = true, rack, 10*time.Minute
	full.Files = dhcprecipe.BootFiles{BIOS: "bios/undionly.kpxe", AMD64: "x86_64/ipxe.efi", ARM64: "arm64/ipxe.efi"}
	full.V4 = &dhcprecipe.Network{
		Server: dhcprecipe.Server{Scheme: "https", Host: netip.MustParseAddr("10.9.0.2"), Port: 8443}, TFTP: netip.MustParseAddr("10.9.0.3"),
		Subnet: netip.MustParsePrefix("10.77.0.0/23"), Range: dhcprecipe.Range{First: netip.MustParseAddr("10.77.0.100"), Last: netip.MustParseAddr("10.77.1.99")},
		Router: netip.MustParseAddr("10.77.0.4"), DNS: []netip.Addr{netip.MustParseAddr("10.9.0.53"), netip.MustParseAddr("10.9.1.53")},
	}
	full.V6 = &dhcprecipe.Network{
		Server: dhcprecipe.Server{Scheme: "https", Host: netip.MustParseAddr("fd09::2"), Port: 8443}, TFTP: netip.MustParseAddr("fd09::3"),
		Subnet: netip.MustParsePrefix("fd00:77::/64"), Range: dhcprecipe.Range{First: netip.MustParseAddr("fd00:77::100"), Last: netip.MustParseAddr("fd00:77::2ff")},
		DNS: []netip.Addr{netip.MustParseAddr("fd09::53"), netip.MustParseAddr("fd09::54")},
	}
	none := plain()
	none.Reserve = true
	return map[string]dhcprecipe.Options{"plain": plain(), "full": full, "no machines": none}
}

// load runs a server's test mode on a configuration.
func (s *site) load(program string, args []string, config string) (string, error) {
	s.t.Helper()
	dir := s.t.TempDir()
	args = slices.Clone(args)
	args[len(args)-1] += write(s.t, "config", config)
	cmd := s.network.Command(program, args...)
	cmd.Env = append(cmd.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
