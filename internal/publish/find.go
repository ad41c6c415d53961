package publish

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// names are those that files of a directory are known by, the one that Pull writes
// first; an initrd may be several files, in the order of their names.
var names = struct{ uki, stub, kernel, initrd, squashfs, osRelease, commandLine []string }{
	uki:         []string{"uki.efi", "image.efi", "*.uki", "*.uki.efi"},
	stub:        []string{"stub.efi", "*.efi.stub"},
	kernel:      []string{"vmlinuz", "vmlinuz-*", "*.vmlinuz", "kernel", "linux", "Image", "bzImage"},
	initrd:      []string{"initrd", "initrd.img", "initrd-*", "initrd.img-*", "*.initrd", "initramfs", "initramfs.img", "initramfs-*"},
	squashfs:    []string{"rootfs.squashfs", "*.squashfs"},
	osRelease:   []string{"os-release"},
	commandLine: []string{"cmdline", "cmdline.txt"},
}

// FromDirectory finds the files of an image by their names: in the directory itself
// or, for several architectures, in amd64 and arm64 below it. It returns ErrFile where
// there are none, or several that could be meant.
func FromDirectory(dir string) ([]Sources, error) {
	var all []Sources
	for _, arch := range Architectures {
		below := filepath.Join(dir, string(arch))
		if info, err := os.Stat(below); err != nil || !info.IsDir() {
			continue
		}
		s, err := fromNames(below, arch)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if len(all) > 0 {
		return all, nil
	}
	s, err := fromNames(dir, "")
	return []Sources{s}, err
}

// fromNames finds the files of one architecture.
func fromNames(dir string, arch boot.Architecture) (Sources, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Sources{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	d := directory{dir: dir}
	for _, e := range entries {
		if !e.IsDir() {
			d.files = append(d.files, e.Name())
		}
	}
	s := Sources{
		Architecture: arch,
		UKI:          d.one("UKI", names.uki), Stub: d.one("stub", names.stub), Kernel: d.one("kernel", names.kernel),
		Squashfs: d.one("squashfs", names.squashfs), OSRelease: d.one("os-release file", names.osRelease), Initrds: d.all(names.initrd),
	}
	if file := d.one("command line", names.commandLine); file != "" && d.err == nil {
		text, err := readFile(file, maxText)
		if err != nil {
			return Sources{}, err
		}
		s.CommandLine = strings.TrimSpace(string(text))
	}
	if d.err == nil && s.UKI == "" && s.Kernel == "" {
		d.err = fmt.Errorf("%w: %s has neither a UKI (%s) nor a kernel (%s)%s", ErrFile, dir, names.uki[0], names.kernel[0], d.has())
	}
	return s, d.err
}

// directory is one whose files are looked for.
type directory struct {
	dir   string
	files []string
	err   error
}

// all returns the files with one of these names.
func (d *directory) all(patterns []string) []string {
	var found []string
	for _, f := range d.files {
		if slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, f); return ok }) {
			found = append(found, filepath.Join(d.dir, f))
		}
	}
	return found
}

