package artifact

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func secret(t *testing.T, json string) Credentials {
	t.Helper()
	c, err := ParsePullSecret([]byte(json))
	require.NoError(t, err)
	return c
}

func TestPullSecretsAreFoundByTheRegistryTheyAreFor(t *testing.T) {
	c := secret(t, `{"auths":{
		"https://index.docker.io/v1/": {"username":"hub","password":"p"},
		"Registry.example.com:443": {"auth":"`+base64.StdEncoding.EncodeToString([]byte("u:p:q"))+`"},
		"registry.example.com/team": {"username":"team","password":"p"},
		"*.corp.example.com": {"username":"any","password":"p"},
		"one.corp.example.com": {"username":"one","password":"p"},
		"token.example.com": {"identitytoken":"it"},
		"http://plain.example.com:5000/v2/": {"registrytoken":"rt"},
		"empty.example.com": {}
	}}`)
	for at, want := range map[string]auth.Credential{
		"docker.io os/images":                  {Username: "hub", Password: "p"},
		"registry.example.com os/images":       {Username: "u", Password: "p:q"},
		"registry.example.com team/images":     {Username: "team", Password: "p"},
		"registry.example.com teams/images":    {Username: "u", Password: "p:q"},
		"two.corp.example.com os":              {Username: "any", Password: "p"},
		"one.corp.example.com os":              {Username: "one", Password: "p"},
		"a.b.corp.example.com os":              {},
		"token.example.com os":                 {RefreshToken: "it"},
		"plain.example.com:5000 os":            {AccessToken: "rt"},
		"plain.example.com os":                 {},
		"empty.example.com os":                 {},
		"registry.example.com.evil.com os":     {},
		"registry.example.com:5000 os/images":  {},
		"evil.registry.example.com team/image": {},
	} {
		host, repo, _ := strings.Cut(at, " ")
		require.Equal(t, want, c.lookup(host, repo), at)
	}
	require.Equal(t, auth.EmptyCredential, Credentials{}.lookup("docker.io", "os"))
}

func TestBadPullSecretsAreToldWithoutTheirContent(t *testing.T) {
	many := strings.Repeat(`"a.example.com":{},`, 1)
	for i := range 300 {
		many += fmt.Sprintf(`"h%d.example.com":{},`, i)
	}
	for in, want := range map[string]string{
		`hunter2`: "not JSON",
		`{"auths":{"a.io":{"username":"u","password":["hunter2"]}}}`: "not JSON",
		`{}`:                                "auths",
		`{"credsStore":"hunter2"}`:          "helper",
		`{"auths":{"a b":{}}}`:              "host name",
		`{"auths":{"a.io":{"auth":"%%%"}}}`: "base64",
		`{"auths":{"a.io":{"auth":"aHVudGVyMg=="}}}`:        "user:password",
		`{"auths":{"a.io":{"username":"u"}}}`:               "password",
		`{"auths":{` + strings.TrimSuffix(many, ",") + `}}`: "are the most",
		strings.Repeat(" ", 1<<20+1):                        "larger",
	} {
		_, err := ParsePullSecret([]byte(in))
		require.ErrorIs(t, err, ErrPullSecret)
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
		require.True(t, Terminal(err))
	}
}

func TestCredentialsNeverPrint(t *testing.T) {
	c := secret(t, `{"auths":{"a.io":{"username":"u","password":"hunter2"}}}`)
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s", c, c, c, c), fmt.Sprintf("%v", struct{ C Credentials }{c}), fmt.Sprint(c.MarshalLog())} {
		require.NotContains(t, s, "hunter2")
		require.Contains(t, s, "1 registries")
	}
}
