package compose

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

func digestOf(b []byte) boot.Digest {
	sum := sha256.Sum256(b)
	return boot.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func section(t testing.TB, image []byte, name string) []byte {
	t.Helper()
	info, err := uki.Inspect(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	s, ok := info.Section(name)
	require.True(t, ok, "section %s", name)
	content, err := io.ReadAll(s.Open(bytes.NewReader(image)))
	require.NoError(t, err)
	return content
}

func TestAComposedUKIHoldsTheImageAndWhatTheMachineIsTold(t *testing.T) {
	s := newSite(t)
	p := s.composed(t, 3, signer(t, "signer"))
	image := read(t, s.composer, p)
	require.Equal(t, p.Composed.Digest, digestOf(image))
	require.EqualValues(t, len(image), p.Composed.Size)
	require.EqualValues(t, 3, p.Composed.Attempt)
	require.EqualValues(t, 7, p.Composed.TokenKey)

	require.Equal(t, s.kernel, section(t, image, ".linux"))
	require.Equal(t, "console=ttyS0 machine=a", strings.TrimRight(string(section(t, image, ".cmdline")), "\x00"))
	initrd := section(t, image, ".initrd")
	require.True(t, bytes.HasPrefix(initrd, s.initrds[0]))
	second := (len(s.initrds[0]) + 3) &^ 3
	require.True(t, bytes.HasPrefix(initrd[second:], s.initrds[1]), "the extra initrd comes behind, from a multiple of 4 on")
	files := unpack(t, initrd[len(initrd)-uki.SlotSize:])
	require.Equal(t, certificate(t).pem, files[caFile].data)

	url := strings.TrimSuffix(string(files[ignitionURLFile].data), "\n")
	token, ok := strings.CutPrefix(url, baseURL+"/ignition?token=")
	require.True(t, ok, url)
	read, err := s.keys.Verify(token, boot.AudienceComposed, netip.Addr{}, time.Now())
	require.NoError(t, err)
	require.Equal(t, boot.Token{
		Object: uid, Attempt: 3, Audience: boot.AudienceComposed, Proof: boot.Unproven, Expires: time.Unix(1<<32-1, 0),
	}, read)
	require.NotContains(t, string(section(t, image, ".cmdline")), token[:20], "nothing secret is on the command line")
	require.Equal(t, -1, bytes.Index(initrd[:len(initrd)-uki.SlotSize], []byte(token)), "what is shared holds no token")
}

func TestTheSignatureIsOfTheWholeFile(t *testing.T) {
	s := newSite(t)
	p := s.composed(t, 1, signer(t, "signer"))
	image := read(t, s.composer, p)
	db, err := uki.ParseDatabase(named(t, "signer", 2048).pem, nil)
	require.NoError(t, err)
	_, err = uki.Verify(bytes.NewReader(image), int64(len(image)), db, uki.VerifyOptions{})
	require.NoError(t, err)
	db, err = uki.ParseDatabase(named(t, "stranger", 2048).pem, nil)
	require.NoError(t, err)
	_, err = uki.Verify(bytes.NewReader(image), int64(len(image)), db, uki.VerifyOptions{})
	require.ErrorIs(t, err, uki.ErrUntrusted)

	sbverify, err := exec.LookPath("sbverify")
	if err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "CI must have sbsigntool")
		t.Skip("SKIPPED: install sbsigntool")
	}
	dir := t.TempDir()
	for at, want := range map[int]bool{-1: true, 5000: false, len(image) - 40<<10: false, len(image) - int(4<<10): false} {
		changed := bytes.Clone(image)
		if at >= 0 {
			changed[at] ^= 1
		}
		file, certificate := filepath.Join(dir, "uki.efi"), filepath.Join(dir, "cert.pem")
		require.NoError(t, os.WriteFile(file, changed, 0o600))
		require.NoError(t, os.WriteFile(certificate, named(t, "signer", 2048).pem, 0o600))
		out, err := exec.CommandContext(t.Context(), sbverify, "--cert", certificate, file).CombinedOutput()
		require.Equal(t, want, err == nil, "byte %d changed: %s", at, out)
	}
}

