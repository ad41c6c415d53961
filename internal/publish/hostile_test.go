package publish

import (
	"context"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/registry"
)

// Blobs come from where a registry sends us, with resumption.
func TestAPullFollowsARegistryToItsBlobs(t *testing.T) {
	cdn, s := serve(t, registry.Options{}), serve(t, registry.Options{})
	img := image(t, whole(t, uki.AMD64))
	for _, r := range []*registry.Server{cdn, s} {
		_, err := open(t, r.Host+"/os/debian:13", options()).Push(deadline(t), []Image{img}, PushOptions{Created: made})
		require.NoError(t, err)
	}
	s.Set(registry.Faults{RedirectTo: cdn.URL})
	cdn.Set(registry.Faults{CutAfter: 1000, Cuts: 3})
	o := options()
	o.RedirectHosts = []string{cdn.Host}
	_, err := open(t, s.Host+"/os/debian:13", o).Pull(deadline(t), t.TempDir())
	require.NoError(t, err)
	require.Greater(t, cdn.Count("GET", "/cdn/"), 5)

	_, err = open(t, s.Host+"/os/debian:13", options()).Pull(deadline(t), t.TempDir())
	require.ErrorContains(t, err, "is an address of this machine or its link", "a registry's word leads nowhere inside")
}

// What was pulled and is not what its digest says gets no name.
func TestARegistryThatSendsOtherBytesIsNotBelieved(t *testing.T) {
	s := serve(t, registry.Options{})
	r := open(t, s.Host+"/os/debian:13", options())
	_, err := r.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made})
	require.NoError(t, err)
	s.Set(registry.Faults{WrongDigest: true})
	dir := t.TempDir()
	_, err = r.Pull(deadline(t), dir)
	require.ErrorContains(t, err, "content differs from its digest")
	require.NoFileExists(t, dir+"/amd64/uki.efi")
	// What a pull could not finish is in nobody's way.
	s.Set(registry.Faults{})
	_, err = r.Pull(deadline(t), dir)
	require.NoError(t, err)
	require.FileExists(t, dir+"/amd64/uki.efi")
}

// Whatever a registry says of an image: an answer or an error, and no panic.
func FuzzWhatARegistrySays(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `{"manifests":[{}]}`, `{"layers":[{}],"config":{}}`, `{"manifests":[{"digest":"x"}],"annotations":{"a":"b"}}`,
		`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:zz","size":-1,"platform":{"architecture":"amd64","os":"linux"}}]}`,
		`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":":","size":9},"layers":[{"mediaType":"application/vnd.ironcore.image.uki","digest":"sha512:","size":9223372036854775807}],"subject":{"digest":"sha256"}}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	from, err := registry.Serve("127.0.0.1:0", registry.Options{})
	require.NoError(f, err)
	to, err := registry.Serve("127.0.0.1:0", registry.Options{})
	require.NoError(f, err)
	f.Cleanup(func() { _, _ = from.Close(), to.Close() })
	f.Fuzz(func(t *testing.T, body []byte, index bool) {
		mediaType := ocispec.MediaTypeImageManifest
		if index {
			mediaType = ocispec.MediaTypeImageIndex
		}
		from.PublishRaw("os/fuzz", "1", mediaType, body)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r := open(t, from.Host+"/os/fuzz:1", options())
		b, err := r.Blobs(t.TempDir())
		require.NoError(t, err)
		_, _ = r.Describe(ctx, b)
		require.NoError(t, b.Close())
		_, _ = r.Pull(ctx, t.TempDir())
		_, _ = r.CopyTo(ctx, open(t, to.Host+"/os/fuzz:1", options()), false, false)
		_, _ = open(t, from.Host+"/os/fuzz:1", options()).Push(ctx, nil, PushOptions{Created: made, Append: true, KeepTag: true})
		require.NoError(t, ctx.Err(), "it ends")
	})
}
