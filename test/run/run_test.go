package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/transcript"
)

const (
	readyTimeout = 15 * time.Minute // the first start builds the control plane
	endTimeout   = 20 * time.Second
)

// TestQuickstart does what the README says: start, the three commands, the
// deletion, ctrl-C. It begins where an earlier run was killed, and with a taken
// port.
func TestQuickstart(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane, a registry and the operator")
	}
	dir := filepath.Join(t.TempDir(), "a run")
	binary := build(t)

	killed := start(t, dir, binary)
	killed.waitReady(t)
	require.GreaterOrEqual(t, len(processes(t, dir)), 4, "run, API server, etcd and operator have the directory among their arguments")
	second := start(t, dir, binary)
	require.ErrorContains(t, second.wait(t), "exit status 1", "two runs in one directory")
	require.Contains(t, second.output.String(), "another run uses "+dir)
	require.NoError(t, killed.cmd.Process.Kill())
	_ = killed.wait(t)
	eventually(t, func() error { return noProcess(t, dir) })
	require.DirExists(t, dir, "nobody cleaned up, so that the next start has to")

	taken, err := net.Listen("tcp", "127.0.0.1:8082")
	if err == nil { // else it is taken by someone else, which is as good
		defer func() { _ = taken.Close() }()
	}
	r := start(t, dir, binary)
	env := r.waitReady(t)
	require.NotContains(t, env["BOOT_URL"], ":8082")
	checkCommands(t, dir, env)
	checkDeletion(t, dir, env)

	require.NoError(t, syscall.Kill(-r.cmd.Process.Pid, syscall.SIGINT), "ctrl-C reaches the whole process group")
	require.NoError(t, r.wait(t))
	require.NoError(t, noProcess(t, dir))
	require.NoDirExists(t, dir)
}

// checkCommands runs the three commands as they were printed.
func checkCommands(t *testing.T, dir string, env map[string]string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "uki.efi")
	require.NoError(t, os.WriteFile(file, httpGet(t, env["BOOT_URL"]+"/httpboot", http.StatusOK), 0o600))
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	require.NoError(t, err)
	image, err := uki.Inspect(f, info.Size())
	require.NoError(t, err)
	require.EqualValues(t, "amd64", image.Architecture)

	require.Contains(t, string(httpGet(t, env["BOOT_URL"]+"/ignition", http.StatusOK)), `"/etc/motd"`)

	eventually(t, func() error {
		return matches(kubectl(t, dir, "get", "httpbootconfigs"), `(?m)^demo +True +Ready +Always +sha256:[0-9a-f]{64} +\d+ +\d+ +True +True +127\.0\.0\.1 `)
	})
	require.Contains(t, string(httpGet(t, env["METRICS_URL"], http.StatusOK)), "boot_operator_")
	httpGet(t, "http://"+env["REGISTRY"]+"/v2/", http.StatusOK)
}

// checkDeletion holds that a deleted machine is unknown within 2 s.
func checkDeletion(t *testing.T, dir string, env map[string]string) {
	t.Helper()
	kubectl(t, dir, "delete", "httpbootconfig", "demo")
	deadline := time.Now().Add(2 * time.Second)
	for {
		code, err := get(t.Context(), http.MethodGet, env["BOOT_URL"]+"/httpboot")
		require.NoError(t, err)
		if code == http.StatusNotFound {
			return
		}
		require.True(t, time.Now().Before(deadline), "status %d 2 s after the deletion", code)
		time.Sleep(20 * time.Millisecond)
	}
}

// TestEndsWithWhatStartedIt holds that a signal to `go run` or make, neither of
// which passes it on, leaves nothing behind, even in the middle of the start.
func TestEndsWithWhatStartedIt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a control plane")
	}
	for _, test := range []struct {
		name    string
		command func(dir string) []string
		signal  syscall.Signal
	}{
		{"go run", func(dir string) []string { return []string{"go", "run", ".", "--dir=" + dir} }, syscall.SIGTERM},
		{"make", func(dir string) []string { return makeRun(t, build(t), dir) }, syscall.SIGINT},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "make" && runtime.GOOS != "linux" {
				t.Skip("what make got is only seen on Linux")
			}
			dir := filepath.Join(t.TempDir(), ".run")
			r := launch(t, dir, os.Environ(), test.command(dir)...)
			eventuallyWithin(t, readyTimeout, func() error { return matches(r.output.String(), "building the operator") })
			require.NotEmpty(t, processes(t, dir))
			require.NoError(t, r.cmd.Process.Signal(test.signal))
			eventually(t, func() error {
				if _, err := os.Stat(dir); err == nil {
					return errors.New(dir + " is still there")
				}
				return noProcess(t, dir)
			})
			_ = r.wait(t)
		})
	}
}

// makeRun is a make whose recipe is the command.
func makeRun(t *testing.T, binary, dir string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Makefile")
	require.NoError(t, os.WriteFile(file, []byte("run:\n\t@exec "+binary+" --dir="+dir+"\n"), 0o600))
	return []string{"make", "-f", file, "run"}
}

func TestDemoBootsAMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	lab.Require(t, lab.QEMU)
	dir := filepath.Join(t.TempDir(), ".run")
	r := start(t, dir, build(t), "--demo")
	r.waitReady(t)
	eventuallyWithin(t, 3*time.Minute, func() error {
		return matches(r.output.String(), `(?s)\| `+regexp.QuoteMeta(greeting)+`.*UKIFetched=True UKIDelivered.*from 127\.0\.0\.1, proof Proxy`)
	})
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, r.wait(t))
	require.NoError(t, noProcess(t, dir))
}

func TestDemoSaysWhatToInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command")
	}
	dir := filepath.Join(t.TempDir(), ".run")
	r := launch(t, dir, []string{"PATH=" + t.TempDir()}, build(t), "--demo", "--dir="+dir)
	require.ErrorContains(t, r.wait(t), "exit status 1")
	install := "apt-get install .*qemu-system-x86"
	if runtime.GOOS == "darwin" {
		install = "brew install qemu"
	}
	require.Regexp(t, install, r.output.String())
	require.NoDirExists(t, dir, "it looks before it builds")
}

// TestREADMEShowsWhatIsPrinted holds that the commands of the README, of which
// TestQuickstart runs the like, are those that `make run` prints.
func TestREADMEShowsWhatIsPrinted(t *testing.T) {
	here, err := os.Getwd()
	require.NoError(t, err)
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "kubectl"), []byte("#!/bin/sh\n"), 0o700))
	t.Setenv("PATH", bin)
	var out bytes.Buffer
	s := &site{workdir: &workdir{path: filepath.Join(here, ".run")}, out: &out}
	s.tell()
	_, commands, _ := strings.Cut(out.String(), "as the machine 127.0.0.1:\n\n")
	commands, _, _ = strings.Cut(commands, "\n\n")
	require.Equal(t, 4, len(strings.Split(commands, "\n")))
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	require.True(t, strings.Contains(string(readme), "```sh\n"+strings.ReplaceAll("\n"+commands, "\n  ", "\n")[1:]+"\n```"), commands)
}

// running is a run as a user started it.
type running struct {
	cmd    *exec.Cmd
	dir    string
	output *transcript.Transcript
	ended  chan error
}

func start(t *testing.T, dir string, command ...string) *running {
	t.Helper()
	return launch(t, dir, os.Environ(), append(command, "--dir="+dir)...)
}

func launch(t *testing.T, dir string, env []string, command ...string) *running {
	t.Helper()
	r := &running{dir: dir, output: &transcript.Transcript{}, ended: make(chan error, 1)}
	r.cmd = exec.Command(command[0], command[1:]...)
	r.cmd.Env = env
	r.cmd.Stdout, r.cmd.Stderr = r.output, r.output
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.WaitDelay = endTimeout
	require.NoError(t, r.cmd.Start())
	go func() { r.ended <- r.cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM) // what is left of a failed test
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(command, " "), r.output.String())
		}
	})
	return r
}

// waitReady waits for the line and reads the environment that is there by then.
func (r *running) waitReady(t *testing.T) map[string]string {
	t.Helper()
	eventuallyWithin(t, readyTimeout, func() error {
		select {
		case err := <-r.ended:
			r.ended <- err
			t.Fatalf("ended before it was ready: %v", err)
		default:
		}
		return matches(r.output.String(), `(?m)^ready$`)
	})
	env := map[string]string{}
	for _, name := range []string{"BOOT_URL", "REGISTRY", "METRICS_URL", "KUBECONFIG"} {
		value, err := exec.Command("sh", "-c", `. "$1/env"; eval "printf %s \"\$$2\""`, "sh", r.dir, name).Output()
		require.NoError(t, err)
		env[name] = string(value)
	}
	require.FileExists(t, env["KUBECONFIG"])
	return env
}

func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(endTimeout + 10*time.Second):
		t.Fatal("it does not end")
		return nil
	}
}

// build builds the command.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run")
	said, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, string(said))
	return path
}

// processes are those that have dir among their arguments.
func processes(t *testing.T, dir string) []string {
	t.Helper()
	list, err := exec.Command("ps", "-axww", "-o", "pid=,command=").Output()
	require.NoError(t, err)
	var found []string
	for line := range strings.Lines(string(list)) {
		if strings.Contains(line, dir) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func noProcess(t *testing.T, dir string) error {
	t.Helper()
	if left := processes(t, dir); len(left) > 0 {
		return errors.New("left over: " + strings.Join(left, "\n"))
	}
	return nil
}

func kubectl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	said, err := exec.Command(filepath.Join(dir, "kubectl"), args...).CombinedOutput()
	require.NoError(t, err, string(said))
	return string(said)
}

func httpGet(t *testing.T, url string, want int) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, want, response.StatusCode, "%s: %s", url, body)
	return body
}

func matches(text, pattern string) error {
	if regexp.MustCompile(pattern).MatchString(text) {
		return nil
	}
	return errors.New("no match of " + pattern + " in:\n" + text)
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	eventuallyWithin(t, endTimeout, check)
}

func eventuallyWithin(t *testing.T, timeout time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	err := check()
	for ; err != nil && time.Now().Before(deadline); err = check() {
		time.Sleep(100 * time.Millisecond)
	}
	require.NoError(t, err)
}
