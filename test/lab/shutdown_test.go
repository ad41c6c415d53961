package lab

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

func TestAnOperatingSystemObeysThePowerButtonAndComesBackFromItsReboot(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{})
	s := &server{images: map[string][]byte{"/boot.efi": OS(t, "amd64", "lab.shell")}}
	go func() { _ = http.Serve(n.Listen("tcp4", ":8080"), s) }()
	n.DHCP(DHCPOptions{BootURL: fmt.Sprintf("http://%s:8080/boot.efi", n.Gateway())})
	m := n.Machine(t, MachineOptions{})
	m.OnReset(func(context.Context) error { return nil })
	m.PowerOn()
	m.Expect("SHELL-READY", patience)
	m.Expect("/ # ", patience)
	m.Send("reboot -f\r")
	m.Expect("SHELL-READY", patience)
	assert.True(t, m.IsOn())
	require.NoError(t, m.VM.Shutdown(t.Context()))
	m.Expect("POWER-BUTTON", patience)
	m.WaitOff(patience)
	assert.Equal(t, qemu.GuestShutdown, m.Ended())
}
