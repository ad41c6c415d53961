package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

// helmOn is helm for the control plane of the tests.
func helmOn(t *testing.T) func(args ...string) (string, error) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, controlplane.Shared(t).Kubeconfig, 0o600))
	return func(args ...string) (string, error) {
		stdout, stderr, err := runTool(t, "helm", append(args, "--kubeconfig="+kubeconfig)...)
		return stdout + stderr, err
	}
}

// CRDs that are there already, as those of a chart that had them in crds/ are, are no
// release's. The commands of docs/upgrade.md hand them over; from then on helm upgrades
// them, and leaves them when the release goes.
func TestCRDsFromBeforeAreHandedOverAndStay(t *testing.T) {
	c := newCluster(t)
	helm := helmOn(t)
	const release = "handed"
	install := []string{"install", release, chartDir, "--namespace=" + c.namespace}

	out, err := helm(install...)
	require.Error(t, err, "they belong to nobody, and helm takes what is not its own")
	require.Contains(t, out, "boot.ironcore.dev")

	for _, command := range adoption(t, release, c.namespace) {
		kubectl(t, command...)
	}
	crd := func() *unstructured.Unstructured {
		return c.get(t, "apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "httpbootconfigs.boot.ironcore.dev")
	}
	stale := crd()
	labels := stale.GetLabels()
	labels["app.kubernetes.io/version"] = "0.0.1"
	stale.SetLabels(labels)
	require.NoError(t, c.Update(t.Context(), stale))
	out, err = helm(append(install, "--force-conflicts")...)
	require.NoError(t, err, out)
	require.Equal(t, "keep", crd().GetAnnotations()["helm.sh/resource-policy"])
	require.NotEqual(t, "0.0.1", crd().GetLabels()["app.kubernetes.io/version"], "the chart's CRD is in force")

	out, err = helm("upgrade", release, chartDir, "--namespace="+c.namespace, "--set=replicas=3")
	require.NoError(t, err, out)
	out, err = helm("uninstall", release, "--namespace="+c.namespace)
	require.NoError(t, err, out)
	require.Nil(t, crd().GetDeletionTimestamp(), "with the CRD every boot config would go")
	gone := &unstructured.Unstructured{}
	gone.SetAPIVersion("apps/v1")
	gone.SetKind("Deployment")
	err = c.Get(t.Context(), types.NamespacedName{Namespace: c.namespace, Name: release + "-boot-operator"}, gone)
	require.True(t, apierrors.IsNotFound(err), "the rest of the release goes: %v", err)
}

func (c cluster) get(t *testing.T, apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetAPIVersion(apiVersion)
	object.SetKind(kind)
	require.NoError(t, c.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: name}, object))
	return object
}

// adoption are the kubectl commands of docs/upgrade.md that hand CRDs over.
func adoption(t *testing.T, release, namespace string) [][]string {
	t.Helper()
	var commands [][]string
	text := strings.ReplaceAll(file(t, "docs/upgrade.md"), "\\\n", " ")
	for _, line := range regexp.MustCompile(`(?m)^ *kubectl (?:label|annotate) crd .*$`).FindAllString(text, -1) {
		line = strings.NewReplacer("release-name=boot-operator", "release-name="+release, "release-namespace=boot-operator-system", "release-namespace="+namespace).Replace(line)
		commands = append(commands, strings.Fields(line)[1:])
	}
	require.NotEmpty(t, commands, "docs/upgrade.md has no commands that hand CRDs over")
	return commands
}

func kubectl(t *testing.T, args ...string) {
	t.Helper()
	dir, err := cache.Tools(t.Context(), cache.ControlPlane, os.Stderr, "kubectl")
	require.NoError(t, err)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, controlplane.Shared(t).Kubeconfig, 0o600))
	out, err := command(t, filepath.Join(dir, "kubectl"), append(args, "--kubeconfig="+kubeconfig)...).CombinedOutput()
	require.NoError(t, err, string(out))
}

func command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = repo(t)
	return cmd
}
