// Package manifests holds what we ship to a real API server: everything that
// the chart and the kustomizations render, and every manifest that the samples
// and the documentation show, must be accepted by it, with no field unknown.
package manifests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	controlplane.Main(m)
}

// cluster is an API server to try manifests on.
type cluster struct {
	client.Client
	namespace string // of manifests that name none
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	config := controlplane.Start(t)
	install(t, config, controlplane.MetalCRDs, controlplane.Metal3CRDs, certManagerCRDs, monitoringCRDs)
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cluster{Client: c, namespace: controlplane.Namespace(t, config)}
}

// install installs others' CRDs, of which documents show objects.
func install(t *testing.T, config *rest.Config, sources ...func() (envtest.CRDInstallOptions, error)) {
	t.Helper()
	for _, source := range sources {
		crds, err := source()
		if err == nil {
			_, err = envtest.InstallCRDs(config, crds)
		}
		if err != nil {
			t.Fatalf("installing others' CRDs: %v", err)
		}
	}
}

// try has the API server check an object as if it were applied; server-side
// apply refuses fields that it does not know. Namespaces are created, so that
// what is in them can be tried.
func (c cluster) try(ctx context.Context, object *unstructured.Unstructured) error {
	return c.apply(ctx, object, client.DryRunAll)
}

func (c cluster) apply(ctx context.Context, object *unstructured.Unstructured, options ...client.ApplyOption) error {
	object = object.DeepCopy()
	namespaced, err := c.IsObjectNamespaced(object)
	if err != nil {
		return err
	}
	if namespaced && object.GetNamespace() == "" {
		object.SetNamespace(c.namespace)
	}
	if object.GetKind() == "Namespace" {
		options = nil
	} else if namespaced {
		if err := c.ensureNamespace(ctx, object.GetNamespace()); err != nil {
			return err
		}
	}
	options = append(options, client.FieldOwner("manifests-test"), client.ForceOwnership)
	return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), options...)
}

func (c cluster) ensureNamespace(ctx context.Context, name string) error {
	err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// parse reads YAML documents; what is no object of Kubernetes is an error.
func parse(text string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(object.Object) == 0 {
			continue
		}
		if object.GetKind() == "" || object.GetAPIVersion() == "" {
			return nil, fmt.Errorf("neither kind nor apiVersion: %v", object.Object)
		}
		objects = append(objects, object)
	}
}

// render runs a pinned tool at the root of the checkout and parses what it prints.
func render(t *testing.T, tool string, args ...string) []*unstructured.Unstructured {
	t.Helper()
	out, stderr, err := runTool(t, tool, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, stderr)
	}
	objects, err := parse(out)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// runTool runs a pinned tool at the root of the checkout.
func runTool(t *testing.T, tool string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	dir, err := cache.Tools(t.Context(), cache.Development, os.Stderr, tool)
	if err != nil {
		t.Fatal(err)
	}
	var out, said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, tool), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = repo(t), &out, &said
	err = cmd.Run()
	return out.String(), said.String(), err
}

func repo(t *testing.T) string {
	t.Helper()
	root, err := cache.Repo()
	if err != nil {
		t.Fatal(err)
	}
	return root
}
