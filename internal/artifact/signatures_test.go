package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// put pushes a manifest over HTTP, as signing tools do.
func put(t *testing.T, reg *registry.Server, name, mediaType string, doc any) ocispec.Descriptor {
	t.Helper()
	body, err := json.Marshal(doc)
	require.NoError(t, err)
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	if name == "" {
		name = d.Digest.String()
	}
	req, err := http.NewRequestWithContext(deadline(t), http.MethodPut, reg.URL+"/v2/os/images/manifests/"+name, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusCreated, resp.StatusCode)
	return d
}

func layerOf(reg *registry.Server, mediaType string, content []byte, annotations map[string]string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(reg.AddBlob(content)), Size: int64(len(content)), Annotations: annotations}
}

// bundleManifest is what cosign 3 pushes beside an image.
func bundleManifest(reg *registry.Server, of boot.Digest, layers ...ocispec.Descriptor) ocispec.Manifest {
	m := ocispec.Manifest{
		MediaType: typeOCIManifest, ArtifactType: bundleType, Layers: layers,
		Config:  layerOf(reg, typeEmpty, []byte("{}"), nil),
		Subject: &ocispec.Descriptor{MediaType: typeOCIManifest, Digest: digest.Digest(of), Size: 1},
	}
	m.SchemaVersion = 2
	return m
}

func dotSigManifest(reg *registry.Server, layers ...ocispec.Descriptor) ocispec.Manifest {
	m := ocispec.Manifest{MediaType: typeOCIManifest, Layers: layers, Config: layerOf(reg, typeOCIConfig, []byte("{}"), nil)}
	m.SchemaVersion = 2
	return m
}

// publishOne makes an image and returns what its signatures are looked for by.
func publishOne(t *testing.T, reg *registry.Server) Image {
	t.Helper()
	_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("x")})
	require.NoError(t, err)
	img, err := open(t, options(t, reg)).Resolve(deadline(t), reg.Host+"/os/images:1", boot.AMD64, Credentials{})
	require.NoError(t, err)
	return img
}

// signaturesOf reads all that there are.
func signaturesOf(t *testing.T, s *Store, img Image, subject boot.Digest, c Credentials) (all []Attachment, missed error) {
	t.Helper()
	for some, err := range s.Signatures(deadline(t), img.Source, subject, c) {
		all = append(all, some...)
		missed = errors.Join(missed, err)
	}
	return all, missed
}

func contents(all []Attachment) []string {
	var out []string
	for _, a := range all {
		out = append(out, string(a.Content))
	}
	return out
}

func TestAnImageKnowsItsIndexAndItsManifest(t *testing.T) {
	reg := serve(t, registry.Options{})
	img := publishOne(t, reg)
	require.NotEmpty(t, img.Index)
	require.Equal(t, reg.Host+"/os/images@"+string(img.Manifest), img.Source)
	require.NotEqual(t, img.Index, img.Manifest)

	inner := index(t, reg, "", false, publish(t, reg, "", registry.Image{Architecture: "amd64", Layers: uki("y")}, "amd64"))
	outer := index(t, reg, "nested", false, inner)
	single := publish(t, reg, "single", registry.Image{Architecture: "amd64", Layers: uki("y")}, "")
	s := open(t, options(t, reg))
	nested, err := s.Resolve(deadline(t), reg.Host+"/os/images:nested", boot.AMD64, Credentials{})
	require.NoError(t, err)
	require.Equal(t, boot.Digest(outer.Digest), nested.Index)
	alone, err := s.Resolve(deadline(t), reg.Host+"/os/images:single", boot.AMD64, Credentials{})
	require.NoError(t, err)
	require.Empty(t, alone.Index)
	require.Equal(t, boot.Digest(single.Digest), alone.Manifest)
}

