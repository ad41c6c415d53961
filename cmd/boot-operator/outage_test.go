package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/registry"
)

func TestMain(m *testing.M) { controlplane.Main(m) }

// world is the operator as it is wired, in this process, with an API server and a
// registry that can be taken away, and a clock that can be moved.
type world struct {
	t         *testing.T
	api       client.Client
	namespace string
	proxy     *cutProxy
	registry  *cutProxy
	ahead     atomic.Int64
	parts     *parts
	base      string
	probe     string
	end       context.CancelFunc
	image     []byte
	reference string
}

// cutProxy stands before a server, and lets nothing through while that is away.
type cutProxy struct {
	*httptest.Server
	away    atomic.Bool
	refused atomic.Int64
}

func newCutProxy(t *testing.T, target string, transport http.RoundTripper, change func(http.Header)) *cutProxy {
	t.Helper()
	to, err := url.Parse(target)
	require.NoError(t, err)
	p := &cutProxy{}
	reverse := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		Transport:      transport,
		FlushInterval:  -1,
		ModifyResponse: func(r *http.Response) error { change(r.Header); return nil },
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.away.Load() {
			p.refused.Add(1)
			panic(http.ErrAbortHandler)
		}
		reverse.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *cutProxy) cut() {
	p.away.Store(true)
	p.CloseClientConnections() // watches too
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

func (w *world) step(d time.Duration) { w.ahead.Add(int64(d)) }

func newOutageWorld(t *testing.T, flags ...string) *world {
	t.Helper()
	w := &world{t: t}
	config := controlplane.Start(t)
	w.namespace = controlplane.Namespace(t, config)
	transport, err := rest.TransportFor(config)
	require.NoError(t, err)
	// The API server's clock is the one that is moved.
	w.proxy = newCutProxy(t, config.Host, transport, func(h http.Header) { h.Set("Date", w.now().UTC().Format(http.TimeFormat)) })
	w.publish()
	w.start(flags)
	w.api, err = client.New(config, client.Options{Scheme: w.parts.cluster.GetScheme()})
	require.NoError(t, err)
	return w
}

func (w *world) publish() {
	stub, err := demoimage.Greeting(uki.AMD64, "hello")
	require.NoError(w.t, err)
	w.image, err = uki.Assemble(stub, uki.Section{Name: ".cmdline", Data: []byte("quiet")}, uki.Section{Name: ".linux", Data: bytes.Repeat([]byte("kernel"), 50_000)})
	require.NoError(w.t, err)
	reg, err := registry.Serve("127.0.0.1:0", registry.Options{})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = reg.Close() })
	_, err = reg.Publish("os", "1", map[string][]byte{"amd64": w.image})
	require.NoError(w.t, err)
	w.registry = newCutProxy(w.t, "http://"+reg.Host, http.DefaultTransport, func(http.Header) {})
	w.reference = w.registry.Listener.Addr().String() + "/os:1"
}

// start runs the operator until the test ends.
func (w *world) start(flags []string) {
	before := metrics.Registry
	metrics.Registry = prometheus.NewRegistry()
	w.t.Cleanup(func() { metrics.Registry = before })
	boot, probes := freeAddress(w.t), freeAddress(w.t)
	w.base = "http://" + boot
	host := w.registry.Listener.Addr().String()
	w.probe = "http://" + probes + "/readyz"
	s, err := parse(w.t, nil, append([]string{"--artifact-dir=" + w.t.TempDir(), "--boot-server-address=" + boot, "--image-proxy-server-address=0", "--metrics-bind-address=0",
		"--health-probe-bind-address=" + probes, "--ipxe-service-url=" + w.base, "--allowed-registries=" + host, "--plain-http-registries=" + host,
		"--controllers=httpbootconfig", "--resolve-interval=10s", "--drain-delay=0s", "--drain-timeout=1s"}, flags...)...)
	require.NoError(w.t, err)
	s.namespace = w.namespace
	clock := newClusterClock(logr.Discard())
	clock.local = w.now
	cfg := &rest.Config{Host: w.proxy.URL}
	cfg.Wrap(clock.follow)
	c, err := connect(cfg, logr.Discard())
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	w.end = cancel
	w.parts, err = assemble(ctx, s, c, clock, logr.Discard())
	require.NoError(w.t, err)
	require.NoError(w.t, w.parts.ipxeTemplate.Start(ctx))
	ended := make(chan error, 1)
	go func() { ended <- w.parts.run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			require.NoError(w.t, err)
		case <-time.After(30 * time.Second):
			w.t.Error("the operator did not end")
		}
		require.NoError(w.t, errors.Join(w.parts.observer.Close(), w.parts.store.Close()))
	})
	w.eventually("readiness", func() bool { code, _ := w.readyz(""); return code == 200 })
}

