package artifact

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

func uki(data string) []registry.Layer {
	return []registry.Layer{{MediaType: registry.UKI, Data: []byte(data)}}
}

// publish makes an image, with or without platform in its descriptor.
func publish(t *testing.T, reg *registry.Server, tag string, img registry.Image, platform string) ocispec.Descriptor {
	t.Helper()
	d, err := reg.PublishImage("os/images", tag, img)
	require.NoError(t, err)
	if platform != "" {
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: platform}
	}
	return d
}

func index(t *testing.T, reg *registry.Server, tag string, docker bool, children ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	d, err := reg.PublishIndex("os/images", tag, docker, children...)
	require.NoError(t, err)
	return d
}

func TestEveryArchitectureGetsItsOwnManifest(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	amd := publish(t, reg, "", registry.Image{Architecture: "amd64", Layers: uki("amd")}, "amd64")
	arm := publish(t, reg, "", registry.Image{Architecture: "arm64", Layers: uki("arm")}, "arm64")
	damd := publish(t, reg, "docker-image", registry.Image{Docker: true, Architecture: "amd64", Layers: uki("amd")}, "amd64")
	darm := publish(t, reg, "", registry.Image{Docker: true, Architecture: "arm64", Layers: uki("arm")}, "arm64")
	attestation := publish(t, reg, "", registry.Image{Layers: []registry.Layer{{MediaType: "application/vnd.in-toto+json", Data: []byte("{}")}}}, "unknown")
	index(t, reg, "oci", false, attestation, arm, amd)
	index(t, reg, "docker", true, darm, damd)
	inner := index(t, reg, "", false, arm, amd)
	index(t, reg, "nested", false, inner)

	for _, tag := range []string{"oci", "docker", "nested"} {
		for arch, content := range map[boot.Architecture]string{boot.AMD64: "amd", boot.ARM64: "arm"} {
			img, err := s.Resolve(deadline(t), reg.Host+"/os/images:"+tag, arch, Credentials{})
			require.NoError(t, err, tag)
			a, err := img.Artifact(boot.RoleUKI)
			require.NoError(t, err)
			require.Equal(t, digestOf([]byte(content)), a.Digest, tag)
			require.Equal(t, int64(3), a.Size)
			require.Equal(t, img.Source, a.Source)
			require.Equal(t, reg.Host+"/os/images", img.Name)
		}
	}
	img, err := s.Resolve(deadline(t), reg.Host+"/os/images:docker-image", boot.AMD64, Credentials{})
	require.NoError(t, err)
	require.Equal(t, reg.Host+"/os/images@"+damd.Digest.String(), img.Source)
}

func TestLegacyAnnotationsNameTheManifest(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	layers := func(data string) []registry.Layer {
		return []registry.Layer{
			{MediaType: "application/io.gardenlinux.kernel", Data: []byte("kernel" + data)},
			{MediaType: "application/io.gardenlinux.initrd", Data: []byte("initrd" + data)},
			{MediaType: "application/io.gardenlinux.squashfs", Data: []byte("squashfs" + data)},
		}
	}
	named := func(cname, arch string) ocispec.Descriptor {
		d := publish(t, reg, "", registry.Image{Layers: layers(cname + arch)}, "")
		d.Annotations = map[string]string{"cname": cname, "architecture": arch}
		return d
	}
	index(t, reg, "legacy", false, named("kvm", "amd64"), named("metal_pxe-1", "arm64"), named("metal_pxe-1", "amd64"))
	img, err := s.Resolve(deadline(t), reg.Host+"/os/images:legacy", boot.AMD64, Credentials{})
	require.NoError(t, err)
	require.Len(t, img.Artifacts, 3)
	for role, name := range map[boot.Role]string{boot.RoleKernel: "kernel", boot.RoleInitrd: "initrd", boot.RoleSquashfs: "squashfs"} {
		a, err := img.Artifact(role)
		require.NoError(t, err)
		require.Equal(t, digestOf([]byte(name+"metal_pxe-1amd64")), a.Digest)
	}
	_, err = img.Artifact(boot.RoleUKI)
	require.ErrorIs(t, err, ErrNoArtifact)
	require.ErrorContains(t, err, "io.gardenlinux.kernel")
}

func TestTheDigestWinsOverAMovedTag(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	old, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("old")})
	require.NoError(t, err)
	_, err = reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("new")})
	require.NoError(t, err)
	for ref, want := range map[string]string{":1@" + old: "old", "@" + old: "old", ":1": "new"} {
		img, err := s.Resolve(deadline(t), reg.Host+"/os/images"+ref, boot.AMD64, Credentials{})
		require.NoError(t, err)
		require.Equal(t, digestOf([]byte(want)), img.Artifacts[0].Digest, ref)
	}
}

