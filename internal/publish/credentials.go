package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/boot-operator/boot-operator/internal/artifact"
)

// helperTimeout bounds a credential helper, which may ask a key ring.
const helperTimeout = time.Minute

// errCredentials: credentials could not be read from where they are kept.
var errCredentials = errors.New("reading the credentials")

// Credentials finds the credentials for a registry. The zero value has none. It
// prints as nothing: what it holds is secret.
type Credentials struct {
	store credentials.Store
}

// String keeps secrets out of texts.
func (Credentials) String() string { return "credentials" }

// GoString keeps secrets out of %#v.
func (Credentials) GoString() string { return "credentials" }

// DockerCredentials are those of docker login: of $DOCKER_CONFIG/config.json or
// ~/.docker/config.json, and of the credential helpers that it names.
func DockerCredentials() (Credentials, error) {
	s, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return Credentials{}, fmt.Errorf("%w of Docker's configuration: %w", errCredentials, err)
	}
	return Credentials{store: s}, nil
}

// PasswordCredentials are a user and a password for one registry.
func PasswordCredentials(registry, username, password string) Credentials {
	s := credentials.NewMemoryStore()
	// A memory store takes everything.
	_ = s.Put(context.Background(), credentials.ServerAddressFromRegistry(registry), auth.Credential{Username: username, Password: password})
	return Credentials{store: s}
}

// lookup returns the credentials for a registry, by its canonical name.
func (c Credentials) lookup(ctx context.Context, registry string) (auth.Credential, error) {
	if c.store == nil {
		return auth.EmptyCredential, nil
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	found, err := c.store.Get(ctx, credentials.ServerAddressFromRegistry(registry))
	if errors.Is(err, exec.ErrNotFound) {
		return auth.EmptyCredential, fmt.Errorf("%w for %s: Docker's configuration names a credential helper that is not installed: %w", errCredentials, registry, err)
	}
	if err != nil {
		return auth.EmptyCredential, fmt.Errorf("%w for %s: %w", errCredentials, registry, err)
	}
	return found, nil
}

// pullSecret are the credentials for one registry as an artifact store takes them.
func pullSecret(registry string, c auth.Credential) (artifact.Credentials, error) {
	if c == auth.EmptyCredential {
		return artifact.Credentials{}, nil
	}
	config, err := json.Marshal(map[string]any{"auths": map[string]any{registry: map[string]string{
		"username": c.Username, "password": c.Password, "identitytoken": c.RefreshToken, "registrytoken": c.AccessToken,
	}}})
	if err != nil {
		return artifact.Credentials{}, err
	}
	return artifact.ParsePullSecret(config)
}
