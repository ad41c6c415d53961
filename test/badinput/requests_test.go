//go:build linux

package badinput

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const stranger = "127.9.255.1"

// badRequest is a request that gets nothing of the healthy machine's.
type badRequest struct {
	name  string
	check func(t *testing.T, s *site, healthy machine)
}

var badRequests = []badRequest{
	{"unknown-machine", func(t *testing.T, s *site, _ machine) {
		for _, path := range []string{"/httpboot", "/ignition"} {
			requireNotFound(t, s.get(stranger, path))
			requireNotFound(t, s.get(stranger, path, "Accept", "application/json"))
		}
	}},
	{"someone-who-knows-a-UUID", func(t *testing.T, s *site, healthy machine) {
		unknown := s.get(stranger, "/ignition/00112233-4455-6677-8899-ffffffffffff")
		requireNotFound(t, unknown)
		known := s.get(stranger, "/ignition/"+healthy.Spec.SystemUUID)
		requireNotFound(t, known)
		require.Equal(t, unknown.body, known.body, "a machine that exists looks like one that does not")
		own := s.get(healthy.address, "/ignition/"+strings.ToUpper(healthy.Spec.SystemUUID))
		require.Equal(t, 200, own.code, "the control: %s", own.body)
		require.Contains(t, string(own.body), marker)
	}},
	{"forged-X-Forwarded-For", func(t *testing.T, s *site, healthy machine) {
		ids := healthy.Spec.NetworkIdentifiers
		for _, header := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded"} {
			for _, value := range []string{ids[0], ids[0] + ", " + ids[1], ids[1], "for=" + ids[0], strings.Repeat(ids[0]+", ", 500), "\t, ,\x00"[:4]} {
				for _, path := range []string{"/httpboot", "/ignition", "/ignition/" + healthy.Spec.SystemUUID} {
					requireNotFound(t, s.get(stranger, path, header, value, "Accept", "application/json"))
				}
			}
		}
		// Nor does it take anything from who sends it.
		require.Equal(t, 200, s.get(healthy.address, "/httpboot", "X-Forwarded-For", stranger).code)
	}},
	{"paths-with-dots", func(t *testing.T, s *site, healthy machine) {
		for _, path := range []string{
			"/..", "/../httpboot", "/images/../httpboot", "/httpboot/..%2f..%2fetc%2fpasswd", "/httpboot/%2e%2e/ignition", "/ignition/../httpboot", "/ignition/%2e%2e%2fhttpboot",
			"/images/sha256:" + strings.Repeat("0", 64) + "/../../ignition", "/images/..%5c..%5cetc/passwd", "/image?layerDigest=../manifests/latest&imageName=" + s.good.Host + "/os/image", "/.%00./httpboot",
		} {
			requireNotFound(t, s.raw(t, healthy.address, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"))
		}
	}},
	{"blob-routes-are-no-relay", func(t *testing.T, s *site, _ machine) {
		for _, path := range []string{
			"/image?imageName=" + s.good.Host + "/os/nothing&version=1&layerDigest=sha256:" + strings.Repeat("1", 64),
			"/httpboot/" + s.good.Host + "/os/nothing/sha256-" + strings.Repeat("1", 64) + ".efi", "/images/sha256:" + strings.Repeat("1", 64) + "/x",
		} {
			requireNotFound(t, s.get(stranger, path))
		}
		require.Zero(t, s.good.Count("", strings.Repeat("1", 64)), "a registry was asked because a client asked")
	}},
	{"10-MB-of-headers", func(t *testing.T, s *site, healthy machine) {
		c := s.dial(t, healthy.address)
		go func() {
			_, _ = c.Write([]byte("GET /httpboot HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: "))
			line := []byte(strings.Repeat("10.0.0.1, ", 1000))
			for range 1000 {
				if _, err := c.Write(line); err != nil {
					return
				}
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil { // cut while it was still writing
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			require.True(t, errors.Is(err, syscall.ECONNRESET) || strings.Contains(err.Error(), "EOF"), "%s", err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
	}},
	{"other-methods", func(t *testing.T, s *site, healthy machine) {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} {
			require.Equal(t, 405, s.raw(t, healthy.address, method+" /httpboot HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").code)
		}
	}},
	{"not-HTTP", func(t *testing.T, s *site, healthy machine) {
		for _, text := range []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "PROXY TCP4 127.9.0.1 127.0.0.1 1 1\r\n\r\n", "GET /httpboot HTTP/9.9\r\n\r\n", "\r\n\r\n\x00\x00\r\n\r\n"} {
			a := s.raw(t, healthy.address, text)
			require.NotEqual(t, 200, a.code, "%q", text)
		}
	}},
	{"ports-serve-their-own-routes", func(t *testing.T, s *site, healthy machine) {
		images := &site{t: s.t, boot: s.images}
		for _, path := range []string{"/httpboot", "/ignition", "/metrics", "/healthz"} {
			requireNotFound(t, images.get(healthy.address, path))
		}
		requireNotFound(t, s.get(healthy.address, "/metrics"))
		metrics := &site{t: s.t, boot: s.metrics}
		for _, path := range []string{"/httpboot", "/ignition"} {
			require.Equal(t, 404, metrics.get(healthy.address, path).code)
		}
	}},
}

// raw sends bytes and reads what comes back, which may be nothing.
func (s *site) raw(t *testing.T, from, text string) answer {
	t.Helper()
	c := s.dial(t, from)
	defer func() { _ = c.Close() }()
	_, err := fmt.Fprint(c, text)
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "no answer to %q", text)
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body := make([]byte, 4096)
	n, _ := resp.Body.Read(body)
	return answer{code: resp.StatusCode, header: resp.Header, body: body[:n]}
}

func requireNotFound(t *testing.T, a answer) {
	t.Helper()
	require.NoError(t, a.err)
	require.Equal(t, 404, a.code, "%s", a.body)
	require.Empty(t, a.header.Get("Location"))
	require.JSONEq(t, `{"error":"not found","reason":"NotFound"}`, string(a.body))
}
