package uki_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

func check(image []byte, architecture string) error {
	_, err := uki.Check(bytes.NewReader(image), int64(len(image)), architecture)
	return err
}

// section returns the header of the first section of that name.
func section(t testing.TB, image []byte, name string) []byte {
	t.Helper()
	for at := tableAt; at+40 <= len(image); at += 40 {
		if string(bytes.TrimRight(image[at:at+8], "\x00")) == name {
			return image[at : at+40]
		}
	}
	require.Failf(t, "section is missing", "%s", name)
	return nil
}

func TestCheckSaysWhatItIs(t *testing.T) {
	p := parts(t, uki.ARM64)
	p.Initrds = []uki.Input{input([]byte("initrd"))}
	image := build(t, p)
	for _, architecture := range []string{"", uki.ARM64} {
		info, err := uki.Check(bytes.NewReader(image), int64(len(image)), architecture)
		require.NoError(t, err)
		require.Equal(t, uki.ARM64, info.Architecture)
		require.True(t, info.UKI)
	}
}

// assembled is a UKI of whatever sections.
func assembled(t testing.TB, sections ...uki.Section) []byte {
	t.Helper()
	image, err := uki.Assemble(greeting(t, uki.AMD64), sections...)
	require.NoError(t, err)
	return image
}

func TestCheckTakesWhatOthersBuild(t *testing.T) {
	linux := uki.Section{Name: ".linux", Data: []byte("an ELF kernel, for a stub that boots one")}
	for name, image := range map[string][]byte{
		"no command line":                assembled(t, linux),
		"a command line that is a file":  assembled(t, linux, uki.Section{Name: ".cmdline", Data: []byte("quiet\n")}),
		"a command line that is padded":  assembled(t, linux, uki.Section{Name: ".cmdline", Data: append([]byte("quiet"), make([]byte, 4091)...)}),
		"several device trees":           assembled(t, linux, uki.Section{Name: ".dtb", Data: []byte("a")}, uki.Section{Name: ".dtb", Data: []byte("b")}),
		"a kernel in each profile":       assembled(t, uki.Section{Name: ".profile"}, linux, uki.Section{Name: ".profile"}, linux),
		"an own command line in profile": assembled(t, linux, uki.Section{Name: ".cmdline", Data: []byte("a")}, uki.Section{Name: ".profile"}, uki.Section{Name: ".cmdline", Data: []byte("b")}),
		"a section without content":      assembled(t, linux, uki.Section{Name: ".initrd"}, uki.Section{Name: ".uname", Data: []byte("6.1")}),
	} {
		t.Run(name, func(t *testing.T) { require.NoError(t, check(image, uki.AMD64)) })
	}
}

