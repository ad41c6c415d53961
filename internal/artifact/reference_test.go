package artifact

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestReferencesHaveOneSpelling(t *testing.T) {
	for in, want := range map[string]string{
		"ghcr.io/os/images:1.2":                "ghcr.io/os/images:1.2",
		"ghcr.io/os/images":                    "ghcr.io/os/images:latest",
		"GHCR.io:443/os/images:1.2":            "ghcr.io/os/images:1.2",
		"ghcr.io:0443/os/images:1.2":           "ghcr.io/os/images:1.2",
		"ghcr.io:5000/os/images:1.2":           "ghcr.io:5000/os/images:1.2",
		"ghcr.io/os/images@" + someDigest:      "ghcr.io/os/images@" + someDigest,
		"ghcr.io/os/images:1.2@" + someDigest:  "ghcr.io/os/images:1.2@" + someDigest,
		"ubuntu":                               "docker.io/library/ubuntu:latest",
		"docker.io/ubuntu":                     "docker.io/library/ubuntu:latest",
		"os/images:1":                          "docker.io/os/images:1",
		"index.docker.io/os/images:1":          "docker.io/os/images:1",
		"registry-1.docker.io/os/images:1":     "docker.io/os/images:1",
		"docker.io/ghcr.io/images:1":           "docker.io/ghcr.io/images:1",
		"localhost/os:1":                       "localhost/os:1",
		"registry:443/os:1":                    "registry:443/os:1",
		"registry:5000/os:1":                   "registry:5000/os:1",
		"127.0.0.1:5000/os:1":                  "127.0.0.1:5000/os:1",
		"[::1]:5000/os:1":                      "[::1]:5000/os:1",
		"[2001:DB8:0::1]/os:1":                 "[2001:db8::1]/os:1",
		"[::ffff:10.0.0.5]:5000/os:1":          "10.0.0.5:5000/os:1",
		"reg.example.com/a/b__c/d-e/f.g:v_1.0": "reg.example.com/a/b__c/d-e/f.g:v_1.0",
	} {
		r, err := ParseReference(in)
		require.NoError(t, err, in)
		require.Equal(t, want, r.String(), in)
		again, err := ParseReference(r.String())
		require.NoError(t, err, in)
		require.Equal(t, r, again, in)
	}
}

func TestBadReferencesAreRefusedWithAHint(t *testing.T) {
	for in, want := range map[string]string{
		"":                                 "repository name",
		"https://ghcr.io/os:1":             "scheme",
		"oci://ghcr.io/os:1":               "scheme",
		"ghcr.io/os:1@sha256:short":        "digest",
		"ghcr.io/os@md5:abc":               "digest",
		"ghcr.io/os@sha512:" + someDigest:  "digest",
		"ghcr.io/os:":                      "tag",
		"ghcr.io/os:a b":                   "tag",
		"ghcr.io/os:" + long("a", 129):     "tag",
		"ghcr.io/../etc:1":                 "repository name",
		"ghcr.io/os/../x:1":                "repository name",
		"ghcr.io//os:1":                    "repository name",
		"ghcr.io/OS:1":                     "repository name",
		"ghcr.io/os%2f..:1":                "repository name",
		"ghcr.io/" + long("a", 256) + ":1": "repository",
		"ghcr.io:0/os:1":                   "port",
		"ghcr.io:70000/os:1":               "port",
		"gh cr.io/os:1":                    "host name",
		"-x.io/os:1":                       "host name",
		"user:pw@ghcr.io/os:1":             "digest",
		"ghcr.io./os:1":                    "host name",
		"[fe80::1%eth0]:5000/os:1":         "IPv6",
		"[10.0.0.1]/os:1":                  "IPv6",
		"ghcr.io\\@evil.io/os:1":           "digest",
		long("a", 2000):                    "longer",
	} {
		_, err := ParseReference(in)
		require.ErrorIs(t, err, ErrInvalidReference, in)
		require.ErrorIs(t, err, boot.ErrInvalid, in)
		require.ErrorContains(t, err, want, in)
		require.True(t, Terminal(err))
		require.Less(t, len(err.Error()), 500)
	}
}

func long(s string, n int) string { return strings.Repeat(s, n) }

func TestTheDigestBesideATagIsKeptAndWins(t *testing.T) {
	r, err := ParseReference("ghcr.io/os/images:1.2@" + someDigest)
	require.NoError(t, err)
	require.Equal(t, boot.Digest(someDigest), r.Digest)
	require.Equal(t, "ghcr.io/os/images", r.Name())
}

// FuzzParseReference holds that whatever is accepted is canonical: it reads
// back as the same, and its registry is never another one than it seems.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"ghcr.io/os/images:1.2", "ubuntu", "registry:443/x", "[::1]:5000/os:1", "localhost/os",
		"docker.io/host/x:1@" + someDigest, "A/b", "a.b:00443/c", "x@y@z", "REG/os:1", "[::ffff:1.2.3.4]/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalidReference)
			return
		}
		again, err := ParseReference(r.String())
		require.NoError(t, err)
		require.Equal(t, r, again)
		require.Equal(t, r.String(), again.String())
		require.False(t, strings.ContainsAny(r.Registry, "/@ %\\\r\n"), r.Registry)
		require.False(t, strings.Contains(r.Repository, ".."), r.Repository)
		require.True(t, r.Tag != "" || r.Digest != "")
		sc, err := parseScope(registryName(r.Registry) + "/" + r.Repository)
		require.NoError(t, err)
		require.True(t, sc.covers(r.Registry, r.Repository))
	})
}
