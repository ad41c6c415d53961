package inventory

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// Plan makes the plan of a config as it is given, whatever is in the cache.
func (i *Inventory) Plan(cfg v1alpha1.Config) *boot.Plan { return i.plan(cfg) }

// plan makes a config's plan of its spec and status.
func (i *Inventory) plan(cfg v1alpha1.Config) *boot.Plan {
	c, status := cfg.Common(), cfg.ConfigStatus()
	machine, identity := claim.Machine(cfg, i.options.Architecture)
	artifacts, named := artifactsOf(status)
	minimum, proof := i.minimumProof(c.MinimumProof)
	secret := c.IgnitionSecretRef != nil && c.IgnitionSecretRef.Name != ""
	cloud := secret && isCloudConfig(cfg)
	p := &boot.Plan{
		Object:       refOf(cfg),
		Machine:      machine,
		Artifacts:    artifacts,
		Image:        repository(c.Image),
		Policy:       policy(c.BootPolicy),
		MinimumProof: minimum,
		HasIgnition:  secret && !cloud,
		HasCloudInit: cloud,
		Attempt:      claim.Attempt(cfg),
		NotReady:     notReady(cfg),
		Paused:       paused(cfg),
		Strict:       c.SecureBoot || c.Verification != nil || status.Verification != nil,
	}
	var composed error
	switch c := cfg.(type) {
	case *v1alpha1.HTTPBootConfig:
		i.uki(&c.Spec, p)
		composed = compose(c, p)
	case *v1alpha1.IPXEBootConfig:
		script(&c.Spec, p)
	}
	for _, err := range []error{identity, named, proof, composed} {
		if p.NotReady == "" && err != nil {
			p.NotReady = err.Error()
		}
	}
	return p
}

// uki fills what only an HTTPBootConfig says.
func (i *Inventory) uki(s *v1alpha1.HTTPBootConfigSpec, p *boot.Plan) {
	foreign(p, boot.RoleUKI, s.UKIURL)
	if p.Image == "" && s.UKIURL == "" {
		p.Image = repository(i.options.DefaultImage)
	}
}

// compose fills what is said of the UKI that is composed for the machine, where the
// spec asks for one or the status names what one is composed of. A finished UKI
// beside it is not served: it has not what the spec asks for.
func compose(c *v1alpha1.HTTPBootConfig, p *boot.Plan) (err error) {
	_, stub := p.Artifact(boot.RoleStub)
	p.KernelArguments = c.Spec.KernelArguments
	p.Composes = stub || c.Spec.Compose != nil || len(c.Spec.KernelArguments) > 0
	if !p.Composes {
		return nil
	}
	p.Foreign = nil
	p.Composed, err = composedOf(c.Status.Composed)
	return err
}

// composedOf reads the composed UKI of a status. Its signature is shared with the
// status.
func composedOf(c *v1alpha1.ComposedUKI) (*boot.Composed, error) {
	if c == nil {
		return nil, errors.New("the machine's UKI is being composed")
	}
	digest, err := boot.ParseDigest(c.Digest)
	switch {
	case err != nil:
		return nil, fmt.Errorf("status.composed: %w", err)
	case c.Size <= 0 || c.Attempt < 0 || c.TokenKey < 0 || c.TokenKey > math.MaxUint8:
		return nil, fmt.Errorf("status.composed: %w: size %d, attempt %d, token key %d", boot.ErrInvalid, c.Size, c.Attempt, c.TokenKey)
	}
	return &boot.Composed{Attempt: c.Attempt, Digest: digest, Size: c.Size, TokenKey: byte(c.TokenKey), Signature: c.Signature}, nil
}

// script fills what only an IPXEBootConfig says.
func script(s *v1alpha1.IPXEBootConfigSpec, p *boot.Plan) {
	foreign(p, boot.RoleKernel, s.KernelURL)
	foreign(p, boot.RoleInitrd, s.InitrdURL)
	foreign(p, boot.RoleSquashfs, s.SquashfsURL)
	p.KernelArguments, p.ScriptTemplate = s.KernelArguments, s.ScriptTemplate
	p.HasScript = s.IPXEScriptSecretRef != nil && s.IPXEScriptSecretRef.Name != ""
}