func TestAnUnsignedUKIHasNoCertificateTable(t *testing.T) {
	s := newSite(t)
	p := s.composed(t, 1, nil)
	image := read(t, s.composer, p)
	require.Empty(t, p.Composed.Signature)
	signatures, err := uki.Signatures(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		require.ErrorIs(t, err, uki.ErrUnsigned)
	}
	require.Empty(t, signatures)
	require.Equal(t, p.Composed.Digest, digestOf(image))
}

// TestWhateverIsComposedIsWhatWasPromised composes UKIs of random images and plans.
func TestWhateverIsComposedIsWhatWasPromised(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for n := range 60 {
		s := newSite(t)
		s.plan.Artifacts = []boot.Artifact{
			s.store.add(t, boot.RoleStub, greeting(t, uki.AMD64)),
			s.store.add(t, boot.RoleKernel, kernel(t, byte(n), random.IntN(20_000))),
		}
		if random.IntN(4) > 0 {
			s.plan.Artifacts = append(s.plan.Artifacts, s.store.add(t, boot.RoleInitrd, bytesOf(byte(n), random.IntN(30_000))))
		}
		if random.IntN(2) > 0 {
			s.plan.Artifacts = append(s.plan.Artifacts, s.store.add(t, boot.RoleExtraInitrd, bytesOf(byte(n+1), random.IntN(9_000))))
		}
		s.plan.HasIgnition, s.plan.HasCloudInit = random.IntN(2) > 0, random.IntN(2) > 0
		s.plan.KernelArguments = nil
		for i := range random.IntN(30) {
			s.plan.KernelArguments = append(s.plan.KernelArguments, fmt.Sprintf("a%d=%s", i, strings.Repeat("x", random.IntN(40))))
		}
		var by *uki.Signer
		if n%4 == 0 {
			by = signer(t, "signer")
		}
		p := s.composed(t, 1+random.Int64N(1<<20), by)
		other := s.again(t) // another replica, which has seen nothing yet
		image := read(t, other, p)
		require.Equal(t, p.Composed.Digest, digestOf(image))
		checkReads(t, other, p, image, random)
	}
}

// checkReads reads a UKI in every way.
func checkReads(t *testing.T, c *Composer, p *boot.Plan, image []byte, random *mathrand.Rand) {
	t.Helper()
	blob, err := c.OpenComposed(t.Context(), p)
	require.NoError(t, err)
	defer func() { _ = blob.Close() }()
	require.NoError(t, iotest.TestReader(blob, image))
	segmented, ok := blob.(boot.Segmented)
	require.True(t, ok)
	for range 20 {
		at := random.Int64N(int64(len(image)))
		var got bytes.Buffer
		for pos := at; ; {
			part, err := segmented.Segment(pos)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			require.Positive(t, part.Size)
			if part.File == nil {
				require.EqualValues(t, part.Size, len(part.Data))
				got.Write(part.Data)
			} else {
				_, err := io.CopyN(&got, part.File, part.Size)
				require.NoError(t, err)
			}
			pos += part.Size
		}
		require.True(t, bytes.Equal(image[at:], got.Bytes()), "from %d on", at)
	}
	_, err = segmented.Segment(-1)
	require.ErrorIs(t, err, boot.ErrInvalid)
}

