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
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// installations are what people install, as each of the two ways renders it.
func installations(t *testing.T) map[string]struct{ kustomize, chart []*unstructured.Unstructured } {
	t.Helper()
	return map[string]struct{ kustomize, chart []*unstructured.Unstructured }{
		"default": {
			render(t, "kustomize", "build", "config/default"),
			chart(t),
		},
		"with HTTPS and secret watch": {
			render(t, "kustomize", "build", overlay(t, "https", "secret-watch")),
			chart(t, "tls.secretName=boot-operator-tls", "secretWatch=true"),
		},
		"with netboot": {
			render(t, "kustomize", "build", overlay(t, "netboot")),
			chart(t, "netboot.interfaces={eth0}"),
		},
		"with BareMetalHosts": {
			render(t, "kustomize", "build", overlay(t, "baremetalhost", "metal3-crds")),
			chart(t, "baremetalhost.mode=drive", "baremetalhost.namespaces={racks}", "metal3.crds.install=true"),
		},
		"with admission policies": {
			render(t, "kustomize", "build", overlay(t, "metal3")),
			chart(t, "metal3.admissionPolicies.enabled=true"),
		},
	}
}

func chart(t *testing.T, values ...string) []*unstructured.Unstructured {
	t.Helper()
	args := []string{"template", "boot-operator", "charts/boot-operator", "--namespace=boot-operator-system", "--include-crds"}
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
	installations["chart with every value"] = struct{ kustomize, chart []*unstructured.Unstructured }{
		chart: chart(t, "boot.imageServerURL=http://10.0.0.1:8082/httpboot", "boot.ipxeServiceURL=http://10.0.0.1:8082",
			"boot.defaultImage=ghcr.io/os/image:1", "boot.controllers={httpbootconfig}", "registries.allowed={ghcr.io,*}",
			"registries.plainHTTP={registry:5000}", "registries.mirrors={ghcr.io=mirror}", "trust.tokenSecret=keys",
			"trust.proxies={10.0.0.0/8}", "trust.dhcp={10.0.0.2}", "trust.proxyProtocolFrom={10.0.0.3}",
			"trust.claimNamespaces={racks}", "trust.claimNamespaceSelector=racks=yes", "image.pullSecrets={a}",
			"extraArgs={--zap-log-level=debug}", "service.type=NodePort", "service.annotations.a=b", "podAnnotations.a=b",
			"boot.ipxeTemplateConfigMap=ipxe", "netboot.interfaces={eth0,eth1}", "netboot.relays={10.0.0.1}", "netboot.answerEveryone=true", "netboot.ipxeDir=/ipxe",
			"baremetalhost.mode=translate", "baremetalhost.namespaces={racks,spares}", "metal3.crds.install=true", "metal3.admissionPolicies.enabled=true",
			"nodeSelector.a=b", "priorityClassName=system-cluster-critical", "hostNetwork=true",
			"store.volume.ephemeral.volumeClaimTemplate.spec.resources.requests.storage=1Gi",
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

// The namespace of config/default enforces the restricted Pod security standard.
func TestPodsAreRestricted(t *testing.T) {
	c := newCluster(t)
	objects := render(t, "kustomize", "build", overlay(t, "https", "secret-watch"))
	var pod *unstructured.Unstructured
	for _, object := range objects {
		switch object.GetKind() {
		case "Namespace":
			if err := c.try(t.Context(), object); err != nil {
				t.Fatal(err)
			}
		case "Deployment":
			template, _, _ := unstructured.NestedMap(object.Object, "spec", "template")
			pod = &unstructured.Unstructured{Object: template}
			pod.SetAPIVersion("v1")
			pod.SetKind("Pod")
			pod.SetName("restricted")
			pod.SetNamespace(object.GetNamespace())
		}
	}
	if err := c.try(t.Context(), pod); err != nil {
		t.Error(err)
	}
	_ = unstructured.SetNestedField(pod.Object, true, "spec", "hostNetwork")
	if err := c.try(t.Context(), pod); !apierrors.IsForbidden(err) {
		t.Errorf("a Pod on the host's network: want forbidden, got %v", err)
	}
}

func TestEveryFlagOfADeploymentExists(t *testing.T) {
	help := exec.CommandContext(t.Context(), "go", "run", "./cmd/boot-operator", "--help")
	help.Dir = repo(t)
	text, err := help.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	source, err := os.ReadFile(filepath.Join(repo(t), "charts/boot-operator/templates/deployment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	flags := regexp.MustCompile(`(?m)^ +- (--[a-z-]+)`).FindAllStringSubmatch(string(source), -1)
	if len(flags) < 10 {
		t.Errorf("found only %v in the chart", flags)
	}
	for _, flag := range flags {
		if !regexp.MustCompile(`(?m)^ .*` + flag[1] + `\b`).Match(text) {
			t.Errorf("the operator has no flag %s", flag[1])
		}
	}
}
