package redfish

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the probe prints is looked up in the documentation.
func TestEveryQuirkIsExplainedAndNoneIsInvented(t *testing.T) {
	page, err := os.ReadFile("../../docs/bmcs.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n## Quirks\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	explained := map[string]bool{}
	for line := range strings.Lines(section) {
		if name, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ = strings.Cut(name, "`")
			explained[name] = true
		}
	}
	known := map[string]bool{}
	for _, r := range quirks {
		known[r.Name] = true
		require.NotEmpty(t, r.Reason, r.Name)
	}
	require.Equal(t, known, explained)
}
