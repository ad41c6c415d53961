package lab

import "fmt"

// platform is what differs between architectures, but for the machine itself.
type platform struct {
	// dhcpArch is the machine's DHCP option 93 for HTTP boot (RFC 5970, IANA
	// "Processor Architecture Types").
	dhcpArch int
	// serial is the kernel's name for the serial console.
	serial string
	// stub is the name of systemd's EFI stub.
	stub string
	// packages are Debian's for emulator and firmware.
	packages []string
}

var platforms = map[string]platform{
	"amd64": {
		dhcpArch: 16, serial: "ttyS0", stub: "linuxx64.efi.stub",
		packages: []string{"qemu-system-x86", "ovmf"},
	},
	"arm64": {
		dhcpArch: 19, serial: "ttyAMA0", stub: "linuxaa64.efi.stub",
		packages: []string{"qemu-system-arm", "qemu-efi-aarch64"},
	},
}

func platformOf(architecture string) (platform, error) {
	p, ok := platforms[architecture]
	if !ok {
		return platform{}, fmt.Errorf("no OS for architecture %q: there are amd64 and arm64", architecture)
	}
	return p, nil
}
