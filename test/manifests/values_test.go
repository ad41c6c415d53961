package manifests

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/boot-operator/boot-operator/test/controlplane"
)

const chartDir = "charts/boot-operator"

// valueSets are the files of values that show what people install.
var valueSets = []string{"minimal", "ha", "netboot", "https", "metal3"}

func valuesFile(name string) string { return filepath.Join(chartDir, "ci", name+"-values.yaml") }

func chartWith(t *testing.T, name string) []*unstructured.Unstructured {
	t.Helper()
	return render(t, "helm", "template", "boot-operator", chartDir, "--namespace="+systemNamespace, "-f", valuesFile(name))
}

func TestEveryValueSetIsLintedAndTried(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repo(t), valuesFile("*")))
	require.NoError(t, err)
	require.Len(t, files, len(valueSets), "a file that is in no test, or one that is gone")
	c := newCluster(t)
	for _, name := range valueSets {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := runTool(t, "helm", "lint", "--strict", chartDir, "-f", valuesFile(name))
			require.NoError(t, err, stdout+stderr)
			objects := chartWith(t, name)
			require.Greater(t, len(objects), 15)
			for _, object := range objects {
				if err := c.try(t.Context(), object); err != nil {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
			}
		})
	}
}

// Lint and the API server are worth something only if they refuse something.
func TestLintFindsWhatIsWrong(t *testing.T) {
	stdout, stderr, err := runTool(t, "helm", "lint", "--strict", chartDir, "-f", valuesFile("ha"), "--set=replicas=many")
	require.Error(t, err)
	require.Contains(t, stdout+stderr, "replicas")
}

// podsOf are the Pods that the workloads of an installation make, by the workload.
func podsOf(objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	pods := map[string]*unstructured.Unstructured{}
	for _, object := range objects {
		if object.GetKind() != "Deployment" && object.GetKind() != "DaemonSet" {
			continue
		}
		template, _, _ := unstructured.NestedMap(object.Object, "spec", "template")
		pod := &unstructured.Unstructured{Object: template}
		pod = pod.DeepCopy()
		pod.SetAPIVersion("v1")
		pod.SetKind("Pod")
		pod.SetName("tried")
		pods[object.GetName()] = pod
	}
	return pods
}

