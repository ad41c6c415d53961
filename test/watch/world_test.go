package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/registry"
)

func TestMain(m *testing.M) { controlplane.Main(m) }

const (
	ignition = `{"ignition":{"version":"3.4.0"}}`
	bmcUser  = "operator"
	bmcPass  = "a-password-of-a-bmc"
)

// world is two replicas of the operator, and what they need: a control plane, a
// registry, BMCs, a collector of traces.
type world struct {
	t         *testing.T
	client    client.Client
	namespace string
	dir       string
	image     string
	images    *registry.Server
	traces    *traces
	replicas  []*replica
	ca        *lab.CA
}

// replica is one operator.
type replica struct {
	name, boot, tls, metrics, probes string
	log                              buffer
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: machines connect from addresses of 127.0.0.0/8, which only Linux has")
	}
	config := controlplane.Start(t)
	crds, err := controlplane.Metal3CRDs()
	require.NoError(t, err)
	_, err = envtest.InstallCRDs(config, crds)
	require.NoError(t, err)
	require.NoError(t, v1alpha1.AddToScheme(scheme.Scheme))
	require.NoError(t, metal3.AddToScheme(scheme.Scheme))
	c, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	require.NoError(t, err)
	w := &world{t: t, client: c, namespace: controlplane.Namespace(t, config), dir: t.TempDir(), traces: newTraces(t), ca: lab.NewCA(t, "watch")}
	w.images, err = registry.Serve("127.0.0.1:0", registry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.images.Close() })
	uki, err := demoimage.Greeting("amd64", "hello\n")
	require.NoError(t, err)
	_, err = w.images.Publish("os/image", "1", map[string][]byte{"amd64": uki})
	require.NoError(t, err)
	w.image = w.images.Host + "/os/image:1"
	w.startReplicas("a", "b")
	return w
}

func (w *world) file(name string, content []byte) string {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	require.NoError(w.t, os.WriteFile(file, content, 0o600))
	return file
}

// startReplicas starts operators and waits until all are ready.
func (w *world) startReplicas(names ...string) {
	w.t.Helper()
	kubeconfig, err := controlplane.Shared(w.t).UserKubeconfig("watched-operator", "system:masters")
	require.NoError(w.t, err)
	certificate, key := w.ca.Issue("127.0.0.1")
	shared := []string{
		"--kubeconfig=" + w.file("kubeconfig", kubeconfig), "--namespace=" + w.namespace, "--claim-namespaces=" + w.namespace, "--leader-elect",
		"--allowed-registries=" + w.images.Host, "--plain-http-registries=" + w.images.Host, "--resolve-interval=10s",
		"--tls-cert-file=" + w.file("tls.crt", certificate), "--tls-key-file=" + w.file("tls.key", key), "--image-proxy-server-address=0",
		"--baremetalhost-mode=drive", "--bmc-ca-file=" + w.file("bmc-ca.pem", w.ca.PEM), "--bmc-power-interval=3s",
		"--otlp-endpoint=" + w.traces.URL, "--drain-delay=0s", "--metrics-secure=false",
	}
	binary := w.build()
	for _, name := range names {
		r := &replica{name: name, boot: freeAddress(w.t), tls: freeAddress(w.t), metrics: freeAddress(w.t), probes: freeAddress(w.t)}
		w.replicas = append(w.replicas, r)
	}
	shared = append(shared, "--ipxe-service-url=http://"+w.replicas[0].boot, "--bmc-boot-url=http://"+w.replicas[0].boot)
	for _, r := range w.replicas {
		w.run(&r.log, binary, append(shared[:len(shared):len(shared)], "--artifact-dir="+filepath.Join(w.dir, "store-"+r.name), "--boot-server-address="+r.boot,
			"--boot-server-tls-address="+r.tls, "--metrics-bind-address="+r.metrics, "--health-probe-bind-address="+r.probes)...)
	}
	for _, r := range w.replicas {
		w.eventually("replica "+r.name+" is ready", func() bool {
			answer, err := http.Get("http://" + r.probes + "/readyz")
			if err != nil {
				return false
			}
			defer func() { _ = answer.Body.Close() }()
			return answer.StatusCode == http.StatusOK
		})
	}
}

func (w *world) build() string {
	w.t.Helper()
	binary := filepath.Join(w.dir, "boot-operator")
	build := exec.CommandContext(w.t.Context(), "go", "build", "-o", binary, "./cmd/boot-operator")
	build.Dir = path(w.t, ".")
	out, err := build.CombinedOutput()
	require.NoError(w.t, err, string(out))
	return binary
}

// run runs a program until the test ends.
func (w *world) run(log *buffer, program string, args ...string) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 15 * time.Second
	require.NoError(w.t, cmd.Start())
	w.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if w.t.Failed() {
			text := log.String()
			w.t.Logf("%s said, at the end:\n%s", filepath.Base(program), text[max(0, len(text)-4000):])
		}
	})
}

func (w *world) eventually(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within 90 seconds: %s", what)
		}
	}
}

func (w *world) create(objects ...client.Object) {
	w.t.Helper()
	for _, o := range objects {
		o.SetNamespace(w.namespace)
		require.NoError(w.t, w.client.Create(w.t.Context(), o))
	}
}

// machine is one that boots over HTTP from an address of its own.
type machine struct {
	w             *world
	name, address string
	config        *v1alpha1.HTTPBootConfig
}

