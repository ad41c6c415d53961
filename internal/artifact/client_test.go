package artifact

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

func secretFor(t *testing.T, host, user, password string) Credentials {
	t.Helper()
	return secret(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password))))
}

// bootFrom resolves os/images:1 and pulls its UKI.
func bootFrom(ctx context.Context, s *Store, host string, c Credentials) error {
	img, err := s.Resolve(ctx, host+"/os/images:1", boot.AMD64, c)
	if err != nil {
		return err
	}
	return s.Pull(ctx, img.Artifacts[0], c)
}

func TestOneTokenServesManyRequests(t *testing.T) {
	for name, o := range map[string]registry.Options{
		"anonymous":    {Auth: registry.Token},
		"with a user":  {Auth: registry.Token, Username: "u", Password: "p"},
		"over HTTPS":   {Auth: registry.Token, Username: "u", Password: "p", TLS: true},
		"by its token": {Auth: registry.Token, Username: "u", Password: "other", IdentityToken: "it"},
	} {
		reg := serve(t, o)
		s := open(t, options(t, reg))
		_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte(name)})
		require.NoError(t, err)
		c := secretFor(t, reg.Host, "u", "p")
		if o.IdentityToken != "" {
			c = secret(t, fmt.Sprintf(`{"auths":{%q:{"identitytoken":"it"}}}`, reg.Host))
		}
		for range 5 {
			require.NoError(t, bootFrom(deadline(t), s, reg.Host, c), name)
		}
		require.Equal(t, 1, reg.TokensIssued(), name)
		require.Equal(t, 1, reg.Count("GET", "/blobs/"+string(digestOf([]byte(name)))), name)

		reg.ExpireTokens()
		require.NoError(t, bootFrom(deadline(t), s, reg.Host, c), name)
		require.Equal(t, 2, reg.TokensIssued(), name)
	}
}

func TestBasicAuth(t *testing.T) {
	reg := serve(t, registry.Options{Auth: registry.Basic, Username: "u", Password: "p", TLS: true})
	s := open(t, options(t, reg))
	_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("x")})
	require.NoError(t, err)
	require.NoError(t, bootFrom(deadline(t), s, reg.Host, secretFor(t, reg.Host, "u", "p")))
}

func TestMissingAndWrongCredentialsAreTold(t *testing.T) {
	for _, auth := range []registry.Auth{registry.Basic, registry.Token} {
		reg := serve(t, registry.Options{Auth: auth, Username: "u", Password: "p"})
		s := open(t, options(t, reg))
		_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("x")})
		require.NoError(t, err)
		for want, c := range map[string]Credentials{
			"nobody without credentials": {},
			"refused the credentials":    secretFor(t, reg.Host, "u", "hunter2"),
			"gives this image to nobody": secretFor(t, "other.example.com", "u", "p"),
		} {
			err := bootFrom(deadline(t), s, reg.Host, c)
			require.ErrorIs(t, err, ErrUnauthorized, auth)
			require.ErrorContains(t, err, want, auth)
			require.NotContains(t, err.Error(), "hunter2")
			require.False(t, Terminal(err))
		}
	}
}

func TestATokenOfOneTenantIsNeverUsedForAnother(t *testing.T) {
	reg := serve(t, registry.Options{Auth: registry.Token, Username: "u", Password: "p"})
	s := open(t, options(t, reg))
	_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("x")})
	require.NoError(t, err)
	_, err = s.Resolve(deadline(t), reg.Host+"/os/images:1", boot.AMD64, secretFor(t, reg.Host, "u", "p"))
	require.NoError(t, err)
	_, err = s.Resolve(deadline(t), reg.Host+"/os/images:1", boot.AMD64, Credentials{})
	require.ErrorIs(t, err, ErrUnauthorized)
	_, err = s.Resolve(deadline(t), reg.Host+"/os/images:1", boot.AMD64, secretFor(t, reg.Host, "u", "guess"))
	require.ErrorIs(t, err, ErrUnauthorized)
}

func TestOnlyTheCAsThatAreTrusted(t *testing.T) {
	reg, other := serve(t, registry.Options{TLS: true}), serve(t, registry.Options{TLS: true})
	_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("x")})
	require.NoError(t, err)
	o := options(t, reg)
	require.NoError(t, bootFrom(deadline(t), open(t, o), reg.Host, Credentials{}))

	o = options(t, reg)
	o.CABundle = other.CA
	err = bootFrom(deadline(t), open(t, o), reg.Host, Credentials{})
	require.ErrorContains(t, err, "certificate")
	require.False(t, Terminal(err))
}

func TestPlainHTTPOnlyForRegistriesNamedSo(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	o.PlainHTTPRegistries = nil
	err := bootFrom(deadline(t), open(t, o), reg.Host, Credentials{})
	require.ErrorContains(t, err, "HTTPS")
	require.Empty(t, reg.Requests())
}

