package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boot-operator/boot-operator/internal/qemu"
	"github.com/boot-operator/boot-operator/test/transcript"
)

// daemonLife is after how long a program that serves a network is ended.
const daemonLife = time.Hour

// Daemon is a program that serves a Network until the test ends.
type Daemon struct {
	name    string
	log     *transcript.Transcript
	process *qemu.Process
}

// dhcpPorts are those of servers, as /proc/<pid>/net/udp has them, by its name.
var dhcpPorts = map[string]string{"udp": ":0043 ", "udp6": ":0223 "}

// RunDHCP starts a DHCP server of any make in the network, in the foreground
// (dnsmasq --no-daemon --conf-file=…, kea-dhcp4 -c …), and waits until it listens
// on port 67 or, with IPv6, 547. Kea keeps its lock and its process's number in a
// directory of the test's; the leases are where its configuration says. The test
// must Require what it runs; see DHCP and Kea.
func (n *Network) RunDHCP(name string, args ...string) *Daemon {
	n.t.Helper()
	if n.listensDHCP() {
		n.t.Fatalf("starting %s: another DHCP server listens in the network", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), daemonLife)
	n.t.Cleanup(cancel)
	cmd := n.CommandContext(ctx, name, args...)
	directory := n.t.TempDir()
	cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+directory, "KEA_LOCKFILE_DIR="+directory)
	d := &Daemon{name: name, log: &transcript.Transcript{}}
	cmd.Stdout, cmd.Stderr = d.log, d.log
	p, err := qemu.StartProcess(cmd, nil)
	if err != nil {
		n.t.Fatalf("starting %s: %v", name, err)
	}
	d.process = p
	n.t.Cleanup(func() {
		d.Stop()
		d.report(n.t)
	})
	listens := func() bool { return n.listensDHCP() && d.started() }
	if err := d.ready(listens, 20*time.Second); err != nil {
		n.t.Fatalf("starting %s: %v: %s", name, err, d.Log())
	}
	return d
}

// listensDHCP tells whether a DHCP server's port is open in the network.
func (n *Network) listensDHCP() bool {
	for file, port := range dhcpPorts {
		sockets, err := n.Command("cat", "/proc/self/net/"+file).Output()
		if err == nil && strings.Contains(string(sockets), port) {
			return true
		}
	}
	return false
}

// started tells whether the program has all its sockets, where it says so: Kea
// opens the one that it hears machines on after the one of the port.
func (d *Daemon) started() bool {
	return !strings.Contains(d.name, "kea-dhcp") || strings.Contains(d.Log(), "_STARTED ")
}

// ready waits until the program listens.
func (d *Daemon) ready(listens func() bool, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for !listens() {
		select {
		case <-d.process.Done():
			return fmt.Errorf("it ended: %w", d.process.Err())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not listen after %s", timeout)
		}
	}
	return nil
}

func (d *Daemon) report(t testing.TB) {
	keep(t, d.name+".txt", d.Log())
	if t.Failed() {
		t.Logf("%s:\n%s", d.name, tail(d.Log()))
	}
}

// Stop ends the program.
func (d *Daemon) Stop() { d.process.Kill() }

// Log returns what the program said so far.
func (d *Daemon) Log() string { return d.log.String() }
