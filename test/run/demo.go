package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/test/cache"
	"github.com/boot-operator/boot-operator/test/lab"
)

// greeting is what the demo image says on the console.
const greeting = "Hello from a UKI that boot-operator served."

// hostName is the BareMetalHost of the demo's machine; bmcSecret is what its BMC
// asks for.
const (
	hostName    = "demo-machine"
	hostUUID    = "00112233-4455-6677-8899-aabbccddee02"
	bmcUser     = "admin"
	bmcPassword = "demo"
	hostTimeout = 3 * time.Minute
)

// hostObjects are a machine that is switched off, and what it is to boot: with
// format raw once, as an installation.
const hostObjects = `apiVersion: v1
kind: Secret
metadata:
  name: {{.Name}}-bmc
  namespace: default
stringData:
  username: {{.Username}}
  password: {{.Password}}
---
apiVersion: metal3.io/v1alpha1
kind: BareMetalHost
metadata:
  name: {{.Name}}
  namespace: default
spec:
  online: true
  bmc:
    address: {{.Address}}
    credentialsName: {{.Name}}-bmc
  bootMACAddress: {{.MAC}}
  image:
    url: oci://{{.Image}}
    format: raw
`

// bootMachine has the operator boot a machine that is switched off: QEMU with UEFI
// firmware behind a simulated BMC. It shows the host's states, the machine's
// console, and what its config says afterwards.
func (s *site) bootMachine(ctx context.Context) error {
	dir := s.workdir.file("machine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	console := &timedLines{out: s.out, started: time.Now()}
	vm, err := lab.NewVM(dir, lab.MachineOptions{Name: hostName, UUID: hostUUID, Output: console})
	if err != nil {
		return err
	}
	bmc, stop, err := s.startBMC(ctx, vm)
	if err != nil {
		return fmt.Errorf("simulating a BMC: %w", err)
	}
	s.stopMachine = func() { stop(); vm.Stop() }
	fmt.Fprintf(s.out, "\na machine is switched off: QEMU and UEFI firmware, no disk, behind the BMC %s;\napplying a BareMetalHost that is to boot %s\n\n", bmc, s.image)
	if err := s.apply(ctx, "machine.yaml", hostObjects, map[string]string{
		"Name": hostName, "Username": bmcUser, "Password": bmcPassword, "Address": bmc, "MAC": vm.MAC(), "Image": s.image,
	}); err != nil {
		return err
	}
	stopWatch, err := s.watchMachine(ctx, console)
	if err != nil {
		return fmt.Errorf("watching the machine: %w", err)
	}
	err = s.followHost(ctx, console, metal3.StateProvisioned)
	stopWatch()
	if err != nil {
		return errors.Join(err, fmt.Errorf("the last lines of the operator's log:\n%s", s.operator.logTail()))
	}
	if err := s.showFetched(ctx); err != nil {
		return err
	}
	if err := s.showBoot(ctx); err != nil {
		return err
	}
	return s.handBack(ctx, console)
}

// bootctl is the command line, for the demo's cluster.
func (s *site) bootctl(ctx context.Context, verb string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, s.workdir.file("bootctl"), append([]string{verb, "--kubeconfig=" + s.workdir.file("kubeconfig"), "-n=default"}, args...)...)
}

// buildBootctl builds the command line.
func (s *site) buildBootctl(ctx context.Context) error {
	root, err := cache.Repo()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", s.workdir.file("bootctl"), "./cmd/bootctl")
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building bootctl: %w\n%s", err, said)
	}
	return nil
}

// watchMachine shows what bootctl watch tells of the machine, until it is stopped.
func (s *site) watchMachine(ctx context.Context, console *timedLines) (stop func(), err error) {
	if err := s.buildBootctl(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	watch := s.bootctl(ctx, "watch", hostName)
	out, err := watch.StdoutPipe()
	if err == nil {
		err = watch.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, change, found := strings.Cut(lines.Text(), "  "); found { // its time is beside ours
				console.say("bootctl watch: " + change)
			}
		}
		_ = watch.Wait() // it ends when it is stopped
	}()
	return func() { cancel(); <-done }, nil
}

// showBoot shows what bootctl tells of the machine's boot.
func (s *site) showBoot(ctx context.Context) error {
	for _, verb := range []string{"status", "explain"} {
		text, err := s.bootctl(ctx, verb, hostName).CombinedOutput()
		if err != nil {
			return fmt.Errorf("bootctl %s: %w\n%s", verb, err, text)
		}
		fmt.Fprintf(s.out, "$ bootctl %s %s\n%s\n", verb, hostName, text)
	}
	return nil
}

