//go:build linux

package badinput

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// TestEveryMistakeAtOnce makes every mistake at once, to one operator, and holds that each
// is told where it was made and nowhere else.
func TestEveryMistakeAtOnce(t *testing.T) {
	s := newSite(t)
	uki, arm64UKI := s.uki("amd64", 16<<20), s.uki("arm64", 0)
	image := s.publish(s.good, "os/image", map[string][]byte{"amd64": uki, "arm64": arm64UKI})
	healthy := s.machine("healthy", image) // s.objects[1]
	kernel, kernelDigest := s.kernel("os/kernel")
	script := s.scripted("script", kernel) // s.objects[2]
	bad := make([]machine, len(badConfigs))
	for i, c := range badConfigs {
		bad[i] = s.machine(c.name, s.good.Host+"/os/image:1")
		c.make(s, bad[i])
	}
	small := s.publish(s.good, "os/small", map[string][]byte{"amd64": s.uki("amd64", 1<<20)})
	damaged, tokened, cancelled := s.machine("damaged", small), s.machine("tokened", image), s.machine("cancelled", image)
	arm64 := s.machine("arm64", image)
	arm64.Spec.Architecture = v1alpha1.ArchitectureARM64
	key := bytes.Repeat([]byte("k"), 32)
	scripts := make([]scripted, len(badScripts))
	for i, b := range badScripts {
		scripts[i] = s.scripted(b.name, kernel)
		b.make(s, &scripts[i].Spec)
	}
	hostile, nics, byToken := s.scripted("hostile", ""), s.scripted("two-nics", kernel), s.scripted("by-token", kernel)
	makeHostile(&hostile.Spec)
	nics.Spec.NetworkIdentifiers = []string{"52:54:00:ac:00:01", "52-54-00-AC-00-01", "5254.00ac.0001", "525400AC0001", "52:54:00:ac:00:02", nics.address}
	s.create(s.objects[:3]...)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tokens"}, Data: map[string][]byte{"key-1": key}})
	s.start("--token-secret=tokens")
	s.shows(t, "healthy", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	s.showsOf(t, script.IPXEBootConfig, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	requireHealthy := func(t *testing.T) {
		t.Helper()
		require.Contains(t, s.script(t, stranger, "/ipxe/"+script.mac), "/"+kernelDigest+"/vmlinuz ")
		a := s.get(healthy.address, "/httpboot")
		require.NoError(t, a.err)
		require.Equal(t, 200, a.code, "%.300s", a.body)
		require.Equal(t, "application/efi", a.header.Get("Content-Type"))
		require.Equal(t, digestOf(uki), a.digest())
	}
	requireHealthy(t)
	s.create(s.objects[3:]...)
	tokens := s.useTokens(t, tokened, key) // first, while the log lets refusals through
	tokens = append(tokens, s.useScriptToken(t, byToken, key)...)
	idle := s.holdHeads(t)

	for i, c := range badConfigs {
		t.Run(c.name, func(t *testing.T) { c.check(t, s, bad[i]); requireHealthy(t) })
	}
	for i, b := range badScripts {
		t.Run(b.name, func(t *testing.T) { b.check(t, s, scripts[i]); requireHealthy(t) })
	}
	for _, r := range append(badRequests, badNames...) {
		t.Run(r.name, func(t *testing.T) { r.check(t, s, healthy); requireHealthy(t) })
	}
	t.Run("two-architectures-of-one-index", func(t *testing.T) {
		s.shows(t, "arm64", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
		require.Equal(t, digestOf(arm64UKI), s.get(arm64.address, "/httpboot").digest())
		requireHealthy(t)
	})
	t.Run("refused-by-the-API-server", func(t *testing.T) { s.requireRefusedByTheAPIServer(t); requireHealthy(t) })
	t.Run("hostile-in-every-field", func(t *testing.T) { s.requireHarmless(t, hostile, script); requireHealthy(t) })
	t.Run("two-NICs-in-five-notations", func(t *testing.T) { s.requireOneMachine(t, nics, kernelDigest); requireHealthy(t) })
	t.Run("truncated-on-disk", func(t *testing.T) { s.truncate(t, damaged); requireHealthy(t) })
	t.Run("cancelled-download", func(t *testing.T) { s.cancel(t, cancelled); requireHealthy(t) })
	t.Run("slow-client", func(t *testing.T) { idle(t); requireHealthy(t) })
	t.Run("nothing-secret-is-told", func(t *testing.T) { s.requireSilence(t, tokens) })
	t.Run("metrics-name-nobody", func(t *testing.T) { s.requireAnonymousMetrics(t) })
	require.Equal(t, 1, s.good.Count("GET", digestOf(uki)), "all these boots, of three machines, are one pull")
	t.Run("asked-to-stop", func(t *testing.T) { s.stop(t, healthy, digestOf(uki)) })
}

// truncate damages a blob on disk behind the operator's back: no machine gets
// half of it for the whole.
func (s *site) truncate(t *testing.T, m machine) {
	s.shows(t, m.Name, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	whole := s.get(m.address, "/httpboot")
	require.Equal(t, 200, whole.code)
	path := filepath.Join(s.dir, "state", "artifacts", "blobs", "sha256", strings.TrimPrefix(whole.digest(), "sha256:"))
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.Truncate(path, int64(len(whole.body)/2)))
	require.Eventually(t, func() bool {
		a := s.get(m.address, "/httpboot")
		if a.code == 200 && a.err == nil {
			require.Equal(t, whole.digest(), a.digest(), "a damaged blob was served as the whole")
			return true
		}
		return false
	}, patience, 200*time.Millisecond, "the blob is pulled again")
}

// cancel leaves in the middle of a download.
func (s *site) cancel(t *testing.T, m machine) {
	s.shows(t, m.Name, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	c := s.dial(t, m.address)
	require.NoError(t, c.SetReadBuffer(4096))
	_, err := fmt.Fprintf(c, "GET /httpboot HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 4096))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	s.shows(t, m.Name, v1alpha1.ConditionUKIFetched, metav1.ConditionFalse, v1alpha1.ReasonUKIDeliveryIncomplete)
	require.Equal(t, 200, s.get(m.address, "/httpboot").code)
	s.shows(t, m.Name, v1alpha1.ConditionUKIFetched, metav1.ConditionTrue, v1alpha1.ReasonUKIDelivered)
}

// holdHeads opens connections whose requests never end, and returns what waits
// until the server has closed them.
func (s *site) holdHeads(t *testing.T) func(*testing.T) {
	var idle []*net.TCPConn
	for range 50 {
		c := s.dial(t, "127.9.255.2")
		_, err := c.Write([]byte("GET /httpboot HTTP/1.1\r\nHost: "))
		require.NoError(t, err)
		idle = append(idle, c)
	}
	return func(t *testing.T) {
		for _, c := range idle {
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			_, err := c.Read(make([]byte, 1))
			require.Error(t, err)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server holds on to a request that never ends")
		}
	}
}

// stop asks the operator to end in the middle of a transfer, which finishes.
func (s *site) stop(t *testing.T, m machine, digest string) {
	c := s.dial(t, m.address)
	require.NoError(t, c.SetReadBuffer(256<<10))
	_, err := fmt.Fprintf(c, "GET /httpboot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.NoError(t, s.process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { return s.get(stranger, "/httpboot").err != nil }, patience, 20*time.Millisecond, "it accepts no more")
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, digest, digestOf(body))
	select {
	case err := <-s.ended:
		require.NoError(t, err, "its exit code")
	case <-time.After(patience):
		t.Fatal("the operator does not end")
	}
}

// useTokens uses tokens in every way that is right, and in some that are wrong,
// and returns them.
func (s *site) useTokens(t *testing.T, m machine, key []byte) []string {
	t.Helper()
	s.shows(t, m.Name, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	var cfg v1alpha1.HTTPBootConfig
	require.NoError(t, s.client.Get(context.Background(), keyOf(m), &cfg))
	ring, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: key})
	require.NoError(t, err)
	mint := func(audience boot.Audience, valid time.Duration) string {
		token, err := ring.Mint(boot.Token{Object: boot.UUID(cfg.UID), Attempt: cfg.Status.Boot.Attempt, Audience: audience, Proof: boot.Proxy, Expires: time.Now().Add(valid)})
		require.NoError(t, err)
		return token
	}
	secret, bytes, expired := mint(boot.AudienceSecret, time.Hour), mint(boot.AudienceBoot, time.Hour), mint(boot.AudienceSecret, -time.Hour)
	const stranger = "127.9.255.3" // of whom nothing else is in the log
	require.Eventually(t, func() bool { return s.get(stranger, "/httpboot?token="+bytes).code == 200 }, patience, 100*time.Millisecond, "the keys are read")
	require.Contains(t, string(s.get(stranger, "/ignition?token="+secret).body), marker)
	require.Equal(t, 200, s.get(stranger, "/httpboot/t/"+bytes+"/os.efi").code)
	require.Equal(t, 200, s.get(stranger, "/httpboot/t/"+bytes+"/os.efi").code, "firmware tries again")
	require.Equal(t, 200, s.get(m.address, "/httpboot").code, "the machine boots again, by its address")
	require.Eventually(t, func() bool { return s.get(stranger, "/httpboot/t/"+bytes+"/os.efi").code == 404 }, patience, 100*time.Millisecond, "a new attempt revokes it")
	for _, path := range []string{
		"/ignition?token=" + bytes, "/ignition?token=" + expired, "/ignition/" + secret, "/ignition/" + cfg.Spec.SystemUUID + "?token=" + expired,
		"/httpboot?token=" + secret, "/httpboot?token=" + bytes + "&token=" + secret, "/httpboot/t/" + bytes, "/httpboot/t//" + bytes + "/x.efi", "/httpboot/T/" + bytes + "/x.efi",
		"/httpboot/" + bytes + ".efi", "/httpboot/t/x" + bytes + "/../os.efi", "/images/" + bytes + "/os.efi", "/images/sha256:" + bytes + "/os.efi", "/image?layerDigest=" + bytes,
		"/" + bytes, "/a" + bytes + "b/" + secret, "/%74/" + bytes, "/httpboot/t/" + strings.ToLower(bytes) + "/x.efi",
	} {
		a := s.get(stranger, path, "Referer", "http://x/?token="+secret, "User-Agent", secret, "X-Forwarded-For", bytes, "Range", bytes, "If-None-Match", bytes)
		require.NoError(t, a.err)
		require.Equal(t, 404, a.code, "%s: %s", path, a.body)
		require.NotContains(t, string(a.body), secret)
	}
	return []string{secret, bytes, expired}
}
