package httpserver

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Known defect 22.
func TestSlowHeadsAreCutOff(t *testing.T) {
	w := newWorld(t)
	srv, err := w.server.httpServer(w.server.BootHandler(), ServeOptions{})
	require.NoError(t, err)
	require.Equal(t, headerTimeout, srv.ReadHeaderTimeout)
	require.NotZero(t, srv.IdleTimeout)
	require.NotZero(t, srv.WriteTimeout)

	// The same with a shorter time, over a socket.
	srv.ReadHeaderTimeout = 50 * time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	_, err = conn.Write([]byte("GET /httpboot HTTP/1.1\r\nHost: "))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = io.ReadAll(conn)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server did not cut a slow head off")
	require.Equal(t, 200, get(t, "http://"+ln.Addr().String()+"/httpboot").StatusCode, "the control")
}

func TestSlowBodiesDoNotHoldAnAnswerBack(t *testing.T) {
	w := newWorld(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.bootServer(), "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte("POST /httpboot HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow"))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*bodyTimeout)))
	answer, err := io.ReadAll(conn)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection was held")
	require.Contains(t, string(answer), "405 Method Not Allowed")
	require.Contains(t, string(answer), "Connection: close")
}

func TestAHugeHeadIsRefused(t *testing.T) {
	w := newWorld(t)
	base := w.bootServer()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	go func() {
		_, _ = conn.Write([]byte("GET /httpboot HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: "))
		line := []byte(strings.Repeat("10.0.0.1, ", 1000))
		for range 1000 { // 10 MB
			if _, err := conn.Write(line); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
	} else {
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded) // cut while it was still writing
	}
	require.Equal(t, 200, get(t, base+"/httpboot", "X-Other", strings.Repeat("x", 8000)).StatusCode, "the control")
}

func TestAClientThatStopsReadingIsCutOff(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.data = randomBytes(32 << 20)
		w.plan.Artifacts = []boot.Artifact{w.blobs.add(w.t, w.data)}
	})
	deadlines := make(chan time.Time, 1000)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		_ = w.server.Serve(t.Context(), &deadlineListener{ln, deadlines}, w.server.BootHandler(), ServeOptions{DrainTime: time.Millisecond})
	}()
	resp, err := client(addrA).Get("http://" + ln.Addr().String() + "/httpboot")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	// It reads nothing; its time is shortened by the listener, as if it had passed.
	eventually(t, "the cut delivery's observation", func() bool {
		o := w.attempts.observed(boot.StageUKI)
		return len(o) == 1 && !o[0].Complete
	})
	require.NotEmpty(t, deadlines, "chunks have deadlines")
}

// deadlineListener makes every write deadline a short one.
type deadlineListener struct {
	net.Listener
	seen chan time.Time
}

func (l *deadlineListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &deadlineConn{c.(*net.TCPConn), l.seen}, nil
}

type deadlineConn struct {
	*net.TCPConn
	seen chan time.Time
}

func (c *deadlineConn) SetWriteDeadline(at time.Time) error {
	if at.IsZero() {
		return c.TCPConn.SetWriteDeadline(at)
	}
	c.seen <- at
	return c.TCPConn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
}

func TestShutdownLetsTransfersFinish(t *testing.T) {
	gate := make(chan struct{})
	w := newWorld(t, func(w *world) {
		w.blobs.wrap = func(b boot.Blob) boot.Blob {
			return &arriving{Blob: b, before: func(pos int64) error {
				if pos >= 100_000 {
					<-gate
				}
				return nil
			}}
		}
	})
	start := func(drain time.Duration) (string, context.CancelFunc, chan error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.server.Serve(ctx, ln, w.server.BootHandler(), ServeOptions{DrainTime: drain}) }()
		return "http://" + ln.Addr().String() + "/httpboot", cancel, done
	}
	url, cancel, done := start(10 * time.Second)
	resp, err := client(addrA).Get(url)
	require.NoError(t, err)
	cancel()
	eventually(t, "the end of accepting", func() bool { return get(t, url).err != nil })
	close(gate)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, w.data, body)
	require.NoError(t, <-done)

	// The control: a transfer that takes longer than the drain time is cut.
	gate = make(chan struct{})
	url, cancel, done = start(20 * time.Millisecond)
	resp, err = client(addrA).Get(url)
	require.NoError(t, err)
	cancel()
	require.NoError(t, <-done)
	close(gate)
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
}

