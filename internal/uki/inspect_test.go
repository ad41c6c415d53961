package uki_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/demoimage"
)

func greeting(t testing.TB, architecture string) []byte {
	t.Helper()
	image, err := demoimage.Greeting(architecture, "hello")
	require.NoError(t, err)
	return image
}

func inspect(image []byte) (uki.Info, error) {
	return uki.Inspect(bytes.NewReader(image), int64(len(image)))
}

func TestInspectSaysArchitectureAndKind(t *testing.T) {
	for _, architecture := range []string{uki.AMD64, uki.ARM64} {
		t.Run(architecture, func(t *testing.T) {
			info, err := inspect(greeting(t, architecture))
			require.NoError(t, err)
			assert.Equal(t, architecture, info.Architecture)
			assert.False(t, info.UKI, "an application without a kernel is no UKI")
			assert.False(t, info.Signed)
			assert.Equal(t, ".text", info.Sections[0].Name)
		})
	}
}

func TestInspectFindsTheSectionsOfAUKI(t *testing.T) {
	image, err := uki.Assemble(greeting(t, uki.AMD64),
		uki.Section{Name: ".cmdline", Data: []byte("console=ttyS0")},
		uki.Section{Name: ".initrd", Data: bytes.Repeat([]byte("i"), 5000)},
		uki.Section{Name: ".linux", Data: []byte("kernel")})
	require.NoError(t, err)
	info, err := inspect(image)
	require.NoError(t, err)
	assert.True(t, info.UKI)
	cmdline, ok := info.Section(".cmdline")
	require.True(t, ok)
	text, err := io.ReadAll(cmdline.Open(bytes.NewReader(image)))
	require.NoError(t, err)
	assert.Equal(t, "console=ttyS0", string(text))
	initrd, _ := info.Section(".initrd")
	assert.EqualValues(t, 5000, initrd.Size)
	_, ok = info.Section(".dtb")
	assert.False(t, ok)
}

func TestInspectSaysWhatAFileIsThatIsNotPE(t *testing.T) {
	at := func(offset int, magic string) string { return strings.Repeat("\x01", offset) + magic + "rest" }
	for _, c := range []struct{ name, file, want string }{
		{"empty", "", "it is empty"},
		{"gzip", "\x1f\x8b\x08\x00", "a gzip archive"},
		{"xz", "\xfd7zXZ\x00\x00", "an xz archive"},
		{"zstd", "\x28\xb5\x2f\xfd\x04", "a zstd archive"},
		{"zip", "PK\x03\x04", "a zip archive"},
		{"elf", "\x7fELF\x02\x01", "an ELF program"},
		{"iso", at(0x8001, "CD001"), "an ISO 9660 image"},
		{"tar", at(257, "ustar"), "a tar archive"},
		{"cpio", "070701000", "a cpio archive"},
		{"arm64 kernel", at(56, "ARM\x64"), "a Linux arm64 Image"},
		{"bzImage", at(0x202, "HdrS"), "a Linux x86 kernel"},
		{"gpt disk", at(0x200, "EFI PART"), "a disk image"},
		{"html", "\n <!DOCTYPE html><html>", "an HTML page"},
		{"json", ` {"errors": []}`, "JSON"},
		{"xml", "<?xml version='1.0'?>", "an XML document"},
		{"ipxe", "#!ipxe\nboot", "an iPXE script"},
		{"text", "not found, sorry: ü\n", "text"},
		{"text cut in a character", strings.Repeat("ü", 256)[1:], "bytes"},
		{"dos", "MZ" + strings.Repeat("\x01", 200), "a DOS program"},
		{"zeroes", strings.Repeat("\x00", 4000), "nothing but zero bytes"},
		{"noise", "\x01\x02\x03", "the bytes 01 02 03"},
		{"one byte", "M", "text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := inspect([]byte(c.file))
			require.ErrorIs(t, err, uki.ErrNotPE)
			assert.Contains(t, err.Error(), c.want)
			assert.True(t, strings.HasPrefix(err.Error(), "not a PE file: it "), err.Error())
		})
	}
}

func TestInspectRefusesWhatFirmwareWouldNotBoot(t *testing.T) {
	le := binary.LittleEndian
	const pe, optional, table = 64, 64 + 24, 64 + 24 + 240
	for _, c := range []struct {
		name   string
		break_ func(b []byte) []byte
		is     error
		want   string
	}{
		{"windows program", func(b []byte) []byte { le.PutUint16(b[optional+68:], 3); return b }, uki.ErrNotEFI, "Windows console"},
		{"boot driver", func(b []byte) []byte { le.PutUint16(b[optional+68:], 11); return b }, uki.ErrNotEFI, "boot service driver"},
		{"odd machine", func(b []byte) []byte { le.PutUint16(b[pe+4:], 0x1234); return b }, uki.ErrNotEFI, "0x1234"},
		{"cut in a section", func(b []byte) []byte { return b[:len(b)-1] }, uki.ErrMalformed, `".rdata" reaches byte 16384, the file has 16383`},
		{"cut in the headers", func(b []byte) []byte { return b[:table+20] }, uki.ErrMalformed, "within its headers"},
		{"no sections", func(b []byte) []byte { le.PutUint16(b[pe+6:], 0); return b }, uki.ErrMalformed, "0 sections"},
		{"too many sections", func(b []byte) []byte { le.PutUint16(b[pe+6:], 0xffff); return b }, uki.ErrMalformed, "65535 sections"},
		{"odd magic", func(b []byte) []byte { le.PutUint16(b[optional:], 7); return b }, uki.ErrMalformed, "0x7"},
		{"no optional header", func(b []byte) []byte { le.PutUint16(b[pe+20:], 0); return b }, uki.ErrMalformed, "0 bytes"},
		{"zero alignment", func(b []byte) []byte { le.PutUint32(b[optional+36:], 0); return b }, uki.ErrMalformed, "powers of two"},
		{"section beyond the image", func(b []byte) []byte { le.PutUint32(b[table+12:], 0xfffffff0); return b }, uki.ErrMalformed, "beyond the image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := inspect(c.break_(greeting(t, uki.AMD64)))
			require.ErrorIs(t, err, c.is)
			assert.Contains(t, err.Error(), c.want)
		})
	}
}

type brokenReader struct{ err error }

func (b brokenReader) ReadAt([]byte, int64) (int, error) { return 0, b.err }

func TestInspectPassesOnAReadersError(t *testing.T) {
	broken := errors.New("disk on fire")
	_, err := uki.Inspect(brokenReader{broken}, 1<<20)
	require.ErrorIs(t, err, broken)
	assert.NotErrorIs(t, err, uki.ErrNotPE, "a bad disk must not condemn the image")
}
