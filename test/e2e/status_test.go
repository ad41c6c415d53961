package e2e

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/transcript"
)

// watch runs bootctl watch beside what the test does, until it ends by itself or the
// test does.
func (s *site) watch(args ...string) (told *transcript.Transcript, wait func() error) {
	s.t.Helper()
	bin, err := build()
	require.NoError(s.t, err)
	told = &transcript.Transcript{}
	cmd := s.network.Command(filepath.Join(bin, "bootctl"), append([]string{"watch"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig())
	cmd.Stdout, cmd.Stderr = told, told
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(s.t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return told, func() error {
		select {
		case err := <-done:
			return err
		case <-time.After(bootTime):
			return os.ErrDeadlineExceeded
		}
	}
}

// masked takes out of a text what is another with each run: times, how long things took,
// sizes and rates, IDs and addresses.
func masked(text string) string {
	for _, m := range []struct{ what, with string }{
		{`\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d UTC)?`, "DATE"}, {`(?m)^\d\d:\d\d:\d\d\.\d`, "HH:MM:SS.S"}, {`\((\d+[hms])+\)`, "(AGE)"},
		{`\+ (\d+\.\d s|(\d+[hms])+):`, "+ SPAN:"}, {`\d+\.\d [KMG]iB/s`, "RATE"}, {`\d+(\.\d)? ([KMG]i)?B\b`, "SIZE"},
		{`[0-9a-f]{32}`, "BOOTID"}, {`10\.77\.\d+\.\d+`, "ADDRESS"}, {`(?m)^ns-\S+?/|^[a-z0-9-]+/`, "NAMESPACE/"}, {`(?m) (\d+[hms])+$`, " AGE"},
	} {
		text = regexp.MustCompile(m.what).ReplaceAllString(text, m.with)
	}
	return text
}

// inOrder requires that a text has these, one after the other.
func inOrder(t *testing.T, text string, all ...string) {
	t.Helper()
	rest := text
	for _, s := range all {
		_, after, found := strings.Cut(rest, s)
		require.True(t, found, "%q, after the others, in:\n%s", s, text)
		rest = after
	}
}

func TestStatusWatchAndExplainTellOfABoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := s.network.Machine(t, lab.MachineOptions{Name: "ours", UUID: uuid})
	machine := s.network.Addr(50)
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), IgnoreClientID: true, Reservations: map[string]netip.Addr{m.MAC(): machine}})
	s.start("a", "--plain-http-registries="+registry.host)
	s.create(s.ignition("m", ignitionFile("watched")), machineConfig("m", image, machine.String(), m.MAC()))
	s.condition("m", v1alpha1.ConditionReady)
	require.Contains(t, s.bootctl("status", "m"), "Everything is in place; the machine has not asked for it.")

	told, wait := s.watch(uuid, "--until", "booted", "--timeout", "5m")
	require.Eventually(t, func() bool { return strings.Contains(told.String(), "Waiting") }, 30*time.Second, 50*time.Millisecond)
	m.PowerOn()
	m.ExpectLine(`^IGNITION-APPLIED watched`, 2*bootTime)
	require.NoError(t, wait(), told.String())
	inOrder(t, told.String(), "m                 Waiting", "m                 FetchingUKI", "m                 StartingOS", "m                 Booted")

	status := masked(s.bootctl("status", m.MAC()))
	require.Equal(t, "MACHINE  STAGE             DONE  SINCE\nm        Booted            -     AGE\n", status)
	explained := s.bootctl("explain", machine.String())
	inOrder(t, strings.Join(strings.Fields(masked(explained)), " "),
		"NAMESPACE/m: Booted, since DATE (AGE)", "Attempt 1, boot BOOTID, on DATE (UTC):", "HH:MM:SS.S Attempt 1 is opened: the spec changed.",
		"+ SPAN: the machine was not on yet, or its firmware was starting.", "All of its UKI was sent to ADDRESS: SIZE.",
		"+ SPAN: firmware checks and starts the UKI, and the operating system boots until it asks for its document.", "HH:MM:SS.S All of its Ignition was sent to ADDRESS")
	for line := range strings.Lines(explained) {
		require.LessOrEqual(t, len(line), 81, line)
	}
	t.Log(explained + told.String())
	var report struct {
		Schema  string
		BootID  string
		Entries []struct {
			Kind string
			Gap  struct{ Seconds float64 }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(s.bootctl("explain", "m", "-o", "json")), &report))
	require.Equal(t, "bootctl.boot.ironcore.dev/v1", report.Schema)
	require.Equal(t, s.configOf("m").Status.Boot.ID, report.BootID, "the ID that logs and traces have")
	for _, e := range report.Entries {
		if e.Kind == "UKIDelivered" && e.Gap.Seconds > 8 { // progress is written every 5 s
			require.Regexp(t, `FetchingUKI +[1-9]\d?% `, told.String())
		}
	}
	for _, text := range []string{told.String(), explained} {
		require.NotRegexp(t, tokens, text)
		require.NotContains(t, text, "goroutine", "libraries are quiet")
	}
}

