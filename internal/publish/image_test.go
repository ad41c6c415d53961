package publish

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// What a new user gives by mistake is called by its name.
func TestAWrongFileIsNamedForWhatItIs(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *Sources, file func(data string) string)
		says   string
	}{
		"nothing":            {func(s *Sources, _ func(string) string) { *s = Sources{} }, "an image needs a UKI, or a kernel and an initrd"},
		"a squashfs alone":   {func(s *Sources, _ func(string) string) { *s = Sources{Squashfs: s.Squashfs} }, "an image needs a UKI"},
		"no initrd":          {func(s *Sources, _ func(string) string) { s.Initrds = nil }, "needs an initrd"},
		"an initrd beside":   {func(s *Sources, _ func(string) string) { s.Kernel, s.Stub = "", "" }, "is of no use without a kernel; that of a UKI is in it"},
		"an initrd alone":    {func(s *Sources, _ func(string) string) { *s = Sources{Initrds: s.Initrds} }, "the files do not say which architecture they are for; say it with --arch"},
		"a stub alone":       {func(s *Sources, _ func(string) string) { s.Kernel, s.Initrds = "", nil }, "is of no use without a kernel and an initrd"},
		"no such UKI":        {func(s *Sources, _ func(string) string) { s.UKI = "/nowhere/uki.efi" }, "/nowhere/uki.efi: no such file"},
		"a directory":        {func(s *Sources, _ func(string) string) { s.UKI = filepath.Dir(s.UKI) }, "is not a file"},
		"an empty UKI":       {func(s *Sources, file func(string) string) { s.UKI = file("") }, "is empty"},
		"an ISO as UKI":      {func(s *Sources, file func(string) string) { s.UKI = file(strings.Repeat("\x01", 0x8001) + "CD001") }, "is no UKI: not a PE file: it looks like an ISO 9660 image"},
		"a stub as UKI":      {func(s *Sources, _ func(string) string) { s.UKI = s.Stub }, "without a kernel in it (a section .linux), and no UKI"},
		"a UKI as stub":      {func(s *Sources, _ func(string) string) { s.Stub = s.UKI }, "is a whole UKI, and no stub"},
		"an ELF stub":        {func(s *Sources, file func(string) string) { s.Stub = file("\x7fELF\x02\x01") }, "is no EFI stub: not a PE file: it looks like an ELF program"},
		"a UKI as kernel":    {func(s *Sources, _ func(string) string) { s.Kernel = s.UKI }, "no kernel that machines boot: it is a whole UKI"},
		"a gzip kernel":      {func(s *Sources, file func(string) string) { s.Kernel = file("\x1f\x8b\x08") }, "it looks like a gzip archive"},
		"a web page":         {func(s *Sources, file func(string) string) { s.Kernel = file("<!DOCTYPE html>") }, "it looks like an HTML page"},
		"a kernel as initrd": {func(s *Sources, _ func(string) string) { s.Initrds = []string{s.Kernel} }, "is not an initrd (a cpio archive, compressed or not): it is an EFI application for amd64"},
		"a tar as initrd": {func(s *Sources, file func(string) string) {
			s.Initrds = []string{file(strings.Repeat("\x01", 257) + "ustar")}
		}, "it looks like a tar archive"},
		"an ext4 squashfs": {func(s *Sources, file func(string) string) {
			s.Squashfs = file(strings.Repeat("\x01", 0x438) + "\x53\xef")
		}, "is not a squashfs file system: it looks like an ext file system"},
		"no os-release":      {func(s *Sources, file func(string) string) { s.OSRelease = file("hello") }, "is no os-release file: it has neither ID nor NAME"},
		"a large os-release": {func(s *Sources, file func(string) string) { s.OSRelease = file(strings.Repeat("#", 1<<20)) }, "has 1048576 bytes; 65536 are the most"},
		"architectures":      {func(s *Sources, file func(string) string) { s.Kernel = file(string(greeting(t, uki.ARM64))) }, "is for arm64; it should be for amd64, as "},
		"said architecture":  {func(s *Sources, _ func(string) string) { s.Architecture = "arm64" }, "is for amd64; it should be for arm64, it was said to be"},
	} {
		t.Run(name, func(t *testing.T) {
			s := whole(t, uki.AMD64)
			c.change(&s, func(data string) string {
				path := filepath.Join(t.TempDir(), "given")
				require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
				return path
			})
			_, err := s.Image()
			require.ErrorIs(t, err, ErrFile)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestAStubThatCannotBeComposedIsRefused(t *testing.T) {
	s := whole(t, uki.AMD64)
	measured, err := uki.Assemble(greeting(t, uki.AMD64), uki.Section{Name: ".pcrsig", Data: []byte("{}")})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.Stub, measured, 0o600))
	_, err = s.Image()
	require.ErrorContains(t, err, "section .pcrsig, which no UKI composed of it could fulfil")

	signed := greeting(t, uki.AMD64)
	binary.LittleEndian.PutUint32(signed[64+24+112+8*4:], uint32(len(signed)))
	binary.LittleEndian.PutUint32(signed[64+24+112+8*4+4:], 8)
	require.NoError(t, os.WriteFile(s.Stub, append(signed, 8, 0, 0, 0, 0, 2, 2, 0), 0o600))
	_, err = s.Image()
	require.ErrorContains(t, err, "is signed: what is composed of it would break the signature; give the unsigned one")

	other, err := uki.Assemble(greeting(t, uki.AMD64), uki.Section{Name: ".osrel", Data: []byte("ID=other\n")})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.Stub, other, 0o600))
	_, err = s.Image()
	require.ErrorContains(t, err, "has a section .osrel already, with other content")
}

