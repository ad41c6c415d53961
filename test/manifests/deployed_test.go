package manifests

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

const (
	systemNamespace = "boot-operator-system"
	serviceAccount  = "system:serviceaccount:" + systemNamespace + ":boot-operator"
)

// The operator, run with the flags of the Deployment and the rights of its
// service account, does its work and is refused nothing.
func TestDeployedOperatorHasTheRightsItNeeds(t *testing.T) {
	c := newCluster(t)
	if err := v1alpha1.AddToScheme(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, object := range render(t, "kustomize", "build", "config/default") {
		if object.GetKind() == "Deployment" {
			containers, _, _ := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
			args, _, _ = unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
			continue
		}
		if err := c.apply(t.Context(), object); err != nil {
			t.Fatalf("%s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
	binary := filepath.Join(t.TempDir(), "boot-operator")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/boot-operator")
	build.Dir = repo(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	t.Run("with them", func(t *testing.T) {
		operator := start(t, binary, args, serviceAccount)
		c.createConfig(t)
		wait(t, operator, "readiness", operator.ready)
		wait(t, operator, "the condition IgnitionValid", func() bool {
			var config v1alpha1.HTTPBootConfig
			err := c.Get(t.Context(), types.NamespacedName{Namespace: c.namespace, Name: "machine"}, &config)
			return err == nil && meta.IsStatusConditionTrue(config.Status.Conditions, v1alpha1.ConditionIgnitionValid)
		})
		if operator.says("forbidden") {
			t.Errorf("the operator was refused something:\n%s", operator.log())
		}
	})
	t.Run("without them it says so", func(t *testing.T) {
		operator := start(t, binary, args, "system:serviceaccount:default:nobody")
		wait(t, operator, "a refusal in the log", func() bool { return operator.says("forbidden") })
	})
}

func (c cluster) createConfig(t *testing.T) {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "ignition", Namespace: c.namespace},
		StringData: map[string]string{"ignition": `{"ignition":{"version":"3.4.0"}}`},
	}
	config := &v1alpha1.HTTPBootConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "machine", Namespace: c.namespace},
		Spec: v1alpha1.HTTPBootConfigSpec{
			NetworkIdentifiers: []string{"192.0.2.5"},
			IgnitionSecretRef:  &corev1.LocalObjectReference{Name: "ignition"},
		},
	}
	if err := c.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

// process is an operator that runs.
type process struct {
	probes string
	mu     sync.Mutex
	output bytes.Buffer
}

func start(t *testing.T, binary string, args []string, user string) *process {
	t.Helper()
	kubeconfig, err := controlplane.Shared(t).UserKubeconfig(user, "system:serviceaccounts", "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{probes: freeAddress(t)}
	args = append(args[:len(args):len(args)], "--kubeconfig="+file, "--namespace="+systemNamespace, "--artifact-dir="+filepath.Join(dir, "store"),
		"--boot-server-address=127.0.0.1:0", "--image-proxy-server-address=127.0.0.1:0", "--metrics-bind-address=127.0.0.1:0",
		"--health-probe-bind-address="+p.probes)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = p, p
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
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
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
