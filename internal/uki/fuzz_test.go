package uki_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// walled is a file; who reads beyond its size has to answer for it.
type walled struct {
	t    *testing.T
	file []byte
}

func (w walled) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 || offset+int64(len(b)) > int64(len(w.file)) {
		w.t.Fatalf("%d bytes at %d were asked of a file of %d", len(b), offset, len(w.file))
	}
	return copy(b, w.file[offset:]), nil
}

// known are the errors that say what is wrong with a file.
func known(err error) bool {
	for _, one := range []error{uki.ErrNotPE, uki.ErrMalformed, uki.ErrNotEFI, uki.ErrNotUKI, uki.ErrArchitecture} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

func addFiles(f *testing.F) {
	for _, architecture := range []string{uki.AMD64, uki.ARM64} {
		p := parts(f, architecture)
		p.Stub, p.Linux = packed(f, architecture, 0x20), input(packed(f, architecture, 0x20))
		p.Extra = []uki.Section{{Name: ".profile", Data: []byte("ID=a")}, {Name: ".cmdline", Data: []byte("b")}}
		p.SBAT = sbatOfOS
		f.Add(build(f, p))
		f.Add(p.Stub[:0x200])
		f.Add(p.Stub)
	}
	for _, seed := range []string{"", "MZ", "\x1f\x8b", "{}", "<html>"} {
		f.Add([]byte(seed))
	}
}

// FuzzInspect makes sure that no file makes a reader panic, read what is not
// there, or contradict another.
func FuzzInspect(f *testing.F) {
	addFiles(f)
	f.Fuzz(func(t *testing.T, file []byte) {
		r, size := walled{t, file}, int64(len(file))
		info, err := uki.Inspect(r, size)
		checked, checkErr := uki.Check(r, size, "")
		d, describeErr := uki.Describe(r, size)
		if err != nil {
			require.True(t, known(err), "an error of no known kind: %v", err)
			require.Error(t, checkErr)
			require.Error(t, describeErr)
			return
		}
		for _, s := range info.Sections {
			require.True(t, s.Size == 0 || s.Offset+s.Size <= size, "section %q reaches beyond the file", s.Name)
		}
		_, err = info.CommandLine(r)
		require.NoError(t, err)
		if checkErr != nil {
			require.True(t, known(checkErr), "an error of no known kind: %v", checkErr)
		} else {
			require.Equal(t, info, checked)
			require.True(t, checked.UKI)
			require.NoError(t, describeErr, "what is good enough to boot can be described")
		}
		if describeErr == nil {
			require.Equal(t, digestOf(file), d.Digest)
			require.Len(t, d.Sections, len(info.Sections))
		} else {
			require.ErrorIs(t, describeErr, uki.ErrMalformed)
		}
	})
}

// FuzzAssemble makes sure that whatever is added to a stub can be read again, and
// that the stub is still what it was.
func FuzzAssemble(f *testing.F) {
	addFiles(f)
	f.Fuzz(func(t *testing.T, stub []byte) {
		image, err := uki.Assemble(stub, uki.Section{Name: ".new1", Data: []byte("one")}, uki.Section{Name: ".new2", Data: []byte("two")})
		if err != nil {
			require.True(t, known(err) || errors.Is(err, uki.ErrNoRoom), "an error of no known kind: %v", err)
			return
		}
		before, err := uki.Inspect(bytes.NewReader(stub), int64(len(stub)))
		if err != nil {
			return // a driver, or another machine's
		}
		after, err := inspect(image)
		require.NoError(t, err)
		require.Len(t, after.Sections, len(before.Sections)+2)
		for i, s := range before.Sections {
			now := after.Sections[i]
			require.Equal(t, []any{s.Name, s.VirtualAddress}, []any{now.Name, now.VirtualAddress})
			was, err := io.ReadAll(s.Open(bytes.NewReader(stub)))
			require.NoError(t, err)
			is, err := io.ReadAll(now.Open(bytes.NewReader(image)))
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(is, was), "section %q has changed", s.Name)
			require.Empty(t, bytes.Trim(is[len(was):], "\x00"))
		}
		require.Equal(t, "one", string(content(t, image, after.Sections[len(before.Sections)].Name, count(after, ".new1")-1)))
		_, err = uki.Describe(walled{t, image}, int64(len(image)))
		require.NoError(t, err)
	})
}

// count is how many sections of that name there are.
func count(info uki.Info, name string) int {
	n := 0
	for _, s := range info.Sections {
		if s.Name == name {
			n++
		}
	}
	return n
}

// FuzzBuild makes sure that arbitrary parts are either refused or make a UKI that
// is read as what it was built of, and the same each time.
func FuzzBuild(f *testing.F) {
	f.Add([]byte("initrd"), []byte("slot"), []byte("ucode"), "quiet", "ID=x\n", "6.1", sbatOfOS, ".pcrpkey", []byte("key"), uint16(0x400))
	f.Add([]byte{}, []byte("x"), []byte{}, "", "", "", "", ".profile", []byte("ID=a"), uint16(0))
	f.Add([]byte{0}, []byte{0}, []byte{0}, "a\nb", "\x00", "a b", "a,1", ".linux", []byte("x"), uint16(1))
	const kernelMemory = 0x4000
	stub, kernel := packed(f, uki.AMD64, 0x200), packed(f, uki.AMD64, 0x20)
	f.Fuzz(func(t *testing.T, first, second, ucode []byte, line, release, uname, sbat, name string, extra []byte, more uint16) {
		make_ := func() uki.Parts {
			return uki.Parts{
				Stub: stub, Linux: input(append(bytes.Clone(kernel), make([]byte, more)...)),
				Initrds: []uki.Input{input(first), input(second)}, Ucode: []uki.Input{input(ucode)},
				CommandLine: line, OSRelease: release, Uname: uname, SBAT: sbat,
				Extra: []uki.Section{{Name: name, Data: extra}},
			}
		}
		var out bytes.Buffer
		if err := uki.Build(&out, make_()); err != nil {
			require.ErrorIs(t, err, uki.ErrNotUKI)
			require.Zero(t, out.Len())
			return
		}
		image := out.Bytes()
		require.Equal(t, image, build(t, make_()))
		requireNoGaps(t, image)
		got := func(name string) string { return string(content(t, image, name, 0)) }
		require.Equal(t, fmt.Sprintf("%s%s%s%s", first, padding(first), second, padding(second)), got(".initrd"))
		require.Equal(t, string(ucode), got(".ucode"))
		require.Equal(t, string(extra), string(content(t, image, name, 0)))
		for name, text := range map[string]string{".cmdline": line, ".osrel": release, ".uname": uname} {
			if text != "" {
				require.Equal(t, text, got(name))
			}
		}
		linux := append(bytes.Clone(kernel), make([]byte, more)...)
		for len(linux) < kernelMemory && len(linux)%0x200 != 0 {
			linux = append(linux, 0) // a section that grows in memory is read with its padding
		}
		require.True(t, got(".linux") == string(linux), "the kernel has changed")
		if name != ".profile" { // whose content may be anything, NULs included
			_, err := uki.Check(walled{t, image}, int64(len(image)), uki.AMD64)
			require.NoError(t, err)
		}
	})
}

// padding is what an initrd among others is followed by.
func padding(b []byte) []byte { return make([]byte, -len(b)&3) }
