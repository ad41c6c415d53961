package publish

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// kernel is what a kernel's file says of itself.
type kernel struct {
	// architecture is empty where the file does not say it.
	architecture string
	// efi says that firmware can start it: it has an EFI stub.
	efi bool
	// version as uname -r says it; empty where the file does not say it.
	version string
}

// Offsets of Linux's x86 boot protocol (Documentation/arch/x86/boot.rst) and of its
// arm64 Image (Documentation/arch/arm64/booting.rst).
const (
	bootSignature   = 0x202 // HdrS
	bootVersion     = 0x20e // where the kernel's version is, less 0x200
	loadFlags       = 0x236 // xloadflags
	xloadKernel64   = 1
	imageSignature  = 56 // ARM\x64
	maxVersion      = 128
	minKernelHeader = 0x238
)

// inspectKernel reads a kernel with an EFI stub, or one that iPXE starts without.
func inspectKernel(r io.ReaderAt, size int64) (kernel, error) {
	head := make([]byte, minKernelHeader)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return kernel{}, err
	}
	head = head[:n]
	x86 := len(head) == minKernelHeader && bytes.HasPrefix(head[bootSignature:], []byte("HdrS"))
	info, err := uki.Inspect(r, size)
	switch {
	case err == nil && info.UKI:
		return kernel{}, errors.New("it is a whole UKI")
	case err == nil && x86:
		return kernel{architecture: info.Architecture, efi: true, version: x86Version(r, head)}, nil
	case err == nil:
		return kernel{architecture: info.Architecture, efi: true}, nil
	case errors.Is(err, uki.ErrNotPE) && x86:
		k := kernel{version: x86Version(r, head)}
		if head[loadFlags]&xloadKernel64 != 0 {
			k.architecture = uki.AMD64
		}
		return k, nil
	case errors.Is(err, uki.ErrNotPE) && len(head) == minKernelHeader && bytes.HasPrefix(head[imageSignature:], []byte("ARM\x64")):
		return kernel{architecture: uki.ARM64}, nil
	}
	return kernel{}, err
}

// x86Version reads the version that a bzImage names; nothing where it names none.
func x86Version(r io.ReaderAt, head []byte) string {
	at := binary.LittleEndian.Uint16(head[bootVersion:])
	if at == 0 {
		return ""
	}
	text := make([]byte, maxVersion)
	n, err := r.ReadAt(text, int64(at)+0x200)
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	whole, _, found := bytes.Cut(text[:n], []byte{0})
	version, _, _ := strings.Cut(string(whole), " ")
	if !found || strings.ContainsFunc(version, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return ""
	}
	return version
}

// initrdMagics are how archives begin that the kernel unpacks as an initrd.
var initrdMagics = []string{
	"070701", "070702", "\x1f\x8b", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", "BZh", "\x02\x21\x4c\x18", "\x5d\x00\x00", "\x89LZO",
}

// checkMagic returns ErrFile for a file that does not begin with one of these.
func checkMagic(path, want string, magics []string) error {
	return reading(path, func(f *os.File, size int64) error {
		head := make([]byte, 16)
		n, err := f.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		for _, magic := range magics {
			if bytes.HasPrefix(head[:n], []byte(magic)) {
				return nil
			}
		}
		looks, err := uki.Sniff(f, size)
		if err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		return fmt.Errorf("%w: %s is not %s: it %s", ErrFile, path, want, looks)
	})
}