func TestImagesThatCannotBootSayWhy(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	o.MaxBytes = 1 << 20
	s := open(t, o)
	amd := publish(t, reg, "amd", registry.Image{Architecture: "amd64", Layers: uki("amd")}, "amd64")
	arm := publish(t, reg, "arm", registry.Image{Architecture: "arm64", Layers: uki("arm")}, "arm64")
	publish(t, reg, "annotated", registry.Image{Layers: uki("arm"), Annotations: map[string]string{"architecture": "arm64"}}, "")
	publish(t, reg, "docker-arm", registry.Image{Docker: true, Architecture: "arm64", Layers: uki("arm")}, "")
	bare := publish(t, reg, "", registry.Image{Layers: uki("x")}, "")
	lies := arm
	lies.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	windows := amd
	windows.Platform = &ocispec.Platform{OS: "windows", Architecture: "amd64"}
	index(t, reg, "only-arm", false, arm)
	index(t, reg, "windows", false, windows)
	index(t, reg, "no-platform", false, bare)
	index(t, reg, "docker-no-platform", true, bare)
	index(t, reg, "lies", false, lies)
	index(t, reg, "empty", false)
	missing := amd
	missing.Digest = someDigest
	index(t, reg, "dangling", false, missing)
	deep := amd
	for i := range 5 {
		deep = index(t, reg, fmt.Sprint("deep", i), false, deep)
	}
	var wide []ocispec.Descriptor
	for i := range 30 {
		wide = append(wide, index(t, reg, "", false, publish(t, reg, "", registry.Image{Architecture: "arm64", Layers: uki(fmt.Sprint(i))}, "arm64")))
	}
	index(t, reg, "wide", false, wide...)
	publish(t, reg, "tar", registry.Image{Architecture: "amd64", Layers: []registry.Layer{{MediaType: ocispec.MediaTypeImageLayerGzip, Data: []byte("x")}}}, "")
	publish(t, reg, "no-layers", registry.Image{Architecture: "amd64"}, "")
	publish(t, reg, "two", registry.Image{Architecture: "amd64", Layers: append(uki("a"), uki("b")...)}, "")
	publish(t, reg, "sha512", registry.Image{Layers: []registry.Layer{{MediaType: registry.UKI, Digest: "sha512:ab", Size: 3}}}, "")
	publish(t, reg, "negative", registry.Image{Layers: []registry.Layer{{MediaType: registry.UKI, Digest: someDigest, Size: -3}}}, "")
	publish(t, reg, "huge", registry.Image{Layers: []registry.Layer{{MediaType: registry.UKI, Digest: someDigest, Size: 1 << 50}}}, "")
	reg.PublishRaw("os/images", "html", "text/html", []byte("<html>"))
	reg.PublishRaw("os/images", "long", typeOCIManifest, []byte(`{"schemaVersion":2,"layers":[]}`+strings.Repeat(" ", 4<<20)))

	for tag, want := range map[string]struct {
		err  error
		text string
	}{
		"arm":                {ErrNoPlatform, "linux/arm64, not amd64"},
		"annotated":          {ErrNoPlatform, "arm64, not amd64"},
		"docker-arm":         {ErrNoPlatform, "linux/arm64, not amd64"},
		"only-arm":           {ErrNoPlatform, "it has linux/arm64"},
		"windows":            {ErrNoPlatform, "it has windows/amd64"},
		"no-platform":        {ErrNoPlatform, "a manifest without platform"},
		"docker-no-platform": {ErrNoPlatform, "a manifest without platform"},
		"lies":               {ErrNoPlatform, "linux/arm64, not amd64"},
		"empty":              {ErrNoPlatform, "empty"},
		"dangling":           {ErrNotFound, someDigest},
		"deep4":              {ErrNoPlatform, "nested"},
		"wide":               {ErrNoPlatform, "arm64"},
		"tar":                {ErrNoArtifact, ocispec.MediaTypeImageLayerGzip},
		"no-layers":          {ErrNoArtifact, "no layers"},
		"two":                {ErrNoArtifact, "more than one"},
		"sha512":             {ErrNoArtifact, "digest"},
		"negative":           {ErrNoArtifact, "-3 bytes"},
		"huge":               {ErrTooLarge, "at most 1048576"},
		"html":               {ErrNoArtifact, "not valid JSON"},
		"long":               {ErrTooLarge, "4194304"},
		"absent":             {ErrNotFound, "absent"},
	} {
		reg.Forget()
		_, err := s.Resolve(deadline(t), reg.Host+"/os/images:"+tag, boot.AMD64, Credentials{})
		require.ErrorIs(t, err, want.err, tag)
		require.ErrorContains(t, err, want.text, tag)
		require.ErrorContains(t, err, reg.Host, tag)
		require.LessOrEqual(t, len(reg.Requests()), 2*maxFetches, tag)
	}
	// The same registry does serve what is right.
	_, err := s.Resolve(deadline(t), reg.Host+"/os/images:amd", boot.AMD64, Credentials{})
	require.NoError(t, err)
}