func TestSignaturesAreFoundInEveryPlaceWhereToolsPutThem(t *testing.T) {
	for _, referrers := range []bool{true, false} {
		t.Run(fmt.Sprintf("referrers API %t", referrers), func(t *testing.T) {
			reg := serve(t, registry.Options{Referrers: referrers, Auth: registry.Token, Username: "u", Password: "p"})
			pull := secretFor(t, reg.Host, "u", "p")
			img := publishTo(t, reg, pull)
			s := open(t, options(t, reg))
			all, err := signaturesOf(t, s, img, img.Manifest, pull)
			require.NoError(t, err)
			require.Empty(t, all)

			// One by cosign 3, one that is no signature, and one of the index.
			open := openPush(t, reg)
			one := put(t, open, "", typeOCIManifest, bundleManifest(reg, img.Manifest, layerOf(reg, bundleType, []byte("bundle"), nil)))
			sbom := bundleManifest(reg, img.Manifest, layerOf(reg, "text/spdx", []byte("sbom"), nil))
			two := put(t, open, "", typeOCIManifest, sbom)
			put(t, open, "", typeOCIManifest, bundleManifest(reg, img.Index, layerOf(reg, bundleType, []byte("of the index"), nil)))
			if !referrers {
				// As tools do where there is no API: they keep the list under a tag.
				one.ArtifactType, two.ArtifactType = bundleType, "application/spdx"
				put(t, open, "sha256-"+img.Manifest.Hex(), typeOCIIndex, ocispec.Index{MediaType: typeOCIIndex, Manifests: []ocispec.Descriptor{two, one}})
			}
			// Two by cosign 2, of the same payload.
			payload := []byte("payload")
			put(t, open, "sha256-"+img.Manifest.Hex()+".sig", typeOCIManifest, dotSigManifest(reg,
				layerOf(reg, typeSimpleSigning, payload, map[string]string{"by": "a"}),
				layerOf(reg, typeSimpleSigning, payload, map[string]string{"by": "b"}),
				layerOf(reg, "text/plain", []byte("notes"), nil)))

			all, err = signaturesOf(t, s, img, img.Manifest, pull)
			require.NoError(t, err)
			require.Equal(t, []string{"bundle", "payload", "payload"}, contents(all))
			require.Equal(t, Attachment{MediaType: bundleType, Digest: digestOf([]byte("bundle")), Content: []byte("bundle")}, all[0])
			require.Equal(t, Attachment{MediaType: typeSimpleSigning, Digest: digestOf(payload), Content: payload, Annotations: map[string]string{"by": "b"}}, all[1])
			require.Equal(t, "a", all[2].Annotations["by"])

			_, err = signaturesOf(t, s, img, img.Manifest, Credentials{})
			require.ErrorIs(t, err, ErrUnauthorized)
			require.False(t, Terminal(err))
		})
	}
}

// publishTo is publishOne in a registry that wants credentials.
func publishTo(t *testing.T, reg *registry.Server, c Credentials) Image {
	t.Helper()
	_, err := reg.Publish("os/images", "1", map[string][]byte{"amd64": []byte("x")})
	require.NoError(t, err)
	img, err := open(t, options(t, reg)).Resolve(deadline(t), reg.Host+"/os/images:1", boot.AMD64, c)
	require.NoError(t, err)
	return img
}

// openPush lets the test push without the registry's credentials.
func openPush(t *testing.T, reg *registry.Server) *registry.Server {
	t.Helper()
	host := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+token(t, reg))
		reg.ServeHTTP(w, r)
	}))
	return &registry.Server{URL: "http://" + host, Host: host}
}

func token(t *testing.T, reg *registry.Server) string {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodGet, reg.URL+"/token?scope=repository:os/images:push", nil)
	require.NoError(t, err)
	req.SetBasicAuth("u", "p")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var doc struct{ Token string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&doc))
	return doc.Token
}

// answers is a registry made of fixed answers: by path, what a GET gets.
type answers map[string]http.HandlerFunc

