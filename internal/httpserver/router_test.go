package httpserver

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// raw sends a request line as it is and returns the answer.
func raw(t *testing.T, base, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = conn.Write([]byte(request))
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: strings.Fields(request)[0]})
	require.NoError(t, err)
	return resp
}

// Known defect 29.
func TestNoPathRedirects(t *testing.T) {
	w := newWorld(t)
	base := w.bootServer()
	d := string(w.plan.Artifacts[0].Digest)
	hexed := strings.Replace(d, ":", "-", 1)
	for path, want := range map[string]int{
		"/httpboot":                   200,
		"//httpboot":                  200,
		"/httpboot/":                  200,
		"///httpboot//":               200,
		"//images//" + d + "//os.efi": 200,
		"/images/" + strings.ToUpper(d) + "/os.efi": 404,
		"/images/" + d:            404,
		"/images/" + d + "/a/b":   404,
		"/images/../httpboot":     404,
		"/images/%2e%2e/httpboot": 404,
		"/./httpboot":             404,
		"/httpboot/..":            404,
		"/httpboot%00":            404,
		"/httpboot%0d%0aX:1":      404,
		"/%68ttpboot":             200,
		"/httpboot%2f":            200,
		"/..%2f..%2fetc/passwd":   404,
		"/images/..%5c..%5cx/y":   404,
		"/":                       404,
		"/ipxe":                   200,
		"//ipxe//":                200,
		"/boot.ipxe/":             200,
		"/ipxe/t":                 200,
		"/ipxe/t/x":               200,
		"/ipxe/a/b":               404,
		"/grub":                   404,
		"/grub//grub.cfg":         200,
		"/grub/grub.cfg-01-junk":  200,
		"/grub/grub.cfg-02-junk":  404,
		"/grub/x/grub.cfg":        404,
		"/cloud-init":             404,
		"/cloud-init/":            404,
		"/cloud-init/t/x":         404,
		"/cloud-init/t/x/other":   404,
		"/cloud-init/a/b/c":       404,
		"/httpboot/registry.example/os/" + hexed + ".efi": 200,
		"/httpboot/" + hexed + ".efi":                     200,
		"/httpboot/other/name/" + hexed + ".efi":          200,
		"/httpboot/os/" + hexed:                           404,
		"/httpboot/os/sha256-abc.efi":                     404,
		"/httpboot/t/":                                    404,
		"/httpboot/t/x":                                   404,
		"/httpboot/t/x/y.efi":                             404,
		"/httpboot/t/x/y":                                 404,
		"/image?imageName=a&layerDigest=" + url.QueryEscape(d) + "&version=1": 200,
		"/image":                                 404,
		"/ignition/a/b":                          404,
		"http://other.example/httpboot":          200,
		"/" + strings.Repeat("a", maxPath):       404,
		"/httpboot?" + strings.Repeat("a", 4000): 200,
		"*":                                      404,
	} {
		resp := raw(t, base, "HEAD "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		require.Equal(t, want, resp.StatusCode, path)
		require.Empty(t, resp.Header.Get("Location"), path)
	}
}

// Known defect 6: no blob route reaches a registry or takes another method.
func TestBlobRoutesAreNoRelay(t *testing.T) {
	w := newWorld(t)
	other := w.blobs.add(t, []byte("a blob that no ready config names"))
	for _, base := range []string{w.bootServer(), w.serve(w.server.ImageHandler(), ServeOptions{})} {
		for _, path := range []string{
			"/image?imageName=evil.example/x&layerDigest=../manifests/latest&version=1",
			"/image?imageName=evil.example/x&layerDigest=" + string(other.Digest),
			"/image?layerDigest=sha512:" + strings.Repeat("a", 128),
			"/image?layerDigest=%zz",
			"/images/" + string(other.Digest) + "/x",
			"/images/..%2fmanifests%2flatest/x",
			"/httpboot/evil.example/x/sha256-" + other.Digest.Hex() + ".efi",
		} {
			require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+path).StatusCode, path)
		}
		good := base + "/image?imageName=whatever&layerDigest=" + string(w.plan.Artifacts[0].Digest)
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodConnect, "FOO"} {
			a := ask(t, addrC, method, good)
			require.Equal(t, 405, a.StatusCode, method)
			require.Equal(t, "GET, HEAD", a.Header.Get("Allow"))
		}
		w.blobs.opened = nil
		require.Equal(t, w.data, ask(t, addrC, http.MethodGet, good).body, "the control")
	}
	for _, d := range w.blobs.opened {
		require.NotEqual(t, other.Digest, d)
	}
}

