package compose

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/demoimage"
)

const (
	uid     = "0a1b2c3d-4e5f-4a6b-8c7d-000000000001"
	baseURL = "https://10.0.0.1:8084"
)

// store holds blobs as files. Arriving ones have no file.
type store struct {
	dir string

	mu       sync.Mutex
	opened   map[boot.Digest]int
	arriving map[boot.Digest]bool
	before   func(ctx context.Context) // each open
}

func newStore(t testing.TB) *store {
	return &store{dir: t.TempDir(), opened: map[boot.Digest]int{}, arriving: map[boot.Digest]bool{}}
}

func (s *store) add(t testing.TB, role boot.Role, data []byte) boot.Artifact {
	t.Helper()
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), data, 0o600))
	return boot.Artifact{Role: role, Digest: boot.Digest("sha256:" + name), Size: int64(len(data)), Source: "registry.example/os@sha256:" + name}
}

func (s *store) Open(ctx context.Context, d boot.Digest) (boot.Blob, error) {
	s.mu.Lock()
	s.opened[d]++
	arriving, before := s.arriving[d], s.before
	s.mu.Unlock()
	if before != nil {
		before(ctx)
	}
	f, err := os.Open(filepath.Join(s.dir, d.Hex()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", boot.ErrNotReady, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &storeBlob{file: f, size: info.Size(), arriving: arriving}, nil
}

func (s *store) opens(d boot.Digest) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[d]
}

type storeBlob struct {
	file     *os.File
	size     int64
	arriving bool
}

func (b *storeBlob) Read(p []byte) (int, error)         { return b.file.Read(p) }
func (b *storeBlob) Seek(o int64, w int) (int64, error) { return b.file.Seek(o, w) }
func (b *storeBlob) Close() error                       { return b.file.Close() }
func (b *storeBlob) Size() int64                        { return b.size }
func (b *storeBlob) File() *os.File {
	if b.arriving {
		return nil
	}
	return b.file
}

func bytesOf(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = mathrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func greeting(t testing.TB, architecture string) []byte {
	t.Helper()
	b, err := demoimage.Greeting(architecture, "hello")
	require.NoError(t, err)
	return b
}

// kernel is an EFI application with more bytes behind it.
func kernel(t testing.TB, seed byte, more int) []byte {
	return append(greeting(t, uki.AMD64), bytesOf(seed, more)...)
}

// site is an operator's composer with an image in its store, and a machine's plan.
type site struct {
	store    *store
	keys     *boot.Keyring
	options  Options
	composer *Composer
	plan     *boot.Plan
	kernel   []byte
	initrds  [][]byte
}

func key(id byte) boot.TokenKey {
	return boot.TokenKey{ID: id, Secret: bytesOf(id, 32)}
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{store: newStore(t), kernel: kernel(t, 1, 5000), initrds: [][]byte{bytesOf(2, 3001), bytesOf(3, 777)}}
	var err error
	s.keys, err = boot.NewKeyring(key(7))
	require.NoError(t, err)
	s.options = Options{Blobs: s.store, Keyring: s.keys, BaseURL: baseURL, CA: certificate(t).pem}
	s.composer = s.again(t)
	s.plan = &boot.Plan{
		Object:  boot.Ref{Kind: "HTTPBootConfig", Namespace: "default", Name: "a", UID: uid},
		Machine: boot.Machine{UUID: "00112233-4455-6677-8899-aabbccddeeff", Architecture: boot.AMD64},
		Artifacts: []boot.Artifact{
			s.store.add(t, boot.RoleExtraInitrd, s.initrds[1]), s.store.add(t, boot.RoleInitrd, s.initrds[0]),
			s.store.add(t, boot.RoleKernel, s.kernel), s.store.add(t, boot.RoleStub, greeting(t, uki.AMD64)),
		},
		Composes: true, HasIgnition: true, KernelArguments: []string{"console=ttyS0", "machine=a"},
	}
	return s
}

// again returns another composer with the same options, changed or not.
func (s *site) again(t testing.TB, change ...func(o *Options)) *Composer {
	t.Helper()
	o := s.options
	for _, c := range change {
		c(&o)
	}
	c, err := New(o)
	require.NoError(t, err)
	return c
}

// with returns the plan with another change.
func (s *site) with(change func(p *boot.Plan)) *boot.Plan {
	p := *s.plan
	change(&p)
	return &p
}

// composed returns the plan with what Compose makes of it.
func (s *site) composed(t testing.TB, attempt int64, signer *uki.Signer) *boot.Plan {
	t.Helper()
	c, err := s.composer.Compose(t.Context(), s.plan, attempt, signer)
	require.NoError(t, err)
	return s.with(func(p *boot.Plan) { p.Composed = &c })
}

// read returns all of a composed UKI.
func read(t testing.TB, c *Composer, p *boot.Plan) []byte {
	t.Helper()
	blob, err := c.OpenComposed(t.Context(), p)
	require.NoError(t, err)
	defer func() { require.NoError(t, blob.Close()) }()
	require.Nil(t, blob.File())
	b, err := io.ReadAll(blob)
	require.NoError(t, err)
	require.EqualValues(t, blob.Size(), len(b))
	return b
}

// identity is a key with a certificate of its own.
type identity struct {
	key         *rsa.PrivateKey
	certificate *x509.Certificate
	pem         []byte
}

// identities are made once: it takes a while.
var identities = struct {
	sync.Mutex
	made map[string]identity
}{made: map[string]identity{}}

func named(t testing.TB, name string, bits int) identity {
	t.Helper()
	identities.Lock()
	defer identities.Unlock()
	if i, ok := identities.made[name]; ok {
		return i
	}
	k, err := rsa.GenerateKey(rand.Reader, bits)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	identities.made[name] = identity{k, c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	return identities.made[name]
}

func certificate(t testing.TB) identity { return named(t, "the CA of the boot server", 2048) }

func signer(t testing.TB, name string, between ...string) *uki.Signer {
	t.Helper()
	i := named(t, name, 2048)
	certificates := []*x509.Certificate{i.certificate}
	for _, b := range between {
		certificates = append(certificates, named(t, b, 2048).certificate)
	}
	s, err := uki.NewSigner(i.key, certificates...)
	require.NoError(t, err)
	return s
}
