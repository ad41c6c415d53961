package networkdata_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/networkdata"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestNetworkDataBecomesVersion2(t *testing.T) {
	for name, want := range map[string]networkdata.Config{
		"nova.json":  {Links: 5, Networks: 3},
		"bond.json":  {Links: 5, Networks: 5},
		"capm3.yaml": {Links: 3, Networks: 5},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", name))
			require.NoError(t, err)
			got, err := networkdata.Convert(data)
			require.NoError(t, err)
			require.Equal(t, want.Links, got.Links)
			require.Equal(t, want.Networks, got.Networks)
			golden := filepath.Join("testdata", strings.TrimSuffix(name, filepath.Ext(name))+".golden")
			if *update {
				require.NoError(t, os.WriteFile(golden, got.YAML, 0o600))
			}
			expected, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(expected), string(got.YAML))
			again, err := networkdata.Convert(data)
			require.NoError(t, err)
			require.Equal(t, got, again, "the same for the same input")
		})
	}
}

func TestJSONAndYAMLSayTheSame(t *testing.T) {
	data, err := os.ReadFile("testdata/capm3.yaml")
	require.NoError(t, err)
	var v any
	require.NoError(t, yaml.Unmarshal(data, &v))
	asJSON, err := json.MarshalIndent(v, "", "\t")
	require.NoError(t, err)
	want, err := networkdata.Convert(data)
	require.NoError(t, err)
	got, err := networkdata.Convert(asJSON)
	require.NoError(t, err)
	require.Equal(t, string(want.YAML), string(got.YAML))
}

const oneNIC = `{id: eth0, type: phy, ethernet_mac_address: "52:54:00:aa:bb:01"}`

// convert returns what came of links and networks in YAML's flow style.
func convert(t *testing.T, links, networks, services string) (map[string]any, error) {
	t.Helper()
	c, err := networkdata.Convert([]byte("links: [" + links + "]\nnetworks: [" + networks + "]\nservices: [" + services + "]\n"))
	if err != nil {
		return nil, err
	}
	var out map[string]any
	require.NoError(t, yaml.Unmarshal(c.YAML, &out))
	return out, nil
}

// eth0 returns one key of what became of oneNIC with one network.
func eth0(t *testing.T, network, key string) any {
	t.Helper()
	out, err := convert(t, oneNIC, network, "")
	require.NoError(t, err)
	return out["ethernets"].(map[string]any)["eth0"].(map[string]any)[key]
}

func TestEveryNotationOfANetmaskIsRead(t *testing.T) {
	for network, want := range map[string]string{
		`type: ipv4, ip_address: 10.0.0.5, netmask: 255.255.240.0`:        "10.0.0.5/20",
		`type: ipv4, ip_address: 10.0.0.5, netmask: 20`:                   "10.0.0.5/20",
		`type: ipv4, ip_address: 10.0.0.5, netmask: "/20"`:                "10.0.0.5/20",
		`type: ipv4, ip_address: 10.0.0.5/20`:                             "10.0.0.5/20",
		`type: ipv4, ip_address: 10.0.0.5/255.255.240.0`:                  "10.0.0.5/20",
		`type: ipv4, ip_address: 10.0.0.5/20, netmask: 255.255.240.0`:     "10.0.0.5/20",
		`type: ipv4, ip_address: 10.0.0.5, netmask: 255.255.255.255`:      "10.0.0.5/32",
		`type: ipv6, ip_address: "2001:db8::5", netmask: "ffff:ffff::"`:   "2001:db8::5/32",
		`type: ipv6, ip_address: "2001:DB8:0::5", netmask: 64`:            "2001:db8::5/64",
		`type: ipv6, ip_address: "2001:db8::5/64", netmask: null`:         "2001:db8::5/64",
		`type: static6, ip_address: "2001:db8::5/64"`:                     "2001:db8::5/64",
		`type: ipv6, ip_address: "2001:db8::5/ffff:ffff:ffff:ffff::"`:     "2001:db8::5/64",
		`type: ipv6, ip_address: "2001:db8::5/128", network_id: whatever`: "2001:db8::5/128",
	} {
		require.Equal(t, []any{want}, eth0(t, "{link: eth0, "+network+"}", "addresses"), network)
	}
}

