package compose

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

const (
	// mostParts is how many images' layouts are kept, mostStates how many states of
	// hashes: of each image the Authenticode hash, and the file's for the size of each
	// signature.
	mostParts, mostStates = 64, 256
	// arrivalWait is how long parts that are still arriving are waited for, all of
	// them together: five idle seconds end a firmware's boot.
	arrivalWait = 1500 * time.Millisecond
	// authenticode, in the place of a certificate table's size, means the hash that is
	// signed.
	authenticode = -1
	// readSize is how much is read and hashed at once, in bytes.
	readSize = 256 << 10
)

// parts are what UKIs are composed of: the stub, the kernel and the initrds. They
// are the same for many machines.
type parts struct {
	files  []boot.Artifact // the stub, the kernel, the initrds
	layout *uki.Layout
}

// partsOf returns the artifacts of a plan that its UKI is composed of. It returns
// boot.ErrInvalid where the image does not carry them.
func partsOf(p *boot.Plan) ([]boot.Artifact, error) {
	files := make([]boot.Artifact, 0, 4)
	for _, role := range []boot.Role{boot.RoleStub, boot.RoleKernel} {
		a, ok := p.Artifact(role)
		if !ok {
			return nil, fmt.Errorf("%w: the image carries no %s to compose a UKI of", boot.ErrInvalid, strings.ToLower(string(role)))
		}
		files = append(files, a)
	}
	for _, role := range []boot.Role{boot.RoleInitrd, boot.RoleExtraInitrd} {
		for _, a := range p.Artifacts {
			if a.Role == role {
				files = append(files, a)
			}
		}
	}
	return files, nil
}

// lay returns the parts of a plan with their layout.
func (c *Composer) lay(ctx context.Context, p *boot.Plan) (*parts, error) {
	files, err := partsOf(p)
	if err != nil {
		return nil, err
	}
	laid, err := c.layouts.get(ctx, keyOf(files), func(ctx context.Context) (*parts, error) { return c.layOut(ctx, files) })
	if err != nil {
		return nil, err
	}
	if a := string(p.Machine.Architecture); a != "" && a != laid.layout.Architecture {
		return nil, fmt.Errorf("%w: the stub is for %s, the machine for %s", boot.ErrInvalid, laid.layout.Architecture, a)
	}
	return laid, nil
}

func keyOf(files []boot.Artifact) string {
	var b strings.Builder
	for _, a := range files {
		b.WriteString(string(a.Digest) + " ")
	}
	return b.String()
}

// layOut reads the stub and the kernel's headers.
func (c *Composer) layOut(ctx context.Context, files []boot.Artifact) (*parts, error) {
	open, err := c.open(ctx, files)
	if err != nil {
		return nil, err
	}
	defer open.close()
	stub, kernel := open[0], open[1]
	if stub.size > uki.MaxStub {
		return nil, fmt.Errorf("%w: the stub has %d bytes; one may have %d", boot.ErrInvalid, stub.size, uki.MaxStub)
	}
	content := make([]byte, stub.size)
	if _, err := stub.file.ReadAt(content, 0); err != nil {
		return nil, fmt.Errorf("reading the stub: %w", err)
	}
	layout, err := uki.NewLayout(content, uki.Input{R: kernel.file, Size: kernel.size}, open.sizes()[2:]...)
	if err != nil {
		return nil, invalid(err)
	}
	return &parts{files, layout}, nil
}

// invalid says of an error of package uki that it will be the same again.
func invalid(err error) error {
	for _, final := range []error{uki.ErrNotPE, uki.ErrMalformed, uki.ErrNotEFI, uki.ErrNotUKI, uki.ErrArchitecture, uki.ErrNoRoom} {
		if errors.Is(err, final) {
			return fmt.Errorf("%w: %w", boot.ErrInvalid, err)
		}
	}
	return err
}

// state returns the state of a hash of everything before the tail: of the file
// with a certificate table of this size, or of what Authenticode hashes. It must be
// cloned to go on.
func (c *Composer) state(ctx context.Context, p *parts, table int) (hash.Cloner, error) {
	return c.states.get(ctx, keyOf(p.files)+strconv.Itoa(table), func(ctx context.Context) (hash.Cloner, error) {
		open, err := c.open(ctx, p.files)
		if err != nil {
			return nil, err
		}
		defer open.close()
		return hashHead(ctx, p.layout, open, table)
	})
}

func hashHead(ctx context.Context, l *uki.Layout, open openParts, table int) (hash.Cloner, error) {
	h, ok := sha256.New().(hash.Cloner)
	if !ok {
		return nil, errors.New("this build's SHA-256 has no state that can be kept")
	}
	if table == authenticode {
		if err := l.HashHead(h); err != nil {
			return nil, fmt.Errorf("hashing: %w", err)
		}
	} else {
		for _, piece := range l.Head(table) {
			h.Write(piece)
		}
	}
	b := make([]byte, readSize)
	at := l.Parts[0].Offset
	for i, part := range l.Parts {
		h.Write(zeroes[:part.Offset-at])
		from := io.NewSectionReader(open[i+1].file, 0, part.Size)
		n, err := io.CopyBuffer(struct{ io.Writer }{h}, contextReader{ctx, from}, b)
		if err == nil && n != part.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("hashing a part of a UKI: %w", err)
		}
		at = part.Offset + part.Size
	}
	h.Write(zeroes[:l.Tail-at])
	return h, nil
}

// zeroes are what lies between parts: less than an alignment, which is at most the
// size of the command line.
var zeroes [uki.CommandLineSize]byte

// finish returns the hash that a state comes to with what follows.
func finish(state hash.Cloner, rest ...[]byte) ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	h, err := state.Clone()
	if err != nil {
		return sum, fmt.Errorf("going on with a hash: %w", err)
	}
	for _, b := range rest {
		h.Write(b)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // it bounds one reading
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx) //nolint:wrapcheck // who reads wraps it
	}
	return r.r.Read(p) //nolint:wrapcheck // likewise
}

// openPart is a part whose every byte was verified.
type openPart struct {
	blob boot.Blob
	file *os.File
	size int64
}

type openParts []openPart

// open opens parts. It returns boot.ErrNotReady while one is not in the store, or
// not all of it.
func (c *Composer) open(ctx context.Context, files []boot.Artifact) (openParts, error) {
	all := make(openParts, 0, len(files))
	started := time.Now()
	for _, a := range files {
		blob, err := c.o.Blobs.Open(ctx, a.Digest)
		if err != nil {
			all.close()
			return nil, fmt.Errorf("opening the %s %s: %w", strings.ToLower(string(a.Role)), a.Digest, err)
		}
		all = append(all, openPart{blob: blob, size: blob.Size()})
		file, err := boot.Verified(ctx, blob, max(0, arrivalWait-time.Since(started)))
		if err != nil {
			all.close()
			return nil, fmt.Errorf("opening the %s %s: %w", strings.ToLower(string(a.Role)), a.Digest, err)
		}
		all[len(all)-1].file = file
	}
	return all, nil
}

func (o openParts) sizes() []int64 {
	all := make([]int64, len(o))
	for i, p := range o {
		all[i] = p.size
	}
	return all
}

func (o openParts) close() {
	for _, p := range o {
		_ = p.blob.Close() // it was only read
	}
}
