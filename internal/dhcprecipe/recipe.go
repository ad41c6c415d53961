// Package dhcprecipe writes configurations for DHCP servers that people already
// run, so that machines boot from a boot-operator. It is text only: facts go in,
// a complete and commented configuration comes out.
//
// Whatever reaches the text is an address, a number, or a name that was checked
// against the few characters it may have: no value can add a line, end a string
// or open a comment in any of the languages.
package dhcprecipe

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Format is the language of a DHCP server's configuration.
type Format string

// The formats.
const (
	Dnsmasq  Format = "dnsmasq"
	Kea      Format = "kea"
	ISC      Format = "isc"
	CoreDHCP Format = "coredhcp"
	MikroTik Format = "mikrotik"
)

// Formats returns all formats.
func Formats() []Format { return []Format{Dnsmasq, Kea, ISC, CoreDHCP, MikroTik} }

// BothFamilies reports whether one configuration of this format serves IPv4 and
// IPv6; the others need a file for each.
func (f Format) BothFamilies() bool { return f == Dnsmasq || f == MikroTik }

// Options are the facts of a configuration.
type Options struct {
	Format Format
	// V4 and V6 are the networks to serve, at least one of them; both only where
	// the format has BothFamilies.
	V4, V6 *Network
	// Interface is the DHCP server's interface to the machines; eth0 when empty.
	Interface string
	// LeaseTime is how long a lease lasts, at least two minutes; an hour when zero.
	LeaseTime time.Duration
	// Files are what the operator's TFTP server has.
	Files BootFiles
	// Reserve asks for reservations, of Machines.
	Reserve  bool
	Machines []Machine
}

// Network is one address family of the machines' network.
type Network struct {
	// Server is the boot server as machines reach it.
	Server Server
	// TFTP is where the operator serves iPXE; the boot server's host when zero.
	TFTP netip.Addr
	// Subnet is the prefix that the machines are in. When zero it is the /24 or
	// /64 around the server.
	Subnet netip.Prefix
	// Range is what is leased to machines without a reservation, a part of Subnet
	// without the server, the router and the like; chosen when zero.
	Range Range
	// Router is the machines' default gateway; none is told when zero. IPv6 has it
	// from router advertisements instead (RFC 4861), so it must be zero there.
	Router netip.Addr
	// DNS are the resolvers that machines are told.
	DNS []netip.Addr
}

// BootFiles are names on the operator's TFTP server; a name that is empty is
// replaced by the usual one.
type BootFiles struct {
	BIOS  string // client architecture 0; undionly.kpxe
	AMD64 string // client architectures 7 and 9; snponly.efi
	ARM64 string // client architecture 11; snponly-arm64.efi
}

// Machine is what one object of the cluster says of a machine.
type Machine struct {
	// Name says which object, for comments.
	Name  string
	MACs  []boot.MAC
	Addrs []netip.Addr
}

//go:embed templates/*.tmpl
var templates embed.FS

var parsed = template.Must(template.New("").Funcs(template.FuncMap{
	"seconds":        func(d time.Duration) int { return int(d / time.Second) },
	"join":           join,
	"upperMAC":       func(m boot.MAC) string { return strings.ToUpper(string(m)) },
	"hostName":       hostName,
	"hexVendorClass": hexVendorClass,
	"hexColons":      hexColons,
}).ParseFS(templates, "templates/*.tmpl"))

// Print writes the configuration to w. It returns boot.ErrInvalid, naming all
// that is wrong, when the options make no configuration; nothing is written then.
func Print(w io.Writer, o Options) error {
	v, err := complete(o)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := parsed.ExecuteTemplate(&out, v.template(), v); err != nil {
		return fmt.Errorf("writing a configuration for %s: %w", o.Format, err)
	}
	_, err = w.Write(out.Bytes())
	return err
}

// template is the name of the template that makes this configuration.
func (v *view) template() string {
	name := string(v.Format)
	switch {
	case v.Format.BothFamilies():
	case v.V6 != nil:
		name += "6"
	default:
		name += "4"
	}
	return name + ".tmpl"
}

// join writes addresses with sep between them.
func join(addrs []netip.Addr, sep string) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, sep)
}

// hexVendorClass is the data of DHCPv6 option 16 (RFC 8415 section 21.16) that
// EDK2 wants in an answer: Intel's enterprise number 343, a length and HTTPClient.
func hexVendorClass() string {
	data := slices.Concat([]byte{0, 0, 1, 0x57, 0, 10}, []byte("HTTPClient"))
	return strings.ToUpper(fmt.Sprintf("%x", data))
}

// hexColons puts colons between the bytes of hexadecimal digits.
func hexColons(digits string) string {
	var pairs []string
	for pair := range slices.Chunk([]byte(digits), 2) {
		pairs = append(pairs, string(pair))
	}
	return strings.Join(pairs, ":")
}

// hostName makes a MAC into a word that names a reservation.
func hostName(mac boot.MAC) string { return "m" + strings.ReplaceAll(string(mac), ":", "") }
