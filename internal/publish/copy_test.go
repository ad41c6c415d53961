package publish

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/registry"
)

// published is an image with a referrer of its index and one of its manifest, and an
// older signature under a tag.
func published(t *testing.T, r *Repository) (Pushed, []boot.Digest) {
	t.Helper()
	pushed, err := r.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64)), image(t, whole(t, uki.ARM64))}, PushOptions{Created: made})
	require.NoError(t, err)
	root, err := r.document(deadline(t), string(pushed.Digest))
	require.NoError(t, err)
	var along []boot.Digest
	for i, subject := range []ocispec.Descriptor{plain(root.Descriptor), plain(mustIndexed(t, root)[1])} {
		d := pushSignature(t, r, &subject, "")
		along = append(along, d)
		if i == 0 {
			along = append(along, pushSignature(t, r, nil, digestTag(subject.Digest, ".sig")))
		}
	}
	return pushed, along
}

// pushSignature pushes a manifest such as signatures have.
func pushSignature(t *testing.T, r *Repository, subject *ocispec.Descriptor, tag string) boot.Digest {
	t.Helper()
	p := push{Repository: r}
	layer := []byte("a signature of " + tag)
	if subject != nil {
		layer = []byte("a signature of " + subject.Digest.String())
	}
	blob := prepared{Descriptor: ocispec.Descriptor{MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json", Digest: digest.FromBytes(layer), Size: int64(len(layer))}, content: Bytes(layer)}
	empty := prepared{Descriptor: ocispec.DescriptorEmptyJSON, content: Bytes([]byte("{}"))}
	manifest, err := prepareJSON(ocispec.MediaTypeImageManifest, "signature", ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: blob.MediaType,
		Config: plain(ocispec.DescriptorEmptyJSON), Layers: []ocispec.Descriptor{blob.Descriptor}, Subject: subject,
	})
	require.NoError(t, err)
	for _, b := range []prepared{blob, empty, manifest} {
		require.NoError(t, p.send(deadline(t), b))
	}
	if tag != "" {
		data := bytesOf(t, manifest.content)
		require.NoError(t, r.remote.PushReference(deadline(t), plain(manifest.Descriptor), bytes.NewReader(data), tag))
	}
	return boot.Digest(manifest.Digest)
}

// An image arrives with its digests and its signatures, whether or not either side
// knows the referrers API.
func TestACopyKeepsDigestsAndSignatures(t *testing.T) {
	for name, c := range map[string]struct{ from, to registry.Options }{
		"API to API": {registry.Options{Referrers: true}, registry.Options{Referrers: true}},
		"API to tag": {registry.Options{Referrers: true}, registry.Options{}},
		"tag to API": {registry.Options{}, registry.Options{Referrers: true}},
		"with token": {registry.Options{Auth: registry.Token, Username: "a", Password: "b"}, registry.Options{Auth: registry.Token, Username: "c", Password: "d"}},
	} {
		t.Run(name, func(t *testing.T) {
			one, two := serve(t, c.from), serve(t, c.to)
			oneOptions, twoOptions := options(), options()
			oneOptions.Credentials = PasswordCredentials(one.Host, c.from.Username, c.from.Password)
			twoOptions.Credentials = PasswordCredentials(two.Host, c.to.Username, c.to.Password)
			from, to := open(t, one.Host+"/os/debian:13", oneOptions), open(t, two.Host+"/mirror/debian:stable", twoOptions)
			pushed, along := published(t, from)
			copied, err := from.CopyTo(deadline(t), to, false, false)
			require.NoError(t, err)
			require.Equal(t, pushed.Digest, copied.Digest)
			require.Equal(t, two.Host+"/mirror/debian@"+string(pushed.Digest), copied.Pinned)
			require.ElementsMatch(t, along, copied.Referrers)

			_, err = to.Pull(deadline(t), t.TempDir())
			require.NoError(t, err)
			b, err := to.Blobs(t.TempDir())
			require.NoError(t, err)
			defer func() { require.NoError(t, b.Close()) }()
			root, err := to.document(deadline(t), "stable")
			require.NoError(t, err)
			var found []ocispec.Descriptor
			require.NoError(t, to.remote.Referrers(deadline(t), root.Descriptor, "", func(some []ocispec.Descriptor) error {
				found = append(found, some...)
				return nil
			}))
			require.Len(t, found, 1)
			require.Equal(t, along[0], boot.Digest(found[0].Digest))
			sig, err := to.find(deadline(t), digestTag(root.Digest, ".sig"))
			require.NoError(t, err)
			require.NotNil(t, sig)
		})
	}
}

func TestACopyWithinARegistryMovesNoBlobs(t *testing.T) {
	s := serve(t, registry.Options{})
	from := open(t, s.Host+"/os/debian:13", options())
	_, err := from.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made})
	require.NoError(t, err)
	s.Forget()
	copied, err := from.CopyTo(deadline(t), open(t, s.Host+"/prod/debian:13", options()), false, true)
	require.NoError(t, err)
	require.Empty(t, copied.Referrers)
	require.Zero(t, s.Count(http.MethodPut, "/blobs/"))
	_, err = open(t, s.Host+"/prod/debian@"+string(copied.Digest), options()).Pull(deadline(t), t.TempDir())
	require.NoError(t, err)
}

