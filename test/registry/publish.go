package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types that images are published with.
const (
	UKI            = "application/vnd.ironcore.image.uki"
	Kernel         = "application/vnd.ironcore.image.kernel"
	Initramfs      = "application/vnd.ironcore.image.initramfs"
	Squashfs       = "application/vnd.ironcore.image.squashfs"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// Layer is one layer of an image: a blob of Data, or one that was added before.
type Layer struct {
	MediaType string
	Data      []byte
	// Digest and Size name a blob in place of Data. They are not checked.
	Digest string
	Size   int64
}

// Image is an image for one architecture.
type Image struct {
	// Docker makes it a Docker manifest rather than an OCI one.
	Docker bool
	// Architecture is written into the image config; without it the image has
	// an empty config, which says nothing.
	Architecture string
	Layers       []Layer
	Annotations  map[string]string
}

// Publish makes an OCI index with a manifest and a UKI layer for each
// architecture, and returns the digest of the index.
func (r *Registry) Publish(repository, tag string, ukis map[string][]byte) (string, error) {
	var archs []string
	for a := range ukis {
		archs = append(archs, a)
	}
	sort.Strings(archs)
	var children []ocispec.Descriptor
	for _, a := range archs {
		d, err := r.PublishImage(repository, "", Image{Architecture: a, Layers: []Layer{{MediaType: UKI, Data: ukis[a]}}})
		if err != nil {
			return "", err
		}
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: a}
		children = append(children, d)
	}
	d, err := r.PublishIndex(repository, tag, false, children...)
	return d.Digest.String(), err
}

// PublishImage makes a single manifest, by digest and, if not empty, by tag.
// Its descriptor has no platform yet: that is for whoever puts it in an index.
func (r *Registry) PublishImage(repository, tag string, img Image) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: r.config(img), Layers: []ocispec.Descriptor{}, Annotations: img.Annotations,
	}
	if img.Docker {
		m.MediaType = DockerManifest
	}
	for _, l := range img.Layers {
		d := ocispec.Descriptor{MediaType: l.MediaType, Digest: digest.Digest(l.Digest), Size: l.Size}
		if l.Digest == "" {
			d.Digest, d.Size = digest.Digest(r.AddBlob(l.Data)), int64(len(l.Data))
		}
		m.Layers = append(m.Layers, d)
	}
	return r.publish(repository, tag, m.MediaType, m)
}

func (r *Registry) config(img Image) ocispec.Descriptor {
	data, t := []byte("{}"), "application/vnd.oci.empty.v1+json"
	if img.Architecture != "" {
		t = ocispec.MediaTypeImageConfig
		data = fmt.Appendf(nil, `{"architecture":%q,"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, img.Architecture)
		if img.Docker {
			t = DockerConfig
		}
	}
	return ocispec.Descriptor{MediaType: t, Digest: digest.Digest(r.AddBlob(data)), Size: int64(len(data))}
}

// PublishIndex makes an OCI index, or a Docker manifest list.
func (r *Registry) PublishIndex(repository, tag string, docker bool, children ...ocispec.Descriptor) (ocispec.Descriptor, error) {
	i := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children}
	if docker {
		i.MediaType = DockerList
	}
	return r.publish(repository, tag, i.MediaType, i)
}

func (r *Registry) publish(repository, tag, mediaType string, doc any) (ocispec.Descriptor, error) {
	body, err := json.Marshal(doc)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("publishing to %s: %w", repository, err)
	}
	return r.PublishRaw(repository, tag, mediaType, body), nil
}

// PublishRaw serves any bytes as a manifest, by digest and, if not empty, by tag.
func (r *Registry) PublishRaw(repository, tag, mediaType string, body []byte) ocispec.Descriptor {
	sum := sha256.Sum256(body)
	d := digest.Digest("sha256:" + hex.EncodeToString(sum[:]))
	r.mu.Lock()
	defer r.mu.Unlock()
	m := rawManifest{mediaType: mediaType, body: body}
	r.raw["/v2/"+repository+"/manifests/"+d.String()] = m
	if tag != "" {
		r.raw["/v2/"+repository+"/manifests/"+tag] = m
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
}
