package networkdata

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// networkType is how a network gives the machine its address.
type networkType struct {
	ipv6, static, dhcp bool
}

// networkTypes are Nova's, and the other names that cloud-init knows.
var networkTypes = map[string]networkType{
	"ipv4":                  {static: true},
	"static":                {static: true},
	"ipv4_dhcp":             {dhcp: true},
	"dhcp4":                 {dhcp: true},
	"ipv6":                  {ipv6: true, static: true},
	"static6":               {ipv6: true, static: true},
	"ipv6_dhcp":             {ipv6: true, dhcp: true},
	"dhcp6":                 {ipv6: true, dhcp: true},
	"ipv6_dhcpv6-stateful":  {ipv6: true, dhcp: true},
	"ipv6_dhcpv6-stateless": {ipv6: true, dhcp: true},
	"ipv6_slaac":            {ipv6: true},
}

// networks adds all networks to their links and says how many there are.
func (c *conversion) networks(all value) (int, error) {
	items, err := all.items(maxNetworks)
	if err != nil {
		return 0, err
	}
	for _, n := range items {
		l, err := c.find(n.field("link"))
		switch {
		case err != nil:
			return 0, err
		case l.bondOf != "":
			return 0, invalid(n.field("link").path, "names a member of %s; name the bond", l.bondOf)
		}
		if err := l.device.connect(n); err != nil {
			return 0, err
		}
	}
	return len(items), nil
}

// connect adds a network to a device.
func (d *device) connect(n value) error {
	typ, err := n.field("type").text()
	if err != nil {
		return err
	}
	t, ok := networkTypes[typ]
	if !ok {
		return invalid(n.field("type").path, "must be one of ipv4, ipv4_dhcp, ipv6, ipv6_dhcp, ipv6_slaac, ipv6_dhcpv6-stateful and ipv6_dhcpv6-stateless")
	}
	if err := d.address(n, t); err != nil {
		return err
	}
	if err := d.gateway(n, t); err != nil {
		return err
	}
	routes, err := n.field("routes").items(maxRoutes)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if err := d.route(r, t); err != nil {
			return err
		}
	}
	return d.resolve(n)
}

func (d *device) address(n value, t networkType) error {
	switch {
	case t.ipv6 && !t.static:
		d.DHCP6 = d.DHCP6 || t.dhcp
		d.AcceptRA = new(true)
	case t.dhcp:
		d.DHCP4 = true
	case t.static:
		p, err := prefix(n.field("ip_address"), n.field("netmask"), t.ipv6)
		if err != nil {
			return err
		}
		if a := p.Addr(); a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			return invalid(n.field("ip_address").path, "not the address of one machine")
		}
		add(&d.Addresses, p.String())
		if t.ipv6 && d.AcceptRA == nil { // as cloud-init itself reads it
			d.AcceptRA = new(false)
		}
	}
	return nil
}

// gateway adds the default route of a network that names only a gateway.
func (d *device) gateway(n value, t networkType) error {
	v := n.field("gateway")
	if v.absent() {
		return nil
	}
	via, err := address(v, t.ipv6)
	if err != nil {
		return err
	}
	to := "0.0.0.0/0"
	if t.ipv6 {
		to = "::/0"
	}
	d.addRoute(route{To: quoted(to), Via: quoted(via.String())})
	return nil
}

func (d *device) route(r value, t networkType) error {
	to, err := prefix(r.field("network"), r.field("netmask"), t.ipv6)
	if err != nil {
		return err
	}
	via, err := address(r.field("gateway"), t.ipv6)
	if err != nil {
		return err
	}
	metric, err := r.field("metric").number(0, 1<<31-1)
	if err != nil {
		return err
	}
	d.addRoute(route{To: quoted(to.Masked().String()), Via: quoted(via.String()), Metric: metric})
	return d.resolve(r)
}

// addRoute adds a route once. A machine's IPv6 default route is written as
// gateway6 where it has an address: cloud-init 22.4, which is Debian 12's, makes
// ::/64 of a route to ::/0.
func (d *device) addRoute(r route) {
	static := slices.ContainsFunc(d.Addresses, func(a quoted) bool { return strings.Contains(string(a), ":") })
	switch {
	case slices.Contains(d.Routes, r):
	case r.To == "::/0" && r.Metric == 0 && static && (d.Gateway6 == "" || d.Gateway6 == r.Via):
		d.Gateway6 = r.Via
	default:
		d.Routes = append(d.Routes, r)
	}
}

// resolve adds the name servers that a network or a route names.
func (d *device) resolve(v value) error {
	addresses, err := nameservers(v.field("services"))
	if err != nil {
		return err
	}
	direct, err := v.field("dns_nameservers").list(maxNameservers)
	if err != nil {
		return err
	}
	for _, item := range direct {
		a, err := anyAddress(item)
		if err != nil {
			return err
		}
		addresses = append(addresses, a.String())
	}
	search, err := searchDomains(v.field("dns_search"))
	if err != nil {
		return err
	}
	d.nameservers(addresses, search)
	return nil
}