// handBack takes the image from the host: its machine is switched off, and the host
// is there for another.
func (s *site) handBack(ctx context.Context, console *timedLines) error {
	fmt.Fprintf(s.out, "taking the image from the BareMetalHost\n\n")
	host := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: hostName}}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"online":false,"image":null}}`))
	if err := s.client.Patch(ctx, host, patch); err != nil {
		return err
	}
	return s.followHost(ctx, console, metal3.StateAvailable)
}

// startBMC puts a simulated BMC in front of a machine, with the certificate that the
// operator trusts for BMCs, and returns its address.
func (s *site) startBMC(ctx context.Context, vm *lab.VM) (address string, stop func(), err error) {
	certificate, err := tls.LoadX509KeyPair(s.workdir.file("tls.crt"), s.workdir.file("tls.key"))
	if err != nil {
		return "", nil, err
	}
	machine, err := bmcsim.NewQEMU(ctx, vm.VM)
	if err != nil {
		return "", nil, err
	}
	bmc, err := bmcsim.New(bmcsim.Options{
		Machine: machine, Username: bmcUser, Password: bmcPassword, UUID: vm.UUID(),
		Hardware: bmcsim.Hardware{CPU: "QEMU", Cores: 1, Threads: 1, MemoryMiB: 1024, NICs: []bmcsim.NIC{{MAC: vm.MAC()}}},
	})
	if err != nil {
		return "", nil, err
	}
	l, err := listen(8000)
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{
		Handler: bmc, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}},
	}
	go func() { _ = server.ServeTLS(bmc.Listener(l), "", "") }() // it ends when it is closed
	return "redfish://" + l.Addr().String() + bmc.SystemPath(), func() { _ = server.Close(); bmc.Close() }, nil
}

// followHost shows the states of the host until it is in the one that is wanted.
func (s *site) followHost(ctx context.Context, console *timedLines, wanted metal3.ProvisioningState) error {
	var last string
	return poll(ctx, hostTimeout, s.operator.failure, func(ctx context.Context) (bool, string) {
		host := &metal3.BareMetalHost{}
		if err := s.client.Get(ctx, client.ObjectKey{Namespace: "default", Name: hostName}, host); err != nil {
			return false, err.Error()
		}
		state := fmt.Sprintf("%s, power %s", cmp.Or(string(host.Status.Provisioning.State), "new"), onOff(host.Status.PoweredOn))
		if m := host.Status.ErrorMessage; m != "" {
			state += ": " + m
		}
		if state != last {
			console.say("BareMetalHost " + hostName + " is " + state)
			last = state
		}
		return host.Status.Provisioning.State == wanted, state
	})
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// showFetched waits until the machine's config tells of the boot, and shows what it
// tells.
func (s *site) showFetched(ctx context.Context) error {
	return poll(ctx, 10*time.Second, s.operator.failure, func(ctx context.Context) (bool, string) {
		config := &v1alpha1.HTTPBootConfig{}
		if err := s.client.Get(ctx, client.ObjectKey{Namespace: "default", Name: hostName}, config); err != nil {
			return false, err.Error()
		}
		said := describe(config.Status, v1alpha1.ConditionUKIFetched)
		boot := config.Status.Boot
		if boot == nil || !isTrue(config.Status, v1alpha1.ConditionUKIFetched) {
			return false, said
		}
		fmt.Fprintf(s.out, "\nthe HTTPBootConfig that the operator made for it says:\n\n  %s\n  attempt %d, from %s, proof %s\n\n", said, boot.Attempt, boot.LastClientAddress, boot.Proof)
		return true, ""
	})
}

// timedLines writes each line that a console says with the time before it.
type timedLines struct {
	out     io.Writer
	started time.Time

	mu   sync.Mutex
	rest []byte // of a line that is not finished
}

// say writes a line of our own.
func (t *timedLines) say(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.out, "%5.1fs * %s\n", time.Since(t.started).Seconds(), line)
}

// progress is what firmware writes over and over in one line.
var progress = regexp.MustCompile(`( *Downloading\.\.\.\d+%)* *Downloading\.\.\.100%`)

func (t *timedLines) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rest = append(t.rest, p...)
	for {
		line, rest, ok := bytes.Cut(t.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		t.rest = rest
		line = progress.ReplaceAll(line, []byte("  Downloading...100%\n"))
		for part := range bytes.Lines(line) {
			if part = bytes.TrimRight(part, " \n"); len(part) > 0 {
				fmt.Fprintf(t.out, "%5.1fs | %s\n", time.Since(t.started).Seconds(), part)
			}
		}
	}
}
