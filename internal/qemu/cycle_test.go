package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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

// patience is for a host that is busy with other things: a boot takes 5 s.
const patience = 2 * time.Minute

func greeting(t *testing.T, message string) []byte {
	t.Helper()
	image, err := demoimage.Greeting("amd64", message+"\n")
	require.NoError(t, err)
	return image
}

func rebooting(t *testing.T, message string) []byte {
	t.Helper()
	image, err := demoimage.Rebooting("amd64", message+"\n")
	require.NoError(t, err)
	return image
}

// site serves EFI applications on this host's loopback.
type site struct {
	images map[string][]byte // by path

	mu       sync.Mutex
	requests []string
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/efi")
	_, _ = w.Write(s.images[r.URL.Path])
}

func (s *site) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// serve returns the site's URL as a machine on user networking knows it.
func (s *site) serve(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	server := http.Server{Handler: s}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return fmt.Sprintf("http://%s:%d", qemu.UserGateway, listener.Addr().(*net.TCPAddr).Port)
}

func TestAResetIsToldFromAShutdown(t *testing.T) {
	t.Parallel()
	for want, image := range map[qemu.End][]byte{
		qemu.GuestReset:    rebooting(t, "HELLO"),
		qemu.GuestShutdown: greeting(t, "HELLO"),
	} {
		m := lab.NewMachine(t, lab.MachineOptions{NextBoot: image, DiskFirst: true})
		assert.Equal(t, qemu.NotEnded, m.Ended())
		m.PowerOn()
		assert.True(t, m.IsOn())
		m.Expect("HELLO", patience)
		m.WaitOff(patience)
		assert.Equal(t, want, m.Ended())
		assert.False(t, m.IsOn())
	}
}

func TestAMachineComesBackFromAResetWithWhatItIsToBootNext(t *testing.T) {
	t.Parallel()
	s := &site{images: map[string][]byte{"/next.efi": greeting(t, "FROM-THE-NETWORK")}}
	url := s.serve(t) + "/next.efi"
	m := lab.NewMachine(t, lab.MachineOptions{NextBoot: rebooting(t, "FROM-DISK"), DiskFirst: true})
	resets := 0
	m.OnReset(func(context.Context) error {
		resets++
		return m.SetBootNext(qemu.Target{Kind: qemu.HTTP, URL: url})
	})
	m.PowerOn()
	m.Expect("FROM-DISK", patience)
	off := m.Off()
	m.Expect("FROM-THE-NETWORK", patience)
	m.WaitOff(patience)
	<-off // it is one power cycle
	assert.Equal(t, 1, resets)
	assert.Equal(t, qemu.GuestShutdown, m.Ended())
	pending, err := m.BootNextPending()
	require.NoError(t, err)
	assert.False(t, pending, "the firmware has consumed it")
	assert.Equal(t, []string{"HEAD /next.efi", "GET /next.efi"}, s.seen())
}

func TestAMachineThatMayNotComeBackStaysOff(t *testing.T) {
	t.Parallel()
	m := lab.NewMachine(t, lab.MachineOptions{NextBoot: rebooting(t, "HELLO"), DiskFirst: true})
	m.OnReset(func(context.Context) error { return errors.New("enough") })
	m.PowerOn()
	m.Expect("HELLO", patience)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.ErrorContains(t, m.Wait(ctx), "going on after a reset: enough")
	assert.Equal(t, qemu.Failed, m.Ended())
}

func TestStopInTheMiddleOfAResetStops(t *testing.T) {
	t.Parallel()
	m := lab.NewMachine(t, lab.MachineOptions{NextBoot: rebooting(t, "HELLO"), DiskFirst: true})
	resetting := make(chan struct{})
	m.OnReset(func(ctx context.Context) error {
		close(resetting)
		<-ctx.Done()
		return ctx.Err()
	})
	m.PowerOn()
	m.Expect("HELLO", patience)
	select {
	case <-resetting:
	case <-time.After(patience):
		t.Fatal("no reset")
	}
	assert.True(t, m.IsOn(), "a reset is no power-off")
	m.PowerOff()
	assert.False(t, m.IsOn())
	assert.Equal(t, qemu.Unplugged, m.Ended())
}

func TestAPowerCycleEndsWithItsContextAndItsLife(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.QEMU)
	m := lab.NewMachine(t, lab.MachineOptions{Life: 2 * time.Second})
	m.PowerOn()
	require.ErrorContains(t, m.Start(t.Context()), "already on")
	select {
	case <-m.Off():
	case <-time.After(patience):
		t.Fatal("it outlives its life")
	}
	assert.Equal(t, qemu.Unplugged, m.Ended())

	m = lab.NewMachine(t, lab.MachineOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, m.Start(ctx))
	cancel()
	select {
	case <-m.Off():
	case <-time.After(patience):
		t.Fatal("it outlives its context")
	}
	assert.Equal(t, qemu.Unplugged, m.Ended())
}

func TestStartSaysWhatQEMUComplainsOf(t *testing.T) {
	t.Parallel()
	m := lab.NewMachine(t, lab.MachineOptions{ExtraArgs: []string{"-device", "flux-capacitor"}})
	require.ErrorContains(t, m.Start(t.Context()), "flux-capacitor")
	assert.False(t, m.IsOn())
	assert.Equal(t, qemu.Failed, m.Ended())
	m.PowerOff()
}

func TestThePowerButtonIsPressedAndFirmwareTakesNoNotice(t *testing.T) {
	t.Parallel()
	m := lab.NewMachine(t, lab.MachineOptions{})
	require.ErrorIs(t, m.VM.Shutdown(t.Context()), qemu.ErrOff)
	m.PowerOn()
	require.NoError(t, m.VM.Shutdown(t.Context()))
	assert.True(t, m.IsOn())
}

func TestABootOrderIsWhatRealFirmwareTries(t *testing.T) {
	t.Parallel()
	s := &site{images: map[string][]byte{"/boot.efi": greeting(t, "FROM-THE-NETWORK")}}
	m := lab.NewMachine(t, lab.MachineOptions{BootURL: s.serve(t) + "/boot.efi", NextBoot: greeting(t, "FROM-DISK")})
	network, disk := qemu.Target{Kind: qemu.HTTP}, qemu.Target{Kind: qemu.Disk}
	for _, c := range []struct {
		order []qemu.Target
		want  string
	}{
		{[]qemu.Target{disk, network}, "FROM-DISK"},
		{[]qemu.Target{network, disk}, "FROM-THE-NETWORK"},
	} {
		require.NoError(t, m.SetBootOrder(c.order...))
		m.PowerOn()
		m.Expect(c.want, patience)
		m.WaitOff(patience)
		order, err := m.BootOrder()
		require.NoError(t, err)
		assert.Equal(t, c.order, order, "the firmware leaves it as it is")
	}
}
