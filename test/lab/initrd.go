package lab

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed osinit.sh
var initScript []byte

// driverNames are the kernel modules that the OS wants, those they depend on
// come with them.
var driverNames = []string{"virtio_pci", "virtio_net", "button", "evdev", "efivarfs"}

// buildInitrd makes the OS's initrd of unpacked packages.
func buildInitrd(tree *sysroot) ([]byte, error) {
	archive := newArchive()
	archive.add("init", 0o755, initScript)
	if err := addPrograms(archive, tree); err != nil {
		return nil, fmt.Errorf("collecting programs: %w", err)
	}
	if err := addModules(archive, tree); err != nil {
		return nil, fmt.Errorf("collecting kernel modules: %w", err)
	}
	return archive.compressed()
}

// addPrograms adds busybox and Ignition with the libraries it is linked to.
func addPrograms(archive *archive, tree *sysroot) error {
	busybox, err := tree.readEnd("bin/busybox")
	if err != nil {
		return err
	}
	archive.add("bin/busybox", 0o755, busybox)
	ignition, err := tree.readEnd("30ignition/ignition")
	if err != nil {
		return err
	}
	archive.add("bin/ignition", 0o755, ignition)
	program, err := elf.NewFile(bytes.NewReader(ignition))
	if err != nil {
		return err
	}
	if interpreter := program.Section(".interp"); interpreter != nil {
		path, err := interpreter.Data()
		if err != nil {
			return err
		}
		name := strings.TrimRight(string(path), "\x00")
		loader, err := tree.readEnd(filepath.Base(name))
		if err != nil {
			return err
		}
		archive.add(strings.TrimPrefix(name, "/"), 0o755, loader)
	}
	return addLibraries(archive, tree, program)
}

// addLibraries adds what the program needs, and what that needs, to /lib.
func addLibraries(archive *archive, tree *sysroot, program *elf.File) error {
	needed, err := program.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range needed {
		if archive.has("lib/" + name) {
			continue
		}
		b, err := tree.readEnd(name)
		if err != nil {
			return err
		}
		archive.add("lib/"+name, 0o755, b)
		library, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if err := addLibraries(archive, tree, library); err != nil {
			return err
		}
	}
	return nil
}

// addModules adds the drivers and a list of them in the order of loading.
func addModules(archive *archive, tree *sysroot) error {
	var order []string
	for _, name := range driverNames {
		if err := addModule(archive, tree, name, &order); err != nil {
			return err
		}
	}
	archive.add("lib/modules.load", 0o644, []byte(strings.Join(order, "\n")+"\n"))
	return nil
}

func addModule(archive *archive, tree *sysroot, name string, order *[]string) error {
	file := name + ".ko"
	if slices.Contains(*order, file) || tree.builtIn(name) {
		return nil
	}
	b, err := tree.readModule(name)
	if err != nil {
		return err
	}
	dependencies, err := moduleDependencies(b)
	if err != nil {
		return fmt.Errorf("reading module %s: %w", name, err)
	}
	for _, dependency := range dependencies {
		if err := addModule(archive, tree, dependency, order); err != nil {
			return err
		}
	}
	archive.add("lib/modules/"+file, 0o644, b)
	*order = append(*order, file)
	return nil
}

// moduleDependencies reads the line depends=a,b of a module's .modinfo.
func moduleDependencies(module []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("it has no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if names, ok := bytes.CutPrefix(field, []byte("depends=")); ok && len(names) > 0 {
			return strings.Split(string(names), ","), nil
		}
	}
	return nil, nil
}

// sysroot finds files below a directory into which packages were unpacked,
// wherever this release of Debian keeps them.
type sysroot struct {
	root  string
	files []string // relative, with symbolic links
}

func openSysroot(root string) (*sysroot, error) {
	s := &sysroot{root: root}
	return s, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		s.files = append(s.files, name)
		return err
	})
}

// readEnd reads the file whose path ends with end.
func (s *sysroot) readEnd(end string) ([]byte, error) {
	for _, name := range s.files {
		if name == end || strings.HasSuffix(name, "/"+end) {
			return s.read(name)
		}
	}
	return nil, fmt.Errorf("none of the packages has %s: %w", end, fs.ErrNotExist)
}

// read follows symbolic links without leaving the root.
func (s *sysroot) read(name string) ([]byte, error) {
	for range 8 {
		target, err := os.Readlink(filepath.Join(s.root, name))
		if err != nil {
			return os.ReadFile(filepath.Join(s.root, name))
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = target
	}
	return nil, fmt.Errorf("too many symbolic links at %s", name)
}

// readModule reads a kernel module, compressed or not; file names have - where
// module names have _.
func (s *sysroot) readModule(module string) ([]byte, error) {
	for _, name := range s.files {
		base, packed := strings.CutSuffix(filepath.Base(name), ".xz")
		if strings.ReplaceAll(base, "-", "_") != module+".ko" {
			continue
		}
		if packed {
			return exec.Command("xz", "--decompress", "--stdout", filepath.Join(s.root, name)).Output()
		}
		return s.read(name)
	}
	return nil, fmt.Errorf("the kernel has no module %s: %w", module, fs.ErrNotExist)
}

// builtIn tells whether a module is part of the kernel itself.
func (s *sysroot) builtIn(module string) bool {
	list, err := s.readEnd("modules.builtin")
	return err == nil && strings.Contains(strings.ReplaceAll(string(list), "-", "_"), "/"+module+".ko\n")
}

// archive is a cpio archive in the kernel's "newc" format
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	out   bytes.Buffer
	names map[string]bool
}

func newArchive() *archive { return &archive{names: map[string]bool{}} }

func (a *archive) has(name string) bool { return a.names[name] }

// add adds a file, and the directories above it that are not there yet.
func (a *archive) add(name string, mode fs.FileMode, content []byte) {
	a.addParents(name)
	a.addEntry(name, 0o100000|uint32(mode), content)
}

func (a *archive) addParents(name string) {
	dir := filepath.Dir(name)
	if dir == "." || a.has(dir) {
		return
	}
	a.addParents(dir)
	a.addEntry(dir, 0o40755, nil)
}

func (a *archive) addEntry(name string, mode uint32, content []byte) {
	a.names[name] = true
	fmt.Fprintf(&a.out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		len(a.names), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.out.Write(content)
	a.pad()
}

func (a *archive) pad() { a.out.Write(make([]byte, -a.out.Len()&3)) }

// compressed ends the archive and returns it packed with gzip.
func (a *archive) compressed() ([]byte, error) {
	a.addEntry("TRAILER!!!", 0, nil)
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(a.out.Bytes()); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}
