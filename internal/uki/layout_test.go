package uki_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// debianStub is systemd's own, whose sections are aligned to 512 bytes and which
// has a symbol table behind the last of them.
const debianStub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// layoutStubs are what UKIs are composed around in these tests.
func layoutStubs(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{"greeting amd64": greeting(t, uki.AMD64), "greeting arm64": greeting(t, uki.ARM64)}
	b, err := os.ReadFile(debianStub)
	switch {
	case err == nil:
		all["systemd amd64"] = b
	case os.Getenv("CI") == "true":
		t.Fatalf("CI must have systemd-boot-efi: %v", err)
	default:
		t.Logf("SKIPPED systemd's stub: install systemd-boot-efi: %v", err)
	}
	return all
}

// layoutNoise is bytes that do not repeat.
func layoutNoise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// layoutKernel is an EFI application with more bytes behind it.
func layoutKernel(t testing.TB, architecture string, more int) []byte {
	return append(greeting(t, architecture), layoutNoise(9, more)...)
}

// architectureOf is what a stub is for, by the name of a test.
func architectureOf(name string) string { return strings.Fields(name)[1] }

// wholeOf puts a composed UKI together.
func wholeOf(t testing.TB, l *uki.Layout, tail, table []byte, parts ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, piece := range l.Head(len(table)) {
		b.Write(piece)
	}
	require.Len(t, l.Parts, len(parts))
	for i, e := range l.Parts {
		require.GreaterOrEqual(t, e.Offset, int64(b.Len()))
		b.Write(make([]byte, e.Offset-int64(b.Len())))
		require.EqualValues(t, e.Size, len(parts[i]))
		b.Write(parts[i])
	}
	b.Write(make([]byte, l.Tail-int64(b.Len())))
	b.Write(tail)
	require.EqualValues(t, l.Size, b.Len())
	b.Write(table)
	return b.Bytes()
}

func layoutOf(t testing.TB, stub []byte, parts ...[]byte) *uki.Layout {
	t.Helper()
	var initrds []int64
	for _, p := range parts[1:] {
		initrds = append(initrds, int64(len(p)))
	}
	l, err := uki.NewLayout(stub, input(parts[0]), initrds...)
	require.NoError(t, err)
	return l
}

func sectionsOf(t testing.TB, image []byte) (all map[string][]byte, info uki.Info) {
	t.Helper()
	info, err := inspect(image)
	require.NoError(t, err)
	all = map[string][]byte{}
	for _, s := range info.Sections {
		require.NotContains(t, all, s.Name, "each section is there once")
		content, err := io.ReadAll(s.Open(bytes.NewReader(image)))
		require.NoError(t, err)
		all[s.Name] = content
	}
	return all, info
}

func fileAlignment(stub []byte) int {
	le := binary.LittleEndian
	return int(le.Uint32(stub[le.Uint32(stub[0x3c:])+24+36:]))
}

func padTo(b []byte, to int) []byte {
	return append(bytes.Clone(b), make([]byte, (to-len(b)%to)%to)...)
}

