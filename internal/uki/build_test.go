package uki_test

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// Where headers are in what greeting makes.
const (
	coffAt     = 64
	optionalAt = coffAt + 24
	tableAt    = optionalAt + 240
)

func input(b []byte) uki.Input { return uki.Input{R: bytes.NewReader(b), Size: int64(len(b))} }

// parts are enough for a UKI. The kernel is a small EFI application.
func parts(t testing.TB, architecture string) uki.Parts {
	t.Helper()
	return uki.Parts{
		Stub: greeting(t, architecture), Linux: input(greeting(t, architecture)),
		CommandLine: "console=ttyS0 quiet", OSRelease: "ID=test\nPRETTY_NAME=\"Test OS 1\"\n", Uname: "6.1.0-test",
	}
}

func build(t testing.TB, p uki.Parts) []byte {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, uki.Build(&out, p))
	return out.Bytes()
}

// content returns the content of the n-th section of that name.
func content(t testing.TB, image []byte, name string, n int) []byte {
	t.Helper()
	info, err := inspect(image)
	require.NoError(t, err)
	for _, s := range info.Sections {
		if s.Name != name {
			continue
		}
		if n == 0 {
			b, err := io.ReadAll(s.Open(bytes.NewReader(image)))
			require.NoError(t, err)
			return b
		}
		n--
	}
	require.Failf(t, "section is missing", "%s", name)
	return nil
}

func names(t testing.TB, image []byte) []string {
	t.Helper()
	info, err := inspect(image)
	require.NoError(t, err)
	var all []string
	for _, s := range info.Sections {
		all = append(all, s.Name)
	}
	return all
}

func TestABuiltUKIHasItsSectionsInOrder(t *testing.T) {
	for _, architecture := range []string{uki.AMD64, uki.ARM64} {
		t.Run(architecture, func(t *testing.T) {
			p := parts(t, architecture)
			p.Initrds = []uki.Input{input([]byte("first")), input([]byte("second!!")), input([]byte("x"))}
			p.Ucode = []uki.Input{input([]byte("microcode"))}
			p.Splash, p.DTB = []byte("BM picture"), []byte("\xd0\x0d\xfe\xedtree")
			p.Extra = []uki.Section{{Name: ".pcrpkey", Data: []byte("key")}}
			image := build(t, p)

			require.Equal(t, []string{
				".text", ".reloc", ".rdata",
				".osrel", ".cmdline", ".dtb", ".uname", ".splash", ".initrd", ".ucode", ".pcrpkey", ".linux",
			}, names(t, image))
			require.Equal(t, "first\x00\x00\x00second!!x\x00\x00\x00", string(content(t, image, ".initrd", 0)))
			require.Equal(t, "microcode", string(content(t, image, ".ucode", 0)))
			require.Equal(t, p.CommandLine, string(content(t, image, ".cmdline", 0)))
			require.Equal(t, greeting(t, architecture), content(t, image, ".linux", 0))
			file, err := pe.NewFile(bytes.NewReader(image))
			require.NoError(t, err)
			header := file.OptionalHeader.(*pe.OptionalHeader64)
			checkLayout(t, file, header, len(image))
			linux := file.Section(".linux")
			require.EqualValues(t, 0x4000, linux.VirtualSize, "the kernel's own SizeOfImage")
			require.EqualValues(t, 0x40000020, linux.Characteristics)
			require.EqualValues(t, 0x40000040, file.Section(".initrd").Characteristics)
			_, err = uki.Check(bytes.NewReader(image), int64(len(image)), architecture)
			require.NoError(t, err)
		})
	}
}

func TestOneInitrdStaysAsItIs(t *testing.T) {
	p := parts(t, uki.AMD64)
	p.Initrds = []uki.Input{input([]byte("alone"))}
	require.Equal(t, "alone", string(content(t, build(t, p), ".initrd", 0)), "ukify pads only between initrds, and PCR signatures are made for that")
}

// growing returns a kernel that takes more memory than its file has bytes.
func growing(t testing.TB, memory uint32) []byte {
	kernel := greeting(t, uki.AMD64)
	binary.LittleEndian.PutUint32(kernel[optionalAt+56:], memory)
	return kernel
}

