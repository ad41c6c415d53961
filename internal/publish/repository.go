package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	userAgent = "bootctl"
	// maxManifest bounds a manifest, an index and an image config.
	maxManifest = 4 << 20
	// answerTimeout bounds a question with a short answer.
	answerTimeout = time.Minute

	// DefaultStallTimeout is how long a transfer may stand still.
	DefaultStallTimeout = time.Minute
	// DefaultRetryDelay is the wait before what failed is tried again; it doubles.
	DefaultRetryDelay = time.Second
)

// Options say how to speak to a registry.
type Options struct {
	// Credentials are asked for the registry that the reference names, and for no
	// other. The zero value is anonymous.
	Credentials Credentials
	// PlainHTTP speaks to the registry without TLS.
	PlainHTTP bool
	// CABundle is PEM; it is trusted besides the system's.
	CABundle []byte
	// Progress is told how far a transfer is, by one goroutine at a time; nil means
	// nobody is told.
	Progress Progress
	// StallTimeout is how long a transfer may stand still; 0 means
	// DefaultStallTimeout.
	StallTimeout time.Duration
	// RetryDelay is the wait before what failed is tried again; 0 means
	// DefaultRetryDelay.
	RetryDelay time.Duration
	// RedirectHosts are host:port that redirects may lead to although they have an
	// address of this machine: a local CDN, in tests.
	RedirectHosts []string
}

// Repository is one repository of a registry, and what a reference names in it.
type Repository struct {
	ref       artifact.Reference
	opts      Options
	plainHTTP bool
	cred      auth.Credential
	remote    *remote.Repository
}

// Open reads a reference and its credentials; nothing is asked of the registry
// yet. It returns artifact.ErrInvalidReference.
func Open(ctx context.Context, reference string, o Options) (*Repository, error) {
	ref, err := artifact.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	r := &Repository{ref: ref, opts: o.withDefaults(), plainHTTP: o.PlainHTTP}
	if r.cred, err = o.Credentials.lookup(ctx, ref.Registry); err != nil {
		return nil, err
	}
	client, err := artifact.HTTPClient(r.storeOptions(""))
	if err != nil {
		return nil, err
	}
	r.remote = &remote.Repository{
		Client: &auth.Client{
			Client: client, Header: http.Header{"User-Agent": {userAgent}}, Cache: auth.NewCache(),
			Credential: auth.StaticCredential(ref.Registry, r.cred),
		},
		Reference: registry.Reference{Registry: ref.Registry, Repository: ref.Repository},
		PlainHTTP: o.PlainHTTP, MaxMetadataBytes: maxManifest, ReferrerListMaxPages: maxReferrerPages,
		// Old lists of referrers are left to the registry: not everyone who may
		// push may delete.
		SkipReferrersGC: true,
	}
	return r, nil
}

func (o Options) withDefaults() Options {
	if o.StallTimeout <= 0 {
		o.StallTimeout = DefaultStallTimeout
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = DefaultRetryDelay
	}
	tell := o.Progress
	var one sync.Mutex
	o.Progress = func(e Event) {
		if tell != nil {
			one.Lock()
			defer one.Unlock()
			tell(e)
		}
	}
	return o
}

// storeOptions are those of an artifact store that may use this repository only.
func (r *Repository) storeOptions(dir string) artifact.Options {
	o := artifact.Options{
		Dir: dir, AllowedRegistries: []string{r.ref.Name()}, CABundle: r.opts.CABundle, RedirectHosts: r.opts.RedirectHosts,
		MaxBytes: maxStore, StallTimeout: r.opts.StallTimeout, RetryDelay: r.opts.RetryDelay,
	}
	if r.plainHTTP {
		o.PlainHTTPRegistries = []string{r.ref.Registry}
	}
	return o
}

// Reference is what was opened, in canonical form.
func (r *Repository) Reference() artifact.Reference { return r.ref }

func (r *Repository) hasCredentials() bool { return r.cred != auth.EmptyCredential }

// named is the tag or, where there is one, the digest of the reference.
func (r *Repository) named() string {
	if r.ref.Digest != "" {
		return string(r.ref.Digest)
	}
	return r.ref.Tag
}

// document is a manifest or an index whose digest was checked.
type document struct {
	ocispec.Descriptor
	body []byte
}

// document reads a manifest by tag or digest. It is asked for by GET: a HEAD
// without a digest in its answer says nothing.
func (r *Repository) document(ctx context.Context, name string) (document, error) {
	var d document
	err := r.again(ctx, "", func() error {
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		var body io.ReadCloser
		var err error
		if d.Descriptor, body, err = r.remote.FetchReference(ctx, name); err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		if d.body, err = io.ReadAll(io.LimitReader(body, maxManifest+1)); err != nil {
			return err
		}
		return d.check()
	})
	if err != nil {
		return document{}, fmt.Errorf("reading %s: %w", r.describe(name), r.explain(ctx, err))
	}
	return d, nil
}

func (d document) check() error {
	if max(int64(len(d.body)), d.Size) > maxManifest {
		return fmt.Errorf("%w: the manifest has more than %d bytes", artifact.ErrTooLarge, maxManifest)
	}
	if got := digest.FromBytes(d.body); got != d.Digest {
		return fmt.Errorf("%w: the manifest that came has the digest %s, not %s", artifact.ErrDigestMismatch, got, d.Digest)
	}
	return nil
}

// find is document, and nothing where the registry has none of that name.
func (r *Repository) find(ctx context.Context, name string) (*document, error) {
	d, err := r.document(ctx, name)
	if errors.Is(err, artifact.ErrNotFound) {
		return nil, nil //nolint:nilnil // that there is none is the answer
	}
	return &d, err
}

// blob reads a small blob, such as an image config.
func (r *Repository) blob(ctx context.Context, want ocispec.Descriptor) ([]byte, error) {
	var data []byte
	err := r.again(ctx, "", func() error {
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		if want.Size < 0 || want.Size > maxManifest {
			return fmt.Errorf("%w: it has %d bytes; %d are the most", artifact.ErrTooLarge, want.Size, maxManifest)
		}
		body, err := r.remote.Blobs().Fetch(ctx, want)
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		if data, err = io.ReadAll(io.LimitReader(body, want.Size+1)); err != nil {
			return err
		}
		if int64(len(data)) != want.Size || digest.FromBytes(data) != want.Digest {
			return fmt.Errorf("%w: what came is not %s", artifact.ErrDigestMismatch, want.Digest)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", want.Digest, r.explain(ctx, err))
	}
	return data, nil
}

// describe names a tag or a digest of the repository for people.
func (r *Repository) describe(name string) string {
	if d, err := boot.ParseDigest(name); err == nil {
		return r.ref.Pinned(d)
	}
	return r.ref.Name() + ":" + name
}

// Resolve returns the digest of the index or manifest that the reference names now.
func (r *Repository) Resolve(ctx context.Context) (boot.Digest, error) {
	d, err := r.document(ctx, r.named())
	return boot.Digest(d.Digest), err
}
