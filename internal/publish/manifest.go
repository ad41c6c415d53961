package publish

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// PushOptions say how images are published.
type PushOptions struct {
	// Version of the image; empty is what its os-release file says.
	Version string
	// Created is when it was made, to the second. It is part of what the digests are
	// of.
	Created time.Time
	// Annotations are added to those that the files tell, and win.
	Annotations map[string]string
	// Append leaves the other architectures of the index that is there.
	Append bool
	// KeepTag refuses to move a tag that names something else already.
	KeepTag bool
}

// prepared is a blob, a manifest or an index that is ready to be sent.
type prepared struct {
	ocispec.Descriptor
	name    string
	content Content
}

func prepareJSON(mediaType, name string, document any) (prepared, error) {
	data, err := json.Marshal(document)
	if err != nil {
		return prepared{}, fmt.Errorf("making the %s: %w", name, err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return prepared{Descriptor: d, name: name, content: Bytes(data)}, nil
}

// prepareImage makes the blobs of one architecture, its manifest last.
func (r *Repository) prepareImage(ctx context.Context, img Image, o PushOptions) ([]prepared, error) {
	var layers []prepared
	for _, l := range img.Layers {
		name := fmt.Sprintf("%s %s", img.Architecture, layerName(l.Role))
		d, err := l.Content.digest(ctx, name, r.opts.Progress)
		if err != nil {
			return nil, err
		}
		layers = append(layers, prepared{name: name, content: l.Content, Descriptor: ocispec.Descriptor{
			MediaType: artifact.LayerType(l.Role), Digest: digest.Digest(d), Size: l.Content.Size(),
			Annotations: map[string]string{ocispec.AnnotationTitle: layerName(l.Role)},
		}})
	}
	config, err := prepareJSON(ocispec.MediaTypeImageConfig, fmt.Sprintf("%s config", img.Architecture), imageConfig(img, layers, o))
	if err != nil {
		return nil, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: ArtifactType,
		Config: config.Descriptor, Annotations: annotations(img, o),
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Descriptor)
	}
	manifest, err := prepareJSON(ocispec.MediaTypeImageManifest, fmt.Sprintf("%s manifest", img.Architecture), m)
	if err != nil {
		return nil, err
	}
	manifest.ArtifactType, manifest.Annotations = ArtifactType, m.Annotations
	manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: string(img.Architecture)}
	return append(layers, config, manifest), nil
}

// imageConfig says what the image is for. Its layers are no archives: what tools know
// as the digest of an unpacked layer is that of the layer.
func imageConfig(img Image, layers []prepared, o PushOptions) ocispec.Image {
	created := o.Created.UTC().Truncate(time.Second)
	c := ocispec.Image{
		Created: &created, Platform: ocispec.Platform{OS: "linux", Architecture: string(img.Architecture)},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.Digest)
	}
	return c
}

// annotations are those of a manifest: what the files tell, then what was asked for.
func annotations(img Image, o PushOptions) map[string]string {
	all := clone(img.Annotations)
	all[AnnotationCreated] = o.Created.UTC().Format(time.RFC3339)
	if o.Version != "" {
		all[AnnotationVersion] = o.Version
	}
	maps.Copy(all, o.Annotations)
	return all
}

// prepareIndex makes the index of these manifests and of those of an index that is
// there. One for the same platform is replaced. The order does not tell in which
// order they were pushed.
func prepareIndex(manifests []ocispec.Descriptor, there []ocispec.Descriptor) (prepared, error) {
	all := slices.Clone(manifests)
	for _, old := range there {
		if !slices.ContainsFunc(manifests, func(m ocispec.Descriptor) bool { return samePlatform(m, old) }) {
			all = append(all, old)
		}
	}
	slices.SortFunc(all, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(platform(a), platform(b)), cmp.Compare(a.Digest, b.Digest))
	})
	return prepareJSON(ocispec.MediaTypeImageIndex, "index", ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: ArtifactType,
		Manifests: all, Annotations: agreed(ours(all)),
	})
}

func samePlatform(a, b ocispec.Descriptor) bool {
	return a.Digest == b.Digest || (platform(a) != "" && platform(a) == platform(b))
}

// platform is that of a manifest as os/architecture/variant.
func platform(d ocispec.Descriptor) string {
	if d.Platform == nil {
		return ""
	}
	s := d.Platform.OS + "/" + d.Platform.Architecture
	if d.Platform.Variant != "" {
		s += "/" + d.Platform.Variant
	}
	return s
}

// ours are the manifests that are images for machines, and not, say, provenance that
// another tool put into the index.
func ours(all []ocispec.Descriptor) []ocispec.Descriptor {
	return slices.DeleteFunc(slices.Clone(all), func(d ocispec.Descriptor) bool { return d.ArtifactType != ArtifactType })
}

// duplicate returns an architecture that is there twice.
func duplicate(images []Image) (boot.Architecture, bool) {
	seen := map[boot.Architecture]bool{}
	for _, img := range images {
		if seen[img.Architecture] {
			return img.Architecture, true
		}
		seen[img.Architecture] = true
	}
	return "", false
}
