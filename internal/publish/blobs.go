package publish

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxStore is no limit: the disk is the reader's own.
	maxStore = 1 << 50
	// lookEvery is how often the progress of a pull is looked at.
	lookEvery = 100 * time.Millisecond
)

// Blobs is what is read of a repository, in a directory of its own, by the same means
// as the operator reads it.
type Blobs struct {
	*artifact.Store
	// Credentials are those for the repository.
	Credentials artifact.Credentials

	repository *Repository
	dir        string
}

// Blobs makes a store of a directory, which is made where it is not there yet. Close
// closes it.
func (r *Repository) Blobs(dir string) (*Blobs, error) {
	creds, err := pullSecret(r.ref.Registry, r.cred)
	if err != nil {
		return nil, err
	}
	s, err := artifact.New(r.storeOptions(dir))
	if err != nil {
		return nil, err
	}
	return &Blobs{Store: s, Credentials: creds, repository: r, dir: dir}, nil
}

// Image is what a machine of this architecture boots of the image whose index or
// manifest has this digest. Errors are those of artifact.Store.Resolve.
func (b *Blobs) Image(ctx context.Context, d boot.Digest, arch boot.Architecture) (artifact.Image, error) {
	img, err := b.Resolve(ctx, b.repository.ref.Pinned(d), arch, b.Credentials)
	return img, b.explain(ctx, err)
}

// Fetch pulls a blob, tells how far it is under this name, and opens it.
func (b *Blobs) Fetch(ctx context.Context, a boot.Artifact, name string) (boot.Blob, error) {
	done := make(chan error, 1)
	go func() { done <- b.Pull(ctx, a, b.Credentials) }()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	e := Event{Step: Receiving, Name: name, Size: a.Size}
	for {
		select {
		case err := <-done:
			if err != nil {
				return nil, b.explain(ctx, err)
			}
			e.Step, e.At = Done, a.Size
			b.repository.opts.Progress(e)
			return b.Open(ctx, a.Digest)
		case <-look.C:
			if info, err := os.Stat(filepath.Join(b.dir, "ingest", a.Digest.Hex())); err == nil {
				e.At = min(info.Size(), a.Size)
				b.repository.opts.Progress(e)
			}
		}
	}
}

// explain says of a missing right what is right here, where there is no pull secret.
func (b *Blobs) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errInterrupted
	case errors.Is(err, artifact.ErrUnauthorized):
		return b.repository.unauthorized("")
	}
	return err
}