// Known defect 10.
func TestTypeOfABlobComesFromItsRole(t *testing.T) {
	w := newWorld(t)
	kernel := w.blobs.add(t, []byte("kernel"))
	kernel.Role = boot.RoleKernel
	w.source.public = append(w.source.public, kernel)
	base := w.bootServer()
	for _, c := range []struct {
		d    boot.Digest
		want string
	}{{w.plan.Artifacts[0].Digest, "application/efi"}, {kernel.Digest, "application/octet-stream"}} {
		a := ask(t, addrC, http.MethodGet, base+"/images/"+string(c.d)+"/vmlinuz.efi")
		require.Equal(t, []string{c.want}, a.Header["Content-Type"])
	}
}

// Known defect 12.
func TestPortsServeTheirOwnRoutesOnly(t *testing.T) {
	w := newWorld(t)
	image, bootURL := w.serve(w.server.ImageHandler(), ServeOptions{}), w.bootServer()
	for _, path := range []string{"/httpboot", "/httpboot?token=x", "/httpboot/t/x/y.efi", "/ignition", "/ignition/" + string(uuidA), "/metrics", "/healthz", "/debug/pprof/"} {
		require.Equal(t, 404, get(t, image+path).StatusCode, path)
	}
	require.Equal(t, 200, get(t, bootURL+"/ignition").StatusCode, "the control")
	require.Equal(t, 404, get(t, bootURL+"/metrics").StatusCode)
	require.Equal(t, 404, get(t, bootURL+"/debug/pprof/").StatusCode)
	// The image server counts the delivery to a machine that is proven.
	a := get(t, fmt.Sprintf("%s/httpboot/registry.example/os/sha256-%s.efi", image, w.plan.Artifacts[0].Digest.Hex()))
	require.Equal(t, w.data, a.body)
	eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 1 })
	require.Equal(t, w.data, ask(t, addrC, http.MethodGet, image+"/images/"+string(w.plan.Artifacts[0].Digest)+"/x").body)
	require.Len(t, w.attempts.observed(boot.StageUKI), 1, "a stranger's is nobody's delivery")
}

func TestLoggedPathsHoldNoToken(t *testing.T) {
	token := strings.Repeat("T0k-", 20)
	for _, p := range []string{
		"/httpboot/t/" + token + "/boot.efi", "//httpboot//t//" + token, "/httpboot/t/" + token[:30], "/x/" + token, "/" + token + "/y",
		"/httpboot/t/a/../" + token, "/x\n" + token,
	} {
		require.NotContains(t, loggable(p), "T0k-", p)
	}
	require.Equal(t, "/httpboot/a/sha256-"+strings.Repeat("a", 64)+".efi", loggable("/httpboot/a/sha256-"+strings.Repeat("a", 64)+".efi"))
	require.LessOrEqual(t, len(loggable("/"+strings.Repeat("a/", 900))), 170)
}

// FuzzRoutes: whatever is asked for, by whomever, there is no redirect, no
// panic, and nothing that blames the server.
func FuzzRoutes(f *testing.F) {
	w := newWorld(f)
	d := string(w.plan.Artifacts[0].Digest)
	for _, s := range []string{"/httpboot", "//httpboot", "/images/" + d + "/x", "/image?layerDigest=" + d, "/ignition/" + string(uuidA), "/httpboot/t/x/y.efi",
		"/httpboot?token=%00", "/..", "/%2e%2e/", "*", "/httpboot/a/sha256-" + d[7:] + ".efi", "/ignition?token=a&token=b", "/\\"} {
		f.Add(s, "GET", "10.0.0.1, x", "127.0.0.1:1")
		f.Add(s, "HEAD", ",,", "[::1]:1")
		f.Add(s, "POST", string(macA), "@")
	}
	handlers := []http.Handler{w.server.BootHandler(), w.server.ImageHandler()}
	f.Fuzz(func(t *testing.T, target, method, forwarded, remote string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Path == "" && target != "*" {
			return
		}
		for _, h := range handlers {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Method, r.URL, r.RequestURI, r.RemoteAddr = method, u, target, remote
			r.Header.Set("X-Forwarded-For", forwarded)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			require.Empty(t, rec.Header().Get("Location"))
			if rec.Code >= 300 && rec.Code < 400 || rec.Code >= 500 && rec.Code != 503 {
				t.Fatalf("%s %q: %d", method, target, rec.Code)
			}
		}
	})
}