func TestTheKernelGetsTheMemoryThatItAsksFor(t *testing.T) {
	p := parts(t, uki.AMD64)
	p.Linux = input(growing(t, 0x123456))
	p.Extra = []uki.Section{{Name: ".profile", Data: []byte("ID=a\n")}}
	image := build(t, p)
	file, err := pe.NewFile(bytes.NewReader(image))
	require.NoError(t, err)
	linux, profile := file.Section(".linux"), file.Section(".profile")
	require.EqualValues(t, 0x123456, linux.VirtualSize)
	require.EqualValues(t, linux.VirtualAddress+0x124000, profile.VirtualAddress)
	require.Equal(t, linux.Offset+linux.Size, profile.Offset, "in the file it takes no more")
	require.EqualValues(t, profile.VirtualAddress+0x1000, file.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage)
}

func TestWhatProfilesShareComesBeforeThem(t *testing.T) {
	p := parts(t, uki.AMD64)
	p.Extra = []uki.Section{
		{Name: ".dtbauto", Data: []byte("one")}, {Name: ".dtbauto", Data: []byte("two")},
		{Name: ".profile", Data: []byte("ID=a\n")},
		{Name: ".profile", Data: []byte("ID=b\n")}, {Name: ".cmdline", Data: []byte("reset")},
	}
	require.Equal(t, []string{".dtbauto", ".dtbauto", ".linux", ".profile", ".profile", ".cmdline"}, names(t, build(t, p))[6:])
}

func TestTheSamePartsMakeTheSameBytes(t *testing.T) {
	all := func() uki.Parts {
		p := parts(t, uki.ARM64)
		p.Initrds = []uki.Input{input([]byte("initrd")), input([]byte("more"))}
		p.SBAT = "os,1,OS,os,1,https://example.com/"
		return p
	}
	p := all()
	stub := bytes.Clone(p.Stub)
	require.Equal(t, build(t, p), build(t, all()))
	require.Equal(t, stub, p.Stub, "the stub is left alone")
}

const (
	sbatOfStub   = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nstub,1,Stub,stub,252,https://example.com/stub\n"
	sbatOfKernel = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nlinux,1,Linux,linux,6.17,https://example.com/linux\n"
	sbatOfOS     = "os,2,Our OS,os,1,https://example.com/"
)

// with adds a section to what greeting makes.
func with(t testing.TB, name, data string) []byte {
	t.Helper()
	image, err := uki.Assemble(greeting(t, uki.AMD64), uki.Section{Name: name, Data: []byte(data)})
	require.NoError(t, err)
	return image
}

func TestSBATIsMergedIntoTheStubs(t *testing.T) {
	entries := "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n" +
		"stub,1,Stub,stub,252,https://example.com/stub\nlinux,1,Linux,linux,6.17,https://example.com/linux\n"
	p := parts(t, uki.AMD64)
	p.Stub, p.Linux = with(t, ".sbat", sbatOfStub), input(with(t, ".sbat", sbatOfKernel))

	t.Run("in its place where it fits", func(t *testing.T) {
		p := p
		p.SBAT = sbatOfOS
		image := build(t, p)
		require.Equal(t, entries+sbatOfOS+"\n\x00", string(content(t, image, ".sbat", 0)))
		require.NotContains(t, names(t, image)[4:], ".sbat")
	})
	t.Run("once", func(t *testing.T) {
		p := p
		p.SBAT = sbatOfKernel
		require.Equal(t, entries+"\x00", string(content(t, build(t, p), ".sbat", 0)))
	})
	t.Run("as a new section where memory has no room", func(t *testing.T) {
		p := p
		p.Stub = append([]byte(nil), p.Stub...)
		binary.LittleEndian.PutUint32(p.Stub[optionalAt+32:], 0x200) // sections closer than a page
		var err error
		p.Stub, err = uki.Assemble(p.Stub, uki.Section{Name: ".sdmagic", Data: []byte("next")})
		require.NoError(t, err)
		p.SBAT = "os,2," + strings.Repeat("Our OS", 80) + ",os,1,https://example.com/"
		image := build(t, p)
		require.Equal(t, entries+p.SBAT+"\n\x00", string(content(t, image, ".sbat", 0)))
		require.Equal(t, sbatOfStub, string(content(t, image, ".oldsbat", 0)))
		require.Equal(t, "next", string(content(t, image, ".sdmagic", 0)), "what lies behind it is left alone")
	})
	t.Run("a stub without any gets the format's entry", func(t *testing.T) {
		p := p
		p.Stub = greeting(t, uki.AMD64)
		require.Equal(t, sbatOfKernel+"\x00", string(content(t, build(t, p), ".sbat", 0)))
	})
	t.Run("the stub's stays as it is where nothing is new", func(t *testing.T) {
		p := p
		p.Linux = input(greeting(t, uki.AMD64))
		require.Equal(t, sbatOfStub, string(content(t, build(t, p), ".sbat", 0)))
	})
	t.Run("none where nobody has any", func(t *testing.T) {
		require.NotContains(t, names(t, build(t, parts(t, uki.AMD64))), ".sbat")
	})
}

