package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxReferrers and maxReferrerPages bound what is copied along with an image.
	maxReferrers     = 256
	maxReferrerPages = 32
)

// tagSuffixes are those under which cosign keeps what belongs to a digest.
var tagSuffixes = []string{".sig", ".att", ".sbom"}

// Copied is what a copy has made.
type Copied struct {
	Source    string      `json:"source"`
	Reference string      `json:"reference"`
	Digest    boot.Digest `json:"digest"`
	Pinned    string      `json:"pinned"`
	// Referrers are the signatures and other manifests that refer to the image.
	Referrers []boot.Digest `json:"referrers"`
	// Sent is how much had to be sent, in bytes.
	Sent int64 `json:"sent"`
}

// CopyTo copies the image as it is, with all its architectures, to another place; its
// digests stay. Signatures and whatever else refers to it go along, unless bare. Where
// keepTag is set, a tag that names something else already is left alone.
func (r *Repository) CopyTo(ctx context.Context, to *Repository, keepTag, bare bool) (Copied, error) {
	root, err := r.document(ctx, r.named())
	if err != nil {
		return Copied{}, err
	}
	tag := to.ref.Tag
	c := copying{from: r, to: to, Copied: Copied{
		Source: r.ref.String(), Reference: to.ref.String(), Digest: boot.Digest(root.Digest), Pinned: to.ref.Pinned(boot.Digest(root.Digest)), Referrers: []boot.Digest{},
	}}
	if to.ref.Digest != "" && to.ref.Digest != c.Digest {
		return c.Copied, fmt.Errorf("%w: %s names another digest than that of the source, %s", artifact.ErrInvalidReference, to.ref, c.Digest)
	}
	ctx = auth.AppendRepositoryScope(ctx, to.remote.Reference, auth.ActionPull, auth.ActionPush)
	if keepTag && tag != "" {
		there, err := to.find(ctx, tag)
		if err != nil {
			return c.Copied, err
		}
		if there != nil && there.Digest != root.Digest {
			return c.Copied, fmt.Errorf("%w: %s is %s; nothing was copied", ErrExists, to.ref, there.Digest)
		}
	}
	if err := c.graph(ctx, root.Descriptor); err != nil {
		return c.Copied, err
	}
	if !bare {
		if err := c.along(ctx, root); err != nil {
			return c.Copied, fmt.Errorf("copying what refers to the image: %w", err)
		}
	}
	return c.Copied, c.tag(ctx, root, tag)
}

// copying is one call of CopyTo.
type copying struct {
	from, to *Repository
	Copied
}

// graph copies a manifest or an index, and everything below it.
func (c *copying) graph(ctx context.Context, root ocispec.Descriptor) error {
	o := oras.CopyGraphOptions{
		Concurrency: 1, MaxMetadataBytes: 4 * maxManifest,
		PostCopy: func(_ context.Context, d ocispec.Descriptor) error {
			c.Sent += d.Size
			c.to.opts.Progress(Event{Step: Done, Name: copyName(d), Size: d.Size, At: d.Size})
			return nil
		},
		OnCopySkipped: func(_ context.Context, d ocispec.Descriptor) error {
			c.to.opts.Progress(Event{Step: Present, Name: copyName(d), Size: d.Size, At: d.Size})
			return nil
		},
		OnMounted: func(_ context.Context, d ocispec.Descriptor) error {
			c.to.opts.Progress(Event{Step: Present, Name: copyName(d), Size: d.Size, At: d.Size})
			return nil
		},
	}
	if c.from.ref.Registry == c.to.ref.Registry && c.from.ref.Repository != c.to.ref.Repository {
		o.MountFrom = func(context.Context, ocispec.Descriptor) ([]string, error) {
			return []string{c.from.ref.Repository}, nil
		}
	}
	err := c.to.again(ctx, copyName(root), func() error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		err := oras.CopyGraph(ctx, counted{c.from, c.to, cancel}, c.to.remote, plain(root), o)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("copying %s: %w", root.Digest, c.blame(err).explain(ctx, err))
	}
	return nil
}

// blame is the side that an error comes from.
func (c *copying) blame(err error) *Repository {
	var e *oras.CopyError
	if errors.As(err, &e) && e.Origin == oras.CopyErrorOriginSource {
		return c.from
	}
	return c.to
}

// counted is the source of a copy, which tells how far a blob is.
type counted struct {
	from, to *Repository
	cancel   context.CancelCauseFunc
}

func (s counted) Exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	return s.from.remote.Exists(ctx, d)
}

