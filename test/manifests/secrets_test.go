package manifests

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestTheOperatorCannotListSecrets: what it may not list, it cannot hold in
// memory. The opt-in to watch them is the control. In its own namespace it may
// make the Secret with its keys.
func TestTheOperatorCannotListSecrets(t *testing.T) {
	for name, want := range map[string]string{"default": "get", "with HTTPS and secret watch": "get list watch"} {
		both := installations(t)[name]
		for tool, objects := range map[string][]*unstructured.Unstructured{"kustomize": both.kustomize, "chart": both.chart} {
			if got := strings.Join(verbsOnSecrets(t, "ClusterRole", objects), " "); got != want {
				t.Errorf("%s by %s: verbs on Secrets everywhere are %q, not %q", name, tool, got, want)
			}
			if got := strings.Join(verbsOnSecrets(t, "Role", objects), " "); got != "create" {
				t.Errorf("%s by %s: verbs on Secrets of its own namespace are %q, not %q", name, tool, got, "create")
			}
		}
	}
}

// verbsOnSecrets are what the roles of this kind allow with Secrets, sorted; not what
// they allow with those that they name.
func verbsOnSecrets(t *testing.T, kind string, objects []*unstructured.Unstructured) []string {
	t.Helper()
	var verbs []string
	for _, o := range objects {
		if o.GetKind() != kind {
			continue
		}
		var role rbacv1.ClusterRole // a Role has the same rules
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
			t.Fatal(err)
		}
		for _, r := range role.Rules {
			if len(r.ResourceNames) > 0 {
				continue
			}
			core := slices.Contains(r.APIGroups, "") || slices.Contains(r.APIGroups, "*")
			if core && (slices.Contains(r.Resources, "secrets") || slices.Contains(r.Resources, "*")) {
				verbs = append(verbs, r.Verbs...)
			}
		}
	}
	slices.Sort(verbs)
	return slices.Compact(verbs)
}
