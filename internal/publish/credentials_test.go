package publish

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/registry"
)

// dockerConfig makes this the configuration that docker login wrote.
func dockerConfig(t *testing.T, format string, args ...any) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	write(t, dir, map[string][]byte{"config.json": fmt.Appendf(nil, format, args...)})
}

// Whoever is logged in with Docker needs nothing more.
func TestCredentialsAreThoseOfDockerLogin(t *testing.T) {
	s := serve(t, registry.Options{Auth: registry.Token, Username: "ci", Password: "s3cret", IdentityToken: "identity"})
	helpers := t.TempDir()
	helper := "#!/bin/sh\nread -r server\n[ \"$server\" = " + s.Host + " ] || { echo credentials not found in native keychain; exit 1; }\necho '{\"ServerURL\":\"x\",\"Username\":\"ci\",\"Secret\":\"s3cret\"}'\n"
	require.NoError(t, os.WriteFile(filepath.Join(helpers, "docker-credential-test"), []byte(helper), 0o755))
	t.Setenv("PATH", helpers+":"+os.Getenv("PATH"))
	for name, config := range map[string]string{
		"auth":              fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.Host, base64.StdEncoding.EncodeToString([]byte("ci:s3cret"))),
		"identity token":    fmt.Sprintf(`{"auths":{%q:{"identitytoken":"identity"}}}`, s.Host),
		"credential store":  `{"credsStore":"test"}`,
		"credential helper": fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, s.Host),
	} {
		t.Run(name, func(t *testing.T) {
			dockerConfig(t, "%s", config)
			c, err := DockerCredentials()
			require.NoError(t, err)
			o := options()
			o.Credentials = c
			roundTrip(t, s.Host, o)
			require.NotContains(t, fmt.Sprintf("%v %+v %#v", c, c, c), "s3cret")
		})
	}
}

func TestCredentialsThatCannotBeReadSayWhere(t *testing.T) {
	dockerConfig(t, `{"auths":`)
	_, err := DockerCredentials()
	require.ErrorContains(t, err, "reading the credentials of Docker's configuration")
	dockerConfig(t, `{"credsStore":"missing"}`)
	c, err := DockerCredentials()
	require.NoError(t, err)
	_, err = Open(deadline(t), "registry.example.com/os/debian", Options{Credentials: c})
	require.ErrorContains(t, err, "names a credential helper that is not installed")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	_, err = DockerCredentials()
	require.NoError(t, err, "nobody has to have logged in")
}

func TestARegistryThatRefusesIsExplained(t *testing.T) {
	status := http.StatusForbidden
	answer := `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`
	host := wrapped(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				http.Error(w, answer, status)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	images := []Image{image(t, whole(t, uki.AMD64))}
	for name, c := range map[string]struct {
		status int
		answer string
		is     error
		says   string
	}{
		"no right":     {http.StatusForbidden, answer, artifact.ErrUnauthorized, "does not allow that in os/debian (DENIED requested access to the resource is denied); docker login " + host},
		"no project":   {http.StatusNotFound, `{"errors":[{"code":"NAME_UNKNOWN","message":"project os not found"}]}`, artifact.ErrNotFound, "(NAME_UNKNOWN project os not found); in some registries a project or repository has to be made first"},
		"too large":    {http.StatusRequestEntityTooLarge, "", nil, "or a proxy before it, takes no blob of that size"},
		"read only":    {http.StatusMethodNotAllowed, `{"errors":[{"code":"UNSUPPORTED","message":"read\u001b[31m only"}]}`, nil, "takes no pushes (UNSUPPORTED read [31m only)"},
		"overloaded":   {http.StatusTooManyRequests, "", nil, "asks to be left alone for a while (status 429) (tried 4 times)"},
		"broken":       {http.StatusBadGateway, "<html>", nil, "answered with status 502 (tried 4 times)"},
		"TLS expected": {http.StatusBadRequest, "Client sent an HTTP request to an HTTPS server.\n", nil, "if it speaks TLS, leave --plain-http out"},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer = c.status, c.answer
			_, err := open(t, host+"/os/debian:13", options()).Push(deadline(t), images, PushOptions{Created: made})
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
}

func TestCredentialsThatAreMissingOrWrongAreExplained(t *testing.T) {
	images := []Image{image(t, whole(t, uki.AMD64))}
	for _, how := range []registry.Auth{registry.Basic, registry.Token} {
		s := serve(t, registry.Options{Auth: how, Username: "ci", Password: "s3cret"})
		_, err := open(t, s.Host+"/os/debian:13", options()).Push(deadline(t), images, PushOptions{Created: made})
		require.ErrorIs(t, err, artifact.ErrUnauthorized, how)
		require.ErrorContains(t, err, s.Host+" wants credentials for os/debian", how)
		require.ErrorContains(t, err, "docker login "+s.Host+", or --username and --password-stdin, gives some", how)
		o := options()
		o.Credentials = PasswordCredentials(s.Host, "ci", "wr0ng")
		_, err = open(t, s.Host+"/os/debian:13", o).Push(deadline(t), images, PushOptions{Created: made})
		require.ErrorIs(t, err, artifact.ErrUnauthorized, how)
		require.ErrorContains(t, err, "refused the credentials, or they do not allow it", how)
		require.NotContains(t, err.Error(), "wr0ng")
		_, err = open(t, s.Host+"/os/debian:13", o).Pull(deadline(t), t.TempDir())
		require.ErrorIs(t, err, artifact.ErrUnauthorized, how)
		require.NotContains(t, err.Error(), "pull secret")
	}
}

func TestARegistryThatCannotBeReachedIsExplained(t *testing.T) {
	plain, secure := serve(t, registry.Options{}), serve(t, registry.Options{TLS: true})
	images := []Image{image(t, whole(t, uki.AMD64))}
	withTLS := options()
	withTLS.PlainHTTP = false
	for name, c := range map[string]struct {
		host string
		o    Options
		says string
	}{
		"plain HTTP": {plain.Host, withTLS, plain.Host + " speaks plain HTTP: use --plain-http if you trust the network"},
		"TLS":        {secure.Host, options(), "if it speaks TLS, leave --plain-http out"},
		"authority":  {secure.Host, withTLS, "the certificate of " + secure.Host + " is not trusted: name its authority with --ca-file"},
		"nobody":     {"127.0.0.1:1", options(), "speaking to 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused (tried 4 times)"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, c.host+"/os/debian:13", c.o).Push(deadline(t), images, PushOptions{Created: made})
			require.ErrorContains(t, err, c.says)
		})
	}
	_, err := Open(deadline(t), "https://registry.example.com/os", options())
	require.ErrorIs(t, err, artifact.ErrInvalidReference)
	o := options()
	o.CABundle = []byte("no certificate")
	_, err = Open(deadline(t), "registry.example.com/os", o)
	require.ErrorContains(t, err, "holds no PEM certificate")
}