func TestNetworksThatTellTheirAddressesThemselves(t *testing.T) {
	for typ, want := range map[string][3]any{ // dhcp4, dhcp6, accept-ra
		"ipv4_dhcp":             {true, nil, nil},
		"ipv6_dhcp":             {nil, true, true},
		"ipv6_slaac":            {nil, nil, true},
		"ipv6_dhcpv6-stateful":  {nil, true, true},
		"ipv6_dhcpv6-stateless": {nil, true, true},
	} {
		n := "{link: eth0, type: " + typ + "}"
		require.Equal(t, want, [3]any{eth0(t, n, "dhcp4"), eth0(t, n, "dhcp6"), eth0(t, n, "accept-ra")}, typ)
	}
	static := `{link: eth0, type: ipv6, ip_address: "2001:db8::5/64"}`
	require.Equal(t, false, eth0(t, static, "accept-ra"))
	for _, both := range []string{static + ", {link: eth0, type: ipv6_slaac}", "{link: eth0, type: ipv6_slaac}, " + static} {
		require.Equal(t, true, eth0(t, both, "accept-ra"), "in either order")
	}
}

func TestRoutesAreMaskedAndThereOnce(t *testing.T) {
	routes := eth0(t, `{link: eth0, type: ipv4, ip_address: 10.0.0.5/24, gateway: 10.0.0.1, routes: [
		{network: 0.0.0.0, gateway: 10.0.0.1}, {network: 192.168.7.9, netmask: 16, gateway: 10.0.0.2, metric: 5}, {network: 172.16.0.0/12, gateway: 10.0.0.3}]}`, "routes")
	require.Equal(t, []any{
		map[string]any{"to": "0.0.0.0/0", "via": "10.0.0.1"},
		map[string]any{"to": "192.168.0.0/16", "via": "10.0.0.2", "metric": 5},
		map[string]any{"to": "172.16.0.0/12", "via": "10.0.0.3"},
	}, routes)
	require.Equal(t, "2001:db8::1", eth0(t, `{link: eth0, type: ipv6, ip_address: "2001:db8::5/64", gateway: "2001:db8::1", routes: [{network: "::", gateway: "2001:db8::1"}]}`, "gateway6"))
	require.Equal(t, []any{map[string]any{"to": "::/0", "via": "fe80::1"}}, eth0(t, `{link: eth0, type: ipv6_slaac, routes: [{network: "::", gateway: "fe80::1"}]}`, "routes"))
}

func TestANICIsRenamedOnlyToANameOfANIC(t *testing.T) {
	for id, want := range map[string]any{
		"eth0": "eth0", "eno1": "eno1", "ens3f0np0": "ens3f0np0", "enp1s0": "enp1s0", "enP2p1s0": "enP2p1s0", "enx525400aabb01": "enx525400aabb01", "em1": "em1", "p1p2": "p1p2",
		"tap2ecc7709-b3": nil, "interface0": nil, "provisioning": nil, "endpoint-1": nil, "lo": nil, "eth0.100.too.long": nil, "2ecc7709-b3f7-4448-9580-e1ec32d75bbd": nil,
	} {
		out, err := convert(t, `{id: "`+id+`", type: phy, ethernet_mac_address: "52:54:00:aa:bb:01"}`, "", "")
		require.NoError(t, err)
		nic := out["ethernets"].(map[string]any)[id].(map[string]any)
		require.Equal(t, want, nic["set-name"], id)
		require.Equal(t, map[string]any{"macaddress": "52:54:00:aa:bb:01"}, nic["match"])
	}
	out, err := convert(t, `{id: "a b", type: phy, ethernet_mac_address: "52:54:00:aa:bb:01"}, {id: x, name: uplink, ethernet_mac_address: "52:54:00:aa:bb:02"}, {id: y, name: eno4, type: phy}`, "", "")
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"link0":  map[string]any{"match": map[string]any{"macaddress": "52:54:00:aa:bb:01"}},
		"uplink": map[string]any{"match": map[string]any{"macaddress": "52:54:00:aa:bb:02"}, "set-name": "uplink"},
		"eno4":   map[string]any{},
	}, out["ethernets"], "an id that is none, a name that was asked for, and a NIC that is known by its name")
}

