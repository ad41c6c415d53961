package bootconfig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/phase"
	"github.com/boot-operator/boot-operator/internal/render"
)

// artifacts sees to it that what the machine boots is in the store.
func (r *reconciler) artifacts(ctx context.Context, cfg v1alpha1.Config) error {
	switch c := cfg.(type) {
	case *v1alpha1.HTTPBootConfig:
		return r.bootHTTP(c)
	case *v1alpha1.IPXEBootConfig:
		return r.bootIPXE(ctx, c)
	}
	return fmt.Errorf("a %T boots nothing", cfg)
}

func (r *reconciler) bootHTTP(cfg *v1alpha1.HTTPBootConfig) error {
	switch {
	case cfg.Spec.Image != "":
		return r.pulled(cfg, r.target(cfg, cfg.Spec.Image), v1alpha1.ReasonArtifactsVerified)
	case cfg.Spec.UKIURL != "":
		return r.pulled(cfg, r.foreign(cfg), v1alpha1.ReasonArtifactsVerified)
	case r.DefaultImage != "":
		return r.pulled(cfg, r.target(cfg, r.DefaultImage), v1alpha1.ReasonDefaultImage)
	}
	r.unpulled(cfg)
	if ref := cfg.Spec.IgnitionSecretRef; ref != nil && ref.Name != "" {
		return phase.Done(v1alpha1.ReasonNothingToBoot, "neither image nor ukiURL is set: the config is there for its Ignition alone")
	}
	return phase.Terminal(v1alpha1.ReasonNothingToBoot, errors.New("set spec.image, spec.ukiURL or spec.ignitionSecretRef; there is no default image (--default-httpboot-oci-image)"))
}

func (r *reconciler) bootIPXE(ctx context.Context, cfg *v1alpha1.IPXEBootConfig) error {
	u := secretUse{keyOf(cfg), forScript}
	var script error
	if ref := cfg.Spec.IPXEScriptSecretRef; ref != nil && ref.Name != "" {
		script = r.checked(ctx, cfg, u, ref.Name, v1alpha1.ConditionArtifactsReady, hasScript)
	} else {
		r.secrets.name(u, "")
	}
	if err := renderable(cfg); err != nil {
		r.unpulled(cfg)
		return err
	}
	var image error
	if cfg.Spec.Image != "" {
		image = r.pulled(cfg, r.target(cfg, cfg.Spec.Image), v1alpha1.ReasonArtifactsVerified)
	} else {
		r.unpulled(cfg)
	}
	switch {
	case script != nil && !phase.IsDone(script):
		return script
	case image != nil:
		return image
	case cfg.Spec.KernelURL != "":
		return phase.Done(v1alpha1.ReasonForeignURL, "kernel and initrd are fetched from their URLs by the machine itself; the operator does not verify them")
	}
	if script != nil {
		return script
	}
	return phase.Terminal(v1alpha1.ReasonNothingToBoot, errors.New("set spec.image, spec.kernelURL and spec.initrdURL, or spec.ipxeScriptSecretRef"))
}

// renderable says whether a script can be made of what the spec says.
// The error tells all that is wrong, with the reason of what comes first.
func renderable(cfg *v1alpha1.IPXEBootConfig) error {
	var reason string
	var wrong []string
	add := func(r, field string, err error) {
		if err != nil {
			reason = cmp.Or(reason, r)
			wrong = append(wrong, field+err.Error())
		}
	}
	add(v1alpha1.ReasonArgumentInvalid, "spec.", render.CheckArguments(cfg.Spec.KernelArguments))
	for _, u := range []struct{ field, url string }{{"kernelURL", cfg.Spec.KernelURL}, {"initrdURL", cfg.Spec.InitrdURL}, {"squashfsURL", cfg.Spec.SquashfsURL}} {
		if u.url != "" {
			add(v1alpha1.ReasonInvalidReference, "spec."+u.field+": ", render.CheckURL(u.url))
		}
	}
	if cfg.Spec.ScriptTemplate != "" {
		add(v1alpha1.ReasonTemplateInvalid, "spec.scriptTemplate: ", render.CheckTemplate(cfg.Spec.ScriptTemplate))
	}
	if len(wrong) == 0 {
		return nil
	}
	return phase.Terminal(reason, errors.New(strings.Join(wrong, "; ")))
}

func hasScript(s *corev1.Secret) error {
	text, ok := s.Data[v1alpha1.SecretKeyIPXEScript]
	if !ok {
		return missingKey(s, v1alpha1.SecretKeyIPXEScript)
	}
	if err := render.CheckScript(text); err != nil {
		return phase.Terminal(v1alpha1.ReasonScriptInvalid, fmt.Errorf("Secret %s, key %s: %w", s.Name, v1alpha1.SecretKeyIPXEScript, err)) //nolint:staticcheck // a kind's name
	}
	return phase.Done(v1alpha1.ReasonArtifactsVerified, "the machine's own iPXE script is in Secret %s", s.Name)
}