func TestAPCRSignatureOfAnotherUKIIsReplacedOrRefused(t *testing.T) {
	p := parts(t, uki.AMD64)
	p.Stub = with(t, ".pcrsig", "of another")
	require.ErrorIs(t, uki.Build(io.Discard, p), uki.ErrNotUKI)
	require.ErrorContains(t, uki.Build(io.Discard, p), ".pcrsig")
	for name, signature := range map[string]string{"short": "{}", "long": strings.Repeat("x", 0x1001)} {
		t.Run(name, func(t *testing.T) {
			p.Extra = []uki.Section{{Name: ".pcrsig", Data: []byte(signature)}}
			require.Equal(t, signature, string(content(t, build(t, p), ".pcrsig", 0)))
		})
	}
}

func TestHeadersGrowWhereMemoryHasRoom(t *testing.T) {
	p := parts(t, uki.AMD64)
	p.Stub = tight(t)
	before, err := inspect(p.Stub)
	require.NoError(t, err)
	image := build(t, p)
	file, err := pe.NewFile(bytes.NewReader(image))
	require.NoError(t, err)
	header := file.OptionalHeader.(*pe.OptionalHeader64)
	require.EqualValues(t, 0x400, header.SizeOfHeaders)
	checkLayout(t, file, header, len(image))
	for i, s := range before.Sections {
		require.Equal(t, s.VirtualAddress, file.Sections[i].VirtualAddress, "code must not move in memory")
		require.EqualValues(t, s.Offset+0x200, file.Sections[i].Offset)
		require.Equal(t, content(t, p.Stub, s.Name, 0), content(t, image, s.Name, 0))
	}

	binary.LittleEndian.PutUint32(p.Stub[optionalAt+112+8*6+4:], 28) // a debug directory, which holds offsets
	require.ErrorIs(t, uki.Build(io.Discard, p), uki.ErrNoRoom)
}

// tight is a stub whose headers have 512 bytes and room for one more section.
func tight(t testing.TB) []byte { return packed(t, uki.AMD64, 0x200) }

// packed is what greeting makes, with its content aligned to so many bytes in
// the file.
func packed(t testing.TB, architecture string, alignment uint32) []byte {
	t.Helper()
	const headers = 0x200
	application := greeting(t, architecture)
	le := binary.LittleEndian
	out := bytes.Clone(application[:headers])
	le.PutUint32(out[optionalAt+36:], alignment)
	le.PutUint32(out[optionalAt+60:], headers)
	for at := tableAt; at < tableAt+3*40; at += 40 {
		offset, raw := le.Uint32(out[at+20:]), (le.Uint32(out[at+8:])+alignment-1)&^(alignment-1)
		le.PutUint32(out[at+16:], raw)
		le.PutUint32(out[at+20:], uint32(len(out)))
		out = append(out, application[offset:offset+raw]...)
	}
	return out
}

func TestWhatFollowsTheStubsSectionsIsLeftOut(t *testing.T) {
	p := parts(t, uki.AMD64)
	want := build(t, p)
	p.Stub = append(bytes.Clone(p.Stub), "symbols that nobody loads"...)
	require.Equal(t, want, build(t, p), "Authenticode's hash skips bytes where there are gaps")
	binary.LittleEndian.PutUint32(p.Stub[coffAt+12:], 0x4000)
	binary.LittleEndian.PutUint32(p.Stub[coffAt+16:], 1)
	file, err := pe.NewFile(bytes.NewReader(build(t, p)))
	require.NoError(t, err)
	require.Zero(t, file.PointerToSymbolTable)
	require.Zero(t, file.NumberOfSymbols)
}

func TestGapsInAStubAreClosed(t *testing.T) {
	p := parts(t, uki.AMD64)
	le := binary.LittleEndian
	le.PutUint32(p.Stub[optionalAt+36:], 0x200)
	le.PutUint32(p.Stub[optionalAt+60:], 0x400)
	for at := tableAt; at < tableAt+3*40; at += 40 {
		le.PutUint32(p.Stub[at+16:], 0x101) // of 0x1000 bytes to the next
	}
	le.PutUint32(p.Stub[tableAt+8:], 0x180) // more memory than content, which is zero
	copy(p.Stub[0x1101:], "left behind")
	image := build(t, p)
	requireNoGaps(t, image)
	require.NotContains(t, string(image), "left behind")
	require.NoError(t, check(image, uki.AMD64))
}

