package rights

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/cache"
)

// rowOfRights is a row of the table of rights: role, resources, verbs.
var (
	rowOfRights = regexp.MustCompile("(?m)^\\| `(boot-operator[a-z-]*)` \\| (.*?) \\| (.*?) \\| .+ \\|$")
	quoted      = regexp.MustCompile("`([^`]+)`")
)

// explained are the rights that docs/security.md explains, as role, verb and resource.
func explained(t *testing.T) (all []string) {
	t.Helper()
	root, err := cache.Repo()
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(root, "docs", "security.md")) //nolint:gosec // ours
	require.NoError(t, err)
	_, table, found := strings.Cut(string(page), "## Rights in the cluster")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	for _, row := range rowOfRights.FindAllStringSubmatch(table, -1) {
		resources, _, _ := strings.Cut(row[2], " named ")
		for _, resource := range quoted.FindAllStringSubmatch(resources, -1) {
			for _, verb := range quoted.FindAllStringSubmatch(row[3], -1) {
				all = append(all, row[1]+" "+verb[1]+" "+resource[1])
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// What reviewers read is what is granted: no more and no less.
func TestTheSecurityPageExplainsEveryRight(t *testing.T) {
	var granted []string
	for _, values := range [][]string{
		{"netboot.interfaces={eth0}", "boot.ipxeServiceURL=http://10.0.0.1:8082", "baremetalhost.mode=drive", "boot.ipxeTemplateConfigMap=ipxe"},
		{"secretWatch=true"},
	} {
		for _, r := range rbacOf(t, render(t, values)).rights(t) {
			granted = append(granted, r.Role+" "+r.Verb+" "+strings.TrimSuffix(r.Resource+"."+r.Group, "."))
		}
	}
	slices.Sort(granted)
	require.Greater(t, len(granted), 40)
	require.Equal(t, slices.Compact(granted), explained(t))
}
