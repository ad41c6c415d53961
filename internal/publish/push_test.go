package publish

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/registry"
)

// What was pushed comes back byte by byte, and the operator finds it.
func TestWhatIsPushedIsPulled(t *testing.T) {
	for name, o := range map[string]registry.Options{
		"anonymous": {},
		"basic":     {Auth: registry.Basic, Username: "ci", Password: "s3cret"},
		"token":     {Auth: registry.Token, Username: "ci", Password: "s3cret"},
		"TLS":       {TLS: true, Auth: registry.Token, Username: "ci", Password: "s3cret"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, o)
			with := options()
			with.PlainHTTP, with.CABundle = !o.TLS, s.CA
			with.Credentials = PasswordCredentials(s.Host, o.Username, o.Password)
			roundTrip(t, s.Host, with)
		})
	}
}

// roundTrip pushes two architectures and pulls them.
func roundTrip(t *testing.T, host string, o Options) {
	t.Helper()
	r := open(t, host+"/os/debian:13", o)
	amd64, arm64 := image(t, whole(t, uki.AMD64)), image(t, whole(t, uki.ARM64))
	pushed, err := r.Push(deadline(t), []Image{arm64, amd64}, PushOptions{Created: made, Version: "13.1-2"})
	require.NoError(t, err)
	require.Equal(t, host+"/os/debian@"+string(pushed.Digest), pushed.Pinned)
	require.Equal(t, host+"/os/debian:13", pushed.Reference)

	dir := t.TempDir()
	pulled, err := r.Pull(deadline(t), dir)
	require.NoError(t, err)
	require.Equal(t, pushed.Digest, pulled.Digest)
	require.Len(t, pulled.Files, 10)
	for _, img := range []Image{amd64, arm64} {
		for _, l := range img.Layers {
			got, err := os.ReadFile(filepath.Join(dir, string(img.Architecture), layerName(l.Role)))
			require.NoError(t, err)
			require.Equal(t, bytesOf(t, l.Content), got, l.Role)
		}
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "nothing but the architectures stays")

	again, err := FromDirectory(dir)
	require.NoError(t, err)
	require.Len(t, again, 2)
	require.Equal(t, bytesOf(t, layer(t, amd64, boot.RoleStub).Content), bytesOf(t, layer(t, image(t, again[0]), boot.RoleStub).Content), "what was pulled can be pushed")
}

func TestTheManifestsAreWhatTheyAreSaidToBe(t *testing.T) {
	s := serve(t, registry.Options{})
	r := open(t, s.Host+"/os/debian:13", options())
	pushed, err := r.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{
		Created: made, Annotations: map[string]string{"org.opencontainers.image.vendor": "Example"},
	})
	require.NoError(t, err)
	root, err := r.document(deadline(t), "13")
	require.NoError(t, err)
	var index ocispec.Index
	require.NoError(t, json.Unmarshal(root.body, &index))
	want := map[string]string{
		"org.opencontainers.image.version": "13.1", "org.opencontainers.image.created": "2026-05-04T03:02:01Z", "org.opencontainers.image.vendor": "Example",
		"dev.ironcore.boot.os": "debian", "dev.ironcore.boot.os.version": "13", "dev.ironcore.boot.os.name": "Debian GNU/Linux 13 (trixie)",
		"dev.ironcore.boot.kernel.version": "6.12.0-1", "dev.ironcore.boot.cmdline": "console=ttyS0 quiet",
		"dev.ironcore.boot.uki.digest": string(pushed.Manifests[0].Layers[0].Digest),
	}
	require.Equal(t, want, index.Annotations)
	require.Equal(t, ArtifactType, index.ArtifactType)
	child := index.Manifests[0]
	require.Equal(t, want, child.Annotations)
	require.Equal(t, &ocispec.Platform{OS: "linux", Architecture: "amd64"}, child.Platform)

	d, err := r.document(deadline(t), child.Digest.String())
	require.NoError(t, err)
	var manifest ocispec.Manifest
	require.NoError(t, json.Unmarshal(d.body, &manifest))
	require.Equal(t, want, manifest.Annotations)
	require.Equal(t, "application/vnd.ironcore.image.v1", manifest.ArtifactType)
	var types, titles []string
	for _, l := range manifest.Layers {
		types = append(types, strings.TrimPrefix(l.MediaType, "application/vnd.ironcore.image."))
		titles = append(titles, l.Annotations[ocispec.AnnotationTitle])
	}
	require.Equal(t, []string{"uki", "stub", "kernel", "initramfs", "squashfs"}, types)
	require.Equal(t, []string{"uki.efi", "stub.efi", "vmlinuz", "initrd", "rootfs.squashfs"}, titles)
	data, err := r.blob(deadline(t), manifest.Config)
	require.NoError(t, err)
	var config ocispec.Image
	require.NoError(t, json.Unmarshal(data, &config))
	require.Equal(t, "amd64", config.Architecture)
	require.Equal(t, "linux", config.OS)
	require.Len(t, config.RootFS.DiffIDs, 5, "tools that hold layers against diff_ids count them")
}