func TestEveryReplicaWithTheSameKeysServesTheSame(t *testing.T) {
	s := newSite(t)
	p := s.composed(t, 2, signer(t, "signer"))
	require.Equal(t, read(t, s.composer, p), read(t, s.again(t), p))

	rotated, err := boot.NewKeyring(key(8), key(7))
	require.NoError(t, err)
	require.Equal(t, read(t, s.composer, p), read(t, s.again(t, func(o *Options) { o.Keyring = rotated }), p), "with the key that signed before")

	gone, err := boot.NewKeyring(key(8), key(9))
	require.NoError(t, err)
	other, err := boot.NewKeyring(boot.TokenKey{ID: 7, Secret: bytesOf(99, 32)})
	require.NoError(t, err)
	for name, change := range map[string]func(o *Options){
		"the key is gone":                 func(o *Options) { o.Keyring = gone },
		"another key of the same ID":      func(o *Options) { o.Keyring = other },
		"no keys yet":                     func(o *Options) { o.Keyring = &boot.Keyring{} },
		"another URL":                     func(o *Options) { o.BaseURL = "https://10.0.0.2:8084" },
		"another CA":                      func(o *Options) { o.CA = named(t, "another CA", 2048).pem },
		"no CA":                           func(o *Options) { o.CA = nil },
		"the parts are not in this store": func(o *Options) { o.Blobs = newStore(t) },
	} {
		_, err := s.again(t, change).OpenComposed(t.Context(), p)
		require.ErrorIs(t, err, boot.ErrNotReady, name)
	}
	for name, change := range map[string]func(p *boot.Plan){
		"never composed":       func(p *boot.Plan) { p.Composed = nil },
		"other arguments":      func(p *boot.Plan) { p.KernelArguments = []string{"other"} },
		"another machine":      func(p *boot.Plan) { p.Object.UID = "0a1b2c3d-4e5f-4a6b-8c7d-000000000002" },
		"another attempt":      func(p *boot.Plan) { c := *p.Composed; c.Attempt++; p.Composed = &c },
		"another size":         func(p *boot.Plan) { c := *p.Composed; c.Size++; p.Composed = &c },
		"another signature":    func(p *boot.Plan) { c := *p.Composed; c.Signature = c.Signature[:len(c.Signature)-1]; p.Composed = &c },
		"no signature":         func(p *boot.Plan) { c := *p.Composed; c.Signature = nil; p.Composed = &c },
		"no Ignition any more": func(p *boot.Plan) { p.HasIgnition = false },
		"one initrd less":      func(p *boot.Plan) { p.Artifacts = p.Artifacts[1:] },
	} {
		_, err := s.composer.OpenComposed(t.Context(), func() *boot.Plan { q := *p; change(&q); return &q }())
		require.ErrorIs(t, err, boot.ErrNotReady, name)
	}
}

func TestComposeSaysWhatCanNeverBeComposed(t *testing.T) {
	section := func(t *testing.T, b []byte, name string) []byte {
		b, err := uki.Assemble(b, uki.Section{Name: name, Data: []byte("x")})
		require.NoError(t, err)
		return b
	}
	replace := func(role boot.Role, data func(t *testing.T) []byte) func(*testing.T, *site) {
		return func(t *testing.T, s *site) {
			for i, a := range s.plan.Artifacts {
				if a.Role == role {
					s.plan.Artifacts[i] = s.store.add(t, role, data(t))
				}
			}
		}
	}
	without := func(role boot.Role) func(*testing.T, *site) {
		return func(_ *testing.T, s *site) {
			var rest []boot.Artifact
			for _, a := range s.plan.Artifacts {
				if a.Role != role {
					rest = append(rest, a)
				}
			}
			s.plan.Artifacts = rest
		}
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, s *site)
		want   string
	}{
		{"no stub", without(boot.RoleStub), "the image carries no stub"},
		{"no kernel", without(boot.RoleKernel), "the image carries no kernel"},
		{"pcrsig", replace(boot.RoleStub, func(t *testing.T) []byte { return section(t, greeting(t, uki.AMD64), ".pcrsig") }), ".pcrsig"},
		{"stub is no PE", replace(boot.RoleStub, func(*testing.T) []byte { return []byte("\x1f\x8b") }), "a gzip archive"},
		{"huge stub", replace(boot.RoleStub, func(*testing.T) []byte { return make([]byte, uki.MaxStub+1) }), "the stub has 4194305 bytes"},
		{"stub for another machine", func(_ *testing.T, s *site) { s.plan.Machine.Architecture = boot.ARM64 }, "the stub is for amd64, the machine for arm64"},
		{"kernel for another machine", replace(boot.RoleKernel, func(t *testing.T) []byte { return greeting(t, uki.ARM64) }), "the kernel is for arm64, the stub for amd64"},
		{"kernel is no PE", replace(boot.RoleKernel, func(*testing.T) []byte { return []byte("\x7fELF1234") }), "an ELF program"},
		{"kernel is a UKI", replace(boot.RoleKernel, func(t *testing.T) []byte { return section(t, greeting(t, uki.AMD64), ".linux") }), "it is a UKI itself"},
		{"long command line", func(_ *testing.T, s *site) {
			for range 16 {
				s.plan.KernelArguments = append(s.plan.KernelArguments, strings.Repeat("a", 256))
			}
		}, "4135 bytes: the kernel takes 4095"},
		{"newline", func(_ *testing.T, s *site) { s.plan.KernelArguments = []string{"a\nb"} }, `"\n"`},
		{"large CA", func(t *testing.T, s *site) {
			s.composer = s.again(t, func(o *Options) { o.CA = bytes.Repeat(certificate(t).pem, 20) })
		}, "32768 fit"},
		{"no URL", func(t *testing.T, s *site) { s.composer = s.again(t, func(o *Options) { o.BaseURL = "" }) }, "no URL of the boot server"},
		{"odd URL", func(t *testing.T, s *site) { s.composer = s.again(t, func(o *Options) { o.BaseURL = "ftp://x" }) }, "ftp://x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			c.change(t, s)
			_, err := s.composer.Compose(t.Context(), s.plan, 1, nil)
			require.ErrorIs(t, err, boot.ErrInvalid)
			assert.Contains(t, err.Error(), c.want)
			assert.Contains(t, err.Error(), "HTTPBootConfig default/a")
			s.plan.Composed = &boot.Composed{Attempt: 1, TokenKey: 7}
			_, err = s.composer.UpToDate(t.Context(), s.plan, 1, nil)
			require.ErrorIs(t, err, boot.ErrInvalid, "the controller is told the same, whatever it asks")
		})
	}
}