func (d *device) nameservers(addresses, search []string) {
	if len(addresses)+len(search) == 0 {
		return
	}
	if d.Nameservers == nil {
		d.Nameservers = &nameserverList{}
	}
	for _, a := range addresses {
		add(&d.Nameservers.Addresses, a)
	}
	for _, s := range search {
		add(&d.Nameservers.Search, s)
	}
}

func add(to *[]quoted, s string) {
	if !slices.Contains(*to, quoted(s)) {
		*to = append(*to, quoted(s))
	}
}

// services gives every link that has a network the name servers that are for all:
// version 2 knows them only by link.
func (c *conversion) services(all value) error {
	addresses, err := nameservers(all)
	if err != nil {
		return err
	}
	for _, l := range c.order {
		if d := &l.device; len(d.Addresses) > 0 || d.DHCP4 || d.DHCP6 || d.AcceptRA != nil {
			d.nameservers(addresses, nil)
		}
	}
	return nil
}

func nameservers(all value) ([]string, error) {
	items, err := all.items(maxNameservers)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range items {
		typ, err := s.field("type").text()
		if err != nil {
			return nil, err
		}
		if typ != "dns" {
			return nil, invalid(s.field("type").path, "only services of type dns are converted")
		}
		a, err := anyAddress(s.field("address"))
		if err != nil {
			return nil, err
		}
		out = append(out, a.String())
	}
	return out, nil
}

var domain = regexp.MustCompile(`^[A-Za-z0-9_-]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_-])?\.?$`)

func searchDomains(v value) ([]string, error) {
	items, err := v.list(maxNameservers)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, item := range items {
		text, err := item.text()
		if err != nil {
			return nil, err
		}
		if !domain.MatchString(text) {
			return nil, invalid(item.path, "not a domain such as example.com")
		}
		out = append(out, text)
	}
	return out, nil
}

func anyAddress(v value) (netip.Addr, error) {
	text, err := v.text()
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := boot.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, invalid(v.path, "not an IP address such as 10.0.0.5 or 2001:db8::5")
	}
	return a, nil
}

// address returns the address of one machine of this family.
func address(v value, ipv6 bool) (netip.Addr, error) {
	a, err := anyAddress(v)
	if err == nil && a.Is4() == ipv6 {
		err = invalid(v.path, "of the other family than its network: %s belongs here", family(ipv6))
	}
	return a, err
}

func family(ipv6 bool) string {
	if ipv6 {
		return "an IPv6 address"
	}
	return "an IPv4 address"
}

// prefix returns the address of v with its prefix length: after a slash, or in
// mask, as a number or as a netmask. Both must agree; only the unspecified
// address, which stands for everything, needs neither.
func prefix(v, mask value, ipv6 bool) (netip.Prefix, error) {
	text, err := v.text()
	if err != nil {
		return netip.Prefix{}, err
	}
	host, bits, found := strings.Cut(strings.TrimSpace(text), "/")
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.Is4() == ipv6 {
		return netip.Prefix{}, invalid(v.path, "%s belongs here", family(ipv6))
	}
	length := -1
	if found {
		if length = maskBits(bits, ipv6); length < 0 {
			return netip.Prefix{}, invalid(v.path, "what follows the slash is no prefix length")
		}
	}
	masked, err := maskOf(mask, ipv6)
	switch {
	case err != nil:
		return netip.Prefix{}, err
	case length >= 0 && masked >= 0 && length != masked:
		return netip.Prefix{}, invalid(mask.path, "says another prefix length than %s", v.path)
	case length < 0:
		length = masked
	}
	if length < 0 && a.IsUnspecified() {
		length = 0
	}
	if length < 0 {
		return netip.Prefix{}, invalid(mask.path, "missing, and %s has no prefix length", v.path)
	}
	return netip.PrefixFrom(a, length), nil
}

// maskOf returns the prefix length of a netmask, or -1 where there is none.
func maskOf(v value, ipv6 bool) (int, error) {
	text, err := v.text()
	if v.absent() || err != nil {
		return -1, err
	}
	bits := maskBits(strings.TrimPrefix(strings.TrimSpace(text), "/"), ipv6)
	if bits < 0 {
		return -1, invalid(v.path, "neither a prefix length nor a netmask of its family")
	}
	return bits, nil
}

// maskBits reads a prefix length or a netmask; it returns -1 for anything else.
func maskBits(s string, ipv6 bool) int {
	most := 32
	if ipv6 {
		most = 128
	}
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && int(n) <= most {
		return int(n)
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is4() == ipv6 || a.Zone() != "" {
		return -1
	}
	ones, ended := 0, false
	for _, b := range a.AsSlice() {
		for bit := 7; bit >= 0; bit-- {
			set := b>>bit&1 == 1
			if set && ended {
				return -1
			}
			ended = ended || !set
			if set {
				ones++
			}
		}
	}
	return ones
}
