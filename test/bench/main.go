// Command bench prints what the operator's speed and memory are beside a named
// reference, all measured in one run on this machine:
//
//	RATIO <name> <value> goal <relation><goal>
//
// It measures the operator's own binary as a process, and generates the load
// itself; see docs/benchmarks.md for the method.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/boot-operator/boot-operator/test/bench/discovers"
	"github.com/boot-operator/boot-operator/test/cache"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "bare" {
		bare(os.Args[2], os.Args[3])
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == discovers.Command {
		if err := discovers.Serve(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// figures are what is measured, by the names that select them.
var figures = []struct {
	name    string
	measure func(ctx context.Context, binary, dir string) error
}{
	{"throughput", throughput}, {"requests", requests}, {"scripts", scripts}, {"offers", offers}, {"cold-blob", coldBlob}, {"composing", composing}, {"fleet", rollout},
}

// run measures what is wanted; all where nothing is named.
func run(ctx context.Context, wanted []string) error {
	dir, err := os.MkdirTemp("", "boot-operator-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := cache.Repo()
	if err != nil {
		return err
	}
	binary := filepath.Join(dir, "boot-operator")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/boot-operator")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the operator: %w\n%s", err, out)
	}
	for _, f := range figures {
		if len(wanted) > 0 && !slices.Contains(wanted, f.name) {
			continue
		}
		work, err := os.MkdirTemp(dir, "")
		if err != nil {
			return err
		}
		if err := f.measure(ctx, binary, work); err != nil {
			return err
		}
	}
	return nil
}

// offers measures how many of the DISCOVERs that machines send are answered, by a
// ProxyDHCP server on one core.
func offers(ctx context.Context, _, _ string) error {
	const rate, seconds = 2000, 10
	sent, answered, cpu, err := discovers.Measure(ctx, rate, seconds)
	if err != nil {
		return fmt.Errorf("measuring ProxyDHCP: %w", err)
	}
	ratio(fmt.Sprintf("proxydhcp-%d-per-second-answered", rate), float64(answered)/float64(sent), ">=1.00")
	ratio("proxydhcp-core-busy", cpu/seconds, "<=1.00")
	return nil
}

// ratio prints one figure.
func ratio(name string, value float64, goal string) {
	fmt.Printf("RATIO %s %.2f goal %s\n", name, value, goal)
}

// paired measures a and b in turn and returns the median of a/b, so that a
// machine whose speed drifts does not favour either.
func paired(pairs int, a, b func() (float64, error)) (float64, error) {
	var ratios []float64
	for i := range pairs + 1 {
		x, err := a()
		if err != nil {
			return 0, err
		}
		y, err := b()
		if err != nil {
			return 0, err
		}
		if i > 0 { // the first pair warms up
			ratios = append(ratios, x/y)
		}
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2], nil
}

// bare is the reference of the request figures: net/http writing the same bytes.
func bare(address, file string) {
	body, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server := &http.Server{Addr: address, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
}

// startBare runs the reference as a process of its own.
func startBare(ctx context.Context, dir string, body []byte) (address string, stop func(), err error) {
	file := filepath.Join(dir, "body")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		return "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	address = freeAddress()
	cmd := exec.CommandContext(ctx, self, "bare", address, file)
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	return address, stop, waitFor(address)
}

func waitFor(address string) error {
	for range 200 {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("nothing listens on %s", address)
}
