package artifact

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxDepth bounds indexes within indexes, maxFetches the manifests that
	// one call reads.
	maxDepth   = 3
	maxFetches = 16
	// resolveTimeout bounds one call, whatever the registry does.
	resolveTimeout = time.Minute
)

// Image is what one architecture boots of an image.
type Image struct {
	// Source is registry/repository@digest of the manifest that was chosen.
	Source string
	// Name is the reference without tag and digest, in canonical form.
	Name string
	// Index is the digest of the index that the reference named; empty where it named
	// a manifest.
	Index boot.Digest
	// Manifest is the digest of the manifest that was chosen.
	Manifest boot.Digest
	// Artifacts are the layers that can be booted, one of each role at most.
	Artifacts []boot.Artifact

	layers string
}

// Artifact returns the image's artifact of this role. It returns ErrNoArtifact,
// with the layers that there are.
func (i Image) Artifact(role boot.Role) (boot.Artifact, error) {
	for _, a := range i.Artifacts {
		if a.Role == role {
			return a, nil
		}
	}
	return boot.Artifact{}, fmt.Errorf("%w: %s has no %s; %s", ErrNoArtifact, i.Source, role, i.layers)
}

// Resolve asks the registry which blobs a machine of this architecture boots
// when it boots this image. It pulls nothing. It returns ErrInvalidReference,
// ErrNotAllowed, ErrNotFound, ErrUnauthorized, ErrNoPlatform, ErrNoArtifact,
// ErrDigestMismatch or ErrTooLarge; any other error is transient.
func (s *Store) Resolve(ctx context.Context, reference string, arch boot.Architecture, creds Credentials) (Image, error) {
	ref, err := ParseReference(reference)
	if err == nil {
		err = s.allow.image(ref)
	}
	if err != nil {
		return Image{}, fmt.Errorf("resolving the image: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	r := resolution{client: s.client, ref: ref, creds: creds, arch: arch, maxBlob: s.opts.MaxBlobBytes}
	img, err := r.root(ctx)
	if err != nil {
		s.metrics.registryError(ref.Registry, err)
		return Image{}, fmt.Errorf("resolving %s for %s: %w", ref, arch, err)
	}
	return img, nil
}

// resolution is one call of Resolve.
type resolution struct {
	client  *client
	ref     Reference
	creds   Credentials
	arch    boot.Architecture
	maxBlob int64
	fetched int
}

func (r *resolution) root(ctx context.Context) (Image, error) {
	name := r.ref.Tag
	if r.ref.Digest != "" {
		name = string(r.ref.Digest)
	}
	m, d, err := r.fetch(ctx, name)
	if err != nil {
		return Image{}, err
	}
	img, err := r.choose(ctx, m, d, 0)
	if err == nil && m.index {
		img.Index = d
	}
	return img, err
}

// fetch reads one manifest by tag or digest.
func (r *resolution) fetch(ctx context.Context, name string) (manifest, boot.Digest, error) {
	if r.fetched++; r.fetched > maxFetches {
		return manifest{}, "", fmt.Errorf("%w: it takes more than %d manifests to find one", ErrNoPlatform, maxFetches)
	}
	doc, err := r.client.document(ctx, r.ref, r.creds, "manifests/"+name)
	if err != nil {
		return manifest{}, "", fmt.Errorf("reading manifest %s: %w", name, err)
	}
	m, err := parseManifest(doc.contentType, doc.body)
	if err != nil {
		return manifest{}, "", fmt.Errorf("reading manifest %s: %w", doc.digest, err)
	}
	return m, doc.digest, nil
}

// choose walks down to the manifest of the architecture. A candidate that
// turns out to be wrong leaves the word to the next; the first error is told.
func (r *resolution) choose(ctx context.Context, m manifest, d boot.Digest, depth int) (Image, error) {
	if !m.index {
		return r.image(ctx, m, d)
	}
	if depth >= maxDepth {
		return Image{}, fmt.Errorf("%w: its indexes are nested deeper than %d", ErrNoPlatform, maxDepth)
	}
	var first error
	for _, c := range m.candidates(r.arch) {
		img, err := r.child(ctx, c, depth)
		if err == nil {
			return img, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, ErrNoPlatform) && !errors.Is(err, ErrNoArtifact) {
			break
		}
	}
	if first == nil {
		first = fmt.Errorf("%w: index %s has no manifest for %s; %s", ErrNoPlatform, d, r.arch, m.describeChildren())
	}
	return Image{}, first
}

func (r *resolution) child(ctx context.Context, c ocispec.Descriptor, depth int) (Image, error) {
	if _, err := boot.ParseDigest(string(c.Digest)); err != nil {
		return Image{}, fmt.Errorf("%w: the index names a manifest by a digest that is none: %w", ErrNoArtifact, err)
	}
	m, d, err := r.fetch(ctx, string(c.Digest))
	if err != nil {
		return Image{}, err
	}
	return r.choose(ctx, m, d, depth+1)
}

func (r *resolution) image(ctx context.Context, m manifest, d boot.Digest) (Image, error) {
	if err := r.checkPlatform(ctx, m); err != nil {
		return Image{}, err
	}
	source := r.ref.Pinned(d)
	all, err := m.artifacts(source, r.maxBlob)
	if err != nil {
		return Image{}, fmt.Errorf("manifest %s: %w", d, err)
	}
	return Image{Source: source, Name: r.ref.Name(), Manifest: d, Artifacts: all, layers: m.describeLayers()}, nil
}

// checkPlatform asks the image config, where there is one, whether the image
// is for this architecture: a single manifest has no index to say so, and an
// index can be wrong.
func (r *resolution) checkPlatform(ctx context.Context, m manifest) error {
	if a := m.annotations[annotationArchitecture]; a != "" && a != string(r.arch) {
		return fmt.Errorf("%w: the image is for %s, not %s", ErrNoPlatform, clip(a), r.arch)
	}
	t := mediaType(m.config.MediaType)
	if t != typeOCIConfig && t != typeDockerConfig {
		return nil
	}
	if m.config.Size > maxManifest {
		return fmt.Errorf("%w: the image config has %d bytes; %d are the most", ErrTooLarge, m.config.Size, maxManifest)
	}
	if _, err := boot.ParseDigest(string(m.config.Digest)); err != nil {
		return fmt.Errorf("%w: the digest of the image config: %w", ErrNoArtifact, err)
	}
	doc, err := r.client.document(ctx, r.ref, r.creds, "blobs/"+string(m.config.Digest))
	if err != nil {
		return fmt.Errorf("reading the image config: %w", err)
	}
	var p ocispec.Platform
	if err := json.Unmarshal(doc.body, &p); err != nil {
		return fmt.Errorf("%w: the image config is not valid JSON: %s", ErrNoArtifact, clip(err.Error()))
	}
	if p.Architecture != "" && p.Architecture != string(r.arch) {
		return fmt.Errorf("%w: the image is for %s/%s, not %s", ErrNoPlatform, clip(p.OS), clip(p.Architecture), r.arch)
	}
	return nil
}
