package lab

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/demoimage"
)

// files answers each path with a text or a file, after busy answers 503.
type files struct {
	content map[string][]byte
	busy    map[string]int // how many answers are 503, by path

	mu       sync.Mutex
	requests []string // path?query
}

func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.RequestURI)
	busy := f.busy[r.URL.Path] > 0
	f.busy[r.URL.Path]--
	f.mu.Unlock()
	content, ok := f.content[r.URL.Path]
	switch {
	case busy:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not yet", http.StatusServiceUnavailable)
	case !ok:
		http.Error(w, "unknown machine", http.StatusNotFound)
	default:
		_, _ = w.Write(content)
	}
}

func (f *files) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.requests...)
}

// serve starts a server of the network on port 8080, of either version of IP.
func (f *files) serve(n *Network) (url string) {
	if f.busy == nil {
		f.busy = map[string]int{}
	}
	listener := n.Listen("tcp", ":8080")
	go func() { _ = http.Serve(listener, f) }()
	return fmt.Sprintf("http://%s:8080", n.Gateway())
}

// tftpRoot is a directory with some of the distribution's iPXE.
func tftpRoot(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), IPXEFile(t, name), 0o644))
	}
	return root
}

// ironcoreConsoles end with one that an amd64 machine does not have.
const ironcoreConsoles = "console=ttyS0,115200 console=tty0 console=ttyAMA0 consoleblank=0"

// script boots the lab's OS.
func script(url, arguments string) []byte {
	return fmt.Appendf(nil, "#!ipxe\nkernel %[1]s/kernel initrd=initrd ip=any %[2]s "+ironcoreConsoles+
		"\ninitrd --name initrd %[1]s/initrd\nboot\n", url, arguments)
}

func TestUEFIPXELoadsIPXEWhichBootsAKernelWithCloudInit(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{IPv6: true})
	f := &files{
		content: map[string][]byte{
			"/kernel": Kernel(t, "amd64"), "/initrd": Initrd(t, "amd64"), "/squashfs": []byte("hsqs"),
			"/cloud-init/meta-data": []byte("instance-id: i-1\nlocal-hostname: one\n"),
			"/cloud-init/user-data": []byte("#cloud-config\nhostname: one\n"),
		},
		busy: map[string]int{"/cloud-init/user-data": 1},
	}
	url := f.serve(n)
	f.content["/boot.ipxe"] = script(url, "ds=nocloud-net;s="+url+"/cloud-init/ gl.url="+url+"/squashfs")
	n.DHCP(DHCPOptions{PXEFile: "snponly.efi", TFTPRoot: tftpRoot(t, "snponly.efi"), IPXEScript: url + "/boot.ipxe", IPv6: true})
	m := n.Machine(t, MachineOptions{Boot: UEFIPXE, UUID: "00112233-4455-6677-8899-aabbccddeeff"})
	m.PowerOn()
	m.Expect("UKI-BOOTED uuid=00112233-4455-6677-8899-aabbccddeeff", patience)
	m.ExpectLine(`^DHCP-OK 10\.77\.0\.\d+$`, patience)
	m.ExpectLine(`^SQUASHFS-FETCHED sha256:[0-9a-f]{64}$`, patience)
	m.ExpectLine(`^IGNITION-NONE$`, patience)
	m.ExpectLine(`^CLOUD-INIT-META instance-id=i-1 local-hostname=one $`, patience)
	m.ExpectLine(`^CLOUD-INIT-USER-DATA hostname: one$`, patience)
	m.WaitOff(patience)
	assert.Equal(t, 2, strings.Count(strings.Join(f.seen(), "\n"), "user-data"), "it asks again after 503")
}

func TestABIOSBootsAKernelByTheIPXEInItsROM(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{IPv6: true})
	f := &files{content: map[string][]byte{
		"/kernel": Kernel(t, "amd64"), "/initrd": Initrd(t, "amd64"), "/ignition": []byte(ignition),
	}}
	url := f.serve(n)
	f.content["/boot.ipxe"] = script(url, "ignition.config.url="+url+"/ignition")
	n.DHCP(DHCPOptions{IPXEScript: url + "/boot.ipxe", IPv6: true})
	m := n.Machine(t, MachineOptions{Boot: BIOS, UUID: "00112233-4455-6677-8899-aabbccddeeff"})
	m.PowerOn()
	m.Expect("UKI-BOOTED uuid=00112233-4455-6677-8899-aabbccddeeff", patience)
	m.ExpectLine(`^IGNITION-APPLIED applied by ignition $`, patience)
	m.WaitOff(patience)
}

// The script names the machine, as a default script does, and shows what Debian's
// iPXE of 2019 does: it has no imgverify, :uristring leaves & and = as they are, and
// it asks again after a 503 with Retry-After.
func TestIPXEInROMNamesTheMachineAndWaitsWhileTheServerIsBusy(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{IPv6: true})
	f := &files{
		content: map[string][]byte{"/next": script("${base}", "")},
		busy:    map[string]int{"/next": 2},
	}
	url := f.serve(n)
	f.content["/kernel"], f.content["/initrd"] = Kernel(t, "amd64"), Initrd(t, "amd64")
	f.content["/boot.ipxe"] = fmt.Appendf(nil, `#!ipxe
set base %s
isset ${net1/mac} && set more &mac=${net1/mac:hexhyp} ||
iseq ${platform} pcbios && echo THIS-IS-A-BIOS || echo THIS-IS-UEFI
imgverify x x && echo CAN-VERIFY || echo CANNOT-VERIFY
chain --replace ${base}/next?mac=${net0/mac:hexhyp}&uuid=${uuid}&serial=${serial:uristring}&buildarch=${buildarch}&platform=${platform}${more}
`, url)
	n.DHCP(DHCPOptions{IPXEScript: url + "/boot.ipxe", IPv6: true})
	m := n.Machine(t, MachineOptions{
		Boot: UEFIIPXE, MAC: "52:54:00:77:00:aa", UUID: "00112233-4455-6677-8899-aabbccddeeff",
		ExtraArgs: []string{"-smbios", "type=1,serial=a&b=c d"},
	})
	m.PowerOn()
	m.Expect("THIS-IS-UEFI", patience)
	m.Expect("CANNOT-VERIFY", patience)
	m.Expect("UKI-BOOTED uuid=00112233-4455-6677-8899-aabbccddeeff", patience)
	m.WaitOff(patience)
	named := "/next?mac=52-54-00-77-00-aa&uuid=00112233-4455-6677-8899-aabbccddeeff&serial=a&b=c%20d&buildarch=x86_64&platform=efi"
	assert.Equal(t, []string{"/boot.ipxe", named, named, named, "/kernel", "/initrd"}, f.seen())
}

