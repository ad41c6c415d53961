package artifact

import (
	"fmt"
	"net"
	"net/url"
	"strings"
)

// scope is a registry, or what lies below a path in it.
type scope struct {
	host string
	path string
}

// parseScope reads registry or registry/path-prefix. Its first segment is
// always a registry: no setting means Docker Hub without saying so.
func parseScope(s string) (scope, error) {
	host, path, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(s), "/"), "/")
	h, err := canonicalHost(host)
	if err != nil {
		return scope{}, fmt.Errorf("%w: registry %q: %w; write registry, registry:port or registry/path", ErrInvalidReference, clip(s), err)
	}
	if path != "" {
		if err := checkRepository(path); err != nil {
			return scope{}, fmt.Errorf("%w: registry %q: %w", ErrInvalidReference, clip(s), err)
		}
	}
	return scope{host: h, path: path}, nil
}

// covers compares whole segments of the path.
func (s scope) covers(host, repository string) bool {
	return s.host == host && (s.path == "" || repository == s.path || strings.HasPrefix(repository, s.path+"/"))
}

func (s scope) String() string {
	if s.path == "" {
		return registryName(s.host)
	}
	return registryName(s.host) + "/" + s.path
}

// allowlist says which registries and which hosts of URLs may be used.
type allowlist struct {
	any    bool
	scopes []scope
	plain  map[string]bool
	urls   map[string]bool // host → plain HTTP too
}

func newAllowlist(o Options) (*allowlist, error) {
	l := &allowlist{plain: map[string]bool{}, urls: map[string]bool{}}
	for _, s := range o.AllowedRegistries {
		if strings.TrimSpace(s) == "*" {
			l.any = true
			continue
		}
		sc, err := parseScope(s)
		if err != nil {
			return nil, fmt.Errorf("reading the allowed registries: %w", err)
		}
		l.scopes = append(l.scopes, sc)
	}
	for _, s := range o.PlainHTTPRegistries {
		h, err := canonicalHost(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("reading the plain HTTP registries: %w %q: %w", ErrInvalidReference, clip(s), err)
		}
		l.plain[h] = true
	}
	for _, s := range o.AllowedURLHosts {
		rest, plain := strings.CutPrefix(strings.TrimSpace(s), "http://")
		h, err := canonicalHost(strings.TrimPrefix(rest, "https://"))
		if err != nil {
			return nil, fmt.Errorf("reading the allowed URL hosts: %w %q: %w", ErrInvalidReference, clip(s), err)
		}
		l.urls[h] = l.urls[h] || plain
	}
	return l, nil
}

// image returns ErrNotAllowed unless a setting covers the image.
func (l *allowlist) image(r Reference) error {
	if l.any {
		return nil
	}
	var names []string
	for _, s := range l.scopes {
		if s.covers(r.Registry, r.Repository) {
			return nil
		}
		names = append(names, s.String())
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: no registry is allowed; name %s in --allowed-registries", ErrNotAllowed, registryName(r.Registry))
	}
	return fmt.Errorf("%w: %s is in none of the allowed registries (%s); see --allowed-registries", ErrNotAllowed, r.Name(), clip(strings.Join(names, ", ")))
}

// foreign reads the URL of a UKI outside of any registry. It returns
// ErrInvalidReference, or ErrNotAllowed unless a setting names its host.
func (l *allowlist) foreign(s string) (*url.URL, error) {
	if len(s) > 2048 {
		return nil, fmt.Errorf("%w: the URL is longer than 2048 characters", ErrInvalidReference)
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("%w: %q is not an absolute http or https URL", ErrInvalidReference, clip(s))
	}
	if u.User != nil {
		return nil, fmt.Errorf("%w: the URL of %s carries a user name or password", ErrInvalidReference, clip(u.Host))
	}
	u.Fragment = ""
	host, err := urlHost(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrInvalidReference, clip(s), err)
	}
	plain, ok := l.urls[host]
	if !ok {
		return nil, fmt.Errorf("%w: host %s is not among the hosts that UKIs may be pulled from", ErrNotAllowed, host)
	}
	if u.Scheme == "http" && !plain && !l.plain[host] {
		return nil, fmt.Errorf("%w: plain HTTP from %s; use https, or allow http://%s", ErrNotAllowed, host, host)
	}
	return u, nil
}

// urlHost is the canonical host of a URL. An http URL on the port of HTTP has
// the bare name, as an https URL has on its own.
func urlHost(u *url.URL) (string, error) {
	h := u.Host
	if u.Scheme == "http" {
		if u.Port() == "80" {
			h = strings.TrimSuffix(h, ":80")
		} else if u.Port() == "443" {
			return "", fmt.Errorf("http on the port of https")
		}
	}
	return canonicalHost(h)
}

// dialName is host:port as a transport dials it.
func dialName(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
