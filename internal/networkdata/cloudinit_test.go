package networkdata_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/internal/networkdata"
)

// cloudInit finds cloud-init itself, of the package of that name.
func cloudInit(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("cloud-init")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("cloud-init is not installed; in CI it has to be: apt-get install --no-install-recommends cloud-init")
	}
	if err != nil {
		t.Skip("NOT TESTED: whether cloud-init reads what is written for it; apt-get install --no-install-recommends cloud-init")
	}
	return path
}

// render lets cloud-init turn a network configuration into files of
// systemd-networkd, and returns them by interface.
func render(t *testing.T, kind string, config []byte, nics ...string) map[string][]string {
	t.Helper()
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	require.NoError(t, os.WriteFile(in, config, 0o600))
	args := []string{"devel", "net-convert", "-p", in, "-k", kind, "-d", dir, "-D", "debian", "-O", "networkd"}
	for _, nic := range nics {
		args = append(args, "-m", nic)
	}
	out, err := exec.CommandContext(t.Context(), cloudInit(t), args...).CombinedOutput() //nolint:gosec // cloud-init
	require.NoError(t, err, "%s", out)
	files, err := filepath.Glob(filepath.Join(dir, "etc/systemd/network/10-cloud-init-*.network"))
	require.NoError(t, err)
	found := map[string][]string{}
	for _, f := range files {
		text, err := os.ReadFile(f) //nolint:gosec // just written
		require.NoError(t, err)
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "10-cloud-init-"), ".network")
		found[name] = sections(string(text))
	}
	return found
}

// sections returns a file's sections, each in a line, sorted.
func sections(text string) []string {
	text = regexp.MustCompile(`\n+`).ReplaceAllString(text, "\n")
	var out []string
	for s := range strings.SplitSeq(text, "\n[") {
		lines := strings.Split(strings.TrimSpace(s), "\n")
		slices.Sort(lines[1:])
		out = append(out, strings.TrimPrefix(strings.Join(lines, " "), "["))
	}
	slices.Sort(out)
	return out
}

// tidy takes out of a rendering what the two forms cannot say alike.
func tidy(files map[string][]string, ethernets []string) map[string][]string {
	dns := regexp.MustCompile(` (DNS|Domains)=[^=]*( [A-Za-z0-9]+=|$)`)
	out := map[string][]string{}
	for name, lines := range files {
		for _, line := range lines {
			for dns.MatchString(line) {
				line = dns.ReplaceAllString(line, "$2") // version 1 knows global ones
			}
			if !slices.Contains(ethernets, name) { // 22.4 leaves them out of version 2
				line = regexp.MustCompile(` MACAddress=\S+`).ReplaceAllString(line, "")
			}
			for _, all := range []string{"Destination=::/0 ", "Destination=0.0.0.0/0 "} { // what a route without one is for
				line = strings.ReplaceAll(line, all, "")
			}
			out[name] = append(out[name], line)
		}
		slices.Sort(out[name])
	}
	return out
}

// cloud-init has a reader of network data of its own: what it makes of that and of
// our conversion must be the same network.
func TestCloudInitReadsTheSameFromBoth(t *testing.T) {
	for _, c := range []struct {
		name    string
		nics    []string // name,MAC
		renamed map[string]string
	}{
		{"bond.json", []string{"eth0,52:54:00:aa:bb:01", "eth1,52:54:00:12:34:56", "eth2,52:54:00:aa:bb:03"}, nil},
		{"capm3.yaml", []string{"enp1s0,00:16:3e:00:00:01", "provisioning,52:54:00:12:34:56"}, map[string]string{"vlan-storage": "enp1s0.300"}},
		{"nova.json", []string{"interface2,a0:36:9f:2c:e8:70", "2ecc7709-b3f7-4448-9580-e1ec32d75bbd,a0:36:9f:2c:e8:80", "f9d1a3a2-d0b0-4b5c-8ad6-2a4c1a2c3d4e,a0:36:9f:2c:e8:81"}, map[string]string{"vlan0": "bond0.101"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", c.name))
			require.NoError(t, err)
			converted, err := networkdata.Convert(data)
			require.NoError(t, err)
			var v any
			require.NoError(t, yaml.Unmarshal(data, &v))
			asJSON, err := json.Marshal(v)
			require.NoError(t, err)
			ours := string(converted.YAML)
			for from, to := range c.renamed {
				ours = strings.ReplaceAll(ours, from, to)
			}
			var ethernets []string
			for _, nic := range c.nics {
				name, _, _ := strings.Cut(nic, ",")
				ethernets = append(ethernets, name)
			}
			want := tidy(render(t, "network_data.json", asJSON, c.nics...), ethernets)
			got := tidy(render(t, "yaml", []byte(ours), c.nics...), ethernets)
			require.NotEmpty(t, want)
			require.Equal(t, want, got)
		})
	}
}

// The control: cloud-init does not take just anything.
func TestCloudInitRefusesWhatIsNoNetwork(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	require.NoError(t, os.WriteFile(in, []byte("version: 2\nethernets: {eth0: {addresses: [nonsense]}}\n"), 0o600))
	out, err := exec.CommandContext(t.Context(), cloudInit(t), "devel", "net-convert", "-p", in, "-k", "yaml", "-d", dir, "-D", "debian", "-O", "networkd").CombinedOutput() //nolint:gosec // cloud-init
	require.Error(t, err, "%s", out)
}

// Newer versions have a schema of it too.
func TestCloudInitsSchemaAcceptsTheConfiguration(t *testing.T) {
	cloudInit := cloudInit(t)
	usage, err := exec.CommandContext(t.Context(), cloudInit, "schema", "--help").CombinedOutput() //nolint:gosec // cloud-init
	require.NoError(t, err)
	if !strings.Contains(string(usage), "--schema-type") {
		t.Skip("this cloud-init is older than its schema of network configurations (24.1)")
	}
	golden, err := filepath.Glob("testdata/*.golden")
	require.NoError(t, err)
	require.NotEmpty(t, golden)
	for _, file := range golden {
		out, err := exec.CommandContext(t.Context(), cloudInit, "schema", "--schema-type", "network-config", "--config-file", file).CombinedOutput() //nolint:gosec // cloud-init
		require.NoError(t, err, "%s: %s", file, out)
	}
}
