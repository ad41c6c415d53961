package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Pushed is what a push has made.
type Pushed struct {
	// Reference is the repository and the tag, Digest that of the index.
	Reference string      `json:"reference"`
	Digest    boot.Digest `json:"digest"`
	// Pinned is registry/repository@digest.
	Pinned    string           `json:"pinned"`
	Manifests []PushedManifest `json:"manifests"`
	// Size of all blobs that were pushed or found there, and Sent how much of that
	// had to be sent, in bytes.
	Size int64 `json:"size"`
	Sent int64 `json:"sent"`
}

// PushedManifest is one architecture of it.
type PushedManifest struct {
	Architecture boot.Architecture `json:"architecture"`
	Digest       boot.Digest       `json:"digest"`
	Layers       []LayerInfo       `json:"layers"`
}

// LayerInfo is one layer of a manifest.
type LayerInfo struct {
	Role      boot.Role   `json:"role,omitempty"`
	Name      string      `json:"name,omitempty"`
	MediaType string      `json:"mediaType"`
	Digest    boot.Digest `json:"digest"`
	Size      int64       `json:"size"`
}

// Push publishes an image for one architecture or more under the tag of the
// reference. Blobs come first and the tag last, so that nobody ever sees half of it;
// what is there already is not sent again. It returns ErrExists, ErrChanged, ErrFile,
// and the errors of internal/artifact for what the registry refuses.
func (r *Repository) Push(ctx context.Context, images []Image, o PushOptions) (Pushed, error) {
	if r.ref.Digest != "" {
		return Pushed{}, fmt.Errorf("%w: %s names a digest, which follows from what is pushed; name a tag", artifact.ErrInvalidReference, r.ref)
	}
	if a, twice := duplicate(images); twice {
		return Pushed{}, fmt.Errorf("%w: there are files of two images for %s", ErrFile, a)
	}
	ctx = auth.AppendRepositoryScope(ctx, r.remote.Reference, auth.ActionPull, auth.ActionPush)
	p := push{Repository: r, Pushed: Pushed{Reference: r.ref.String()}, options: o}
	err := p.run(ctx, images)
	return p.Pushed, err
}

// push is one call of Push.
type push struct {
	*Repository
	Pushed
	options   PushOptions
	manifests []ocispec.Descriptor
}

func (p *push) run(ctx context.Context, images []Image) error {
	var all []prepared
	for _, img := range images {
		blobs, err := p.prepareImage(ctx, img, p.options)
		if err != nil {
			return err
		}
		all = append(all, blobs...)
		p.note(img.Architecture, blobs)
	}
	there, index, err := p.index(ctx)
	switch {
	case err != nil:
		return err
	case there != nil && there.Digest == index.Digest:
		p.opts.Progress(Event{Step: Present, Name: index.name, Size: index.Size, At: index.Size})
		return nil
	case there != nil && p.options.KeepTag:
		return fmt.Errorf("%w: %s is %s; nothing was pushed", ErrExists, p.ref, there.Digest)
	}
	for _, b := range all {
		if err := p.send(ctx, b); err != nil {
			return err
		}
	}
	return p.publish(ctx, index)
}

// index makes the index of what is pushed and, where that is asked for, of what the
// tag names now.
func (p *push) index(ctx context.Context) (*document, prepared, error) {
	there, err := p.tagged(ctx)
	if err != nil {
		return nil, prepared{}, err
	}
	var keep []ocispec.Descriptor
	if p.options.Append && there != nil {
		if keep, err = indexed(there); err != nil {
			return nil, prepared{}, fmt.Errorf("appending to %s: %w", p.ref, err)
		}
	}
	index, err := prepareIndex(p.manifests, keep)
	p.Digest = boot.Digest(index.Digest)
	p.Pinned = p.ref.Pinned(p.Digest)
	return there, index, err
}

// publish makes the tag name the index. Two that append at the same time can undo each
// other, as registries know no compare and swap: so the tag is read just before, and
// just after.
func (p *push) publish(ctx context.Context, index prepared) error {
	for range attempts {
		if p.options.Append {
			var err error
			if _, index, err = p.index(ctx); err != nil {
				return err
			}
		}
		if err := p.tag(ctx, index); err != nil {
			return err
		}
		if !p.options.Append {
			return nil
		}
		now, err := p.document(ctx, p.ref.Tag)
		if err != nil {
			return fmt.Errorf("looking at what was pushed: %w", err)
		}
		if now.Digest == index.Digest {
			return nil
		}
	}
	return fmt.Errorf("%w: another push goes on changing what %s names; run the same again when it is done", ErrChanged, p.ref)
}

