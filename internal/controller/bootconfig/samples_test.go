package bootconfig

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestEverySampleAppliesAndBecomesReady(t *testing.T) {
	f := newFixture(t)
	crds, err := controlplane.Metal3CRDs() // of the samples of hosts, which belong to another controller
	require.NoError(t, err)
	_, err = envtest.InstallCRDs(controlplane.Shared(t).Config, crds)
	require.NoError(t, err)
	files, err := filepath.Glob("../../../config/samples/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var configs []config
	for _, file := range files {
		for _, o := range documents(t, file) {
			if o.GetKind() == "Kustomization" {
				continue
			}
			o.SetNamespace(f.ns)
			f.create(o)
			switch o.GetKind() {
			case v1alpha1.KindHTTPBootConfig:
				configs = append(configs, newHTTP())
			case v1alpha1.KindIPXEBootConfig:
				configs = append(configs, newIPXE())
			default:
				continue
			}
			configs[len(configs)-1].SetNamespace(f.ns)
			configs[len(configs)-1].SetName(o.GetName())
		}
	}
	require.NotEmpty(t, configs)
	for _, c := range configs {
		f.reread(c)
		image := c.Common().Image
		f.store.images[image] = artifact.Image{Source: image + "@x", Name: image, Artifacts: []boot.Artifact{
			{Role: boot.RoleStub, Digest: stubDigest, Size: 1},
			{Role: boot.RoleUKI, Digest: ukiDigest, Size: 1}, {Role: boot.RoleKernel, Digest: ukiDigest, Size: 1}, {Role: boot.RoleInitrd, Digest: newDigest, Size: 1},
		}}
	}
	f.run(withVerifier(&fakeVerifier{any: true}), func(o *Options) { o.Composer = &fakeComposer{} })
	for _, c := range configs {
		f.ready(c)
	}
}

func documents(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var out []*unstructured.Unstructured
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := d.Decode(o)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err, file)
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}
