package dhcprecipe

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/boot-operator/boot-operator/internal/boot"
)

var update = flag.Bool("update", false, "write the golden files anew")

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, s := range texts {
		list = append(list, addr(s))
	}
	return list
}

func server(t *testing.T, s string) Server {
	t.Helper()
	parsed, err := ParseServer(s, "")
	require.NoError(t, err)
	return parsed
}

// rack are machines whose objects say enough, too little, and contradict another.
var rack = []Machine{
	{Name: "HTTPBootConfig default/one", MACs: []boot.MAC{"52:54:00:aa:bb:01"}, Addrs: addrs("10.0.0.11", "fd00::11", "fd00::12")},
	{Name: "IPXEBootConfig default/one", MACs: []boot.MAC{"52:54:00:aa:bb:01"}, Addrs: addrs("10.0.0.11", "fd00::13")},
	{Name: "HTTPBootConfig default/in-the-range", MACs: []boot.MAC{"52:54:00:aa:bb:02"}, Addrs: addrs("10.0.0.150", "fd00::150")},
	{Name: "HTTPBootConfig default/two-nics", MACs: []boot.MAC{"52:54:00:aa:bb:03", "52:54:00:aa:bb:04"}, Addrs: addrs("10.0.0.13", "10.0.0.14", "fd00::14")},
	{Name: "HTTPBootConfig default/two-addresses", MACs: []boot.MAC{"52:54:00:aa:bb:05"}, Addrs: addrs("10.0.0.15", "10.0.0.16")},
	{Name: "HTTPBootConfig default/no-mac", Addrs: addrs("10.0.0.17", "fd00::17")},
	{Name: "HTTPBootConfig default/no-address", MACs: []boot.MAC{"52:54:00:aa:bb:06"}},
	{Name: "HTTPBootConfig default/elsewhere", MACs: []boot.MAC{"52:54:00:aa:bb:07"}, Addrs: addrs("192.168.7.7", "fd00:7::7")},
	{Name: "HTTPBootConfig default/twin-a", MACs: []boot.MAC{"52:54:00:aa:bb:08"}, Addrs: addrs("10.0.0.18", "fd00::18")},
	{Name: "HTTPBootConfig default/twin-b", MACs: []boot.MAC{"52:54:00:aa:bb:09"}, Addrs: addrs("10.0.0.18", "fd00::18")},
	{Name: "HTTPBootConfig default/the-server", MACs: []boot.MAC{"52:54:00:aa:bb:0a"}, Addrs: addrs("10.0.0.2", "fd00::2")},
}

// networks are a plain one and one where everything is said.
func networks(t *testing.T, full bool) (v4, v6 *Network) {
	t.Helper()
	if !full {
		return &Network{Server: server(t, "10.0.0.2")}, &Network{Server: server(t, "fd00::2")}
	}
	v4 = &Network{
		Server: server(t, "https://10.9.0.2:8443"), TFTP: addr("10.9.0.3"), Subnet: netip.MustParsePrefix("10.0.0.0/22"),
		Range: Range{addr("10.0.1.10"), addr("10.0.2.20")}, Router: addr("10.0.0.1"), DNS: addrs("10.9.0.53", "10.9.1.53"),
	}
	v6 = &Network{
		Server: server(t, "https://[fd09::2]:8443"), TFTP: addr("fd09::3"), Subnet: netip.MustParsePrefix("fd00::/64"),
		Range: Range{addr("fd00::1000"), addr("fd00::1fff")}, DNS: addrs("fd09::53", "fd09::54"),
	}
	return v4, v6
}

