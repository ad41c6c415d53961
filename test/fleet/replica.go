package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/boot-operator/boot-operator/test/transcript"
)

// Replica is one process of the operator, with a store and a connection to the API
// server of its own; it keeps both over a restart, and its ports.
type Replica struct {
	Name string
	// Boot and Probe are the addresses of its boot server and of its probes.
	Boot, Probe string
	Gate        *Gate
	// Log is what all its processes said.
	Log transcript.Transcript

	binary string
	flags  []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	// spent is the CPU time of its processes that ended.
	spent time.Duration
}

// newReplica prepares a replica whose files are in dir; Start runs it. It listens at
// an address of loopback that nothing connects from: a port there stays free while the
// replica is down.
func newReplica(name, ip, binary, dir string, gate *Gate, flags []string) (*Replica, error) {
	r := &Replica{Name: name, Gate: gate, binary: binary}
	var err error
	if r.Boot, err = freeAddress(ip); err != nil {
		return nil, err
	}
	if r.Probe, err = freeAddress(ip); err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\ncurrent-context: c\n", gate.URL())
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		return nil, err
	}
	r.flags = append([]string{
		"--kubeconfig=" + kubeconfig, "--leader-elect", "--boot-server-address=" + r.Boot, "--health-probe-bind-address=" + r.Probe,
		"--image-proxy-server-address=0", "--metrics-bind-address=0", "--artifact-dir=" + filepath.Join(dir, "store"),
	}, flags...)
	return r, nil
}

// Start runs a process; more flags go after those of the replica.
func (r *Replica) Start(more ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd = exec.Command(r.binary, append(append([]string(nil), r.flags...), more...)...)
	r.cmd.Stdout, r.cmd.Stderr = &r.Log, &r.Log
	dieWithParent(r.cmd)
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("starting replica %s: %w", r.Name, err)
	}
	done := make(chan struct{})
	r.done = done
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		r.mu.Lock()
		r.spent += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		r.mu.Unlock()
		close(done)
	}(r.cmd)
	return nil
}

// Kill is kill -9; it returns when the process is gone.
func (r *Replica) Kill() {
	if cmd, done := r.process(); cmd != nil {
		_ = cmd.Process.Kill()
		<-done
	}
}

// Drain asks the process to end, as Kubernetes does, and returns how long it took. It
// is killed when ctx ends first.
func (r *Replica) Drain(ctx context.Context) (time.Duration, error) {
	cmd, done := r.process()
	if cmd == nil {
		return 0, fmt.Errorf("draining replica %s: it does not run", r.Name)
	}
	start := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("draining replica %s: %w", r.Name, err)
	}
	select {
	case <-done:
	case <-ctx.Done():
		r.Kill()
		return 0, fmt.Errorf("draining replica %s: %w", r.Name, ctx.Err())
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return 0, fmt.Errorf("draining replica %s: it ended with code %d", r.Name, code)
	}
	return time.Since(start), nil
}

// Running says whether its process lives.
func (r *Replica) Running() bool {
	_, done := r.process()
	if done == nil {
		return false
	}
	select {
	case <-done:
		return false
	default:
		return true
	}
}

func (r *Replica) process() (*exec.Cmd, chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cmd, r.done
}

// ticks is the unit of CPU time in /proc, on every architecture that Go runs on.
const ticks = 100

// CPU is the CPU time of all its processes so far (proc(5): utime and stime).
func (r *Replica) CPU() (time.Duration, error) {
	r.mu.Lock()
	cmd, spent := r.cmd, r.spent
	r.mu.Unlock()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if errors.Is(err, os.ErrNotExist) {
		return spent, nil
	}
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("reading /proc/%d/stat: %d fields", cmd.Process.Pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return spent + time.Duration(user+system)*time.Second/ticks, err
}

// Peak is the most memory that its present process had, in MiB (proc(5): VmHWM).
func (r *Replica) Peak() (float64, error) {
	cmd, _ := r.process()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in /proc/%d/status", cmd.Process.Pid)
}

// freeAddress is a port that nobody has now.
func freeAddress(ip string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
