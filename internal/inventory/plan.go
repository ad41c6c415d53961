package inventory

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// plan makes a config's plan of its spec and status.
func (i *Inventory) plan(cfg v1alpha1.Config) *boot.Plan {
	c, status := cfg.Common(), cfg.ConfigStatus()
	machine, identity := claim.Machine(cfg, i.options.Architecture)
	artifacts, named := artifactsOf(status)
	minimum, proof := i.minimumProof(c.MinimumProof)
	p := &boot.Plan{
		Object:       refOf(cfg),
		Machine:      machine,
		Artifacts:    artifacts,
		Image:        repository(c.Image),
		Policy:       policy(c.BootPolicy),
		MinimumProof: minimum,
		HasIgnition:  c.IgnitionSecretRef != nil && c.IgnitionSecretRef.Name != "",
		Attempt:      claim.Attempt(cfg),
		NotReady:     notReady(cfg),
	}
	for _, err := range []error{identity, named, proof} {
		if p.NotReady == "" && err != nil {
			p.NotReady = err.Error()
		}
	}
	i.uki(cfg, p)
	return p
}

// uki fills what only an HTTPBootConfig says.
func (i *Inventory) uki(cfg v1alpha1.Config, p *boot.Plan) {
	h, ok := cfg.(*v1alpha1.HTTPBootConfig)
	if !ok {
		return
	}
	if _, ok := p.Artifact(boot.RoleUKI); !ok {
		p.ForeignURL = h.Spec.UKIURL
	}
	if p.Image == "" && h.Spec.UKIURL == "" {
		p.Image = repository(i.options.DefaultImage)
	}
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

// notReady says why the status does not allow to serve the plan; empty when
// it does.
func notReady(cfg v1alpha1.Config) string {
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
