package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// templates takes templates that begin with #!ipxe.
type templates struct{ inForce string }

func (s *templates) replace(text string) error {
	if !strings.HasPrefix(text, "#!ipxe") {
		return errors.New("line 1: not #!ipxe")
	}
	s.inForce = text
	return nil
}

func templateFile(t *testing.T, dir string) (*ipxeTemplate, *templates) {
	t.Helper()
	s := &templates{}
	return &ipxeTemplate{file: filepath.Join(dir, "given"), lastGood: filepath.Join(dir, "kept", "template.ipxe"), replace: s.replace, logger: logr.Discard()}, s
}

func TestTheLastGoodTemplateStaysInForceOverRestarts(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) { require.NoError(t, os.WriteFile(filepath.Join(dir, "given"), []byte(text), 0o600)) }
	write("#!ipxe\necho one\n")
	k, s := templateFile(t, dir)
	require.NoError(t, k.Start(t.Context()))
	require.Equal(t, "#!ipxe\necho one\n", s.inForce)

	write("echo two\n")
	require.ErrorContains(t, k.load(t.Context()), "not #!ipxe")
	require.Equal(t, "#!ipxe\necho one\n", s.inForce)

	restarted, after := templateFile(t, dir)
	require.NoError(t, restarted.Start(t.Context()))
	require.Equal(t, "#!ipxe\necho one\n", after.inForce)
	write("#!ipxe\necho three\n")
	require.NoError(t, restarted.load(t.Context()))
	require.Equal(t, "#!ipxe\necho three\n", after.inForce)
	write(strings.Repeat("#!ipxe\n", maxTemplate))
	require.ErrorContains(t, restarted.load(t.Context()), "more than")
}

func TestATemplateThatNeverWasGoodEndsTheStart(t *testing.T) {
	dir := t.TempDir()
	k, _ := templateFile(t, dir)
	require.ErrorContains(t, k.Start(t.Context()), "no such file")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "given"), []byte("echo\n"), 0o600))
	require.ErrorContains(t, k.Start(t.Context()), "not #!ipxe")
	none := &ipxeTemplate{replace: func(string) error { panic("nothing was configured") }}
	require.NoError(t, none.Start(t.Context()))
	require.NoError(t, none.Run(t.Context()))
}

func TestATemplateComesFromAConfigMap(t *testing.T) {
	name := types.NamespacedName{Namespace: "system", Name: "ipxe"}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Data: map[string]string{"wrong": "#!ipxe\n"}}
	api := fake.NewClientBuilder().WithObjects(m).Build()
	s := &templates{}
	k := &ipxeTemplate{configMap: name, reader: api, lastGood: filepath.Join(t.TempDir(), "kept"), replace: s.replace, logger: logr.Discard()}
	require.ErrorContains(t, k.Start(t.Context()), `ConfigMap system/ipxe has no key "template.ipxe"`)
	m.Data = map[string]string{templateKey: "#!ipxe\necho\n"}
	require.NoError(t, api.Update(t.Context(), m))
	require.NoError(t, k.Start(t.Context()))
	require.Equal(t, "#!ipxe\necho\n", s.inForce)
	require.NoError(t, api.Delete(t.Context(), m))
	require.Error(t, k.load(t.Context()))
	require.Equal(t, "#!ipxe\necho\n", s.inForce)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, k.Run(ctx))
}
