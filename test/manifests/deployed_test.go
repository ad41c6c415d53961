package manifests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/registry"
)

const (
	systemNamespace = "boot-operator-system"
	ignition        = `{"ignition":{"version":"3.4.0"}}`
)

// makeInstaller runs `make build-installer` and returns what it wrote.
func makeInstaller(t *testing.T, image string) (install, metadata string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", "build-installer", "DIST="+dir, "IMG="+image)
	cmd.Dir = repo(t)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(text)
	}
	return read("install.yaml"), read("metadata.yaml")
}

// What install.yaml installs does its work: the operator, run with the flags of the
// Deployment and a token of its ServiceAccount, pulls an image, says that the config
// is ready, and gives the machine its bytes and its Ignition. It is refused nothing.
func TestInstalledOperatorBootsAMachine(t *testing.T) {
	c := newCluster(t)
	require.NoError(t, v1alpha1.AddToScheme(c.Scheme()))
	install, _ := makeInstaller(t, "registry.example.com/boot-operator:v9")
	args := c.install(t, install)
	binary := buildOperator(t)
	images, err := registry.Serve("127.0.0.1:0", registry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = images.Close() })
	uki, err := demoimage.Greeting("amd64", "hello\n")
	require.NoError(t, err)
	_, err = images.Publish("os/image", "1", map[string][]byte{"amd64": uki})
	require.NoError(t, err)

	t.Run("with its rights", func(t *testing.T) {
		operator := start(t, binary, append(args, "--allowed-registries="+images.Host, "--plain-http-registries="+images.Host),
			tokenKubeconfig(t, systemNamespace, "boot-operator"))
		c.createConfig(t, images.Host+"/os/image:1")
		wait(t, operator, "readiness", operator.ready)
		wait(t, operator, "the condition Ready", func() bool {
			var config v1alpha1.HTTPBootConfig
			err := c.Get(t.Context(), types.NamespacedName{Namespace: c.namespace, Name: "machine"}, &config)
			return err == nil && meta.IsStatusConditionTrue(config.Status.Conditions, v1alpha1.ConditionReady)
		})
		status, header, body := operator.get(t, "/httpboot")
		require.Equal(t, http.StatusOK, status, string(body))
		require.Equal(t, "application/efi", header.Get("Content-Type"))
		require.Equal(t, sha256.Sum256(uki), sha256.Sum256(body), "other bytes than were published")
		wait(t, operator, "the machine's Ignition", func() bool { // once the attempt is known
			status, _, body = operator.get(t, "/ignition")
			return status != http.StatusServiceUnavailable
		})
		require.Equal(t, http.StatusOK, status, string(body))
		require.JSONEq(t, ignition, string(body))
		require.False(t, operator.says("forbidden"), operator.log())
	})
	t.Run("without them it says so", func(t *testing.T) {
		operator := start(t, binary, args, tokenKubeconfig(t, c.namespace, "default"))
		wait(t, operator, "a refusal in the log", func() bool { return operator.says("forbidden") })
		require.False(t, operator.ready())
	})
}

// install applies the manifests and returns the flags of the operator. What others may
// not try anew, for fields that never change, goes with the test.
func (c cluster) install(t *testing.T, manifests string) (args []string) {
	t.Helper()
	objects, err := parse(manifests)
	require.NoError(t, err)
	for _, object := range objects {
		require.NoError(t, c.apply(t.Context(), object), "%s %s", object.GetKind(), object.GetName())
		if kind := object.GetKind(); kind == "Deployment" || kind == "Service" {
			t.Cleanup(func() { _ = c.Delete(context.Background(), object) })
		}
		if object.GetKind() == "Deployment" {
			containers, _, _ := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
			require.Equal(t, "registry.example.com/boot-operator:v9", containers[0].(map[string]any)["image"])
			args, _, _ = unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
		}
	}
	require.NotEmpty(t, args)
	return slices.Clip(args)
}