func TestARegistryThatIsNotAllowedIsNeverAsked(t *testing.T) {
	reg, other := serve(t, registry.Options{}), serve(t, registry.Options{})
	o := options(t, reg)
	o.PlainHTTPRegistries = append(o.PlainHTTPRegistries, other.Host)
	s := open(t, o)
	_, err := s.Resolve(deadline(t), other.Host+"/os/images:1", boot.AMD64, Credentials{})
	require.ErrorIs(t, err, ErrNotAllowed)
	err = s.Pull(deadline(t), artifactIn(other, []byte("x")), Credentials{})
	require.ErrorIs(t, err, ErrNotAllowed)
	require.Empty(t, other.Requests())
}

func TestManifestsWithAnotherDigestAreRefused(t *testing.T) {
	reg := serve(t, registry.Options{})
	_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("x")})
	require.NoError(t, err)
	// A registry that answers for a digest with something else.
	liar := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/v2/os/images/manifests/1"
		r.URL.RawPath = ""
		reg.ServeHTTP(w, r)
	}))
	o := options(t, reg)
	o.AllowedRegistries, o.PlainHTTPRegistries = []string{liar}, []string{liar}
	s := open(t, o)
	_, err = s.Resolve(deadline(t), liar+"/os/images@"+someDigest, boot.AMD64, Credentials{})
	require.ErrorIs(t, err, ErrDigestMismatch)
}

func TestABrokenRegistryIsTransient(t *testing.T) {
	reg := serve(t, registry.Options{})
	s := open(t, options(t, reg))
	reg.Set(registry.Faults{Broken: 503})
	_, err := s.Resolve(deadline(t), reg.Host+"/os/images:1", boot.AMD64, Credentials{})
	require.ErrorContains(t, err, "503")
	require.ErrorContains(t, err, "broken on request")
	require.False(t, Terminal(err))
	require.Equal(t, 1.0, metric(t, s, "registry_errors_total", "unavailable", reg.Host))

	host := reg.Host
	require.NoError(t, reg.Close())
	_, err = s.Resolve(deadline(t), host+"/os/images:1", boot.AMD64, Credentials{})
	require.ErrorContains(t, err, "connection refused")
	require.False(t, Terminal(err))
}

func TestMirrorsAreAskedFirstAndNeedNotBeComplete(t *testing.T) {
	home, mirror := serve(t, registry.Options{}), serve(t, registry.Options{})
	o := options(t, home)
	o.PlainHTTPRegistries = append(o.PlainHTTPRegistries, mirror.Host)
	o.Mirrors = map[string][]string{home.Host: {"127.0.0.1:1/none"}, home.Host + "/os": {mirror.Host + "/copy"}}
	s := open(t, o)
	_, err := home.Publish("os/images", "1", map[string][]byte{"amd64": []byte("at home")})
	require.NoError(t, err)
	img, err := s.Resolve(deadline(t), home.Host+"/os/images:1", boot.AMD64, Credentials{})
	require.NoError(t, err)
	require.Positive(t, mirror.Count("GET", "/v2/copy/images/manifests/1"))
	require.Positive(t, home.Count("GET", "/v2/os/images/manifests/1"))
	require.NoError(t, s.Pull(deadline(t), img.Artifacts[0], Credentials{}))

	_, err = mirror.Publish("copy/images", "2", map[string][]byte{"amd64": []byte("mirrored")})
	require.NoError(t, err)
	home.Forget()
	img, err = s.Resolve(deadline(t), home.Host+"/os/images:2", boot.AMD64, Credentials{})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(img.Source, home.Host+"/os/images@"))
	require.NoError(t, s.Pull(deadline(t), img.Artifacts[0], Credentials{}))
	require.Empty(t, home.Requests())
	requireHolds(t, s, []byte("mirrored"))
}

func TestAMirrorThatLiesCannotKeepAnImageOut(t *testing.T) {
	home, mirror := serve(t, registry.Options{}), serve(t, registry.Options{})
	o := options(t, home)
	o.PlainHTTPRegistries = append(o.PlainHTTPRegistries, mirror.Host)
	o.Mirrors = map[string][]string{home.Host: {mirror.Host}}
	s := open(t, o)
	data := random(300_000)
	a := artifactIn(home, data)
	mirror.AddBlob(data)
	mirror.Set(registry.Faults{WrongDigest: true})
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	requireHolds(t, s, data)
}
