// Command tool runs a pinned tool, and builds it first where it is missing:
//
//	go run ./test/cache/tool helm lint charts/boot-operator
//
// With only the name of a module it builds all of that module's tools and prints
// the directory that they are in: `controlplane` or `tools`.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/boot-operator/boot-operator/test/cache"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say which tool to run, or `controlplane` or `tools` to build them")
	}
	switch args[0] {
	case "controlplane":
		return printDir(cache.Tools(ctx, cache.ControlPlane, os.Stderr))
	case "tools":
		return printDir(cache.Tools(ctx, cache.Development, os.Stderr))
	}
	module := cache.Development
	if args[0] == "kubectl" {
		module = cache.ControlPlane
	}
	dir, err := cache.Tools(ctx, module, os.Stderr, args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(filepath.Join(dir, args[0]), args, os.Environ())
}

func printDir(dir string, err error) error {
	if err == nil {
		fmt.Println(dir)
	}
	return err
}