// Releasing is moving a tag.
func TestACopyWithinARepositoryMovesATag(t *testing.T) {
	s := serve(t, registry.Options{Referrers: true})
	from := open(t, s.Host+"/os/debian:13.1", options())
	pushed, along := published(t, from)
	s.Forget()
	copied, err := open(t, pushed.Pinned, options()).CopyTo(deadline(t), open(t, s.Host+"/os/debian:13", options()), false, false)
	require.NoError(t, err)
	require.Equal(t, pushed.Digest, copied.Digest)
	require.ElementsMatch(t, along, copied.Referrers)
	require.Zero(t, copied.Sent)
	require.Zero(t, s.Count(http.MethodPut, "/blobs/"))
	d, err := open(t, s.Host+"/os/debian:13", options()).Resolve(deadline(t))
	require.NoError(t, err)
	require.Equal(t, pushed.Digest, d)
}

func TestACopyThatCannotBeSaysWhy(t *testing.T) {
	one, two := serve(t, registry.Options{}), serve(t, registry.Options{})
	from, to := open(t, one.Host+"/os/debian:13", options()), open(t, two.Host+"/os/debian:13", options())
	_, err := from.CopyTo(deadline(t), to, false, false)
	require.ErrorIs(t, err, artifact.ErrNotFound)
	require.ErrorContains(t, err, "reading "+one.Host+"/os/debian:13")

	pushed, err := from.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made})
	require.NoError(t, err)
	_, err = to.Push(deadline(t), []Image{image(t, whole(t, uki.ARM64))}, PushOptions{Created: made})
	require.NoError(t, err)
	_, err = from.CopyTo(deadline(t), to, true, false)
	require.ErrorIs(t, err, ErrExists)
	require.ErrorContains(t, err, "nothing was copied")
	other := open(t, two.Host+"/os/debian@"+string(digestOf(nil)), options())
	_, err = from.CopyTo(deadline(t), other, false, false)
	require.ErrorContains(t, err, "names another digest than that of the source, "+string(pushed.Digest))

	closed := serve(t, registry.Options{NoPush: true})
	_, err = from.CopyTo(deadline(t), open(t, closed.Host+"/os/debian:13", options()), false, false)
	require.ErrorContains(t, err, closed.Host+" takes no pushes")
	require.NotContains(t, err.Error(), one.Host, "it is the other side that refuses")
	one.Set(registry.Faults{Broken: http.StatusServiceUnavailable})
	_, err = from.CopyTo(deadline(t), to, false, false)
	require.ErrorContains(t, err, one.Host+" answered with status 503")
}

// What the source sends is not believed.
func TestACopyOfDamagedBlobsFails(t *testing.T) {
	one, two := serve(t, registry.Options{}), serve(t, registry.Options{})
	from := open(t, one.Host+"/os/debian:13", options())
	_, err := from.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made})
	require.NoError(t, err)
	one.Set(registry.Faults{WrongDigest: true})
	to := open(t, two.Host+"/os/debian:13", options())
	_, err = from.CopyTo(deadline(t), to, false, false)
	require.Error(t, err)
	there, err := to.find(deadline(t), "13")
	require.NoError(t, err)
	require.Nil(t, there)
}

// A source that cuts its blobs is asked again; what has arrived stays.
func TestACopyGoesOnAfterACut(t *testing.T) {
	one, two := serve(t, registry.Options{}), serve(t, registry.Options{})
	from := open(t, one.Host+"/os/debian:13", options())
	_, err := from.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made})
	require.NoError(t, err)
	one.Set(registry.Faults{CutAfter: 100, Cuts: 2})
	_, err = from.CopyTo(deadline(t), open(t, two.Host+"/os/debian:13", options()), false, false)
	require.NoError(t, err)
}

func TestADescriptionSaysWhatBootsWhere(t *testing.T) {
	s := serve(t, registry.Options{})
	r := open(t, s.Host+"/os/debian:13", options())
	files := whole(t, uki.ARM64)
	files.UKI, files.Stub = "", ""
	pushed, err := r.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64)), image(t, files)}, PushOptions{Created: made})
	require.NoError(t, err)
	b, err := r.Blobs(t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	d, err := r.Describe(deadline(t), b)
	require.NoError(t, err)
	require.Equal(t, pushed.Digest, d.Digest)
	require.Equal(t, ArtifactType, d.ArtifactType)
	require.Len(t, d.Manifests, 2)
	require.Equal(t, "linux/amd64", d.Manifests[0].Platform)
	require.Len(t, d.Boots, 2)
	require.Equal(t, [3]bool{true, true, true}, [3]bool{d.Boots[0].UKI, d.Boots[0].Composed, d.Boots[0].IPXE})
	require.Equal(t, [3]bool{false, false, true}, [3]bool{d.Boots[1].UKI, d.Boots[1].Composed, d.Boots[1].IPXE})
	root, err := r.document(deadline(t), "13")
	require.NoError(t, err)
	require.Less(t, d.Size, pushed.Size+int64(len(root.body)), "the initrd of both is counted once")
	_, err = json.Marshal(d)
	require.NoError(t, err)
}

