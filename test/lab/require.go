package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// Requirement is something a test needs of the host.
type Requirement struct {
	check    func() error
	packages []string // Debian's that provide it
}

// What a test may require.
var (
	// Root is Linux with root and network namespaces.
	Root = Requirement{checkRoot, []string{"iproute2"}}
	// QEMU is an amd64 machine.
	QEMU = Requirement{func() error { return qemu.Installed("amd64") }, platforms["amd64"].packages}
	// ARM64 is an arm64 machine.
	ARM64 = Requirement{func() error { return qemu.Installed("arm64") }, platforms["arm64"].packages}
	// SecureBoot is an amd64 machine with Secure Boot.
	SecureBoot = Requirement{func() error { return qemu.SecureBootInstalled("amd64") }, platforms["amd64"].packages}
	// SnakeoilKey is the key pair that comes with the firmware.
	SnakeoilKey = Requirement{checkSnakeoil, []string{"ovmf"}}
	// OpenSSL is the program of that name.
	OpenSSL = Requirement{func() error { return checkPrograms("openssl") }, []string{"openssl"}}
	// LegacyBIOS is an amd64 machine with a BIOS, whose NICs' ROM is iPXE.
	LegacyBIOS = Requirement{checkBIOS, []string{"qemu-system-x86", "seabios", "ipxe-qemu"}}
	// IPXEROM is the iPXE in the ROM of a machine's NICs.
	IPXEROM = Requirement{func() error { return checkFiles("iPXE in the NIC's ROM", qemuROMs, "efi-virtio.rom") }, []string{"ipxe-qemu"}}
	// IPXE is iPXE as files for TFTP; see IPXEFile.
	IPXE = Requirement{func() error { return checkFiles("iPXE", ipxeDirectories, "snponly.efi", "undionly.kpxe") }, []string{"ipxe"}}
	// Kea is another DHCP server.
	Kea = Requirement{func() error { return checkPrograms("kea-dhcp4") }, []string{"kea-dhcp4-server"}}
	// DHCP is a DHCP server.
	DHCP = Requirement{func() error { return checkPrograms("dnsmasq") }, []string{"dnsmasq-base"}}
	// Debian is what OS is built from: apt with Debian's archive, bookworm or
	// later. What it downloads need not be installed.
	Debian = Requirement{checkDebian, []string{"dpkg", "xz-utils"}}
)

// Require skips the test when a requirement is not met, and fails it instead
// when CI=true: a test that can only be skipped protects nothing.
func Require(t testing.TB, requirements ...Requirement) {
	t.Helper()
	err := Check(requirements...)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("CI must run this test: %v", err)
	default:
		t.Skipf("NOT TESTED: %v", err)
	}
}

// Check is Require for programs: its error names everything that is missing and
// the one line that installs it.
func Check(requirements ...Requirement) error {
	var missing []error
	var packages []string
	for _, r := range requirements {
		if err := r.check(); err != nil {
			missing = append(missing, err)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
				packages = append(packages, r.packages...)
			}
		}
	}
	if missing == nil {
		return nil
	}
	err := errors.Join(missing...)
	if packages == nil {
		return err
	}
	slices.Sort(packages)
	return fmt.Errorf("%w\ninstall with: %s", err, installLine(slices.Compact(packages)))
}

func installLine(packages []string) string {
	if runtime.GOOS == "darwin" {
		return "brew install qemu"
	}
	return "sudo apt-get install -y --no-install-recommends " + strings.Join(packages, " ")
}

func checkRoot() error {
	if runtime.GOOS != "linux" {
		return errors.New("network namespaces need Linux")
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	return checkPrograms("ip")
}

func checkBIOS() error {
	return errors.Join(checkPrograms("qemu-system-x86_64"),
		checkFiles("SeaBIOS", biosDirectories, "bios-256k.bin"),
		checkFiles("iPXE in the NIC's ROM", qemuROMs, "efi-virtio.rom"))
}

// Where distributions keep SeaBIOS, QEMU's option ROMs and iPXE's files.
var (
	biosDirectories = []string{"/usr/share/seabios", "/usr/share/qemu", "/opt/homebrew/share/qemu", "/usr/local/share/qemu"}
	qemuROMs        = []string{"/usr/lib/ipxe/qemu", "/usr/share/ipxe/qemu", "/usr/share/qemu", "/opt/homebrew/share/qemu", "/usr/local/share/qemu"}
	ipxeDirectories = []string{"/usr/lib/ipxe", "/usr/share/ipxe"}
)

// checkFiles looks for each of the files in the directories.
func checkFiles(what string, directories []string, names ...string) error {
	var missing []error
	for _, name := range names {
		if _, err := findFile(directories, name); err != nil {
			missing = append(missing, fmt.Errorf("looking for %s: %w", what, err))
		}
	}
	return errors.Join(missing...)
}

func findFile(directories []string, name string) (string, error) {
	for _, directory := range directories {
		path := filepath.Join(directory, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s in %s: %w", name, strings.Join(directories, ", "), fs.ErrNotExist)
}

// IPXEFile reads a file of the distribution's iPXE, such as snponly.efi, ipxe.efi
// or undionly.kpxe. It skips the test where iPXE is not installed.
func IPXEFile(t testing.TB, name string) []byte {
	t.Helper()
	Require(t, IPXE)
	path, err := findFile(ipxeDirectories, name)
	if err != nil {
		t.Fatalf("looking for iPXE: %v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("looking for iPXE: %v", err)
	}
	return b
}

func checkPrograms(names ...string) error {
	var missing []error
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, err)
		}
	}
	return errors.Join(missing...)
}

func checkDebian() error {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil || !strings.Contains(string(release), "\nID=debian\n") {
		return errors.New("the lab's OS is built from the packages of a Debian host")
	}
	return checkPrograms("apt-get", "apt-cache", "dpkg-deb", "xz")
}
