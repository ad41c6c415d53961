package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// replica is one process of the operator, which never leads.
type replica struct {
	cmd   *exec.Cmd
	log   bytes.Buffer
	boot  string
	probe string
}

// startReplica runs the operator's binary against an API server and waits until
// it is ready.
func startReplica(ctx context.Context, binary, dir string, api *httptest.Server, flags ...string) (*replica, error) {
	kubeconfig := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: none}}]\ncurrent-context: c\n", api.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		return nil, err
	}
	r := &replica{boot: freeAddress(), probe: freeAddress()}
	flags = append(flags, "--kubeconfig="+kubeconfig, "--namespace=bench", "--leader-elect", "--boot-server-address="+r.boot, "--health-probe-bind-address="+r.probe,
		"--image-proxy-server-address=0", "--metrics-bind-address=0", "--client-request-rate=0", "--artifact-dir="+filepath.Join(dir, "store"), "--allowed-registries=*", "--image-server-url=http://"+r.boot+"/httpboot")
	r.cmd = exec.CommandContext(ctx, binary, flags...)
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	if err := r.wait(ctx); err != nil {
		r.stop()
		return nil, fmt.Errorf("%w; its log ends:\n%s", err, r.log.Bytes()[max(0, r.log.Len()-3000):])
	}
	return r, nil
}

// wait waits until the boot server answers; the store may still be filling.
func (r *replica) wait(ctx context.Context) error {
	for range 1200 {
		resp, err := http.Get("http://" + r.boot + "/httpboot")
		if err == nil {
			return resp.Body.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.New("the operator did not serve within 120 s")
}

// ready waits until what statuses name is in the store.
func (r *replica) ready(ctx context.Context) error {
	for range 1200 {
		resp, err := http.Get("http://" + r.probe + "/readyz")
		if err == nil && resp.StatusCode == http.StatusOK {
			return resp.Body.Close()
		}
		if err == nil {
			_ = resp.Body.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.New("the operator was not ready within 120 s")
}

func (r *replica) stop() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// memory returns a field of /proc/<pid>/status in MiB: VmRSS or VmHWM (the peak).
func (r *replica) memory(field string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc/%d/status", field, r.cmd.Process.Pid)
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer l.Close()
	return l.Addr().String()
}
