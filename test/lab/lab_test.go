package lab

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/demoimage"
)

// patience is for a host that is busy with other things: a boot takes 14 s.
const patience = 2 * time.Minute

// server answers as a boot server does, and remembers who asked for what.
type server struct {
	images   map[string][]byte // by path; what ends in .efi is application/efi
	mu       sync.Mutex
	requests []string // METHOD path from-address
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	s.mu.Lock()
	s.requests = append(s.requests, fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, host))
	s.mu.Unlock()
	image, ok := s.images[r.URL.Path]
	if !ok {
		http.Error(w, "unknown machine", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/efi")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(image))
}

func (s *server) seen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.requests, "\n")
}

const ignition = `{"ignition": {"version": "3.3.0"}, "storage": {"files": [
  {"path": "/etc/boot-operator-lab", "mode": 420, "contents": {"source": "data:,applied%20by%20ignition%0A"}}]}}`

func TestAMachineBootsOverHTTPAndItsIgnitionApplies(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{})
	url := fmt.Sprintf("http://%s:8080", n.Gateway())
	s := &server{images: map[string][]byte{
		"/httpboot.efi": OS(t, "amd64", "ignition.config.url="+url+"/ignition"),
		"/ignition":     []byte(ignition),
	}}
	go func() { _ = http.Serve(n.Listen("tcp4", ":8080"), s) }()
	dhcp := n.DHCP(DHCPOptions{BootURL: url + "/httpboot.efi", SeparatePools: true})
	m := n.Machine(t, MachineOptions{UUID: "00112233-4455-6677-8899-aabbccddeeff"})

	start := time.Now()
	m.PowerOn()
	m.Expect("UKI-BOOTED uuid=00112233-4455-6677-8899-aabbccddeeff", patience)
	t.Logf("booted after %s", time.Since(start).Round(100*time.Millisecond))
	address := m.ExpectLine(`^DHCP-OK (.*)$`, patience)[1]
	m.ExpectLine(`^IGNITION-APPLIED applied by ignition $`, patience)
	m.WaitOff(patience)
	t.Logf("off after %s", time.Since(start).Round(100*time.Millisecond))

	lease, ok := dhcp.Lease(m.MAC())
	require.True(t, ok)
	assert.Equal(t, lease.String(), address)
	assert.Greater(t, lease.As4()[3], byte(74), "with separate pools the OS has an address of its own")
	assert.Equal(t, []string{"HEAD", "GET", "GET"}, methods(s.seen()), "the firmware asks HEAD first:\n%s", s.seen())
}

func TestAnUnprivilegedMachineBootsOverHTTPSFromItsOwnCAOnly(t *testing.T) {
	t.Parallel()
	Require(t, QEMU)
	ours, theirs := NewCA(t, "ours"), NewCA(t, "theirs")
	s := &server{images: map[string][]byte{"/boot.efi": greeting(t, "amd64", "BOOTED-OVER-HTTPS")}}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	tlsServer := http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0)} // refusals are what we want
	go func() { _ = tlsServer.Serve(tls.NewListener(listener, ours.ServerConfig(UserGateway))) }()
	url := fmt.Sprintf("https://%s/boot.efi", net.JoinHostPort(UserGateway, port(listener)))

	t.Run("right CA", func(t *testing.T) {
		m := NewMachine(t, MachineOptions{HTTPSCA: ours.PEM, NextBoot: greeting(t, "amd64", "FROM-DISK"), DiskFirst: true})
		m.BootNext(url)
		m.PowerOn()
		m.Expect("BOOTED-OVER-HTTPS", patience)
		m.WaitOff(patience)
		_, pending := m.Vars().BootNext()
		assert.False(t, pending, "the firmware consumes BootNext")
		m.PowerOn()
		m.Expect("FROM-DISK", patience)
	})
	t.Run("wrong CA", func(t *testing.T) {
		m := NewMachine(t, MachineOptions{HTTPSCA: theirs.PEM, BootURL: url, NextBoot: greeting(t, "amd64", "NEXT-ENTRY")})
		m.PowerOn()
		m.Expect("NEXT-ENTRY", patience)
	})
	assert.Equal(t, []string{"HEAD", "GET"}, methods(s.seen()), "the machine with the wrong CA asks for nothing")
}

func TestAnARM64MachineThatIsUnknownGoesOnToItsNextBootEntry(t *testing.T) {
	t.Parallel()
	Require(t, ARM64)
	s := &server{}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() { _ = http.Serve(listener, s) }()

	m := NewMachine(t, MachineOptions{
		Arch:     "arm64",
		BootURL:  fmt.Sprintf("http://%s/httpboot", net.JoinHostPort(UserGateway, port(listener))),
		NextBoot: greeting(t, "arm64", "NEXT-ENTRY"),
	})
	m.PowerOn()
	m.Expect("NEXT-ENTRY", patience)
	m.WaitOff(patience)
	assert.Contains(t, s.seen(), "HEAD /httpboot 127.0.0.1")
}

func greeting(t *testing.T, architecture, message string) []byte {
	t.Helper()
	image, err := demoimage.Greeting(architecture, message+"\n")
	require.NoError(t, err)
	return image
}

func port(listener net.Listener) string {
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

func methods(seen string) []string {
	var all []string
	for line := range strings.Lines(seen) {
		all = append(all, strings.Fields(line)[0])
	}
	return all
}
