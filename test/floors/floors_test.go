package floors

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the module's directory.
const root = "../.."

func listPackages(t *testing.T) []pkg {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir, cmd.Stderr = root, &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			require.NoError(t, err)
		}
		all = append(all, p)
	}
}

func TestImportsPointDown(t *testing.T) {
	packages := listPackages(t)
	require.Greater(t, len(packages), 10, "go list must have found this repository")
	for _, line := range check(table, packages) {
		t.Error(line)
	}
}

func TestEveryRowOfTheTableIsAboutAPackage(t *testing.T) {
	packages := listPackages(t)
	for name := range table {
		found := slices.ContainsFunc(packages, func(p pkg) bool {
			path := strings.TrimPrefix(p.ImportPath, module)
			return path == name || (strings.HasSuffix(name, "/") && strings.HasPrefix(path, name))
		})
		require.True(t, found, "nothing is called %s any more", name)
	}
}

// The checker itself: a graph with one of each mistake.
func TestEveryMistakeIsReported(t *testing.T) {
	ours := func(names ...string) []string {
		for n := range names {
			names[n] = module + names[n]
		}
		return names
	}
	graph := []pkg{
		{ImportPath: module + "internal/boot"},
		{ImportPath: module + "api/v1alpha1", Imports: ours("internal/boot")},
		{ImportPath: module + "internal/claim", Imports: ours("api/v1alpha1", "internal/boot", "internal/phase")},
		{ImportPath: module + "internal/artifact", Imports: ours("api/v1alpha1")},
		{ImportPath: module + "internal/inventory", Imports: append(ours("internal/claim", "internal/prefetch"), "k8s.io/client-go/tools/cache")},
		{ImportPath: module + "internal/httpserver", Imports: ours("internal/boot", "internal/claim"), Deps: []string{"fmt", "k8s.io/client-go/rest"}},
		{ImportPath: module + "internal/phase", Imports: ours("internal/controller/bootconfig")},
		{ImportPath: module + "internal/observe", Imports: ours("test/registry", "cmd/boot-operator")},
		{ImportPath: module + "internal/common", Imports: ours("internal/boot")},
		{ImportPath: module + "cmd/boot-operator", Imports: ours("internal/inventory", "internal/boot")},
		{ImportPath: module + "test/run", Imports: ours("internal/inventory", "test/registry", "cmd/boot-operator")},
	}
	require.ElementsMatch(t, []string{
		"api/v1alpha1 imports its peer internal/boot",
		"internal/claim imports its peer internal/phase",
		"internal/artifact imports api/v1alpha1; it may import only internal/boot",
		"internal/inventory imports its peer internal/prefetch",
		"internal/httpserver imports internal/claim; it may import only internal/boot, internal/render, internal/artifact, internal/iso",
		"internal/httpserver depends on k8s.io/client-go/rest: it must know nothing of Kubernetes",
		"internal/phase (floor 1) imports internal/controller/bootconfig (floor 2): imports point down",
		"internal/observe imports test/registry, which is for tests only",
		"internal/observe (floor 2) imports cmd/boot-operator (floor 3): imports point down",
		"internal/common is on no floor: add it to the table in test/floors/floors.go",
		"test/run imports cmd/boot-operator: commands are started, not imported",
	}, check(table, graph))
}

// topLevel is all that the repository's root holds, besides dotfiles and what
// .gitignore names.
var topLevel = []string{
	"Dockerfile", "LICENSE", "Makefile", "README.md", "api", "charts", "cmd", "config", "docs", "go.mod", "go.sum", "internal", "test",
}

func TestTheTopLevelIsWhatItSays(t *testing.T) {
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	ignored := ignoredNames(t)
	var got []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(ignored, e.Name()) {
			got = append(got, e.Name())
		}
	}
	require.ElementsMatch(t, topLevel, got)
}

// ignoredNames are the plain names of .gitignore that mean the root's entries.
func ignoredNames(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	require.NoError(t, err)
	var names []string
	for _, line := range strings.Fields(string(text)) {
		names = append(names, strings.Trim(line, "/"))
	}
	return names
}

// vague are names that say nothing of what is in a folder.
var vague = []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "shared"}

// allowedVague are folders whose name others prescribe.
var allowedVague = []string{
	"config/manager", // kubebuilder's layout: the operator's Deployment
}

func TestFoldersSayWhatIsInThem(t *testing.T) {
	for _, path := range vagueFolders(t, os.DirFS(root)) {
		if !slices.Contains(allowedVague, path) {
			t.Errorf("%s: a folder has one reason to exist, and its name says it", path)
		}
	}
}

func TestVagueNamesAreFound(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"internal/util", "internal/boot", "pkg/a/Helpers", ".hidden/common"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, path), 0o750))
	}
	require.Equal(t, []string{"internal/util", "pkg/a/Helpers"}, vagueFolders(t, os.DirFS(dir)))
}

func vagueFolders(t *testing.T, tree fs.FS) []string {
	t.Helper()
	var found []string
	require.NoError(t, fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir() || path == ".":
			return nil
		case strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case slices.Contains(vague, strings.ToLower(d.Name())):
			found = append(found, path)
		}
		return nil
	}))
	return found
}
