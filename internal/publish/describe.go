package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxDepth and maxManifests bound what is read of an image.
	maxDepth     = 3
	maxManifests = 64
)

// Architectures are those that machines have.
var Architectures = []boot.Architecture{boot.AMD64, boot.ARM64}

// Description is what a reference names.
type Description struct {
	Reference    string            `json:"reference"`
	Digest       boot.Digest       `json:"digest"`
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	// Manifests are those of the index, or the one that the reference names.
	Manifests []Manifest `json:"manifests"`
	// Boots is what the operator makes of it, for each architecture that it has.
	Boots []Boot `json:"boots"`
	// Size of all blobs and manifests together, each counted once, in bytes.
	Size int64 `json:"size"`
}

// Manifest is one manifest of an image.
type Manifest struct {
	Digest       boot.Digest       `json:"digest"`
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     string            `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Layers       []LayerInfo       `json:"layers,omitempty"`
	// Error is why it could not be read.
	Error string `json:"error,omitempty"`
}

// Boot is what a machine of one architecture boots.
type Boot struct {
	Architecture boot.Architecture `json:"architecture"`
	Manifest     boot.Digest       `json:"manifest,omitempty"`
	Layers       []LayerInfo       `json:"layers,omitempty"`
	// UKI: an HTTPBootConfig boots the finished UKI. Composed: it boots one that is
	// composed for the machine. IPXE: an IPXEBootConfig boots kernel and initrd.
	UKI      bool `json:"uki"`
	Composed bool `json:"composed"`
	IPXE     bool `json:"ipxe"`
	// Error is why it boots nothing.
	Error string `json:"error,omitempty"`

	// Image is for whoever goes on with it.
	Image artifact.Image `json:"-"`
}

// Layer returns the layer of this role, if there is one.
func (b Boot) Layer(r boot.Role) (LayerInfo, bool) {
	for _, l := range b.Layers {
		if l.Role == r {
			return l, true
		}
	}
	return LayerInfo{}, false
}

// Describe reads what the reference names: its index, manifests and configs, and no
// layer. What it boots is asked of the same code that the operator has.
func (r *Repository) Describe(ctx context.Context, b *Blobs) (Description, error) {
	root, err := r.document(ctx, r.named())
	if err != nil {
		return Description{}, err
	}
	d := Description{Reference: r.ref.String(), Digest: boot.Digest(root.Digest), MediaType: root.MediaType, Manifests: []Manifest{}, Boots: []Boot{}}
	w := walk{Repository: r, sizes: map[digest.Digest]int64{}}
	top, err := readListing(root)
	if err != nil {
		return Description{}, fmt.Errorf("reading %s: %w", r.ref, err)
	}
	d.ArtifactType, d.Annotations = top.ArtifactType, top.Annotations
	if err := w.visit(ctx, root, top, "", 0); err != nil {
		return Description{}, fmt.Errorf("reading %s: %w", r.ref, err)
	}
	d.Manifests = append(d.Manifests, w.found...)
	for _, n := range w.sizes {
		d.Size += n
	}
	for _, arch := range Architectures {
		one, err := b.boot(ctx, d.Digest, arch)
		switch {
		case ctx.Err() != nil:
			return Description{}, errInterrupted
		case errors.Is(err, artifact.ErrNoPlatform):
		default:
			d.Boots = append(d.Boots, one)
		}
	}
	return d, nil
}

// boot asks what a machine of this architecture boots.
func (b *Blobs) boot(ctx context.Context, d boot.Digest, arch boot.Architecture) (Boot, error) {
	img, err := b.Image(ctx, d, arch)
	one := Boot{Architecture: arch, Image: img, Manifest: img.Manifest}
	if err != nil {
		one.Error = err.Error()
		return one, err
	}
	for _, a := range img.Artifacts {
		one.Layers = append(one.Layers, LayerInfo{Role: a.Role, Name: layerName(a.Role), MediaType: artifact.LayerType(a.Role), Digest: a.Digest, Size: a.Size})
	}
	has := func(r boot.Role) bool { _, ok := one.Layer(r); return ok }
	one.UKI = has(boot.RoleUKI)
	one.IPXE = has(boot.RoleKernel) && has(boot.RoleInitrd)
	one.Composed = one.IPXE && has(boot.RoleStub)
	return one, nil
}

// walk reads the manifests of an image.
type walk struct {
	*Repository
	found []Manifest
	sizes map[digest.Digest]int64
	count int
}

// listing is an index, or a manifest.
type listing struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       ocispec.Descriptor   `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Annotations  map[string]string    `json:"annotations"`
}