// "exit 1" leaves for the next boot device everywhere. "exit" does so on a BIOS and
// from the ROM; but an iPXE that firmware loaded by TFTP then has done its work, and
// the firmware opens its menu. Debian's ipxe.efi, unlike its snponly.efi, never
// comes back to the firmware.
func TestAScriptLeavesForTheNextBootDevice(t *testing.T) {
	disk, err := demoimage.BootSector("NEXT-DISK\n")
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		boot Boot
		next []byte
	}{
		{"from a BIOS", BIOS, disk},
		{"from an iPXE that came by TFTP", UEFIPXE, greeting(t, "amd64", "NEXT-DISK")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := NewNetwork(t, NetworkOptions{IPv6: true})
			url := (&files{content: map[string][]byte{"/boot.ipxe": []byte("#!ipxe\nexit 1\n")}}).serve(n)
			n.DHCP(DHCPOptions{PXEFile: "snponly.efi", TFTPRoot: tftpRoot(t, "snponly.efi"), IPXEScript: url + "/boot.ipxe", IPv6: true})
			m := n.Machine(t, MachineOptions{Boot: c.boot, NextBoot: c.next})
			m.PowerOn()
			m.Expect("boot.ipxe", patience)
			m.Expect("NEXT-DISK", patience)
			m.WaitOff(patience)
		})
	}
}

func TestHTTPBootOverIPv6ComesFromTheReservedAddress(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{IPv6: true, Number: 6})
	const mac = "52:54:00:77:06:01"
	url := fmt.Sprintf("http://[%s]:8080", n.Gateway6())
	s := &server{images: map[string][]byte{
		"/boot.efi": OS(t, "amd64", "ignition.config.url="+url+"/ignition"), "/ignition": []byte(ignition),
	}}
	listener := n.Listen("tcp", ":8080")
	go func() { _ = http.Serve(listener, s) }()
	reserved := n.Addr6(0x150)
	n.DHCP(DHCPOptions{IPv6: true, NoIPv4: true, BootURL6: url + "/boot.efi", Reservations: map[string]netip.Addr{mac: reserved}})
	m := n.Machine(t, MachineOptions{Boot: UEFIHTTPv6, MAC: mac})
	m.PowerOn()
	m.Expect("UKI-BOOTED", patience)
	m.ExpectLine(`^IPV6-OK fd00:77:6:0:5054:ff:fe77:601$`, patience)
	m.ExpectLine(`^IGNITION-APPLIED applied by ignition $`, patience)
	m.WaitOff(patience)
	assert.Equal(t, "fd00:77:6:0:5054:ff:fe77:601", n.SLAAC(mac).String())
	assert.Equal(t, []string{
		"HEAD /boot.efi " + reserved.String(), "GET /boot.efi " + reserved.String(), "GET /ignition " + n.SLAAC(mac).String(),
	}, strings.Split(s.seen(), "\n"))
}

func TestAMachineBootsOnTheOneNICWithACable(t *testing.T) {
	t.Parallel()
	n := NewNetwork(t, NetworkOptions{})
	s := &server{images: map[string][]byte{"/boot.efi": OS(t, "amd64", "")}}
	go func() { _ = http.Serve(n.Listen("tcp4", ":8080"), s) }()
	dhcp := n.DHCP(DHCPOptions{BootURL: fmt.Sprintf("http://%s:8080/boot.efi", n.Gateway())})
	wired := "52:54:00:77:a0:03"
	m := n.Machine(t, MachineOptions{MoreMACs: []string{"52:54:00:77:a0:01", "52:54:00:77:a0:02", wired}, Unplugged: []int{0, 1, 2}})
	start := time.Now()
	m.PowerOn()
	address := m.ExpectLine(`^DHCP-OK (.*)$`, patience)[1]
	t.Logf("booted after %s", time.Since(start).Round(time.Second))
	m.WaitOff(patience)
	require.Len(t, dhcp.Leases(), 1)
	assert.Equal(t, wired, dhcp.Leases()[0].MAC)
	assert.Equal(t, dhcp.Leases()[0].Address.String(), address)
}

func TestMachinesThatCannotBeAreRefused(t *testing.T) {
	for want, options := range map[string]MachineOptions{
		"amd64 only":                {Boot: BIOS, Arch: "arm64"},
		"no such way to boot":       {Boot: "floppy"},
		"a BIOS knows no CAs":       {Boot: BIOS, HTTPSCA: []byte("x")},
		"a BIOS has no Secure Boot": {Boot: BIOS, SecureBoot: &SecureBootOptions{}},
		"no NIC 1 to unplug":        {Unplugged: []int{1}},
	} {
		_, err := NewVM(t.TempDir(), options)
		assert.ErrorContains(t, err, want)
	}
}
