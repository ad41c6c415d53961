package netboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pin/tftp/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// serve starts TFTP on the loopback, and returns its address.
func (w *world) serve() *net.UDPAddr {
	w.t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.serveTFTP(ctx, conn, w.segments[0]) }()
	w.t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(w.t, err)
		case <-time.After(10 * time.Second):
			w.t.Error("the TFTP server did not stop")
		}
	})
	return conn.LocalAddr().(*net.UDPAddr)
}

// counts waits until the server has counted this many: a client is sometimes
// faster to know.
func (w *world) counts(want float64, file, result string) {
	w.t.Helper()
	counter := w.metrics.transfers.WithLabelValues(file, result)
	require.Eventually(w.t, func() bool { return testutil.ToFloat64(counter) == want }, 2*time.Second, time.Millisecond,
		"%s %s", file, result)
}

// get fetches a file as a client does that negotiates tsize and blksize.
func get(t *testing.T, server *net.UDPAddr, name string, blksize int) ([]byte, int64, error) {
	t.Helper()
	c, err := tftp.NewClient(server.String())
	require.NoError(t, err)
	c.RequestTSize(true)
	c.SetBlockSize(blksize)
	c.SetTimeout(2 * time.Second)
	from, err := c.Receive(name, "octet")
	if err != nil {
		return nil, 0, err
	}
	size, _ := from.(tftp.IncomingTransfer).Size()
	var b bytes.Buffer
	_, err = from.WriteTo(&b)
	return b.Bytes(), size, err
}

// exchange sends one packet and returns what comes back first, and from where.
func exchange(t testing.TB, server *net.UDPAddr, packet []byte, wait time.Duration) ([]byte, *net.UDPConn, *net.UDPAddr) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = conn.WriteToUDP(packet, server)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(wait)))
	b := make([]byte, 70000)
	n, from, err := conn.ReadFromUDP(b)
	if err != nil {
		return nil, conn, nil
	}
	return b[:n], conn, from
}

func readRequestPacket(op uint16, parts ...string) []byte {
	return append(append(binary.BigEndian.AppendUint16(nil, op), strings.Join(parts, "\x00")...), 0)
}

func TestFilesAreTransferredWhole(t *testing.T) {
	w := newWorld(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	write(t, w.options.ProgramDir, "undionly.kpxe", content)
	w.rescan()
	server := w.serve()
	for _, name := range []string{"undionly.kpxe", "/undionly.kpxe", `\undionly.kpxe`, "//undionly.kpxe"} {
		got, size, err := get(t, server, name, 1400)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got), name)
		require.EqualValues(t, len(content), size)
	}
	w.counts(4, "undionly.kpxe", resultComplete)
	got, _, err := get(t, server, "arm64//snponly.efi", 512)
	require.NoError(t, err)
	require.Equal(t, pe(0xaa64, "arm"), got)
}

func TestNothingButListedFilesIsServed(t *testing.T) {
	w := newWorld(t)
	secret := filepath.Join(filepath.Dir(w.options.ProgramDir), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	write(t, w.options.ProgramDir, "notes.txt", []byte("secret"))
	server := w.serve()
	for _, name := range []string{
		"../../etc/passwd", "/etc/passwd", "../secret", "arm64/../../secret", `..\secret`, "notes.txt", "", ".", "/", "arm64", "arm64/",
		"./ipxe.efi", "ipxe.efi/", "IPXE.EFI", "ipxe.efi ", secret, strings.Repeat("../", 100) + "etc/passwd", "ipxe.efi\n",
	} {
		_, _, err := get(t, server, name, 512)
		require.ErrorContains(t, err, "no such file", name)
	}
	w.counts(18, "other", resultNotFound)
}

func TestNothingCanBeWritten(t *testing.T) {
	w := newWorld(t)
	server := w.serve()
	answer, _, _ := exchange(t, server, readRequestPacket(2, "ipxe.efi", "octet"), 2*time.Second)
	require.Equal(t, uint16(5), binary.BigEndian.Uint16(answer))
	require.Contains(t, string(answer), "read-only")
	w.counts(1, "other", resultReadOnly)
	require.Equal(t, pe(0x8664, "ipxe"), mustRead(t, filepath.Join(w.options.ProgramDir, "ipxe.efi")))
}

func mustRead(t *testing.T, path string) []byte {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func TestTheBlockSizeIsBounded(t *testing.T) {
	w := newWorld(t)
	server := w.serve()
	for asked, want := range map[string]string{"1024": "1024", "1468": "1468", "9000": "1468", "65464": "1468", "65465": "", "999999999999999999999": "", "-5": "", "8": "", "x": ""} {
		answer, conn, from := exchange(t, server, readRequestPacket(1, "ipxe.efi", "octet", "blksize", asked, "tsize", "0"), 2*time.Second)
		require.NotEmpty(t, answer, asked)
		require.Equal(t, uint16(6), binary.BigEndian.Uint16(answer), asked)
		fields := strings.Split(string(answer[2:]), "\x00")
		got := ""
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] == "blksize" {
				got = fields[i+1]
			}
		}
		require.Equal(t, want, got, asked)
		require.Contains(t, string(answer), "tsize\x00"+strconv.Itoa(len(pe(0x8664, "ipxe"))))
		_, err := conn.WriteToUDP([]byte{0, 5, 0, 0, 0}, from) // an ERROR ends it
		require.NoError(t, err)
	}
}

