package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// platform is what differs between architectures.
type platform struct {
	emulator string
	machine  []string // QEMU's arguments for board and CPU
	memory   int      // MiB, default
	firmware []firmware
	// secure is firmware with Secure Boot; secureMachine are QEMU's arguments without
	// which it does not start, or does not keep its keys from the guest.
	secure        []firmware
	secureMachine []string
	// bootFile is what firmware starts from a disk without a boot entry.
	bootFile string
}

// firmware is a pair of flash images.
type firmware struct{ code, vars string }

// platforms knows firmware where Debian, Fedora, Arch and Homebrew install it.
var platforms = map[string]platform{
	"amd64": {
		emulator: "qemu-system-x86_64",
		machine:  []string{"-machine", "q35,accel=tcg", "-cpu", "max"},
		memory:   1024,
		firmware: []firmware{
			{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
			{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
			{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
			{"/opt/homebrew/share/qemu/edk2-x86_64-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"},
			{"/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd"},
		},
		// Their templates have no keys: those are written by us.
		secure: []firmware{
			{"/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
			{"/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
			{"/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
			{"/opt/homebrew/share/qemu/edk2-x86_64-secure-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"},
			{"/usr/local/share/qemu/edk2-x86_64-secure-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd"},
		},
		secureMachine: []string{
			"-machine", "smm=on",
			"-global", "driver=cfi.pflash01,property=secure,value=on",
			"-global", "ICH9-LPC.disable_s3=1",
		},
		bootFile: "BOOTX64.EFI",
	},
	"arm64": {
		emulator: "qemu-system-aarch64",
		machine:  []string{"-machine", "virt,gic-version=3,accel=tcg", "-cpu", "cortex-a57"},
		memory:   1024,
		firmware: []firmware{
			{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
			{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
			{"/opt/homebrew/share/qemu/edk2-aarch64-code.fd", "/opt/homebrew/share/qemu/edk2-arm-vars.fd"},
			{"/usr/local/share/qemu/edk2-aarch64-code.fd", "/usr/local/share/qemu/edk2-arm-vars.fd"},
		},
		// Debian's has it; the board cannot keep the keys from the guest.
		secure: []firmware{
			{"/usr/share/AAVMF/AAVMF_CODE.secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
			{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
		},
		bootFile: "BOOTAA64.EFI",
	},
}

func platformOf(architecture string) (platform, error) {
	p, ok := platforms[architecture]
	if !ok {
		return platform{}, fmt.Errorf("no machine of architecture %q: there are amd64 and arm64", architecture)
	}
	return p, nil
}

// find returns the first pair of flash images that is installed, of those with Secure
// Boot or of those without.
func (p platform) find(secure bool) (firmware, error) {
	all, what := p.firmware, "UEFI firmware"
	if secure {
		all, what = p.secure, "UEFI firmware with Secure Boot"
	}
	var tried []string
	for _, f := range all {
		_, codeErr := os.Stat(f.code)
		_, varsErr := os.Stat(f.vars)
		if codeErr == nil && varsErr == nil {
			return f, nil
		}
		tried = append(tried, filepath.Dir(f.code))
	}
	return firmware{}, fmt.Errorf("no %s for %s in %s: %w", what, p.emulator, strings.Join(tried, ", "), fs.ErrNotExist)
}

// Installed tells whether the emulator and the UEFI firmware of an architecture,
// amd64 or arm64, are there. Its error wraps exec.ErrNotFound, fs.ErrNotExist or
// both.
func Installed(architecture string) error { return installed(architecture, false) }

// SecureBootInstalled is Installed for firmware with Secure Boot.
func SecureBootInstalled(architecture string) error { return installed(architecture, true) }

func installed(architecture string, secure bool) error {
	p, err := platformOf(architecture)
	if err != nil {
		return err
	}
	_, emulatorErr := exec.LookPath(p.emulator)
	_, firmwareErr := p.find(secure)
	return errors.Join(emulatorErr, firmwareErr)
}
