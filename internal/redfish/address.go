package redfish

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// maxAddress bounds what ParseAddress reads, in bytes.
const maxAddress = 1024

// Address is a BMC's address as BareMetalHost.spec.bmc.address writes it.
type Address struct {
	// Scheme is as it was written, in lower case, such as idrac-redfish+https.
	Scheme string
	// TLS says whether the BMC is spoken to over HTTPS.
	TLS bool
	// Host is host:port; the port is there always. Names are in lower case and IP
	// addresses canonical, so that one spelling is one BMC.
	Host string
	// SystemPath is the path of the ComputerSystem, such as /redfish/v1/Systems/1;
	// empty where the address names none.
	SystemPath string
}

// URL is the root of the service, such as https://10.0.0.5:443.
func (a Address) URL() string {
	if a.TLS {
		return "https://" + a.Host
	}
	return "http://" + a.Host
}

// String is the address as ParseAddress reads it.
func (a Address) String() string { return a.Scheme + "://" + a.Host + a.SystemPath }

// drivers are the schemes of Metal3 that speak Redfish, without +http or +https.
// What else they say there, how a machine is booted, is found out from the BMC here.
var drivers = []string{
	"redfish", "redfish-virtualmedia", "redfish-uefihttp", "idrac-redfish", "idrac-virtualmedia", "ilo5-redfish", "ilo5-virtualmedia",
}

const rightAddress = "write one such as redfish+https://10.0.0.5/redfish/v1/Systems/1"

// ParseAddress reads a BMC's address: one of Metal3's Redfish drivers, or a plain
// http or https URL, with the path of the ComputerSystem or without one. It
// returns boot.ErrInvalid, with what would be right, for everything else. The
// error never repeats user information.
func ParseAddress(s string) (Address, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxAddress {
		return Address{}, invalid("it has more than %d characters", maxAddress)
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return Address{}, invalid("it has no scheme; %s", rightAddress)
	}
	a := Address{Scheme: strings.ToLower(scheme)}
	if err := a.readScheme(); err != nil {
		return Address{}, err
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	var err error
	if a.Host, err = parseHost(authority, a.TLS); err != nil {
		return Address{}, err
	}
	a.SystemPath, err = parseSystemPath(path)
	if err != nil {
		return Address{}, err
	}
	return a, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: BMC address: %s", boot.ErrInvalid, fmt.Sprintf(format, args...))
}

func (a *Address) readScheme() error {
	a.TLS = true
	switch a.Scheme {
	case "https":
		return nil
	case "http":
		a.TLS = false
		return nil
	}
	driver, transport, plus := strings.Cut(a.Scheme, "+")
	switch {
	case !slices.Contains(drivers, driver):
		return invalid("%q is not a Redfish driver; %s", clip(a.Scheme), rightAddress)
	case plus && transport != "http" && transport != "https":
		return invalid("%q is not a way to reach a BMC; write %s+https or %s+http", clip(a.Scheme), driver, driver)
	}
	a.TLS = transport != "http"
	return nil
}

// parseHost reads the authority of a URL and returns host:port.
func parseHost(s string, secure bool) (string, error) {
	if strings.Contains(s, "@") {
		return "", invalid("it holds a user name or password; they belong in the Secret that credentialsName names")
	}
	if strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "[") {
		return "", invalid("%q: an IPv6 address is written in brackets, such as [2001:db8::5]", clip(s))
	}
	host, port := s, "80"
	if secure {
		port = "443"
	}
	if i := strings.LastIndex(s, ":"); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", invalid("%q is not a port from 1 to 65535", clip(port))
	}
	name, err := parseHostName(host)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(name, strconv.FormatUint(n, 10)), nil
}

func parseHostName(s string) (string, error) {
	inner, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		inner = strings.TrimSuffix(inner, "]")
	}
	ip, err := netip.ParseAddr(inner)
	switch {
	case err == nil && ip.Zone() != "":
		return "", invalid("%q has a zone, which means something on one machine only", clip(s))
	case err == nil && ip.Is6() != bracketed:
		return "", invalid("%q: IPv6 addresses, and only they, are written in brackets, such as [2001:db8::5]", clip(s))
	case err == nil && (ip.IsUnspecified() || ip.IsMulticast()):
		return "", invalid("%q is not the address of one BMC", clip(s))
	case err == nil:
		return boot.CanonicalAddr(ip).String(), nil
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if name == "" || len(name) > 253 || !hostName(name) {
		return "", invalid("%q is not a host; %s", clip(s), rightAddress)
	}
	return name, nil
}

// hostName says whether s is a DNS name (RFC 1123), underscores allowed. A name
// whose last label is a number would be read as an IPv4 address by some.
func hostName(s string) bool {
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

const pathCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/"

func parseSystemPath(s string) (string, error) {
	path := strings.TrimRight(s, "/")
	switch {
	case path == "":
		return "", nil
	case strings.ContainsAny(path, "?#"):
		return "", invalid("it has a query or a fragment; end it with the path of the system")
	case !strings.HasPrefix(path, "/redfish/"):
		return "", invalid("the path %q is not that of a system, such as /redfish/v1/Systems/1", clip(path))
	case strings.Trim(path, pathCharacters) != "" || !plainSegments(path):
		return "", invalid("the path %q holds characters or segments that no system has", clip(path))
	}
	return path, nil
}

// plainSegments says that no segment of an absolute path is empty or a dot segment.
func plainSegments(path string) bool {
	for _, s := range strings.Split(strings.TrimSuffix(path[1:], "/"), "/") {
		if s == "" || s == "." || s == ".." {
			return false
		}
	}
	return true
}

// pathOf returns the path and query of a reference that the BMC made: an
// @odata.id, the target of an action, a Location. It returns ErrLeavesHost for
// everything that is not a plain path on this BMC.
func (a Address) pathOf(ref string) (string, error) {
	ref = strings.TrimPrefix(ref, a.URL())
	if len(ref) > maxAddress || !strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, "//") || strings.Contains(ref, `\`) {
		return "", fmt.Errorf("%w: %q is not a path on it", ErrLeavesHost, clip(ref))
	}
	for _, c := range []byte(ref) {
		if c <= ' ' || c >= 0x7f {
			return "", fmt.Errorf("%w: %q holds characters that no path has", ErrLeavesHost, clip(ref))
		}
	}
	u, err := url.Parse(ref)
	if err != nil || u.Host != "" || u.Scheme != "" || u.User != nil || u.Path == "/" || !plainSegments(u.Path) {
		return "", fmt.Errorf("%w: %q is not a plain path", ErrLeavesHost, clip(ref))
	}
	ref, _, _ = strings.Cut(ref, "#")
	return ref, nil
}

// clip bounds what an error repeats of text that others wrote, and keeps it on
// one line.
func clip(s string) string { return clipTo(s, 120) }

func clipTo(s string, most int) string {
	cut := len(s) > most
	if cut {
		s = s[:most]
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if cut {
		s += "…"
	}
	return s
}