func TestAPanicEndsOneRequestOnly(t *testing.T) {
	w := newWorld(t)
	w.source.broken = nil
	base := w.bootServer()
	w.blobs.wrap = func(boot.Blob) boot.Blob { panic("a defect") }
	a := get(t, base+"/httpboot")
	require.Equal(t, 500, a.StatusCode)
	require.JSONEq(t, `{"error":"internal error","reason":"Internal"}`, string(a.body))
	w.blobs.wrap = func(b boot.Blob) boot.Blob {
		return &arriving{Blob: b, before: func(pos int64) error {
			if pos > 50_000 {
				panic("a defect in the middle")
			}
			return nil
		}}
	}
	a = get(t, base+"/httpboot")
	require.Error(t, a.err, "half a blob is never a whole answer")
	w.blobs.wrap = nil
	require.Equal(t, 200, get(t, base+"/httpboot").StatusCode)
	require.InEpsilon(t, 2, testutil.ToFloat64(w.server.metrics.panics), 0)
	require.Contains(t, w.log.String(), "a defect in the middle")
}

func TestConnectionsAreBounded(t *testing.T) {
	w := newWorld(t)
	base := w.serve(w.server.BootHandler(), ServeOptions{MaxPerClient: 2})
	hold := func() net.Conn {
		c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		require.NoError(t, err)
		return c
	}
	one, two := hold(), hold()
	defer func() { _ = two.Close() }()
	eventually(t, "two connections", func() bool { return testutil.ToFloat64(w.server.metrics.conns) == 2 })
	require.Error(t, get(t, base+"/httpboot").err)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/httpboot").StatusCode, "others are served")
	_ = one.Close()
	eventually(t, "service again", func() bool { return get(t, base+"/httpboot").StatusCode == 200 })
}

func TestProxyProtocol(t *testing.T) {
	w := newWorld(t, func(w *world) { w.options.ProxyProtocolFrom = []netip.Prefix{netip.PrefixFrom(addrC, 32)} })
	host := strings.TrimPrefix(w.bootServer(), "http://")
	request := "GET /ignition HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	header := func(version byte, change func(*proxyproto.Header)) string {
		h := proxyproto.HeaderProxyFromAddrs(version, &net.TCPAddr{IP: net.ParseIP("127.0.0.1"), Port: 7}, &net.TCPAddr{IP: net.ParseIP("127.0.0.9"), Port: 80})
		if change != nil {
			change(h)
		}
		b, err := h.Format()
		require.NoError(t, err)
		return string(b)
	}
	for _, c := range []struct {
		name, send string
		from       netip.Addr
		code       int // 0: no answer
	}{
		{"from a trusted balancer", header(2, nil) + request, addrC, 200},
		{"from anyone else", header(2, nil) + request, addrB, 400},
		{"from the machine itself", request, addrA, 200},
		{"version 1", header(1, nil) + request, addrC, 0},
		{"a balancer's own check", header(2, func(h *proxyproto.Header) { h.Command = proxyproto.LOCAL }) + request, addrC, 404},
		{"no header where one must be", request, addrC, 0},
		{"UDP", header(2, func(h *proxyproto.Header) {
			h.TransportProtocol = proxyproto.UDPv4
			h.SourceAddr, h.DestinationAddr = &net.UDPAddr{IP: net.ParseIP("127.0.0.1")}, &net.UDPAddr{IP: net.ParseIP("127.0.0.9")}
		}) + request, addrC, 0},
		{"a header that is cut", header(2, nil)[:20], addrC, 0},
		{"a family without a protocol", strings.Replace(header(2, nil), "\x21\x11", "\x21\x10", 1) + request, addrC, 0},
		{"an unspecified family", "\r\n\r\n\x00\r\nQUIT\n\x21\x01\x00\x00" + request, addrC, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.from, 0))}
			conn, err := d.Dial("tcp", host)
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
			_, err = conn.Write([]byte(c.send))
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if c.code == 0 {
				if err == nil {
					require.Equal(t, 400, resp.StatusCode)
				}
				require.False(t, errors.Is(err, os.ErrDeadlineExceeded))
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.code, resp.StatusCode)
		})
	}
	eventually(t, "two deliveries", func() bool { return len(w.attempts.observed(boot.StageIgnition)) == 2 })
}

