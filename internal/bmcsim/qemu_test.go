package bmcsim

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/qemu"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
)

// bootPatience is for a host that is busy with other things: a boot takes 5 s.
const bootPatience = 2 * time.Minute

const (
	firstMAC  = "52:54:00:77:bc:01"
	secondMAC = "52:54:00:77:bc:02"
)

// greeting is an application that says message and switches off, or resets.
func greeting(t *testing.T, message string, assemble func(architecture, message string) ([]byte, error)) []byte {
	t.Helper()
	image, err := assemble("amd64", message+"\n")
	require.NoError(t, err)
	return image
}

// efiSite serves one EFI application on this host's loopback, and counts its GETs.
type efiSite struct {
	image []byte

	mu   sync.Mutex
	gets []string
}

func (s *efiSite) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		s.mu.Lock()
		s.gets = append(s.gets, r.URL.Path)
		s.mu.Unlock()
	}
	w.Header().Set("Content-Type", "application/efi")
	_, _ = w.Write(s.image)
}

func (s *efiSite) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gets)
}

// serve returns the site's URL as a machine on user networking knows it.
func (s *efiSite) serve(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	server := http.Server{Handler: s}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return fmt.Sprintf("http://%s:%d", qemu.UserGateway, listener.Addr().(*net.TCPAddr).Port)
}

func newQEMU(t *testing.T, m *lab.Machine) *QEMU {
	t.Helper()
	q, err := NewQEMU(t.Context(), m.VM.VM)
	require.NoError(t, err)
	return q
}

// boots switches the machine on and waits until it has said what it is to say, and
// is off again.
func boots(t *testing.T, q *QEMU, m *lab.Machine, next NextBoot, says string) {
	t.Helper()
	require.NoError(t, q.On(t.Context(), next))
	assert.True(t, q.IsOn())
	require.NoError(t, q.On(t.Context(), next), "it is on already")
	m.Expect(says, bootPatience)
	m.WaitOff(bootPatience)
	assert.False(t, q.IsOn())
}

func TestRealFirmwareConsumesAnHTTPOverrideOnce(t *testing.T) {
	t.Parallel()
	s := &efiSite{image: greeting(t, "FROM-THE-NETWORK", demoimage.Greeting)}
	url := s.serve(t)
	m := lab.NewMachine(t, lab.MachineOptions{
		NextBoot: greeting(t, "FROM-DISK", demoimage.Greeting), DiskFirst: true, BootURL: url + "/of-dhcp",
	})
	q := newQEMU(t, m)
	boots(t, q, m, NextBoot{Kind: KindHTTP, URL: url + "/pinned"}, "FROM-THE-NETWORK")
	boots(t, q, m, NextBoot{}, "FROM-DISK")
	boots(t, q, m, NextBoot{Kind: KindHTTP}, "FROM-THE-NETWORK")
	assert.Equal(t, []string{"/pinned", "/of-dhcp"}, s.seen())
}

func TestAnOverrideThatWasTakenBackIsNotBooted(t *testing.T) {
	t.Parallel()
	s := &efiSite{image: greeting(t, "FROM-THE-NETWORK", demoimage.Greeting)}
	m := lab.NewMachine(t, lab.MachineOptions{NextBoot: greeting(t, "FROM-DISK", demoimage.Greeting), DiskFirst: true})
	q := newQEMU(t, m)
	require.NoError(t, q.prepare(NextBoot{Kind: KindHTTP, URL: s.serve(t)}))
	boots(t, q, m, NextBoot{}, "FROM-DISK")
	assert.Empty(t, s.seen())
}

func TestAMachineThatResetsFromInsideAsksWhatToBoot(t *testing.T) {
	t.Parallel()
	s := &efiSite{image: greeting(t, "FROM-THE-NETWORK", demoimage.Greeting)}
	url := s.serve(t)
	m := lab.NewMachine(t, lab.MachineOptions{NextBoot: greeting(t, "FROM-DISK", demoimage.Rebooting), DiskFirst: true})
	q := newQEMU(t, m)
	answers := make(chan NextBoot, 2)
	answers <- NextBoot{} // the boot order, again
	answers <- NextBoot{Kind: KindHTTP, URL: url + "/next"}
	q.OnReset(func() NextBoot { return <-answers })
	require.NoError(t, q.On(t.Context(), NextBoot{}))
	m.Expect("FROM-DISK", bootPatience)
	m.Expect("FROM-DISK", bootPatience)
	m.Expect("FROM-THE-NETWORK", bootPatience)
	m.WaitOff(bootPatience)
	assert.Empty(t, answers)
	assert.Equal(t, []string{"/next"}, s.seen())
}

func TestOffDoesNotWaitForABMCThatIsAskedWhatToBoot(t *testing.T) {
	t.Parallel()
	m := lab.NewMachine(t, lab.MachineOptions{NextBoot: greeting(t, "FROM-DISK", demoimage.Rebooting), DiskFirst: true})
	q := newQEMU(t, m)
	asked, answer := make(chan struct{}), make(chan NextBoot)
	q.OnReset(func() NextBoot {
		close(asked)
		return <-answer
	})
	require.NoError(t, q.On(t.Context(), NextBoot{}))
	select {
	case <-asked:
	case <-time.After(bootPatience):
		t.Fatal("it does not ask")
	}
	assert.True(t, q.IsOn(), "a reset is no power-off")
	require.NoError(t, q.Off())
	assert.False(t, q.IsOn())
	require.NoError(t, q.Off(), "it is off already")
	answer <- NextBoot{Kind: KindPXE}
	pending, err := m.BootNextPending()
	require.NoError(t, err)
	assert.False(t, pending, "an answer that comes too late is not written")
}

