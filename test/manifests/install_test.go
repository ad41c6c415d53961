package manifests

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// installation is one, as each of the two ways renders it.
type installation struct{ kustomize, chart []*unstructured.Unstructured }

var rendered struct {
	once sync.Once
	all  map[string]installation
}

// installations are what people install.
func installations(t *testing.T) map[string]installation {
	t.Helper()
	rendered.once.Do(func() { rendered.all = renderInstallations(t) })
	if rendered.all == nil {
		t.Fatal("they were not rendered; the first test that asked says why")
	}
	return maps.Clone(rendered.all)
}

func renderInstallations(t *testing.T) map[string]installation {
	t.Helper()
	return map[string]installation{
		"default": {
			render(t, "kustomize", "build", "config/default"),
			chart(t),
		},
		"with HTTPS and secret watch": {
			render(t, "kustomize", "build", overlay(t, "https", "secret-watch")),
			chart(t, "tls.secretName=boot-operator-tls", "secretWatch=true"),
		},
		"with HTTPS by cert-manager": {
			render(t, "kustomize", "build", overlay(t, "https", "cert-manager")),
			chart(t, "tls.certManager.enabled=true", "tls.certManager.ipAddresses={192.0.2.10}", "tls.certManager.issuerRef.name=machines",
				"tls.certManager.issuerRef.kind=ClusterIssuer"),
		},
		"with netboot": {
			render(t, "kustomize", "build", overlay(t, "netboot")),
			chart(t, "netboot.interfaces={eth0}", "netboot.namespace=boot-operator-netboot", "netboot.createNamespace=true",
				"boot.ipxeServiceURL=http://192.0.2.10:8082"),
		},
		"with BareMetalHosts": {
			render(t, "kustomize", "build", overlay(t, "baremetalhost", "metal3-crds", "network-policy", "network-policy/bmcs")),
			chart(t, "baremetalhost.mode=drive", "baremetalhost.namespaces={racks}", "metal3.crds.install=true", "networkPolicy.enabled=true",
				"bmc.bootURL=http://192.0.2.10:8082"),
		},
		"with admission policies": {
			render(t, "kustomize", "build", overlay(t, "metal3")),
			chart(t, "metal3.admissionPolicies.enabled=true"),
		},
		"with network policies and a ServiceMonitor": {
			render(t, "kustomize", "build", overlay(t, "network-policy", "service-monitor")),
			chart(t, "networkPolicy.enabled=true", "metrics.serviceMonitor.enabled=true"),
		},
		"with a template and Secrets of some namespaces": {
			render(t, "kustomize", "build", overlay(t, "ipxe-template", "secret-namespaces")),
			chart(t, "boot.ipxeTemplateConfigMap=boot-operator-ipxe-template", "rbac.secretNamespaces={racks}"),
		},
	}
}

func chart(t *testing.T, values ...string) []*unstructured.Unstructured {
	t.Helper()
	args := []string{"template", "boot-operator", "charts/boot-operator", "--namespace=" + systemNamespace}
	for _, v := range values {
		args = append(args, "--set="+v)
	}
	return render(t, "helm", args...)
}

