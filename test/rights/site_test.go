package rights

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/registry"
	"github.com/boot-operator/boot-operator/test/transcript"
)

const (
	// release is the operator's own namespace, offering that of the processes that
	// only offer boots, racks that of machines.
	release  = "boot-operator-system"
	offering = "boot-operator-netboot"
	racks    = "racks"

	account        = release + "/boot-operator"
	netbootAccount = offering + "/boot-operator-netboot"

	patience = 3 * time.Minute // the host may be busy

	// streaming is the replica that has its caches filled by watches alone, as it does
	// wherever the API server can. The others list first, as they do where it cannot:
	// the chart is for those too.
	streaming = "a replica that streams"
)

// site is an API server with an audit log, a registry and a network of machines, where
// the chart is installed.
type site struct {
	t        *testing.T
	plane    *controlplane.ControlPlane
	client   client.Client
	network  *lab.Network
	registry *registry.Registry
	host     string // of the registry
	dir      string
	objects  []*unstructured.Unstructured
	running  []*operator
}

// newSite installs the chart with these values besides those that every site needs.
func newSite(t *testing.T, values ...string) *site {
	t.Helper()
	lab.Require(t, lab.Root, lab.IPXE)
	s := &site{t: t, dir: t.TempDir(), network: lab.NewNetwork(t, lab.NetworkOptions{}), registry: registry.New(registry.Options{})}
	var err error
	s.plane, err = controlplane.Launch(t.Context(), controlplane.Options{AuditLog: s.auditLog()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.plane.Stop() })
	for _, source := range []func() (envtest.CRDInstallOptions, error){controlplane.MetalCRDs, controlplane.Metal3CRDs} {
		crds, err := source()
		require.NoError(t, err)
		_, err = envtest.InstallCRDs(s.plane.Config, crds)
		require.NoError(t, err)
	}
	s.client = newClient(t, s.plane)
	s.network.Forward(strings.TrimSuffix(strings.TrimPrefix(s.plane.Config.Host, "https://"), "/"))
	s.serveRegistry()
	for _, name := range []string{release, offering, racks} {
		s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"machines": "yes"}}})
	}
	s.objects = render(t, append(values,
		"registries.allowed={*}", "registries.plainHTTP={"+s.host+"}", "boot.ipxeServiceURL="+s.url(""), "trust.claimNamespaceSelector=machines=yes"))
	s.install()
	return s
}

func newClient(t *testing.T, plane *controlplane.ControlPlane) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		authenticationv1.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme, eventsv1.AddToScheme, rbacv1.AddToScheme,
		v1alpha1.AddToScheme, metal3.AddToScheme, metalv1alpha1.AddToScheme,
	} {
		require.NoError(t, add(scheme))
	}
	c, err := client.New(plane.Config, client.Options{Scheme: scheme})
	require.NoError(t, err)
	return c
}

func (s *site) auditLog() string { return filepath.Join(s.dir, "audit.log") }

// url is where machines reach the boot server.
func (s *site) url(path string) string {
	return fmt.Sprintf("http://%s:8082%s", s.network.Gateway(), path)
}