func TestRedirectsAreFollowedWithoutCredentials(t *testing.T) {
	cdn := serve(t, registry.Options{})
	for _, auth := range []registry.Auth{registry.Basic, registry.Token} {
		reg := serve(t, registry.Options{Auth: auth, Username: "u", Password: "p"})
		o := options(t, reg)
		o.RedirectHosts = []string{cdn.Host}
		s := open(t, o)
		data := random(100_000 + len(auth))
		a := artifactIn(reg, data)
		cdn.AddBlob(data)
		cdn.Forget()
		reg.Set(registry.Faults{RedirectTo: cdn.URL})
		require.NoError(t, s.Pull(deadline(t), a, secretFor(t, reg.Host, "u", "p")))
		requireHolds(t, s, data)
		require.Len(t, cdn.Requests(), 1)
		for _, r := range cdn.Requests() {
			require.Empty(t, r.Authorization)
			require.Empty(t, r.Referer)
		}
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	inside := serve(t, registry.Options{})
	plain, secure := serve(t, registry.Options{}), serve(t, registry.Options{TLS: true})
	port := strings.TrimPrefix(inside.Host, "127.0.0.1")
	for name, c := range map[string]struct {
		reg  *registry.Server
		to   string
		loop bool
		want string
	}{
		"to loopback":            {plain, inside.URL, false, "127.0.0.1"},
		"by a name":              {plain, "http://localhost" + port, false, "address of this machine"},
		"by an odd name":         {plain, "http://[::ffff:127.0.0.1]" + port, false, "127.0.0.1"},
		"through NAT64":          {plain, "http://[64:ff9b::7f00:1]" + port, false, "127.0.0.1"},
		"to nowhere":             {plain, "http://0.0.0.0" + port, false, "0.0.0.0"},
		"to IPv6 loopback":       {plain, "http://[::1]" + port, false, "::1"},
		"to link-local":          {plain, "http://169.254.169.254", false, "169.254.169.254"},
		"to IPv6 link-local":     {plain, "http://[fe80::1]", false, "fe80::1"},
		"from https to http":     {secure, inside.URL, false, "from https to plain http"},
		"from https to loopback": {secure, "https://localhost" + port, false, "address of this machine"},
		"to a file":              {plain, "file:///etc", false, "file"},
		"for ever":               {plain, "", true, "more than 5 redirects"},
	} {
		o := options(t, c.reg)
		s := open(t, o)
		data := random(1000)
		a := artifactIn(c.reg, data)
		inside.AddBlob(data)
		c.reg.Set(registry.Faults{RedirectTo: c.to, RedirectLoop: c.loop})
		err := s.Pull(deadline(t), a, Credentials{})
		require.ErrorIs(t, err, ErrNotAllowed, name)
		require.ErrorContains(t, err, c.want, name)
		require.NotContains(t, err.Error(), "signature=secret", name)
		require.False(t, s.Has(a.Digest), name)
	}
	require.Empty(t, inside.Requests())
}

func TestARegistryMayRedirectWithinItself(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	data := random(1000)
	a := artifactIn(reg, data)
	reg.Set(registry.Faults{RedirectTo: reg.URL})
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	require.Equal(t, 1, reg.Count("GET", "/cdn/"))
}

func TestAnyRegistryAllowedDoesNotMeanThisMachine(t *testing.T) {
	reg := serve(t, registry.Options{TLS: true})
	o := options(t, reg)
	o.AllowedRegistries = []string{"*"}
	err := bootFrom(deadline(t), open(t, o), reg.Host, Credentials{})
	require.ErrorIs(t, err, ErrNotAllowed)
	require.Empty(t, reg.Requests())
}

// The place for tokens is the registry's word, as a redirect is: it may be on
// another host, with a private address too, but never on this machine.
func TestWhereTokensAreFetched(t *testing.T) {
	tokens := serve(t, registry.Options{Username: "u", Password: "p"})
	for name, c := range map[string]struct {
		tls   bool
		realm string
		hosts []string
		want  string
	}{
		"elsewhere on this machine": {false, strings.Replace(tokens.URL, "127.0.0.1", "localhost", 1) + "/token", nil, "address of this machine"},
		"link-local":                {false, "http://169.254.169.254/token", nil, "169.254.169.254"},
		"without encryption":        {true, tokens.URL + "/token", nil, "without encryption"},
		"not a URL":                 {false, "token", nil, "not a URL"},
	} {
		reg := serve(t, registry.Options{Auth: registry.Token, Realm: c.realm, TLS: c.tls})
		_, err := open(t, options(t, reg)).Resolve(deadline(t), reg.Host+"/os/images:1", boot.AMD64, secretFor(t, reg.Host, "u", "p"))
		require.ErrorContains(t, err, c.want, name)
	}
	require.Empty(t, tokens.Requests())
}

// oras-go itself would refuse this realm, since its host is not the registry's
// and its address is not public: that is how private registries are built.
func TestTokensMayComeFromAnotherHost(t *testing.T) {
	reg := serve(t, registry.Options{Auth: registry.Token})
	var asked []*http.Request
	other := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r)
		reg.ServeHTTP(w, r)
	}))
	other = strings.Replace(other, "127.0.0.1", "localhost", 1)
	reg2 := serve(t, registry.Options{Auth: registry.Token, Realm: "http://" + other + "/token?tenant=7"})
	o := options(t, reg2)
	o.RedirectHosts = []string{other}
	_, err := open(t, o).Resolve(deadline(t), reg2.Host+"/os/images:1", boot.AMD64, secretFor(t, reg2.Host, "u", "p"))
	// The token is of another registry, so that this one refuses it.
	require.ErrorIs(t, err, ErrUnauthorized)
	require.Len(t, asked, 1)
	q := asked[0].URL.Query()
	require.Equal(t, "7", q.Get("tenant"))
	require.Equal(t, "registry", q.Get("service"))
	require.Equal(t, "repository:os/images:pull", q.Get("scope"))
	user, password, _ := asked[0].BasicAuth()
	require.Equal(t, "u:p", user+":"+password)
}
