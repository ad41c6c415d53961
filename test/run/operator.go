package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/lab"
)

const (
	operatorNamespace = "boot-operator-system"
	tokenSecret       = "boot-operator-tokens"
	operatorLog       = "operator.log"
	startTimeout      = time.Minute
	stopTimeout       = 5 * time.Second
)

func (s *site) buildOperator(ctx context.Context) error {
	root, err := cache.Repo()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", s.workdir.file("boot-operator"), "./cmd/boot-operator")
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, said)
	}
	return nil
}

// startOperator starts the operator and waits until it serves. Should another
// process take one of its ports in the meantime, it gets others.
func (s *site) startOperator(ctx context.Context) error {
	if err := s.apply(ctx, "operator.yaml", operatorObjects, map[string]string{
		"Namespace": operatorNamespace, "TokenSecret": tokenSecret, "Key": randomKey(),
	}); err != nil {
		return err
	}
	if err := writeCertificate(s.workdir.file("tls.crt"), s.workdir.file("tls.key")); err != nil {
		return err
	}
	for try := 1; ; try++ {
		p, err := pickPorts()
		if err != nil {
			return err
		}
		s.ports = p
		if s.operator, err = s.launchOperator(); err != nil {
			return err
		}
		err = s.operator.waitUntilReady(ctx, p.probes)
		if err == nil || try == 3 || !strings.Contains(s.operator.logTail(), "address already in use") {
			return err
		}
	}
}

// everythingOn are the operator's arguments.
func (s *site) everythingOn() []string {
	bootURL := "http://" + address(s.ports.boot)
	return []string{
		"--kubeconfig=" + s.workdir.file("kubeconfig"),
		"--boot-server-address=" + address(s.ports.boot),
		"--boot-server-tls-address=" + address(s.ports.bootTLS),
		"--tls-cert-file=" + s.workdir.file("tls.crt"),
		"--tls-key-file=" + s.workdir.file("tls.key"),
		"--image-proxy-server-address=" + address(s.ports.images),
		"--image-server-url=" + bootURL + "/httpboot",
		"--ipxe-service-url=" + bootURL,
		"--metrics-bind-address=" + address(s.ports.metrics),
		"--health-probe-bind-address=" + address(s.ports.probes),
		"--allowed-registries=" + s.registryHost,
		"--plain-http-registries=" + s.registryHost,
		"--artifact-dir=" + s.workdir.file("artifacts"),
		"--artifact-max-bytes=1Gi",
		"--resolve-interval=10s",
		"--controllers=*",
		"--baremetalhost-mode=drive",
		"--bmc-ca-file=" + s.workdir.file("tls.crt"),
		// A machine in QEMU finds our loopback at its gateway, and comes from 127.0.0.1.
		fmt.Sprintf("--bmc-boot-url=http://%s:%d", lab.UserGateway, s.ports.boot),
		"--leader-elect",
		"--namespace=" + operatorNamespace,
		"--token-secret=" + tokenSecret,
		"--secret-watch",
		"--drain-delay=0s", "--drain-timeout=2s",
	}
}

// operator is a running operator process.
type operator struct {
	cmd   *exec.Cmd
	guard *exec.Cmd
	log   string
	ended chan struct{} // closed when it has ended and was waited for
}

func (s *site) launchOperator() (*operator, error) {
	o := &operator{log: s.workdir.file(operatorLog), ended: make(chan struct{})}
	log, err := os.Create(o.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	o.cmd = exec.Command(s.workdir.file("boot-operator"), s.everythingOn()...)
	o.cmd.Dir = s.workdir.path
	o.cmd.Env = quietEnvironment()
	o.cmd.Stdout, o.cmd.Stderr = log, log
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ctrl-C is for us; we end it in order
	if err := o.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = o.cmd.Wait() // how it ended is in ProcessState
		close(o.ended)
	}()
	if o.guard, err = guard(o.cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, o.stop())
	}
	return o, nil
}

// quietEnvironment is ours without what would set flags of the operator.
func quietEnvironment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BOOT_OPERATOR_") && !strings.HasPrefix(e, "IPXE_SERVER_ADDRESS=") {
			env = append(env, e)
		}
	}
	return env
}

// guard starts a process that waits for the end of its input, which comes when
// this process ends however it ends, and then kills pid.
func guard(pid int) (*exec.Cmd, error) {
	cmd := exec.Command("/bin/sh", "-c", `trap '' INT TERM HUP; read -r _; kill -9 "$1"`, "guard", fmt.Sprint(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return cmd, cmd.Start()
}

// waitUntilReady waits until the operator's readiness probe says yes.
func (o *operator) waitUntilReady(ctx context.Context, port int) error {
	return poll(ctx, startTimeout, o.failure, func(ctx context.Context) (bool, string) {
		code, err := get(ctx, http.MethodGet, "http://"+address(port)+"/readyz")
		if err != nil {
			return false, err.Error()
		}
		return code == http.StatusOK, fmt.Sprintf("its readiness probe says %d", code)
	})
}

// failure is nil while the operator runs, and says why once it does not.
func (o *operator) failure() error {
	select {
	case <-o.ended:
		return fmt.Errorf("the operator ended (%s); the last lines of its log, %s:\n%s", o.cmd.ProcessState, o.log, o.logTail())
	default:
		return nil
	}
}

func (o *operator) logTail() string {
	log, _ := os.ReadFile(o.log) // without it there is nothing to show
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// stop ends the operator, in an orderly way if it can.
func (o *operator) stop() error {
	_ = o.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-o.ended:
	case <-time.After(stopTimeout):
		_ = o.cmd.Process.Kill()
		<-o.ended
	}
	if o.guard == nil {
		return nil
	}
	err := o.guard.Process.Kill()
	_ = o.guard.Wait() // killed
	return err
}

// poll asks done until it says yes; otherwise it says why not, or failed does.
func poll(ctx context.Context, timeout time.Duration, failed func() error, done func(context.Context) (bool, string)) error {
	deadline := time.Now().Add(timeout)
	for {
		ok, why := done(ctx)
		if ok {
			return nil
		}
		if err := failed(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s", timeout, why)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// get makes a request and returns the status code.
func get(ctx context.Context, method, url string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	_ = response.Body.Close()
	return response.StatusCode, nil
}

// linkTo makes name in the work directory run program with our kubeconfig.
func (s *site) linkTo(program, name string) error {
	script := fmt.Sprintf("#!/bin/sh\nexec %s --kubeconfig %s \"$@\"\n", quote(program), quote(s.workdir.file("kubeconfig")))
	return os.WriteFile(s.workdir.file(name), []byte(script), 0o755)
}
