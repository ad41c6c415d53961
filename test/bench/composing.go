package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/compose"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/demoimage"
)

// What UKIs are composed of in this benchmark, in bytes: 60 MiB in all.
const (
	composeKernel = 12 << 20
	composeInitrd = 48 << 20
)

// fileStore holds blobs as an artifact store does: as files.
type fileStore struct{ dir string }

func (s fileStore) Open(_ context.Context, d boot.Digest) (boot.Blob, error) {
	f, err := os.Open(filepath.Join(s.dir, d.Hex()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", boot.ErrNotReady, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return storedBlob{f, info.Size()}, nil
}

func (s fileStore) add(role boot.Role, data []byte) (boot.Artifact, error) {
	sum := sha256.Sum256(data)
	a := boot.Artifact{Role: role, Digest: boot.Digest("sha256:" + hex.EncodeToString(sum[:])), Size: int64(len(data))}
	return a, os.WriteFile(filepath.Join(s.dir, a.Digest.Hex()), data, 0o600)
}

type storedBlob struct {
	file *os.File
	size int64
}

func (b storedBlob) Read(p []byte) (int, error)         { return b.file.Read(p) }
func (b storedBlob) Seek(o int64, w int) (int64, error) { return b.file.Seek(o, w) }
func (b storedBlob) Close() error                       { return b.file.Close() }
func (b storedBlob) Size() int64                        { return b.size }
func (b storedBlob) File() *os.File                     { return b.file }

// composingSite is an operator that composes UKIs of one image, signed.
type composingSite struct {
	dir       string
	store     fileStore
	artifacts []boot.Artifact
	composer  *compose.Composer
	signer    *uki.Signer
}

func newComposingSite(dir string) (*composingSite, error) {
	s := &composingSite{dir: dir, store: fileStore{filepath.Join(dir, "blobs")}}
	if err := os.MkdirAll(s.store.dir, 0o700); err != nil {
		return nil, err
	}
	stub, err := demoimage.Greeting("amd64", "bench")
	if err != nil {
		return nil, err
	}
	noise := make([]byte, composeKernel+composeInitrd)
	_, _ = mathrand.NewChaCha8([32]byte{1}).Read(noise)
	for role, data := range map[boot.Role][]byte{
		boot.RoleStub: stub, boot.RoleKernel: append(append([]byte{}, stub...), noise[:composeKernel-len(stub)]...), boot.RoleInitrd: noise[composeKernel:],
	} {
		a, err := s.store.add(role, data)
		if err != nil {
			return nil, err
		}
		s.artifacts = append(s.artifacts, a)
	}
	if s.signer, err = newSigner(); err != nil {
		return nil, err
	}
	return s, s.restart()
}

// restart forgets what is kept of the image.
func (s *composingSite) restart() error {
	keys, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: make([]byte, 32)})
	if err != nil {
		return err
	}
	s.composer, err = compose.New(compose.Options{Blobs: s.store, Keyring: keys, BaseURL: "https://10.0.0.1:8084"})
	return err
}

// newSigner makes a key as Secure Boot's usually are.
func newSigner() (*uki.Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return uki.NewSigner(key, certificate)
}

// machine is the plan of one machine.
func (s *composingSite) machine(i int) *boot.Plan {
	return &boot.Plan{
		Object:    boot.Ref{Kind: "HTTPBootConfig", Namespace: "bench", Name: strconv.Itoa(i), UID: fmt.Sprintf("0a1b2c3d-4e5f-4a6b-8c7d-%012x", i)},
		Machine:   boot.Machine{Architecture: boot.AMD64},
		Artifacts: s.artifacts, Composes: true, HasIgnition: true, KernelArguments: []string{"quiet", argument(i)},
	}
}

// composing measures what a UKI costs that is composed for one of a thousand
// machines, beside what it costs to build, sign and hash it whole, and to hash it
// once.
func composing(ctx context.Context, _, dir string) error {
	const machines = 1000
	s, err := newComposingSite(dir)
	if err != nil {
		return err
	}
	plans := make([]*boot.Plan, machines)
	first, err := cpu(func() error { return s.compose(ctx, plans[:1]) })
	if err != nil {
		return err
	}
	writtenBefore, err := written()
	if err != nil {
		return err
	}
	each, err := cpu(func() error { return s.compose(ctx, plans) })
	if err != nil {
		return err
	}
	writtenAfter, err := written()
	if err != nil {
		return err
	}
	each /= machines
	ratio("compose-60MiB-1000-machines-cpu-ms-each", each*1000, "<=10")
	ratio("compose-60MiB-1000-machines-bytes-written-each", float64(writtenAfter-writtenBefore)/machines, "<=100")
	if err := s.beside(ctx, each, plans[0]); err != nil {
		return err
	}
	open, err := s.opening(ctx, plans)
	if err != nil {
		return err
	}
	ratio("compose-60MiB-open-and-verify-cpu-ms-each", open*1000, "<=1")
	fmt.Printf("# the first machine took %.0f ms of CPU time; status.composed has %d bytes\n", first*1000, statusSize(plans[0].Composed))
	return nil
}