// Other tools' images are described too, and what is wrong with one.
func TestADescriptionOfWhatOthersPublished(t *testing.T) {
	s := serve(t, registry.Options{})
	d, err := s.PublishImage("os/debian", "docker", registry.Image{Docker: true, Architecture: "arm64", Layers: []registry.Layer{{MediaType: "application/io.gardenlinux.uki", Data: []byte("uki")}}})
	require.NoError(t, err)
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	lost := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("lost"), Size: 10, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	_, err = s.PublishIndex("os/debian", "13", true, d, lost)
	require.NoError(t, err)
	r := open(t, s.Host+"/os/debian:13", options())
	b, err := r.Blobs(t.TempDir())
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	got, err := r.Describe(deadline(t), b)
	require.NoError(t, err)
	require.Equal(t, boot.RoleUKI, got.Manifests[0].Layers[0].Role)
	require.Contains(t, got.Manifests[1].Error, "not found")
	require.Equal(t, boot.AMD64, got.Boots[0].Architecture)
	require.Contains(t, got.Boots[0].Error, "not found")
	require.True(t, got.Boots[1].UKI)

	r = open(t, s.Host+"/os/debian:docker", options())
	got, err = r.Describe(deadline(t), b)
	require.NoError(t, err)
	require.Equal(t, "application/vnd.docker.distribution.manifest.v2+json", got.MediaType)
	require.Len(t, got.Boots, 1)
}

func TestADescriptionHasBounds(t *testing.T) {
	s := serve(t, registry.Options{})
	var many []ocispec.Descriptor
	for range maxManifests + 1 {
		many = append(many, s.PublishRaw("os/debian", "", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"layers":[]}`)))
	}
	_, err := s.PublishIndex("os/debian", "many", false, many...)
	require.NoError(t, err)
	deep := s.PublishRaw("os/debian", "", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"layers":[]}`))
	for range maxDepth + 1 {
		deep, err = s.PublishIndex("os/debian", "deep", false, deep)
		require.NoError(t, err)
	}
	s.PublishRaw("os/debian", "both", ocispec.MediaTypeImageIndex, []byte(`{"layers":[{}],"manifests":[{}]}`))
	s.PublishRaw("os/debian", "text", ocispec.MediaTypeImageIndex, []byte(`<html>`))
	s.PublishRaw("os/debian", "large", ocispec.MediaTypeImageIndex, bytes.Repeat([]byte(" "), maxManifest+1))
	for tag, says := range map[string]string{
		"many": "more than 64 manifests", "deep": "nested deeper than 3", "both": "an index and an image at once", "text": "is no JSON", "large": "the manifest has more than 4194304 bytes",
	} {
		r := open(t, s.Host+"/os/debian:"+tag, options())
		b, err := r.Blobs(t.TempDir())
		require.NoError(t, err)
		_, err = r.Describe(deadline(t), b)
		require.Error(t, err, tag)
		require.Contains(t, err.Error(), says, tag)
		require.NoError(t, b.Close())
	}
}

func TestAPullOfOneArchitecture(t *testing.T) {
	s := serve(t, registry.Options{})
	r := open(t, s.Host+"/os/debian:13", options())
	_, err := r.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made})
	require.NoError(t, err)
	pulled, err := r.Pull(deadline(t), t.TempDir(), boot.AMD64)
	require.NoError(t, err)
	require.Len(t, pulled.Files, 5)
	_, err = r.Pull(deadline(t), t.TempDir(), boot.ARM64)
	require.ErrorIs(t, err, artifact.ErrNoPlatform)
	require.ErrorContains(t, err, "has no manifest for arm64; it has linux/amd64")
	_, err = s.PublishIndex("os/debian", "empty", false)
	require.NoError(t, err)
	_, err = open(t, s.Host+"/os/debian:empty", options()).Pull(deadline(t), t.TempDir())
	require.ErrorIs(t, err, artifact.ErrNoPlatform)
}

// A tag that moves while it is pulled changes nothing: the tag is read once.
func TestAPullReadsTheTagOnce(t *testing.T) {
	s := serve(t, registry.Options{})
	o := options()
	r := open(t, s.Host+"/os/debian:13", o)
	first, err := r.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made})
	require.NoError(t, err)
	moved := false
	o.Progress = func(e Event) {
		if e.Step == Done && !moved {
			moved = true
			_, err := open(t, s.Host+"/os/debian:13", options()).Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made.AddDate(1, 0, 0)})
			require.NoError(t, err)
		}
	}
	s.Forget()
	pulled, err := open(t, s.Host+"/os/debian:13", o).Pull(deadline(t), t.TempDir())
	require.NoError(t, err)
	require.True(t, moved)
	require.Equal(t, first.Digest, pulled.Digest)
	n := 0
	for _, q := range s.Requests() {
		if q.Method == http.MethodGet && strings.HasSuffix(q.Path, "/manifests/13") {
			n++
		}
	}
	require.Equal(t, 1, n)
}
