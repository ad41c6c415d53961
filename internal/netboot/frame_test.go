package netboot

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
)

func aDatagram(port uint16, payload string) datagram {
	return datagram{
		ethernet: macA, source: netip.MustParseAddrPort("0.0.0.0:68"),
		destination: netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), port), payload: []byte(payload),
	}
}

func TestAFrameIsReadAsItWasWritten(t *testing.T) {
	for _, payload := range []string{"", "x", "odd", "even"} {
		d := aDatagram(portServer, payload)
		b := appendFrame(nil, macB, macA, d)
		got, ok := readFrame(b)
		require.True(t, ok)
		require.Equal(t, d.source, got.source)
		require.Equal(t, d.destination, got.destination)
		require.Equal(t, macA, got.ethernet)
		require.Equal(t, payload, string(got.payload))
		require.Equal(t, macBytes(macB), b[:6])
		require.Zero(t, ^fold(sum(0, b[14:34])), "the IP header's checksum")
		pseudo := sum(sum(0, b[26:34]), nil) + protocolUDP + uint32(len(b)-34)
		require.Zero(t, ^fold(sum(pseudo, b[34:])), "the UDP checksum")
	}
}

func TestFramesThatLieAboutTheirLengthAreNotRead(t *testing.T) {
	whole := appendFrame(nil, macB, macA, aDatagram(portServer, "payload"))
	for n := range whole {
		_, ok := readFrame(whole[:n])
		require.False(t, ok, "cut after %d bytes", n)
	}
	for name, c := range map[string]func([]byte){
		"IPv6":                 func(b []byte) { b[14] = 0x65 },
		"a long IP header":     func(b []byte) { b[14] = 0x4f },
		"a short IP header":    func(b []byte) { b[14] = 0x41 },
		"IP length too long":   func(b []byte) { b[17]++ },
		"a fragment":           func(b []byte) { b[20] = 0x20 },
		"a later fragment":     func(b []byte) { b[21] = 1 },
		"TCP":                  func(b []byte) { b[23] = 6 },
		"UDP length too long":  func(b []byte) { b[39]++ },
		"UDP length too short": func(b []byte) { b[39] = 7 },
		"ARP":                  func(b []byte) { b[13] = 6 },
		"a multicast source":   func(b []byte) { b[6] = 1 },
	} {
		b := append([]byte(nil), whole...)
		c(b)
		_, ok := readFrame(b)
		require.False(t, ok, name)
	}
}

func TestTheFilterPassesOnlyDHCP(t *testing.T) {
	raw, err := dhcpFilter(7)
	require.NoError(t, err)
	program, ok := bpf.Disassemble(raw)
	require.True(t, ok)
	// What the kernel knows of a packet has no counterpart here: as if it had
	// answered with the interface, no VLAN, and a broadcast.
	require.IsType(t, bpf.LoadExtension{}, program[0])
	for i, known := range map[int]uint32{0: 7, 2: 0, 4: 1} {
		program[i] = bpf.LoadConstant{Dst: bpf.RegA, Val: known}
	}
	vm, err := bpf.NewVM(program)
	require.NoError(t, err)
	for port, want := range map[uint16]bool{67: true, 68: true, 4011: true, 66: false, 69: false, 53: false} {
		n, err := vm.Run(appendFrame(nil, macB, macA, aDatagram(port, "payload")))
		require.NoError(t, err)
		require.Equal(t, want, n > 0, port)
	}
	for offset, value := range map[int]byte{12: 0x86, 20: 0x20, 21: 1, 23: 6} {
		b := appendFrame(nil, macB, macA, aDatagram(portServer, "payload"))
		b[offset] = value
		n, err := vm.Run(b)
		require.NoError(t, err)
		require.Zero(t, n, offset)
	}
}
