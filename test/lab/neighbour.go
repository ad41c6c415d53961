package lab

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
)

// Neighbour is another host on a network, with an address and ports of its own:
// what runs in it sees of the network what any host on a switch does.
func (n *Network) Neighbour(t testing.TB, address netip.Addr) *Network {
	t.Helper()
	h := &Network{t: t, name: namespaceName(os.Getpid(), networkCount.Add(1)), number: n.number, taps: map[string]string{}}
	t.Cleanup(func() { removeNamespace(h.name) })
	port := fmt.Sprintf("host%d", n.ports.Add(1))
	for _, args := range []string{
		"netns add " + h.name,
		"-n " + h.name + " link set lo up",
		"-n " + n.name + " link add " + port + " type veth peer name " + bridge + " netns " + h.name,
		"-n " + n.name + " link set " + port + " master " + bridge,
		"-n " + n.name + " link set " + port + " up",
		fmt.Sprintf("-n %s addr add %s/%d dev %s nodad", h.name, address, map[bool]int{true: 24, false: 64}[address.Is4()], bridge),
		"-n " + h.name + " link set " + bridge + " up",
	} {
		if err := ip(args); err != nil {
			t.Fatalf("making a neighbour: %v", err)
		}
	}
	return h
}