// certificateFiles writes a new self-signed certificate.
func certificateFiles(t *testing.T, dir string, serial int64, ec bool) (TLSOptions, *x509.CertPool) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "boot"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1")}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
	}
	var key, public any
	if ec {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		key, public = k, &k.PublicKey
	} else {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		key, public = k, &k.PublicKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	o := TLSOptions{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	require.NoError(t, os.WriteFile(o.CertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(o.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	at := time.Unix(1_700_000_000+serial, 0)
	require.NoError(t, os.Chtimes(o.CertFile, at, at))
	pool := x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool.AddCert(cert)
	return o, pool
}

func askTLS(t *testing.T, url string, c *tls.Config, headers ...string) answer {
	t.Helper()
	cl := &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	r, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := cl.Do(r)
	if err != nil {
		return answer{Response: &http.Response{}, err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return answer{Response: resp, body: body, err: err}
}

func TestTLS(t *testing.T) {
	w := newWorld(t)
	files, pool := certificateFiles(t, t.TempDir(), 1, false)
	base := w.serve(w.server.BootHandler(), ServeOptions{Name: "https", TLS: &files})
	modern := &tls.Config{RootCAs: pool}
	// What OVMF offers.
	old := &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}

	a := askTLS(t, base+"/httpboot", old)
	require.NoError(t, a.err, "old EDK2 has nothing but RSA key exchange")
	require.Equal(t, w.data, a.body)
	require.Equal(t, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, a.TLS.CipherSuite)

	// Given the choice, forward secrecy comes first, whatever the client prefers.
	both := &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	require.Equal(t, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, askTLS(t, base+"/httpboot", both).TLS.CipherSuite)

	// No secret over RSA key exchange.
	a = askTLS(t, base+"/ignition", old)
	require.Equal(t, 403, a.StatusCode)
	require.Contains(t, string(a.body), "WeakKeyExchange")
	require.Equal(t, 404, askTLS(t, base+"/ignition/"+string(uuidB), old).StatusCode)
	require.Empty(t, w.attempts.observed(boot.StageIgnition))
	require.NotContains(t, string(askTLS(t, base+"/httpboot", old, "Accept", "application/json").body), string(uuidA))
	require.Contains(t, string(askTLS(t, base+"/httpboot", modern, "Accept", "application/json").body), string(uuidA), "the control")
	require.Equal(t, 200, askTLS(t, base+"/ignition", modern).StatusCode, "the control")

	// A claim over it looks like a stranger's.
	w.plan.MinimumProof = boot.Claimed
	w.source.cluster = []netip.Addr{addrA}
	require.Equal(t, 404, askTLS(t, base+"/ignition/"+string(uuidA), old).StatusCode)

	// HTTP/2 would take the kernel's sending away.
	h2 := &tls.Config{RootCAs: pool, NextProtos: []string{"h2", "http/1.1"}}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(base, "https://"), h2)
	require.NoError(t, err)
	require.Equal(t, "http/1.1", conn.ConnectionState().NegotiatedProtocol)
	_ = conn.Close()
}

func TestTLSFailuresSayWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	files, pool := certificateFiles(t, t.TempDir(), 1, false)
	base := w.serve(w.server.BootHandler(), ServeOptions{Name: "https", TLS: &files})
	for name, c := range map[string]*tls.Config{
		"BadCertificate":      {RootCAs: x509.NewCertPool()}, // Go's word for an unknown CA
		"NoCommonCipherSuite": {RootCAs: pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}},
		"OldVersion":          {RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
	} {
		require.Error(t, askTLS(t, base+"/httpboot", c).err)
		eventually(t, name, func() bool { return testutil.ToFloat64(w.server.metrics.tlsErrors.WithLabelValues(name)) > 0 })
	}
	get(t, strings.Replace(base, "https", "http", 1)+"/httpboot")
	eventually(t, "NotTLS", func() bool { return testutil.ToFloat64(w.server.metrics.tlsErrors.WithLabelValues("NotTLS")) > 0 })
	require.Contains(t, w.log.String(), "it needs an RSA key and the host of the URL")
	cause, hint := explainHandshake("remote error: tls: unknown certificate authority") // OpenSSL's, and so EDK2's
	require.Equal(t, "UnknownAuthority", cause)
	require.Contains(t, hint, "enrol it in the firmware")

	for range 50 {
		require.Error(t, askTLS(t, base, &tls.Config{RootCAs: x509.NewCertPool()}).err)
	}
	require.LessOrEqual(t, strings.Count(w.log.String(), "TLS handshake failed"), 10, "strangers cannot flood the log")
}

func TestCertificateIsReloaded(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	files, first := certificateFiles(t, dir, 1, false)
	base := w.serve(w.server.BootHandler(), ServeOptions{Name: "https", TLS: &files})
	require.NoError(t, askTLS(t, base+"/httpboot", &tls.Config{RootCAs: first}).err)

	// A pair that does not match leaves the old one in use.
	key, err := os.ReadFile(files.KeyFile)
	require.NoError(t, err)
	_, second := certificateFiles(t, dir, 2, false)
	good, err := os.ReadFile(files.KeyFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files.KeyFile, key, 0o600))
	w.clock.step(2 * certificateCheck)
	require.NoError(t, askTLS(t, base+"/httpboot", &tls.Config{RootCAs: first}).err)
	require.Contains(t, w.log.String(), "Kept the old TLS certificate")

	require.NoError(t, os.WriteFile(files.KeyFile, good, 0o600))
	at := time.Unix(1_700_000_100, 0)
	require.NoError(t, os.Chtimes(files.KeyFile, at, at))
	w.clock.step(2 * certificateCheck)
	w.server.metrics.notAfter.Reset()
	require.NoError(t, askTLS(t, base+"/httpboot", &tls.Config{RootCAs: second}).err)
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	require.NoError(t, err)
	require.InDelta(t, float64(pair.Leaf.NotAfter.Unix()), testutil.ToFloat64(w.server.metrics.notAfter), 0)
	require.Error(t, askTLS(t, base+"/httpboot", &tls.Config{RootCAs: first}).err, "the control")
}

func TestCertificateThatCannotServe(t *testing.T) {
	w := newWorld(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	err = w.server.Serve(t.Context(), ln, w.server.BootHandler(), ServeOptions{TLS: &TLSOptions{CertFile: "/does/not/exist", KeyFile: "/neither"}})
	require.ErrorIs(t, err, boot.ErrInvalid)
	require.ErrorContains(t, err, "/does/not/exist")
	_, err = net.Dial("tcp", ln.Addr().String())
	require.Error(t, err, "the listener is closed")

	files, pool := certificateFiles(t, t.TempDir(), 1, true)
	base := w.serve(w.server.BootHandler(), ServeOptions{TLS: &files})
	require.NoError(t, askTLS(t, base+"/httpboot", &tls.Config{RootCAs: pool}).err)
	require.Contains(t, w.log.String(), "most firmware will refuse it")
}
