package artifact

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	userAgent    = "boot-operator"
	maxRedirects = 5
	// relayPath marks a request for a token, see relayRealm.
	relayPath = "/.boot-operator-token-realm/"
)

// guard is the transport of all requests. A request to a registry that the
// operator named goes out as it is. Where a registry sends us (redirects, and
// the realm of its tokens) is the registry's word only: such a request never
// reaches this machine or its link, whatever a name resolves to.
type guard struct {
	// trusted dials anything; strict refuses by the address it resolved to.
	trusted, strict *http.Transport
	// named are the hosts of the operator's settings.
	named map[string]bool
	// redirects are hosts that a redirect may lead to in spite of their address.
	redirects map[string]bool
}

func newHTTPClient(o Options, allow *allowlist) (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if len(o.CABundle) > 0 && !roots.AppendCertsFromPEM(o.CABundle) {
		return nil, fmt.Errorf("%w: the CA bundle holds no PEM certificate", ErrInvalidReference)
	}
	g := &guard{
		trusted: newTransport(roots, nil), strict: newTransport(roots, refuseInternal),
		named: namedHosts(o, allow), redirects: map[string]bool{},
	}
	g.trusted.Proxy = http.ProxyFromEnvironment
	for _, h := range o.RedirectHosts {
		g.redirects[strings.ToLower(h)] = true
	}
	return &http.Client{Transport: g, CheckRedirect: checkRedirect}, nil
}

func newTransport(roots *x509.CertPool, control func(network, address string, c syscall.RawConn) error) *http.Transport {
	d := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second, Control: control}
	return &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		// What is stored is what the registry stores: nothing is unpacked.
		DisableCompression: true,
	}
}

// namedHosts are the hosts that the settings name, as a URL names them.
func namedHosts(o Options, allow *allowlist) map[string]bool {
	named := map[string]bool{}
	add := func(h string) {
		if h == dockerHub {
			h = dockerHubHost
		}
		named[h] = true
	}
	for _, s := range allow.scopes {
		add(s.host)
	}
	for h := range allow.plain {
		add(h)
	}
	for h := range allow.urls {
		add(h)
	}
	for _, to := range o.Mirrors {
		for _, t := range to {
			if sc, err := parseScope(t); err == nil {
				add(sc.host)
			}
		}
	}
	return named
}

// RoundTrip sends a request by the transport that fits who asked for it.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasPrefix(req.URL.Path, relayPath) {
		return g.token(req)
	}
	origin := req
	for origin.Response != nil && origin.Response.Request != nil {
		origin = origin.Response.Request
	}
	own := origin == req || (origin.URL.Scheme == req.URL.Scheme && dialName(origin.URL) == dialName(req.URL))
	if req != origin {
		req = req.Clone(req.Context())
		req.Header.Del("Referer")
	}
	resp, err := g.send(req, own && g.isNamed(origin.URL))
	if err == nil && resp.StatusCode == http.StatusUnauthorized && own {
		relayRealm(resp)
	}
	return resp, err
}

func (g *guard) isNamed(u *url.URL) bool {
	h, err := urlHost(u)
	if h == dockerHub {
		h = dockerHubHost
	}
	return err == nil && g.named[h]
}

func (g *guard) send(req *http.Request, trusted bool) (*http.Response, error) {
	if trusted || g.redirects[dialName(req.URL)] {
		return g.trusted.RoundTrip(req)
	}
	if proxy, err := http.ProxyFromEnvironment(req); err == nil && proxy != nil {
		// The proxy resolves the name; all that can be told here is what the
		// name itself says.
		if err := refuseInternalName(req.URL.Hostname()); err != nil {
			return nil, err
		}
		return g.trusted.RoundTrip(req)
	}
	return g.strict.RoundTrip(req)
}

var realmParameter = regexp.MustCompile(`(?i)(\brealm=")([^"]*)(")`)

// relayRealm renames the realm of a bearer challenge to a path on the registry
// that token translates back. oras-go refuses realms with a private address
// on another host, which is where registries in private networks have them;
// our own rule, in send, refuses only this machine and its link.
func relayRealm(resp *http.Response) {
	c := resp.Header.Get("Www-Authenticate")
	m := realmParameter.FindStringSubmatchIndex(c)
	if m == nil || !strings.HasPrefix(strings.ToLower(strings.TrimSpace(c)), "bearer") {
		return
	}
	u := resp.Request.URL
	relay := u.Scheme + "://" + u.Host + relayPath + base64.RawURLEncoding.EncodeToString([]byte(c[m[4]:m[5]]))
	resp.Header.Set("Www-Authenticate", c[:m[4]]+relay+c[m[5]:])
}

// token sends a request for a token to the realm that the registry named.
func (g *guard) token(req *http.Request) (*http.Response, error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(req.URL.Path, relayPath))
	if err != nil {
		return nil, fmt.Errorf("reading the realm of a token: %w", err)
	}
	realm, err := url.Parse(string(b))
	if err != nil || realm.Host == "" || (realm.Scheme != "https" && realm.Scheme != "http") {
		return nil, fmt.Errorf("the registry names %q as the place for tokens, which is not a URL", clip(string(b)))
	}
	if req.URL.Scheme == "https" && realm.Scheme == "http" {
		return nil, fmt.Errorf("%w: the registry wants credentials sent without encryption, to %s", ErrNotAllowed, clip(realm.Host))
	}
	own := strings.EqualFold(realm.Hostname(), req.URL.Hostname()) && g.isNamed(req.URL)
	out := req.Clone(req.Context())
	q := realm.Query()
	for k, v := range req.URL.Query() {
		q[k] = append(q[k], v...)
	}
	realm.User, realm.Fragment, realm.RawQuery = nil, "", q.Encode()
	out.URL, out.Host = realm, ""
	resp, err := g.send(out, own)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// checkRedirect holds what can be told of a redirect before its target is
// dialled. Credentials are dropped by oras-go once the chain leaves the origin.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d redirects", ErrNotAllowed, maxRedirects)
	}
	switch {
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return fmt.Errorf("%w: a redirect to the scheme %s", ErrNotAllowed, clip(req.URL.Scheme))
	case req.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https":
		return fmt.Errorf("%w: a redirect from https to plain http, to %s", ErrNotAllowed, clip(req.URL.Host))
	case strings.HasPrefix(req.URL.Path, relayPath):
		return fmt.Errorf("%w: a redirect to %s", ErrNotAllowed, relayPath)
	}
	req.URL.User = nil
	if dialName(req.URL) != dialName(via[0].URL) {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}

// refuseInternal is a dialer's control function: it sees the address that is
// about to be connected to, whatever name led there.
func refuseInternal(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: an address that cannot be read", ErrNotAllowed)
	}
	return refuseInternalAddr(ap.Addr())
}

func refuseInternalName(host string) error {
	h := strings.TrimSuffix(strings.ToLower(host), ".")
	if h == "localhost" || strings.HasSuffix(h, ".localhost") {
		return fmt.Errorf("%w: %s is this machine, where only the settings may lead", ErrNotAllowed, clip(host))
	}
	if a, err := netip.ParseAddr(h); err == nil {
		return refuseInternalAddr(a)
	}
	return nil
}

// nat64 addresses carry an IPv4 address in their last 32 bits (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func refuseInternalAddr(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() || (a.Is4() && a.As4()[0] == 0) {
		return fmt.Errorf("%w: %s is an address of this machine or its link, where only the settings may lead, no registry and no redirect", ErrNotAllowed, a)
	}
	return nil
}