func (a answers) serve(t *testing.T) *registry.Server {
	t.Helper()
	host := serveHandler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/v2/os/images/")
		if f, ok := a[path]; ok {
			f(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	return &registry.Server{URL: "http://" + host, Host: host}
}

func answer(contentType string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body)
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func asJSON(t *testing.T, doc any) []byte {
	t.Helper()
	b, err := json.Marshal(doc)
	require.NoError(t, err)
	return b
}

// add keeps a manifest and its layers, and returns its descriptor as a referrer.
func (a answers) add(t *testing.T, artifactType string, contents ...[]byte) ocispec.Descriptor {
	t.Helper()
	var m ocispec.Manifest
	for _, c := range contents {
		d := digest.FromBytes(c)
		a["blobs/"+d.String()] = answer("application/octet-stream", c)
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: bundleType, Digest: d, Size: int64(len(c))})
	}
	body := asJSON(t, m)
	d := ocispec.Descriptor{MediaType: typeOCIManifest, ArtifactType: artifactType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	a["manifests/"+d.Digest.String()] = answer(typeOCIManifest, body)
	return d
}

var signedDigest = digestOf([]byte("signed"))

func (a answers) list(t *testing.T, all ...ocispec.Descriptor) {
	t.Helper()
	a["referrers/"+string(signedDigest)] = answer(typeOCIIndex, asJSON(t, ocispec.Index{MediaType: typeOCIIndex, Manifests: all}))
}

// gather reads the signatures that the answers have.
func (a answers) gather(t *testing.T) ([]Attachment, error) {
	t.Helper()
	reg := a.serve(t)
	return signaturesOf(t, open(t, options(t, reg)), Image{Source: reg.Host + "/os/images@" + string(signedDigest)}, signedDigest, Credentials{})
}

func TestRegistriesWithoutReferrersAnswerInManyWays(t *testing.T) {
	for name, f := range map[string]http.HandlerFunc{
		"404": status(404), "400": status(400), "405": status(405), "406": status(406), "501": status(501),
		"a page": answer("text/html", []byte("<html>")),
	} {
		a := answers{}
		d := a.add(t, bundleType, []byte("bundle"))
		a["referrers/"+string(signedDigest)] = f
		a["manifests/sha256-"+signedDigest.Hex()] = answer(typeOCIIndex, asJSON(t, ocispec.Index{Manifests: []ocispec.Descriptor{d}}))
		all, err := a.gather(t)
		require.NoError(t, err, name)
		require.Equal(t, []string{"bundle"}, contents(all), name)
		delete(a, "manifests/sha256-"+signedDigest.Hex())
		all, err = a.gather(t)
		require.NoError(t, err, name)
		require.Empty(t, all, name)
	}
}

func TestReferrersThatDoNotSayWhatTheyAreAreLookedInto(t *testing.T) {
	for _, kind := range []string{"", typeEmpty, typeOCIConfig, bundleType, "application/vnd.dev.sigstore.bundle+json;version=0.1"} {
		a := answers{}
		a.list(t, a.add(t, "application/spdx+json", []byte("sbom")), a.add(t, kind, []byte("bundle")))
		all, err := a.gather(t)
		require.NoError(t, err)
		require.Equal(t, []string{"bundle"}, contents(all), kind)
	}
}

func TestAListOfReferrersHasPages(t *testing.T) {
	a := answers{}
	page := func(link string, d ocispec.Descriptor) (string, []byte) {
		return link, asJSON(t, ocispec.Index{Manifests: []ocispec.Descriptor{d}})
	}
	one, two := a.add(t, bundleType, []byte("one")), a.add(t, bundleType, []byte("two"))
	a["referrers/"+string(signedDigest)] = func(w http.ResponseWriter, r *http.Request) {
		// A link that leads away is followed here, by its query alone.
		link, body := page(`<https://elsewhere.example.com/v2/x/referrers/y?last=1>; rel="next"`, one)
		if r.URL.Query().Get("last") == "1" {
			link, body = page("", two)
		}
		w.Header().Set("Content-Type", typeOCIIndex)
		w.Header().Set("Link", link)
		_, _ = w.Write(body)
	}
	all, err := a.gather(t)
	require.NoError(t, err)
	require.Equal(t, []string{"one", "two"}, contents(all))

	pages := 0
	a["referrers/"+string(signedDigest)] = func(w http.ResponseWriter, _ *http.Request) {
		pages++
		w.Header().Set("Content-Type", typeOCIIndex)
		w.Header().Set("Link", fmt.Sprintf(`</v2/os/images/referrers/%s?last=%d>; rel="next"`, signedDigest, pages))
		_, _ = w.Write([]byte("{}"))
	}
	_, err = a.gather(t)
	require.ErrorIs(t, err, ErrTooLarge)
	require.Equal(t, maxPages, pages)
}

func TestTooMuchIsNotReadAndSaid(t *testing.T) {
	large := answers{}
	huge := large.add(t, bundleType, []byte("huge"))
	large["manifests/"+huge.Digest.String()] = nil
	m := asJSON(t, ocispec.Manifest{Layers: []ocispec.Descriptor{{MediaType: bundleType, Digest: digest.FromBytes([]byte("huge")), Size: 100 << 20}}})
	huge.Digest = digest.FromBytes(m)
	large["manifests/"+huge.Digest.String()] = answer(typeOCIManifest, m)
	large.list(t, huge, large.add(t, bundleType, []byte("good")))

	endless := answers{}
	e := endless.add(t, bundleType, []byte("endless"))
	sent := 0
	endless["blobs/"+digest.FromBytes([]byte("endless")).String()] = func(w http.ResponseWriter, _ *http.Request) {
		for sent < 100<<20 {
			n, err := w.Write(make([]byte, 64<<10))
			if sent += n; err != nil {
				return
			}
		}
	}
	endless.list(t, e, endless.add(t, bundleType, []byte("good")))

	many := answers{}
	var referrers []ocispec.Descriptor
	for i := range 10_000 {
		d := ocispec.Descriptor{MediaType: typeOCIManifest, ArtifactType: "application/spdx+json", Digest: digest.FromString(fmt.Sprint(i)), Size: 1000}
		if i == 9_999 {
			d = many.add(t, bundleType, []byte("good"))
		}
		referrers = append(referrers, d)
	}
	many.list(t, referrers...)

	bundles := answers{}
	referrers = nil
	for i := range 10_000 {
		referrers = append(referrers, bundles.add(t, bundleType, fmt.Appendf(nil, "bundle %d", i)))
	}
	bundles.list(t, referrers...)

	unsure := answers{}
	referrers = nil
	for i := range 10_000 {
		referrers = append(referrers, unsure.add(t, "", fmt.Appendf(nil, "bundle %d", i)))
	}
	referrers = append(referrers, unsure.add(t, bundleType, []byte("good")))
	unsure.list(t, referrers...)

	total := answers{}
	referrers = nil
	for i := range 12 {
		referrers = append(referrers, total.add(t, bundleType, bytes.Repeat([]byte{byte(i)}, maxSignature)))
	}
	total.list(t, referrers...)

	page := answers{}
	page["referrers/"+string(signedDigest)] = answer(typeOCIIndex, append([]byte("{}"), make([]byte, maxManifest)...))

	for name, c := range map[string]struct {
		a    answers
		have int
		why  string
	}{
		"a signature of 100 MiB":                {large, 1, "104857600 bytes"},
		"a signature without end":               {endless, 1, "more than"},
		"10000 referrers and one signature":     {many, 1, ""},
		"10000 signatures":                      {bundles, maxSignatures, "more than 32 signatures among the referrers"},
		"10000 that do not say what they are":   {unsure, maxSignatures, "more than 32 signatures among the referrers"},
		"12 MiB of signatures":                  {total, maxSignatureBytes / maxSignature, "are the most"},
		"a list of referrers larger than 4 MiB": {page, 0, "4194304"},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := c.a.gather(t)
			require.Len(t, all, c.have)
			if c.why == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrTooLarge)
			require.ErrorContains(t, err, c.why)
			require.True(t, Terminal(err))
			require.NotContains(t, err.Error(), "\n")
			require.Less(t, len(err.Error()), 4000)
		})
	}
	require.Less(t, sent, 10<<20)
	require.Contains(t, contents(must(unsure.gather(t))), "good")
}