func (w *world) readyz(query string) (int, string) {
	resp, err := http.Get(w.probe + query)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return resp.StatusCode, string(text)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	w.t.Fatalf("%s did not come", what)
}

// machine is one at an address of its own.
type machine struct {
	w      *world
	name   string
	client *http.Client
	// boots counts those that delivered everything.
	boots int64
}

func (w *world) machine(name, addr string, policy v1alpha1.BootPolicy) *machine {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Data: map[string][]byte{v1alpha1.SecretKeyIgnition: ignitionOf(name)}}
	require.NoError(w.t, w.api.Create(w.t.Context(), secret))
	cfg := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	cfg.Spec.Image, cfg.Spec.BootPolicy = w.reference, policy
	cfg.Spec.NetworkIdentifiers = []string{addr}
	cfg.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: name}
	require.NoError(w.t, w.api.Create(w.t.Context(), cfg))
	m := &machine{w: w, name: name, client: clientAt(netip.MustParseAddr(addr))}
	w.eventually(name+" to be ready", func() bool {
		cfg := m.config()
		return cfg.Status.State == v1alpha1.StateReady && cfg.Status.Boot != nil && cfg.Status.Boot.Attempt > 0
	})
	return m
}

func ignitionOf(name string) []byte {
	return fmt.Appendf(nil, `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/hostname","contents":{"source":"data:,%s"}}]}}`, name)
}

func clientAt(addr netip.Addr) *http.Client {
	d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)), Timeout: 5 * time.Second}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}, Timeout: 20 * time.Second}
}

func (m *machine) config() *v1alpha1.HTTPBootConfig {
	m.w.t.Helper()
	var cfg v1alpha1.HTTPBootConfig
	require.NoError(m.w.t, m.w.api.Get(m.w.t.Context(), client.ObjectKey{Namespace: m.w.namespace, Name: m.name}, &cfg))
	return &cfg
}