func TestPXEBootsByTFTPOnceOnTheNICThatWasNamed(t *testing.T) {
	t.Parallel()
	n := lab.NewNetwork(t, lab.NetworkOptions{})
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "boot.efi"), greeting(t, "FROM-TFTP", demoimage.Greeting), 0o644))
	dhcp := n.DHCP(lab.DHCPOptions{PXEFile: "boot.efi", TFTPRoot: root})
	m := n.Machine(t, lab.MachineOptions{
		MAC: firstMAC, MoreMACs: []string{secondMAC},
		NextBoot: greeting(t, "FROM-DISK", demoimage.Greeting), DiskFirst: true,
	})
	q := newQEMU(t, m)
	boots(t, q, m, NextBoot{Kind: KindPXE, MAC: secondMAC}, "FROM-TFTP")
	boots(t, q, m, NextBoot{}, "FROM-DISK")
	_, first := dhcp.Lease(firstMAC)
	_, second := dhcp.Lease(secondMAC)
	assert.False(t, first)
	assert.True(t, second)
}

func TestABootOrderThatIsWrittenWhileTheMachineIsOnIsInForceAtItsNextStart(t *testing.T) {
	t.Parallel()
	s := &efiSite{image: greeting(t, "FROM-THE-NETWORK", demoimage.Greeting)}
	m := lab.NewMachine(t, lab.MachineOptions{
		MAC: firstMAC, NextBoot: greeting(t, "FROM-DISK", demoimage.Rebooting), DiskFirst: true, BootURL: s.serve(t),
	})
	q := newQEMU(t, m)
	disk := BootOption{Reference: "Boot00D0", Name: "disk", Kind: KindDisk}
	http := BootOption{Reference: "Boot00E0", Name: "HTTP on NIC 0", Kind: KindHTTP, MAC: firstMAC,
		DevicePath: "PciRoot(0x0)/Pci(0x10,0x0)/MAC(52540077BC01,0x1)/IPv4(0.0.0.0)/Uri()"}
	pxe := BootOption{Reference: "Boot00E8", Name: "PXE on NIC 0", Kind: KindPXE, MAC: firstMAC,
		DevicePath: "PciRoot(0x0)/Pci(0x10,0x0)/MAC(52540077BC01,0x1)/IPv4(0.0.0.0)"}
	require.Equal(t, []BootOption{disk, http, pxe}, q.BootOrder())
	require.NoError(t, q.On(t.Context(), NextBoot{}))
	require.NoError(t, q.SetBootOrder([]string{"Boot00E0", "Boot00D0"}))
	assert.Equal(t, []BootOption{http, disk}, q.BootOrder(), "it is shown at once")
	m.Expect("FROM-DISK", bootPatience)
	m.Expect("FROM-THE-NETWORK", bootPatience)
	m.WaitOff(bootPatience)
	assert.Equal(t, []BootOption{http, disk}, q.BootOrder(), "the firmware leaves it as it is")
	again := newQEMU(t, m)
	assert.Equal(t, []BootOption{http, disk}, again.BootOrder(), "what was left out stays out")
	require.NoError(t, again.SetBootOrder([]string{"Boot00E8", "Boot00E0"}))
	assert.Equal(t, []BootOption{pxe, http}, again.BootOrder(), "and can be put back")
}

func TestWhatAMachineCannotBootIsRefusedBeforeItIsOn(t *testing.T) {
	t.Parallel()
	m := lab.NewMachine(t, lab.MachineOptions{MAC: firstMAC, MoreMACs: []string{secondMAC}, Unplugged: []int{0}})
	q := newQEMU(t, m)
	for want, next := range map[string]NextBoot{
		"no such device":                   {Kind: KindCD, URL: "http://10.0.2.2/a.iso"},
		"no disk":                          {Kind: KindDisk},
		"no NIC with the MAC 52:54:00:0a:": {Kind: KindPXE, MAC: "52-54-00-0A-00-01"},
		"invalid MAC":                      {Kind: KindHTTP, MAC: "eth0"},
	} {
		require.ErrorContains(t, q.On(t.Context(), next), want)
		assert.False(t, q.IsOn())
	}
	require.ErrorContains(t, q.SetBootOrder([]string{"Boot0000"}), `no "Boot0000"`)
	require.ErrorContains(t, q.SetBootOrder([]string{"Boot00E0", "Boot00E0"}), "twice")
	assert.NoError(t, q.Shutdown(t.Context()), "it is off already")

	nic, err := q.nic("")
	require.NoError(t, err)
	assert.Equal(t, 1, nic, "any NIC is the first one with a cable")
	nic, err = q.nic("52-54-00-77-BC-01")
	require.NoError(t, err)
	assert.Zero(t, nic)

	lab.Require(t, lab.LegacyBIOS)
	_, err = NewQEMU(t.Context(), lab.NewMachine(t, lab.MachineOptions{Boot: lab.BIOS}).VM.VM)
	assert.ErrorContains(t, err, "BIOS")
}