// A machine whose boot is cut and aborted is told of, and boots when it is asked for.
func TestAbortedBootsAreToldOfAndRetried(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": greeting(t, "amd64", "RETRIED")})
	s.start("a", "--plain-http-registries="+registry.host)
	machine := s.network.Addr(50)
	s.network.AddAddress(machine)
	s.create(s.ignition("m", ignitionFile("x")), machineConfig("m", image, machine.String()))
	s.condition("m", v1alpha1.ConditionReady)
	require.Contains(t, s.bootctl("boot", "abort", "m", "--yes"), "Attempt 1 of HTTPBootConfig "+s.namespace+"/m is aborted.")
	require.Contains(t, s.bootctl("status", "m"), "Aborted")
	require.NotEqual(t, 200, s.get(machine, s.url("/httpboot")).code)
	require.Contains(t, s.bootctl("boot", "retry", "m"), "Attempt 2 of HTTPBootConfig "+s.namespace+"/m is open")
	s.served(machine, s.url("/httpboot"), 200)
	require.Eventually(t, func() bool { return strings.Contains(s.bootctl("status", "m"), "StartingOS") }, 30*time.Second, 200*time.Millisecond)
}

// Doctor, on a host of the machines' network, sees what a machine there would.
func TestDoctorSeesTheNetworkAsAMachineDoes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	registry := s.registry()
	op := s.start("a", "--plain-http-registries="+registry.host)
	require.Eventually(t, func() bool { return s.get(s.network.Gateway(), s.url("/whoami")).code == 200 }, time.Minute, 100*time.Millisecond, tail(op.log, 2000))
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot")})
	host := s.network.Neighbour(t, s.network.Addr(40))
	diagnose := func() (string, error) {
		bin, err := build()
		require.NoError(t, err)
		var out bytes.Buffer
		cmd := host.Command(filepath.Join(bin, "bootctl"), "doctor", "--checks=url,dhcp", "--url="+s.url(""), "--interface=br0", "--kubeconfig="+filepath.Join(s.dir, "none"))
		cmd.Stdout = &out
		err = cmd.Run()
		return out.String(), err
	}
	text, err := diagnose()
	require.NoError(t, err, text)
	inOrder(t, strings.Join(strings.Fields(text), " "),
		"HEAD and GET are answered on one connection, without a redirect.", "address "+s.network.Addr(40).String()+" arrives as it is (by connection).",
		s.network.Gateway().String()+" offers "+s.url("/httpboot")+", which is the operator's, to UEFI HTTP boot.", s.network.Gateway().String()+" gives leases on br0.")

	s.network.Neighbour(t, s.network.Addr(2)).DHCP(lab.DHCPOptions{BootURL: "http://10.66.0.1/evil.efi"})
	text, err = diagnose()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, text)
	require.Equal(t, 1, exit.ExitCode())
	require.Contains(t, strings.Join(strings.Fields(text), " "), "fail "+s.network.Addr(2).String()+" offers http://10.66.0.1/evil.efi to UEFI HTTP boot")
}
