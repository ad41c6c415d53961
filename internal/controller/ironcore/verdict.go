package ironcore

import (
	"errors"
	"fmt"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/translate"
)

// What a ServerBootConfiguration's status says besides what its children do.
const (
	// ConditionImageValidation is False while the image cannot be booted, and
	// Unknown while the registry does not answer.
	ConditionImageValidation = "ImageValidation"

	ReasonImageValid       = "ImageValid"
	ReasonNoImage          = "NoImage"
	ReasonValidationFailed = "ValidationFailed"

	// ReasonNotReferenced: the Server boots another configuration.
	ReasonNotReferenced = "NotReferenced"
	// ReasonServerNotFound: spec.serverRef names no Server that there is.
	ReasonServerNotFound = "ServerNotFound"
	// ReasonNameTaken: an object of the child's name is somebody else's.
	ReasonNameTaken = "NameTaken"
	// ReasonRefused: the API server does not accept the child.
	ReasonRefused = "Refused"
)

// verdict is what is made of a configuration's image.
type verdict struct {
	// paths are the children to have.
	paths     translate.Paths
	condition metav1.Condition
}

// judge decides which children a configuration is to have. As long as nothing is
// known of its image that are those that it has, with the new image: what the
// machine was to boot before must not be booted any more. An image that was good
// and turned bad keeps children that are Ready: they hold what was verified.
func (r *reconciler) judge(cfg *metalv1alpha1.ServerBootConfiguration, arch boot.Architecture, existing []child) verdict {
	key := client.ObjectKeyFromObject(cfg)
	if cfg.Spec.Image == "" {
		r.images.forget(key)
		paths, err := translate.ChooseWithoutImage(r.enabled)
		if err != nil {
			return bad(translate.Paths{}, err)
		}
		return verdict{paths, condition(metav1.ConditionTrue, ReasonNoImage, "spec.image is empty: the machine boots the operator's default image, if there is one, or gets its Ignition alone")}
	}
	a := r.images.want(key, cfg.Spec.Image, arch)
	err := a.err
	var paths translate.Paths
	if a.artifacts != nil {
		var unfit error
		if paths, unfit = translate.Choose(a.artifacts, r.enabled, r.Both); unfit != nil {
			err = fmt.Errorf("%s: %w", cfg.Spec.Image, unfit)
		}
	}
	switch {
	case !a.asked:
		return verdict{pathsOf(existing), unasked(cfg)}
	case err == nil:
		return verdict{paths, condition(metav1.ConditionTrue, ReasonImageValid, fmt.Sprintf("%s can be booted by %s", cfg.Spec.Image, arch))}
	case definite(err):
		return bad(pathsOf(verified(existing, cfg.Spec.Image)), err)
	case paths.Any():
		return verdict{paths, condition(metav1.ConditionTrue, ReasonImageValid, fmt.Sprintf("what was found earlier can be booted by %s; looking again failed: %s", arch, err))}
	}
	return verdict{pathsOf(existing), condition(metav1.ConditionUnknown, v1alpha1.ReasonRegistryError, err.Error())}
}

func bad(paths translate.Paths, err error) verdict {
	return verdict{paths, condition(metav1.ConditionFalse, ReasonValidationFailed, err.Error())}
}

// unasked is the condition until there is an answer: what it was, if that was
// about this image.
func unasked(cfg *metalv1alpha1.ServerBootConfiguration) metav1.Condition {
	was := meta.FindStatusCondition(cfg.Status.Conditions, ConditionImageValidation)
	if was != nil && was.ObservedGeneration == cfg.Generation {
		return *was
	}
	return condition(metav1.ConditionUnknown, v1alpha1.ReasonProgressing, "looking at "+cfg.Spec.Image)
}

func condition(status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: ConditionImageValidation, Status: status, Reason: reason, Message: message}
}

// definite says that the registry, or the operator's settings, gave an answer
// that stands until somebody changes something. Anything else passes.
func definite(err error) bool {
	return artifact.Terminal(err) || errors.Is(err, boot.ErrInvalid) ||
		errors.Is(err, artifact.ErrNotFound) || errors.Is(err, artifact.ErrUnauthorized)
}

// cap limits what the children say to what the image allows: with a bad one the
// state is Ready, where they hold what was verified earlier, or Error; as long as
// nothing is known, what they say of an image that may not be theirs is no Error.
func (v verdict) cap(out outcome) outcome {
	ready := out.state == metalv1alpha1.ServerBootConfigurationStateReady
	switch v.condition.Status {
	case metav1.ConditionFalse:
		if !ready {
			out.state = metalv1alpha1.ServerBootConfigurationStateError
			out.explain(v.condition)
		}
	case metav1.ConditionUnknown:
		if !ready {
			out.state = metalv1alpha1.ServerBootConfigurationStatePending
			out.explain(v.condition)
		}
	}
	out.conditions = append(out.conditions, v.condition)
	return out
}

// explain makes the image the reason for not being ready.
func (o *outcome) explain(c metav1.Condition) {
	meta.SetStatusCondition(&o.conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: c.Reason, Message: c.Message,
	})
}
