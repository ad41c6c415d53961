package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Pulled is what a pull has made.
type Pulled struct {
	Reference string       `json:"reference"`
	Digest    boot.Digest  `json:"digest"`
	Files     []PulledFile `json:"files"`
}

// PulledFile is one file of it.
type PulledFile struct {
	Architecture boot.Architecture `json:"architecture"`
	Role         boot.Role         `json:"role"`
	Path         string            `json:"path"`
	Digest       boot.Digest       `json:"digest"`
	Size         int64             `json:"size"`
}

// Pull writes what machines boot of the image into a directory: <architecture>/uki.efi,
// stub.efi, vmlinuz, initrd, rootfs.squashfs. Without architectures it is those that
// the image has. The tag is read once; every blob is verified before it has its name,
// and a pull that was cut goes on where it was.
func (r *Repository) Pull(ctx context.Context, dir string, architectures ...boot.Architecture) (Pulled, error) {
	root, err := r.document(ctx, r.named())
	if err != nil {
		return Pulled{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Pulled{}, fmt.Errorf("making the directory: %w", err)
	}
	// Beside the files, so that a blob only gets another name.
	temporary := filepath.Join(dir, ".bootctl-pull")
	blobs, err := r.Blobs(temporary)
	if err != nil {
		return Pulled{}, err
	}
	p := Pulled{Reference: r.ref.String(), Digest: boot.Digest(root.Digest), Files: []PulledFile{}}
	err = blobs.pullAll(ctx, &p, dir, architectures)
	if err = errors.Join(err, blobs.Close()); err == nil {
		err = os.RemoveAll(temporary)
	}
	return p, err
}

// pullAll pulls for these architectures or, without any, for those that there are.
func (b *Blobs) pullAll(ctx context.Context, p *Pulled, dir string, architectures []boot.Architecture) error {
	asked := architectures
	if len(asked) == 0 {
		asked = Architectures
	}
	var missing error
	for _, arch := range asked {
		img, err := b.Image(ctx, p.Digest, arch)
		switch {
		case errors.Is(err, artifact.ErrNoPlatform) && len(architectures) == 0:
			missing = errors.Join(missing, err)
			continue
		case err != nil:
			return err
		}
		for _, a := range img.Artifacts {
			f, err := b.pull(ctx, a, arch, dir)
			if err != nil {
				return err
			}
			p.Files = append(p.Files, f)
		}
	}
	if len(p.Files) == 0 {
		return missing
	}
	return nil
}

// pull pulls one blob and gives it its name, which is never that of half a file.
func (b *Blobs) pull(ctx context.Context, a boot.Artifact, arch boot.Architecture, dir string) (PulledFile, error) {
	name := layerName(a.Role)
	blob, err := b.Fetch(ctx, a, string(arch)+" "+name)
	if err != nil {
		return PulledFile{}, err
	}
	defer func() { _ = blob.Close() }()
	f := PulledFile{Architecture: arch, Role: a.Role, Path: filepath.Join(dir, string(arch), name), Digest: a.Digest, Size: a.Size}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return f, fmt.Errorf("making the directory: %w", err)
	}
	if err := place(blob, f.Path); err != nil {
		return f, fmt.Errorf("writing %s: %w", f.Path, err)
	}
	return f, nil
}

// place gives a blob a second name or, where the file system knows no such thing, a
// copy.
func place(blob boot.Blob, path string) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !isMissing(err) {
		return err
	}
	if err := os.Link(blob.File().Name(), next); err != nil {
		f, err := os.Create(next)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, blob)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return errors.Join(os.Chmod(next, 0o644), os.Rename(next, path))
}

// ParseArchitecture reads the name of an architecture as OCI has it, and says what is
// meant where it is another's.
func ParseArchitecture(s string) (boot.Architecture, error) {
	switch strings.ToLower(s) {
	case "amd64", "arm64":
		return boot.Architecture(strings.ToLower(s)), nil
	case "x86_64", "x86-64", "x64":
		return "", fmt.Errorf("the architecture %q is called amd64 here", s)
	case "aarch64", "aa64", "armv8":
		return "", fmt.Errorf("the architecture %q is called arm64 here", s)
	}
	return "", fmt.Errorf("%q is no architecture of machines that boot here; it must be amd64 or arm64", s)
}