func readListing(d document) (listing, error) {
	var c listing
	if err := json.Unmarshal(d.body, &c); err != nil {
		return c, fmt.Errorf("%w: %s is no JSON: %w", artifact.ErrNoArtifact, d.Digest, err)
	}
	if len(c.Layers) > 0 && len(c.Manifests) > 0 {
		return c, fmt.Errorf("%w: %s is an index and an image at once", artifact.ErrNoArtifact, d.Digest)
	}
	return c, nil
}

// visit notes a manifest, or goes on with those of an index.
func (w *walk) visit(ctx context.Context, d document, c listing, platformOf string, depth int) error {
	w.sizes[d.Digest] = int64(len(d.body))
	if c.Manifests == nil {
		w.note(ctx, d, c, platformOf)
		return nil
	}
	if depth >= maxDepth {
		return fmt.Errorf("%w: its indexes are nested deeper than %d", artifact.ErrNoArtifact, maxDepth)
	}
	for _, child := range c.Manifests {
		if w.count++; w.count > maxManifests {
			return fmt.Errorf("%w: it has more than %d manifests", artifact.ErrTooLarge, maxManifests)
		}
		if err := w.child(ctx, child, depth); err != nil {
			return err
		}
	}
	return nil
}

// child reads a manifest of an index. One that cannot be read is no reason to say
// nothing of the others.
func (w *walk) child(ctx context.Context, child ocispec.Descriptor, depth int) error {
	var d document
	var c listing
	_, err := boot.ParseDigest(child.Digest.String())
	if err == nil {
		d, err = w.document(ctx, child.Digest.String())
	}
	if err == nil {
		c, err = readListing(d)
	}
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		w.found = append(w.found, Manifest{
			Digest: boot.Digest(child.Digest), MediaType: child.MediaType, Platform: platform(child), Annotations: child.Annotations, Error: err.Error(),
		})
		return nil
	}
	return w.visit(ctx, d, c, platform(child), depth+1)
}

// note describes a manifest. Its platform is in the index or, where there is none, in
// its config.
func (w *walk) note(ctx context.Context, d document, c listing, platformOf string) {
	m := Manifest{Digest: boot.Digest(d.Digest), MediaType: d.MediaType, ArtifactType: c.ArtifactType, Platform: platformOf, Annotations: c.Annotations}
	w.sizes[c.Config.Digest] = c.Config.Size
	if platformOf == "" && c.Config.MediaType == ocispec.MediaTypeImageConfig {
		if data, err := w.blob(ctx, c.Config); err == nil {
			var p ocispec.Platform
			if json.Unmarshal(data, &p) == nil && p.Architecture != "" {
				m.Platform = platform(ocispec.Descriptor{Platform: &p})
			}
		}
	}
	for _, l := range c.Layers {
		role, _ := artifact.LayerRole(l.MediaType)
		w.sizes[l.Digest] = l.Size
		m.Layers = append(m.Layers, LayerInfo{Role: role, Name: l.Annotations[ocispec.AnnotationTitle], MediaType: l.MediaType, Digest: boot.Digest(l.Digest), Size: l.Size})
	}
	w.found = append(w.found, m)
}
