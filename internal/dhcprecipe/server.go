package dhcprecipe

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Ports where a boot server is looked for when its URL names none.
const (
	portHTTP  = 8082
	portHTTPS = 8443
)

// Server is a boot server as machines reach it.
type Server struct {
	// Scheme is http or https.
	Scheme string
	// Host is a literal address: firmware asks no DNS before DHCP told it one.
	Host netip.Addr
	Port uint16
}

// ParseServer reads the address or URL of a boot server, such as 10.0.0.2,
// 10.0.0.2:8082, [fd00::2]:8082 or https://10.0.0.2:8443. scheme, which may be
// empty, is that of an address without one: http, when it is empty too. Without a
// port it is 8082 for http and 8443 for https. It returns boot.ErrInvalid for
// anything that no machine on a network could reach.
func ParseServer(s, scheme string) (Server, error) {
	text := s
	if addr, err := netip.ParseAddr(s); err == nil && addr.Is6() {
		text = "[" + s + "]"
	}
	if !strings.Contains(text, "://") {
		text = orDefault(scheme, "http") + "://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return Server{}, fmt.Errorf("%w: boot server %q is neither an address such as 10.0.0.2 nor a URL such as http://10.0.0.2:8082", boot.ErrInvalid, clip(s))
	}
	server, err := fromURL(u, scheme)
	if err != nil {
		return Server{}, fmt.Errorf("%w: boot server %q: %w", boot.ErrInvalid, clip(s), err)
	}
	return server, nil
}

func fromURL(u *url.URL, scheme string) (Server, error) {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return Server{}, fmt.Errorf("the scheme %q is neither http nor https", clip(u.Scheme))
	case scheme != "" && scheme != u.Scheme:
		return Server{}, fmt.Errorf("it says %s, and the scheme asked for is %q", u.Scheme, clip(scheme))
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return Server{}, fmt.Errorf("it may have a scheme, an address and a port, nothing else")
	case strings.Trim(u.Path, "/") != "" && u.Path != "/httpboot":
		return Server{}, fmt.Errorf("leave the path out: the operator's paths are added")
	}
	host, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return Server{}, fmt.Errorf("%q is no literal IP address; firmware has no DNS server yet when it reads the URL", clip(u.Hostname()))
	}
	server := Server{Scheme: u.Scheme, Host: host.Unmap(), Port: portHTTP}
	if u.Scheme == "https" {
		server.Port = portHTTPS
	}
	if u.Port() != "" {
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return Server{}, fmt.Errorf("%q is no port", clip(u.Port()))
		}
		server.Port = uint16(port)
	}
	return server, server.check()
}

// check says why machines could not reach the server.
func (s Server) check() error {
	switch {
	case s.Scheme != "http" && s.Scheme != "https":
		return fmt.Errorf("the scheme %q is neither http nor https", clip(s.Scheme))
	case s.Port == 0:
		return fmt.Errorf("the port is missing")
	}
	return reachable(s.Host)
}

// reachable says why machines could not reach an address.
func reachable(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return fmt.Errorf("the address is missing")
	case a.Zone() != "", a.IsLinkLocalUnicast():
		return fmt.Errorf("%s means something only on one link; use an address that all machines reach", clip(a.String()))
	case a.Is4In6():
		return fmt.Errorf("%s is an IPv4 address in an IPv6 one; write it as IPv4", a)
	case !a.IsGlobalUnicast():
		return fmt.Errorf("%s is not the address of a host on a network", a)
	}
	return nil
}

// String returns the server's URL, without a slash at the end.
func (s Server) String() string {
	return s.Scheme + "://" + net.JoinHostPort(s.Host.String(), strconv.Itoa(int(s.Port)))
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// clip bounds what an error repeats of its input.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