func TestEveryConfigurationIsAsItWasReviewed(t *testing.T) {
	for _, format := range Formats() {
		for _, full := range []bool{false, true} {
			v4, v6 := networks(t, full)
			kinds := map[string]Options{"": {V4: v4, V6: v6}, "4": {V4: v4}, "6": {V6: v6}}
			for kind, o := range kinds {
				if (kind == "") != format.BothFamilies() {
					continue
				}
				o.Format = format
				name := string(format) + kind + ".golden"
				if full {
					name = "full-" + name
					o.Interface, o.LeaseTime, o.Reserve, o.Machines = "bond0.7", 10*time.Minute, true, rack
					o.Files = BootFiles{BIOS: "bios/undionly.kpxe", AMD64: "ipxe.efi", ARM64: "arm64/ipxe.efi"}
				}
				t.Run(name, func(t *testing.T) { checkGolden(t, name, o) })
			}
		}
	}
}

func checkGolden(t *testing.T, name string, o Options) {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, Print(&out, o))
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, out.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "make it with -update")
	require.Equal(t, string(want), out.String())
	require.NotContains(t, out.String(), "invalid", "an address that was not set")
	require.NotContains(t, out.String(), "<no value>")
	require.True(t, strings.HasSuffix(out.String(), "\n") && !strings.HasSuffix(out.String(), "\n\n"))
	require.NotRegexp(t, `\n\n\n|[ \t]\n`, out.String(), "blank lines and blanks at line ends")
	for line := range strings.Lines(out.String()) {
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, "//") {
			require.LessOrEqual(t, len(line), 220, "a comment that nobody reads to its end: %s", line)
		}
	}
}

func TestReservationsAreMadeOnlyWhereThePairIsSaid(t *testing.T) {
	v4, v6 := networks(t, false)
	v, err := complete(Options{Format: Dnsmasq, V4: v4, V6: v6, Reserve: true, Machines: rack})
	require.NoError(t, err)
	require.Equal(t, []Reservation{
		{MAC: "52:54:00:aa:bb:02", Addrs: addrs("10.0.0.150"), Name: "HTTPBootConfig default/in-the-range"},
		{MAC: "52:54:00:aa:bb:01", Addrs: addrs("10.0.0.11"), Name: "HTTPBootConfig default/one"},
	}, v.V4.Reservations)
	require.Equal(t, []Reservation{
		{MAC: "52:54:00:aa:bb:02", Addrs: addrs("fd00::150"), Name: "HTTPBootConfig default/in-the-range"},
		{MAC: "52:54:00:aa:bb:01", Addrs: addrs("fd00::11", "fd00::12", "fd00::13"), Name: "HTTPBootConfig default/one"},
	}, v.V6.Reservations)
	require.Len(t, v.Hosts(), 2, "one line for a MAC, whatever the family")

	notes := strings.Join(v.Notes(), "\n")
	for _, want := range []string{
		"two-nics lists 10.0.0.13, 10.0.0.14 and the MAC addresses 52:54:00:aa:bb:03, 52:54:00:aa:bb:04, and does not say which belong together",
		"two-nics lists fd00::14 and the MAC addresses",
		"two-addresses lists 10.0.0.15, 10.0.0.16 for 52:54:00:aa:bb:05, which can have one of them",
		"no-mac lists 10.0.0.17 and no MAC address",
		"no-address lists no address",
		"elsewhere wants 192.168.7.7 for 52:54:00:aa:bb:07: outside the subnet 10.0.0.0/24",
		"elsewhere wants fd00:7::7 for 52:54:00:aa:bb:07: outside the subnet fd00::/64",
		"twin-a wants 10.0.0.18 for 52:54:00:aa:bb:08, but HTTPBootConfig default/twin-b wants 10.0.0.18 for 52:54:00:aa:bb:09",
		"twin-b wants 10.0.0.18 for 52:54:00:aa:bb:09, but HTTPBootConfig default/twin-a wants",
		"the-server wants 10.0.0.2 for 52:54:00:aa:bb:0a: 10.0.0.2 is in use or cannot be leased",
	} {
		require.Contains(t, notes, want)
	}
}

