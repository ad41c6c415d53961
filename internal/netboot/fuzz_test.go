package netboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// FuzzDHCP protects that no message gets a token but those that the rules allow.
func FuzzDHCP(f *testing.F) {
	for _, b := range [][]byte{
		discover(macA, httpX64, 16),
		discover(macA, pxeX64, 7, option(optUserClass, []byte("\x04iPXE")...)),
		discover(macA, httpX64, 16, via(relay, "port 7")),
		discover(macA, httpX64, 16, option(optOverload, 3), func(d *message) { d.BootFileName = "\x3c\x05HTTPC\xff" }),
		discover(macA, pxeX64, 7, option(optType, 3), option(optVendor, 71, 4, 0, 0, 0, 0, 255)),
		offerOf(option(optBootFile, 'x')),
	} {
		f.Add(b, true, false, uint16(portServer))
		f.Add(b, false, true, uint16(portServer))
		f.Add(b[:250], true, false, uint16(portPXE))
	}
	w := newFuzzWorld(f)
	f.Fuzz(func(t *testing.T, packet []byte, honest, fromRelay bool, port uint16) {
		w.t, w.now = t, w.now.Add(time.Second) // so that no limit hides anything
		w.log.Reset()
		a := attachedArrival(macB)
		if honest {
			a = attachedArrival(macA)
		}
		if fromRelay {
			a.source = netip.AddrPortFrom(relay, 67)
		}
		a.port = port
		v := w.answer(packet, a)
		w.account(v)
		_, _ = w.foreignOffer(packet, otherServer)
		if v.reply == nil {
			return
		}
		require.Empty(t, v.refusal)
		sent := v.reply.ToBytes()
		require.Less(t, len(sent), 1472+512, "a reply stays near the size of a frame")
		require.True(t, v.reply.YourIPAddr.To4() == nil || v.reply.YourIPAddr.IsUnspecified())
		if !bytes.Contains(sent, []byte("/t/")) {
			return
		}
		giaddr := addrOf(v.request.dhcp.GatewayIPAddr)
		require.Equal(t, macA, v.request.mac, "the only MAC address that has a plan")
		switch token := w.tokenIn(file(v)); token.Proof {
		case boot.Proxy:
			require.True(t, giaddr.IsUnspecified() && a.ethernet == v.request.mac)
		case boot.Relay:
			require.True(t, fromRelay && w.trusts(giaddr))
			require.NotEmpty(t, v.request.dhcp.Options[optRelay])
			require.False(t, v.reply.IsBroadcast())
		default:
			t.Fatalf("a token of the proof %s", token.Proof)
		}
	})
}

// newFuzzWorld knows one NIC of one machine.
func newFuzzWorld(t testing.TB) *world {
	w := newWorld(t)
	w.source.plans = []*boot.Plan{
		change(httpPlan(), func(p *boot.Plan) { p.Machine.MACs = []boot.MAC{macA} }),
		change(ipxePlan(), func(p *boot.Plan) { p.Machine.MACs = []boot.MAC{macA} }),
	}
	return w
}

// FuzzFrame protects the reading of frames.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, macB, macA, aDatagram(portServer, "payload")))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok := readFrame(b)
		if ok {
			require.LessOrEqual(t, len(d.payload), len(b)-ethernetHeader-ipHeader-udpHeader)
			_, err := boot.ParseMAC(string(d.ethernet))
			require.NoError(t, err)
		}
	})
}

// FuzzTFTPRequest sends packets to the real server: whatever is answered with
// data is one of the listed files.
func FuzzTFTPRequest(f *testing.F) {
	f.Add(readRequestPacket(1, "ipxe.efi", "octet", "blksize", "65464", "tsize", "0"))
	f.Add(readRequestPacket(1, "../../etc/passwd", "octet"))
	f.Add(readRequestPacket(1, "autoexec.ipxe", "netascii", "tsize", strings.Repeat("9", 470)))
	f.Add(readRequestPacket(2, "ipxe.efi", "octet"))
	f.Add(readRequestPacket(1, "ipxe.efi", "octet", "blksize"))
	f.Add([]byte{0, 1, 0, 0})
	f.Add([]byte{0, 1})
	f.Add([]byte{0, 4, 0, 1})
	f.Add(append(readRequestPacket(1, "ipxe.efi", "octet", "blksize", "0", "blksize", "513"), bytes.Repeat([]byte{0}, 400)...))
	w := newWorld(f)
	w.resendAfter = 10 * time.Millisecond
	server := w.serve()
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > 60000 {
			return
		}
		answer, conn, from := exchange(t, server, packet, 30*time.Millisecond)
		if len(answer) < 4 || binary.BigEndian.Uint16(answer) == 5 {
			return
		}
		require.Equal(t, uint16(1), binary.BigEndian.Uint16(packet), "only a read request is answered")
		name, _, _ := strings.Cut(string(packet[2:]), "\x00")
		name = canonicalName(name)
		_, _, err := (&files{server: w.Server}).generated(name)
		known := slices.ContainsFunc(w.Programs(), func(p Program) bool { return p.Name == name })
		require.True(t, known || !errors.Is(err, errNoSuchFile), "%q was served", name)
		require.LessOrEqual(t, len(answer), maxBlock+4)
		_, err = conn.WriteToUDP([]byte{0, 5, 0, 0, 0}, from)
		require.True(t, err == nil || errors.Is(err, net.ErrClosed))
	})
}
