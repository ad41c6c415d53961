//go:build linux

package badinput

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/registry"
	"github.com/boot-operator/boot-operator/test/transcript"
)

func TestMain(m *testing.M) { controlplane.Main(m) }

const (
	patience = 45 * time.Second
	// marker stands in every Ignition document, and nowhere else.
	marker = "xyzzy-plugh-hunter2"
	// budget of the artifact store.
	budget = 256 << 20
)

// site, whose machines are addresses of 127.0.0.0/8, is one operator process with its API server, registries and objects.
// Everything that its flags name is there before it starts.
type site struct {
	t         *testing.T
	client    client.Client
	namespace string
	dir       string

	// network is where the operator runs; nil is this host's own.
	network *lab.Network

	good    *registry.Server
	plain   []string // registries that are spoken to over plain HTTP
	secure  []string
	urls    []string
	ca      bytes.Buffer
	objects []client.Object
	names   int

	boot, images, metrics string // host:port
	log                   *transcript.Transcript
	process               *os.Process
	ended                 chan error // one value
}

func newSite(t *testing.T) *site {
	t.Helper()
	plane := controlplane.Shared(t)
	scheme := runtime.NewScheme()
	require.NoError(t, corev1.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	c, err := client.New(plane.Config, client.Options{Scheme: scheme})
	require.NoError(t, err)
	s := &site{t: t, client: c, namespace: controlplane.Namespace(t, plane.Config), dir: t.TempDir(), log: &transcript.Transcript{}}
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "kubeconfig"), plane.Kubeconfig, 0o600))
	s.good = s.serve("127.0.0.1", registry.Options{})
	s.secret("ign", map[string]string{"ignition": goodIgnition})
	return s
}

// goodIgnition is valid, and full of what nobody may be told.
const goodIgnition = `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core","passwordHash":"` + marker + `"}]},` +
	`"storage":{"files":[{"path":"/etc/token","contents":{"source":"data:,` + marker + `"}}]}}`

// serve starts a registry that the operator's flags name.
func (s *site) serve(host string, o registry.Options) *registry.Server {
	s.t.Helper()
	r, err := registry.Serve(net.JoinHostPort(host, "0"), o)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = r.Close() })
	if o.TLS {
		s.secure = append(s.secure, r.Host)
		s.ca.Write(r.CA)
	} else {
		s.plain = append(s.plain, r.Host)
	}
	return r
}

// faulty is a registry with one image, and with these faults.
func (s *site) faulty(o registry.Options, f registry.Faults) (*registry.Server, string) {
	s.t.Helper()
	r := s.serve("127.0.0.1", o)
	image := s.publish(r, "os/image", map[string][]byte{"amd64": s.uki("amd64", 1<<20)})
	r.Set(f)
	return r, image
}

// uki is a UKI like no other of the site.
func (s *site) uki(arch string, size int) []byte {
	s.t.Helper()
	s.names++
	b, err := demoimage.Padded(arch, fmt.Sprintf("image %d", s.names), size)
	require.NoError(s.t, err)
	return b
}

// publish returns the reference of an image index.
func (s *site) publish(r *registry.Server, repository string, ukis map[string][]byte) string {
	s.t.Helper()
	_, err := r.Publish(repository, "1", ukis)
	require.NoError(s.t, err)
	return r.Host + "/" + repository + ":1"
}

// publishLayer returns the reference of an image for amd64 with one layer.
func (s *site) publishLayer(repository string, l registry.Layer) string {
	s.t.Helper()
	_, err := s.good.PublishImage(repository, "1", registry.Image{Architecture: "amd64", Layers: []registry.Layer{l}})
	require.NoError(s.t, err)
	return s.good.Host + "/" + repository + ":1"
}

// machine is a config that is fine until something changes it, and the address
// that its machine has.
type machine struct {
	*v1alpha1.HTTPBootConfig
	address string
}

func (s *site) machine(name, image string) machine {
	s.names++
	m := machine{address: fmt.Sprintf("127.9.%d.%d", s.names/250, s.names%250+1)}
	m.HTTPBootConfig = &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.HTTPBootConfigSpec{
		SystemUUID:         fmt.Sprintf("00112233-4455-6677-8899-aabbccdd%04x", s.names),
		NetworkIdentifiers: []string{m.address, fmt.Sprintf("52:54:00:aa:%02x:%02x", s.names>>8, s.names&0xff)},
		Image:              image,
		IgnitionSecretRef:  &corev1.LocalObjectReference{Name: "ign"},
	}}
	s.objects = append(s.objects, m.HTTPBootConfig)
	return m
}

func (s *site) secret(name string, data map[string]string) *corev1.LocalObjectReference {
	s.objects = append(s.objects, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data})
	return &corev1.LocalObjectReference{Name: name}
}

// create creates objects in the site's namespace.
func (s *site) create(objects ...client.Object) {
	s.t.Helper()
	for _, o := range objects {
		o.SetNamespace(s.namespace)
		require.NoError(s.t, s.client.Create(context.Background(), o), "%s", o.GetName())
	}
}

