package artifact

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const debianRegistry = "/usr/bin/docker-registry"

// A real registry, Debian's docker-registry, behind a connection that breaks in
// the middle of a blob: the pull goes on with Range.
func TestAPullFromDebiansRegistryIsResumed(t *testing.T) {
	backend := startDebianRegistry(t)
	data := random(16 << 20)
	pushImage(t, backend, data)
	p := startProxy(t, backend, 5<<20)
	o := options(t)
	o.AllowedRegistries, o.PlainHTTPRegistries = []string{p.host}, []string{p.host}
	s := open(t, o)

	require.NoError(t, bootFrom(deadline(t), s, p.host, Credentials{}))
	requireHolds(t, s, data)
	require.True(t, p.wasCut())
	require.Equal(t, 1.0, metric(t, s, "pull_resumes_total"))
	require.Equal(t, float64(len(data)), metric(t, s, "pulled_bytes_total"), "no byte twice")
	require.Regexp(t, `(?i)\r\nRange: bytes=\d{7}-16777215\r\n`, p.asked())
	require.Equal(t, 2, strings.Count(p.asked(), "/blobs/"+string(digestOf(data))))
}

func startDebianRegistry(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(debianRegistry); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: apt-get install docker-registry", debianRegistry)
		}
		t.Skipf("SKIPPED: %s is missing: apt-get install docker-registry", debianRegistry)
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	host := l.Addr().String()
	require.NoError(t, l.Close())
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, host)
	file := filepath.Join(dir, "config.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	cmd := exec.Command(debianRegistry, "serve", file)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	eventually(t, "the registry listens", func() bool {
		resp, err := http.Get("http://" + host + "/v2/")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
	return host
}

// pushImage pushes os/images:1 with one UKI, as the OCI distribution spec has it.
func pushImage(t *testing.T, host string, data []byte) {
	t.Helper()
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	for _, b := range [][]byte{config, data} {
		resp := send(t, http.MethodPost, "http://"+host+"/v2/os/images/blobs/uploads/", "", nil)
		require.Equal(t, http.StatusAccepted, resp.StatusCode)
		to, err := url.Parse(resp.Header.Get("Location"))
		require.NoError(t, err)
		q := to.Query()
		q.Set("digest", string(digestOf(b)))
		to.RawQuery, to.Scheme, to.Host = q.Encode(), "http", host
		resp = send(t, http.MethodPut, to.String(), "application/octet-stream", b)
		require.Equal(t, http.StatusCreated, resp.StatusCode)
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.ironcore.image.uki","digest":%q,"size":%d}]}`,
		typeOCIManifest, typeOCIConfig, digestOf(config), len(config), digestOf(data), len(data))
	resp := send(t, http.MethodPut, "http://"+host+"/v2/os/images/manifests/1", typeOCIManifest, []byte(manifest))
	require.Equal(t, http.StatusCreated, resp.StatusCode)
}

func send(t *testing.T, method, to, contentType string, body []byte) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), method, to, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp
}

// proxy passes TCP on, and cuts one connection after so many bytes of answers.
type proxy struct {
	host    string
	backend string
	after   int64

	mu       sync.Mutex
	cut      bool
	requests bytes.Buffer
}

func startProxy(t *testing.T, backend string, after int64) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{host: l.Addr().String(), backend: backend, after: after}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() { stop(); _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { _ = c.Close() })
			go p.pass(c)
		}
	}()
	return p
}

func (p *proxy) pass(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", p.backend)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(io.MultiWriter(server, p), client)
		_ = server.Close()
	}()
	if p.wasCut() {
		_, _ = io.Copy(client, server)
		return
	}
	if n, _ := io.CopyN(client, server, p.after); n == p.after {
		p.mu.Lock()
		p.cut = true
		p.mu.Unlock()
	}
}

// Write notes what clients ask.
func (p *proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests.Write(b)
}

func (p *proxy) wasCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

func (p *proxy) asked() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests.String()
}