// overlay writes a kustomization of the default and some components.
func overlay(t *testing.T, components ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config, err := filepath.Rel(dir, filepath.Join(repo(t), "config"))
	if err != nil {
		t.Fatal(err)
	}
	text := "resources: [" + config + "/default]\ncomponents:\n"
	for _, c := range components {
		text += "  - " + config + "/components/" + c + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInstallationsApply(t *testing.T) {
	c := newCluster(t)
	installations := installations(t)
	installations["chart with every value"] = installation{
		chart: chart(t, "boot.imageServerURL=http://10.0.0.1:8082/httpboot", "boot.ipxeServiceURL=http://10.0.0.1:8082",
			"boot.defaultImage=ghcr.io/os/image:1", "boot.controllers={httpbootconfig}", "registries.allowed={ghcr.io,*}",
			"registries.plainHTTP={registry:5000}", "registries.mirrors={ghcr.io=mirror}", "trust.tokenSecret=keys",
			"trust.proxies={10.0.0.0/8}", "trust.dhcp={10.0.0.2}", "trust.proxyProtocolFrom={10.0.0.3}",
			"trust.claimNamespaces={racks}", "trust.claimNamespaceSelector=racks=yes", "image.pullSecrets={a}",
			"extraArgs={--zap-log-level=debug}", "service.type=NodePort", "service.annotations.a=b", "podAnnotations.a=b",
			"boot.ipxeTemplateConfigMap=ipxe", "netboot.interfaces={eth0,eth1}", "netboot.relays={10.0.0.1}", "netboot.answerEveryone=true", "netboot.ipxeDir=/ipxe",
			"baremetalhost.mode=translate", "baremetalhost.namespaces={racks,spares}", "metal3.crds.install=true", "metal3.admissionPolicies.enabled=true",
			"nodeSelector.a=b", "priorityClassName=system-cluster-critical", "hostNetwork=true", "rbac.secretNamespaces={racks}",
			"registries.caConfigMap=a", "registries.authSecret=a", "registries.urlHosts={example.com}", "bmc.caConfigMap=a", "bmc.bootURL=https://10.0.0.1",
			"bmc.bootCAConfigMap=a", "composedUKIs.signingSecret=a", "composedUKIs.bootCAConfigMap=a", "verification.configMap=a", "tls.secretName=a",
			"netboot.kind=DaemonSet", "netboot.extraArgs={--zap-log-level=debug}", "netboot.env[0].name=A", "netboot.env[0].value=b",
			"netboot.extraVolumes[0].name=a", "netboot.extraVolumes[0].emptyDir.medium=Memory", "netboot.extraVolumeMounts[0].name=a", "netboot.extraVolumeMounts[0].mountPath=/a",
			"netboot.priorityClassName=system-node-critical", "service.nodePorts.boot=30082", "service.ports.boot=80",
			"metrics.secure=false", "metrics.serviceMonitor.enabled=true", "metrics.prometheusRule.enabled=true", "metrics.dashboards.enabled=true",
			"tracing.endpoint=https://collector", "podDisruptionBudget.enabled=false", "crds.keep=false", "podLabels.a=b", "env[0].name=A", "env[0].value=b",
			"extraVolumes[0].name=a", "extraVolumes[0].emptyDir.medium=Memory", "extraVolumeMounts[0].name=a", "extraVolumeMounts[0].mountPath=/a",
			"store.volume.ephemeral.volumeClaimTemplate.spec.resources.requests.storage=21Gi",
			"store.volume.ephemeral.volumeClaimTemplate.spec.accessModes={ReadWriteOnce}"),
	}
	for name, installation := range installations {
		t.Run(name, func(t *testing.T) {
			for _, object := range slices.Concat(installation.kustomize, installation.chart) {
				if err := c.try(t.Context(), object); err != nil {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
			}
		})
	}
}

func TestChartAndKustomizeInstallTheSame(t *testing.T) {
	for name, installation := range installations(t) {
		t.Run(name, func(t *testing.T) {
			kustomize, chart := canonical(t, installation.kustomize), canonical(t, installation.chart)
			for _, key := range slices.Sorted(maps.Keys(kustomize)) {
				if key == "Namespace boot-operator-system" { // helm has --create-namespace
					continue
				}
				if chart[key] != kustomize[key] {
					t.Errorf("%s differs; %s", key, difference(kustomize[key], chart[key]))
				}
			}
			for _, key := range slices.Sorted(maps.Keys(chart)) {
				if kustomize[key] == "" {
					t.Errorf("%s is in the chart alone", key)
				}
			}
		})
	}
}

// difference shows where two texts part.
func difference(kustomize, chart string) string {
	a, b := strings.Split(kustomize, "\n"), strings.Split(chart, "\n")
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return fmt.Sprintf("after\n%s\nkustomize has\n%s\nthe chart has\n%s", strings.Join(a[max(0, i-3):i], "\n"),
				strings.Join(a[i:min(i+3, len(a))], "\n"), strings.Join(b[min(i, len(b)):min(i+3, len(b))], "\n"))
		}
	}
	return "the chart has more"
}

// canonical renders objects by kind and name, without the labels and annotations
// that tell the two ways apart.
func canonical(t *testing.T, objects []*unstructured.Unstructured) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, object := range objects {
		object = object.DeepCopy()
		labels := object.GetLabels()
		maps.DeleteFunc(labels, func(k, _ string) bool {
			return strings.HasPrefix(k, "app.kubernetes.io/") || strings.HasPrefix(k, "helm.sh/")
		})
		object.SetLabels(labels)
		if len(labels) == 0 {
			unstructured.RemoveNestedField(object.Object, "metadata", "labels")
		}
		sortArgs(t, object)
		annotations := object.GetAnnotations()
		delete(annotations, "helm.sh/resource-policy")
		object.SetAnnotations(annotations)
		text, err := yaml.Marshal(object.Object)
		if err != nil {
			t.Fatal(err)
		}
		key := object.GetKind() + " " + object.GetName()
		all[key] = regexp.MustCompile(`\n *app.kubernetes.io/instance: .*`).ReplaceAllString(string(text), "")
	}
	return all
}

// sortArgs sorts the flags of a workload, of which components and values add some
// at other places.
func sortArgs(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	containers, _, _ := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
	for _, container := range containers {
		args, _, err := unstructured.NestedStringSlice(container.(map[string]any), "args")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(args)
		_ = unstructured.SetNestedStringSlice(container.(map[string]any), args, "args")
	}
	if len(containers) > 0 {
		_ = unstructured.SetNestedSlice(object.Object, containers, "spec", "template", "spec", "containers")
	}
}

func TestEveryFlagOfADeploymentExists(t *testing.T) {
	help := exec.CommandContext(t.Context(), "go", "run", "./cmd/boot-operator", "--help")
	help.Dir = repo(t)
	text, err := help.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var source []byte
	for _, name := range []string{"deployment.yaml", "netboot.yaml", "_pods.tpl"} {
		template, err := os.ReadFile(filepath.Join(repo(t), "charts/boot-operator/templates", name))
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, template...)
	}
	flags := regexp.MustCompile(`(?m)^ *- (--[a-z-]+)`).FindAllStringSubmatch(string(source), -1)
	if len(flags) < 40 {
		t.Errorf("found only %v in the chart", flags)
	}
	for _, flag := range flags {
		if !regexp.MustCompile(`(?m)^ .*` + flag[1] + `\b`).Match(text) {
			t.Errorf("the operator has no flag %s", flag[1])
		}
	}
}