func TestCheckRefusesWhatDoesNotBoot(t *testing.T) {
	le := binary.LittleEndian
	put := func(offset int, v uint32) func(*testing.T, []byte) []byte {
		return func(_ *testing.T, b []byte) []byte { le.PutUint32(b[offset:], v); return b }
	}
	putSection := func(name string, offset int, v uint32) func(*testing.T, []byte) []byte {
		return func(t *testing.T, b []byte) []byte { le.PutUint32(section(t, b, name)[offset:], v); return b }
	}
	const directories, certificates = optionalAt + 108, optionalAt + 112 + 8*4
	tableOf := func(offset func(size int) uint32, size uint32) func(*testing.T, []byte) []byte {
		return func(_ *testing.T, b []byte) []byte {
			le.PutUint32(b[certificates:], offset(len(b)))
			le.PutUint32(b[certificates+4:], size)
			return b
		}
	}
	for _, c := range []struct {
		name   string
		break_ func(t *testing.T, b []byte) []byte
		is     error
		want   string
	}{
		{"not a PE", func(*testing.T, []byte) []byte { return []byte("\x1f\x8b\x08") }, uki.ErrNotPE, "a gzip archive"},
		{"an empty file", func(*testing.T, []byte) []byte { return nil }, uki.ErrNotPE, "it is empty"},
		{"a PE32", func(_ *testing.T, b []byte) []byte { le.PutUint16(b[optionalAt:], 0x10b); return b }, uki.ErrNotEFI, "it is a PE32, for 32-bit firmware"},
		{"a Windows program", func(_ *testing.T, b []byte) []byte { b[optionalAt+68] = 3; return b }, uki.ErrNotEFI, "Windows console"},
		{"other machines'", func(_ *testing.T, b []byte) []byte { le.PutUint16(b[coffAt+4:], 0xaa64); return b }, uki.ErrArchitecture, "it is for arm64, not for amd64"},
		{"an EFI application", func(t *testing.T, _ []byte) []byte { return greeting(t, uki.AMD64) }, uki.ErrNotUKI, "no section .linux"},
		{"a kernel only in the second profile", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".profile"}, uki.Section{Name: ".profile"}, uki.Section{Name: ".linux", Data: []byte("x")})
		}, uki.ErrNotUKI, "no section .linux"},
		{"an empty kernel", func(t *testing.T, _ []byte) []byte { return assembled(t, uki.Section{Name: ".linux"}) }, uki.ErrNotUKI, ".linux: not a bootable UKI: it is empty"},
		{"a gzip'd kernel", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".linux", Data: []byte("\x1f\x8b\x08\x00Image.gz")})
		}, uki.ErrNotUKI, "a gzip archive, and no stub unpacks it"},
		{"a kernel for other machines", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".linux", Data: greeting(t, uki.ARM64)})
		}, uki.ErrArchitecture, "the kernel is for arm64, the stub for amd64"},
		{"a UKI in a UKI", func(t *testing.T, b []byte) []byte { return assembled(t, uki.Section{Name: ".linux", Data: b}) }, uki.ErrNotUKI, "a UKI itself"},
		{"a truncated kernel", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".linux", Data: greeting(t, uki.AMD64)[:0x3000]})
		}, uki.ErrMalformed, "cut short"},
		{"two kernels", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".linux", Data: []byte("x")}, uki.Section{Name: ".linux", Data: []byte("y")})
		}, uki.ErrMalformed, `two sections ".linux" in one profile`},
		{"a NUL in the command line", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".linux", Data: []byte("x")}, uki.Section{Name: ".cmdline", Data: []byte("a\x00b")})
		}, uki.ErrNotUKI, "at byte 1"},
		{"a newline in a profile's command line", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".linux", Data: []byte("x")}, uki.Section{Name: ".profile"}, uki.Section{Name: ".cmdline", Data: []byte("a\nb")})
		}, uki.ErrNotUKI, "at byte 1"},
		{"a command line that is too long", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".linux", Data: bzImage(t, 2047)}, uki.Section{Name: ".cmdline", Data: []byte(strings.Repeat("x", 2048))})
		}, uki.ErrNotUKI, "2048 bytes: the kernel takes 2047"},
		{"a command line of a megabyte", func(t *testing.T, _ []byte) []byte {
			return assembled(t, uki.Section{Name: ".linux", Data: []byte("x")}, uki.Section{Name: ".cmdline", Data: make([]byte, 1<<20)})
		}, uki.ErrNotUKI, "1048576 bytes"},
		{"257 profiles", func(t *testing.T, _ []byte) []byte {
			all := []uki.Section{{Name: ".linux", Data: []byte("x")}}
			for range 257 {
				all = append(all, uki.Section{Name: ".profile"})
			}
			image, err := uki.Assemble(roomy(t), all...)
			require.NoError(t, err)
			return image
		}, uki.ErrMalformed, "257 profiles"},
		{"sections that overlap in the file", putSection(".cmdline", 20, 0x3000), uki.ErrMalformed, "overlap in the file"},
		{"sections that overlap in memory", putSection(".cmdline", 12, 0x1000), uki.ErrMalformed, "overlap in memory"},
		{"a section in the headers", putSection(".text", 20, 0x800), uki.ErrMalformed, `section ".text" begins at byte 2048, within the headers' 4096`},
		{"a section in the headers' memory", putSection(".text", 12, 0x800), uki.ErrMalformed, `section ".text" begins at address 0x800, within the headers`},
		{"a section past the end", putSection(".linux", 16, 1<<30), uki.ErrMalformed, "it is cut short"},
		{"a section of 4 GiB in the file", putSection(".linux", 16, 1<<32-1), uki.ErrMalformed, "it is cut short"},
		{"a section of 3 GiB of memory", func(t *testing.T, b []byte) []byte {
			le.PutUint32(section(t, b, ".linux")[8:], 3<<30)
			le.PutUint32(b[optionalAt+56:], 0xfffff000)
			return b
		}, uki.ErrMalformed, `section ".linux" has 16384 bytes, and 3221225472 in memory`},
		{"a section beyond the image", putSection(".linux", 8, 3<<30), uki.ErrMalformed, "beyond the image"},
		{"a section whose end wraps", putSection(".linux", 12, 1<<32-1), uki.ErrMalformed, "beyond the image"},
		{"headers that end in the table", put(optionalAt+60, tableAt+40), uki.ErrMalformed, "its headers claim 368 bytes"},
		{"headers longer than the file", put(optionalAt+60, 1<<30), uki.ErrMalformed, "its headers claim 1073741824 bytes"},
		{"headers longer than the image", func(t *testing.T, _ []byte) []byte {
			b := assembled(t, uki.Section{Name: ".linux", Data: make([]byte, 1<<20)})
			le.PutUint32(b[optionalAt+60:], uint32(len(b)))
			return b
		}, uki.ErrMalformed, "its headers claim"},
		{"more data directories than there is room", put(directories, 17), uki.ErrMalformed, "17 data directories"},
		{"billions of data directories", put(directories, 1<<32-1), uki.ErrMalformed, "4294967295 data directories"},
		{"fewer data directories than the header holds", put(directories, 6), uki.ErrMalformed, "6 data directories"},
		{"an entry point outside", put(optionalAt+16, 0xff0), uki.ErrMalformed, "entry point 0xff0"},
		{"a huge alignment", put(optionalAt+36, 1<<31), uki.ErrMalformed, "2147483648 bytes, more than 65536"},
		{"an odd alignment", put(optionalAt+32, 3), uki.ErrMalformed, "powers of two"},
		{"a certificate table past the end", tableOf(func(size int) uint32 { return uint32(size) }, 8), uki.ErrMalformed, "certificate table reaches byte"},
		{"a certificate table far past the end", tableOf(func(int) uint32 { return 1<<32 - 8 }, 1<<32-8), uki.ErrMalformed, "certificate table reaches byte"},
		{"a certificate table in the middle", tableOf(func(int) uint32 { return 0x2000 }, 8), uki.ErrMalformed, "follow its certificate table"},
		{"a certificate table within a section", tableOf(func(size int) uint32 { return uint32(size - 8) }, 8), uki.ErrMalformed, `section ".linux" ends at byte`},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := c.break_(t, build(t, parts(t, uki.AMD64)))
			var err error
			allocated := allocations(func() { err = check(image, uki.AMD64) })
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
			require.Less(t, allocated, uint64(4<<20))
		})
	}
}

