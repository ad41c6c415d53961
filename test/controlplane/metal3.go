package controlplane

import (
	"path/filepath"

	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/test/cache"
)

// Metal3CRDs is Metal3's BareMetalHosts, for envtest.InstallCRDs: what the chart
// installs on request. `make manifests` generates it from the types of the module
// that go.mod names, and `make verify` fails where that is not so.
func Metal3CRDs() (envtest.CRDInstallOptions, error) {
	root, err := cache.Repo()
	if err != nil {
		return envtest.CRDInstallOptions{}, err
	}
	return envtest.CRDInstallOptions{ErrorIfPathMissing: true, Paths: []string{
		filepath.Join(root, "config", "metal3", "crd", "metal3.io_baremetalhosts.yaml"),
	}}, nil
}
