package uki_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// binutils finds one of Debian's binutils for an architecture.
func binutils(t *testing.T, architecture, name string) string {
	t.Helper()
	triplet := map[string]string{uki.AMD64: "x86_64-linux-gnu-", uki.ARM64: "aarch64-linux-gnu-"}[architecture]
	path, err := exec.LookPath(triplet + name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed; in CI it has to be: apt-get install binutils binutils-aarch64-linux-gnu", triplet+name)
	}
	if err != nil {
		t.Skipf("NOT TESTED: whether %s reads what is written; apt-get install binutils binutils-aarch64-linux-gnu", triplet+name)
	}
	return path
}

// found reads one of an OS's boot files where this machine has it: from
// Debian's systemd-boot-efi, or among the parts of the lab's OS, which tests
// that boot machines leave in the cache.
func found(t *testing.T, architecture, name string) []byte {
	t.Helper()
	efi := map[string]string{uki.AMD64: "x64", uki.ARM64: "aa64"}[architecture]
	cache := os.Getenv("BOOT_OPERATOR_CACHE")
	if home, err := os.UserCacheDir(); cache == "" && err == nil {
		cache = filepath.Join(home, "boot-operator")
	}
	all, err := filepath.Glob(filepath.Join(cache, "lab", "os-"+architecture+"-*", name))
	require.NoError(t, err)
	if name == "stub" {
		all = append([]string{"/usr/lib/systemd/boot/efi/linux" + efi + ".efi.stub"}, all...)
	}
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil {
			return b
		}
	}
	if name == "stub" && architecture == uki.AMD64 && os.Getenv("CI") == "true" {
		t.Fatal("systemd's stub is not installed; in CI it has to be: apt-get install systemd-boot-efi")
	}
	t.Skipf("NOT TESTED: a UKI of Debian's %s for %s; the tests in test/lab bring it", name, architecture)
	return nil
}

// references are parts that UKIs are built of to compare them with what others
// make of the same: small ones, and Debian's.
func references(t *testing.T, check func(t *testing.T, architecture string, p uki.Parts)) {
	for _, architecture := range []string{uki.AMD64, uki.ARM64} {
		small := func(t *testing.T) uki.Parts {
			p := parts(t, architecture)
			p.Initrds = []uki.Input{input(bytes.Repeat([]byte("initrd "), 1000)), input([]byte("slot"))}
			return p
		}
		t.Run(architecture+"/small", func(t *testing.T) { check(t, architecture, small(t)) })
		t.Run(architecture+"/stub", func(t *testing.T) {
			p := small(t)
			p.Stub, p.SBAT = found(t, architecture, "stub"), sbatOfOS
			check(t, architecture, p)
		})
		t.Run(architecture+"/kernel", func(t *testing.T) {
			p := small(t)
			p.Stub, p.Linux, p.Initrds = found(t, architecture, "stub"), input(found(t, architecture, "linux")), []uki.Input{input(found(t, architecture, "initrd"))}
			p.SBAT = sbatOfOS
			check(t, architecture, p)
		})
	}
}

// listed is what objdump says of a section.
type listed struct {
	name                  string
	size, address, offset int64
}

// objdump lists a file's sections.
func objdump(t *testing.T, architecture, file string) []listed {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binutils(t, architecture, "objdump"), "-h", "-w", file).CombinedOutput()
	require.NoError(t, err, string(out))
	var all []listed
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 7 || f[0] == "Idx" {
			continue
		}
		number := func(text string) int64 {
			v, err := strconv.ParseInt(text, 16, 64)
			require.NoError(t, err, lines.Text())
			return v
		}
		all = append(all, listed{f[1], number(f[2]), number(f[3]), number(f[5])})
	}
	return all
}

// write writes an image for other programs to read.
func write(t *testing.T, image []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "uki.efi")
	require.NoError(t, os.WriteFile(file, image, 0o600))
	return file
}

func describe(t testing.TB, image []byte) uki.Description {
	t.Helper()
	d, err := uki.Describe(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	return d
}

func TestObjdumpAgreesOnEverySection(t *testing.T) {
	references(t, func(t *testing.T, architecture string, p uki.Parts) {
		image := build(t, p)
		var ours []listed
		for _, s := range describe(t, image).Sections {
			ours = append(ours, listed{s.Name, s.Size, int64(s.VirtualAddress), s.Offset})
		}
		require.Equal(t, objdump(t, architecture, write(t, image)), ours)
		requireNoGaps(t, image)
		_, err := uki.Check(bytes.NewReader(image), int64(len(image)), architecture)
		require.NoError(t, err)
	})
}

// requireNoGaps makes sure that every byte of the file belongs to the headers or
// to a section: Authenticode's hash covers no others, and sbsign warns of them.
func requireNoGaps(t *testing.T, image []byte) {
	t.Helper()
	file, err := pe.NewFile(bytes.NewReader(image))
	require.NoError(t, err)
	end := file.OptionalHeader.(*pe.OptionalHeader64).SizeOfHeaders
	for _, s := range file.Sections {
		require.Equal(t, end, s.Offset, s.Name)
		end += s.Size
	}
	require.EqualValues(t, len(image), end)
}

// TestObjcopyMakesTheSameSections holds Build to what objcopy, told the same
// addresses, makes of the same stub and contents.
func TestObjcopyMakesTheSameSections(t *testing.T) {
	references(t, func(t *testing.T, architecture string, p uki.Parts) {
		p.SBAT = "" // which objcopy does not merge
		image := build(t, p)
		ours := describe(t, image)
		dir := t.TempDir()
		stub, out := filepath.Join(dir, "stub"), filepath.Join(dir, "uki.efi")
		require.NoError(t, os.WriteFile(stub, p.Stub, 0o600))
		var args []string
		added := map[string][]byte{}
		for _, s := range ours.Sections[len(names(t, p.Stub)):] {
			b := content(t, image, s.Name, 0)
			added[s.Name] = b
			file := filepath.Join(dir, s.Name)
			require.NoError(t, os.WriteFile(file, b, 0o600))
			args = append(args, "--add-section", s.Name+"="+file, "--change-section-vma", fmt.Sprintf("%s=%#x", s.Name, s.VirtualAddress),
				"--set-section-flags", s.Name+"=data,alloc,load,readonly,contents")
		}
		require.Contains(t, added, ".linux")
		output, err := exec.CommandContext(t.Context(), binutils(t, architecture, "objcopy"), append(args, stub, out)...).CombinedOutput()
		require.NoError(t, err, string(output))

		theirs, err := os.ReadFile(out)
		require.NoError(t, err)
		_, err = uki.Check(bytes.NewReader(theirs), int64(len(theirs)), architecture)
		require.NoError(t, err, "what objcopy makes is a UKI as well")
		var got, want []listed
		first := describe(t, theirs).Sections[0].Offset // it makes arm64 stubs' headers shorter
		for _, s := range describe(t, theirs).Sections {
			got = append(got, listed{s.Name, s.Size, int64(s.VirtualAddress), s.Offset - first})
			if b, ok := added[s.Name]; ok {
				require.EqualValues(t, fmt.Sprintf("sha256:%x", sha256.Sum256(b)), s.Digest, s.Name)
			}
		}
		for _, s := range ours.Sections {
			want = append(want, listed{s.Name, s.Size, int64(s.VirtualAddress), s.Offset - ours.Sections[0].Offset})
		}
		require.Equal(t, got, want)
	})
}