// start runs the operator, and returns once it serves.
func (s *site) start(args ...string) {
	s.t.Helper()
	bin := s.build()
	require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, "ca.pem"), s.ca.Bytes(), 0o600))
	s.boot, s.images, s.metrics = freePort(s.t), freePort(s.t), freePort(s.t)
	command := exec.Command
	if s.network != nil {
		command = s.network.Command
	}
	cmd := command(bin, append([]string{
		"--kubeconfig=" + filepath.Join(s.dir, "kubeconfig"), "--namespace=" + s.namespace, "--claim-namespaces=" + s.namespace,
		"--boot-server-address=" + s.boot, "--image-proxy-server-address=" + s.images, "--image-server-url=http://" + s.images + "/httpboot",
		"--metrics-bind-address=" + s.metrics, "--health-probe-bind-address=0",
		"--artifact-dir=" + filepath.Join(s.dir, "state"), fmt.Sprintf("--artifact-max-bytes=%d", budget),
		"--allowed-registries=" + strings.Join(append(s.plain, s.secure...), ","), "--plain-http-registries=" + strings.Join(s.plain, ","),
		"--registry-ca-file=" + filepath.Join(s.dir, "ca.pem"), "--allowed-url-hosts=" + strings.Join(s.urls, ","),
		"--resolve-interval=10s", "--drain-delay=0s", "--drain-timeout=20s", "--zap-devel", "--zap-log-level=9",
	}, args...)...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.Dir = s.t.TempDir() // nothing is found because it lies where the operator was started
	cmd.Env = append(os.Environ(), "HTTP_PROXY=", "HTTPS_PROXY=", "http_proxy=", "https_proxy=", "ALL_PROXY=", "all_proxy=", "NO_PROXY=*")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(s.t, cmd.Start())
	over := make(chan struct{})
	s.process, s.ended = cmd.Process, make(chan error, 1)
	go func() { s.ended <- cmd.Wait(); close(over) }()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-over
		if s.t.Failed() {
			text := regexp.MustCompile(`(?m)^\S+\tLEVEL.*\n`).ReplaceAllString(s.log.String(), "")
			s.t.Logf("the end of the operator's log:\n%s", text[max(0, len(text)-6000):])
		}
	})
	require.Eventually(s.t, func() bool { return s.get("127.9.255.1", "/httpboot").code == 404 }, patience, 50*time.Millisecond, "the operator does not serve:\n%s", s.log)
}

func (s *site) build() string {
	s.t.Helper()
	root, err := cache.Repo()
	require.NoError(s.t, err)
	bin := filepath.Join(s.dir, "boot-operator")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/boot-operator")
	cmd.Dir = root
	said, err := cmd.CombinedOutput()
	require.NoError(s.t, err, "%s", said)
	return bin
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// answer is what a client got.
type answer struct {
	code   int
	header http.Header
	body   []byte
	err    error
}

func (a answer) digest() string { return digestOf(a.body) }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// get asks the boot server as the machine that has this address, with these
// headers, given in pairs.
func (s *site) get(from, path string, headers ...string) answer {
	req, err := http.NewRequest(http.MethodGet, "http://"+s.boot+path, nil)
	if err != nil {
		return answer{err: err}
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DialContext: s.dialFrom(from), DisableKeepAlives: true}
	c := &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return answer{code: resp.StatusCode, header: resp.Header, body: body, err: err}
}

// dialFrom connects from an address of the operator's network.
func (s *site) dialFrom(from string) func(context.Context, string, string) (net.Conn, error) {
	if s.network == nil {
		return dialerOf(from).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.network.Dial(ctx, network, address, netip.MustParseAddr(from))
	}
}

func dialerOf(from string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
}

// dial opens a connection to the boot server from an address.
func (s *site) dial(t *testing.T, from string) *net.TCPConn {
	t.Helper()
	c, err := dialerOf(from).Dial("tcp", s.boot)
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// shows waits until a condition of a config has this status and reason.
func (s *site) shows(t *testing.T, name, condition string, status metav1.ConditionStatus, reason string) metav1.Condition {
	t.Helper()
	return s.showsOf(t, &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Name: name}}, condition, status, reason)
}

// config is either kind as clients read it.
type config interface {
	v1alpha1.Config
	client.Object
}

// showsOf is shows of a config of either kind, which it reads anew.
func (s *site) showsOf(t *testing.T, cfg config, condition string, status metav1.ConditionStatus, reason string) metav1.Condition {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		require.NoError(t, s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: cfg.GetName()}, cfg))
		c := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, condition)
		if c != nil && c.Status == status && c.Reason == reason {
			return *c
		}
	}
	t.Fatalf("%s of %s is not %s/%s: %+v", condition, cfg.GetName(), status, reason, cfg.ConfigStatus().Conditions)
	return metav1.Condition{}
}

// event waits for an event about a config.
func (s *site) event(t *testing.T, name, reason, kind string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var all corev1.EventList
		if s.client.List(t.Context(), &all, client.InNamespace(s.namespace)) != nil {
			return false
		}
		for _, e := range all.Items {
			if e.InvolvedObject.Name == name && e.Reason == reason && e.Type == kind {
				return true
			}
		}
		return false
	}, patience, 100*time.Millisecond, "no %s event %s about %s", kind, reason, name)
}