func TestAClientThatNeverAcknowledgesIsGivenUp(t *testing.T) {
	w := newWorld(t)
	w.resendAfter = 20 * time.Millisecond
	server := w.serve()
	answer, conn, _ := exchange(t, server, readRequestPacket(1, "ipxe.efi", "octet"), 2*time.Second)
	require.Equal(t, uint16(3), binary.BigEndian.Uint16(answer))
	sent := 1
	b := make([]byte, 2048)
	for {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(2*time.Second)))
		n, _, err := conn.ReadFromUDP(b)
		require.NoError(t, err, "the end is told by an ERROR")
		if binary.BigEndian.Uint16(b[:n]) == 5 {
			break
		}
		sent++
	}
	require.Equal(t, 1+blockRetries, sent)
	require.Eventually(t, func() bool {
		w.slots.mu.Lock()
		defer w.slots.mu.Unlock()
		return w.slots.all == 0 && len(w.slots.clients) == 0
	}, 2*time.Second, time.Millisecond)
	w.counts(1, "ipxe.efi", resultFailed)
}

func TestOneClientCannotTakeAllTransfers(t *testing.T) {
	w := newWorld(t)
	w.resendAfter = 200 * time.Millisecond
	server := w.serve()
	for range maxPerClient {
		answer, _, _ := exchange(t, server, readRequestPacket(1, "ipxe.efi", "octet"), 2*time.Second)
		require.Equal(t, uint16(3), binary.BigEndian.Uint16(answer))
	}
	answer, _, _ := exchange(t, server, readRequestPacket(1, "ipxe.efi", "octet"), 2*time.Second)
	require.Equal(t, uint16(5), binary.BigEndian.Uint16(answer))
	require.Contains(t, string(answer), "too many transfers")
}

func TestAutoexecIsMadeWhereThereIsNone(t *testing.T) {
	w := newWorld(t)
	server := w.serve()
	for _, name := range []string{"autoexec.ipxe", "/arm64/autoexec.ipxe"} {
		got, _, err := get(t, server, name, 512)
		require.NoError(t, err)
		require.Equal(t, "#!ipxe\nautoboot || chain "+baseURL+"/boot.ipxe || exit 1\n", string(got))
	}
	write(t, w.options.ProgramDir, "autoexec.ipxe", []byte("#!ipxe\nshell\n"))
	w.rescan()
	got, _, err := get(t, server, "autoexec.ipxe", 512)
	require.NoError(t, err)
	require.Equal(t, "#!ipxe\nshell\n", string(got))
}

func TestAReplacedProgramIsFoundAgain(t *testing.T) {
	w := newWorld(t)
	dir := w.options.ProgramDir
	require.NoError(t, os.Mkdir(filepath.Join(dir, "v1"), 0o755))
	write(t, dir, "v1/x", pe(0x8664, "first"))
	require.NoError(t, os.Remove(filepath.Join(dir, "ipxe.efi")))
	require.NoError(t, os.Symlink("v1/x", filepath.Join(dir, "ipxe.efi")))
	w.rescan()
	require.NoError(t, os.Rename(filepath.Join(dir, "v1"), filepath.Join(dir, "v2"))) // as a mounted ConfigMap does
	require.NoError(t, os.Remove(filepath.Join(dir, "ipxe.efi")))
	require.NoError(t, os.Symlink("v2/x", filepath.Join(dir, "ipxe.efi")))
	got, _, err := get(t, w.serve(), "ipxe.efi", 512)
	require.NoError(t, err)
	require.Equal(t, pe(0x8664, "first"), got)
}

func TestATFTPFloodOfOneClientIsRefused(t *testing.T) {
	w := newWorld(t)
	server := w.serve()
	for range filesBurst {
		w.allowFiles(netip.MustParseAddr("127.0.0.1"))
	}
	_, _, err := get(t, server, "ipxe.efi", 512)
	require.ErrorContains(t, err, errBusy.Error())
	w.counts(1, "other", resultRate)
}
