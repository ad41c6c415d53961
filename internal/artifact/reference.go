package artifact

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/registry"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	dockerHub     = "docker.io"
	dockerHubHost = "registry-1.docker.io"
	defaultTag    = "latest"

	maxReference  = 1024
	maxRepository = 255
)

var (
	hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*$`)
	tagPattern  = regexp.MustCompile(`^\w[\w.-]{0,127}$`)
)

// Reference is an image reference in canonical form: two spellings of one
// image are equal.
type Reference struct {
	// Registry is host or host:port in lower case; the port of HTTPS is left
	// out, and Docker Hub is docker.io.
	Registry string
	// Repository is the path within the registry.
	Repository string
	// Tag is empty when only a digest was given.
	Tag string
	// Digest wins over the tag where both are given.
	Digest boot.Digest
}

// ParseReference reads an image reference as Docker and OCI tools write it:
// [registry/]repository[:tag][@digest]. Without a registry it is Docker Hub's;
// with neither tag nor digest the tag is latest. It returns ErrInvalidReference.
func ParseReference(s string) (Reference, error) {
	r, err := parseReference(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %q: %w; write registry/repository:tag or registry/repository@sha256:…", ErrInvalidReference, clip(s), err)
	}
	return r, nil
}

func parseReference(s string) (Reference, error) {
	var r Reference
	if len(s) > maxReference {
		return r, fmt.Errorf("it is longer than %d characters", maxReference)
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return r, fmt.Errorf("it begins with a scheme (%s://)", clip(scheme))
	}
	rest, dgst, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		d, err := boot.ParseDigest(dgst)
		if err != nil {
			return r, fmt.Errorf("after the @ there is no digest of the form sha256:<64 hexadecimal digits>")
		}
		r.Digest = d
	}
	host, path := splitRegistry(rest)
	name, tag, hasTag := strings.Cut(path, ":")
	if hasTag && !tagPattern.MatchString(tag) {
		return r, fmt.Errorf("%q is not a tag", clip(tag))
	}
	r.Repository, r.Tag = name, tag
	if r.Tag == "" && r.Digest == "" {
		r.Tag = defaultTag
	}
	var err error
	if r.Registry, err = canonicalHost(host); err != nil {
		return r, err
	}
	if r.Registry == dockerHub && !strings.Contains(r.Repository, "/") {
		r.Repository = "library/" + r.Repository
	}
	return r, checkRepository(r.Repository)
}

// splitRegistry finds the registry as Docker does: the first segment is one
// when it cannot be the first segment of a repository, or is localhost.
func splitRegistry(s string) (host, path string) {
	first, rest, ok := strings.Cut(s, "/")
	if ok && (strings.ContainsAny(first, ".:[") || first == "localhost" || strings.ToLower(first) != first) {
		return first, rest
	}
	return dockerHub, s
}

func checkRepository(name string) error {
	if len(name) > maxRepository {
		return fmt.Errorf("its repository is longer than %d characters", maxRepository)
	}
	if err := (registry.Reference{Repository: name}).ValidateRepository(); err != nil {
		return fmt.Errorf("%q is not a repository name (lower-case letters, digits and single . _ - between them)", clip(name))
	}
	return nil
}

// canonicalHost reads host, host:port or [IPv6]:port. It lowers the case,
// drops the port of HTTPS and gives Docker Hub its one name.
func canonicalHost(s string) (string, error) {
	host, port, err := splitPort(strings.ToLower(s))
	if err != nil {
		return "", err
	}
	if host, err = canonicalName(host); err != nil {
		return "", err
	}
	if port == "443" {
		port = ""
	}
	switch {
	case port != "":
		return host + ":" + port, nil
	case host == dockerHubHost || host == "index.docker.io":
		return dockerHub, nil
	}
	return host, nil
}

func canonicalName(host string) (string, error) {
	inner, bracketed := strings.CutPrefix(host, "[")
	if bracketed {
		a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !strings.HasSuffix(inner, "]") || !a.Is6() || a.Zone() != "" {
			return "", fmt.Errorf("%q is not an IPv6 address in brackets", clip(host))
		}
		if a = a.Unmap(); a.Is4() {
			return a.String(), nil
		}
		return "[" + a.String() + "]", nil
	}
	if len(host) > 253 || !hostPattern.MatchString(host) {
		return "", fmt.Errorf("%q is not a host name", clip(host))
	}
	return host, nil
}

// splitPort takes the port off, in its shortest spelling.
func splitPort(s string) (host, port string, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return s, "", nil
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil || n == 0 {
		return "", "", fmt.Errorf("%q is not a port", clip(s[i+1:]))
	}
	return s[:i], strconv.FormatUint(n, 10), nil
}

// Name returns registry/repository, without tag and digest.
func (r Reference) Name() string { return registryName(r.Registry) + "/" + r.Repository }

// String returns the reference such that ParseReference reads the same again.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// Pinned returns registry/repository@digest.
func (r Reference) Pinned(d boot.Digest) string { return r.Name() + "@" + string(d) }

// registryName spells a registry so that it cannot be taken for the first
// segment of a repository on Docker Hub: a name without a dot keeps its port.
func registryName(host string) string {
	if strings.ContainsAny(host, ".:") || host == "localhost" {
		return host
	}
	return host + ":443"
}
