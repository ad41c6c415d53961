package bootconfig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

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
	if len(cfg.Spec.KernelArguments) > 0 || cfg.Spec.Compose != nil {
		return phase.Terminal(v1alpha1.ReasonNothingToBoot, errors.New("spec.kernelArguments and spec.compose are for an image: set spec.image"))
	}
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
	if err := errors.Join(renderable(cfg), r.startable(cfg)); err != nil {
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

// startable says why a machine that has Secure Boot on could not start what this
// config gives it, or nobody could tell that it may.
func (r *reconciler) startable(cfg *v1alpha1.IPXEBootConfig) error {
	refuse := func(err error) error { return phase.Terminal(v1alpha1.ReasonSecureBootUnsupported, err) }
	d := demandOf(cfg)
	switch {
	case d != (demand{}) && cfg.Spec.Image == "":
		return refuse(errors.New("spec.secureBoot and spec.verification need spec.image: what a URL or a script of your own leads to is fetched by the machine itself, and the operator verifies none of it"))
	case !cfg.Spec.SecureBoot || r.SignedIPXE == nil:
		return nil
	}
	if err := r.SignedIPXE(r.target(cfg, cfg.Spec.Image).arch); err != nil {
		return refuse(fmt.Errorf("spec.secureBoot: %w; boot over UEFI HTTP with an HTTPBootConfig, which needs no iPXE (docs/secure-boot.md)", err))
	}
	return nil
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

// imageOf is the image of a config, or the operator's.
func (r *reconciler) imageOf(cfg v1alpha1.Config) string {
	return cmp.Or(cfg.Common().Image, r.DefaultImage)
}

// target is what to fetch for an image.
func (r *reconciler) target(cfg v1alpha1.Config, image string) target {
	c := cfg.Common()
	t := target{image: image, arch: r.Architecture, ipxe: cfg.Kind() == v1alpha1.KindIPXEBootConfig, demand: demandOf(cfg)}
	if h, ok := cfg.(*v1alpha1.HTTPBootConfig); ok {
		t.parts = len(h.Spec.KernelArguments) > 0 || h.Spec.Compose != nil
		if h.Spec.Compose != nil {
			t.initrd = h.Spec.Compose.InitrdImage
		}
	}
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
	r.nameSecrets(keyOf(cfg), target{})
	unserved(cfg.ConfigStatus())
}

// unserved takes back what a status names.
func unserved(s *v1alpha1.ConfigStatus) { s.Artifacts, s.Verification, s.Composed = nil, nil, nil }

// nameSecrets says which Secrets a target is fetched and verified with.
func (r *reconciler) nameSecrets(k configKey, t target) map[purpose]types.NamespacedName {
	named := map[purpose]types.NamespacedName{
		forPull: t.pullSecret, forKeys: t.demand.keys, forTrustedRoot: t.demand.root, forCertificates: t.demand.certificates,
	}
	for p, secret := range named {
		r.secrets.name(secretUse{k, p}, secret.Name)
	}
	return named
}

// pulled puts into the status what a target was found to be, once all of it is
// in the store; until something newer is, it stays what it was, as long as the
// spec does. What is not signed as it has to be is given up at once.
func (r *reconciler) pulled(cfg v1alpha1.Config, t target, reason string) error {
	key := keyOf(cfg)
	named := r.nameSecrets(key, t)
	status := cfg.ConfigStatus()
	before := *status
	known := wasTrue(cfg, v1alpha1.ConditionArtifactsReady)
	switch {
	case known == nil:
		unserved(status)
	case len(status.Artifacts) == 0 && (t.url == "" || known.Reason != v1alpha1.ReasonForeignURL):
		known = nil
	}
	v := r.fetches.want(key, t, pinned(status.Artifacts, t.url))
	switch {
	case heard(&before, cfg.GetGeneration(), v):
		r.fetches.take(key)
	case v.err != nil:
		r.record(cfg) // what succeeds is recorded once its attempt is open
	}
	for p, secret := range named {
		if version, seen := v.seen[secret]; seen && !r.secrets.mark(secretUse{key, p}, version) {
			v.next = soon
		}
	}
	if v.result != nil {
		status.Artifacts, status.Verification = r.describe(v.result), v.result.verified
	}
	switch {
	case t.url != "" && errors.Is(v.err, artifact.ErrNotAllowed):
		unserved(status)
		return r.told(t, v)
	case v.err == nil && v.result != nil:
		return phase.Done(reason, "%s", summary(status)).Again(v.next)
	case v.err == nil && known != nil: // the first look since this process leads
		return phase.Done(known.Reason, "%s", known.Message).Again(v.next)
	case v.err == nil:
		return phase.Wait(v1alpha1.ReasonProgressing, v.next, fmt.Errorf("pulling %s", t))
	case len(status.Artifacts) > 0 && r.inStore(status.Artifacts) && !refused(v.err):
		return phase.Done(reason, "%s; that is what was found earlier: looking again failed: %s", summary(status), v.err).Warn().Again(v.next)
	}
	unserved(status)
	return failure(v)
}

// told is for a UKI that is not pulled, but only told to those who ask.
func (r *reconciler) told(t target, v view) error {
	// What is not pulled is to the operator's policy what nobody has signed.
	if t.demand != (demand{}) || r.Verifier != nil && r.Verifier.Signer(nil, t.url, Demands{}) != nil {
		return phase.Terminal(v1alpha1.ReasonVerificationFailed, fmt.Errorf("what spec.ukiURL leads to is not pulled, so that it cannot be verified: %w", v.err)).Again(v.next)
	}
	return phase.Done(v1alpha1.ReasonForeignURL, "ukiURL is only told to those who ask for JSON: %s", v.err)
}

// refused says whether an error is about what is signed, or cannot be: what was
// found earlier is not served in spite of it.
func refused(err error) bool {
	for _, final := range []error{ErrUnverified, ErrDemand, errFinished} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// failure is a fetch that failed: for good, or until its backoff is over.
func failure(v view) error {
	reason := reasonOf(v.err)
	if artifact.Terminal(v.err) || errors.Is(v.err, errSecretKey) || refused(v.err) {
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

func summary(s *v1alpha1.ConfigStatus) string {
	var texts []string
	for _, a := range s.Artifacts {
		texts = append(texts, fmt.Sprintf("%s %s (%d bytes)", a.Role, a.Digest, a.Size))
	}
	text := "verified " + strings.Join(texts, ", ") + " from " + s.Artifacts[0].Source
	if v := s.Verification; v != nil && v.Image != nil {
		text += "; the image is signed by " + v.Image.Signer
	}
	if v := s.Verification; v != nil && v.UKI != nil {
		text += "; what firmware starts is signed by " + v.UKI.Signer
	}
	return text
}