func TestTheSameInputsMakeTheSameDigest(t *testing.T) {
	digests := map[boot.Digest]bool{}
	for _, created := range []time.Time{made, made.Add(time.Millisecond).In(time.FixedZone("elsewhere", 3600))} {
		s := serve(t, registry.Options{})
		images := []Image{image(t, whole(t, uki.AMD64)), image(t, whole(t, uki.ARM64))}
		pushed, err := open(t, s.Host+"/a/b:1", options()).Push(deadline(t), images, PushOptions{Created: created})
		require.NoError(t, err)
		digests[pushed.Digest] = true
		pushed, err = open(t, s.Host+"/c/d:2", options()).Push(deadline(t), []Image{images[1], images[0]}, PushOptions{Created: created})
		require.NoError(t, err)
		digests[pushed.Digest] = true
		// One after the other makes the same as both at once.
		for _, img := range images {
			pushed, err = open(t, s.Host+"/e/f:3", options()).Push(deadline(t), []Image{img}, PushOptions{Created: created, Append: true})
			require.NoError(t, err)
		}
		digests[pushed.Digest] = true
	}
	require.Len(t, digests, 1)
	other, err := open(t, serve(t, registry.Options{}).Host+"/a/b:1", options()).Push(deadline(t),
		[]Image{image(t, whole(t, uki.AMD64)), image(t, whole(t, uki.ARM64))}, PushOptions{Created: made.Add(time.Second)})
	require.NoError(t, err)
	require.NotContains(t, digests, other.Digest)
}

// An architecture that is appended replaces itself and leaves the rest alone, also
// what other tools have put there.
func TestAppendReplacesItsArchitectureOnly(t *testing.T) {
	s := serve(t, registry.Options{})
	r := open(t, s.Host+"/os/debian:13", options())
	arm64 := image(t, whole(t, uki.ARM64))
	_, err := r.Push(deadline(t), []Image{arm64}, PushOptions{Created: made, Append: true})
	require.NoError(t, err, "the first one has nothing to append to")
	p := push{Repository: r}
	foreign, err := prepareJSON(ocispec.MediaTypeImageManifest, "provenance", ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}})
	require.NoError(t, err)
	require.NoError(t, p.send(deadline(t), foreign))
	foreign.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	root, err := r.document(deadline(t), "13")
	require.NoError(t, err)
	index, err := prepareIndex([]ocispec.Descriptor{foreign.Descriptor}, mustIndexed(t, root))
	require.NoError(t, err)
	require.NoError(t, p.tag(deadline(t), index))

	old := image(t, whole(t, uki.AMD64))
	_, err = r.Push(deadline(t), []Image{old}, PushOptions{Created: made, Append: true})
	require.NoError(t, err)
	newer := whole(t, uki.AMD64)
	require.NoError(t, os.WriteFile(newer.UKI, aUKI(t, uki.AMD64, "another"), 0o600))
	_, err = r.Push(deadline(t), []Image{image(t, newer)}, PushOptions{Created: made.Add(time.Hour), Append: true})
	require.NoError(t, err)

	root, err = r.document(deadline(t), "13")
	require.NoError(t, err)
	all := mustIndexed(t, root)
	require.Equal(t, []string{"linux/amd64", "linux/arm64", "unknown/unknown"}, []string{platform(all[0]), platform(all[1]), platform(all[2])})
	require.Equal(t, "another", all[0].Annotations[AnnotationCommandLine])
	require.Equal(t, "console=ttyS0 quiet", all[1].Annotations[AnnotationCommandLine])
	var i ocispec.Index
	require.NoError(t, json.Unmarshal(root.body, &i))
	require.NotContains(t, i.Annotations, AnnotationCommandLine, "they do not agree on it")
	require.Equal(t, "2026-05-04T04:02:01Z", i.Annotations[AnnotationCreated], "it is as old as its youngest part")
	require.Equal(t, "debian", i.Annotations[AnnotationOS])
}

