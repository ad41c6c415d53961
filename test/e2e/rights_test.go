package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/boot-operator/boot-operator/test/cache"
)

// grant gives the operator the rights that config would, with its own namespace in
// this one.
func grant(t *testing.T, c client.Client, namespace string) {
	t.Helper()
	subjects := []rbacv1.Subject{{Kind: "User", Name: operatorUser}}
	var objects []client.Object
	for _, file := range []string{"rbac/role.yaml", "rbac/role_secrets.yaml", "rbac/role_ironcore.yaml", "components/baremetalhost/role.yaml"} {
		var role rbacv1.ClusterRole
		read(t, file, &role)
		objects = append(objects, &role, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role.Name}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		})
	}
	for _, file := range []string{"rbac/leader_election.yaml", "rbac/own_namespace.yaml"} {
		var own rbacv1.Role
		read(t, file, &own)
		own.Namespace = namespace
		objects = append(objects, &own, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: own.Name, Namespace: namespace}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: own.Name},
		})
	}
	for _, o := range objects {
		if err := c.Create(context.Background(), o); !apierrors.IsAlreadyExists(err) {
			require.NoError(t, err)
		}
	}
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	root, err := cache.Repo()
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(root, "config", filepath.FromSlash(name)))
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(b, into))
}
