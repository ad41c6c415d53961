package controlplane_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestMain(m *testing.M) { controlplane.Main(m) }

func TestOurKindsAreServed(t *testing.T) {
	clients := client(t, controlplane.Start(t))
	resources, err := clients.Discovery().ServerResourcesForGroupVersion("boot.ironcore.dev/v1alpha1")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, r := range resources.APIResources {
		kinds[r.Kind] = true
	}
	if !kinds["HTTPBootConfig"] || !kinds["IPXEBootConfig"] {
		t.Errorf("serves only %v", kinds)
	}
}

func TestNamespacesKeepTestsApart(t *testing.T) {
	config := controlplane.Start(t)
	if a, b := controlplane.Namespace(t, config), controlplane.Namespace(t, config); a == b {
		t.Errorf("twice %s", a)
	}
}

func TestAddedUserMayDoNothingByItself(t *testing.T) {
	plane := controlplane.Shared(t)
	config, err := plane.AddUser("system:serviceaccount:default:nobody")
	if err != nil {
		t.Fatal(err)
	}
	_, err = client(t, config).CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("want forbidden, got %v", err)
	}
}

func TestKubeconfigWorksWithKubectl(t *testing.T) {
	plane := controlplane.Shared(t)
	cmd := exec.Command(plane.Kubectl, "--kubeconfig=/dev/stdin", "get", "namespace", "default", "-o", "name")
	cmd.Stdin = strings.NewReader(string(plane.Kubeconfig))
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "namespace/default\n" {
		t.Errorf("kubectl: %v: %s", err, out)
	}
}

func TestOutagesEndWithTheSameAddressAndData(t *testing.T) {
	plane, err := controlplane.Launch(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	clients := client(t, plane.Config)
	kept := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept", Namespace: "default"}}
	if _, err := clients.CoreV1().ConfigMaps("default").Create(t.Context(), kept, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := clients.CoreV1().ConfigMaps("default").Get(ctx, "kept", metav1.GetOptions{})
		return err
	}

	must(t, plane.Pause())
	if get() == nil {
		t.Error("a paused API server answered")
	}
	must(t, plane.Resume())
	must(t, get())

	must(t, plane.StopAPIServer())
	address := strings.TrimSuffix(strings.TrimPrefix(plane.Config.Host, "https://"), "/")
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("a stopped API server accepted a connection")
	}
	must(t, plane.StartAPIServer())
	must(t, get())
}

func TestAuditLogTellsOfEveryRequestBeforeItsAnswer(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit.log")
	plane, err := controlplane.Launch(t.Context(), controlplane.Options{AuditLog: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, plane.Stop()) })
	_, err = client(t, plane.Config).CoreV1().Secrets("default").Get(t.Context(), "looked-for", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("want not found, got %v", err)
	}
	text, err := os.ReadFile(log)
	must(t, err)
	if !strings.Contains(string(text), `"resource":"secrets","namespace":"default","name":"looked-for"`) {
		t.Errorf("the log does not tell of it:\n%.2000s", text)
	}
}

func client(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