func TestABadDocumentIsRefusedByPathAndWithoutItsValues(t *testing.T) {
	nic := func(n, mac string) string {
		return `{id: nic` + n + `, type: phy, ethernet_mac_address: "52:54:00:aa:bb:` + mac + `"}`
	}
	two := nic("0", "01") + ", " + nic("1", "02")
	bondOf := func(links string) string { return two + ", {id: bond0, type: bond, bond_links: [" + links + "]}" }
	net := func(fields string) string { return "{link: nic0, " + fields + "}" }
	for _, c := range []struct{ want, links, networks, services string }{
		{"links[0].id: missing", `{type: phy}`, "", ""},
		{"links[1].id: links[0] has the same id", nic("0", "01") + "," + nic("0", "02"), "", ""},
		{"links[1].ethernet_mac_address: links[0] has the same address", nic("0", "01") + "," + nic("1", "01"), "", ""},
		{"links[1].ethernet_mac_address: not the MAC address", nic("0", "01") + "," + nic("1", "hunter2"), "", ""},
		{"links[0].ethernet_mac_address: missing", `{id: a, type: phy}`, "", ""},
		{"links[0].type: not a type of link", `{id: a, type: hunter2}`, "", ""},
		{"links[0].name: not the name", `{id: a, type: phy, name: "hunter2/.."}`, "", ""},
		{"links[0].mtu: an integer from 68 to 65535", `{id: a, type: phy, mtu: hunter2}`, "", ""},
		{"links[0]: a mapping belongs here", `hunter2`, "", ""},
		{"links[0].id: a string belongs here", `{id: [hunter2]}`, "", ""},
		{"links[0].id: longer than 256 bytes", `{id: ` + strings.Repeat("a", 257) + `}`, "", ""},
		{"links[2].bond_links: a bond needs", bondOf(""), "", ""},
		{"links[2].bond_links: a list", two + ", {id: b, type: bond, bond_links: hunter2}", "", ""},
		{"links[2].bond_links[1]: names none of the links", bondOf("nic0, hunter2"), "", ""},
		{"links[2].bond_links[1]: is a member of links[2] already", bondOf("nic0, nic0"), "", ""},
		{"links[2].bond_links[0]: names no NIC", bondOf("bond0"), "", ""},
		{"links[0].bond_mode: must be one of balance-rr", "{id: b, type: bond, bond_mode: hunter2}", "", ""},
		{"links[0].bond_miimon: an integer from 0", "{id: b, type: bond, bond_miimon: -1}", "", ""},
		{"links[0].bond_fancy: not a setting", "{id: b, type: bond, bond_fancy: hunter2}", "", ""},
		{"links[2].vlan_id: an integer from 1 to 4094", two + ", {id: v, type: vlan, vlan_link: nic0, vlan_id: 4095}", "", ""},
		{"links[2].vlan_id: missing", two + ", {id: v, type: vlan, vlan_link: nic0}", "", ""},
		{"links[2].vlan_link: names none", two + ", {id: v, type: vlan, vlan_id: 1, vlan_link: hunter2}", "", ""},
		{"links[2].vlan_link: names a VLAN", two + ", {id: v, type: vlan, vlan_id: 1, vlan_link: v}", "", ""},
		{"links[3].vlan_link: names a member of links[2]", bondOf("nic0") + ", {id: v, type: vlan, vlan_id: 1, vlan_link: nic0}", "", ""},
		{"links[1]: would have the name of links[0]", nic("0", "01") + ", {id: x, name: nic0, type: bond, bond_links: [nic0]}", "", ""},
		{"networks[0].link: names none", two, "{link: hunter2}", ""},
		{"networks[0].link: names a member of links[2]", bondOf("nic0"), net("type: ipv4_dhcp"), ""},
		{"networks[0].type: must be one of ipv4,", two, net("type: hunter2"), ""},
		{"networks[0].ip_address: an IPv4 address belongs here", two, net("type: ipv4, ip_address: hunter2, netmask: 24"), ""},
		{"networks[0].ip_address: an IPv4 address belongs here", two, net(`type: ipv4, ip_address: "2001:db8::1", netmask: 24`), ""},
		{"networks[0].ip_address: an IPv6 address belongs here", two, net("type: ipv6, ip_address: 10.0.0.1, netmask: 24"), ""},
		{"networks[0].ip_address: not the address of one machine", two, net("type: ipv4, ip_address: 0.0.0.0"), ""},
		{"networks[0].ip_address: what follows the slash", two, net("type: ipv4, ip_address: 10.0.0.1/hunter2"), ""},
		{"networks[0].netmask: missing", two, net("type: ipv4, ip_address: 10.0.0.1"), ""},
		{"networks[0].netmask: neither", two, net("type: ipv4, ip_address: 10.0.0.1, netmask: 33"), ""},
		{"networks[0].netmask: neither", two, net("type: ipv4, ip_address: 10.0.0.1, netmask: 255.0.255.0"), ""},
		{"networks[0].netmask: neither", two, net(`type: ipv4, ip_address: 10.0.0.1, netmask: "ffff::"`), ""},
		{"networks[0].netmask: says another prefix length", two, net("type: ipv4, ip_address: 10.0.0.1/24, netmask: 16"), ""},
		{"networks[0].gateway: of the other family", two, net(`type: ipv4, ip_address: 10.0.0.1/24, gateway: "2001:db8::1"`), ""},
		{"networks[0].routes[0].gateway: not an IP address", two, net("type: ipv4_dhcp, routes: [{network: 10.0.0.0/8}]"), ""},
		{"networks[0].routes[0].netmask: missing", two, net("type: ipv4_dhcp, routes: [{network: 10.0.0.0, gateway: 10.0.0.1}]"), ""},
		{"networks[0].routes[0].services[0].type: only services of type dns", two, net("type: ipv4_dhcp, routes: [{network: 0.0.0.0, gateway: 10.0.0.1, services: [{type: hunter2}]}]"), ""},
		{"networks[0].dns_search[0]: not a domain", two, net(`type: ipv4_dhcp, dns_search: ["hunter2 x"]`), ""},
		{"services[0].address: not an IP address", two, "", "{type: dns, address: hunter2}"},
		{"services: 17 entries are more than the 16", two, "", strings.TrimSuffix(strings.Repeat("{type: dns, address: 10.0.0.1}, ", 17), ", ")},
		{"links[0].id: the key is there twice", "{id: hunter2, id: b}", "", ""},
		{"links[0].id: an alias", "{id: *a}", "", ""},
	} {
		_, err := convert(t, strings.Replace(c.links, "*a", "&a hunter2, name: *a", 1), c.networks, c.services)
		if strings.Contains(c.want, "alias") {
			c.want = "links[0].name: an alias"
		}
		require.ErrorIs(t, err, boot.ErrInvalid, c.want)
		require.ErrorContains(t, err, ": "+c.want)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestOnlyABoundedMappingIsRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "must be a mapping",
		"[]":                  "must be a mapping",
		"null":                "must be a mapping",
		"links: [hunter2":     "neither JSON nor YAML (line",
		"links: hunter2":      "links: a list belongs here",
		"? [a]\n: b\n":        "a key must be a string",
		"\"hunter 2\": &a *a": "neither JSON nor YAML",
		strings.Repeat("[", 60) + strings.Repeat("]", 60):         "must be a mapping",
		"x: " + strings.Repeat("[", 60) + strings.Repeat("]", 60): "nested deeper than 16 levels",
		strings.Repeat("# nothing\n", networkdata.MaxBytes/10+1):  "are more than the 65536 that are allowed",
	} {
		_, err := networkdata.Convert([]byte(text))
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter")
	}
	c, err := networkdata.Convert([]byte("{}"))
	require.NoError(t, err)
	require.Equal(t, "version: 2\n", string(c.YAML), "the control: nothing is a network too")
}

func TestTheDocumentedExampleConverts(t *testing.T) {
	page, err := os.ReadFile("../../docs/user-data.md")
	require.NoError(t, err)
	_, example, found := strings.Cut(string(page), "```yaml\n")
	require.True(t, found)
	example, _, found = strings.Cut(example, "\n---\n")
	require.True(t, found)
	var secret struct {
		StringData map[string]string `yaml:"stringData"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(example), &secret))
	c, err := networkdata.Convert([]byte(secret.StringData["networkData"]))
	require.NoError(t, err)
	require.Equal(t, 2, c.Links)
	require.Equal(t, 2, c.Networks)
}

func FuzzConvert(f *testing.F) {
	for _, name := range []string{"nova.json", "bond.json", "capm3.yaml"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte("links: [&a {id: *a}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := networkdata.Convert(data)
		if err != nil {
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.Less(t, len(err.Error()), 2048)
			return
		}
		require.Less(t, len(c.YAML), 64*networkdata.MaxBytes)
		var out map[string]any
		require.NoError(t, yaml.Unmarshal(c.YAML, &out))
		require.Equal(t, 2, out["version"])
	})
}