func TestOneMACWithTwoIPv4AddressesInTwoObjectsGetsNone(t *testing.T) {
	v4, _ := networks(t, false)
	v, err := complete(Options{Format: Kea, V4: v4, Machines: []Machine{
		{Name: "a", MACs: []boot.MAC{"52:54:00:aa:bb:01"}, Addrs: addrs("10.0.0.11")},
		{Name: "b", MACs: []boot.MAC{"52-54-00-AA-BB-01"}, Addrs: addrs("::ffff:10.0.0.12")},
	}})
	require.NoError(t, err)
	require.Empty(t, v.V4.Reservations)
	require.Len(t, v.V4.Notes, 2)
}

// hostile are names and values that would end a comment, a string or a line in one
// of the languages.
var hostile = []string{
	"a\ndhcp-option=6,6.6.6.6", "a\r\nb", "a\u2028b", `a"; option routers 6.6.6.6; #`, `a" }, { "x": "`, "a}}", "a';b", "a,b", "a;b",
	"a b", "$(reboot)", "[:put 1]", "a*/b", "a\\", "{{.V4}}", "../../etc/passwd", "-a", "", "a\x00b", "ä",
}

func TestNoNameBreaksOutOfItsComment(t *testing.T) {
	v4, v6 := networks(t, false)
	plain := map[Format]int{}
	for _, name := range append([]string{"plain"}, hostile...) {
		for _, format := range Formats() {
			machines := []Machine{
				{Name: name, MACs: []boot.MAC{"52:54:00:aa:bb:01"}, Addrs: addrs("10.0.0.11", "fd00::11")},
				{Name: name + "2", Addrs: addrs("10.0.0.12", "fd00::12")},
			}
			o := Options{Format: format, V4: v4, Reserve: true, Machines: machines}
			if format.BothFamilies() {
				o.V6 = v6
			}
			var out bytes.Buffer
			require.NoError(t, Print(&out, o))
			code := regexp.MustCompile(`(?m)^\s*(#|//).*$`).ReplaceAllString(out.String(), "")
			if name == "plain" {
				plain[format] = strings.Count(out.String(), "\n")
			}
			require.Equal(t, plain[format], strings.Count(out.String(), "\n"), "%s: %q made a line", format, name)
			require.NotContains(t, code, "6.6.6.6", "%s: %q", format, name)
			require.NotContains(t, out.String(), "\r", "%s: %q", format, name)
		}
	}
}

func TestNoValueReachesTheConfigurationUnchecked(t *testing.T) {
	v4, v6 := networks(t, false)
	for _, value := range hostile {
		for what, o := range map[string]Options{
			"interface":  {Interface: value},
			"BIOS file":  {Files: BootFiles{BIOS: value}},
			"amd64 file": {Files: BootFiles{AMD64: value}},
			"arm64 file": {Files: BootFiles{ARM64: value}},
		} {
			if value == "" {
				continue // means the usual name
			}
			o.Format, o.V4, o.V6 = Dnsmasq, v4, v6
			require.ErrorIs(t, Print(&bytes.Buffer{}, o), boot.ErrInvalid, "%s %q", what, value)
		}
		_, err := ParseServer(value, "")
		require.ErrorIs(t, err, boot.ErrInvalid, value)
		_, err = ParseServer("http://10.0.0.2:8082/"+value+"x", "")
		require.ErrorIs(t, err, boot.ErrInvalid, value)
		_, err = ParseRange("10.0.0.1-10.0.0.2" + value + "x")
		require.ErrorIs(t, err, boot.ErrInvalid, value)

		machines := []Machine{{Name: "a", MACs: []boot.MAC{boot.MAC(value)}, Addrs: addrs("10.0.0.11")}}
		var out bytes.Buffer
		require.NoError(t, Print(&out, Options{Format: Kea, V4: v4, Machines: machines}))
		require.Contains(t, out.String(), "a lists 10.0.0.11 and no MAC address", "a MAC that nobody checked")
	}
}