func mustIndexed(t *testing.T, d document) []ocispec.Descriptor {
	t.Helper()
	all, err := indexed(&d)
	require.NoError(t, err)
	return all
}

func TestWhatIsThereIsNotSentAgain(t *testing.T) {
	s := serve(t, registry.Options{})
	images := []Image{image(t, whole(t, uki.AMD64))}
	first, err := open(t, s.Host+"/os/debian:1", options()).Push(deadline(t), images, PushOptions{Created: made})
	require.NoError(t, err)
	require.Greater(t, first.Sent, int64(0))
	s.Forget()
	o, heard := options(), &told{}
	o.Progress = heard.note
	second, err := open(t, s.Host+"/os/debian:2", o).Push(deadline(t), images, PushOptions{Created: made})
	require.NoError(t, err)
	require.Equal(t, first.Digest, second.Digest)
	require.Equal(t, first.Size, second.Size)
	require.Zero(t, s.Count(http.MethodPut, "/blobs/"))
	require.Contains(t, heard.steps(), "present amd64 uki.efi")
	require.Contains(t, heard.steps(), "done index")
}

func TestATagIsKeptOnRequest(t *testing.T) {
	s := serve(t, registry.Options{})
	r := open(t, s.Host+"/os/debian:13", options())
	images := []Image{image(t, whole(t, uki.AMD64))}
	first, err := r.Push(deadline(t), images, PushOptions{Created: made, KeepTag: true})
	require.NoError(t, err)
	_, err = r.Push(deadline(t), images, PushOptions{Created: made, KeepTag: true})
	require.NoError(t, err, "the same is no change")
	s.Forget()
	_, err = r.Push(deadline(t), images, PushOptions{Created: made.Add(time.Second), KeepTag: true})
	require.ErrorIs(t, err, ErrExists)
	require.ErrorContains(t, err, s.Host+"/os/debian:13 is "+string(first.Digest)+"; nothing was pushed")
	require.Zero(t, s.Count(http.MethodPost, ""), "it is found before anything is sent")
	_, err = r.Push(deadline(t), images, PushOptions{Created: made.Add(time.Second)})
	require.NoError(t, err)
}

func TestAPushThatCannotBeIsRefused(t *testing.T) {
	s := serve(t, registry.Options{})
	amd64 := image(t, whole(t, uki.AMD64))
	_, err := open(t, s.Host+"/os/debian@"+string(digestOf(nil)), options()).Push(deadline(t), []Image{amd64}, PushOptions{Created: made})
	require.ErrorIs(t, err, artifact.ErrInvalidReference)
	require.ErrorContains(t, err, "name a tag")
	_, err = open(t, s.Host+"/os/debian", options()).Push(deadline(t), []Image{amd64, amd64}, PushOptions{Created: made})
	require.ErrorIs(t, err, ErrFile)
	require.ErrorContains(t, err, "two images for amd64")
	_, err = s.PublishImage("os/debian", "single", registry.Image{Architecture: "arm64"})
	require.NoError(t, err)
	_, err = open(t, s.Host+"/os/debian:single", options()).Push(deadline(t), []Image{amd64}, PushOptions{Created: made, Append: true})
	require.ErrorContains(t, err, "what is there is no OCI index but application/vnd.oci.image.manifest.v1+json")
	require.Zero(t, s.Count(http.MethodPost, ""))
}

// An upload that is cut is sent again from its beginning.
func TestACutUploadIsSentAgain(t *testing.T) {
	var cuts atomic.Int32
	host := wrapped(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sends(r) && r.ContentLength > 10_000 && cuts.Add(1) <= 2 {
				_, _ = io.CopyN(io.Discard, r.Body, 5000)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	})
	o, heard := options(), &told{}
	o.Progress = heard.note
	r := open(t, host+"/os/debian:13", o)
	img := image(t, whole(t, uki.AMD64))
	_, err := r.Push(deadline(t), []Image{img}, PushOptions{Created: made})
	require.NoError(t, err)
	require.Contains(t, heard.steps(), "repeating amd64 uki.efi")
	_, err = r.Pull(deadline(t), t.TempDir())
	require.NoError(t, err)
}

