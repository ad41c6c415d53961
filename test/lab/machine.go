package lab

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// tailLines is how much of a failed test's consoles and logs is shown.
const tailLines = 40

// Machine is a VM in a test: what goes wrong fails the test, which then shows
// the console's end; the console's whole text becomes a file of the test's
// artifacts. At the end of the test the machine is off.
type Machine struct {
	*VM
	t testing.TB
}

// NewMachine makes a machine, switched off. It skips the test where QEMU or the
// firmware is not installed.
func NewMachine(t testing.TB, options MachineOptions) *Machine {
	t.Helper()
	Require(t, requirementsOf(options)...)
	v, err := NewVM(t.TempDir(), options)
	if err != nil {
		t.Fatalf("making a lab machine: %v", err)
	}
	m := &Machine{VM: v, t: t}
	t.Cleanup(func() {
		v.Stop()
		m.report()
	})
	return m
}

func requirementsOf(options MachineOptions) []Requirement {
	switch {
	case options.Boot == BIOS:
		return []Requirement{LegacyBIOS}
	case options.Arch == "arm64":
		return []Requirement{ARM64}
	case options.SecureBoot != nil && options.Boot == UEFIIPXE:
		return []Requirement{SecureBoot, IPXEROM}
	case options.SecureBoot != nil:
		return []Requirement{SecureBoot}
	case options.Boot == UEFIIPXE:
		return []Requirement{QEMU, IPXEROM}
	default:
		return []Requirement{QEMU}
	}
}

// report keeps the console's text, and shows its end if the test has failed.
func (m *Machine) report() {
	text := m.VM.Transcript()
	if text == "" {
		return
	}
	keep(m.t, m.Name()+"-console.txt", text)
	if m.t.Failed() {
		m.t.Logf("console of %s:\n%s", m.Name(), tail(text))
	}
}

// keep writes text to a file of the test's artifacts, and says where when the
// test has failed.
func keep(t testing.TB, name, text string) {
	path := filepath.Join(t.ArtifactDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Logf("keeping %s: %v", name, err)
	} else if t.Failed() {
		t.Logf("the whole text is in %s (kept with go test -artifacts)", path)
	}
}

// progress is a download's, of which only the last step is worth showing.
var progress = regexp.MustCompile(`(  Downloading\.\.\.\d+%)+(  Downloading)`)

func tail(text string) string {
	text = progress.ReplaceAllString(text, "$2")
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// PowerOn switches the machine on.
func (m *Machine) PowerOn() {
	m.t.Helper()
	if err := m.VM.Start(context.Background()); err != nil {
		m.t.Fatalf("switching %s on: %v", m.Name(), err)
	}
}

// PowerOff pulls the plug; what the console said remains.
func (m *Machine) PowerOff() { m.VM.Stop() }

// WaitOff waits until the machine has switched itself off.
func (m *Machine) WaitOff(timeout time.Duration) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := m.VM.Wait(ctx); err != nil {
		m.t.Fatal(err)
	}
}

// Expect reads the console on from where the last Expect ended, until it says
// text, and returns what it read.
func (m *Machine) Expect(text string, timeout time.Duration) string {
	m.t.Helper()
	read, err := m.VM.Expect(text, timeout)
	if err != nil {
		m.t.Fatalf("%s: %v", m.Name(), err)
	}
	return read
}

// ExpectLine is Expect for a line that pattern, a regular expression, matches;
// it returns the submatches.
func (m *Machine) ExpectLine(pattern string, timeout time.Duration) []string {
	m.t.Helper()
	found, err := m.VM.ExpectLine(regexp.MustCompile(pattern), timeout)
	if err != nil {
		m.t.Fatalf("%s: %v", m.Name(), err)
	}
	return found
}

// Send types text on the console; a shell wants "\r" at the end.
func (m *Machine) Send(text string) {
	m.t.Helper()
	if err := m.VM.Send(text); err != nil {
		m.t.Fatalf("%s: %v", m.Name(), err)
	}
}

// BootNext makes the next start boot url, once, as a BMC's override does. The
// machine must be off.
func (m *Machine) BootNext(url string) {
	m.t.Helper()
	if err := m.VM.SetBootNext(qemu.Target{Kind: qemu.HTTP, URL: url}); err != nil {
		m.t.Fatalf("setting BootNext of %s: %v", m.Name(), err)
	}
}

// EditVars changes the variable store of a machine that is off.
func (m *Machine) EditVars(edit func(*VarStore) error) {
	m.t.Helper()
	s := m.Vars()
	if err := edit(s); err != nil {
		m.t.Fatalf("editing the variables of %s: %v", m.Name(), err)
	}
	if err := s.Save(); err != nil {
		m.t.Fatalf("editing the variables of %s: %v", m.Name(), err)
	}
}

// Vars reads the variable store.
func (m *Machine) Vars() *VarStore {
	m.t.Helper()
	s, err := m.VM.VarStore()
	if err != nil {
		m.t.Fatalf("reading the variables of %s: %v", m.Name(), err)
	}
	return s
}
