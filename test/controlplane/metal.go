package controlplane

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// MetalCRDs is metal-operator's own Servers and ServerBootConfigurations, for
// envtest.InstallCRDs: those of the module that go.mod names.
func MetalCRDs() (envtest.CRDInstallOptions, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/ironcore-dev/metal-operator").Output()
	if err != nil {
		return envtest.CRDInstallOptions{}, fmt.Errorf("finding metal-operator's module: %w", err)
	}
	bases := filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "bases")
	return envtest.CRDInstallOptions{ErrorIfPathMissing: true, Paths: []string{
		filepath.Join(bases, "metal.ironcore.dev_servers.yaml"), filepath.Join(bases, "metal.ironcore.dev_serverbootconfigurations.yaml"),
	}}, nil
}
