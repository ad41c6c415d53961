package artifact

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheAllowlistComparesWhatIsReallyAsked(t *testing.T) {
	for _, c := range []struct {
		allowed []string
		image   string
		ok      bool
	}{
		{[]string{"ghcr.io"}, "ghcr.io/os/images:1", true},
		{[]string{"ghcr.io"}, "GHCR.IO:443/os/images:1", true},
		{[]string{"GHCR.io:443"}, "ghcr.io/os/images:1", true},
		{[]string{"ghcr.io"}, "ghcr.io:5000/os/images:1", false},
		{[]string{"ghcr.io"}, "ghcr.io.evil.com/os/images:1", false},
		{[]string{"ghcr.io"}, "evil-ghcr.io/os/images:1", false},
		{[]string{"registry"}, "registry:443/os:1", true},
		{[]string{"registry:443"}, "registry:443/os:1", true},
		{[]string{"registry"}, "registry/os:1", false}, // that is Docker Hub's
		{[]string{"docker.io"}, "registry/os:1", true},
		// A repository on Docker Hub that looks like another registry.
		{[]string{"ghcr.io"}, "docker.io/ghcr.io/x:1", false},
		{[]string{"docker.io"}, "docker.io/ghcr.io/x:1", true},
		{[]string{"docker.io"}, "ghcr.io/docker.io/x:1", false},
		{[]string{"docker.io/os"}, "os/images:1", true},
		{[]string{"index.docker.io"}, "registry-1.docker.io/os/images:1", true},
		// Prefixes count by whole segments.
		{[]string{"ghcr.io/os"}, "ghcr.io/os/images:1", true},
		{[]string{"ghcr.io/os/"}, "ghcr.io/os:1", true},
		{[]string{"ghcr.io/os"}, "ghcr.io/os-evil/images:1", false},
		{[]string{"ghcr.io/os"}, "ghcr.io/osx/images:1", false},
		{[]string{"ghcr.io/os"}, "ghcr.io/other/os:1", false},
		{[]string{"*"}, "anything.example.com/os:1", true},
		{nil, "ghcr.io/os:1", false},
		{[]string{"[::1]:5000"}, "[0:0::1]:5000/os:1", true},
	} {
		l, err := newAllowlist(Options{AllowedRegistries: c.allowed})
		require.NoError(t, err)
		r, err := ParseReference(c.image)
		require.NoError(t, err)
		err = l.image(r)
		if c.ok {
			require.NoError(t, err, "%v %s", c.allowed, c.image)
			continue
		}
		require.ErrorIs(t, err, ErrNotAllowed, "%v %s", c.allowed, c.image)
		require.True(t, Terminal(err))
	}
}

func TestWhereAnAllowedImageIsAsked(t *testing.T) {
	l, err := newAllowlist(Options{})
	require.NoError(t, err)
	c, err := newClient(Options{}, l)
	require.NoError(t, err)
	r, err := ParseReference("docker.io/ghcr.io/x:1")
	require.NoError(t, err)
	require.Equal(t, []endpoint{{host: "docker.io", repository: "ghcr.io/x"}}, c.endpoints(r))
	require.Equal(t, "https://registry-1.docker.io", c.base("docker.io"))
}

func TestSettingsThatCannotBeReadAreRefused(t *testing.T) {
	for _, o := range []Options{
		{AllowedRegistries: []string{"https://ghcr.io"}},
		{AllowedRegistries: []string{"ghcr.io/../x"}},
		{AllowedRegistries: []string{""}},
		{PlainHTTPRegistries: []string{"a b"}},
		{AllowedURLHosts: []string{"host/path"}},
		{Mirrors: map[string][]string{"docker.io": {"https://mirror"}}},
		{Mirrors: map[string][]string{"x y": {"mirror"}}},
		{CABundle: []byte("not PEM")},
	} {
		o.Dir = t.TempDir()
		_, err := New(o)
		require.ErrorIs(t, err, ErrInvalidReference, "%+v", o)
	}
}

func TestOnlyAllowedURLs(t *testing.T) {
	l, err := newAllowlist(Options{AllowedURLHosts: []string{"images.example.com", "http://lab.example.com:8080", "https://x.example.com"}})
	require.NoError(t, err)
	for in, want := range map[string]error{
		"https://images.example.com/os.efi":             nil,
		"https://IMAGES.example.com:443/os.efi?sig=1#x": nil,
		"https://x.example.com/os.efi":                  nil,
		"http://lab.example.com:8080/os.efi":            nil,
		"https://lab.example.com:8080/os.efi":           nil,
		"http://images.example.com/os.efi":              ErrNotAllowed,
		"http://images.example.com:443/os.efi":          ErrInvalidReference,
		"https://images.example.com:8443/os.efi":        ErrNotAllowed,
		"https://images.example.com.evil.com/os.efi":    ErrNotAllowed,
		"https://images.example.com@evil.com/os.efi":    ErrInvalidReference,
		"https://user:pw@images.example.com/os.efi":     ErrInvalidReference,
		"file:///etc/passwd":                            ErrInvalidReference,
		"ftp://images.example.com/os.efi":               ErrInvalidReference,
		"//images.example.com/os.efi":                   ErrInvalidReference,
		"https://evil.com\\@images.example.com/":        ErrInvalidReference,
		"https://" + long("a", 2100):                    ErrInvalidReference,
	} {
		_, err := l.foreign(in)
		require.ErrorIs(t, err, want, in)
	}
}