// What the operator composes has the sections of its stub.
func TestTheOSReleaseIsBakedIntoTheStub(t *testing.T) {
	s := whole(t, uki.AMD64)
	stub := bytesOf(t, layer(t, image(t, s), boot.RoleStub).Content)
	info, err := uki.Inspect(bytes.NewReader(stub), int64(len(stub)))
	require.NoError(t, err)
	section, ok := info.Section(".osrel")
	require.True(t, ok)
	text := make([]byte, section.Size)
	_, err = section.Open(bytes.NewReader(stub)).Read(text)
	require.NoError(t, err)
	require.Equal(t, osRelease, string(text))

	// One that has it already stays as it is.
	require.NoError(t, os.WriteFile(s.Stub, stub, 0o600))
	require.Equal(t, stub, bytesOf(t, layer(t, image(t, s), boot.RoleStub).Content))
	s = whole(t, uki.AMD64)
	s.OSRelease = ""
	require.Equal(t, greeting(t, uki.AMD64), bytesOf(t, layer(t, image(t, s), boot.RoleStub).Content))
}

// systemd's own, where it is installed: it has room for the section.
func TestTheOSReleaseFitsIntoSystemdsStub(t *testing.T) {
	const stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	if _, err := os.Stat(stub); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: apt-get install systemd-boot-efi", stub)
		}
		t.Skipf("SKIPPED: %s is missing: apt-get install systemd-boot-efi", stub)
	}
	s := whole(t, uki.AMD64)
	s.Stub = stub
	path := filepath.Join(t.TempDir(), "stub.efi")
	require.NoError(t, os.WriteFile(path, bytesOf(t, layer(t, image(t, s), boot.RoleStub).Content), 0o600))
	out, err := exec.Command("objdump", "-h", path).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), ".osrel")
	require.Contains(t, string(out), ".sbat")
}

func TestInitrdsArePaddedToFourBytes(t *testing.T) {
	s := whole(t, uki.AMD64)
	first, second := cpio(10), cpio(1000)
	require.Len(t, first, 43)
	require.Equal(t, append(append(first, 0), second...), bytesOf(t, layer(t, image(t, s), boot.RoleInitrd).Content))
	require.EqualValues(t, 44+4003, layer(t, image(t, s), boot.RoleInitrd).Content.Size())
}

func TestAKernelSaysWhatItIs(t *testing.T) {
	bzImage := make([]byte, 0x2000)
	copy(bzImage[0x202:], "HdrS")
	bzImage[0x236] = 1
	binary.LittleEndian.PutUint16(bzImage[0x20e:], 0x1000)
	copy(bzImage[0x1200:], "6.12.57+deb13-amd64 (debian@example) #1 SMP\x00")
	arm64 := make([]byte, 0x2000)
	copy(arm64[56:], "ARM\x64")
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   kernel
	}{
		"x86-64 for BIOS":    {func(b []byte) []byte { return b }, kernel{architecture: "amd64", version: "6.12.57+deb13-amd64"}},
		"x86 of 32 bits":     {func(b []byte) []byte { b[0x236] = 0; return b }, kernel{version: "6.12.57+deb13-amd64"}},
		"without a version":  {func(b []byte) []byte { clear(b[0x20e:0x210]); return b }, kernel{architecture: "amd64"}},
		"its version cut":    {func(b []byte) []byte { return b[:0x1204] }, kernel{architecture: "amd64"}},
		"its version beyond": {func(b []byte) []byte { binary.LittleEndian.PutUint16(b[0x20e:], 0xffff); return b }, kernel{architecture: "amd64"}},
		"odd characters":     {func(b []byte) []byte { b[0x1203] = 7; return b }, kernel{architecture: "amd64"}},
		"arm64 Image":        {func([]byte) []byte { return arm64 }, kernel{architecture: "arm64"}},
		"EFI":                {func([]byte) []byte { return greeting(t, "arm64") }, kernel{architecture: "arm64", efi: true}},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.change(bytes.Clone(bzImage))
			got, err := inspectKernel(bytes.NewReader(b), int64(len(b)))
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// A kernel without EFI stub still boots through iPXE, but nothing is composed of it.
func TestAKernelWithoutAnEFIStub(t *testing.T) {
	old := make([]byte, 0x2000)
	copy(old[0x202:], "HdrS")
	s := whole(t, uki.AMD64)
	require.NoError(t, os.WriteFile(s.Kernel, old, 0o600))
	_, err := s.Image()
	require.ErrorContains(t, err, "has no EFI stub of its own (CONFIG_EFI_STUB)")
	s.UKI, s.Stub = "", ""
	_, err = s.Image()
	require.ErrorContains(t, err, "do not say which architecture they are for")
	s.Architecture = boot.AMD64
	require.Equal(t, boot.AMD64, image(t, s).Architecture)
	s.Architecture = "riscv64"
	_, err = s.Image()
	require.ErrorContains(t, err, "the files are for riscv64; amd64 and arm64 are what machines boot")
}

// spec.compose.initrdImage names such an image.
func TestInitrdsAloneAreAnImage(t *testing.T) {
	s := whole(t, uki.AMD64)
	img := image(t, Sources{Initrds: s.Initrds, Architecture: boot.ARM64})
	require.Len(t, img.Layers, 1)
	require.Equal(t, boot.RoleInitrd, img.Layers[0].Role)
}

func FuzzInspectKernel(f *testing.F) {
	b := make([]byte, 0x300)
	copy(b[0x202:], "HdrS")
	f.Add(b)
	f.Add([]byte("MZ"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = inspectKernel(bytes.NewReader(b), int64(len(b)))
	})
}