// Kea's files are JSON but for their comments, coredhcp's are YAML.
func TestConfigurationsParse(t *testing.T) {
	v4, v6 := networks(t, true)
	comment := regexp.MustCompile(`(?m)^\s*//.*$`)
	for _, o := range []Options{{V4: v4}, {V6: v6}, {V4: v4, Reserve: true, Machines: rack}, {V6: v6, Reserve: true, Machines: rack}} {
		var out bytes.Buffer
		o.Format = Kea
		require.NoError(t, Print(&out, o))
		var parsed map[string]any
		require.NoError(t, json.Unmarshal(comment.ReplaceAll(out.Bytes(), nil), &parsed), out.String())
		require.Len(t, parsed, 1)

		out.Reset()
		o.Format = CoreDHCP
		require.NoError(t, Print(&out, o))
		parsed = nil
		require.NoError(t, yaml.UnmarshalStrict(out.Bytes(), &parsed), out.String())
		require.Len(t, parsed, 1)
	}
}

func TestWhatMakesNoConfigurationIsRefused(t *testing.T) {
	v4, v6 := networks(t, false)
	with := func(change func(*Network)) *Network {
		n := *v4
		change(&n)
		return &n
	}
	for want, o := range map[string]Options{
		`format "bind" is none of [dnsmasq kea isc coredhcp mikrotik]`: {Format: "bind", V4: v4},
		"no network to serve":                                   {Format: Kea},
		"kea has a file for each family":                        {Format: Kea, V4: v4, V6: v6},
		"a lease of 1s is not between 2m0s and a year":          {Format: Kea, V4: v4, LeaseTime: time.Second},
		"fd00::2 is not an IPv4 address":                        {Format: Kea, V4: v6},
		"10.0.0.2 is not an IPv6 address":                       {Format: Kea, V6: v4},
		"the address is missing":                                {Format: Kea, V4: &Network{Server: Server{Scheme: "http", Port: 1}}},
		`the scheme "ftp" is neither`:                           {Format: Kea, V4: &Network{Server: Server{Scheme: "ftp", Port: 1, Host: addr("10.0.0.2")}}},
		"the port is missing":                                   {Format: Kea, V4: &Network{Server: Server{Scheme: "http", Host: addr("10.0.0.2")}}},
		"the router 10.1.0.1 is outside the subnet 10.0.0.0/24": {Format: Kea, V4: with(func(n *Network) { n.Router = addr("10.1.0.1") })},
		"say which router leads to it":                          {Format: Kea, V4: with(func(n *Network) { n.Subnet = netip.MustParsePrefix("10.1.0.0/24") })},
		"is too small to choose a range in":                     {Format: Kea, V4: with(func(n *Network) { n.Subnet = netip.MustParsePrefix("10.0.0.0/30") })},
		"ends before it begins":                                 {Format: Kea, V4: with(func(n *Network) { n.Range = Range{addr("10.0.0.9"), addr("10.0.0.8")} })},
		"is not inside the subnet 10.0.0.0/24":                  {Format: Kea, V4: with(func(n *Network) { n.Range = Range{addr("10.0.0.9"), addr("10.0.1.8")} })},
		"the range 10.0.0.1-10.0.0.9 has 10.0.0.2 in it":        {Format: Kea, V4: with(func(n *Network) { n.Range = Range{addr("10.0.0.1"), addr("10.0.0.9")} })},
		"the range 10.0.0.200-10.0.0.255 has 10.0.0.255 in it":  {Format: Kea, V4: with(func(n *Network) { n.Range = Range{addr("10.0.0.200"), addr("10.0.0.255")} })},
		"127.0.0.1 is not the address of a host on a network":   {Format: Kea, V4: with(func(n *Network) { n.TFTP = addr("127.0.0.1") })},
		"DHCPv6 has no option for it":                           {Format: Kea, V6: &Network{Server: v6.Server, Router: addr("fd00::1")}},
	} {
		var out bytes.Buffer
		err := Print(&out, o)
		require.ErrorIs(t, err, boot.ErrInvalid, want)
		require.ErrorContains(t, err, want)
		require.Empty(t, out.String(), "something was written")
	}
}
