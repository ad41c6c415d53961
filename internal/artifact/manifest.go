package artifact

import (
	"encoding/json"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxManifest bounds a manifest, an index and an image config; it is what
	// the OCI distribution spec asks registries to take.
	maxManifest = 4 << 20
	// maxListed bounds how much of an image an error repeats.
	maxListed = 8

	// The annotations by which Garden Linux named the manifests of an index
	// before it wrote platforms.
	annotationName         = "cname"
	annotationArchitecture = "architecture"
	legacyNamePrefix       = "metal_pxe"
)

// manifest is an OCI index or manifest, or Docker's equivalent.
type manifest struct {
	index       bool
	children    []ocispec.Descriptor
	layers      []ocispec.Descriptor
	config      ocispec.Descriptor
	annotations map[string]string
}

type manifestDocument struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Config        ocispec.Descriptor   `json:"config"`
	Annotations   map[string]string    `json:"annotations"`
	FSLayers      json.RawMessage      `json:"fsLayers"`
}

// parseManifest reads a manifest or an index; contentType is what the registry
// called it. It returns ErrNoArtifact for anything else, ErrTooLarge.
func parseManifest(contentType string, body []byte) (manifest, error) {
	if len(body) > maxManifest {
		return manifest{}, fmt.Errorf("%w: the manifest has more than %d bytes", ErrTooLarge, maxManifest)
	}
	var d manifestDocument
	if err := json.Unmarshal(body, &d); err != nil {
		return manifest{}, fmt.Errorf("%w: the manifest is not valid JSON: %s", ErrNoArtifact, clip(err.Error()))
	}
	if len(d.Manifests) > 0 && len(d.Layers) > 0 {
		// Which of the two is meant depends on who reads it (CVE-2021-41190).
		return manifest{}, fmt.Errorf("%w: the manifest is an index and an image at once", ErrNoArtifact)
	}
	m := manifest{children: d.Manifests, layers: d.Layers, config: d.Config, annotations: d.Annotations}
	switch t := d.kind(contentType); t {
	case typeOCIIndex, typeDockerList:
		m.index = true
	case typeOCIManifest, typeDockerManifest:
	default:
		if d.FSLayers != nil {
			return manifest{}, fmt.Errorf("%w: the image has a Docker manifest of schema 1, which is too old; push it again with a present tool", ErrNoArtifact)
		}
		return manifest{}, fmt.Errorf("%w: %q is neither an OCI index or manifest nor a Docker manifest list or manifest", ErrNoArtifact, clip(t))
	}
	if m.index && len(d.Layers) > 0 || !m.index && len(d.Manifests) > 0 {
		return manifest{}, fmt.Errorf("%w: the content of the manifest does not fit its media type", ErrNoArtifact)
	}
	return m, nil
}

// kind trusts the document, then the registry, then the shape.
func (d manifestDocument) kind(contentType string) string {
	if d.MediaType != "" {
		return mediaType(d.MediaType)
	}
	switch t := mediaType(contentType); t {
	case typeOCIIndex, typeOCIManifest, typeDockerList, typeDockerManifest:
		return t
	}
	switch {
	case d.SchemaVersion == 2 && d.Manifests != nil:
		return typeOCIIndex
	case d.SchemaVersion == 2 && d.Layers != nil:
		return typeOCIManifest
	}
	return mediaType(contentType)
}

func isIndex(t string) bool {
	t = mediaType(t)
	return t == typeOCIIndex || t == typeDockerList
}

func isManifest(t string) bool {
	t = mediaType(t)
	return t == typeOCIManifest || t == typeDockerManifest || t == ""
}

// candidates returns the children of an index that may be for this
// architecture, the surest first: what the legacy annotations name, what the
// platform names, then indexes that do not say.
func (m manifest) candidates(arch boot.Architecture) []ocispec.Descriptor {
	var legacy, platform, nested []ocispec.Descriptor
	for _, c := range m.children {
		switch {
		case isManifest(c.MediaType) && legacyFor(c, arch):
			legacy = append(legacy, c)
		case c.Platform != nil && (isManifest(c.MediaType) || isIndex(c.MediaType)):
			if platformFits(*c.Platform, arch) {
				platform = append(platform, c)
			}
		case c.Platform == nil && isIndex(c.MediaType):
			nested = append(nested, c)
		}
	}
	return append(append(legacy, platform...), nested...)
}

func legacyFor(d ocispec.Descriptor, arch boot.Architecture) bool {
	return strings.HasPrefix(d.Annotations[annotationName], legacyNamePrefix) && d.Annotations[annotationArchitecture] == string(arch)
}

func platformFits(p ocispec.Platform, arch boot.Architecture) bool {
	return p.Architecture == string(arch) && (p.OS == "" || p.OS == "linux")
}

// describeChildren tells what an index holds, for whoever misses something.
func (m manifest) describeChildren() string {
	if len(m.children) == 0 {
		return "it is empty"
	}
	var all []string
	for i, c := range m.children {
		if i == maxListed {
			all = append(all, fmt.Sprintf("and %d more", len(m.children)-i))
			break
		}
		all = append(all, describeChild(c))
	}
	return "it has " + strings.Join(all, ", ")
}

func describeChild(c ocispec.Descriptor) string {
	switch {
	case c.Annotations[annotationName] != "":
		return fmt.Sprintf("%s for %s", clip(c.Annotations[annotationName]), clip(c.Annotations[annotationArchitecture]))
	case c.Platform != nil:
		return clip(c.Platform.OS + "/" + c.Platform.Architecture)
	case isIndex(c.MediaType):
		return "an index without platform"
	}
	return "a manifest without platform"
}

// artifacts returns what can be booted among the layers of a manifest.
func (m manifest) artifacts(source string, maxBlob int64) ([]boot.Artifact, error) {
	var all []boot.Artifact
	seen := map[boot.Role]bool{}
	for _, l := range m.layers {
		role, ok := layerRoles[mediaType(l.MediaType)]
		if !ok {
			continue
		}
		if seen[role] {
			return nil, fmt.Errorf("%w: it has more than one layer for the role %s", ErrNoArtifact, role)
		}
		seen[role] = true
		d, err := boot.ParseDigest(string(l.Digest))
		if err != nil {
			return nil, fmt.Errorf("%w: the digest of its %s layer: %w", ErrNoArtifact, role, err)
		}
		if l.Size <= 0 {
			return nil, fmt.Errorf("%w: its %s layer has a size of %d bytes", ErrNoArtifact, role, l.Size)
		}
		if l.Size > maxBlob {
			return nil, fmt.Errorf("%w: its %s layer has %d bytes; the store takes blobs of at most %d", ErrTooLarge, role, l.Size, maxBlob)
		}
		all = append(all, boot.Artifact{Role: role, Digest: d, Size: l.Size, Source: source})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoArtifact, m.describeLayers())
	}
	return all, nil
}

// describeLayers tells which layers there are, for whoever misses one.
func (m manifest) describeLayers() string {
	if len(m.layers) == 0 {
		return "it has no layers"
	}
	var all []string
	for i, l := range m.layers {
		if i == maxListed {
			all = append(all, fmt.Sprintf("and %d more", len(m.layers)-i))
			break
		}
		all = append(all, clip(l.MediaType))
	}
	return "its layers are " + strings.Join(all, ", ")
}
