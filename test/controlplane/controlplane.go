// Package controlplane runs a real kube-apiserver and etcd, built from pinned
// sources, for tests and for `make run`. There is no controller manager:
// nothing collects garbage or empties a deleted namespace.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/test/cache"
)

// Options of a control plane; the zero value is good.
type Options struct {
	// Dir holds etcd's data, certificates and logs. It is removed by Stop.
	// Default: a new temporary directory.
	Dir string
	// CRDs are files and directories with CustomResourceDefinitions to install
	// besides those of config/crd/bases.
	CRDs []string
	// AuditLog is the file that gets a line for every stage of every request, but for
	// their arrival: an Event of audit.k8s.io/v1 at level Metadata. A line is there
	// before the request's answer is. Empty: none.
	AuditLog string
	// Progress is told what is being built, on the first run. Default: stderr.
	Progress io.Writer
}

// ControlPlane is a running kube-apiserver and etcd.
type ControlPlane struct {
	// Config is that of a cluster administrator.
	Config *rest.Config
	// Kubeconfig is the same as a file's content.
	Kubeconfig []byte
	// Kubectl is the path of a kubectl that fits.
	Kubectl string

	dir   string
	env   *envtest.Environment
	guard *exec.Cmd
}

// Launch starts a control plane; whoever launches it stops it. If this process
// dies before that, the control plane is killed.
func Launch(ctx context.Context, o Options) (*ControlPlane, error) {
	if o.Progress == nil {
		o.Progress = os.Stderr
	}
	binaries, err := cache.Tools(ctx, cache.ControlPlane, o.Progress)
	if err != nil {
		return nil, fmt.Errorf("building the control plane: %w", err)
	}
	root, err := cache.Repo()
	if err != nil {
		return nil, err
	}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "controlplane-"); err != nil {
			return nil, err
		}
	}
	c := &ControlPlane{dir: o.Dir, Kubectl: filepath.Join(binaries, "kubectl")}
	if err := c.prepare(binaries, append([]string{filepath.Join(root, "config/crd/bases")}, o.CRDs...)); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing the control plane: %w", err), os.RemoveAll(o.Dir))
	}
	if o.AuditLog != "" {
		if err := c.audit(o.AuditLog); err != nil {
			return nil, errors.Join(fmt.Errorf("preparing the audit log: %w", err), c.Stop())
		}
	}
	if c.Config, err = c.env.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the control plane: %w\n%s", err, c.logTail()), c.Stop())
	}
	c.Kubeconfig = c.env.KubeConfig
	return c, nil
}

// prepare lays out the directory, the guard and envtest's environment.
func (c *ControlPlane) prepare(binaries string, crds []string) error {
	for _, dir := range []string{"data", "certs"} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o700); err != nil {
			return err
		}
	}
	log, err := os.Create(filepath.Join(c.dir, "kube-apiserver.log"))
	if err != nil {
		return err
	}
	c.env = &envtest.Environment{
		CRDDirectoryPaths:        crds,
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: time.Minute,
	}
	c.env.ControlPlane.KubectlPath = c.Kubectl
	etcd := &envtest.Etcd{DataDir: filepath.Join(c.dir, "data")}
	if etcd.Path, err = c.wrapper(binaries, "etcd"); err != nil {
		return err
	}
	c.env.ControlPlane.Etcd = etcd
	apiserver := c.env.ControlPlane.GetAPIServer()
	apiserver.CertDir = filepath.Join(c.dir, "certs")
	apiserver.Out, apiserver.Err = log, log
	if apiserver.Path, err = c.wrapper(binaries, "kube-apiserver"); err != nil {
		return err
	}
	return c.startGuard()
}

// auditPolicy is audit.k8s.io/v1: whole requests would have Secrets in the log.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// audit has the API server write an audit log.
func (c *ControlPlane) audit(log string) error {
	policy := filepath.Join(c.dir, "audit-policy.yaml")
	c.env.ControlPlane.GetAPIServer().Configure().
		Append("audit-policy-file", policy).
		Append("audit-log-path", log).
		Append("audit-log-mode", "blocking")
	return os.WriteFile(policy, []byte(auditPolicy), 0o600)
}

