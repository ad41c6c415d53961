package lab

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// serveBoot offers one EFI application to the machines of a network.
func serveBoot(t *testing.T, n *Network, image []byte) *server {
	t.Helper()
	s := &server{images: map[string][]byte{"/boot.efi": image}}
	go func() { _ = http.Serve(n.Listen("tcp4", ":8080"), s) }()
	n.DHCP(DHCPOptions{BootURL: fmt.Sprintf("http://%s:8080/boot.efi", n.Gateway())})
	return s
}

func TestASignedUKIBootsUnderSecureBoot(t *testing.T) {
	t.Parallel()
	key := Snakeoil(t)
	n := NewNetwork(t, NetworkOptions{})
	serveBoot(t, n, SignedOS(t, "amd64", "", key))
	m := n.Machine(t, MachineOptions{SecureBoot: key.Firmware()})
	assert.False(t, m.Vars().SecureBootEnabled(), "the firmware has not started yet")
	start := time.Now()
	m.PowerOn()
	m.Expect("UKI-BOOTED", patience)
	t.Logf("booted after %s", time.Since(start).Round(100*time.Millisecond))
	m.ExpectLine(`^SECURE-BOOT enabled$`, patience)
	m.WaitOff(patience)
	assert.True(t, m.Vars().SecureBootEnabled(), "the firmware has switched it on")
}

// What is refused is what is not signed, or by another key, and nothing else: the same
// machine boots what it trusts.
func TestFirmwareRefusesWhatItDoesNotTrust(t *testing.T) {
	t.Parallel()
	Require(t, SecureBoot)
	ours, theirs := NewSigningKey(t, "ours"), NewSigningKey(t, "theirs")
	image := greeting(t, "amd64", "IT-STARTED")
	for name, c := range map[string]struct {
		image    []byte
		firmware *SecureBootOptions
		starts   bool
	}{
		"unsigned":           {image, ours.Firmware(), false},
		"signed by another":  {theirs.Sign(t, image), ours.Firmware(), false},
		"signed by both":     {ours.Sign(t, theirs.Sign(t, image)), ours.Firmware(), true},
		"in Setup Mode":      {image, &SecureBootOptions{DB: ours.Certificate}, true},
		"switched off again": {image, &SecureBootOptions{PK: ours.Certificate, KEK: ours.Certificate, DB: ours.Certificate, Off: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := NewMachine(t, MachineOptions{SecureBoot: c.firmware, NextBoot: c.image, DiskFirst: true, Life: patience})
			m.PowerOn()
			if !c.starts {
				m.Expect(AccessDenied, patience)
				assert.NotContains(t, m.VM.Transcript(), "IT-STARTED")
				return
			}
			m.Expect("IT-STARTED", patience)
			m.WaitOff(patience)
			assert.Equal(t, name == "signed by both", m.Vars().SecureBootEnabled())
		})
	}
}

func TestAnARM64MachineHasSecureBootToo(t *testing.T) {
	t.Parallel()
	Require(t, ARM64)
	key := NewSigningKey(t, "ours")
	image := greeting(t, "arm64", "IT-STARTED")
	m := NewMachine(t, MachineOptions{Arch: "arm64", SecureBoot: key.Firmware(), NextBoot: image, DiskFirst: true, Life: patience})
	m.PowerOn()
	m.Expect(AccessDenied, patience)
	m.PowerOff()
	m = NewMachine(t, MachineOptions{Arch: "arm64", SecureBoot: key.Firmware(), NextBoot: key.Sign(t, image), DiskFirst: true})
	m.PowerOn()
	m.Expect("IT-STARTED", patience)
	m.WaitOff(patience)
	assert.True(t, m.Vars().SecureBootEnabled())
}