func TestAComposedUKIHasTheSectionsOfOneThatIsBuiltWhole(t *testing.T) {
	for name, stub := range layoutStubs(t) {
		for _, sizes := range [][]int{{0}, {5000, 3001}, {512, 1, 2, 3, 4, 0, 513}, {70001, 1024, 77}} {
			t.Run(fmt.Sprint(name, sizes), func(t *testing.T) {
				parts := make([][]byte, len(sizes))
				var initrd []byte
				for i, n := range sizes {
					if i == 0 {
						parts[i] = layoutKernel(t, architectureOf(name), n)
						continue
					}
					parts[i] = layoutNoise(byte(i), n)
					initrd = append(initrd, padTo(parts[i], 4)...)
				}
				l := layoutOf(t, stub, parts...)
				tail, err := l.NewTail([]byte("slot"), "console=ttyS0 a=b")
				require.NoError(t, err)
				image := wholeOf(t, l, tail, nil, parts...)

				initrd = append(padTo(initrd, fileAlignment(stub)), padTo([]byte("slot"), uki.SlotSize)...)
				commandLine := padTo([]byte("console=ttyS0 a=b"), uki.CommandLineSize)
				reference, err := uki.Assemble(stub, uki.Section{Name: ".initrd", Data: initrd},
					uki.Section{Name: ".cmdline", Data: commandLine}, uki.Section{Name: ".linux", Data: parts[0]})
				require.NoError(t, err)

				ours, info := sectionsOf(t, image)
				theirs, _ := sectionsOf(t, reference)
				assert.True(t, info.UKI)
				assert.Equal(t, len(theirs), len(ours))
				for name, content := range theirs {
					assert.True(t, bytes.Equal(content, ours[name]), "section %s", name)
				}
				text, err := info.CommandLine(bytes.NewReader(image))
				require.NoError(t, err)
				assert.Equal(t, "console=ttyS0 a=b", text)
				checked, err := uki.Check(bytes.NewReader(image), int64(len(image)), l.Architecture)
				require.NoError(t, err)
				assert.Equal(t, info.Architecture, checked.Architecture)
			})
		}
	}
}

func TestTheKernelIsLastInMemoryAndWhatIsTheMachinesLastInTheFile(t *testing.T) {
	for name, stub := range layoutStubs(t) {
		t.Run(name, func(t *testing.T) {
			kernel, initrd := layoutKernel(t, architectureOf(name), 9999), layoutNoise(2, 7777)
			l := layoutOf(t, stub, kernel, initrd)
			images := make([][]byte, 2)
			for i := range images {
				tail, err := l.NewTail(fmt.Append(nil, "slot of machine ", i), fmt.Sprint("machine=", i))
				require.NoError(t, err)
				images[i] = wholeOf(t, l, tail, nil, kernel, initrd)
			}
			require.Equal(t, images[0][:l.Tail], images[1][:l.Tail], "everything before the tail is the same")
			require.NotEqual(t, images[0][l.Tail:], images[1][l.Tail:])
			require.EqualValues(t, 36<<10, l.Size-l.Tail)

			_, info := sectionsOf(t, images[0])
			for i := range info.Sections[1:] {
				require.Greater(t, info.Sections[i+1].VirtualAddress, info.Sections[i].VirtualAddress, "in the order of memory")
			}
			names := []string{".initrd", ".cmdline", ".linux"}
			for i, s := range info.Sections[len(info.Sections)-3:] {
				require.Equal(t, names[i], s.Name)
			}
			kernelAt, _ := info.Section(".linux")
			initrdAt, _ := info.Section(".initrd")
			commandLineAt, _ := info.Section(".cmdline")
			require.Less(t, kernelAt.Offset, initrdAt.Offset)
			require.Less(t, initrdAt.Offset, commandLineAt.Offset)
			require.Equal(t, l.Size, commandLineAt.Offset+commandLineAt.Size)
		})
	}
}

func TestWhatAuthenticodeHashesIsTheHeadThePartsAndTheTail(t *testing.T) {
	for name, stub := range layoutStubs(t) {
		t.Run(name, func(t *testing.T) {
			kernel, initrd := layoutKernel(t, architectureOf(name), 9999), layoutNoise(2, 7777)
			l := layoutOf(t, stub, kernel, initrd)
			tail, err := l.NewTail([]byte("slot"), "a=b")
			require.NoError(t, err)
			h := sha256.New()
			require.NoError(t, l.HashHead(h))
			rest := wholeOf(t, l, tail, nil, kernel, initrd)[l.Parts[0].Offset:]
			h.Write(rest)
			for _, table := range [][]byte{nil, uki.CertificateTable(layoutNoise(3, 1301))} {
				image := wholeOf(t, l, tail, table, kernel, initrd)
				want, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
				require.NoError(t, err)
				require.Equal(t, want, [32]byte(h.Sum(nil)), "with a certificate table of %d bytes", len(table))
			}
		})
	}
}

