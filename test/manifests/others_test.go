package manifests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/test/cache"
)

// certManagerCRDs are Certificates and Issuers, as cert-manager's module has them.
func certManagerCRDs() (envtest.CRDInstallOptions, error) {
	others, err := othersDir()
	if err != nil {
		return envtest.CRDInstallOptions{}, err
	}
	cmd := exec.Command("go", "mod", "download", "-json", "github.com/cert-manager/cert-manager")
	cmd.Dir = others
	out, err := cmd.Output()
	if err != nil {
		return envtest.CRDInstallOptions{}, fmt.Errorf("downloading cert-manager's module: %w\n%s", err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return envtest.CRDInstallOptions{}, err
	}
	return envtest.CRDInstallOptions{ErrorIfPathMissing: true, Paths: []string{
		filepath.Join(module.Dir, "deploy/crds/cert-manager.io_certificates.yaml"),
	}}, nil
}

// monitoringCRDs are the Prometheus operator's ServiceMonitors and rules, generated
// from the types of its module.
func monitoringCRDs() (envtest.CRDInstallOptions, error) {
	others, err := othersDir()
	if err != nil {
		return envtest.CRDInstallOptions{}, err
	}
	sum, err := os.ReadFile(filepath.Join(others, "go.sum"))
	if err != nil {
		return envtest.CRDInstallOptions{}, err
	}
	tools, err := cache.Tools(context.Background(), cache.Development, os.Stderr, "controller-gen")
	if err != nil {
		return envtest.CRDInstallOptions{}, err
	}
	key := sha256.Sum256(bytes.Join([][]byte{sum, []byte(tools)}, nil))
	dir := filepath.Join(cache.Dir("crds"), "monitoring-"+hex.EncodeToString(key[:6]))
	err = cache.Make(dir, func(tmp string) error {
		cmd := exec.Command(filepath.Join(tools, "controller-gen"), "crd:maxDescLen=0",
			"paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1", "output:crd:dir="+tmp)
		cmd.Dir = others
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("generating the Prometheus operator's CRDs: %w\n%s", err, out)
		}
		return nil
	})
	return envtest.CRDInstallOptions{ErrorIfPathMissing: true, Paths: []string{
		filepath.Join(dir, "monitoring.coreos.com_servicemonitors.yaml"), filepath.Join(dir, "monitoring.coreos.com_prometheusrules.yaml"),
	}}, err
}

func othersDir() (string, error) {
	root, err := cache.Repo()
	return filepath.Join(root, "test/manifests/others"), err
}