func TestAnUploadThatStaysCutSaysHowFarItCame(t *testing.T) {
	host := wrapped(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sends(r) {
				_, _ = io.CopyN(io.Discard, r.Body, 5000)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	})
	_, err := open(t, host+"/os/debian:13", options()).Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made})
	require.Error(t, err)
	require.Regexp(t, `^pushing amd64 uki\.efi: after \d+ of \d+ bytes: speaking to 127\.0\.0\.1:\d+: .*\(tried 4 times\)$`, err.Error())
}

func TestAnUploadThatStandsStillEnds(t *testing.T) {
	stop := make(chan struct{})
	host := wrapped(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sends(r) {
				<-stop
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	})
	t.Cleanup(func() { close(stop) })
	o := options()
	o.StallTimeout = 50 * time.Millisecond
	big := Image{Architecture: boot.AMD64, Layers: []Layer{{Role: boot.RoleSquashfs, Content: Bytes(make([]byte, 64<<20))}}}
	_, err := open(t, host+"/os/debian:13", o).Push(deadline(t), []Image{big}, PushOptions{Created: made})
	require.ErrorIs(t, err, errStalled)
	require.ErrorContains(t, err, "nothing moved for 50ms (tried 4 times)")
}

// A file that is written to while it is pushed must not end up under another's digest.
func TestAFileThatChangesIsNotPushed(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"other content": func(path string) error { return os.WriteFile(path, append(cpio(999), 1, 2, 3, 4), 0o600) },
		"shorter":       func(path string) error { return os.Truncate(path, 20) },
		"gone":          os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, registry.Options{})
			files := whole(t, uki.AMD64)
			files.Initrds = files.Initrds[1:]
			o := options()
			o.Progress = func(e Event) {
				if e.Step == Done && e.Name == "amd64 vmlinuz" {
					require.NoError(t, change(files.Initrds[0]))
				}
			}
			r := open(t, s.Host+"/os/debian:13", o)
			_, err := r.Push(deadline(t), []Image{image(t, files)}, PushOptions{Created: made})
			require.Error(t, err)
			require.True(t, strings.Contains(err.Error(), "changed meanwhile") || strings.Contains(err.Error(), "no such file"), err.Error())
			there, err := r.find(deadline(t), "13")
			require.NoError(t, err)
			require.Nil(t, there, "the tag comes last")
		})
	}
}

// Two pushes that append at once can undo each other.
func TestTwoThatAppendAtOnceBothStay(t *testing.T) {
	s := serve(t, registry.Options{})
	other := image(t, whole(t, uki.ARM64))
	o := options()
	o.Progress = func(e Event) {
		// After the index that is there was read, and before ours has the tag.
		if e.Step == Done && e.Name == "amd64 manifest" {
			_, err := open(t, s.Host+"/os/debian:13", options()).Push(deadline(t), []Image{other}, PushOptions{Created: made, Append: true})
			require.NoError(t, err)
		}
	}
	r := open(t, s.Host+"/os/debian:13", o)
	_, err := r.Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made, Append: true})
	require.NoError(t, err)
	root, err := r.document(deadline(t), "13")
	require.NoError(t, err)
	require.Len(t, mustIndexed(t, root), 2)
}

func TestAnAppendThatAlwaysLosesSaysSo(t *testing.T) {
	empty := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	host := wrapped(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/13") {
				again := httptest.NewRequestWithContext(r.Context(), http.MethodPut, r.URL.Path, strings.NewReader(empty))
				again.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
				next.ServeHTTP(httptest.NewRecorder(), again)
			}
		})
	})
	_, err := open(t, host+"/os/debian:13", options()).Push(deadline(t), []Image{image(t, whole(t, uki.AMD64))}, PushOptions{Created: made, Append: true})
	require.ErrorIs(t, err, ErrChanged)
	require.ErrorContains(t, err, "run the same again")
}