// debian runs one of Debian's programs that look at images; it skips the test where
// it is not installed.
func debian(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "CI must have %s", name)
		t.Skipf("SKIPPED: install %s: %v", name, err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	return string(out)
}

func TestDebiansProgramsAcceptTheLayout(t *testing.T) {
	for name, stub := range layoutStubs(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			kernel, initrd := layoutKernel(t, architectureOf(name), 9999), layoutNoise(2, 7777)
			l := layoutOf(t, stub, kernel, initrd)
			tail, err := l.NewTail([]byte("slot"), "a=b")
			require.NoError(t, err)
			file := filepath.Join(dir, "uki.efi")
			require.NoError(t, os.WriteFile(file, wholeOf(t, l, tail, nil, kernel, initrd), 0o600))
			key, certificate := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
			debian(t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=test", "-days", "2")
			// They warn of gaps, as they look at sections in the order of memory; what
			// they hash is in the order of the file all the same.
			debian(t, "sbsign", "--key", key, "--cert", certificate, "--output", file+".signed", file)
			assert.Contains(t, debian(t, "sbverify", "--cert", certificate, file+".signed"), "Signature verification OK")
			signed, err := os.ReadFile(file + ".signed")
			require.NoError(t, err)
			signatures, err := uki.Signatures(bytes.NewReader(signed), int64(len(signed)))
			require.NoError(t, err)
			require.Len(t, signatures, 1)
			assert.NoError(t, signatures[0].Err, "sbsign hashes what Authenticode does")
			if strings.HasSuffix(name, "arm64") {
				return // Debian's objdump for amd64 does not know it
			}
			headers := debian(t, "objdump", "-h", file)
			_, line, _ := strings.Cut(headers, ".linux")
			fields := strings.Fields(line)
			assert.Equal(t, fmt.Sprintf("%08x", len(kernel)), fields[0])
			assert.Equal(t, fmt.Sprintf("%08x", l.Parts[0].Offset), fields[3])
			out := filepath.Join(dir, "linux")
			debian(t, "objcopy", "-O", "binary", "--only-section=.linux", file, out)
			content, err := os.ReadFile(out)
			require.NoError(t, err)
			assert.True(t, bytes.HasPrefix(content, kernel))
		})
	}
}