func (s *site) serveRegistry() {
	l := s.network.Listen("tcp", "127.0.0.1:0")
	s.host = l.Addr().String()
	server := &http.Server{Handler: s.registry, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	s.t.Cleanup(func() { _ = server.Close() })
}

// render returns what the chart makes of values.
func render(t *testing.T, values []string) []*unstructured.Unstructured {
	t.Helper()
	tools, err := cache.Tools(t.Context(), cache.Development, os.Stderr, "helm")
	require.NoError(t, err)
	args := []string{"template", "boot-operator", "charts/boot-operator", "--namespace=" + release}
	for _, v := range values {
		args = append(args, "--set="+v)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(tools, "helm"), args...) //nolint:gosec // a pinned tool
	cmd.Dir, err = cache.Repo()
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var objects []*unstructured.Unstructured
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(out), 4096); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		if err == io.EOF { //nolint:errorlint // as the decoder returns it
			return objects
		}
		require.NoError(t, err)
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// install applies what grants rights; nothing would run the rest.
func (s *site) install() {
	s.t.Helper()
	for _, o := range s.objects {
		switch o.GetKind() {
		case "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding":
			require.NoError(s.t, s.client.Create(s.t.Context(), o.DeepCopy()), "%s %s", o.GetKind(), o.GetName())
		}
	}
}

// flags are those of a workload's container.
func (s *site) flags(workload string) (flags []string) {
	s.t.Helper()
	for _, o := range s.objects {
		if (o.GetKind() == "Deployment" || o.GetKind() == "DaemonSet") && o.GetName() == workload {
			containers, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
			require.NoError(s.t, err)
			flags, _, err = unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
			require.NoError(s.t, err)
		}
	}
	require.NotEmpty(s.t, flags, "the chart has no workload %s", workload)
	return flags
}

// token is one that the API server issues for a service account.
func (s *site) token(account string) string {
	s.t.Helper()
	namespace, name, _ := strings.Cut(account, "/")
	hour := int64(3600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}
	of := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	require.NoError(s.t, s.client.SubResource("token").Create(s.t.Context(), of, request))
	return request.Status.Token
}

// kubeconfig is of a service account.
func (s *site) kubeconfig(account string) string {
	s.t.Helper()
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["c"] = &clientcmdapi.Cluster{Server: s.plane.Config.Host, CertificateAuthorityData: s.plane.Config.CAData}
	cfg.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: s.token(account)}
	cfg.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	cfg.CurrentContext = "x"
	path := filepath.Join(s.dir, strings.ReplaceAll(account, "/", "-")+".kubeconfig")
	require.NoError(s.t, clientcmd.WriteToFile(*cfg, path))
	return path
}

// operator is one process.
type operator struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	log   *transcript.Transcript
	done  chan struct{}
	probe string
	site  *site
}

// build builds the operator, once.
var build = sync.OnceValues(func() (string, error) {
	root, err := cache.Repo()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "boot-operator-rights-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "boot-operator")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/boot-operator")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the operator: %w\n%s", err, out)
	}
	return binary, nil
})

// start runs a process of a workload as its service account, and waits until it is
// ready. Its ports are those of the workload where more does not say otherwise.
func (s *site) start(name, workload, account string, probes int, more ...string) *operator {
	s.t.Helper()
	binary, err := build()
	require.NoError(s.t, err)
	args := append(s.flags(workload), "--kubeconfig="+s.kubeconfig(account), "--namespace="+release, "--artifact-dir="+filepath.Join(s.dir, name),
		"--drain-delay=0s", "--drain-timeout=5s", fmt.Sprintf("--health-probe-bind-address=:%d", probes))
	op := &operator{
		t: s.t, name: name, site: s, log: &transcript.Transcript{}, done: make(chan struct{}),
		probe: fmt.Sprintf("http://%s:%d/readyz", s.network.Gateway(), probes),
	}
	op.cmd = s.network.Command(binary, append(args, more...)...)
	op.cmd.Stdout, op.cmd.Stderr = op.log, op.log
	if name != streaming {
		op.cmd.Env = append(os.Environ(), "KUBE_FEATURE_WatchListClient=false")
	}
	op.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(s.t, op.cmd.Start())
	go func() { _ = op.cmd.Wait(); close(op.done) }()
	s.running = append(s.running, op)
	s.t.Cleanup(func() {
		_ = op.cmd.Process.Kill()
		<-op.done
		if text := op.log.String(); s.t.Failed() {
			s.t.Logf("log of %s:\n%s", name, text[max(0, len(text)-8000):])
		}
	})
	return op
}

// ready waits until the process says that it is.
func (o *operator) ready() *operator {
	o.t.Helper()
	o.site.eventually("readiness of "+o.name, func() bool {
		select {
		case <-o.done:
			o.t.Fatalf("%s ended", o.name)
		default:
		}
		return o.site.get(o.site.network.Gateway(), o.probe).code == http.StatusOK
	})
	return o
}

// stop ends the process as Kubernetes does.
func (o *operator) stop() {
	o.t.Helper()
	_ = o.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-o.done:
	case <-time.After(patience):
		o.t.Fatalf("%s did not end within %s", o.name, patience)
	}
}

// finish ends all processes and returns what was asked of the API server.
func (s *site) finish() []request {
	s.t.Helper()
	for _, op := range s.running {
		op.stop()
	}
	return requestsIn(s.t, s.auditLog())
}

