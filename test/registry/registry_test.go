package registry

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Serve("127.0.0.1:0", o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// ask sends a request and returns its status, header and as much of its body as came.
func ask(t *testing.T, method, to string, header http.Header, body []byte) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, to, bytes.NewReader(body))
	require.NoError(t, err)
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := (&http.Transport{}).RoundTrip(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	got, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, got
}

func TestImagesCanBePushedAndPulled(t *testing.T) {
	s := start(t, Options{})
	blob := []byte("some kernel")
	digest := New(Options{}).AddBlob(blob)
	status, h, _ := ask(t, http.MethodPost, s.URL+"/v2/os/images/blobs/uploads/", nil, nil)
	require.Equal(t, http.StatusAccepted, status)
	status, _, _ = ask(t, http.MethodPut, s.URL+h.Get("Location")+"?digest="+url.QueryEscape(digest), nil, blob)
	require.Equal(t, http.StatusCreated, status)
	manifest := []byte(`{"schemaVersion":2,"layers":[]}`)
	kind := http.Header{"Content-Type": {"application/vnd.oci.image.manifest.v1+json"}}
	status, _, _ = ask(t, http.MethodPut, s.URL+"/v2/os/images/manifests/1", kind, manifest)
	require.Equal(t, http.StatusCreated, status)

	_, _, got := ask(t, http.MethodGet, s.URL+"/v2/os/images/blobs/"+digest, nil, nil)
	require.Equal(t, blob, got)
	_, _, got = ask(t, http.MethodGet, s.URL+"/v2/os/images/manifests/1", nil, nil)
	require.Equal(t, manifest, got)

	s = start(t, Options{NoPush: true})
	status, _, _ = ask(t, http.MethodPost, s.URL+"/v2/os/images/blobs/uploads/", nil, nil)
	require.Equal(t, http.StatusMethodNotAllowed, status)
}

func TestBlobsHaveRanges(t *testing.T) {
	s := start(t, Options{})
	digest := s.AddBlob([]byte("0123456789"))
	file := filepath.Join(t.TempDir(), "blob")
	require.NoError(t, os.WriteFile(file, []byte("abcdefghij"), 0o600))
	inFile, size, err := s.AddFile(file)
	require.NoError(t, err)
	require.Equal(t, int64(10), size)
	for _, f := range []Faults{{}, {BytesPerSecond: 1 << 30}} {
		s.Set(f)
		for digest, want := range map[string]string{digest: "56789", inFile: "fghij"} {
			status, h, got := ask(t, http.MethodGet, s.URL+"/v2/x/blobs/"+digest, http.Header{"Range": {"bytes=5-9"}}, nil)
			require.Equal(t, http.StatusPartialContent, status)
			require.Equal(t, "bytes 5-9/10", h.Get("Content-Range"))
			require.Equal(t, want, string(got))
		}
	}
	require.Equal(t, 4, s.Count("GET", "/blobs/"))
	require.Equal(t, "bytes=5-9", s.Requests()[0].Range)
}

func TestFaults(t *testing.T) {
	s := start(t, Options{})
	digest := s.AddBlob([]byte("0123456789"))
	for name, c := range map[string]struct {
		f      Faults
		status int
		body   string
	}{
		"none":         {Faults{}, 200, "0123456789"},
		"broken":       {Faults{Broken: 503}, 503, "{\"errors\":[{\"code\":\"UNAVAILABLE\",\"message\":\"broken on request\"}]}\n"},
		"cut":          {Faults{CutAfter: 4}, 200, "0123"},
		"longer":       {Faults{WrongSize: 2}, 200, "0123456789\x00\x00"},
		"shorter":      {Faults{WrongSize: -2}, 200, "01234567"},
		"other":        {Faults{WrongDigest: true}, 200, "\xcf123456789"},
		"without size": {Faults{Chunked: true}, 200, "0123456789"},
		"redirected":   {Faults{RedirectTo: "http://cdn"}, 307, ""},
	} {
		s.Set(c.f)
		status, h, got := ask(t, http.MethodGet, s.URL+"/v2/x/blobs/"+digest, nil, nil)
		require.Equal(t, c.status, status, name)
		require.Equal(t, c.body, string(got), name)
		require.Equal(t, c.f.Chunked, h.Get("Content-Length") == "", name)
		if c.f.RedirectTo != "" {
			require.Equal(t, "http://cdn/cdn/v2/x/blobs/"+digest+"?signature=secret", h.Get("Location"))
		}
	}
	s.Set(Faults{CutAfter: 4, Cuts: 1})
	_, _, got := ask(t, http.MethodGet, s.URL+"/v2/x/blobs/"+digest, nil, nil)
	require.Len(t, got, 4)
	_, _, got = ask(t, http.MethodGet, s.URL+"/v2/x/blobs/"+digest, nil, nil)
	require.Len(t, got, 10)
}

func TestCredentialsAreAskedFor(t *testing.T) {
	basic := http.Header{"Authorization": {"Basic dTpw"}}
	s := start(t, Options{Auth: Basic, Username: "u", Password: "p"})
	status, h, _ := ask(t, http.MethodGet, s.URL+"/v2/", nil, nil)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, `Basic realm="registry"`, h.Get("WWW-Authenticate"))
	status, _, _ = ask(t, http.MethodGet, s.URL+"/v2/", basic, nil)
	require.Equal(t, http.StatusOK, status)

	s = start(t, Options{Auth: Token, Username: "u", Password: "p"})
	_, h, _ = ask(t, http.MethodGet, s.URL+"/v2/os/manifests/1", nil, nil)
	require.Equal(t, `Bearer realm="`+s.URL+`/token",service="registry",scope="repository:os:pull"`, h.Get("WWW-Authenticate"))
	status, _, _ = ask(t, http.MethodGet, s.URL+"/token?scope=repository:os:pull", nil, nil)
	require.Equal(t, http.StatusUnauthorized, status)
	status, _, _ = ask(t, http.MethodGet, s.URL+"/token?scope=repository:os:pull", basic, nil)
	require.Equal(t, http.StatusOK, status)
	var bearer http.Header
	for token := range s.tokens {
		bearer = http.Header{"Authorization": {"Bearer " + token}}
	}
	status, _, _ = ask(t, http.MethodGet, s.URL+"/v2/os/manifests/1", bearer, nil)
	require.Equal(t, http.StatusNotFound, status)
	status, _, _ = ask(t, http.MethodGet, s.URL+"/v2/other/manifests/1", bearer, nil)
	require.Equal(t, http.StatusUnauthorized, status, "the token is for another repository")
	s.ExpireTokens()
	status, _, _ = ask(t, http.MethodGet, s.URL+"/v2/os/manifests/1", bearer, nil)
	require.Equal(t, http.StatusUnauthorized, status)
}
