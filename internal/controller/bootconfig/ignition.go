package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/ignition"
	"github.com/boot-operator/boot-operator/internal/networkdata"
	"github.com/boot-operator/boot-operator/internal/phase"
	"github.com/boot-operator/boot-operator/internal/userdata"
)

// soon is when to look again at something that changed while it was looked at.
const soon = time.Second

// found is what a check of a Secret says that has nothing wrong.
type found struct {
	reason, message string
	warn            bool
	// ignition and cloudInit say what the document is for.
	ignition, cloudInit bool
}

// Error is the message: what a check says travels as an error.
func (f *found) Error() string { return f.message }

// ignition checks the machine's document, Ignition or user data for cloud-init,
// and what goes with it.
func (r *reconciler) ignition(ctx context.Context, cfg v1alpha1.Config) error {
	c := cfg.Common()
	beside := secretName(c.MetaDataSecretRef) != "" || secretName(c.NetworkDataSecretRef) != ""
	own := r.named(ctx, cfg, forIgnition, c.IgnitionSecretRef, func(s *corev1.Secret) error { return validDocument(s, beside) })
	meta := r.named(ctx, cfg, forMetaData, c.MetaDataSecretRef, validMetaData)
	network := r.named(ctx, cfg, forNetworkData, c.NetworkDataSecretRef, validNetworkData)
	document := &found{reason: v1alpha1.ReasonNoIgnition, message: "no Ignition is configured"}
	if own != nil && !errors.As(own, &document) {
		return own
	}
	if err := r.taken(ctx, cfg, document); err != nil {
		return err
	}
	messages := []string{document.message}
	for _, verdict := range []error{meta, network} {
		var ok *found
		switch {
		case errors.As(verdict, &ok):
			messages = append(messages, ok.message)
		case verdict != nil:
			return verdict
		}
	}
	if own == nil && beside {
		messages = append(messages, "nobody is given it without ignitionSecretRef")
	}
	r.settle(cfg, document)
	done := phase.Done(document.reason, "%s", strings.Join(messages, "; "))
	if document.warn || own == nil && beside {
		return done.Warn()
	}
	return done
}

// settle writes down already what the document is for: what is composed of the config
// depends on it, and the rest of the condition comes at the end.
func (r *reconciler) settle(cfg v1alpha1.Config, document *found) {
	meta.SetStatusCondition(&cfg.ConfigStatus().Conditions, metav1.Condition{
		Type: v1alpha1.ConditionIgnitionValid, Status: metav1.ConditionTrue, Reason: document.reason, Message: document.message,
		ObservedGeneration: cfg.GetGeneration(), LastTransitionTime: metav1.NewTime(r.Clock.Now()),
	})
}

func secretName(ref *corev1.LocalObjectReference) string {
	if ref == nil {
		return ""
	}
	return ref.Name
}

// named is what check makes of a Secret that a config names for a purpose; nil
// where it names none.
func (r *reconciler) named(ctx context.Context, cfg v1alpha1.Config, p purpose, ref *corev1.LocalObjectReference, check func(*corev1.Secret) error) error {
	u := secretUse{keyOf(cfg), p}
	if secretName(ref) == "" {
		r.secrets.name(u, "")
		return nil
	}
	return r.checked(ctx, cfg, u, ref.Name, v1alpha1.ConditionIgnitionValid, check)
}

// invalidSecret says that something of a Secret has to be changed.
func invalidSecret(s *corev1.Secret, reason string, err error) error {
	return phase.Terminal(reason, fmt.Errorf("Secret %s: %w", s.Name, err)) //nolint:staticcheck // a kind's name
}

// validDocument checks Ignition, or user data for cloud-init; beside says that
// files are added to Ignition.
func validDocument(s *corev1.Secret, beside bool) error {
	document, err := userdata.Read(s.Data)
	switch {
	case errors.Is(err, userdata.ErrFormat):
		return invalidSecret(s, v1alpha1.ReasonUserDataFormatUnknown, err)
	case err != nil:
		return invalidSecret(s, v1alpha1.ReasonSecretKeyMissing, err)
	case document.ForCloudInit():
		return validUserData(s, document)
	}
	d, err := ignition.Check(document.Data, document.Format)
	if err == nil && beside {
		_, err = ignition.AddFiles(d.JSON, ignition.File{Path: ignition.MetaDataPath}, ignition.File{Path: ignition.NetworkConfigPath})
	}
	if err != nil {
		return invalidSecret(s, v1alpha1.ReasonIgnitionInvalid, err)
	}
	ok := &found{reason: v1alpha1.ReasonIgnitionValid, message: fmt.Sprintf("Ignition %s, %d bytes", d.Version, len(d.JSON)), ignition: true}
	if len(d.Warnings) > 0 {
		ok.message, ok.warn = ok.message+"; "+strings.Join(d.Warnings, "; "), true
	}
	return ok
}

func validUserData(s *corev1.Secret, d userdata.Document) error {
	if err := userdata.CheckCloudInit(d.CloudInit()); err != nil {
		return invalidSecret(s, v1alpha1.ReasonIgnitionInvalid, err)
	}
	return &found{reason: v1alpha1.ReasonCloudConfig, message: fmt.Sprintf("user data for cloud-init, %d bytes", len(d.Data)), cloudInit: true}
}

func validMetaData(s *corev1.Secret) error {
	m, err := userdata.MetaData(s.Data)
	switch {
	case errors.Is(err, userdata.ErrNoKey):
		return missingKey(s, v1alpha1.SecretKeyMetaData)
	case err != nil:
		return invalidSecret(s, v1alpha1.ReasonMetaDataInvalid, err)
	}
	return &found{message: fmt.Sprintf("meta data, %d keys", len(m))}
}

func validNetworkData(s *corev1.Secret) error {
	text, ok := s.Data[v1alpha1.SecretKeyNetworkData]
	if !ok {
		return missingKey(s, v1alpha1.SecretKeyNetworkData)
	}
	c, err := networkdata.Convert(text)
	if err != nil {
		return invalidSecret(s, v1alpha1.ReasonNetworkDataInvalid, fmt.Errorf("key %s: %w", v1alpha1.SecretKeyNetworkData, err))
	}
	return &found{message: fmt.Sprintf("network data, %d links and %d networks", c.Links, c.Networks)}
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