// foreign is what to fetch for the URL of a UKI.
func (r *reconciler) foreign(cfg *v1alpha1.HTTPBootConfig) target {
	t := r.target(cfg, "")
	t.url = cfg.Spec.UKIURL
	return t
}

// target is what to fetch for an image.
func (r *reconciler) target(cfg v1alpha1.Config, image string) target {
	c := cfg.Common()
	t := target{image: image, arch: r.Architecture, ipxe: cfg.Kind() == v1alpha1.KindIPXEBootConfig}
	if c.Architecture != "" {
		t.arch = boot.Architecture(c.Architecture)
	}
	if c.Image == "" {
		return t // the operator's image needs the operator's credentials
	}
	if ref := c.PullSecretRef; ref != nil && ref.Name != "" {
		t.pullSecret.Namespace, t.pullSecret.Name = cfg.GetNamespace(), ref.Name
	}
	return t
}

// unpulled is for a config of which nothing is pulled.
func (r *reconciler) unpulled(cfg v1alpha1.Config) {
	r.fetches.forget(keyOf(cfg))
	r.secrets.name(secretUse{keyOf(cfg), forPull}, "")
	cfg.ConfigStatus().Artifacts = nil
}

// pulled puts into the status what a target was found to be, once all of it is
// in the store; until something newer is, it stays what it was, as long as the
// spec does.
func (r *reconciler) pulled(cfg v1alpha1.Config, t target, reason string) error {
	key := keyOf(cfg)
	use := secretUse{key, forPull}
	r.secrets.name(use, t.pullSecret.Name)
	status := cfg.ConfigStatus()
	known := wasTrue(cfg, v1alpha1.ConditionArtifactsReady)
	switch {
	case known == nil:
		status.Artifacts = nil
	case len(status.Artifacts) == 0 && (t.url == "" || known.Reason != v1alpha1.ReasonForeignURL):
		known = nil
	}
	v := r.fetches.want(key, t, pinned(status.Artifacts, t.url))
	if v.secretSeen && !r.secrets.mark(use, v.secret) {
		v.next = soon
	}
	if v.result != nil {
		status.Artifacts = r.describe(v.result)
	}
	switch {
	case t.url != "" && errors.Is(v.err, artifact.ErrNotAllowed):
		status.Artifacts = nil
		return phase.Done(v1alpha1.ReasonForeignURL, "ukiURL is only told to those who ask for JSON: %s", v.err)
	case v.err == nil && v.result != nil:
		return phase.Done(reason, "%s", summary(status.Artifacts)).Again(v.next)
	case v.err == nil && known != nil: // the first look since this process leads
		return phase.Done(known.Reason, "%s", known.Message).Again(v.next)
	case v.err == nil:
		return phase.Wait(v1alpha1.ReasonProgressing, v.next, fmt.Errorf("pulling %s", t))
	case len(status.Artifacts) > 0 && r.inStore(status.Artifacts):
		return phase.Done(reason, "%s; that is what was found earlier: looking again failed: %s", summary(status.Artifacts), v.err).Warn().Again(v.next)
	}
	status.Artifacts = nil
	return failure(v)
}

// failure is a fetch that failed: for good, or until its backoff is over.
func failure(v view) error {
	reason := reasonOf(v.err)
	if artifact.Terminal(v.err) || errors.Is(v.err, errSecretKey) {
		return phase.Terminal(reason, v.err).Again(v.next)
	}
	return phase.Wait(reason, v.next, v.err)
}

// pinned is what the content of a URL was at first, if the status tells it.
func pinned(artifacts []v1alpha1.Artifact, url string) *boot.Artifact {
	for _, a := range artifacts {
		digest, err := boot.ParseDigest(a.Digest)
		if err == nil && url != "" && a.Source == url {
			return &boot.Artifact{Role: boot.Role(a.Role), Digest: digest, Size: a.Size, Source: a.Source}
		}
	}
	return nil
}

func (r *reconciler) inStore(artifacts []v1alpha1.Artifact) bool {
	return !slices.ContainsFunc(artifacts, func(a v1alpha1.Artifact) bool { return !r.Store.Has(boot.Digest(a.Digest)) })
}

func (r *reconciler) describe(f *fetched) []v1alpha1.Artifact {
	var out []v1alpha1.Artifact
	for _, a := range f.artifacts {
		out = append(out, v1alpha1.Artifact{
			Role: v1alpha1.ArtifactRole(a.Role), Digest: string(a.Digest), Size: a.Size, Source: a.Source, URL: r.ArtifactURL(f.image, a),
		})
	}
	slices.SortFunc(out, func(a, b v1alpha1.Artifact) int { return strings.Compare(string(a.Role), string(b.Role)) })
	return out
}

func summary(artifacts []v1alpha1.Artifact) string {
	var texts []string
	for _, a := range artifacts {
		texts = append(texts, fmt.Sprintf("%s %s (%d bytes)", a.Role, a.Digest, a.Size))
	}
	return "verified " + strings.Join(texts, ", ") + " from " + artifacts[0].Source
}