// machine creates the config of a machine and waits until it is ready.
func (w *world) machine(n int, change ...func(*v1alpha1.HTTPBootConfig)) *machine {
	w.t.Helper()
	m := w.declare(n, change...)
	w.eventually(m.name+" is ready", func() bool {
		err := w.client.Get(w.t.Context(), client.ObjectKeyFromObject(m.config), m.config)
		return err == nil && meta.IsStatusConditionTrue(m.config.Status.Conditions, v1alpha1.ConditionReady)
	})
	return m
}

func (w *world) declare(n int, change ...func(*v1alpha1.HTTPBootConfig)) *machine {
	w.t.Helper()
	m := &machine{w: w, name: fmt.Sprintf("machine-%d", n), address: fmt.Sprintf("127.0.1.%d", n)}
	m.config = &v1alpha1.HTTPBootConfig{
		ObjectMeta: metav1.ObjectMeta{Name: m.name},
		Spec:       v1alpha1.HTTPBootConfigSpec{Image: w.image, NetworkIdentifiers: []string{m.address}, IgnitionSecretRef: &corev1.LocalObjectReference{Name: m.name}},
	}
	for _, c := range change {
		c(m.config)
	}
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: m.name}, StringData: map[string]string{"ignition": ignition}}, m.config)
	return m
}

// from is a client whose requests come from an address.
func from(address string) *http.Client {
	dial := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 5 * time.Second}
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: dial.DialContext, DisableKeepAlives: true}}
}

// boot fetches the UKI from one replica, and Ignition from another one.
func (m *machine) boot(uki, document *replica) error {
	if err := m.fetch("http://" + uki.boot + "/httpboot"); err != nil {
		return err
	}
	return m.fetch("http://" + document.boot + "/ignition")
}

// fetch asks, again while it is told to come later, as iPXE scripts and Ignition do.
func (m *machine) fetch(url string) error {
	client := from(m.address)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		code, err := get(client, url)
		if err == nil && code == http.StatusOK {
			return nil
		}
		if time.Now().After(deadline) || err == nil && code != http.StatusServiceUnavailable {
			return fmt.Errorf("%s of %s: %d, %w", url, m.name, code, err)
		}
	}
}

func get(client *http.Client, url string) (code int, err error) {
	answer, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, errors.Join(err, answer.Body.Close())
}

// host creates a BareMetalHost whose machine fetches what its BMC was told, and has it
// boot. With a wrong password its BMC refuses everything.
func (w *world) host(n int, password string) {
	w.t.Helper()
	name, address := fmt.Sprintf("host-%d", n), fmt.Sprintf("127.0.2.%d", n)
	firmware := bmcsim.NewMemoryMachine(func(next bmcsim.NextBoot) {
		if next.Kind == bmcsim.KindHTTP {
			go func() {
				m := &machine{w: w, name: name, address: address}
				if err := errors.Join(m.fetch(next.URL), m.fetch("http://"+w.replicas[0].boot+"/ignition")); err != nil {
					w.t.Log("a host's machine:", err)
				}
			}()
		}
	}, bmcsim.BootOption{Reference: "Boot0000", Name: "Disk", Kind: bmcsim.KindDisk}, bmcsim.BootOption{Reference: "Boot0001", Name: "UEFI HTTPv4", Kind: bmcsim.KindHTTP})
	mac := fmt.Sprintf("52:54:00:77:00:%02x", n)
	sim, err := bmcsim.New(bmcsim.Options{
		Profile: "generic", Machine: firmware, UUID: fmt.Sprintf("00112233-4455-6677-8899-%012x", n), Username: bmcUser, Password: bmcPass,
		Hardware: bmcsim.Hardware{NICs: []bmcsim.NIC{{MAC: mac}}},
	})
	require.NoError(w.t, err)
	server := httptest.NewUnstartedServer(sim)
	server.TLS = w.ca.ServerConfig("127.0.0.1")
	server.StartTLS()
	w.t.Cleanup(func() { server.Close(); sim.Close() })
	format := "live-iso"
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Name: name}}
	h.Spec.BMC = metal3.BMCDetails{Address: "redfish://" + server.Listener.Addr().String() + sim.SystemPath(), CredentialsName: name + "-bmc"}
	h.Spec.BootMACAddress, h.Spec.Online = mac, true
	h.Spec.Image, h.Spec.UserData = &metal3.Image{URL: "oci://" + w.image, DiskFormat: &format}, &corev1.SecretReference{Name: name}
	w.create(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name + "-bmc"}, StringData: map[string]string{"username": bmcUser, "password": password}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"value": ignition, "format": "ignition"}}, h)
}

// traces is a collector of traces.
type traces struct {
	*httptest.Server
	mu    sync.Mutex
	spans map[string][]string // names by trace
	raw   bytes.Buffer
}

func newTraces(t *testing.T) *traces {
	t.Helper()
	c := &traces{spans: map[string][]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 16<<20))
		var request collector.ExportTraceServiceRequest
		if proto.Unmarshal(body, &request) != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(body)
		for _, rs := range request.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					c.spans[fmt.Sprintf("%x", s.TraceId)] = append(c.spans[fmt.Sprintf("%x", s.TraceId)], s.Name)
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// of returns the names of the spans of one boot.
func (c *traces) of(boot string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.spans[boot]...)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