func TestComposeSaysWhatIsMissingYet(t *testing.T) {
	s := newSite(t)
	s.store.arriving[s.plan.Artifacts[2].Digest] = true
	started := time.Now()
	_, err := s.composer.Compose(t.Context(), s.plan, 1, nil)
	require.ErrorIs(t, err, boot.ErrNotReady)
	require.ErrorContains(t, err, "still arriving")
	require.Less(t, time.Since(started), 4*time.Second, "a machine's firmware may be waiting")

	for name, change := range map[string]func(o *Options){
		"not in the store": func(o *Options) { o.Blobs = newStore(t) },
		"no keys":          func(o *Options) { o.Keyring = &boot.Keyring{} },
	} {
		_, err := newSite(t).again(t, change).Compose(t.Context(), s.plan, 1, nil)
		require.ErrorIs(t, err, boot.ErrNotReady, name)
	}
}

func TestNewRefusesWhatIsNoCA(t *testing.T) {
	s := newSite(t)
	for name, text := range map[string]string{
		"text":       "hello",
		"a key":      "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"no DER":     "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"a key, too": string(certificate(t).pem) + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	} {
		o := s.options
		o.CA = []byte(text)
		_, err := New(o)
		require.ErrorIs(t, err, boot.ErrInvalid, name)
	}
	_, err := New(Options{})
	require.ErrorIs(t, err, boot.ErrInvalid)
	o := s.options
	o.CA = append([]byte("# our CA\n"), certificate(t).pem...)
	c, err := New(o)
	require.NoError(t, err)
	require.Equal(t, certificate(t).pem, c.o.CA, "remarks stay behind")
}

func TestUpToDateSaysWhenToComposeAnew(t *testing.T) {
	s := newSite(t)
	by := signer(t, "signer")
	p := s.composed(t, 2, by)
	good, err := s.composer.UpToDate(t.Context(), p, 2, by)
	require.NoError(t, err)
	require.True(t, good)
	good, err = s.again(t).UpToDate(t.Context(), p, 2, by)
	require.NoError(t, err)
	require.True(t, good, "for a controller that has just started, too")

	between := signer(t, "signer", "a CA between")
	good, err = s.composer.UpToDate(t.Context(), s.composed(t, 2, between), 2, between)
	require.NoError(t, err)
	require.True(t, good)

	rotated, err := boot.NewKeyring(key(8), key(7))
	require.NoError(t, err)
	other, err := boot.NewKeyring(boot.TokenKey{ID: 7, Secret: bytesOf(99, 32)})
	require.NoError(t, err)
	change := func(f func(o *Options)) *Composer { return s.again(t, f) }
	with := func(f func(p *boot.Plan)) *boot.Plan { q := *p; f(&q); return &q }
	for name, c := range map[string]struct {
		composer *Composer
		plan     *boot.Plan
		attempt  int64
		signer   *uki.Signer
	}{
		"nothing composed":       {s.composer, s.plan, 2, by},
		"the next attempt":       {s.composer, p, 3, by},
		"another signer":         {s.composer, p, 2, signer(t, "another signer")},
		"not to be signed":       {s.composer, p, 2, nil},
		"another intermediate":   {s.composer, p, 2, signer(t, "signer", "a CA between")},
		"another key signs":      {change(func(o *Options) { o.Keyring = rotated }), p, 2, by},
		"another key of that ID": {change(func(o *Options) { o.Keyring = other }), p, 2, by},
		"another URL":            {change(func(o *Options) { o.BaseURL = "https://10.0.0.2" }), p, 2, by},
		"another CA":             {change(func(o *Options) { o.CA = named(t, "another CA", 2048).pem }), p, 2, by},
		"other arguments":        {s.composer, with(func(p *boot.Plan) { p.KernelArguments = nil }), 2, by},
		"another initrd":         {s.composer, with(func(p *boot.Plan) { p.Artifacts = p.Artifacts[1:] }), 2, by},
		"cloud-init instead":     {s.composer, with(func(p *boot.Plan) { p.HasIgnition, p.HasCloudInit = false, true }), 2, by},
	} {
		good, err := c.composer.UpToDate(t.Context(), c.plan, c.attempt, c.signer)
		require.NoError(t, err, name)
		require.False(t, good, name)
	}
}