// zeroes is a file that takes no memory, and counts what is read of it at once.
type zeroes struct{ most int }

func (z *zeroes) ReadAt(b []byte, _ int64) (int, error) {
	z.most = max(z.most, len(b))
	clear(b)
	return len(b), nil
}

func TestALargeUKIIsNotHeldInMemory(t *testing.T) {
	const size = 300 << 20
	initrd := &zeroes{}
	p := parts(t, uki.AMD64)
	p.Initrds = []uki.Input{{R: initrd, Size: size}}
	var written counter
	allocated := allocations(func() { require.NoError(t, uki.Build(&written, p)) })
	require.Greater(t, int64(written), int64(size))
	require.Less(t, allocated, uint64(1<<20))
	require.LessOrEqual(t, initrd.most, 1<<20)
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// allocations is how many bytes f allocates.
func allocations(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestBuildRefusesPartsThatMakeNoUKI(t *testing.T) {
	huge := uki.Input{R: &zeroes{}, Size: 2 << 30}
	gzipped := input([]byte("\x1f\x8b\x08\x00gzip'd arm64 Image.gz"))
	bare := make([]byte, 64)
	copy(bare[56:], "ARM\x64")
	pe32 := func(t *testing.T) []byte {
		b := greeting(t, uki.AMD64)
		binary.LittleEndian.PutUint16(b[optionalAt:], 0x10b)
		return b
	}
	signed := func(t *testing.T) []byte {
		b := greeting(t, uki.AMD64)
		binary.LittleEndian.PutUint32(b[optionalAt+112+8*4:], uint32(len(b)))
		binary.LittleEndian.PutUint32(b[optionalAt+112+8*4+4:], 8)
		return append(b, make([]byte, 8)...)
	}
	overlapping := func(t *testing.T) []byte {
		b := greeting(t, uki.AMD64)
		binary.LittleEndian.PutUint32(b[tableAt+40+12:], 0x1010)
		return b
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, p *uki.Parts)
		is     error
		want   string
	}{
		{"no stub", func(_ *testing.T, p *uki.Parts) { p.Stub = nil }, uki.ErrNotPE, "empty"},
		{"a stub that is no PE", func(_ *testing.T, p *uki.Parts) { p.Stub = []byte("\x7fELF") }, uki.ErrNotPE, "ELF"},
		{"a PE32 as stub", func(t *testing.T, p *uki.Parts) { p.Stub = pe32(t) }, uki.ErrMalformed, "data directories"},
		{"a signed stub", func(t *testing.T, p *uki.Parts) { p.Stub = signed(t) }, uki.ErrNotUKI, "the stub is signed"},
		{"a UKI as stub", func(t *testing.T, p *uki.Parts) { p.Stub = build(t, *p) }, uki.ErrNotUKI, "it is a UKI already"},
		{"a stub with sections that overlap", func(t *testing.T, p *uki.Parts) { p.Stub = overlapping(t) }, uki.ErrMalformed, `".text" and ".reloc" overlap in memory`},
		{"a driver as stub", func(_ *testing.T, p *uki.Parts) { p.Stub[optionalAt+68] = 11 }, uki.ErrNotEFI, "boot service driver"},
		{"a truncated stub", func(_ *testing.T, p *uki.Parts) { p.Stub = p.Stub[:len(p.Stub)-1] }, uki.ErrMalformed, "cut short"},
		{"no kernel", func(_ *testing.T, p *uki.Parts) { p.Linux = uki.Input{} }, uki.ErrNotUKI, "checking the kernel: not a bootable UKI: it is empty"},
		{"a gzip'd kernel", func(_ *testing.T, p *uki.Parts) { p.Linux = gzipped }, uki.ErrNotPE, "a gzip archive; a kernel with an EFI stub is needed"},
		{"a kernel without an EFI stub", func(_ *testing.T, p *uki.Parts) { p.Linux = input(bare) }, uki.ErrNotPE, "without an EFI stub"},
		{"a kernel for other machines", func(t *testing.T, p *uki.Parts) { p.Linux = input(greeting(t, uki.ARM64)) }, uki.ErrArchitecture, "the kernel is for arm64, the stub for amd64"},
		{"a UKI as kernel", func(t *testing.T, p *uki.Parts) { p.Linux = input(build(t, *p)) }, uki.ErrNotUKI, "it is a UKI itself"},
		{"a truncated kernel", func(_ *testing.T, p *uki.Parts) { p.Linux.Size-- }, uki.ErrMalformed, "checking the kernel"},
		{"a kernel that wants all memory", func(t *testing.T, p *uki.Parts) { p.Linux = input(growing(t, 1<<31)) }, uki.ErrMalformed, "2147483648 bytes of memory"},
		{"a kernel of 2 GiB", func(_ *testing.T, p *uki.Parts) { p.Linux = huge }, uki.ErrNotUKI, "less than 2 GiB"},
		{"an initrd of 2 GiB", func(_ *testing.T, p *uki.Parts) { p.Initrds = []uki.Input{huge} }, uki.ErrNotUKI, "initrd 1 of 1: not a bootable UKI: it has 2147483648 bytes: less than 2 GiB fit"},
		{"initrds of 2 GiB together", func(_ *testing.T, p *uki.Parts) {
			half := uki.Input{R: &zeroes{}, Size: 1 << 30}
			p.Initrds = []uki.Input{half, half}
		}, uki.ErrNotUKI, ".initrd has 2147483648 bytes"},
		{"more than 4 GiB", func(_ *testing.T, p *uki.Parts) {
			most := uki.Input{R: &zeroes{}, Size: 2<<30 - 1}
			p.Initrds, p.Ucode = []uki.Input{most}, []uki.Input{most}
		}, uki.ErrNotUKI, "ends at 4 GiB"},
		{"an initrd without bytes", func(_ *testing.T, p *uki.Parts) { p.Initrds = []uki.Input{input([]byte("x")), input(nil)} }, uki.ErrNotUKI, "initrd 2 of 2: not a bootable UKI: it is empty"},
		{"an initrd without a reader", func(_ *testing.T, p *uki.Parts) { p.Initrds = []uki.Input{{Size: 5}} }, uki.ErrNotUKI, "empty"},
		{"an initrd of less than nothing", func(_ *testing.T, p *uki.Parts) { p.Initrds = []uki.Input{{R: &zeroes{}, Size: -5}} }, uki.ErrNotUKI, "empty"},
		{"a NUL in the command line", func(_ *testing.T, p *uki.Parts) { p.CommandLine = "quiet\x00init=/bin/sh" }, uki.ErrNotUKI, `"\x00" at byte 5`},
		{"a newline in the command line", func(_ *testing.T, p *uki.Parts) { p.CommandLine = "quiet\n" }, uki.ErrNotUKI, "at byte 5"},
		{"an escape in the command line", func(_ *testing.T, p *uki.Parts) { p.CommandLine = "\x1b[2J" }, uki.ErrNotUKI, "at byte 0"},
		{"a command line that is not UTF-8", func(_ *testing.T, p *uki.Parts) { p.CommandLine = "caf\xe9" }, uki.ErrNotUKI, "not UTF-8"},
		{"a command line that is too long", func(_ *testing.T, p *uki.Parts) { p.CommandLine = strings.Repeat("x", 4096) }, uki.ErrNotUKI, "4096 bytes: the kernel takes 4095"},
		{"a profile's command line with a newline", func(_ *testing.T, p *uki.Parts) {
			p.Extra = []uki.Section{{Name: ".profile"}, {Name: ".cmdline", Data: []byte("a\nb")}}
		}, uki.ErrNotUKI, "at byte 1"},
		{"an os-release with a NUL", func(_ *testing.T, p *uki.Parts) { p.OSRelease = "ID=a\x00" }, uki.ErrNotUKI, "os-release is not UTF-8 text"},
		{"a huge os-release", func(_ *testing.T, p *uki.Parts) { p.OSRelease = strings.Repeat("#", 1<<20) }, uki.ErrNotUKI, "1048576 bytes"},
		{"a uname of two words", func(_ *testing.T, p *uki.Parts) { p.Uname = "6.1 #1 SMP" }, uki.ErrNotUKI, "white space"},
		{"a long uname", func(_ *testing.T, p *uki.Parts) { p.Uname = strings.Repeat("6", 65) }, uki.ErrNotUKI, "65 bytes"},
		{"SBAT of too few fields", func(_ *testing.T, p *uki.Parts) { p.SBAT = "os,1,Our OS" }, uki.ErrNotUKI, "6 fields"},
		{"SBAT with an empty field", func(_ *testing.T, p *uki.Parts) { p.SBAT = "os,1,,os,1,https://example.com/" }, uki.ErrNotUKI, "6 fields"},
		{"SBAT without a generation", func(_ *testing.T, p *uki.Parts) { p.SBAT = "os,0,Our OS,os,1,https://example.com/" }, uki.ErrNotUKI, `generation "0"`},
		{"SBAT that is not ASCII", func(_ *testing.T, p *uki.Parts) { p.SBAT = "os,1,Ühr OS,os,1,https://example.com/" }, uki.ErrNotUKI, "ASCII"},
		{"a splash that is no BMP", func(_ *testing.T, p *uki.Parts) { p.Splash = []byte("\x89PNG\r\n\x1a\n") }, uki.ErrNotUKI, "no BMP"},
		{"a device tree's source", func(_ *testing.T, p *uki.Parts) { p.DTB = []byte("/dts-v1/;") }, uki.ErrNotUKI, "looks like text"},
		{"a section twice", func(_ *testing.T, p *uki.Parts) { p.Extra = []uki.Section{{Name: ".uname", Data: []byte("x")}} }, uki.ErrNotUKI, `two sections ".uname"`},
		{"one of the stub's sections", func(_ *testing.T, p *uki.Parts) { p.Extra = []uki.Section{{Name: ".text", Data: []byte("x")}} }, uki.ErrNotUKI, `two sections ".text"`},
		{"a long name", func(_ *testing.T, p *uki.Parts) { p.Extra = []uki.Section{{Name: ".toolong9"}} }, uki.ErrNotUKI, "1 to 8 printable"},
		{"more sections than fit", func(_ *testing.T, p *uki.Parts) { p.Extra = make([]uki.Section, 300); fillDTBs(p.Extra) }, uki.ErrNoRoom, "304 wanted, 91 fit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parts(t, uki.AMD64)
			c.change(t, &p)
			var written bytes.Buffer
			var err error
			allocated := allocations(func() { err = uki.Build(&written, p) })
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.want)
			require.Zero(t, written.Len(), "nothing is written of what cannot be")
			require.Less(t, allocated, uint64(4<<20))
		})
	}
}

