package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

// bootctlDHCP runs the verb as a process would, and returns what it said.
func bootctlDHCP(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = execute(t.Context(), append([]string{"dhcp"}, args...), &environment{In: strings.NewReader(""), Out: &stdout, Err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestDHCPPrintsNothingButTheConfiguration(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{"--format dnsmasq --server 10.0.0.2", []string{"dhcp-boot=tag:http,tag:!ipxe,http://10.0.0.2:8082/httpboot", "dhcp-range=10.0.0.100,10.0.0.199,255.255.255.0,3600", "interface=eth0"}},
		{"--format dnsmasq --server 10.0.0.2,fd00::2 --dns 10.0.0.3,fd00::3 --subnet fd00:0:0:1::/64", []string{"option:dns-server,10.0.0.3", "option6:dns-server,[fd00::3]", "dhcp-range=fd00:0:0:1::100"}},
		{"--format dnsmasq --server 10.0.0.2 --server fd00::2 --family 6", []string{"http://[fd00::2]:8082/httpboot", "for a boot-operator at http://[fd00::2]:8082,"}},
		{"--format kea --server https://10.0.0.2 --interface bond0 --lease-time 10m --tftp 10.0.0.9 --router 10.0.0.1", []string{`"data": "https://10.0.0.2:8443/httpboot"`, `"bond0"`, "600", `"next-server": "10.0.0.9"`, "10.0.0.1"}},
		{"--format kea --server 10.0.0.2:80,fd00::2 --family 6", []string{`"Dhcp6"`, "[fd00::2]:8082"}},
		{"--format isc --server 10.0.0.2 --range 10.0.0.20-10.0.0.30 --bios-file b.kpxe --amd64-file a.efi --arm64-file c.efi", []string{"range 10.0.0.20 10.0.0.30;", `"b.kpxe"`, `"a.efi"`, `"c.efi"`}},
		{"--format coredhcp --server 10.0.0.2 --scheme https", []string{"bootFile: https://10.0.0.2:8443/httpboot"}},
		{"--format mikrotik --server 10.0.0.2", []string{"/ip dhcp-server matcher"}},
	} {
		code, out, errs := bootctlDHCP(t, strings.Fields(c.args)...)
		require.Zero(t, code, "%s: %s", c.args, errs)
		require.Empty(t, errs, c.args)
		for _, want := range c.want {
			require.Contains(t, out, want, c.args)
		}
	}
}

func TestDHCPSaysWhatWouldBeRight(t *testing.T) {
	for args, want := range map[string]string{
		"":                                                                     "--format is \"\"; it must be one of dnsmasq, kea, isc, coredhcp, mikrotik",
		"--format dnsmasq":                                                     "--server is missing",
		"--format bind --server 10.0.0.2":                                      `--format is "bind"; it must be one of dnsmasq, kea, isc, coredhcp, mikrotik`,
		"--format kea --server boot.example":                                   "no literal IP address",
		"--format kea --server 10.0.0.2,fd00::2":                               "kea has a file for each family: add --family 4 or --family 6",
		"--format kea --server 10.0.0.2,10.0.0.3":                              "--server names two of one family",
		"--format kea --server 10.0.0.2 --family 6":                            "no --server is an IPv6 address",
		"--format kea --server 10.0.0.2 --family 5":                            "--family is 5; it must be 4 or 6",
		"--format kea --server 10.0.0.2 --scheme gopher":                       `--scheme is "gopher"; it must be http or https`,
		"--format kea --server 10.0.0.2 --subnet 10.0.0.0":                     "is not a subnet such as 10.0.0.0/24",
		"--format kea --server 10.0.0.2 --subnet fd00::/64":                    "is of another family than --server",
		"--format kea --server 10.0.0.2 --range 10.0.0.5":                      "is not of the form 10.0.0.100-10.0.0.199",
		"--format kea --server 10.0.0.2 --range 10.0.0.1-10.0.0.9":             "has 10.0.0.2 in it",
		"--format kea --server 10.0.0.2 --router here":                         "is not a router's address",
		"--format kea --server 10.0.0.2 --tftp here":                           "is not a TFTP server's address",
		"--format kea --server 10.0.0.2 --dns here":                            "is not a DNS server's address",
		"--format kea --server 10.0.0.2 --router 10.0.0.1,10.0.0.3":            "--router is given twice for one family",
		"--format kea --server 10.0.0.2 --interface a;b":                       `interface "a;b" is not a name such as eth0`,
		"--format kea --server 10.0.0.2 --lease-time 1s":                       "a lease of 1s is not between",
		"--format kea --server 10.0.0.2 --lease-time 0":                        "--lease-time is 0",
		"--format kea --server 10.0.0.2 --amd64-file ../x":                     `boot file "../x" is not a name`,
		"--format kea --server 10.0.0.2 --namespace a":                         "belong to --machines",
		"--format kea --server 10.0.0.2 --machines -A -n a":                    "exclude each other",
		"--format kea --server 10.0.0.2 extra":                                 "unknown command",
		"--format kea --server 10.0.0.2 --no-such-flag":                        "unknown flag",
		"--format kea --server 10.0.0.2 --machines --range x --kubeconfig /no": "is not of the form", // before the cluster is asked
	} {
		code, out, errs := bootctlDHCP(t, strings.Fields(args)...)
		require.Equal(t, exitUsage, code, "%s: %s", args, errs)
		require.Contains(t, errs, want, args)
		require.Empty(t, out, args)
	}
}

func TestDHCPWithoutItsClusterPrintsNothing(t *testing.T) {
	code, out, errs := bootctlDHCP(t, "--format", "kea", "--server", "10.0.0.2", "--machines", "--kubeconfig", filepath.Join(t.TempDir(), "none"))
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "reading the machines: connecting to the cluster")
	require.Empty(t, out)
}

func TestDHCPReservesForTheClustersMachines(t *testing.T) {
	plane, err := controlplane.Launch(t.Context(), controlplane.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = plane.Stop() })
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, plane.Kubeconfig, 0o600))
	c, _, err := clusterFlags{kubeconfig: kubeconfig}.connect()
	require.NoError(t, err)
	mine, other := controlplane.Namespace(t, plane.Config), controlplane.Namespace(t, plane.Config)

	create := func(o client.Object) { require.NoError(t, c.Create(context.Background(), o)) }
	create(&v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: mine, Name: "one"}, Spec: v1alpha1.HTTPBootConfigSpec{
		NetworkIdentifiers: []string{"52-54-00-AA-BB-01", "10.0.0.11"}}})
	create(&v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: mine, Name: "unpaired"}, Spec: v1alpha1.HTTPBootConfigSpec{
		NetworkIdentifiers: []string{"52:54:00:aa:bb:02", "52:54:00:aa:bb:03", "10.0.0.12", "10.0.0.13"}}})
	create(&v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: mine, Name: "broken"}, Spec: v1alpha1.HTTPBootConfigSpec{
		NetworkIdentifiers: []string{"10.0.0.999"}}})
	create(&v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "two"}, Spec: v1alpha1.IPXEBootConfigSpec{
		Image: "registry.example.com/os:1", SystemIPs: []string{"10.0.0.14"}, NetworkIdentifiers: []string{"52:54:00:aa:bb:04"}}})

	run := func(args ...string) (string, string) {
		code, out, errs := bootctlDHCP(t, append([]string{"--format", "dnsmasq", "--server", "10.0.0.2", "--machines", "--kubeconfig", kubeconfig}, args...)...)
		require.Zero(t, code, errs)
		return out, errs
	}
	out, errs := run("--namespace", mine)
	require.Contains(t, out, "# HTTPBootConfig "+mine+"/one\ndhcp-host=52:54:00:aa:bb:01,10.0.0.11\n")
	require.Contains(t, out, "# Not reserved: HTTPBootConfig "+mine+"/unpaired lists 10.0.0.12, 10.0.0.13 and the MAC addresses 52:54:00:aa:bb:02, 52:54:00:aa:bb:03, and does not say which belong together.")
	require.NotContains(t, out, "52:54:00:aa:bb:04")
	require.Contains(t, errs, "warning: HTTPBootConfig "+mine+"/broken: spec.networkIdentifiers: invalid: \"10.0.0.999\"")

	for _, args := range [][]string{{"--all-namespaces"}, {"-n", mine + "," + other}} {
		out, _ = run(args...)
		require.Contains(t, out, "# IPXEBootConfig "+other+"/two\ndhcp-host=52:54:00:aa:bb:04,10.0.0.14\n")
		require.Contains(t, out, "dhcp-host=52:54:00:aa:bb:01,10.0.0.11")
	}
	_, errs = run() // the context's namespace is default, where nothing is
	require.Contains(t, errs, "there are no HTTPBootConfigs or IPXEBootConfigs")
}
