package artifact

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"sort"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	maxPullSecret  = 1 << 20
	maxPullEntries = 256
)

// Credentials are what a pull secret holds. The zero value is anonymous. They
// print as a count, never as what they are.
type Credentials struct {
	entries []credential
}

type credential struct {
	// host may hold * within a label, as Kubernetes allows.
	host string
	path string
	auth auth.Credential
}

// String says how many registries there are credentials for.
func (c Credentials) String() string {
	return fmt.Sprintf("credentials for %d registries", len(c.entries))
}

// GoString keeps secrets out of %#v.
func (c Credentials) GoString() string { return c.String() }

// MarshalLog keeps secrets out of structured logs.
func (c Credentials) MarshalLog() any { return c.String() }

type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredsStore  string                `json:"credsStore"`
	CredHelpers map[string]string     `json:"credHelpers"`
}

type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// ParsePullSecret reads the key .dockerconfigjson of a Secret of type
// kubernetes.io/dockerconfigjson. It returns ErrPullSecret with what is wrong;
// the error never repeats a secret.
func ParsePullSecret(dockerconfigjson []byte) (Credentials, error) {
	if len(dockerconfigjson) > maxPullSecret {
		return Credentials{}, fmt.Errorf("%w: it is larger than %d bytes", ErrPullSecret, maxPullSecret)
	}
	var cfg dockerConfig
	if err := json.Unmarshal(dockerconfigjson, &cfg); err != nil {
		// The error of the parser can quote a piece of a password.
		return Credentials{}, fmt.Errorf(`%w: it is not JSON of the form {"auths":{"registry.example.com":{"username":"…","password":"…"}}}`, ErrPullSecret)
	}
	switch {
	case len(cfg.Auths) == 0 && (cfg.CredsStore != "" || len(cfg.CredHelpers) > 0):
		return Credentials{}, fmt.Errorf(`%w: it names a credential helper, which only works on the machine it was made on; it needs "auths" with the credentials themselves`, ErrPullSecret)
	case cfg.Auths == nil:
		return Credentials{}, fmt.Errorf(`%w: it has no "auths"`, ErrPullSecret)
	case len(cfg.Auths) > maxPullEntries:
		return Credentials{}, fmt.Errorf("%w: it has %d registries; %d are the most", ErrPullSecret, len(cfg.Auths), maxPullEntries)
	}
	return readAuths(cfg.Auths)
}

func readAuths(auths map[string]dockerAuth) (Credentials, error) {
	var c Credentials
	for key, a := range auths {
		e, err := parseAuthKey(key)
		if err != nil {
			return Credentials{}, fmt.Errorf("%w: registry %q: %w", ErrPullSecret, clip(key), err)
		}
		if e.auth, err = a.credential(); err != nil {
			return Credentials{}, fmt.Errorf("%w: registry %q: %w", ErrPullSecret, clip(key), err)
		}
		if e.auth != auth.EmptyCredential {
			c.entries = append(c.entries, e)
		}
	}
	// The most specific entry first: the longest path, then no wildcard.
	sort.Slice(c.entries, func(i, j int) bool {
		a, b := c.entries[i], c.entries[j]
		if len(a.path) != len(b.path) {
			return len(a.path) > len(b.path)
		}
		if wa, wb := strings.Contains(a.host, "*"), strings.Contains(b.host, "*"); wa != wb {
			return wb
		}
		return a.host < b.host
	})
	return c, nil
}

// parseAuthKey reads what docker login and Kubernetes write as key: a host, a
// URL with Docker's /v1/ or /v2/, or a host with a path; * within labels.
func parseAuthKey(key string) (credential, error) {
	k := strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, p, _ := strings.Cut(strings.TrimSuffix(k, "/"), "/")
	if p == "v1" || p == "v2" {
		p = ""
	}
	star := "0star0"
	h, err := canonicalHost(strings.ReplaceAll(host, "*", star))
	if err != nil {
		return credential{}, err
	}
	return credential{host: strings.ReplaceAll(h, star, "*"), path: p}, nil
}

func (a dockerAuth) credential() (auth.Credential, error) {
	c := auth.Credential{Username: a.Username, Password: a.Password, RefreshToken: a.IdentityToken, AccessToken: a.RegistryToken}
	if a.Auth != "" {
		b, err := base64.StdEncoding.DecodeString(a.Auth)
		if err != nil {
			return c, fmt.Errorf(`its "auth" is not base64`)
		}
		user, password, ok := strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
		if !ok {
			return c, fmt.Errorf(`its "auth" is not the base64 of user:password`)
		}
		if c.Username == "" && c.Password == "" {
			c.Username, c.Password = user, password
		}
	}
	if (c.Username == "") != (c.Password == "") && c.RefreshToken == "" && c.AccessToken == "" {
		return c, fmt.Errorf("it has a user name without a password, or the reverse")
	}
	return c, nil
}

// lookup returns the credentials for one repository; empty where there are none.
func (c Credentials) lookup(host, repository string) auth.Credential {
	for _, e := range c.entries {
		s := scope{host: host, path: e.path}
		if hostMatches(e.host, host) && s.covers(host, repository) {
			return e.auth
		}
	}
	return auth.EmptyCredential
}

// hostMatches compares label by label, so that * never spans a dot.
func hostMatches(pattern, host string) bool {
	if !strings.Contains(pattern, "*") {
		return pattern == host
	}
	ps, hs := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(ps) != len(hs) {
		return false
	}
	for i := range ps {
		if ok, err := path.Match(ps[i], hs[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// fingerprint tells credentials apart without keeping them.
func fingerprint(c auth.Credential) [sha256.Size]byte {
	b, err := json.Marshal([]string{c.Username, c.Password, c.RefreshToken, c.AccessToken})
	if err != nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(b)
}