// clusterctl reads metadata.yaml, and expands ${…} in install.yaml, also where it is
// meant for somebody else.
func TestInstallerIsFitForClusterctl(t *testing.T) {
	install, text := makeInstaller(t, "registry.example.com/boot-operator:v9")
	require.NotContains(t, install, "${")
	require.Contains(t, install, "kind: Namespace")
	var metadata struct {
		APIVersion, Kind string
		ReleaseSeries    []struct {
			Major, Minor int
			Contract     string
		}
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &metadata))
	require.Equal(t, "clusterctl.cluster.x-k8s.io/v1alpha3", metadata.APIVersion)
	require.Equal(t, "Metadata", metadata.Kind)
	var series []string
	for _, s := range metadata.ReleaseSeries {
		require.NotEmpty(t, s.Contract)
		series = append(series, fmt.Sprintf("%d.%d", s.Major, s.Minor))
	}
	require.Contains(t, series, chartSeries(t), "the series of this version: add it to config/metadata.yaml")
}

// chartSeries is major.minor of the chart's version, which is the Makefile's too.
func chartSeries(t *testing.T) string {
	t.Helper()
	var c struct{ Version, AppVersion string }
	require.NoError(t, yaml.Unmarshal([]byte(file(t, chartDir+"/Chart.yaml")), &c))
	require.Equal(t, c.Version, c.AppVersion)
	require.Contains(t, file(t, "Makefile"), "\nVERSION ?= "+c.AppVersion+"\n")
	numbers := strings.Split(c.Version, ".")
	return strings.Join(numbers[:2], ".")
}

func buildOperator(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "boot-operator")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/boot-operator")
	build.Dir = repo(t)
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	return binary
}

// tokenKubeconfig is what a Pod of a ServiceAccount has: a token, from the TokenRequest
// API. Nothing makes namespaces' ServiceAccounts here, so it is made where it is missing.
func tokenKubeconfig(t *testing.T, namespace, account string) []byte {
	t.Helper()
	config := controlplane.Start(t)
	clients, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	accounts := clients.CoreV1().ServiceAccounts(namespace)
	if account == "default" {
		_, err = accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	hour := int64(3600)
	request, err := accounts.CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	text, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"pod": {Token: request.Status.Token}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "pod"}},
		CurrentContext: "test",
	})
	require.NoError(t, err)
	return text
}

func (c cluster) createConfig(t *testing.T, image string) {
	t.Helper()
	require.NoError(t, c.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "ignition", Namespace: c.namespace},
		StringData: map[string]string{"ignition": ignition},
	}))
	require.NoError(t, c.Create(t.Context(), &v1alpha1.HTTPBootConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "machine", Namespace: c.namespace},
		Spec: v1alpha1.HTTPBootConfigSpec{
			Image:              image,
			NetworkIdentifiers: []string{"127.0.0.1"},
			IgnitionSecretRef:  &corev1.LocalObjectReference{Name: "ignition"},
		},
	}))
}

// process is an operator that runs.
type process struct {
	boot, probes string
	mu           sync.Mutex
	output       bytes.Buffer
}

// start runs the operator with the flags of a Deployment, and after them those that
// this machine needs.
func start(t *testing.T, binary string, args []string, kubeconfig []byte) *process {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "kubeconfig")
	require.NoError(t, os.WriteFile(path, kubeconfig, 0o600))
	p := &process{boot: freeAddress(t), probes: freeAddress(t)}
	args = append(args[:len(args):len(args)], "--kubeconfig="+path, "--namespace="+systemNamespace, "--artifact-dir="+filepath.Join(dir, "store"),
		"--boot-server-address="+p.boot, "--image-proxy-server-address=127.0.0.1:0", "--metrics-bind-address=127.0.0.1:0",
		"--health-probe-bind-address="+p.probes, "--drain-delay=0s")
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = p, p
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return p
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func (p *process) says(word string) bool { return strings.Contains(p.log(), word) }

func (p *process) ready() bool {
	response, err := http.Get(fmt.Sprintf("http://%s/readyz", p.probes))
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// get asks the boot server as a machine does.
func (p *process) get(t *testing.T, path string) (status int, header http.Header, body []byte) {
	t.Helper()
	response, err := http.Get("http://" + p.boot + path)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, response.Header, body
}

func wait(t *testing.T, operator *process, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within a minute; the operator said:\n%s", what, operator.log())
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
