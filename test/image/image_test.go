// Package image builds the container image without a Docker daemon, and looks at what is
// in it.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/registry"
)

var bootPrograms = []string{"ipxe.efi", "snponly.efi", "undionly.kpxe"}

var platforms = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// `make image` without a Docker daemon: an image that runs as nobody, with nothing else
// in it than the operator and the boot programs. It is built for one of the platforms:
// each takes minutes to compile.
func TestImageIsBuiltWithoutADaemon(t *testing.T) {
	lab.Require(t, lab.IPXE)
	images, err := registry.Serve("127.0.0.1:0", registry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = images.Close() })
	dist, err := os.MkdirTemp("", "image-") // ko takes no capitals in it
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dist) })
	build := command(t, "make", "image", "IMAGE_TOOL=ko", "IMG=example.com/boot-operator:v9.8.7", "VERSION=9.8.7", "PLATFORMS=linux/amd64", "DIST="+dist)
	build.Env = append(os.Environ(), "KO_DEFAULTBASEIMAGE="+publishBase(t, images))
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

	built := layout(filepath.Join(dist, "image"))
	builds := built.images(t)
	require.Equal(t, []string{"linux/amd64"}, slices.Sorted(maps.Keys(builds)))
	for platform, image := range builds {
		var config ocispec.Image
		built.read(t, image.Config, &config)
		require.Equal(t, "65532:65532", config.Config.User, "the user of the base")
		require.Empty(t, config.Config.Cmd)
		require.Len(t, config.Config.Entrypoint, 1, "a program, and no shell to start it")
		program, root := config.Config.Entrypoint[0], built.unpack(t, image)
		requireStatic(t, filepath.Join(root, program), platforms[strings.TrimPrefix(platform, "linux/")])
		requireBootPrograms(t, filepath.Join(root, dataPath(config.Config.Env), "ipxe"))
		if platform == "linux/amd64" && os.Geteuid() == 0 {
			require.Equal(t, "boot-operator 9.8.7", runAlone(t, root, program), "in a root of its own, as nobody")
		}
	}
}

func requireBootPrograms(t *testing.T, dir string) {
	t.Helper()
	for _, program := range bootPrograms {
		want, err := os.ReadFile(filepath.Join("/usr/lib/ipxe", program))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, program))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%s is another file than the distribution's", program)
	}
}

// The Dockerfile's image has the same programs, ends with a base without a shell, and
// names its user by number, which runAsNonRoot needs.
func TestDockerfileAgreesWithKo(t *testing.T) {
	dockerfile := file(t, "Dockerfile")
	stages := strings.Split(dockerfile, "\nFROM ")
	last := stages[len(stages)-1]
	base, _, _ := strings.Cut(last, "\n")
	require.Contains(t, file(t, ".ko.yaml"), "defaultBaseImage: "+base+"\n")
	require.Contains(t, base, "distroless")
	require.Contains(t, last, "\nUSER 65532:65532\n")
	require.Contains(t, last, "\nENTRYPOINT [\"/boot-operator\"]")
	require.NotContains(t, last, "\nRUN ")
	for _, program := range bootPrograms {
		require.Contains(t, dockerfile, "/usr/lib/ipxe/"+program)
		require.Contains(t, file(t, "Makefile"), program)
	}
	for _, stage := range stages[1 : len(stages)-1] {
		require.Contains(t, stage, "--platform=$BUILDPLATFORM", "built on the builder's own platform, whatever for")
	}
}

// publishBase publishes what distroless is of: nothing but a user, for two platforms.
func publishBase(t *testing.T, images *registry.Server) (reference string) {
	t.Helper()
	var children []ocispec.Descriptor
	for _, architecture := range slices.Sorted(maps.Keys(platforms)) {
		config, err := json.Marshal(ocispec.Image{
			Platform: ocispec.Platform{OS: "linux", Architecture: architecture},
			Config:   ocispec.ImageConfig{User: "65532:65532"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
		})
		require.NoError(t, err)
		manifest, err := json.Marshal(ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{},
			Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.Digest(images.AddBlob(config)), Size: int64(len(config))},
		})
		require.NoError(t, err)
		child := images.PublishRaw("base", "", ocispec.MediaTypeImageManifest, manifest)
		child.Platform = &ocispec.Platform{OS: "linux", Architecture: architecture}
		children = append(children, child)
	}
	_, err := images.PublishIndex("base", "nonroot", false, children...)
	require.NoError(t, err)
	return images.Host + "/base:nonroot"
}

// layout is a directory with an image index, as OCI lays it out.
type layout string

// read reads a blob, whose digest is checked, into a document.
func (l layout) read(t *testing.T, d ocispec.Descriptor, document any) {
	t.Helper()
	require.NoError(t, json.Unmarshal(l.blob(t, d), document))
}

func (l layout) blob(t *testing.T, d ocispec.Descriptor) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(string(l), "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded()))
	require.NoError(t, err)
	require.Equal(t, d.Digest, digest.FromBytes(content))
	return content
}

// images are the manifests that the layout holds, by platform: one, or those of an
// index.
func (l layout) images(t *testing.T) map[string]ocispec.Manifest {
	t.Helper()
	var index ocispec.Index
	text, err := os.ReadFile(filepath.Join(string(l), "index.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &index))
	require.Len(t, index.Manifests, 1)
	if top := index.Manifests[0]; top.MediaType == ocispec.MediaTypeImageIndex {
		index = ocispec.Index{}
		l.read(t, top, &index)
	}
	images := map[string]ocispec.Manifest{}
	for _, entry := range index.Manifests {
		var manifest ocispec.Manifest
		var config ocispec.Image
		l.read(t, entry, &manifest)
		l.read(t, manifest.Config, &config)
		images[config.OS+"/"+config.Architecture] = manifest
	}
	return images
}

// unpack writes the files of an image's layers into a directory.
func (l layout) unpack(t *testing.T, image ocispec.Manifest) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	for _, layer := range image.Layers {
		plain, err := gzip.NewReader(bytes.NewReader(l.blob(t, layer)))
		require.NoError(t, err)
		unpackTar(t, root, tar.NewReader(plain))
	}
	// Whoever is nobody has to get through the directories of the test, too.
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	return root
}

func unpackTar(t *testing.T, root string, archive *tar.Reader) {
	t.Helper()
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		require.NotEqual(t, "sh", path.Base(header.Name), "a shell")
		if header.Typeflag != tar.TypeReg {
			continue
		}
		to := filepath.Join(root, path.Clean("/"+header.Name))
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, content, header.FileInfo().Mode().Perm()))
	}
}

// requireStatic fails where a program needs anything but the kernel.
func requireStatic(t *testing.T, program string, machine elf.Machine) {
	t.Helper()
	f, err := elf.Open(program)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	require.Equal(t, machine, f.Machine)
	for _, segment := range f.Progs {
		require.NotEqual(t, elf.PT_INTERP, segment.Type, "it needs a dynamic linker")
	}
}

func dataPath(env []string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "KO_DATA_PATH="); ok {
			return value
		}
	}
	return "/nowhere"
}

// runAlone runs a program as nobody in a root that has nothing else.
func runAlone(t *testing.T, root, program string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "--version")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	cmd.Dir, cmd.Env = "/", []string{}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return strings.TrimSpace(string(out))
}

func command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	root, err := cache.Repo()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = root
	return cmd
}

// file reads one of the checkout.
func file(t *testing.T, name string) string {
	t.Helper()
	root, err := cache.Repo()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(text)
}