// settle ends all processes, fails where one of them was refused anything, and notes
// which rights were used.
func (s *site) settle(l ledger) []request {
	s.t.Helper()
	requests := s.finish()
	for _, op := range s.running {
		require.NotContains(s.t, strings.ToLower(op.log.String()), "forbidden", "the log of %s", op.name)
	}
	for _, a := range []string{account, netbootAccount} {
		require.Empty(s.t, refusals(requests, a), "what %s was refused", a)
	}
	l.note(rbacOf(s.t, s.objects).rights(s.t), requests)
	return requests
}

// create creates objects, those without a namespace in racks.
func (s *site) create(objects ...client.Object) {
	s.t.Helper()
	for _, o := range objects {
		if namespaced, err := s.client.IsObjectNamespaced(o); err == nil && namespaced && o.GetNamespace() == "" {
			o.SetNamespace(racks)
		}
		require.NoError(s.t, s.client.Create(context.Background(), o))
	}
}

// read reads an object anew, and says whether it is there.
func (s *site) read(o client.Object) bool {
	s.t.Helper()
	err := s.client.Get(context.Background(), client.ObjectKeyFromObject(o), o)
	if !apierrors.IsNotFound(err) {
		require.NoError(s.t, err)
	}
	return err == nil
}

// change changes an object as it is now.
func change[T client.Object](s *site, o T, edit func(T)) {
	s.t.Helper()
	require.True(s.t, s.read(o))
	before, _ := o.DeepCopyObject().(client.Object)
	edit(o)
	require.NoError(s.t, s.client.Patch(context.Background(), o, client.MergeFrom(before)))
}

// eventually waits until something is so.
func (s *site) eventually(what string, is func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("no %s within %s\n%s", what, patience, s.state())
		}
	}
}

// state is for people who look for what went wrong.
func (s *site) state() string {
	var b strings.Builder
	for _, list := range []client.ObjectList{&v1alpha1.HTTPBootConfigList{}, &v1alpha1.IPXEBootConfigList{}, &metal3.BareMetalHostList{}, &metalv1alpha1.ServerBootConfigurationList{}} {
		if err := s.client.List(context.Background(), list); err == nil {
			text, _ := json.Marshal(list)
			fmt.Fprintf(&b, "%s\n", text)
		}
	}
	return b.String()
}

// answer is what a client got.
type answer struct {
	code int
	body string
}

// get asks as the machine that has this address; code 0 is no answer.
func (s *site) get(from netip.Addr, url string, header ...string) answer {
	s.t.Helper()
	c := s.network.HTTPClient(from)
	c.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec,forcetypeassert // a certificate that nobody knows
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, nil)
	require.NoError(s.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}
	}
	return answer{resp.StatusCode, string(body)}
}

// served waits until the boot server answers a machine with 200.
func (s *site) served(from netip.Addr, path string) (a answer) {
	s.t.Helper()
	s.eventually(path+" for "+from.String(), func() bool {
		a = s.get(from, s.url(path))
		return a.code == http.StatusOK
	})
	return a
}

// machine gives the host the address of a machine.
func (s *site) machine(host byte) netip.Addr {
	a := s.network.Addr(host)
	s.network.AddAddress(a)
	return a
}

// publishUKI publishes an image whose UKI greets with its tag.
func (s *site) publishUKI(tag string) (image string, uki []byte) {
	s.t.Helper()
	uki, err := demoimage.Greeting("amd64", "image "+tag)
	require.NoError(s.t, err)
	return s.publish("uki", tag, registry.Layer{MediaType: registry.UKI, Data: uki}), uki
}

// publishKernel publishes an image with a kernel and an initrd.
func (s *site) publishKernel(tag string) string {
	s.t.Helper()
	return s.publish("kernel", tag, registry.Layer{MediaType: registry.Kernel, Data: []byte("kernel " + tag)}, registry.Layer{MediaType: registry.Initramfs, Data: []byte("initrd " + tag)})
}

func (s *site) publish(repository, tag string, layers ...registry.Layer) string {
	s.t.Helper()
	_, err := s.registry.PublishImage("os/"+repository, tag, registry.Image{Architecture: "amd64", Layers: layers})
	require.NoError(s.t, err)
	return s.host + "/os/" + repository + ":" + tag
}

// ignition is the Secret with a machine's Ignition.
func ignition(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{
		v1alpha1.SecretKeyIgnition: `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/of","contents":{"source":"data:,` + name + `"}}]}}`,
	}}
}