func must(all []Attachment, _ error) []Attachment { return all }

func TestTheNewestLayersOfADotSigTagAreRead(t *testing.T) {
	a := answers{}
	var m ocispec.Manifest
	for i := range 40 {
		c := fmt.Appendf(nil, "payload %d", i)
		d := digest.FromBytes(c)
		a["blobs/"+d.String()] = answer("", c)
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: typeSimpleSigning, Digest: d, Size: int64(len(c))})
	}
	a["manifests/sha256-"+signedDigest.Hex()+".sig"] = answer(typeOCIManifest, asJSON(t, m))
	all, err := a.gather(t)
	require.ErrorIs(t, err, ErrTooLarge)
	require.Len(t, all, maxSignatures)
	require.Equal(t, "payload 39", string(all[0].Content))
}

func TestWhatIsNoSignatureIsSaid(t *testing.T) {
	lies := answers{}
	d := lies.add(t, bundleType, []byte("good"))
	lies["blobs/"+digest.FromBytes([]byte("good")).String()] = answer("", []byte("evil"))
	lies.list(t, d)
	swapped := answers{}
	one, two := swapped.add(t, bundleType, []byte("one")), swapped.add(t, bundleType, []byte("two"))
	swapped["manifests/"+one.Digest.String()] = swapped["manifests/"+two.Digest.String()]
	swapped.list(t, one)
	missing := answers{}
	d = missing.add(t, bundleType, []byte("good"))
	delete(missing, "blobs/"+digest.FromBytes([]byte("good")).String())
	missing.list(t, d)
	gone := answers{}
	gone.list(t, ocispec.Descriptor{MediaType: typeOCIManifest, ArtifactType: bundleType, Digest: digest.FromString("gone")})
	weird := answers{}
	weird.list(t, ocispec.Descriptor{MediaType: typeOCIManifest, ArtifactType: bundleType, Digest: "../../../etc"})
	negative := answers{}
	body := asJSON(t, ocispec.Manifest{Layers: []ocispec.Descriptor{{MediaType: bundleType, Digest: digest.FromString("x"), Size: -1}, {MediaType: bundleType, Digest: "sha512:ab"}}})
	negative["manifests/sha256-"+signedDigest.Hex()+".sig"] = answer(typeOCIManifest, body)
	for name, c := range map[string]struct {
		a   answers
		err error
	}{
		"junk as list":                 {answers{"referrers/" + string(signedDigest): answer(typeOCIIndex, []byte("junk"))}, ErrNoSignature},
		"junk as list under a tag":     {answers{"manifests/sha256-" + signedDigest.Hex(): answer(typeOCIIndex, []byte("junk"))}, ErrNoSignature},
		"junk as .sig tag":             {answers{"manifests/sha256-" + signedDigest.Hex() + ".sig": answer(typeOCIManifest, []byte("junk"))}, ErrNoSignature},
		"other content":                {lies, ErrDigestMismatch},
		"another manifest":             {swapped, ErrDigestMismatch},
		"a layer that is not there":    {missing, ErrNoSignature},
		"a manifest that is not there": {gone, ErrNoSignature},
		"a digest that is a path":      {weird, ErrNoSignature},
		"sizes and digests of others":  {negative, ErrTooLarge},
	} {
		all, err := c.a.gather(t)
		require.Empty(t, all, name)
		require.ErrorIs(t, err, c.err, name)
		require.True(t, Terminal(err), name)
	}
}

