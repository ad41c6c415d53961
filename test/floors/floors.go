// Package floors checks the layout of this repository: who may import whom,
// and what folders are called.
package floors

import (
	"fmt"
	"slices"
	"strings"
)

// module is the path of this module.
const module = "github.com/boot-operator/boot-operator/"

// floor is what a package may import of ours. Imports point down: a package
// may import what is on a lower floor, never a peer.
type floor struct {
	number int
	// only limits the lower floors to these packages; nil means all of them.
	only []string
	// noKubernetes: neither the package nor anything that it imports speaks to
	// an API server.
	noKubernetes bool
}

// apart is for what is no part of the operator: tests and the development
// environment. Nothing on a floor may import it.
const apart = -1

// table holds every package, without the module's path. A name that ends in /
// stands for all packages below.
var table = map[string]floor{
	"cmd/": {number: 3},

	"internal/controller/": {number: 2},
	"internal/inventory":   {number: 2},
	"internal/prefetch":    {number: 2},
	"internal/observe":     {number: 2},
	"internal/move":        {number: 2},
	"internal/netboot":     {number: 2, only: []string{"internal/boot", "internal/render"}, noKubernetes: true},
	"internal/compose":     {number: 2, only: []string{"internal/boot", "internal/render", "internal/uki"}, noKubernetes: true},
	"internal/httpserver":  {number: 2, only: []string{"internal/boot", "internal/render", "internal/artifact", "internal/iso"}, noKubernetes: true},

	"internal/publish": {number: 2, only: []string{"internal/artifact", "internal/boot", "internal/uki"}, noKubernetes: true},

	"internal/verification": {number: 2, only: []string{"internal/artifact", "internal/boot", "internal/sigstore", "internal/uki"}, noKubernetes: true},

	"internal/bmcsim": {number: 2, only: []string{"internal/boot", "internal/qemu"}, noKubernetes: true},

	"internal/phase":       {number: 1, only: []string{"api/v1alpha1", "internal/boot"}},
	"internal/claim":       {number: 1, only: []string{"api/v1alpha1", "internal/boot"}},
	"internal/artifact":    {number: 1, only: []string{"internal/boot"}, noKubernetes: true},
	"internal/translate":   {number: 1, only: []string{"api/v1alpha1", "internal/boot"}},
	"internal/userdata":    {number: 1, only: []string{"api/v1alpha1", "internal/boot"}},
	"internal/timeline":    {number: 1, only: []string{"api/v1alpha1", "internal/boot"}},
	"internal/render":      {number: 1, only: []string{"internal/boot"}, noKubernetes: true},
	"internal/dhcprecipe":  {number: 1, only: []string{"internal/boot"}, noKubernetes: true},
	"internal/ignition":    {number: 1, only: []string{"internal/boot"}, noKubernetes: true},
	"internal/uki":         {number: 1, only: []string{"internal/boot"}, noKubernetes: true},
	"internal/sigstore":    {number: 1, only: []string{"internal/boot"}, noKubernetes: true},
	"internal/redfish":     {number: 1, only: []string{"internal/boot"}, noKubernetes: true},
	"internal/qemu":        {number: 1, only: []string{}, noKubernetes: true},
	"internal/networkdata": {number: 1, only: []string{"internal/boot"}, noKubernetes: true},
	"internal/presence":    {number: 1, only: []string{}},
	"internal/tracing":     {number: 1, only: []string{"internal/boot"}, noKubernetes: true},

	"internal/boot": {number: 0, noKubernetes: true},
	"api/":          {number: 0},

	"test/": {number: apart},
}

// kubernetes are the modules through which one speaks to an API server.
var kubernetes = []string{"k8s.io/client-go", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/apiserver", "sigs.k8s.io/controller-runtime"}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	// Deps are its imports, theirs, and so on.
	Deps []string
}

// find returns the row of the table that is about a package.
func find(table map[string]floor, name string) (floor, bool) {
	if f, ok := table[name]; ok {
		return f, true
	}
	for dir := name; dir != ""; {
		dir = dir[:strings.LastIndexByte(dir, '/')+1]
		if f, ok := table[dir]; ok {
			return f, true
		}
		dir = strings.TrimSuffix(dir, "/")
	}
	return floor{}, false
}

// check returns a line for everything in packages that the table forbids.
func check(table map[string]floor, packages []pkg) []string {
	var wrong []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module)
		f, ok := find(table, name)
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s is on no floor: add it to the table in test/floors/floors.go", name))
			continue
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module); ok {
				wrong = append(wrong, checkImport(table, name, f, ours)...)
			}
		}
		if f.noKubernetes {
			wrong = append(wrong, checkKubernetes(name, p.Deps)...)
		}
	}
	return wrong
}

func checkImport(table map[string]floor, name string, f floor, imported string) []string {
	to, ok := find(table, imported)
	switch {
	case !ok:
		return nil // reported as a package itself
	case f.number == apart && to.number < 3:
		return nil
	case f.number == apart:
		return []string{fmt.Sprintf("%s imports %s: commands are started, not imported", name, imported)}
	case to.number == apart:
		return []string{fmt.Sprintf("%s imports %s, which is for tests only", name, imported)}
	case to.number == f.number:
		return []string{fmt.Sprintf("%s imports its peer %s", name, imported)}
	case to.number > f.number:
		return []string{fmt.Sprintf("%s (floor %d) imports %s (floor %d): imports point down", name, f.number, imported, to.number)}
	case f.only != nil && !slices.Contains(f.only, imported):
		return []string{fmt.Sprintf("%s imports %s; it may import only %s", name, imported, strings.Join(f.only, ", "))}
	}
	return nil
}

func checkKubernetes(name string, deps []string) []string {
	for _, d := range deps {
		for _, k := range kubernetes {
			if d == k || strings.HasPrefix(d, k+"/") {
				return []string{fmt.Sprintf("%s depends on %s: it must know nothing of Kubernetes", name, d)}
			}
		}
	}
	return nil
}
