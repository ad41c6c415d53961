package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/phase"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// Composer composes the UKIs of configs whose status names a stub, a kernel and an
// initrd.
type Composer interface {
	// Compose makes the UKI of a config for one boot attempt, signed where signer is
	// not nil. It returns boot.ErrInvalid where that can never be made, and
	// boot.ErrNotReady while something is missing.
	Compose(ctx context.Context, cfg v1alpha1.Config, attempt int64, signer *uki.Signer) (*v1alpha1.ComposedUKI, error)
	// UpToDate says whether status.composed is what Compose would make for the attempt
	// and with this signer, but for the time of the signature. Its errors are those of
	// Compose.
	UpToDate(ctx context.Context, cfg v1alpha1.Config, attempt int64, signer *uki.Signer) (bool, error)
}

// compose sees to it that the UKI that the machine boots next is composed, and says
// when to look again: an attempt that nobody boots in lapses.
func (r *reconciler) compose(ctx context.Context, cfg v1alpha1.Config) (again time.Duration, err error) {
	status := cfg.ConfigStatus()
	if !composes(status) {
		r.secrets.name(secretUse{keyOf(cfg), forSigning}, "")
		status.Composed = nil
		return 0, nil
	}
	if r.Composer == nil {
		return 0, phase.Terminal(v1alpha1.ReasonComposeFailed, errors.New("this operator composes no UKIs"))
	}
	attempt, until, err := r.Attempts.ComingOf(cfg)
	if errors.Is(err, boot.ErrSpent) || errors.Is(err, boot.ErrClosed) {
		return 0, nil // nothing is booted before another attempt is opened
	}
	if err != nil {
		return 0, err
	}
	if !until.IsZero() {
		again = max(until.Sub(r.Clock.Now()), 0) + soon
	}
	signer, err := r.signer(ctx, cfg)
	if err == nil {
		err = r.composed(ctx, cfg, attempt, signer)
	}
	return again, err
}

// composed makes status.composed what it has to be.
func (r *reconciler) composed(ctx context.Context, cfg v1alpha1.Config, attempt int64, signer *uki.Signer) error {
	status := cfg.ConfigStatus()
	err := r.trusted(ctx, cfg, signer)
	if err == nil && status.Composed != nil {
		var good bool
		if good, err = r.Composer.UpToDate(ctx, cfg, attempt, signer); good {
			return nil
		}
	}
	if err == nil {
		var made *v1alpha1.ComposedUKI
		start := r.Clock.Now()
		made, err = r.Composer.Compose(ctx, cfg, attempt, signer)
		if err == nil || firstFailure(cfg) {
			r.span(cfg, attempt, boot.Span{Name: boot.SpanCompose, Start: start, End: r.Clock.Now(), Err: err})
		}
		if err == nil {
			status.Composed = made
			return nil
		}
	}
	err = fmt.Errorf("composing the UKI of boot attempt %d: %w", attempt, err)
	switch {
	case errors.Is(err, ErrUnverified), errors.Is(err, ErrDemand), errors.Is(err, errSecretKey):
		status.Composed = nil
		return phase.Terminal(reasonOf(err), err)
	case errors.Is(err, boot.ErrInvalid):
		status.Composed = nil
		return phase.Terminal(v1alpha1.ReasonComposeFailed, err)
	}
	return phase.Retry(v1alpha1.ReasonComposeFailed, err)
}

// firstFailure says that a config's UKI was not found to be impossible to compose yet.
func firstFailure(cfg v1alpha1.Config) bool {
	c := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, v1alpha1.ConditionReady)
	return c == nil || c.Reason != v1alpha1.ReasonComposeFailed || c.ObservedGeneration != cfg.GetGeneration()
}

// trusted returns ErrUnverified where what this signer makes, or what nobody signs,
// would not be started by the machine's firmware.
func (r *reconciler) trusted(ctx context.Context, cfg v1alpha1.Config, signer *uki.Signer) error {
	d := demandOf(cfg)
	d.image = false // that was checked as the parts were pulled
	if r.Verifier == nil {
		return demandsNothing(!d.file)
	}
	demands, err := r.fetches.demands(ctx, d, versions{})
	if err != nil {
		return err
	}
	return r.Verifier.Signer(signer, r.imageOf(cfg), demands)
}

// composes says whether a status names what a UKI is composed of.
func composes(s *v1alpha1.ConfigStatus) bool {
	for _, a := range s.Artifacts {
		if a.Role == v1alpha1.ArtifactRole(boot.RoleStub) {
			return true
		}
	}
	return false
}

// signer reads the key that a config's UKI is signed with, which nobody keeps; nil
// where there is none.
func (r *reconciler) signer(ctx context.Context, cfg v1alpha1.Config) (*uki.Signer, error) {
	u := secretUse{keyOf(cfg), forSigning}
	name := r.signingSecret(cfg)
	r.secrets.point(u, name)
	if name.Name == "" {
		return nil, nil //nolint:nilnil // it is not signed
	}
	at := r.secrets.look(name)
	secret, v, err := r.secrets.get(ctx, name)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	r.secrets.found(at, v)
	r.secrets.mark(u, v)
	if err != nil {
		return nil, phase.Wait(v1alpha1.ReasonSecretNotFound, time.Second, fmt.Errorf("there is no Secret %s, which composed UKIs are signed with", name))
	}
	s, err := readSigner(secret)
	if err != nil {
		return nil, phase.Terminal(v1alpha1.ReasonSigningKeyInvalid, fmt.Errorf("Secret %s: %w", name, err)) //nolint:staticcheck // a kind's name
	}
	return s, nil
}

// signingSecret is the Secret that a config names, or the operator's.
func (r *reconciler) signingSecret(cfg v1alpha1.Config) types.NamespacedName {
	h, ok := cfg.(*v1alpha1.HTTPBootConfig)
	if ok && h.Spec.Compose != nil && secretName(h.Spec.Compose.SigningSecretRef) != "" {
		return types.NamespacedName{Namespace: cfg.GetNamespace(), Name: h.Spec.Compose.SigningSecretRef.Name}
	}
	return r.SigningSecret
}

func readSigner(s *corev1.Secret) (*uki.Signer, error) {
	for _, key := range []string{corev1.TLSPrivateKeyKey, corev1.TLSCertKey} {
		if len(s.Data[key]) == 0 {
			return nil, fmt.Errorf("it has no key %s; kubectl create secret tls makes one that has %s and %s", key, corev1.TLSPrivateKeyKey, corev1.TLSCertKey)
		}
	}
	key, err := uki.ParseKey(s.Data[corev1.TLSPrivateKeyKey], nil)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", corev1.TLSPrivateKeyKey, err)
	}
	certificates, err := uki.ParseCertificates(s.Data[corev1.TLSCertKey])
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", corev1.TLSCertKey, err)
	}
	return uki.NewSigner(key, certificates...)
}