func (s counted) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	body, err := s.from.remote.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	c := s.to.count(Event{Step: Sending, Name: copyName(d), Size: d.Size}, s.cancel)
	c.Reader = verified{content.NewVerifyReader(body, d)}
	return &countedBody{counter: c, body: body}, nil
}

// verified ends with an error where the content was not what its digest says.
type verified struct{ *content.VerifyReader }

func (v verified) Read(p []byte) (int, error) {
	n, err := v.VerifyReader.Read(p)
	if errors.Is(err, io.EOF) {
		if wrong := v.Verify(); wrong != nil {
			return n, fmt.Errorf("%w: %w", artifact.ErrDigestMismatch, wrong)
		}
	}
	return n, err
}

type countedBody struct {
	*counter
	body io.Closer
}

func (b *countedBody) Close() error {
	b.stop()
	return b.body.Close()
}

// copyName names a blob of a copy for people: what is known of it is its descriptor.
func copyName(d ocispec.Descriptor) string {
	name := d.Annotations[ocispec.AnnotationTitle]
	if role, ok := artifact.LayerRole(d.MediaType); ok && name == "" {
		name = layerName(role)
	}
	if d.Platform != nil && d.Platform.Architecture != "" {
		name = strings.TrimSpace(d.Platform.Architecture + " manifest")
	}
	if name == "" {
		name = map[string]string{
			ocispec.MediaTypeImageIndex: "index", ocispec.MediaTypeImageManifest: "manifest", ocispec.MediaTypeImageConfig: "config",
		}[d.MediaType]
	}
	if name == "" {
		name = "blob"
	}
	return name + " " + short(d.Digest)
}

// short is enough of a digest to tell it from others by.
func short(d digest.Digest) string {
	const letters = 12
	_, hex, _ := strings.Cut(d.String(), ":")
	return hex[:min(letters, len(hex))]
}

// along copies what refers to the image or one of its manifests: referrers, and the
// older tags of cosign.
func (c *copying) along(ctx context.Context, root document) error {
	subjects := []ocispec.Descriptor{root.Descriptor}
	var i ocispec.Index
	if json.Unmarshal(root.body, &i) == nil {
		subjects = append(subjects, i.Manifests...)
	}
	for _, s := range subjects {
		if err := c.referrers(ctx, s); err != nil {
			return err
		}
		for _, suffix := range tagSuffixes {
			if err := c.tagged(ctx, digestTag(s.Digest, suffix)); err != nil {
				return err
			}
		}
	}
	return nil
}

// referrers copies what refers to a manifest, by the API or the tag schema of the OCI
// distribution specification 1.1; where the other side has no API, oras-go writes the
// tag.
func (c *copying) referrers(ctx context.Context, subject ocispec.Descriptor) error {
	var all []ocispec.Descriptor
	err := c.from.again(ctx, "", func() error {
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		all = nil
		return c.from.remote.Referrers(ctx, subject, "", func(some []ocispec.Descriptor) error {
			if all = append(all, some...); len(all) > maxReferrers {
				return fmt.Errorf("%w: more than %d manifests refer to %s", artifact.ErrTooLarge, maxReferrers, subject.Digest)
			}
			return nil
		})
	})
	if err != nil {
		return c.from.explain(ctx, err)
	}
	for _, d := range all {
		if err := c.graph(ctx, d); err != nil {
			return err
		}
		c.Referrers = append(c.Referrers, boot.Digest(d.Digest))
	}
	return nil
}

// tagged copies what a tag names, if it is there.
func (c *copying) tagged(ctx context.Context, tag string) error {
	d, err := c.from.find(ctx, tag)
	if err != nil || d == nil {
		return err
	}
	if err := c.graph(ctx, d.Descriptor); err != nil {
		return err
	}
	c.Referrers = append(c.Referrers, boot.Digest(d.Digest))
	return c.tag(ctx, *d, tag)
}

// tag makes a tag name what was copied; nothing where there is no tag to make.
func (c *copying) tag(ctx context.Context, d document, tag string) error {
	if tag == "" {
		return nil
	}
	err := c.to.again(ctx, tag, func() error {
		return c.to.remote.PushReference(ctx, plain(d.Descriptor), strings.NewReader(string(d.body)), tag)
	})
	if err != nil {
		return fmt.Errorf("tagging %s: %w", c.to.describe(tag), c.to.explain(ctx, err))
	}
	return nil
}

// digestTag is the tag that belongs to a digest where what refers to it is kept under
// tags, such as sha256-….sig.
func digestTag(d digest.Digest, suffix string) string {
	return strings.Replace(d.String(), ":", "-", 1) + suffix
}