// compose composes a UKI for each machine, and puts their plans where they are
// asked for.
func (s *composingSite) compose(ctx context.Context, plans []*boot.Plan) error {
	for i := range plans {
		p := s.machine(i)
		made, err := s.composer.Compose(ctx, p, 1, s.signer)
		if err != nil {
			return err
		}
		p.Composed = &made
		plans[i] = p
	}
	return nil
}

// beside compares with the references: both are measured five times, and the median
// is taken.
func (s *composingSite) beside(ctx context.Context, each float64, p *boot.Plan) error {
	mine := func() (float64, error) { return each, nil }
	built := func() (float64, error) {
		return cpu(func() error { return s.whole(filepath.Join(s.dir, "whole.efi")) })
	}
	v, err := paired(5, built, mine)
	if err != nil {
		return err
	}
	ratio("compose-60MiB-build-sign-and-hash-whole-vs-composed", v, ">=10")
	hashed := func() (float64, error) { return cpu(func() error { return s.hash(ctx, p) }) }
	if v, err = paired(5, mine, hashed); err != nil {
		return err
	}
	ratio("compose-60MiB-vs-one-sha256-of-the-whole", v, "<=0.25")
	return nil
}

// whole makes the same UKI as a file, signs and hashes it.
func (s *composingSite) whole(file string) error {
	parts := uki.Parts{CommandLine: "quiet " + argument(0)}
	for _, a := range s.artifacts {
		f, err := os.Open(filepath.Join(s.store.dir, a.Digest.Hex()))
		if err != nil {
			return err
		}
		defer f.Close()
		switch in := (uki.Input{R: f, Size: a.Size}); a.Role {
		case boot.RoleStub:
			parts.Stub, err = io.ReadAll(f)
		case boot.RoleKernel:
			parts.Linux = in
		default:
			parts.Initrds = append(parts.Initrds, in, uki.Input{R: strings.NewReader(strings.Repeat("\x00", uki.SlotSize)), Size: uki.SlotSize})
		}
		if err != nil {
			return err
		}
	}
	if err := writeFile(file, func(w io.Writer) error { return uki.Build(w, parts) }); err != nil {
		return err
	}
	unsigned, err := os.Open(file)
	if err != nil {
		return err
	}
	defer unsigned.Close()
	info, err := unsigned.Stat()
	if err != nil {
		return err
	}
	h := sha256.New()
	return writeFile(file+".signed", func(w io.Writer) error {
		return uki.Sign(io.MultiWriter(w, h), unsigned, info.Size(), s.signer)
	})
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	return f.Close()
}

// hash reads a composed UKI and hashes it.
func (s *composingSite) hash(ctx context.Context, p *boot.Plan) error {
	blob, err := s.composer.OpenComposed(ctx, p)
	if err != nil {
		return err
	}
	defer blob.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{blob}, make([]byte, 256<<10)); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != string(p.Composed.Digest) {
		return fmt.Errorf("the composed UKI has the digest %s, not %s", got, p.Composed.Digest)
	}
	return nil
}

// opening measures what a replica does for a machine before the first byte.
func (s *composingSite) opening(ctx context.Context, plans []*boot.Plan) (float64, error) {
	all, err := cpu(func() error {
		for _, p := range plans {
			blob, err := s.composer.OpenComposed(ctx, p)
			if err != nil {
				return err
			}
			if err := blob.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	return all / float64(len(plans)), err
}

// cpu returns the CPU time of this process that f takes, in seconds.
func cpu(f func() error) (float64, error) {
	before, err := usage()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := usage()
	return after - before, err
}

func usage() (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, nil
}

// written is how many bytes this process has handed to write(2) so far.
func written() (int64, error) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "wchar: "); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/self/io does not say what was written")
}

// statusSize is what a composed UKI takes in its config's status, in bytes.
func statusSize(c *boot.Composed) int {
	b, err := json.Marshal(v1alpha1.ComposedUKI{
		Attempt: c.Attempt, Digest: string(c.Digest), Size: c.Size, TokenKey: int32(c.TokenKey), Signer: "CN=bench", Signature: c.Signature,
	})
	if err != nil {
		return 0
	}
	return len(b)
}
