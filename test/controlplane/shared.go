package controlplane

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// shared is the control plane of one test binary.
var shared struct {
	hasMain bool
	start   sync.Once
	plane   *ControlPlane
	err     error
}

// Main runs a package's tests and then stops the control plane that they shared,
// if one of them started it:
//
//	func TestMain(m *testing.M) { controlplane.Main(m) }
func Main(m *testing.M) {
	shared.hasMain = true
	code := m.Run()
	if shared.plane != nil {
		if err := shared.plane.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the control plane:", err)
		}
	}
	os.Exit(code)
}

// Start returns an administrator's config for the control plane that the tests
// of this package share; the first call starts it. Tests keep apart by working
// in a Namespace of their own.
func Start(t testing.TB) *rest.Config {
	t.Helper()
	return rest.CopyConfig(Shared(t).Config)
}

// Shared returns the control plane that Start starts, for its other methods. A
// test that takes it down uses one of its own: see Launch.
func Shared(t testing.TB) *ControlPlane {
	t.Helper()
	if !shared.hasMain {
		t.Fatal("this package needs: func TestMain(m *testing.M) { controlplane.Main(m) }")
	}
	shared.start.Do(func() {
		shared.plane, shared.err = Launch(context.Background(), Options{})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.plane
}

// Namespace creates a namespace for one test.
func Namespace(t testing.TB, config *rest.Config) string {
	t.Helper()
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := clients.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ns.Name
}