// standard makes a namespace that enforces a Pod security standard.
func (c cluster) standard(t *testing.T, level string) string {
	t.Helper()
	name := controlplane.Namespace(t, controlplane.Start(t))
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	patch := []byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"` + level + `"}}}`)
	require.NoError(t, c.Patch(t.Context(), namespace, client.RawPatch("application/merge-patch+json", patch)))
	return name
}

// A Deployment would be taken with a warning: it is the Pod that is refused.
func TestPodsKeepTheirSecurityStandard(t *testing.T) {
	c := newCluster(t)
	restricted, privileged := c.standard(t, "restricted"), c.standard(t, "privileged")
	try := func(pod *unstructured.Unstructured, namespace string) error {
		pod = pod.DeepCopy()
		pod.SetNamespace(namespace)
		return c.try(t.Context(), pod)
	}
	sets := map[string][]*unstructured.Unstructured{
		"kustomize":              installations(t)["default"].kustomize,
		"kustomize with netboot": installations(t)["with netboot"].kustomize,
		"kustomize with HTTPS":   installations(t)["with HTTPS and secret watch"].kustomize,
	}
	for _, name := range valueSets {
		sets[name] = chartWith(t, name)
	}
	for name, objects := range sets {
		pods := podsOf(objects)
		require.Contains(t, pods, "boot-operator", name)
		for workload, pod := range pods {
			t.Run(name+" "+workload, func(t *testing.T) {
				if strings.HasSuffix(workload, "-netboot") {
					err := try(pod, restricted)
					require.True(t, apierrors.IsForbidden(err), "it uses the node's network as root: %v", err)
					require.NoError(t, try(pod, privileged))
					return
				}
				require.NoError(t, try(pod, restricted))
				for field, value := range map[string]any{"hostNetwork": true, "hostPID": true} {
					worse := pod.DeepCopy()
					require.NoError(t, unstructured.SetNestedField(worse.Object, value, "spec", field))
					require.True(t, apierrors.IsForbidden(try(worse, restricted)), field)
				}
				require.True(t, apierrors.IsForbidden(try(asPrivileged(t, pod), restricted)), "a privileged Pod was taken: nothing is enforced")
			})
		}
		require.Equal(t, strings.Contains(name, "netboot"), pods["boot-operator-netboot"] != nil, name)
	}
}

func asPrivileged(t *testing.T, pod *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	pod = pod.DeepCopy()
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	containers[0].(map[string]any)["securityContext"] = map[string]any{"privileged": true}
	require.NoError(t, unstructured.SetNestedSlice(pod.Object, containers, "spec", "containers"))
	return pod
}

// netboot's Pods get two capabilities and lose every other.
func TestNetbootHasTwoCapabilities(t *testing.T) {
	pod := podsOf(chartWith(t, "netboot"))["boot-operator-netboot"]
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	require.Len(t, containers, 1)
	security, _, _ := unstructured.NestedMap(containers[0].(map[string]any), "securityContext")
	require.Equal(t, map[string]any{
		"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
		"capabilities": map[string]any{"drop": []any{"ALL"}, "add": []any{"NET_BIND_SERVICE", "NET_RAW"}},
	}, security)
}

// Every value has a default and a rule, and a comment says what it is.
func TestValuesAndSchemaHaveTheSameNames(t *testing.T) {
	var values map[string]any
	require.NoError(t, yaml.UnmarshalStrict([]byte(file(t, chartDir+"/values.yaml")), &values), "a name that is there twice hides the first")
	var schema map[string]any
	require.NoError(t, json.Unmarshal([]byte(file(t, chartDir+"/values.schema.json")), &schema))
	require.Empty(t, mismatches("", values, schema))
	require.NotEmpty(t, mismatches("", map[string]any{"unknown": 1}, schema), "the comparison finds nothing")
}

// mismatches are the names that only one of the two has; maps without properties in
// the schema are anybody's.
func mismatches(path string, values, schema map[string]any) []string {
	properties, _ := schema["properties"].(map[string]any)
	var wrong []string
	for name, value := range values {
		property, ok := properties[name].(map[string]any)
		if !ok {
			wrong = append(wrong, path+name+" has no schema")
			continue
		}
		below, isMap := value.(map[string]any)
		if _, closed := property["properties"]; isMap && closed {
			wrong = append(wrong, mismatches(path+name+".", below, property)...)
		}
	}
	for name := range properties {
		if _, ok := values[name]; !ok && path+name != "global" {
			wrong = append(wrong, path+name+" has no default")
		}
	}
	return wrong
}

// refusals are values that cannot work, and what the message has to name.
var refusals = []struct {
	name   string
	values []string
	say    []string
}{
	{"an unknown value", []string{"replica=3"}, []string{"replica"}},
	{"a wrong type", []string{"replicas=many"}, []string{"/replicas"}},
	{"nodes that change addresses", []string{"service.externalTrafficPolicy=Cluster"}, []string{"/service/externalTrafficPolicy", "Local"}},
	{"requests all over the replicas", []string{"service.sessionAffinity=None"}, []string{"/service/sessionAffinity", "ClientIP"}},
	{"a cluster's own address", []string{"service.type=ClusterIP"}, []string{"/service/type", "LoadBalancer", "NodePort"}},
	{"PROXY protocol from nobody", []string{"service.type=ClusterIP", "trust.proxyProtocolFrom=null"}, []string{"/service/type"}},
	{"a balancer by name", []string{"trust.proxyProtocolFrom={balancer.example.com}"}, []string{"/trust/proxyProtocolFrom"}},
	{"a proof that is none", []string{"trust.minimumProof=Trust"}, []string{"/trust/minimumProof", "Claimed"}},
	{"a port of root's", []string{"ports.boot=80"}, []string{"/ports/boot", "1,024"}},
	{"one port for two", []string{"ports.images=8082"}, []string{"ports.boot", "ports.images", "8082"}},
	{"netboot's port taken", []string{"ports.metrics=8087"}, []string{"netboot.probesPort", "ports.metrics"}},
	{"a size without a unit that exists", []string{"store.maxBytes=20GB"}, []string{"/store/maxBytes"}},
	{"a claim smaller than the budget", []string{"store.persistence.enabled=true", "store.persistence.size=19Gi"}, []string{"store.persistence.size 19Gi", "store.maxBytes 20Gi"}},
	{"a claim in other units", []string{"store.persistence.enabled=true", "store.persistence.size=21G"}, []string{"store.persistence.size 21G", "store.maxBytes"}},
	{"an emptyDir smaller than the budget", []string{"store.volume.emptyDir.sizeLimit=1Gi"}, []string{"store.volume.emptyDir.sizeLimit 1Gi"}},
	{"an ephemeral volume smaller than the budget", []string{"store.volume.ephemeral.volumeClaimTemplate.spec.resources.requests.storage=1Gi"}, []string{"store.volume.ephemeral", "1Gi"}},
	{"two volumes", []string{"store.persistence.enabled=true", "store.volume.emptyDir.medium=Memory"}, []string{"store.persistence.enabled", "store.volume"}},
	{"one claim for all", []string{"store.volume.persistentVolumeClaim.claimName=a"}, []string{"store.volume.persistentVolumeClaim", "replicas"}},
	{"netboot that leads nowhere", []string{"netboot.interfaces={eth0}"}, []string{"netboot.interfaces", "boot.ipxeServiceURL"}},
	{"netboot that leads to a name", []string{"netboot.interfaces={eth0}", "boot.ipxeServiceURL=http://boot.example.com:8082"}, []string{"boot.ipxeServiceURL", "boot.example.com"}},
	{"relays without netboot", []string{"netboot.relays={10.0.0.1}"}, []string{"netboot.relays", "netboot.interfaces"}},
	{"netboot in no namespace of its own", []string{"netboot.interfaces={eth0}", "boot.ipxeServiceURL=http://10.0.0.1", "netboot.createNamespace=true"}, []string{"netboot.createNamespace", "netboot.namespace"}},
	{"netboot of another kind", []string{"netboot.kind=StatefulSet"}, []string{"/netboot/kind"}},
	{"hosts that are told no URL", []string{"baremetalhost.mode=drive"}, []string{"baremetalhost.mode", "bmc.bootURL"}},
	{"a mode that is none", []string{"baremetalhost.mode=own"}, []string{"/baremetalhost/mode"}},
	{"a certificate of nobody", []string{"tls.certManager.enabled=true", "tls.certManager.ipAddresses={10.0.0.1}"}, []string{"tls.certManager.issuerRef"}},
	{"a certificate for nothing", []string{"tls.certManager.enabled=true", "tls.certManager.issuerRef.name=a"}, []string{"tls.certManager.ipAddresses"}},
	{"a certificate of plain metrics", []string{"metrics.secure=false", "metrics.certManager.enabled=true", "metrics.certManager.issuerRef.name=a"}, []string{"metrics.secure"}},
	{"a policy that has no effect", []string{"networkPolicy.enabled=true", "hostNetwork=true"}, []string{"networkPolicy.enabled", "hostNetwork"}},
	{"a policy for a name", []string{"networkPolicy.machines={racks.example.com}"}, []string{"/networkPolicy/machines"}},
	{"watching what may not be read", []string{"secretWatch=true", "rbac.secretNamespaces={racks}"}, []string{"rbac.secretNamespaces", "secretWatch"}},
	{"a collector that is no URL", []string{"tracing.endpoint=collector:4317"}, []string{"/tracing/endpoint"}},
	{"a controller that is none", []string{"boot.controllers={httpbootconfigs}"}, []string{"/boot/controllers"}},
}

func TestValuesThatCannotWorkAreRefused(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"template", "boot-operator", chartDir}
			for _, value := range tt.values {
				args = append(args, "--set="+value)
			}
			stdout, stderr, err := runTool(t, "helm", args...)
			require.Error(t, err, "rendered")
			require.Empty(t, stdout)
			for _, say := range tt.say {
				require.Contains(t, stderr, say)
			}
		})
	}
}

// What the schema refuses of Services is right where the address comes another way.
func TestOtherServicesAreTakenWhereTheAddressComesAnotherWay(t *testing.T) {
	for _, way := range []string{"hostNetwork=true", "trust.proxyProtocolFrom={10.0.0.1}"} {
		for _, value := range []string{"service.type=ClusterIP", "service.externalTrafficPolicy=Cluster", "service.sessionAffinity=None"} {
			chart(t, way, value)
		}
	}
}

// notes is what helm says after an installation.
func notes(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := runTool(t, "helm", append([]string{"install", "boot-operator", chartDir, "--namespace=" + systemNamespace, "--dry-run=client"}, args...)...)
	require.NoError(t, err, stderr)
	_, text, found := strings.Cut(stdout, "NOTES:")
	require.True(t, found, "no notes in %s", stdout)
	return text
}

func TestNotesSayWhatIsMissing(t *testing.T) {
	for name, tt := range map[string]struct {
		args     []string
		say, not []string
	}{
		"defaults": {nil, []string{"NOT SET: boot.ipxeServiceURL", "NOT SET: registries.allowed", "-metrics-reader", "bootctl doctor"}, []string{"ONE REPLICA", "NETBOOT", "HOST NETWORK", "METRICS:"}},
		"HA":       {[]string{"-f", valuesFile("ha")}, []string{"get service boot-operator"}, []string{"NOT SET", "ONE REPLICA"}},
		"netboot":  {[]string{"-f", valuesFile("netboot")}, []string{"NETBOOT: DaemonSet boot-operator-netboot in namespace boot-operator-netboot", "eth1", "no NetworkPolicy applies"}, nil},
		"bare": {[]string{"--set=replicas=1,hostNetwork=true,metrics.secure=false,trust.minimumProof=Claimed"},
			[]string{"ONE REPLICA", "HOST NETWORK", "no NetworkPolicy applies", "METRICS:", "CLAIMED"}, []string{"get service"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := notes(t, tt.args...)
			for _, say := range tt.say {
				require.Contains(t, text, say)
			}
			for _, not := range tt.not {
				require.NotContains(t, text, not)
			}
		})
	}
}

// The grace period has room for both parts of a drain and for writing what was seen.
func TestGracePeriodIsLongerThanTheDrain(t *testing.T) {
	for _, pod := range podsOf(chart(t, "drain.delaySeconds=7", "drain.timeoutSeconds=120")) {
		seconds, _, err := unstructured.NestedFloat64(pod.Object, "spec", "terminationGracePeriodSeconds")
		require.NoError(t, err)
		require.EqualValues(t, 137, seconds)
	}
}

// What Prometheus and Grafana are given is what the files hold.
func TestAlertsAndDashboardsAreInTheChart(t *testing.T) {
	kinds := map[string]int{}
	for _, object := range chartWith(t, "ha") {
		switch object.GetKind() {
		case "PrometheusRule":
			groups, _, _ := unstructured.NestedSlice(object.Object, "spec", "groups")
			require.NotEmpty(t, groups)
			kinds["PrometheusRule"]++
		case "ConfigMap":
			if object.GetLabels()["grafana_dashboard"] == "1" {
				data, _, _ := unstructured.NestedStringMap(object.Object, "data")
				for _, name := range slices.Sorted(maps.Keys(data)) {
					require.JSONEq(t, file(t, filepath.Join(chartDir, "dashboards", name)), data[name])
					kinds["dashboard"]++
				}
			}
		}
	}
	dashboards, err := filepath.Glob(filepath.Join(repo(t), chartDir, "dashboards", "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, dashboards)
	require.Equal(t, map[string]int{"PrometheusRule": 1, "dashboard": len(dashboards)}, kinds)
}
