package host

import (
	"context"
	"errors"
	"fmt"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// bmc lends the host's BMC to f. What goes wrong becomes a failure of this kind,
// or of registration where it is about who we are or who the BMC is.
func (v *visit) bmc(ctx context.Context, kind metal3.ErrorType, f func(context.Context, redfish.BMC) error) error {
	c, secret, err := v.connection(ctx)
	if err != nil {
		return err
	}
	if err := v.trying(ctx, secret); err != nil {
		return err
	}
	err = v.BMCs.Do(ctx, c, f)
	if ctx.Err() != nil {
		return ctx.Err() // what failed for that is no news of the host
	}
	if err == nil {
		v.host.UpdateGoodCredentials(*secret)
		return nil
	}
	return v.judge(kind, err)
}

// judge says what an error of a BMC means for the host.
func (v *visit) judge(kind metal3.ErrorType, err error) error {
	var own *failure
	switch {
	case errors.As(err, &own), errors.Is(err, errBehind):
		return err
	case errors.Is(err, redfish.ErrUnauthorized):
		return v.secretWrong(v.registrationKind(), ReasonCredentialsRefused,
			fmt.Errorf("%w; they are not tried again until Secret %s changes, since accounts get locked", err, v.host.Spec.BMC.CredentialsName))
	case errors.Is(err, redfish.ErrWrongSystem):
		return wrong(v.registrationKind(), ReasonAnotherMachine,
			fmt.Errorf("%w; nothing is done to it: put the machine back, or, if it was exchanged on purpose, remove the annotation %s", err, v1alpha1.HostSystemUUIDAnnotation))
	case errors.Is(err, redfish.ErrSeveralSystems), errors.Is(err, redfish.ErrNotBMC), errors.Is(err, redfish.ErrLeavesHost), errors.Is(err, redfish.ErrTooLarge):
		return failed(v.registrationKind(), ReasonBMCUnusable, err)
	case errors.Is(err, redfish.ErrCertificate):
		return failed(v.registrationKind(), ReasonCertificateNotTrusted,
			fmt.Errorf("%w: give its authority to the operator (--bmc-ca-file), or set spec.bmc.disableCertificateVerification", err))
	case errors.Is(err, redfish.ErrUnreachable), errors.Is(err, redfish.ErrLost), errors.Is(err, redfish.ErrBroken):
		return failed(kind, ReasonBMCUnreachable, err)
	}
	return failed(kind, ReasonBMCRefused, err)
}

func (v *visit) registrationKind() metal3.ErrorType {
	if v.host.WasProvisioned() {
		return metal3.ProvisionedRegistrationError
	}
	return metal3.RegistrationError
}

// connection says how to reach the BMC, and by which Secret.
func (v *visit) connection(ctx context.Context) (redfish.Connection, *corev1.Secret, error) {
	spec := v.host.Spec.BMC
	var none redfish.Connection
	address, err := redfish.ParseAddress(spec.Address)
	if err != nil {
		return none, nil, wrong(v.registrationKind(), ReasonInvalidAddress, fmt.Errorf("spec.bmc.address: %w", err))
	}
	secret, err := v.credentials(ctx)
	if err != nil {
		return none, nil, err
	}
	c := redfish.Connection{
		Address: address, Username: string(secret.Data["username"]), Password: string(secret.Data["password"]),
		CA: v.BMCCA, InsecureSkipVerify: spec.DisableCertificateVerification, Session: v.BMCSessions,
		UUID: v.host.Annotations[v1alpha1.HostSystemUUIDAnnotation], Serial: v.serial(),
	}
	return c, secret, nil
}

// serial is what inspection recorded of the machine.
func (v *visit) serial() string {
	if h := v.host.Status.HardwareDetails; h != nil && v.host.Annotations[v1alpha1.HostSystemUUIDAnnotation] == "" {
		return h.SystemVendor.SerialNumber
	}
	return ""
}

// credentials reads the Secret that the host names. Refused ones are not used
// again.
func (v *visit) credentials(ctx context.Context) (*corev1.Secret, error) {
	key := v.host.CredentialsKey()
	if key.Name == "" {
		return nil, wrong(v.registrationKind(), ReasonNoCredentials, errors.New("spec.bmc.credentialsName is empty; set it to the name of a Secret with the keys username and password"))
	}
	secret := &corev1.Secret{}
	err := v.client.Get(ctx, key, secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, v.secretWrong(v.registrationKind(), ReasonNoCredentials, fmt.Errorf("there is no Secret %s (spec.bmc.credentialsName)", key))
	case err != nil:
		return nil, fmt.Errorf("reading Secret %s: %w", key, err)
	case len(secret.Data["username"]) == 0 || len(secret.Data["password"]) == 0:
		return nil, v.secretWrong(v.registrationKind(), ReasonNoCredentials, fmt.Errorf("secret %s lacks the keys username and password, or one is empty", key))
	case v.refused(secret):
		return nil, v.secretWrong(v.registrationKind(), ReasonCredentialsRefused, errors.New(v.host.Status.ErrorMessage))
	}
	return secret, nil
}

// refused says whether the BMC has refused exactly these credentials.
func (v *visit) refused(secret *corev1.Secret) bool {
	c := meta.FindStatusCondition(v.host.Status.Conditions, metal3.ManageableCondition)
	return c != nil && c.Status == metav1.ConditionFalse && c.Reason == ReasonCredentialsRefused && c.ObservedGeneration == v.host.Generation &&
		v.host.Status.ErrorMessage != "" && v.host.Status.TriedCredentials.Match(*secret)
}

// trying writes down which credentials are about to be sent, before they are.
func (v *visit) trying(ctx context.Context, secret *corev1.Secret) error {
	if v.host.Status.TriedCredentials.Match(*secret) {
		return nil
	}
	status := v.host.Status
	v.host.Status = *v.before.Status.DeepCopy()
	v.host.UpdateTriedCredentials(*secret)
	if err := v.save(ctx); err != nil {
		return err
	}
	tried := v.host.Status.TriedCredentials
	updated := v.host.Status.LastUpdated
	v.host.Status = status
	v.host.Status.TriedCredentials, v.host.Status.LastUpdated = tried, updated
	return nil
}

// secretWrong is a failure that only a change of a Secret mends, which is read
// again now and then.
func (v *visit) secretWrong(kind metal3.ErrorType, reason string, err error) error {
	return &failure{kind: kind, reason: reason, err: err, after: min(v.PowerInterval, maxRetry), settled: true}
}