// roomy is a stub with room for 500 more sections.
func roomy(t testing.TB) []byte {
	t.Helper()
	const more = 500 * 40 / 0x1000 * 0x1000
	stub := greeting(t, uki.AMD64)
	le := binary.LittleEndian
	out := append(bytes.Clone(stub[:0x1000]), make([]byte, more)...)
	out = append(out, stub[0x1000:]...)
	for _, at := range []int{optionalAt + 16, optionalAt + 20, optionalAt + 56, optionalAt + 60, optionalAt + 112 + 8*5} {
		le.PutUint32(out[at:], le.Uint32(out[at:])+more)
	}
	for at := tableAt; at < tableAt+3*40; at += 40 {
		le.PutUint32(out[at+12:], le.Uint32(out[at+12:])+more)
		le.PutUint32(out[at+20:], le.Uint32(out[at+20:])+more)
	}
	return out
}

func TestEveryTruncationIsRefused(t *testing.T) {
	image := build(t, parts(t, uki.AMD64))
	ends := []int{0, 1, 2, 63, 64, 65, coffAt + 4, coffAt + 23, optionalAt, optionalAt + 1, optionalAt + 2, optionalAt + 100, optionalAt + 239}
	for at := tableAt; at < tableAt+8*40; at++ {
		ends = append(ends, at)
	}
	for at := 0x1000; at < len(image); at += 0x3ff {
		ends = append(ends, at)
	}
	for _, end := range append(ends, len(image)-1) {
		err := check(image[:end:end], "")
		require.True(t, errors.Is(err, uki.ErrNotPE) || errors.Is(err, uki.ErrMalformed), "%d bytes: %v", end, err)
		_, err = uki.Describe(bytes.NewReader(image[:end:end]), int64(end))
		require.True(t, errors.Is(err, uki.ErrNotPE) || errors.Is(err, uki.ErrMalformed), "%d bytes: %v", end, err)
		_, err = uki.Describe(bytes.NewReader(image[:end:end]), int64(len(image)))
		require.Error(t, err, "a file that has %d bytes and not all that were announced", end)
	}
}

func TestCheckPassesOnAReadersError(t *testing.T) {
	broken := errors.New("disk on fire")
	image := build(t, parts(t, uki.AMD64))
	for limit := int64(0); limit < int64(len(image)); limit += 0x800 {
		r := failsAfter{bytes.NewReader(image), limit, broken}
		_, err := uki.Check(r, int64(len(image)), "")
		if err == nil {
			continue // nothing was read from there on
		}
		require.ErrorIs(t, err, broken)
		require.NotErrorIs(t, err, uki.ErrMalformed, "a bad disk must not condemn the image")
		_, err = uki.Describe(r, int64(len(image)))
		require.ErrorIs(t, err, broken)
	}
}

// failsAfter is a disk whose sectors from limit on are bad.
type failsAfter struct {
	r     io.ReaderAt
	limit int64
	err   error
}

func (f failsAfter) ReadAt(b []byte, offset int64) (int, error) {
	if offset+int64(len(b)) > f.limit {
		return 0, f.err
	}
	return f.r.ReadAt(b, offset)
}