// tagged is what the tag names now, where that matters.
func (p *push) tagged(ctx context.Context) (*document, error) {
	if !p.options.Append && !p.options.KeepTag {
		return nil, nil //nolint:nilnil // that there is none is the answer
	}
	return p.find(ctx, p.ref.Tag)
}

// indexed are the manifests of an index.
func indexed(d *document) ([]ocispec.Descriptor, error) {
	var i ocispec.Index
	if err := json.Unmarshal(d.body, &i); err != nil {
		return nil, fmt.Errorf("%w: what is there is no JSON: %w", artifact.ErrNoArtifact, err)
	}
	if d.MediaType != ocispec.MediaTypeImageIndex {
		return nil, fmt.Errorf("%w: what is there is no OCI index but %s; push all architectures at once, or to another tag", artifact.ErrNoArtifact, d.MediaType)
	}
	return i.Manifests, nil
}

// note adds what was prepared for an architecture to the answer.
func (p *push) note(a boot.Architecture, blobs []prepared) {
	manifest := blobs[len(blobs)-1].Descriptor
	p.manifests = append(p.manifests, manifest)
	m := PushedManifest{Architecture: a, Digest: boot.Digest(manifest.Digest)}
	for _, b := range blobs {
		p.Size += b.Size
		if role, ok := artifact.LayerRole(b.MediaType); ok {
			m.Layers = append(m.Layers, LayerInfo{
				Role: role, Name: b.Annotations[ocispec.AnnotationTitle], MediaType: b.MediaType, Digest: boot.Digest(b.Digest), Size: b.Size,
			})
		}
	}
	p.Manifests = append(p.Manifests, m)
}

// send puts a blob or a manifest where it belongs, unless it is there. A HEAD that
// tells nothing is no reason not to try.
func (p *push) send(ctx context.Context, b prepared) error {
	there, at := false, int64(0)
	err := p.again(ctx, b.name, func() error {
		var err error
		there, err = p.exists(ctx, b.Descriptor)
		if there || isUnauthorized(err) {
			return err
		}
		at, err = p.upload(ctx, b)
		return err
	})
	if err != nil {
		after := ""
		if at > 0 {
			after = fmt.Sprintf("after %d of %d bytes: ", at, b.Size)
		}
		return fmt.Errorf("pushing %s: %s%w", b.name, after, p.explain(ctx, err))
	}
	e := Event{Step: Done, Name: b.name, Size: b.Size, At: b.Size}
	if there {
		e.Step = Present
	} else {
		p.Sent += b.Size
	}
	p.opts.Progress(e)
	return nil
}

func (p *push) exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return p.remote.Exists(ctx, d)
}

// upload sends the content once, from its beginning: registries differ too much in
// how an upload goes on that was cut. It returns how many bytes were sent.
func (p *push) upload(ctx context.Context, b prepared) (int64, error) {
	in, err := b.content.Open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := p.count(Event{Step: Sending, Name: b.name, Size: b.Size}, cancel)
	defer c.stop()
	c.Reader = newExact(in, b.name, boot.Digest(b.Digest), b.Size)
	err = p.remote.Push(ctx, plain(b.Descriptor), c)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return c.at.Load(), err
}

// plain is a descriptor with nothing but what names the content.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// tag makes the tag name the index.
func (p *push) tag(ctx context.Context, index prepared) error {
	data, err := readAll(index.content)
	if err != nil {
		return err
	}
	err = p.again(ctx, index.name, func() error {
		return p.remote.PushReference(ctx, plain(index.Descriptor), bytes.NewReader(data), p.ref.Tag)
	})
	if err != nil {
		return fmt.Errorf("tagging %s: %w", p.ref, p.explain(ctx, err))
	}
	p.Sent += index.Size
	p.opts.Progress(Event{Step: Done, Name: index.name, Size: index.Size, At: index.Size})
	return nil
}

func readAll(c Content) ([]byte, error) {
	in, err := c.Open()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(in)
	return b.Bytes(), errors.Join(err, in.Close())
}
