package artifact

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestManifestsAreReadForWhatTheyAre(t *testing.T) {
	for name, c := range map[string]struct {
		contentType, body string
		index             bool
		err               string
	}{
		"an OCI index":             {typeOCIIndex, `{"schemaVersion":2,"manifests":[{}]}`, true, ""},
		"a Docker list":            {typeDockerList, `{"schemaVersion":2,"mediaType":"` + typeDockerList + `","manifests":[{}]}`, true, ""},
		"an OCI manifest":          {typeOCIManifest + "; charset=utf-8", `{"schemaVersion":2,"layers":[{}]}`, false, ""},
		"a Docker manifest":        {typeDockerManifest, `{"schemaVersion":2,"layers":[{}]}`, false, ""},
		"a list sent as JSON":      {"application/json", `{"schemaVersion":2,"manifests":[{}]}`, true, ""},
		"a list sent as manifest":  {typeDockerManifest, `{"schemaVersion":2,"mediaType":"` + typeDockerList + `","manifests":[{}]}`, true, ""},
		"a manifest sent as text":  {"text/plain", `{"schemaVersion":2,"layers":[]}`, false, ""},
		"both at once":             {typeOCIManifest, `{"schemaVersion":2,"layers":[{}],"manifests":[{}]}`, false, "at once"},
		"an index without its due": {typeOCIManifest, `{"schemaVersion":2,"manifests":[{}]}`, false, "does not fit"},
		"Docker's schema 1":        {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`, false, "schema 1"},
		"something else":           {"application/vnd.cncf.helm.config.v1+json", `{}`, false, "neither"},
		"HTML":                     {"text/html", `<html>`, false, "not valid JSON"},
		"nothing":                  {"", ``, false, "not valid JSON"},
		"a number":                 {typeOCIManifest, `7`, false, "not valid JSON"},
	} {
		m, err := parseManifest(c.contentType, []byte(c.body))
		if c.err != "" {
			require.ErrorIs(t, err, ErrNoArtifact, name)
			require.ErrorContains(t, err, c.err, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.index, m.index, name)
	}
	_, err := parseManifest(typeOCIManifest, []byte(strings.Repeat(" ", maxManifest+1)))
	require.ErrorIs(t, err, ErrTooLarge)
}

// FuzzParseManifest holds that whatever a registry sends, what comes out is
// bounded and has real digests and sizes.
func FuzzParseManifest(f *testing.F) {
	f.Add(typeOCIIndex, []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"`+typeOCIManifest+`","digest":"`+someDigest+`","size":3,"platform":{"architecture":"amd64","os":"linux"}}]}`))
	f.Add(typeDockerManifest, []byte(`{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.ironcore.image.uki","digest":"`+someDigest+`","size":3}]}`))
	f.Add("", []byte(`{"schemaVersion":2,"layers":[{"mediaType":"application/efi","digest":"sha256:x","size":-3}],"annotations":{"architecture":"arm64"}}`))
	f.Add("x", []byte(`{"manifests":[{"annotations":{"cname":"metal_pxe-x","architecture":"amd64"}}]}`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		m, err := parseManifest(contentType, body)
		if err != nil {
			require.True(t, Terminal(err), err)
			require.Less(t, len(err.Error()), 1000)
			return
		}
		require.Less(t, len(m.describeChildren()), 5000)
		require.Less(t, len(m.describeLayers()), 5000)
		require.LessOrEqual(t, len(m.candidates(boot.AMD64)), len(m.children))
		all, err := m.artifacts("registry.example.com/os@"+someDigest, 1<<30)
		if err != nil {
			require.True(t, Terminal(err), err)
			return
		}
		roles := map[boot.Role]bool{}
		for _, a := range all {
			_, err := boot.ParseDigest(string(a.Digest))
			require.NoError(t, err)
			require.Positive(t, a.Size)
			require.LessOrEqual(t, a.Size, int64(1<<30))
			require.False(t, roles[a.Role])
			roles[a.Role] = true
		}
	})
}
