package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/registry"
)

const osRelease = `# what this is
ID=debian
VERSION_ID="13"
IMAGE_VERSION=13.1
PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
`

// made is when the images of tests were made.
var made = time.Date(2026, 5, 4, 3, 2, 1, 999, time.UTC)

// deadline ends a test that would hang.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func serve(t *testing.T, o registry.Options) *registry.Server {
	t.Helper()
	s, err := registry.Serve("127.0.0.1:0", o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// wrapped serves a registry with something before it.
func wrapped(t *testing.T, before func(next http.Handler) http.Handler) string {
	t.Helper()
	s := httptest.NewServer(before(registry.New(registry.Options{})))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// options are those of tests: plain HTTP, and no waiting.
func options() Options {
	return Options{PlainHTTP: true, RetryDelay: time.Millisecond, StallTimeout: 10 * time.Second}
}

func open(t *testing.T, reference string, o Options) *Repository {
	t.Helper()
	r, err := Open(deadline(t), reference, o)
	require.NoError(t, err)
	return r
}

func greeting(t *testing.T, architecture string) []byte {
	t.Helper()
	image, err := demoimage.Greeting(architecture, "hello")
	require.NoError(t, err)
	return image
}

// aUKI is one around a greeting, with the OS above in it.
func aUKI(t *testing.T, architecture, commandLine string) []byte {
	t.Helper()
	var b bytes.Buffer
	kernel := greeting(t, architecture)
	require.NoError(t, uki.Build(&b, uki.Parts{
		Stub: greeting(t, architecture), Linux: uki.Input{R: bytes.NewReader(kernel), Size: int64(len(kernel))},
		OSRelease: osRelease, CommandLine: commandLine, Uname: "6.12.0-1",
	}))
	return b.Bytes()
}

// cpio is enough of an archive to be taken for an initrd; its size is 4n+3.
func cpio(n int) []byte {
	b := append([]byte("070701"), make([]byte, 4*n+3-6)...)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b[6:])
	return b
}

func write(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o600))
	}
}

// whole is an image of everything for one architecture.
func whole(t *testing.T, architecture string) Sources {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, map[string][]byte{
		"uki.efi": aUKI(t, architecture, "console=ttyS0 quiet"), "stub": greeting(t, architecture), "kernel": greeting(t, architecture),
		"first": cpio(10), "second": cpio(1000), "root": []byte("hsqs and more"), "release": []byte(osRelease),
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	return Sources{UKI: in("uki.efi"), Stub: in("stub"), Kernel: in("kernel"), Initrds: []string{in("first"), in("second")}, Squashfs: in("root"), OSRelease: in("release")}
}

func image(t *testing.T, s Sources) Image {
	t.Helper()
	img, err := s.Image()
	require.NoError(t, err)
	return img
}

func digestOf(b []byte) boot.Digest {
	sum := sha256.Sum256(b)
	return boot.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func bytesOf(t *testing.T, c Content) []byte {
	t.Helper()
	in, err := c.Open()
	require.NoError(t, err)
	defer func() { require.NoError(t, in.Close()) }()
	data, err := io.ReadAll(in)
	require.NoError(t, err)
	return data
}

// layer returns the layer of this role.
func layer(t *testing.T, img Image, r boot.Role) Layer {
	t.Helper()
	for _, l := range img.Layers {
		if l.Role == r {
			return l
		}
	}
	t.Fatalf("the image has no %s", r)
	return Layer{}
}

// told collects events.
type told struct {
	mu     sync.Mutex
	events []Event
}

func (o *told) note(e Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
}

// steps are the events that are not about how far something is.
func (o *told) steps() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []string
	for _, e := range o.events {
		if e.Step != Reading && e.Step != Sending && e.Step != Receiving {
			all = append(all, string(e.Step)+" "+e.Name)
		}
	}
	return all
}

func sends(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/")
}
