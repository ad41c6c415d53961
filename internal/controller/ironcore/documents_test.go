package ironcore

import (
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestTheDocumentedExampleBecomesReady(t *testing.T) {
	f := newFixture(t)
	f.run()
	page, err := os.ReadFile("../../../docs/ironcore.md")
	require.NoError(t, err)
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	require.NotNil(t, example)
	f.registry.set(func() { f.registry.images["ghcr.io/example/os:1.2"] = []boot.Role{boot.RoleUKI} })
	documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(strings.ReplaceAll(string(example[1]), "namespace: default", "namespace: "+f.ns)), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := documents.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if o.GetNamespace() == "" {
			o.SetLabels(map[string]string{"test": f.ns})
		}
		require.NoError(t, f.client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test")))
	}
	c := &metalv1alpha1.ServerBootConfiguration{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "node7"}}
	h := httpOf(c)
	f.ready(h)
	require.Equal(t, "node7-ignition", h.Spec.IgnitionSecretRef.Name)
	require.Equal(t, serverUUID, h.Spec.SystemUUID)
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
}
