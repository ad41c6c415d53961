package networkdata

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// kind is what a link becomes.
type kind int

const (
	ethernet kind = iota
	bond
	vlan
)

func (k kind) section(f *file) *map[string]*device {
	return [...]*map[string]*device{&f.Ethernets, &f.Bonds, &f.VLANs}[k]
}

// physical are the types of links that are NICs (Nova's schema of network data,
// and what cloud-init knows beside it).
var physical = []string{
	"phy", "ethernet", "bridge", "cascading", "dvs", "hw_veb", "hyperv", "ovs", "tap", "vhostuser", "vif",
}

// link is one of the document's links.
type link struct {
	value
	id     string
	kind   kind
	name   string // in the output
	device device
	// bondOf is the path of the bond that it is a member of.
	bondOf string
}

// links reads all links: first what they are called, then what they say of each
// other.
func (c *conversion) links(all value) error {
	items, err := all.items(maxLinks)
	if err != nil {
		return err
	}
	for _, item := range items {
		l := &link{value: item}
		for _, step := range []func(*link) error{c.identify, c.describe, c.name} {
			if err := step(l); err != nil {
				return err
			}
		}
		c.byID[l.id] = l
		c.order = append(c.order, l)
	}
	for _, step := range []func(*link) error{c.join, c.tag} {
		for _, l := range c.order {
			if err := step(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *conversion) identify(l *link) (err error) {
	if l.id, err = l.field("id").text(); err != nil {
		return err
	}
	if l.id == "" {
		return invalid(l.field("id").path, "missing; networks and other links name a link by it")
	}
	if other := c.byID[l.id]; other != nil {
		return invalid(l.field("id").path, "%s has the same id", other.path)
	}
	typ, err := l.field("type").text()
	switch {
	case err != nil:
		return err
	case typ == "bond":
		l.kind = bond
	case typ == "vlan":
		l.kind = vlan
	case typ != "" && !slices.Contains(physical, typ):
		return invalid(l.field("type").path, "not a type of link; there are bond, vlan and, for a NIC, %s", strings.Join(physical, ", "))
	}
	return nil
}

// describe reads what the link says of itself alone.
func (c *conversion) describe(l *link) (err error) {
	if l.device.MTU, err = l.field("mtu").number(minMTU, maxMTU); err != nil {
		return err
	}
	mac, err := l.mac()
	if err != nil {
		return err
	}
	switch {
	case l.kind != ethernet:
		l.device.MACAddress = quoted(mac)
	case mac == "" && l.field("name").absent():
		return invalid(l.field("ethernet_mac_address").path, "missing; the machine knows a NIC by it")
	case mac != "":
		if other, ok := c.macs[mac]; ok {
			return invalid(l.field("ethernet_mac_address").path, "%s has the same address", other)
		}
		c.macs[mac] = l.path
		l.device.Match = &match{MACAddress: quoted(mac)}
	}
	if l.kind == bond {
		l.device.Parameters, err = bondParameters(l.value)
	}
	return err
}

func (l *link) mac() (boot.MAC, error) {
	key := "ethernet_mac_address"
	if l.kind == vlan {
		key = "vlan_mac_address"
	}
	text, err := l.field(key).text()
	if text == "" || err != nil {
		return "", err
	}
	mac, err := boot.ParseMAC(text)
	if err != nil {
		return "", invalid(l.field(key).path, "not the MAC address of one NIC, such as 52:54:00:aa:bb:01")
	}
	return mac, nil
}

var (
	// interfaceName is what Linux accepts as an interface's name (IFNAMSIZ), without
	// what shells and configuration files would trip over.
	interfaceName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,14}$`)
	// nicName is what kernels and udev call NICs (systemd.net-naming-scheme). Other
	// ids, such as OpenStack's tap1234abcd-56, are no names that a NIC should have.
	nicName = regexp.MustCompile(`^(?:(?:eth|em|ib|lan|net|nic|mgmt)[0-9]+|p[0-9]+p[0-9]+|(?:en|ib)(?:[bcdosv][0-9]+|(?:P[0-9]+)?p[0-9]+s[0-9]+|x[0-9a-f]{12}))[a-z0-9._-]*$`)
	// deviceID is what may stand for a NIC that keeps its name.
	deviceID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// name chooses the link's name in the output. A NIC is given that name only where
// it is one; a bond or VLAN has no other.
func (c *conversion) name(l *link) error {
	said, err := l.field("name").text()
	if err != nil {
		return err
	}
	if said != "" && !interfaceName.MatchString(said) {
		return invalid(l.field("name").path, "not the name of an interface: up to 15 letters, digits, '.', '_' and '-'")
	}
	switch {
	case said != "":
		l.name = said
	case l.kind == ethernet && deviceID.MatchString(l.id), interfaceName.MatchString(l.id):
		l.name = l.id
	default:
		l.name = c.invent(l.kind)
	}
	if l.device.Match != nil && (said != "" || len(l.name) <= 15 && nicName.MatchString(l.name)) {
		l.device.SetName = quoted(l.name)
	}
	if other, ok := c.taken[l.name]; ok {
		return invalid(l.path, "would have the name of %s", other)
	}
	c.taken[l.name] = l.path
	return nil
}

// invent returns a name that no link before has.
func (c *conversion) invent(k kind) string {
	for i := 0; ; i++ {
		name := [...]string{"link", "bond", "vlan"}[k] + strconv.Itoa(i)
		if c.taken[name] == "" {
			return name
		}
	}
}

// join makes a bond of its links.
func (c *conversion) join(l *link) error {
	if l.kind != bond {
		return nil
	}
	members, err := l.field("bond_links").list(maxLinks)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return invalid(l.field("bond_links").path, "a bond needs at least one link")
	}
	for _, m := range members {
		nic, err := c.find(m)
		switch {
		case err != nil:
			return err
		case nic.kind != ethernet:
			return invalid(m.path, "names no NIC, and only NICs can be members of a bond")
		case nic.bondOf != "":
			return invalid(m.path, "is a member of %s already", nic.bondOf)
		}
		nic.bondOf = l.path
		l.device.Interfaces = append(l.device.Interfaces, quoted(nic.name))
	}
	return nil
}

// tag puts a VLAN on its link.
func (c *conversion) tag(l *link) (err error) {
	if l.kind != vlan {
		return nil
	}
	id := l.field("vlan_id")
	if l.device.ID, err = id.number(1, 4094); err != nil {
		return err
	}
	if l.device.ID == 0 {
		return invalid(id.path, "missing")
	}
	below, err := c.find(l.field("vlan_link"))
	switch {
	case err != nil:
		return err
	case below.kind == vlan:
		return invalid(l.field("vlan_link").path, "names a VLAN; a NIC or a bond belongs here")
	case below.bondOf != "":
		return invalid(l.field("vlan_link").path, "names a member of %s; name the bond", below.bondOf)
	}
	l.device.Link = quoted(below.name)
	return nil
}

// find returns the link that a value names.
func (c *conversion) find(v value) (*link, error) {
	id, err := v.text()
	if err != nil {
		return nil, err
	}
	if l := c.byID[id]; l != nil {
		return l, nil
	}
	return nil, invalid(v.path, "names none of the links")
}

// parameter is one of a bond's, and what it is called in version 2.
type parameter struct {
	key   string
	words []string // that it may be; none for a number
	most  int
	text  bool // a number that version 2 wants as a string
}

// bondModes are in the order of their numbers (Linux, bonding.txt).
var bondModes = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}

var parameters = map[string]parameter{
	"bond_mode":             {key: "mode", words: bondModes},
	"bond_xmit_hash_policy": {key: "transmit-hash-policy", words: []string{"layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4"}},
	"bond_lacp_rate":        {key: "lacp-rate", words: []string{"slow", "fast"}},
	"bond_ad_select":        {key: "ad-select", words: []string{"stable", "bandwidth", "count"}},
	"bond_miimon":           {key: "mii-monitor-interval", most: 60000, text: true},
	"bond_updelay":          {key: "up-delay", most: 600000},
	"bond_downdelay":        {key: "down-delay", most: 600000},
	"bond_min_links":        {key: "min-links", most: maxLinks},
}

func bondParameters(l value) (map[string]any, error) {
	out := map[string]any{}
	for i := 0; i+1 < len(l.node.Content); i += 2 {
		key := l.node.Content[i].Value
		p, known := parameters[key]
		v := l.field(key)
		switch {
		case !strings.HasPrefix(key, "bond_") || key == "bond_links" || v.absent():
			continue
		case !known:
			return nil, invalid(join(l.path, keyName(key)), "not a setting of a bond that is converted")
		}
		set, err := p.read(v)
		if err != nil {
			return nil, err
		}
		out[p.key] = set
	}
	return out, nil
}

func (p parameter) read(v value) (any, error) {
	if p.words == nil {
		n, err := v.number(0, p.most)
		if p.text {
			return quoted(strconv.Itoa(n)), err
		}
		return n, err
	}
	text, err := v.text()
	if err != nil {
		return nil, err
	}
	for i, word := range p.words {
		if text == word || p.key == "mode" && text == fmt.Sprint(i) {
			return quoted(word), nil
		}
	}
	return nil, invalid(v.path, "must be one of %s", strings.Join(p.words, ", "))
}
