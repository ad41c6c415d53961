// Command run is `make run`: a control plane, an OCI registry with a demo
// image, the operator with everything on, and a sample object, all on this
// machine and gone when it ends. With --demo (`make demo`) a machine in QEMU
// boots the demo image. Nothing needs to be installed but Go, and QEMU with its
// UEFI firmware for --demo.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/lab"
)

func main() {
	demo := flag.Bool("demo", false, "boot a machine in QEMU when everything is ready")
	dir := flag.String("dir", "", "directory of everything that this writes; by default .run in the checkout")
	flag.Parse()

	// The handlers stay in force until the end: a second signal does not cut the
	// cleaning short.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(endWithParent(ctx), *dir, *demo, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

// run is everything, from start to end. It returns nil when it was told to end.
func run(ctx context.Context, dir string, demo bool, out io.Writer) (err error) {
	if demo {
		if err := lab.Check(lab.QEMU); err != nil {
			return fmt.Errorf("the demo needs QEMU and UEFI firmware: %w", err)
		}
	}
	if dir == "" {
		root, err := cache.Repo()
		if err != nil {
			return err
		}
		dir = filepath.Join(root, ".run")
	}
	w, err := openWorkdir(dir)
	if err != nil {
		return err
	}
	s := &site{workdir: w, out: out}
	err = s.live(ctx, demo)
	told := ctx.Err() != nil
	if told {
		fmt.Fprintln(out, "cleaning up")
	}
	if stopErr := s.stop(); stopErr != nil {
		return errors.Join(err, fmt.Errorf("cleaning up: %w", stopErr))
	}
	if err != nil && !told {
		return errors.Join(err, w.empty(true))
	}
	return w.remove()
}

// live starts everything, says so, and stays until ctx ends or something fails.
func (s *site) live(ctx context.Context, demo bool) error {
	started := time.Now()
	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"starting the control plane", s.startControlPlane},
		{"publishing the demo image", s.publishDemoImage},
		{"building the operator, which takes a minute or two the first time", s.buildOperator},
		{"starting the operator", s.startOperator},
		{"applying the sample", s.applySample},
		{"waiting for the sample to be ready", s.waitForSample},
	} {
		fmt.Fprintf(s.out, "%5.1fs  %s\n", time.Since(started).Seconds(), step.title)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	if err := s.writeEnv(); err != nil {
		return err
	}
	s.tell()
	fmt.Fprintln(s.out, "ready")
	if demo {
		if err := s.bootMachine(ctx); err != nil {
			return fmt.Errorf("booting a machine: %w", err)
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case <-s.operator.ended:
		return s.operator.failure()
	}
}
