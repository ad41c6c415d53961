package bootconfig

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/ignition"
	"github.com/boot-operator/boot-operator/internal/phase"
	"github.com/boot-operator/boot-operator/internal/userdata"
)

// soon is when to look again at something that changed while it was looked at.
const soon = time.Second

// ignition checks the machine's document: Ignition, or user data for cloud-init.
func (r *reconciler) ignition(ctx context.Context, cfg v1alpha1.Config) error {
	u := secretUse{keyOf(cfg), forIgnition}
	ref := cfg.Common().IgnitionSecretRef
	if ref == nil || ref.Name == "" {
		r.secrets.name(u, "")
		return phase.Done(v1alpha1.ReasonNoIgnition, "no Ignition is configured")
	}
	return r.checked(ctx, cfg, u, ref.Name, v1alpha1.ConditionIgnitionValid, validDocument)
}

// validDocument checks Ignition, or user data for cloud-init.
func validDocument(s *corev1.Secret) error {
	found, err := userdata.Read(s.Data)
	switch {
	case err != nil:
		return phase.Terminal(v1alpha1.ReasonSecretKeyMissing, fmt.Errorf("Secret %s: %w", s.Name, err)) //nolint:staticcheck // a kind's name
	case found.ForCloudInit():
		return validUserData(s, found)
	}
	d, err := ignition.Check(found.Data, found.Format)
	if err != nil {
		return phase.Terminal(v1alpha1.ReasonIgnitionInvalid, fmt.Errorf("Secret %s: %w", s.Name, err)) //nolint:staticcheck // a kind's name
	}
	done := phase.Done(v1alpha1.ReasonIgnitionValid, "Ignition %s, %d bytes", d.Version, len(d.JSON))
	if len(d.Warnings) > 0 {
		return phase.Done(v1alpha1.ReasonIgnitionValid, "%s; %s", done.Error(), strings.Join(d.Warnings, "; ")).Warn()
	}
	return done
}

func validUserData(s *corev1.Secret, found userdata.Document) error {
	if err := userdata.CheckCloudInit(found.CloudInit()); err != nil {
		return phase.Terminal(v1alpha1.ReasonIgnitionInvalid, fmt.Errorf("Secret %s: %w", s.Name, err)) //nolint:staticcheck // a kind's name
	}
	return phase.Done(v1alpha1.ReasonCloudConfig, "user data for cloud-init, %d bytes", len(found.Data))
}

func missingKey(s *corev1.Secret, key string) error {
	return phase.Terminal(v1alpha1.ReasonSecretKeyMissing, fmt.Errorf("Secret %s has no key %q", s.Name, key)) //nolint:staticcheck // a kind's name
}

// checked is what check makes of a Secret. The Secret is read again only when it
// changed; check must not keep any of its content.
func (r *reconciler) checked(ctx context.Context, cfg v1alpha1.Config, u secretUse, name, condition string, check func(*corev1.Secret) error) error {
	secretName := r.secrets.name(u, name)
	if verdict, ok := r.secrets.recall(u, cfg.GetGeneration()); ok {
		return verdict
	}
	at := r.secrets.look(secretName)
	secret, v, err := r.secrets.get(ctx, secretName)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading Secret %s: %w", name, err)
	}
	r.secrets.found(at, v)
	fresh := r.secrets.mark(u, v)
	if err != nil {
		return r.missing(cfg, u, name, condition)
	}
	verdict := check(secret)
	if !fresh {
		return phase.Wait(v1alpha1.ReasonProgressing, soon, fmt.Errorf("Secret %s is changing", name)) //nolint:staticcheck // a kind's name
	}
	r.secrets.remember(u, cfg.GetGeneration(), verdict)
	return verdict
}

// missing waits for a Secret: at first often, since it is likely applied together
// with the config, then as often as any Secret is polled.
func (r *reconciler) missing(cfg v1alpha1.Config, u secretUse, name, condition string) error {
	err := fmt.Errorf("there is no Secret %s in namespace %s", name, cfg.GetNamespace())
	var age time.Duration
	if c := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, condition); c != nil && c.Reason == v1alpha1.ReasonSecretNotFound {
		age = r.Clock.Since(c.LastTransitionTime.Time)
	}
	if age > r.SecretPollPeriod {
		wait := phase.Wait(v1alpha1.ReasonSecretNotFound, 0, err)
		r.secrets.remember(u, cfg.GetGeneration(), wait)
		return wait
	}
	return phase.Wait(v1alpha1.ReasonSecretNotFound, max(age, time.Second), err)
}