// wrapper writes a script that notes its process ID and becomes the binary:
// envtest does not tell the IDs of what it starts.
func (c *ControlPlane) wrapper(binaries, name string) (string, error) {
	path := filepath.Join(c.dir, name)
	// A child that is forked while the script is open for writing keeps it open
	// until its exec, and nobody could run the script meanwhile (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	script := fmt.Sprintf("#!/bin/sh\necho $$ >'%s.pid'\nexec '%s' \"$@\"\n", path, filepath.Join(binaries, name))
	return path, os.WriteFile(path, []byte(script), 0o700)
}

// startGuard starts a process that waits for the end of its input, which comes
// when this process ends however it ends, and then kills what is left.
func (c *ControlPlane) startGuard() error {
	c.guard = exec.Command("/bin/sh", "-c", `trap '' INT TERM; read -r _; kill -9 $(cat "$1"/*.pid); rm -rf "$1"`, "guard", c.dir)
	c.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	_, err := c.guard.StdinPipe()
	if err != nil {
		return err
	}
	return c.guard.Start()
}

// AddUser returns the config of a user that may do only what RBAC grants it. A
// service account is the user system:serviceaccount:<namespace>:<name>.
func (c *ControlPlane) AddUser(name string, groups ...string) (*rest.Config, error) {
	user, err := c.addUser(name, groups)
	if err != nil {
		return nil, err
	}
	return user.Config(), nil
}

// UserKubeconfig is AddUser for those who want a kubeconfig file's content.
func (c *ControlPlane) UserKubeconfig(name string, groups ...string) ([]byte, error) {
	user, err := c.addUser(name, groups)
	if err != nil {
		return nil, err
	}
	return user.KubeConfig()
}

func (c *ControlPlane) addUser(name string, groups []string) (*envtest.AuthenticatedUser, error) {
	user, err := c.env.AddUser(envtest.User{Name: name, Groups: groups}, &rest.Config{QPS: 1000, Burst: 2000})
	if err != nil {
		return nil, fmt.Errorf("adding user %s: %w", name, err)
	}
	return user, nil
}

// Pause freezes the API server: connections are accepted and nothing answers.
func (c *ControlPlane) Pause() error { return c.signal("kube-apiserver", syscall.SIGSTOP) }

// Resume ends a Pause.
func (c *ControlPlane) Resume() error { return c.signal("kube-apiserver", syscall.SIGCONT) }

// StopAPIServer kills the API server: connections are cut and refused. What it
// wrote stays in etcd.
func (c *ControlPlane) StopAPIServer() error {
	if err := c.signal("kube-apiserver", syscall.SIGKILL); err != nil {
		return err
	}
	// Waits for its end, which is what frees the port.
	return c.env.ControlPlane.APIServer.Stop()
}

// StartAPIServer brings it back after StopAPIServer, at the same address, with
// the same certificates and data.
func (c *ControlPlane) StartAPIServer() error {
	if err := c.env.ControlPlane.APIServer.Start(); err != nil {
		return fmt.Errorf("starting kube-apiserver: %w\n%s", err, c.logTail())
	}
	return nil
}

// Stop ends everything and removes its directory. It does not wait for the
// clients of the API server to go away.
func (c *ControlPlane) Stop() error {
	for _, name := range []string{"kube-apiserver", "etcd"} {
		_ = c.signal(name, syscall.SIGKILL) // not there where its start failed
	}
	err := c.env.Stop() // collects the processes
	_ = c.guard.Process.Kill()
	_ = c.guard.Wait()
	return errors.Join(err, os.RemoveAll(c.dir))
}

func (c *ControlPlane) signal(name string, sig syscall.Signal) error {
	pid, err := c.pid(name)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("sending %s to %s: %w", sig, name, err)
	}
	return nil
}

func (c *ControlPlane) pid(name string) (int, error) {
	text, err := os.ReadFile(filepath.Join(c.dir, name+".pid"))
	if err != nil {
		return 0, fmt.Errorf("finding the process of %s: %w", name, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func (c *ControlPlane) logTail() string {
	log, _ := os.ReadFile(filepath.Join(c.dir, "kube-apiserver.log"))
	return string(log[max(0, len(log)-4000):])
}