func fillDTBs(sections []uki.Section) {
	for i := range sections {
		sections[i].Name = ".dtbauto"
	}
}

// bzImage gives a kernel an x86 setup header that takes command lines of limit
// bytes.
func bzImage(t testing.TB, limit uint32) []byte {
	kernel := greeting(t, uki.AMD64)
	copy(kernel[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint32(kernel[0x238:], limit)
	return kernel
}

func TestACommandLineThatTheKernelWouldCutIsRefused(t *testing.T) {
	for _, c := range []struct {
		name         string
		architecture string
		linux        []byte
		limit        int
	}{
		{"x86 kernels say what they take", uki.AMD64, bzImage(t, 2047), 2047},
		{"but not more than fits", uki.AMD64, bzImage(t, 1<<31), 4095},
		{"arm64 kernels take 2047", uki.ARM64, greeting(t, uki.ARM64), 2047},
		{"others 4095", uki.AMD64, greeting(t, uki.AMD64), 4095},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parts(t, c.architecture)
			p.Linux, p.CommandLine = input(c.linux), strings.Repeat("x", c.limit)
			build(t, p)
			p.CommandLine += "x"
			require.ErrorIs(t, uki.Build(io.Discard, p), uki.ErrNotUKI)
		})
	}
}

func TestBuildPassesOnOthersErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	p := parts(t, uki.AMD64)
	require.ErrorIs(t, uki.Build(brokenWriter{broken}, p), broken)
	p.Initrds = []uki.Input{{R: brokenReader{broken}, Size: 10}}
	require.ErrorIs(t, uki.Build(io.Discard, p), broken)
	p.Initrds = []uki.Input{{R: strings.NewReader("short"), Size: 10}}
	err := uki.Build(io.Discard, p)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorContains(t, err, "section .initrd: it has only 5 of the 10 bytes")
	p.Linux = uki.Input{R: brokenReader{broken}, Size: 1 << 20}
	err = uki.Build(io.Discard, p)
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, uki.ErrNotPE, "a bad disk must not condemn the kernel")
}

type brokenWriter struct{ err error }

func (b brokenWriter) Write([]byte) (int, error) { return 0, b.err }
