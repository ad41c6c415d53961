package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// policies are what Pods may be reached by, and reach, with each set of values.
var policies = map[string]struct{ in, out []string }{
	"ha": {
		in: []string{
			"TCP/boot TCP/images from 10.0.0.0/16 2001:db8::/48",
			"TCP/metrics from namespaces kubernetes.io/metadata.name=monitoring",
		},
		out: []string{
			"UDP/53 TCP/53 to anywhere",
			"TCP/443 TCP/6443 to 192.0.2.30/32 172.20.0.1/32",
			"TCP/443 to 192.0.2.20/32",
			"TCP/4318 to 192.0.2.40/32",
		},
	},
	"https": {
		in: []string{
			"TCP/boot TCP/images TCP/boot-tls from 192.0.2.10/32",
			"TCP/metrics from namespaces <any>",
		},
		out: []string{
			"UDP/53 TCP/53 to anywhere",
			"TCP/443 TCP/6443 to anywhere",
			"TCP/443 to anywhere",
		},
	},
	"metal3": {
		in: []string{
			"TCP/boot TCP/images TCP/boot-tls from 10.0.0.0/16",
			"TCP/metrics from namespaces <any>",
		},
		out: []string{
			"UDP/53 TCP/53 to anywhere",
			"TCP/443 TCP/6443 to anywhere",
			"TCP/443 to anywhere",
			"TCP/443 to 10.2.0.0/16",
		},
	},
}

func TestNetworkPoliciesSayWhoMayReachWhat(t *testing.T) {
	for name, want := range policies {
		t.Run(name, func(t *testing.T) {
			objects := chartWith(t, name)
			policy := networkPolicy(t, objects)
			require.Equal(t, []networkingv1.PolicyType{"Ingress", "Egress"}, policy.Spec.PolicyTypes, "what is not named is refused")
			var in, out []string
			for _, rule := range policy.Spec.Ingress {
				in = append(in, portsOf(rule.Ports)+" from "+peersOf(rule.From))
			}
			for _, rule := range policy.Spec.Egress {
				out = append(out, portsOf(rule.Ports)+" to "+peersOf(rule.To))
			}
			require.Equal(t, want.in, in)
			require.Equal(t, want.out, out)
			requireNamedPorts(t, policy, podsOf(objects)["boot-operator"])
		})
	}
}

// Each Pod has a policy, or is on the node's network, where none applies.
func TestPodsWithoutAPolicyAreOnTheNodesNetwork(t *testing.T) {
	objects := chart(t, "networkPolicy.enabled=true", "netboot.interfaces={eth0}", "boot.ipxeServiceURL=http://10.0.0.1:8082")
	policy := networkPolicy(t, objects)
	pods := podsOf(objects)
	require.Len(t, pods, 2)
	for workload, pod := range pods {
		hostNetwork, _, _ := unstructured.NestedBool(pod.Object, "spec", "hostNetwork")
		selected := labels.SelectorFromSet(policy.Spec.PodSelector.MatchLabels).Matches(labels.Set(pod.GetLabels()))
		require.NotEqual(t, hostNetwork, selected, workload)
	}
	require.Contains(t, file(t, chartDir+"/values.yaml"), "None applies to Pods on the node's network: netboot's, and all with hostNetwork")
	require.Contains(t, notes(t, "--set=netboot.interfaces={eth0},boot.ipxeServiceURL=http://10.0.0.1:8082"), "no NetworkPolicy applies to them")
}

func TestCollectorsPortFollowsFromItsURL(t *testing.T) {
	for url, port := range map[string]string{
		"http://collector:4318": "4318", "https://collector.example.com": "443", "http://collector.example.com/v1": "80", "http://[2001:db8::1]:4318": "4318",
	} {
		policy := networkPolicy(t, chart(t, "networkPolicy.enabled=true", "tracing.endpoint="+url))
		require.Equal(t, "TCP/"+port, portsOf(policy.Spec.Egress[len(policy.Spec.Egress)-1].Ports), url)
	}
}

func networkPolicy(t *testing.T, objects []*unstructured.Unstructured) networkingv1.NetworkPolicy {
	t.Helper()
	var found []networkingv1.NetworkPolicy
	for _, object := range objects {
		if object.GetKind() == "NetworkPolicy" {
			var policy networkingv1.NetworkPolicy
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &policy))
			found = append(found, policy)
		}
	}
	require.Len(t, found, 1)
	return found[0]
}

// requireNamedPorts fails where a policy names a port that the Pod does not have: it
// would let nothing in.
func requireNamedPorts(t *testing.T, policy networkingv1.NetworkPolicy, pod *unstructured.Unstructured) {
	t.Helper()
	names := map[string]bool{}
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	ports, _, _ := unstructured.NestedSlice(containers[0].(map[string]any), "ports")
	for _, port := range ports {
		names[port.(map[string]any)["name"].(string)] = true
	}
	for _, rule := range policy.Spec.Ingress {
		for _, port := range rule.Ports {
			require.True(t, names[port.Port.StrVal], "no port %s in %v", port.Port, names)
		}
	}
}

func portsOf(ports []networkingv1.NetworkPolicyPort) string {
	var all []string
	for _, port := range ports {
		all = append(all, fmt.Sprintf("%s/%s", *port.Protocol, port.Port))
	}
	return strings.Join(all, " ")
}

func peersOf(peers []networkingv1.NetworkPolicyPeer) string {
	if len(peers) == 0 {
		return "anywhere"
	}
	var all []string
	for _, peer := range peers {
		if peer.IPBlock != nil {
			all = append(all, peer.IPBlock.CIDR)
			continue
		}
		selected := labels.SelectorFromSet(peer.NamespaceSelector.MatchLabels).String()
		if selected == "" {
			selected = "<any>"
		}
		all = append(all, "namespaces "+selected)
	}
	return strings.Join(all, " ")
}

// file reads one of the checkout.
func file(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repo(t), path))
	require.NoError(t, err)
	return string(text)
}