// foreign adds the URL of what the status names no artifact for.
func foreign(p *boot.Plan, role boot.Role, url string) {
	if _, ok := p.Artifact(role); ok || url == "" {
		return
	}
	if p.Foreign == nil {
		p.Foreign = make(map[boot.Role]string, 1)
	}
	p.Foreign[role] = url
}

// isCloudConfig says whether the document of this spec was found to be user data
// for cloud-init. Before the operator has looked it counts as Ignition.
func isCloudConfig(cfg v1alpha1.Config) bool {
	c := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, v1alpha1.ConditionIgnitionValid)
	return c != nil && c.Reason == v1alpha1.ReasonCloudConfig && c.ObservedGeneration == cfg.GetGeneration()
}

func refOf(cfg v1alpha1.Config) boot.Ref {
	return boot.Ref{Kind: cfg.Kind(), Namespace: cfg.GetNamespace(), Name: cfg.GetName(), UID: string(cfg.GetUID())}
}

// minimumProof fails closed: a proof that we do not know is the strongest.
func (i *Inventory) minimumProof(p v1alpha1.Proof) (boot.Proof, error) {
	if p == "" {
		return i.options.MinimumProof, nil
	}
	proof, err := boot.ParseProof(string(p))
	if err != nil {
		return boot.BMC, fmt.Errorf("spec.minimumProof: %w", err)
	}
	return proof, nil
}

func policy(p v1alpha1.BootPolicy) boot.Policy {
	if p == v1alpha1.BootPolicyOnce {
		return boot.Once
	}
	return boot.Always
}

// repository strips digest and tag from an image reference. A colon before the
// last slash belongs to a port.
func repository(reference string) string {
	reference, _, _ = strings.Cut(reference, "@")
	if colon := strings.LastIndexByte(reference, ':'); colon > strings.LastIndexByte(reference, '/') {
		return reference[:colon]
	}
	return reference
}

func paused(cfg v1alpha1.Config) bool {
	_, ok := cfg.GetAnnotations()[v1alpha1.PausedAnnotation]
	return ok
}

// notReady says why the annotations or the status do not allow to serve the
// plan; empty when they do.
func notReady(cfg v1alpha1.Config) string {
	if paused(cfg) {
		return "paused by the annotation " + v1alpha1.PausedAnnotation
	}
	ready := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		return "the operator has not looked at this config yet"
	case ready.ObservedGeneration != cfg.GetGeneration():
		return fmt.Sprintf("the operator has not looked at generation %d yet; its status is about generation %d", cfg.GetGeneration(), ready.ObservedGeneration)
	case ready.Status != metav1.ConditionTrue && ready.Message != "":
		return ready.Reason + ": " + ready.Message
	case ready.Status != metav1.ConditionTrue:
		return "the condition Ready is " + string(ready.Status) + ", reason " + ready.Reason
	}
	return ""
}

// artifactsOf returns what the status names; the error says what it leaves out.
func artifactsOf(status *v1alpha1.ConfigStatus) ([]boot.Artifact, error) {
	if len(status.Artifacts) == 0 {
		return nil, nil
	}
	artifacts := make([]boot.Artifact, 0, len(status.Artifacts))
	var failure error
	for _, a := range status.Artifacts {
		digest, err := boot.ParseDigest(a.Digest)
		if err == nil && a.Size < 0 {
			err = fmt.Errorf("%w: size %d is negative", boot.ErrInvalid, a.Size)
		}
		if err != nil {
			failure = fmt.Errorf("status.artifacts, role %s: %w", a.Role, err)
			continue
		}
		artifacts = append(artifacts, boot.Artifact{Role: boot.Role(a.Role), Digest: digest, Size: a.Size, Source: a.Source})
	}
	return artifacts, failure
}
