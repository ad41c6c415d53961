package dhcprecipe

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	defaultInterface = "eth0"
	defaultLease     = time.Hour
	// minimumLease leaves a firmware time to boot and its OS to ask again.
	minimumLease = 2 * time.Minute
	maximumLease = 365 * 24 * time.Hour
)

// What a name may have: no space, quote, brace, comma or semicolon, and no line
// break, so that it is one word in every language that is written here.
var (
	interfaceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
	fileName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`)
)

// maxFileName is the field "file" of a BOOTP message with its final zero (RFC
// 2131 section 2).
const maxFileName = 127

// view is what a template is given: options that are complete and checked.
type view struct {
	Format    Format
	Interface string
	LeaseTime time.Duration
	Files     BootFiles
	Reserve   bool
	V4, V6    *networkView
}

// networkView is one family of a view.
type networkView struct {
	Network
	// DerivedSubnet: the subnet was guessed from the server's address.
	DerivedSubnet bool
	Reservations  []Reservation
	// Notes are reservations that could not be made, and why.
	Notes []string
}

// Servers are the boot server's URLs.
func (v *view) Servers() string {
	var urls []string
	for _, n := range v.networks() {
		urls = append(urls, n.Server.String())
	}
	return strings.Join(urls, " and ")
}

// Notes are those of all families, each once.
func (v *view) Notes() []string {
	var notes []string
	for _, n := range v.networks() {
		for _, note := range n.Notes {
			if !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	return notes
}

// Hosts are the reservations of all families, one for each MAC: dnsmasq reads the
// first line about a MAC and no other.
func (v *view) Hosts() []Reservation {
	var hosts []Reservation
	for _, n := range v.networks() {
		for _, r := range n.Reservations {
			i := slices.IndexFunc(hosts, func(h Reservation) bool { return h.MAC == r.MAC })
			if i < 0 {
				hosts = append(hosts, r)
				continue
			}
			hosts[i].Addrs = slices.Concat(hosts[i].Addrs, r.Addrs)
		}
	}
	return hosts
}

func (v *view) networks() []*networkView {
	return slices.DeleteFunc([]*networkView{v.V4, v.V6}, func(n *networkView) bool { return n == nil })
}

// HTTPBoot is the URL for UEFI HTTP Boot.
func (n *networkView) HTTPBoot() string { return n.Server.String() + "/httpboot" }

// Script is the URL of iPXE's first script.
func (n *networkView) Script() string { return n.Server.String() + "/boot.ipxe" }

// HTTPS reports whether machines are sent to a TLS server.
func (n *networkView) HTTPS() bool { return n.Server.Scheme == "https" }

// TFTPURL is the URL of a file on the operator's TFTP server (RFC 3617).
func (n *networkView) TFTPURL(file string) string {
	if n.TFTP.Is6() {
		return "tftp://[" + n.TFTP.String() + "]/" + file
	}
	return "tftp://" + n.TFTP.String() + "/" + file
}

// Netmask is the subnet's mask, of IPv4.
func (n *networkView) Netmask() string { return netmask(n.Subnet) }

// FreeRanges is the range without the reserved addresses, for servers that would
// lease those to others too.
func (n *networkView) FreeRanges() []Range { return n.Range.without(reservedAddrs(n.Reservations)) }

// FreeRange is the largest of FreeRanges.
func (n *networkView) FreeRange() Range {
	free, ok := largest(n.FreeRanges())
	if !ok {
		return n.Range
	}
	return free
}

// complete checks the options and fills in what they leave open. It returns
// boot.ErrInvalid, naming all that is wrong.
func complete(o Options) (*view, error) {
	v := &view{Format: o.Format, Interface: orDefault(o.Interface, defaultInterface), LeaseTime: o.LeaseTime, Reserve: o.Reserve}
	v.Files = BootFiles{
		BIOS:  orDefault(o.Files.BIOS, "undionly.kpxe"),
		AMD64: orDefault(o.Files.AMD64, "snponly.efi"),
		ARM64: orDefault(o.Files.ARM64, "snponly-arm64.efi"),
	}
	if v.LeaseTime == 0 {
		v.LeaseTime = defaultLease
	}
	errs := v.checkCommon(o)
	var err error
	if v.V4, err = completeNetwork(o.V4, o.Machines, false); err != nil {
		errs = append(errs, err)
	}
	if v.V6, err = completeNetwork(o.V6, o.Machines, true); err != nil {
		errs = append(errs, err)
	}
	if errs != nil {
		return nil, fmt.Errorf("%w: %w", boot.ErrInvalid, errors.Join(errs...))
	}
	return v, nil
}

func (v *view) checkCommon(o Options) []error {
	var errs []error
	if !slices.Contains(Formats(), o.Format) {
		errs = append(errs, fmt.Errorf("format %q is none of %v", clip(string(o.Format)), Formats()))
	}
	switch {
	case o.V4 == nil && o.V6 == nil:
		errs = append(errs, errors.New("no network to serve: give the boot server's address"))
	case o.V4 != nil && o.V6 != nil && !o.Format.BothFamilies():
		errs = append(errs, fmt.Errorf("%s has a file for each family: ask for one at a time", clip(string(o.Format))))
	}
	if !interfaceName.MatchString(v.Interface) {
		errs = append(errs, fmt.Errorf("interface %q is not a name such as eth0", clip(v.Interface)))
	}
	if v.LeaseTime < minimumLease || v.LeaseTime > maximumLease {
		errs = append(errs, fmt.Errorf("a lease of %s is not between %s and a year", v.LeaseTime, minimumLease))
	}
	for _, file := range []string{v.Files.BIOS, v.Files.AMD64, v.Files.ARM64} {
		if len(file) > maxFileName || !fileName.MatchString(file) {
			errs = append(errs, fmt.Errorf("boot file %q is not a name such as snponly.efi, of letters, digits, dots, hyphens and single slashes", clip(file)))
		}
	}
	return errs
}

// completeNetwork is complete for one family.
func completeNetwork(from *Network, machines []Machine, v6 bool) (*networkView, error) {
	if from == nil {
		return nil, nil
	}
	n := &networkView{Network: *from}
	if err := n.Server.check(); err != nil {
		return nil, fmt.Errorf("boot server: %w", err)
	}
	if !n.TFTP.IsValid() {
		n.TFTP = n.Server.Host
	}
	if !n.Subnet.IsValid() {
		bits := 24
		if v6 {
			bits = 64
		}
		n.Subnet, n.DerivedSubnet = netip.PrefixFrom(n.Server.Host, bits), true
	}
	n.Subnet = n.Subnet.Masked()
	if err := n.check(v6); err != nil {
		return nil, err
	}
	if err := n.completeRange(); err != nil {
		return nil, err
	}
	n.Reservations, n.Notes = reserve(machines, n)
	return n, nil
}

// check holds that the network is of one family and that all its addresses exist.
func (n *networkView) check(v6 bool) error {
	family := "IPv4"
	if v6 {
		family = "IPv6"
	}
	addrs := append([]netip.Addr{n.Server.Host, n.TFTP, n.Subnet.Addr()}, n.DNS...)
	for _, a := range []netip.Addr{n.Router, n.Range.First, n.Range.Last} {
		if a.IsValid() {
			addrs = append(addrs, a)
		}
	}
	for _, a := range addrs {
		if a.Is6() != v6 || a.Is4In6() {
			return fmt.Errorf("%s is not an %s address, as the boot server's %s is", a, family, n.Server.Host)
		}
	}
	for _, a := range append([]netip.Addr{n.TFTP}, n.DNS...) {
		if err := reachable(a); err != nil {
			return err
		}
	}
	switch {
	case v6 && n.Router.IsValid():
		return errors.New("an IPv6 router announces itself (RFC 4861 section 6.2): DHCPv6 has no option for it")
	case n.Router.IsValid() && !n.Subnet.Contains(n.Router):
		return fmt.Errorf("the router %s is outside the subnet %s", n.Router, n.Subnet)
	case !v6 && !n.Router.IsValid() && !n.Subnet.Contains(n.Server.Host):
		return fmt.Errorf("the boot server %s is outside the subnet %s: say which router leads to it", n.Server.Host, n.Subnet)
	}
	return nil
}

// completeRange checks the range, or chooses one beside the addresses in use.
func (n *networkView) completeRange() error {
	if n.Range == (Range{}) {
		r, ok := chooseRange(n.Subnet, n.taken())
		if !ok {
			return fmt.Errorf("the subnet %s is too small to choose a range in: give the range", n.Subnet)
		}
		n.Range = r
		return nil
	}
	if n.Range.Last.Less(n.Range.First) {
		return fmt.Errorf("the range %s ends before it begins", n.Range)
	}
	if !n.Subnet.Contains(n.Range.First) || !n.Subnet.Contains(n.Range.Last) {
		return fmt.Errorf("the range %s is not inside the subnet %s", n.Range, n.Subnet)
	}
	for _, a := range n.taken() {
		if n.Range.Contains(a) {
			return fmt.Errorf("the range %s has %s in it, which is in use or cannot be leased", n.Range, a)
		}
	}
	return nil
}

// taken are the addresses that no machine may get.
func (n *networkView) taken() []netip.Addr {
	taken := append([]netip.Addr{n.Server.Host, n.TFTP, n.Subnet.Addr()}, n.DNS...)
	if n.Router.IsValid() {
		taken = append(taken, n.Router)
	}
	if n.Subnet.Addr().Is4() {
		taken = append(taken, lastOf(n.Subnet))
	}
	return taken
}
