package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/move"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

// launch starts a cluster, and writes a kubeconfig whose context names the
// namespace machines.
func launch(t *testing.T) (client.Client, string) {
	t.Helper()
	plane, err := controlplane.Launch(t.Context(), controlplane.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = plane.Stop() })
	config, err := clientcmd.Load(plane.Kubeconfig)
	require.NoError(t, err)
	for _, c := range config.Contexts {
		c.Namespace = "machines"
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*config, path))
	api, err := move.Connect(plane.Config)
	require.NoError(t, err)
	return api, path
}

func TestMoveFromOneClusterToAnother(t *testing.T) {
	source, from := launch(t)
	target, to := launch(t)
	machine := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: "m1"}}
	machine.Spec.SystemUUID = "00112233-4455-6677-8899-aabbccddeeff"
	machine.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "ignition"}
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "machines"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: "ignition"}, StringData: map[string]string{"ignition": "{}"}},
		machine,
	} {
		require.NoError(t, source.Create(t.Context(), o))
	}
	at := client.ObjectKeyFromObject(machine)
	args := []string{"move", "--source-kubeconfig", from, "--target-kubeconfig", to}

	code, out, errs := run(t, append(args, "--dry-run")...)
	require.Zero(t, code, errs)
	require.Contains(t, errs, "Nothing was changed. The move would do this:")
	require.Contains(t, out, "HTTPBootConfig")
	require.True(t, apierrors.IsNotFound(target.Get(t.Context(), at, machine)))

	code, _, errs = run(t, append(args, "--namespace", "machine")...)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "nothing was changed, because\n  - the source has no namespace machine")
	require.NotContains(t, errs, "not complete")

	code, out, errs = run(t, append(args, "--verbose")...)
	require.Zero(t, code, errs)
	require.Contains(t, errs, "pausing the source\n  HTTPBootConfig machines/m1\n")
	require.Contains(t, errs, "is complete:")
	require.Contains(t, out, "ignition")
	require.NoError(t, target.Get(t.Context(), at, machine))
	require.True(t, apierrors.IsNotFound(source.Get(t.Context(), at, machine)))

	code, _, errs = run(t, append(args, "--all-namespaces")...)
	require.Zero(t, code, errs)
	require.Contains(t, errs, "There is nothing to move.")
}

func TestAnUnreachableClusterIsAFailure(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(path, []byte(`{apiVersion: v1, kind: Config, current-context: x,
clusters: [{name: c, cluster: {server: "http://`+listener.Addr().String()+`"}}],
contexts: [{name: x, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]}`), 0o600))
	code, _, errs := run(t, "move", "--source-kubeconfig", path, "--target-kubeconfig", path)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "bootctl: reading namespace kube-system of the source")
	require.Contains(t, errs, "connection refused")

	code, _, errs = run(t, "move", "--source-kubeconfig", path, "--source-context", "other", "--target-kubeconfig", path)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, `context "other" does not exist`)
}