// one returns the only file with one of these names; none is no error.
func (d *directory) one(what string, patterns []string) string {
	found := d.all(patterns)
	if len(found) > 1 && d.err == nil {
		d.err = fmt.Errorf("%w: %s could each be the %s; name the files themselves", ErrFile, strings.Join(found, " and "), what)
	}
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// has lists what is there instead, for whoever misses something.
func (d *directory) has() string {
	const most = 8
	listed := d.files[:min(most, len(d.files))]
	switch {
	case len(listed) == 0:
		return "; it has no files"
	case len(listed) < len(d.files):
		return fmt.Sprintf("; it has %s and %d more", strings.Join(listed, ", "), len(d.files)-most)
	}
	return "; it has " + strings.Join(listed, ", ")
}

// Where distributions keep what they boot, below their root; %s is the kernel's
// version. Kernels: Fedora, Arch and SUSE, then Debian.
var (
	rootKernels   = []string{"usr/lib/modules/%s/vmlinuz", "lib/modules/%s/vmlinuz", "boot/vmlinuz-%s"}
	rootInitrds   = []string{"usr/lib/modules/%s/initrd", "usr/lib/modules/%s/initramfs.img", "boot/initrd.img-%s", "boot/initramfs-%s.img", "boot/initrd-%s"}
	rootOSRelease = []string{"usr/lib/os-release", "etc/os-release"}
	rootStubs     = map[string]string{uki.AMD64: "usr/lib/systemd/boot/efi/linuxx64.efi.stub", uki.ARM64: "usr/lib/systemd/boot/efi/linuxaa64.efi.stub"}
)

// FromRoot finds what an installed OS boots from, below its root directory: a kernel
// with its initrd, its os-release file, and systemd's stub if it is installed. version
// chooses a kernel, where there are several. It returns ErrFile for what is missing.
func FromRoot(dir, version string) (Sources, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Sources{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	defer func() { _ = root.Close() }()
	o := osRoot{Root: root, dir: dir}
	if version, err = o.version(version); err != nil {
		return Sources{}, err
	}
	s := Sources{Kernel: o.first(rootKernels, version), OSRelease: o.first(rootOSRelease, "")}
	initrd := o.first(rootInitrds, version)
	if initrd == "" {
		return Sources{}, fmt.Errorf("%w: %s has no initrd for the kernel %s; it would be one of %s", ErrFile, dir, version, fill(rootInitrds, version))
	}
	s.Initrds = []string{initrd}
	return s, o.stub(&s)
}

// osRoot is the root directory of an OS. No link leads out of it.
type osRoot struct {
	*os.Root
	dir string
}

// first returns the first of these files that is there.
func (o osRoot) first(patterns []string, version string) string {
	for _, p := range patterns {
		name := strings.Replace(p, "%s", version, 1)
		if info, err := o.Stat(name); err == nil && info.Mode().IsRegular() {
			return filepath.Join(o.dir, name)
		}
	}
	return ""
}

// version chooses the kernel.
func (o osRoot) version(asked string) (string, error) {
	found := o.versions()
	switch {
	case asked != "" && slices.Contains(found, asked):
		return asked, nil
	case len(found) == 0:
		return "", fmt.Errorf("%w: %s has no kernel; it would be one of %s", ErrFile, o.dir, fill(rootKernels, "*"))
	case asked != "":
		return "", fmt.Errorf("%w: %s has no kernel %s; it has %s", ErrFile, o.dir, asked, strings.Join(found, ", "))
	case len(found) > 1:
		return "", fmt.Errorf("%w: %s has several kernels, %s; say which with --kernel-version", ErrFile, o.dir, strings.Join(found, ", "))
	}
	return found[0], nil
}

// versions lists those of the kernels that are there.
func (o osRoot) versions() []string {
	var found []string
	for _, p := range rootKernels {
		before, after, _ := strings.Cut(p, "%s")
		matches, err := fs.Glob(o.FS(), before+"*"+after)
		if err != nil {
			continue
		}
		for _, m := range matches {
			v := strings.TrimSuffix(strings.TrimPrefix(m, before), after)
			// Fedora's rescue kernel is for another occasion.
			if !strings.HasPrefix(v, "0-rescue") && o.first([]string{p}, v) != "" && !slices.Contains(found, v) {
				found = append(found, v)
			}
		}
	}
	slices.SortFunc(found, cmp.Compare)
	return found
}

// stub finds the stub of the kernel's architecture; an OS without one still boots
// through iPXE.
func (o osRoot) stub(s *Sources) error {
	return reading(s.Kernel, func(f *os.File, size int64) error {
		k, err := inspectKernel(f, size)
		if err != nil {
			return fmt.Errorf("%w: %s is no kernel that machines boot: %w", ErrFile, s.Kernel, err)
		}
		if name := rootStubs[k.architecture]; name != "" && k.efi {
			s.Stub = o.first([]string{name}, "")
		}
		return nil
	})
}

// fill lists patterns for people.
func fill(patterns []string, version string) string {
	return strings.ReplaceAll(strings.Join(patterns, ", "), "%s", version)
}
