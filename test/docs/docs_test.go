// Package docs holds that the documentation says what the code does.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/cache"
)

// Reasons that an IPXEBootConfig cannot have, and those that only it can.
var (
	onlyHTTP = map[string]bool{
		"DefaultImage": true, "NotAUKI": true, "UKIDelivered": true, "UKIDeliveryIncomplete": true,
		"ComposeRequired": true, "ComposeFailed": true, "SigningKeyInvalid": true,
	}
	onlyIPXE = map[string]bool{
		"IPXEScriptDeliveryIncomplete": true, "ScriptInvalid": true, "TemplateInvalid": true, "KernelArgumentInvalid": true, "SecureBootUnsupported": true,
	}
)

func TestEveryReasonIsExplained(t *testing.T) {
	all := reasons(t)
	require.Greater(t, len(all), 30)
	for page, other := range map[string]map[string]bool{"docs/httpbootconfig.md": onlyIPXE, "docs/ipxebootconfig.md": onlyHTTP} {
		text := read(t, page)
		for _, reason := range all {
			if !other[reason] {
				require.True(t, strings.Contains(text, "`"+reason+"`"), "%s does not explain %s", page, reason)
			}
		}
	}
}

// A reason that is explained and does not exist misleads as much.
func TestNoReasonIsInvented(t *testing.T) {
	known := map[string]bool{}
	for _, reason := range reasons(t) {
		known[reason] = true
	}
	row := regexp.MustCompile("(?m)^\\| (?:`?\\w+`? \\| )?(?:True|False|Unknown)[, \\w]* \\| ((?:`\\w+`(?:, )?)+) \\|")
	for _, page := range []string{"docs/httpbootconfig.md", "docs/ipxebootconfig.md"} {
		rows := row.FindAllStringSubmatch(read(t, page), -1)
		require.Greater(t, len(rows), 20, page)
		for _, match := range rows {
			for reason := range strings.SplitSeq(match[1], ", ") {
				require.True(t, known[strings.Trim(reason, "`")], "%s: %s", page, reason)
			}
		}
	}
}

// reasons are the values of the constants Reason… of the API.
func reasons(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root(t), "api/v1alpha1/conditions.go"), nil, 0)
	require.NoError(t, err)
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		found = append(found, value)
		return false
	})
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	count := 0
	for _, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			count++
			path, anchor, _ := strings.Cut(match[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			require.FileExists(t, filepath.Join(root(t), target), "%s links to %s", page, match[1])
			if anchor != "" {
				require.Contains(t, anchors(read(t, target)), anchor, "%s links to %s", page, match[1])
			}
		}
	}
	require.Greater(t, count, 20)
}

// anchors are those that GitHub makes of headings.
func anchors(text string) []string {
	var found []string
	notInAnchor := regexp.MustCompile(`[^a-z0-9 _-]`)
	for line := range strings.Lines(text) {
		if title := strings.TrimLeft(line, "#"); title != line && strings.HasPrefix(title, " ") {
			name := notInAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			found = append(found, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return found
}

// A flag that a page names has to exist; docs/flags.md is made of the operator's
// flags.
func TestNamedFlagsExist(t *testing.T) {
	flags := read(t, "docs/flags.md")
	named := regexp.MustCompile("`--([a-z0-9-]+)")
	others := bootctlFlags(t)
	others["demo"] = true
	others["recursive"] = true // cosign's
	for _, page := range pages(t) {
		for _, match := range named.FindAllStringSubmatch(read(t, page), -1) {
			if !others[match[1]] && !strings.HasPrefix(page, "docs/adr/") {
				require.True(t, strings.Contains(flags, "| `--"+match[1]+"` |"), "%s names --%s, which is no flag", page, match[1])
			}
		}
	}
}

// bootctlFlags are the flags of the command line, as its source declares them.
func bootctlFlags(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("../../cmd/bootctl/*.go")
	require.NoError(t, err)
	flags := map[string]bool{}
	declared := regexp.MustCompile(`(?:Var(?:P)?\(&[\w.]+, (?:prefix\+)?|f\.(?:flag|call)\()"([a-z0-9-]+)"`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range declared.FindAllStringSubmatch(string(text), -1) {
			flags[match[1]] = true
		}
	}
	require.Greater(t, len(flags), 10)
	return flags
}

// A decision that says which test holds it has to name one that is there.
func TestNamedTestsExist(t *testing.T) {
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	require.NoError(t, filepath.WalkDir(root(t), func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		for _, match := range declared.FindAllStringSubmatch(string(code), -1) {
			tests[match[1]] = true
		}
		return err
	}))
	for _, page := range pages(t) {
		for _, match := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(read(t, page), -1) {
			require.True(t, tests[match[1]], "%s names %s, which is not there", page, match[1])
		}
	}
}

// TestEveryPackageIsOnTheMap holds docs/architecture.md to the directories that
// are there, both ways.
func TestEveryPackageIsOnTheMap(t *testing.T) {
	text := read(t, "docs/architecture.md")
	var packages []string
	for _, pattern := range []string{"api/*", "cmd/*", "internal/*", "internal/controller/*"} {
		found, err := filepath.Glob(filepath.Join(root(t), pattern, "*.go"))
		require.NoError(t, err)
		for _, file := range found {
			rel, err := filepath.Rel(root(t), filepath.Dir(file))
			require.NoError(t, err)
			packages = append(packages, rel)
		}
	}
	require.NotEmpty(t, packages)
	for _, pkg := range packages {
		require.True(t, strings.Contains(text, "| `"+pkg+"` |"), "%s is not on the map", pkg)
	}
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z0-9/-]+)` \\|").FindAllStringSubmatch(text, -1) {
		require.True(t, slices.Contains(packages, match[1]), "the map has %s, which is not there", match[1])
	}
}

func pages(t *testing.T) []string {
	t.Helper()
	found := []string{"README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(root(t), pattern))
		require.NoError(t, err)
		for _, file := range files {
			rel, err := filepath.Rel(root(t), file)
			require.NoError(t, err)
			found = append(found, rel)
		}
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), path))
	require.NoError(t, err)
	return string(text)
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := cache.Repo()
	require.NoError(t, err)
	return dir
}
