// Package e2e boots machines: a real API server, a registry, the operator's own
// binary and QEMU machines with real firmware, in a network of their own.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/transcript"
)

// site is a rack: a network with machines, an API server that can be cut off,
// and a namespace of objects.
type site struct {
	t         *testing.T
	network   *lab.Network
	api       *gate
	config    *rest.Config
	client    client.Client
	namespace string
	dir       string
}

// newSite builds a site. It has an API server of its own: two operators with
// different settings would fight over the objects of one.
func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteOn(t, lab.NetworkOptions{})
}

// newSiteOn is newSite on another kind of network.
func newSiteOn(t *testing.T, network lab.NetworkOptions) *site {
	t.Helper()
	lab.Require(t, lab.Root, lab.DHCP)
	plane, err := controlplane.Launch(t.Context(), controlplane.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = plane.Stop() })
	config := plane.Config
	scheme := runtime.NewScheme()
	require.NoError(t, corev1.AddToScheme(scheme))
	require.NoError(t, rbacv1.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	c, err := client.New(config, client.Options{Scheme: scheme})
	require.NoError(t, err)
	s := &site{t: t, config: config, network: lab.NewNetwork(t, network), client: c, namespace: controlplane.Namespace(t, config), dir: t.TempDir()}
	grant(t, c, s.namespace)
	s.api = newGate(t, s.network.Listen("tcp", "127.0.0.1:0"), config)
	return s
}

// kubeconfig writes a kubeconfig that reaches the API server through the gate.
func (s *site) kubeconfig() string {
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["c"] = &clientcmdapi.Cluster{Server: "http://" + s.api.addr()}
	cfg.AuthInfos["u"] = &clientcmdapi.AuthInfo{}
	cfg.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u", Namespace: s.namespace}
	cfg.CurrentContext = "x"
	path := filepath.Join(s.dir, "kubeconfig")
	require.NoError(s.t, clientcmd.WriteToFile(*cfg, path))
	return path
}

// operator is one running replica.
type operator struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *transcript.Transcript
	done chan struct{}
	name string
}

// build builds the commands, once, and returns their directory.
var build = sync.OnceValues(func() (string, error) {
	root, err := cache.Repo()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "boot-operator-e2e-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/...")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the commands: %w\n%s", err, out)
	}
	return dir, nil
})

// bootctl runs the command line against the site's API server, and returns what
// it printed.
func (s *site) bootctl(args ...string) string {
	s.t.Helper()
	bin, err := build()
	require.NoError(s.t, err)
	cmd := s.network.Command(filepath.Join(bin, "bootctl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig())
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(s.t, cmd.Run(), errs.String())
	return out.String()
}

// start runs a replica in the site's network. Replicas of one name share a
// directory, so a restart finds what the last one left.
func (s *site) start(name string, args ...string) *operator {
	s.t.Helper()
	bin, err := build()
	require.NoError(s.t, err)
	args = append([]string{
		"--kubeconfig=" + s.kubeconfig(), "--namespace=" + s.namespace, "--claim-namespaces=" + s.namespace,
		"--artifact-dir=" + filepath.Join(s.dir, name), "--metrics-bind-address=0", "--health-probe-bind-address=0", "--image-proxy-server-address=0",
		"--allowed-registries=*", "--zap-devel", "--resolve-interval=10s", "--drain-delay=0s", "--drain-timeout=5s",
	}, args...)
	op := &operator{t: s.t, log: &transcript.Transcript{}, done: make(chan struct{}), name: name}
	op.cmd = s.network.Command(filepath.Join(bin, "boot-operator"), args...)
	op.cmd.Stdout, op.cmd.Stderr = op.log, op.log
	op.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(s.t, op.cmd.Start())
	go func() { _ = op.cmd.Wait(); close(op.done) }()
	s.t.Cleanup(func() {
		op.kill()
		if s.t.Failed() {
			s.t.Logf("log of operator %s:\n%s", name, tail(op.log, 12000))
		}
	})
	return op
}

// kill is kill -9.
func (o *operator) kill() {
	_ = o.cmd.Process.Kill()
	<-o.done
}

func (o *operator) running() bool {
	select {
	case <-o.done:
		return false
	default:
		return true
	}
}

// tail is the end of what a process said.
func tail(t *transcript.Transcript, n int) string {
	s := t.String()
	return s[max(0, len(s)-n):]
}

// create creates objects in the site's namespace.
func (s *site) create(objects ...client.Object) {
	s.t.Helper()
	for _, o := range objects {
		o.SetNamespace(s.namespace)
		require.NoError(s.t, s.client.Create(context.Background(), o))
	}
}

func (s *site) ignition(name, document string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{v1alpha1.SecretKeyIgnition: document}}
}

// configOf reads an HTTPBootConfig.
func (s *site) configOf(name string) *v1alpha1.HTTPBootConfig {
	s.t.Helper()
	var c v1alpha1.HTTPBootConfig
	require.NoError(s.t, s.client.Get(context.Background(), client.ObjectKey{Namespace: s.namespace, Name: name}, &c))
	return &c
}

// condition waits until a condition of an HTTPBootConfig is True, and returns it.
func (s *site) condition(name, condition string) metav1.Condition {
	s.t.Helper()
	return s.conditionOf(&v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Name: name}}, condition)
}

// config is either kind as clients read it.
type config interface {
	v1alpha1.Config
	client.Object
}

// conditionOf waits until a condition of a config, which it reads anew, is True,
// and returns it.
func (s *site) conditionOf(c config, condition string) metav1.Condition {
	s.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if err := s.client.Get(context.Background(), client.ObjectKey{Namespace: s.namespace, Name: c.GetName()}, c); !apierrors.IsNotFound(err) {
			require.NoError(s.t, err)
		}
		found := meta.FindStatusCondition(c.ConfigStatus().Conditions, condition)
		if found != nil && found.Status == metav1.ConditionTrue && found.ObservedGeneration == c.GetGeneration() {
			return *found
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Fatalf("%s did not become True for %s within 60 s: %+v", condition, c.GetName(), c.ConfigStatus())
	return metav1.Condition{}
}

// answer is what a client got.
type answer struct {
	code int
	body string
	err  error
}

// get asks as the machine that has this address.
func (s *site) get(from netip.Addr, url string) answer {
	s.t.Helper()
	return s.getWith(from, url, "Accept", "*/*")
}

// getWith is get with one header.
func (s *site) getWith(from netip.Addr, url, header, value string) answer {
	s.t.Helper()
	c := s.network.HTTPClient(from)
	c.Timeout = 2 * time.Minute
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(s.t, err)
	req.Header.Set(header, value)
	resp, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{code: resp.StatusCode, body: string(body), err: err}
}

// served waits until url answers with this code; an attempt that closes takes
// 2 minutes.
func (s *site) served(from netip.Addr, url string, code int) answer {
	s.t.Helper()
	const patience = 3 * time.Minute
	var last answer
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		last = s.get(from, url)
		if last.code == code && last.err == nil {
			return last
		}
		time.Sleep(250 * time.Millisecond)
	}
	s.t.Fatalf("%s from %s: want %d within %s, got %d %v %.300s", url, from, code, patience, last.code, last.err, last.body)
	return last
}