// Keys that are written while the machine is off are what its firmware goes by when it
// starts.
func TestTheKeysOfAMachineAreChangedWhileItIsOff(t *testing.T) {
	t.Parallel()
	Require(t, SecureBoot)
	ours, theirs := NewSigningKey(t, "ours"), NewSigningKey(t, "theirs")
	image := theirs.Sign(t, greeting(t, "amd64", "IT-STARTED"))
	m := NewMachine(t, MachineOptions{SecureBoot: ours.Firmware(), NextBoot: image, DiskFirst: true, Life: patience})
	m.PowerOn()
	m.Expect(AccessDenied, patience)
	m.PowerOff()
	keys, err := SecureBootOptions{PK: ours.Certificate, DB: append(append([]byte{}, ours.Certificate...), theirs.Certificate...)}.Keys()
	assert.NoError(t, err)
	assert.NoError(t, m.SetKeys(keys, true))
	m.PowerOn()
	m.Expect("IT-STARTED", patience)
	m.WaitOff(patience)
	assert.NoError(t, m.SetKeys(qemu.Keys{qemu.DBX: keys[qemu.DB][1:], qemu.PK: keys[qemu.PK], qemu.DB: keys[qemu.DB]}, true))
	m.PowerOn()
	m.Expect(AccessDenied, patience)
}

// Any iPXE starts that is signed with a key in db, and it starts nothing that is not:
// it asks the firmware.
func TestIPXEThatIsSignedStartsWhatIsSigned(t *testing.T) {
	t.Parallel()
	Require(t, SecureBoot, IPXE)
	key := NewSigningKey(t, "ours")
	program := IPXEFile(t, "snponly.efi")
	image := greeting(t, "amd64", "IT-STARTED")
	for _, c := range []struct {
		name            string
		program, image  []byte
		ipxe, it, fails string
	}{
		{"both", key.Sign(t, program), key.Sign(t, image), "IPXE-RUNS", "IT-STARTED", ""},
		{"only iPXE", key.Sign(t, program), image, "IPXE-RUNS", "IT-IS-REFUSED", "IT-STARTED"},
		{"nothing", program, key.Sign(t, image), "", AccessDenied, "IPXE-RUNS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := NewNetwork(t, NetworkOptions{IPv6: true})
			root := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(root, "snponly.efi"), c.program, 0o644))
			f := &files{content: map[string][]byte{
				"/boot.ipxe": []byte("#!ipxe\necho IPXE-RUNS\nchain next.efi || echo IT-IS-REFUSED\nexit 1\n"), "/next.efi": c.image,
			}}
			n.DHCP(DHCPOptions{PXEFile: "snponly.efi", TFTPRoot: root, IPXEScript: f.serve(n) + "/boot.ipxe", IPv6: true})
			m := n.Machine(t, MachineOptions{Boot: UEFIPXE, SecureBoot: key.Firmware(), Life: patience})
			m.PowerOn()
			if c.ipxe != "" {
				m.Expect(c.ipxe, patience)
			}
			m.Expect(c.it, patience)
			if c.fails != "" {
				assert.NotContains(t, m.VM.Transcript(), c.fails)
			}
		})
	}
}

// What docs/secure-boot.md says to run makes keys that firmware takes.
func TestTheKeysOfTheDocumentationBootAMachine(t *testing.T) {
	t.Parallel()
	Require(t, SecureBoot, OpenSSL)
	page, err := os.ReadFile("../../docs/secure-boot.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n## 1. Make keys\n")
	require.True(t, found)
	_, block, found := strings.Cut(section, "```sh\n")
	require.True(t, found)
	block, _, _ = strings.Cut(block, "```")
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", block)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	file := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return text
	}
	key := &SigningKey{KeyFile: filepath.Join(dir, "db.key"), CertificateFile: filepath.Join(dir, "db.crt")}
	require.NoError(t, key.load())
	m := NewMachine(t, MachineOptions{
		SecureBoot: &SecureBootOptions{PK: file("PK.crt"), KEK: file("KEK.crt"), DB: file("ca.crt")},
		NextBoot:   key.Sign(t, greeting(t, "amd64", "IT-STARTED")), DiskFirst: true, Life: patience,
	})
	m.PowerOn()
	m.Expect("IT-STARTED", patience)
	m.WaitOff(patience)
	assert.True(t, m.Vars().SecureBootEnabled())
}