func TestNewLayoutRefusesWhatCannotBeComposed(t *testing.T) {
	le := binary.LittleEndian
	const optional, table = 64 + 24, 64 + 24 + 240
	change := func(f func(b []byte)) []byte {
		b := greeting(t, uki.AMD64)
		f(b)
		return b
	}
	with := func(names ...string) []byte {
		var all []uki.Section
		for _, n := range names {
			all = append(all, uki.Section{Name: n, Data: []byte("x")})
		}
		b, err := uki.Assemble(greeting(t, uki.AMD64), all...)
		require.NoError(t, err)
		return b
	}
	kernel := input(layoutKernel(t, uki.AMD64, 100))
	large := func(size int64) uki.Input { return uki.Input{R: kernel.R, Size: size} }
	for _, c := range []struct {
		name    string
		stub    []byte
		linux   uki.Input
		initrds []int64
		is      error
		want    string
	}{
		{"no PE", []byte("#!ipxe"), kernel, nil, uki.ErrNotPE, "an iPXE script"},
		{"empty", nil, kernel, nil, uki.ErrNotPE, "empty"},
		{"huge stub", make([]byte, uki.MaxStub+1), kernel, nil, uki.ErrNotUKI, "more than 4194304"},
		{"Windows program", change(func(b []byte) { le.PutUint16(b[optional+68:], 3) }), kernel, nil, uki.ErrNotEFI, "Windows console"},
		{"PE32", change(func(b []byte) { le.PutUint16(b[optional:], 0x10b) }), kernel, nil, nil, ""},
		{"signed", change(func(b []byte) {
			le.PutUint32(b[optional+112+32:], uint32(len(b)-8))
			le.PutUint32(b[optional+112+36:], 8)
		}), kernel, nil, uki.ErrNotUKI, "is signed"},
		{"no data directory", change(func(b []byte) { le.PutUint32(b[optional+108:], 4) }), kernel, nil, nil, ""},
		{"wide alignment", change(func(b []byte) { le.PutUint32(b[optional+36:], 8192) }), kernel, nil, uki.ErrMalformed, "aligned to 8192"},
		{"narrow alignment", change(func(b []byte) { le.PutUint32(b[optional+36:], 4) }), kernel, nil, uki.ErrMalformed, "aligned to 4"},
		{"a UKI", with(".linux"), kernel, nil, uki.ErrNotUKI, "it is a UKI already"},
		{"pcrsig", with(".pcrsig"), kernel, nil, uki.ErrNotUKI, "signs the measurements of another UKI"},
		{"a profile", with(".profile"), kernel, nil, uki.ErrNotUKI, "a part of one"},
		{"overlapping", change(func(b []byte) { le.PutUint32(b[table+40+20:], le.Uint32(b[table+20:])) }), kernel, nil, uki.ErrMalformed, "overlap"},
		{"section in the headers", change(func(b []byte) { le.PutUint32(b[table+20:], 0) }), kernel, nil, uki.ErrMalformed, "within the headers"},
		{"no kernel", greeting(t, uki.AMD64), uki.Input{}, nil, uki.ErrNotUKI, "checking the kernel"},
		{"2 GiB of kernel", greeting(t, uki.AMD64), large(2 << 30), nil, uki.ErrNotUKI, "less than 2 GiB"},
		{"a kernel for another machine", greeting(t, uki.AMD64), input(greeting(t, uki.ARM64)), nil, uki.ErrArchitecture, "the kernel is for arm64, the stub for amd64"},
		{"2 GiB of initrd", greeting(t, uki.AMD64), kernel, []int64{9, 2 << 30}, uki.ErrNotUKI, "initrd 2 of 2 has 2147483648 bytes"},
		{"2 GiB of initrds", greeting(t, uki.AMD64), kernel, []int64{1 << 30, 1<<30 - 4}, uki.ErrNotUKI, "less than 2 GiB"},
		{"4 GiB in all", greeting(t, uki.AMD64), large(2<<30 - 4096), []int64{2<<30 - 40<<10}, uki.ErrNotUKI, "4 GiB"},
		{"negative", greeting(t, uki.AMD64), kernel, []int64{-1}, uki.ErrNotUKI, "-1 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := uki.NewLayout(c.stub, c.linux, c.initrds...)
			require.Error(t, err)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			assert.Contains(t, err.Error(), c.want)
		})
	}
	_, err := uki.NewLayout(greeting(t, uki.AMD64), large(1<<30), 2<<30-64<<10)
	require.NoError(t, err, "the control: 3 GiB can be laid out")
	broken := errors.New("disk on fire")
	_, err = uki.NewLayout(greeting(t, uki.AMD64), uki.Input{R: brokenReader{broken}, Size: 1 << 20})
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, uki.ErrNotPE, "a bad disk must not condemn the kernel")
}

func TestATailHoldsOneLineAndWhatFitsTheSlot(t *testing.T) {
	l := layoutOf(t, greeting(t, uki.AMD64), bzImage(t, 2047))
	require.Equal(t, 2047, l.MaxCommandLine)
	for _, c := range []struct {
		slot        int
		commandLine string
		want        string
	}{
		{uki.SlotSize + 1, "", "32769 bytes: 32768 fit"},
		{0, strings.Repeat("a", 2048), "2048 bytes: the kernel takes 2047"},
		{0, "a\x00b", `"\x00"`},
		{0, "a\nb", `"\n"`},
		{0, "a\xffb", "not UTF-8"},
	} {
		_, err := l.NewTail(make([]byte, c.slot), c.commandLine)
		require.ErrorIs(t, err, uki.ErrNotUKI)
		require.ErrorContains(t, err, c.want)
	}
	l = layoutOf(t, greeting(t, uki.AMD64), layoutKernel(t, uki.AMD64, 0))
	tail, err := l.NewTail(bytes.Repeat([]byte{7}, uki.SlotSize), strings.Repeat("a", uki.CommandLineSize-1))
	require.NoError(t, err)
	require.Len(t, tail, uki.SlotSize+uki.CommandLineSize)
	require.EqualValues(t, 0, tail[len(tail)-1], "a command line ends with a NUL")
}