func TestAUKIWithoutATokenIsGoodForEveryAttempt(t *testing.T) {
	s := newSite(t)
	s.plan.HasIgnition = false
	s.composer = s.again(t, func(o *Options) { o.Keyring, o.BaseURL = &boot.Keyring{}, "" })
	p := s.composed(t, 2, nil)
	good, err := s.composer.UpToDate(t.Context(), p, 9, nil)
	require.NoError(t, err)
	require.True(t, good)
	again := s.composed(t, 9, nil)
	require.Equal(t, p.Composed.Digest, again.Composed.Digest)
}

func TestManyMachinesCostOneHashOfTheirImage(t *testing.T) {
	s := newSite(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			p := s.with(func(p *boot.Plan) { p.KernelArguments = []string{fmt.Sprint("machine=", i)} })
			c, err := s.composer.Compose(t.Context(), p, 1, nil)
			if assert.NoError(t, err) {
				p.Composed = &c
				good, err := s.composer.UpToDate(t.Context(), p, 1, nil)
				assert.NoError(t, err)
				assert.True(t, good)
			}
		})
	}
	wg.Wait()
	// Once for its headers, and once for the hash of the file.
	require.Equal(t, 2, s.store.opens(s.plan.Artifacts[2].Digest))
	require.Equal(t, 2, s.store.opens(s.plan.Artifacts[3].Digest))
}

func TestWhoeverLeavesDoesNotEndTheHashOfTheOthers(t *testing.T) {
	s := newSite(t)
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	s.store.before = func(context.Context) { entered <- struct{}{}; <-leave }
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := s.composer.Compose(ctx, s.plan, 1, nil); first <- err }()
	<-entered
	second := make(chan error, 1)
	go func() { _, err := s.composer.Compose(t.Context(), s.plan, 1, nil); second <- err }()
	cancel()
	require.ErrorIs(t, <-first, context.Canceled, "it does not wait for the disk")
	require.Zero(t, len(second), "the other one does")
	close(leave)
	require.NoError(t, <-second)
	_, err := s.composer.Compose(ctx, s.with(func(p *boot.Plan) { p.Artifacts = p.Artifacts[1:] }), 1, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	k := kept[int]{most: 3}
	made := 0
	get := func(key string) int {
		v, err := k.get(t.Context(), key, func(context.Context) (int, error) { made++; return made, nil })
		require.NoError(t, err)
		return v
	}
	for _, key := range []string{"a", "b", "c", "a", "d", "e"} {
		get(key)
	}
	require.Equal(t, 5, made)
	require.Len(t, k.byKey, 3)
	require.Equal(t, 3, k.recent.Len())
	get("a")
	require.Equal(t, 5, made, "what was used last stays")
	get("b")
	require.Equal(t, 6, made)
	_, err := k.get(t.Context(), "f", func(context.Context) (int, error) { return 0, errors.New("no") })
	require.ErrorContains(t, err, "no")
	get("f")
	require.Equal(t, 7, made, "an error is not kept")
}