func (m *machine) get(path string) (int, []byte) {
	m.w.t.Helper()
	resp, err := m.client.Get(m.w.base + path)
	require.NoError(m.w.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(m.w.t, err)
	return resp.StatusCode, body
}

// boot boots as a machine does, and makes sure that what it gets is its own.
func (m *machine) boot() {
	m.w.t.Helper()
	code, body := m.get("/httpboot")
	require.Equal(m.w.t, 200, code, "%s: %s", m.name, body)
	require.True(m.w.t, bytes.Equal(m.w.image, body), m.name)
	code, body = m.get("/ignition")
	require.Equal(m.w.t, 200, code, "%s: %s", m.name, body)
	require.JSONEq(m.w.t, string(ignitionOf(m.name)), string(body))
	m.boots++
}

// told waits until the object tells of the last boot.
func (m *machine) told() {
	m.w.t.Helper()
	m.w.eventually("the news of "+m.name, func() bool {
		b := m.config().Status.Boot
		complete := map[v1alpha1.BootStageName]bool{}
		for _, s := range b.Stages {
			complete[s.Name] = s.Attempt == b.Attempt && s.CompletedTime != nil
		}
		return b.Attempt == m.boots && complete["UKI"] && complete["Ignition"]
	})
}

// For an hour there is neither an API server nor a registry. Machines that live by
// the network go on booting; what was spent stays spent; and nothing that happened is
// lost.
func TestMachinesBootThroughAnHourWithoutAPIServerAndRegistry(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short")
	}
	w := newOutageWorld(t)
	diskless := w.machine("diskless", "127.0.77.1", v1alpha1.BootPolicyAlways)
	rare := w.machine("rare", "127.0.77.2", v1alpha1.BootPolicyAlways)
	installed := w.machine("installed", "127.0.77.3", v1alpha1.BootPolicyOnce)
	fresh := w.machine("fresh", "127.0.77.4", v1alpha1.BootPolicyOnce)
	never := w.machine("never", "127.0.77.5", v1alpha1.BootPolicyAlways)
	for _, m := range []*machine{diskless, rare, installed} {
		m.boot()
		m.told()
	}
	require.NoError(t, w.parts.ready())

	w.proxy.cut()
	w.registry.cut()
	for minute := 5; minute <= 60; minute += 5 {
		w.step(5 * time.Minute)
		diskless.boot()
		if minute == 50 {
			rare.boot()
		}
		code, body := installed.get("/httpboot")
		require.Equal(t, 403, code, string(body))
		require.Contains(t, string(body), "AttemptSpent")
		code, body = installed.get("/ignition")
		require.NotEqual(t, 200, code, "its attempt is over")
		require.NotContains(t, string(body), "hostname")
		require.NoError(t, w.parts.ready(), "an outage of everybody's API server takes no replica away")
	}
	// What cannot be known is never said to be wrong: it is asked for later.
	code, _ := never.get("/httpboot")
	require.Equal(t, 200, code)
	code, body := never.get("/ignition")
	require.Equal(t, 503, code, "nobody read its Secret before: %s", body)
	resp, err := fresh.client.Get(w.base + "/httpboot")
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	require.Error(t, err, "Once fails closed: its end waits for a commit")
	require.Positive(t, w.proxy.refused.Load())

	w.proxy.away.Store(false)
	w.registry.away.Store(false)
	diskless.told()
	rare.told()
	spent := installed.config().Status.Boot
	require.Equal(t, int64(1), spent.Attempt)
	require.NotNil(t, spent.Served)
	code, _ = installed.get("/httpboot")
	require.Equal(t, 403, code, "a spent Once stays spent")
	w.eventually("Ignition for who waited", func() bool { code, _ := never.get("/ignition"); return code == 200 })
	w.eventually("the one delivery", func() bool { code, _ := fresh.get("/httpboot"); return code == 200 })
	diskless.boot()
	diskless.told()
}

// A replica that is told to end says so at once, and serves on until everybody has
// noticed.
func TestAnEndingReplicaSaysNoAndServesOn(t *testing.T) {
	w := newOutageWorld(t, "--drain-delay=2s")
	code, text := w.readyz("")
	require.Equal(t, 200, code)
	require.Equal(t, "ok\n", text)
	_, text = w.readyz("?verbose")
	require.Equal(t, "[+] running: ok\n[+] caches: ok\n[+] ports: ok\n[+] store: ok\n[+] token keys: ok\n[+] artifacts: ok\n", text)

	w.end()
	began := time.Now()
	w.eventually("the no", func() bool { code, text = w.readyz(""); return code == 503 })
	require.Less(t, time.Since(began), time.Second)
	require.Contains(t, text, "[-] running: this replica is ending\n")
	resp, err := http.Get(w.base + "/whoami")
	require.NoError(t, err, "new connections are still taken")
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	require.True(t, resp.Close)
	w.eventually("the end of accepting", func() bool { _, err := http.Get(w.base + "/whoami"); return err != nil })
	require.GreaterOrEqual(t, time.Since(began), 1500*time.Millisecond)
}
