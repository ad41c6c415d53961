package cache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Modules whose tool lines are built by Tools, relative to the checkout.
const (
	ControlPlane = "test/controlplane/build" // kube-apiserver, etcd, kubectl
	Development  = "test/tools"              // controller-gen, kustomize, helm, golangci-lint, ko
)

// Tools builds the named tool lines of a module (all of them when none is named)
// and returns the directory that they are in. The directory's name is made of
// everything that decides what the binaries are, so a binary that is there is
// the right one. Progress is told in lines.
func Tools(ctx context.Context, module string, progress io.Writer, names ...string) (string, error) {
	root, err := Repo()
	if err != nil {
		return "", err
	}
	m, err := readModule(filepath.Join(root, module))
	if err != nil {
		return "", fmt.Errorf("reading the tools of %s: %w", module, err)
	}
	if len(names) == 0 {
		names = m.names()
	}
	kind := "tools"
	if module == ControlPlane {
		kind = "controlplane"
	}
	dir := filepath.Join(Dir(kind), m.key)
	for _, name := range names {
		if err := m.build(ctx, name, filepath.Join(dir, name), progress); err != nil {
			return "", fmt.Errorf("building %s: %w", name, err)
		}
	}
	return dir, nil
}

// module is what a nested go.mod says about its tools.
type module struct {
	dir   string
	key   string
	tools map[string]string // name → package
	mods  string
}

var toolLine = regexp.MustCompile(`(?m)^(?:tool )?\t?([a-z0-9.-]+\.[a-z]+/[^\s]+)$`)

func readModule(dir string) (*module, error) {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return nil, err
	}
	sum, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(slices.Concat(mod, sum, []byte(runtime.Version())))
	m := &module{
		dir:   dir,
		key:   fmt.Sprintf("%s-%s-%s", hex.EncodeToString(hash[:6]), runtime.GOOS, runtime.GOARCH),
		tools: map[string]string{},
		mods:  string(mod),
	}
	for _, match := range toolLine.FindAllStringSubmatch(m.mods, -1) {
		m.tools[toolName(match[1])] = match[1]
	}
	return m, nil
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// toolName is the last element of a package's path that is a name.
func toolName(pkg string) string {
	if strings.HasPrefix(pkg, "go.etcd.io/etcd/server/") {
		return "etcd"
	}
	if majorVersion.MatchString(path.Base(pkg)) {
		pkg = path.Dir(pkg)
	}
	return path.Base(pkg)
}

func (m *module) names() []string {
	var names []string
	for name := range m.tools {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// version is that of the required module that holds pkg.
func (m *module) version(pkg string) string {
	for p := pkg; p != "."; p = path.Dir(p) {
		line := regexp.MustCompile(`(?m)^(?:require )?\t?` + regexp.QuoteMeta(p) + ` (v\S+)`)
		if match := line.FindStringSubmatch(m.mods); match != nil {
			return match[1]
		}
	}
	return ""
}

func (m *module) build(ctx context.Context, name, binary string, progress io.Writer) error {
	pkg, ok := m.tools[name]
	if !ok {
		return fmt.Errorf("no tool line in %s; there are %s", m.dir, strings.Join(m.names(), ", "))
	}
	return Make(binary, func(tmp string) error {
		started := time.Now()
		title := name + " " + m.version(pkg)
		fmt.Fprintf(progress, "building %s%s\n", title, estimate(name))
		cmd := exec.CommandContext(ctx, "go", "build", "-v", "-ldflags", m.ldflags(), "-o", tmp, pkg)
		cmd.Dir = m.dir
		cmd.Env = append(os.Environ(), "GOOS=", "GOARCH=", "GOFLAGS=", "GOWORK=off")
		if err := runCounting(cmd, title, progress); err != nil {
			return err
		}
		fmt.Fprintf(progress, "built %s in %s\n", title, time.Since(started).Round(time.Second))
		return nil
	})
}

func estimate(name string) string {
	if name == "kube-apiserver" {
		return ", about 4 minutes, once"
	}
	return ", once"
}

// ldflags make Kubernetes binaries say their version; others ignore them.
func (m *module) ldflags() string {
	version := m.version("k8s.io/kubernetes")
	if version == "" {
		return "-s -w"
	}
	const variable = "k8s.io/component-base/version."
	number := strings.Split(strings.TrimPrefix(version, "v"), ".")
	return fmt.Sprintf("-s -w -X %[1]sgitVersion=%s -X %[1]sgitMajor=%s -X %[1]sgitMinor=%s",
		variable, version, number[0], number[1])
}

// runCounting runs a `go build -v` and says now and then how far it is: -v
// prints a line for each package that it compiles.
func runCounting(cmd *exec.Cmd, title string, progress io.Writer) error {
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var said bytes.Buffer
	packages, next := 0, time.Now().Add(10*time.Second)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if strings.Contains(lines.Text(), " ") { // a message, not a package
			said.WriteString(lines.Text() + "\n")
		} else {
			packages++
		}
		if time.Now().After(next) {
			fmt.Fprintf(progress, "  %s: %d packages compiled\n", title, packages)
			next = time.Now().Add(10 * time.Second)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, said.String())
	}
	return nil
}