func TestARegistryThatFailsMayHaveSignaturesLater(t *testing.T) {
	for _, code := range []int{500, 503, 429} {
		a := answers{"manifests/sha256-" + signedDigest.Hex() + ".sig": answer(typeOCIManifest, []byte("junk"))}
		a["referrers/"+string(signedDigest)] = status(code)
		_, err := a.gather(t)
		require.Error(t, err)
		require.False(t, Terminal(err), "%d: %v", code, err)
	}
}

func TestSignaturesComeFromMirrorsFirstAndFromHomeOnlyWhenAsked(t *testing.T) {
	home, mirror := answers{}, answers{}
	home.list(t, home.add(t, bundleType, []byte("at home")))
	mirror.list(t, mirror.add(t, bundleType, []byte("mirrored")))
	asked := 0
	h := home["referrers/"+string(signedDigest)]
	home["referrers/"+string(signedDigest)] = func(w http.ResponseWriter, r *http.Request) { asked++; h(w, r) }
	homeReg, mirrorReg := home.serve(t), mirror.serve(t)
	o := options(t, homeReg, mirrorReg)
	o.AllowedRegistries = []string{homeReg.Host}
	o.Mirrors = map[string][]string{homeReg.Host: {mirrorReg.Host}}
	s := open(t, o)
	img := Image{Source: homeReg.Host + "/os/images@" + string(signedDigest)}
	for all, err := range s.Signatures(deadline(t), img.Source, signedDigest, Credentials{}) {
		require.NoError(t, err)
		require.Equal(t, []string{"mirrored"}, contents(all))
		break
	}
	require.Zero(t, asked)
	all, err := signaturesOf(t, s, img, signedDigest, Credentials{})
	require.NoError(t, err)
	require.Equal(t, []string{"mirrored", "at home"}, contents(all))
}

func TestNoSignatureIsAskedForWhereTheImageMayNotBe(t *testing.T) {
	a := answers{}
	asked := false
	a["referrers/"+string(signedDigest)] = func(http.ResponseWriter, *http.Request) { asked = true }
	reg := a.serve(t)
	o := options(t, reg)
	o.AllowedRegistries = []string{"other.example.com"}
	s := open(t, o)
	_, err := signaturesOf(t, s, Image{Source: reg.Host + "/os/images@" + string(signedDigest)}, signedDigest, Credentials{})
	require.ErrorIs(t, err, ErrNotAllowed)
	_, err = signaturesOf(t, s, Image{Source: "https://example.com/a.efi"}, signedDigest, Credentials{})
	require.ErrorIs(t, err, ErrInvalidReference)
	_, err = signaturesOf(t, open(t, options(t, reg)), Image{Source: reg.Host + "/os/images"}, "sha256:x", Credentials{})
	require.ErrorIs(t, err, boot.ErrInvalid)
	require.False(t, asked)
}
