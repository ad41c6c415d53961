package prefetch

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/artifact"
)

// pullSecretTimeout bounds the read of a pull secret.
const pullSecretTimeout = 10 * time.Second

// pullSecrets reads the credentials of images, each time anew: they are used
// seldom and expire.
type pullSecrets struct {
	reader   client.Reader
	fallback artifact.Credentials
}

func (s pullSecrets) read(ctx context.Context, y way) (artifact.Credentials, error) {
	if y.pullSecret == "" {
		return s.fallback, nil
	}
	ctx, cancel := context.WithTimeout(ctx, pullSecretTimeout)
	defer cancel()
	var secret corev1.Secret
	if err := s.reader.Get(ctx, client.ObjectKey{Namespace: y.namespace, Name: y.pullSecret}, &secret); err != nil {
		return artifact.Credentials{}, fmt.Errorf("reading pull secret %s/%s: %w", y.namespace, y.pullSecret, err)
	}
	c, err := artifact.ParsePullSecret(secret.Data[corev1.DockerConfigJsonKey])
	if err != nil {
		return c, fmt.Errorf("reading pull secret %s/%s: %w", y.namespace, y.pullSecret, err)
	}
	return c, nil
}