// Where the stub's .sbat has no room for the kernel's entries, it gets another
// place, as in a UKI that is built whole.
func TestTheKernelsSBATIsInAComposedUKI(t *testing.T) {
	const entry = "linux.test,1,Linux,linux,6.1,https://example.com/"
	for name, own := range map[string]string{"without": "", "with": "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nstub,1,Stub,stub,1,https://example.com/\n"} {
		t.Run(name, func(t *testing.T) {
			stub, err := uki.Assemble(greeting(t, uki.AMD64), uki.Section{Name: ".sbat", Data: []byte(own + "\x00")}, uki.Section{Name: ".behind", Data: []byte("x")})
			require.NoError(t, err)
			kernel, err := uki.Assemble(greeting(t, uki.AMD64), uki.Section{Name: ".sbat", Data: []byte(entry + strings.Repeat("x", 5000) + "\n")})
			require.NoError(t, err)
			l := layoutOf(t, stub, kernel)
			tail, err := l.NewTail(nil, "")
			require.NoError(t, err)
			image := wholeOf(t, l, tail, nil, kernel)
			sections, _ := sectionsOf(t, image)
			require.Contains(t, string(sections[".sbat"]), entry)
			require.Contains(t, string(sections[".sbat"]), own)
			_, err = uki.Hash(bytes.NewReader(image), int64(len(image)))
			require.NoError(t, err)
			h := sha256.New()
			require.NoError(t, l.HashHead(h))
			h.Write(image[l.Parts[0].Offset:])
			sum, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
			require.NoError(t, err)
			require.Equal(t, sum, [32]byte(h.Sum(nil)))
		})
	}
}

// FuzzNewLayout holds layouts of any stub to what reading them back says.
func FuzzNewLayout(f *testing.F) {
	for _, stub := range layoutStubs(f) {
		f.Add(stub, uint16(5000), uint16(3000))
		f.Add(stub[:1024], uint16(1), uint16(0))
	}
	kernels := [][]byte{layoutKernel(f, uki.AMD64, 1<<16), layoutKernel(f, uki.ARM64, 1<<16)}
	f.Fuzz(func(t *testing.T, stub []byte, more, initrd uint16) {
		for _, kernel := range kernels {
			kernel = kernel[:len(kernel)-int(more)]
			l, err := uki.NewLayout(stub, input(kernel), int64(initrd))
			if err != nil {
				continue
			}
			rd := layoutNoise(2, int(initrd))
			tail, err := l.NewTail([]byte("slot"), "a=b")
			require.NoError(t, err)
			image := wholeOf(t, l, tail, nil, kernel, rd)
			info, err := inspect(image)
			require.NoError(t, err)
			for name, want := range map[string][]byte{".linux": kernel, ".cmdline": tail[uki.SlotSize:]} {
				s, ok := info.Section(name)
				require.True(t, ok)
				content, err := io.ReadAll(s.Open(bytes.NewReader(image)))
				require.NoError(t, err)
				require.True(t, bytes.HasPrefix(content, want), name)
			}
			h := sha256.New()
			require.NoError(t, l.HashHead(h))
			h.Write(image[l.Parts[0].Offset:])
			sum, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
			require.NoError(t, err)
			require.Equal(t, sum, [32]byte(h.Sum(nil)))
		}
	})
}
