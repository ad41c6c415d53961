package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/test/controlplane"
)

// site is everything that runs.
type site struct {
	workdir *workdir
	out     io.Writer

	plane        *controlplane.ControlPlane
	client       client.Client
	stopRegistry func() error
	registryHost string // host:port
	image        string
	ports        ports
	operator     *operator
	stopMachine  func() // the demo's machine and its BMC
}

func (s *site) startControlPlane(ctx context.Context) error {
	// A name of its own: what is left of an earlier run that was killed may
	// still be about to remove its directory.
	dir := s.workdir.file(fmt.Sprintf("controlplane-%d", os.Getpid()))
	plane, err := controlplane.Launch(ctx, controlplane.Options{Dir: dir, Progress: s.out})
	if err != nil {
		return err
	}
	s.plane = plane
	crds, err := controlplane.Metal3CRDs()
	if err != nil {
		return err
	}
	if _, err := envtest.InstallCRDs(plane.Config, crds); err != nil {
		return fmt.Errorf("installing Metal3's CRD: %w", err)
	}
	if err := os.WriteFile(s.workdir.file("kubeconfig"), plane.Kubeconfig, 0o600); err != nil {
		return err
	}
	return s.linkTo(plane.Kubectl, "kubectl")
}

// stop ends what runs, the last started first.
func (s *site) stop() error {
	var errs []error
	if s.operator != nil {
		errs = append(errs, s.operator.stop())
	}
	if s.stopMachine != nil {
		s.stopMachine()
	}
	if s.stopRegistry != nil {
		errs = append(errs, s.stopRegistry())
	}
	if s.plane != nil {
		errs = append(errs, s.plane.Stop())
	}
	return errors.Join(errs...)
}

func (s *site) bootURL() string { return "http://" + address(s.ports.boot) }

func (s *site) metricsURL() string { return "http://" + address(s.ports.metrics) + "/metrics" }

// writeEnv writes what scripts and second terminals want to know.
func (s *site) writeEnv() error {
	env := fmt.Sprintf("BOOT_URL=%s\nREGISTRY=%s\nMETRICS_URL=%s\nKUBECONFIG=%s\n",
		s.bootURL(), s.registryHost, s.metricsURL(), quote(s.workdir.file("kubeconfig")))
	return os.WriteFile(s.workdir.file("env"), []byte(env), 0o644)
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)

// quote is a path as a shell reads it.
func quote(path string) string {
	if plain.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// tell says where everything is and what to try.
func (s *site) tell() {
	kubectl := "kubectl --kubeconfig " + quote(s.workdir.short("kubeconfig"))
	if _, err := exec.LookPath("kubectl"); err != nil {
		kubectl = quote(s.workdir.short("kubectl"))
	}
	fmt.Fprintf(s.out, `
kubeconfig    %s
boot server   %s
  over HTTPS  https://%s, certificate in %s
image server  http://%s
registry      %s, with the image %s
metrics       %s
operator log  %s

From another terminal, as the machine 127.0.0.1:

  . %s
  curl -o uki.efi $BOOT_URL/httpboot
  curl $BOOT_URL/ignition
  %s get httpbootconfigs

ctrl-C ends everything and leaves nothing behind.

`, s.workdir.short("kubeconfig"), s.bootURL(), address(s.ports.bootTLS), s.workdir.short("tls.crt"), address(s.ports.images),
		s.registryHost, s.image, s.metricsURL(), s.workdir.short(operatorLog), quote(s.workdir.short("env")), kubectl)
}
