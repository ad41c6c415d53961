package netboot

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// maxProgram bounds what is read and served: at 512 bytes a block, TFTP counts no
// further.
const maxProgram = 32 << 20

// Program is a network boot program in the directory, or what belongs to one.
type Program struct {
	// Name is what TFTP clients ask for: the path below the directory.
	Name string
	// Path is the file, all symbolic links followed.
	Path string
	Size int64
	// Architecture is what it runs on; empty for a script.
	Architecture boot.Architecture
	// BIOS says that it is no UEFI program.
	BIOS  bool
	Build Build

	modified time.Time
}

// catalog is what the directory held when it was looked at.
type catalog struct {
	files map[string]Program
}

// folders are where programs are looked for; the first is the directory itself.
var folders = []string{"", "x86_64-sb/", "x86_64/", "arm64-sb/", "arm64/"}

const (
	biosProgram = "undionly.kpxe"
	autoexec    = "autoexec.ipxe"
)

// offered are the UEFI programs in the order in which they are preferred. One
// that is a shim is only offered with what it loads beside it.
var offered = []struct{ name, loads string }{
	{"snponly-shim.efi", "snponly.efi"},
	{"ipxe-shim.efi", "ipxe.efi"},
	{"shimx64.efi", "grubx64.efi"},
	{"shimaa64.efi", "grubaa64.efi"},
	{"snponly.efi", ""},
	{"ipxe.efi", ""},
	{"snponly-arm64.efi", ""},
	{"ipxe-arm64.efi", ""},
}

// listed are all names that are served, in each folder.
var listed = func() []string {
	names := []string{biosProgram, autoexec, "mmx64.efi", "mmaa64.efi"}
	for _, o := range offered {
		names = append(names, o.name)
		if o.loads != "" {
			names = append(names, o.loads)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}()

// wanted names the files of which one would do for this firmware.
func wanted(f firmware) []string {
	switch {
	case f.bios:
		return []string{biosProgram}
	case f.arch == boot.ARM64:
		return []string{"arm64/snponly.efi", "snponly-arm64.efi"}
	}
	return []string{"snponly.efi", "ipxe.efi"}
}

// programs returns everything in the order of names.
func (c *catalog) programs() []Program {
	return slices.SortedFunc(maps.Values(c.files), func(a, b Program) int { return strings.Compare(a.Name, b.Name) })
}

// forFirmware returns the program to offer.
func (c *catalog) forFirmware(f firmware) (Program, bool) {
	if f.bios {
		for _, folder := range folders {
			if p, ok := c.files[folder+biosProgram]; ok {
				return p, true
			}
		}
		return Program{}, false
	}
	if all := c.forUEFI(f.arch); len(all) > 0 {
		return all[0], true
	}
	return Program{}, false
}

// forUEFI returns the program to offer and, where that is a shim, what it loads.
func (c *catalog) forUEFI(arch boot.Architecture) []Program {
	for _, o := range offered {
		for _, folder := range folders {
			p, ok := c.uefi(folder+o.name, arch)
			if ok && o.loads == "" {
				return []Program{p}
			}
			if loaded, there := c.uefi(folder+o.loads, arch); ok && there {
				return []Program{p, loaded}
			}
		}
	}
	return nil
}

// ProgramsFor returns what a UEFI machine of this architecture is offered from a
// directory: the program, and what that loads where it is a shim. There may be none.
func ProgramsFor(dir string, arch boot.Architecture) []Program {
	c, _ := scan(dir, &catalog{}) // what cannot be read is not offered
	return c.forUEFI(arch)
}

func (c *catalog) uefi(name string, arch boot.Architecture) (Program, bool) {
	p, ok := c.files[name]
	return p, ok && !p.BIOS && p.Architecture == arch
}

// scan looks at the directory. What did not change since old is not read again.
// Files that are there and cannot be used are told as errors.
func scan(dir string, old *catalog) (*catalog, []error) {
	c := &catalog{files: make(map[string]Program)}
	var wrong []error
	for _, folder := range folders {
		for _, name := range listed {
			p, err := look(dir, folder+name, old)
			switch {
			case err == nil:
				c.files[p.Name] = p
			case !os.IsNotExist(err):
				wrong = append(wrong, fmt.Errorf("reading the network boot program %s: %w", folder+name, err))
			}
		}
	}
	return c, wrong
}

// look reads one file. Links may lead out of the directory, as Debian's do: who
// fills it says what is served.
func look(dir, name string, old *catalog) (Program, error) {
	path, err := filepath.EvalSymlinks(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return Program{}, err //nolint:wrapcheck // scan looks at it
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return Program{}, err //nolint:wrapcheck // scan looks at it
	case !info.Mode().IsRegular():
		return Program{}, fmt.Errorf("%w: it is no regular file", boot.ErrInvalid)
	case info.Size() == 0 || info.Size() > maxProgram:
		return Program{}, fmt.Errorf("%w: it has %d bytes, and may have 1 to %d", boot.ErrInvalid, info.Size(), maxProgram)
	}
	if p, ok := old.files[name]; ok && p.Path == path && p.Size == info.Size() && p.modified.Equal(info.ModTime()) {
		return p, nil
	}
	p := Program{Name: name, Path: path, Size: info.Size(), modified: info.ModTime()}
	return p, p.inspect()
}

// inspect reads what the file is.
func (p *Program) inspect() error {
	f, err := os.Open(p.Path)
	if err != nil {
		return err //nolint:wrapcheck // scan wraps it
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxProgram))
	if err != nil {
		return err //nolint:wrapcheck // scan wraps it
	}
	base := p.Name[strings.LastIndexByte(p.Name, '/')+1:]
	machine, isPE := peMachine(content)
	switch {
	case base == autoexec:
		if !strings.HasPrefix(string(content), "#!ipxe") {
			return fmt.Errorf("%w: it does not begin with #!ipxe", boot.ErrInvalid)
		}
	case base == biosProgram:
		if isPE {
			return fmt.Errorf("%w: it is a UEFI program under the name of a BIOS one", boot.ErrInvalid)
		}
		p.BIOS, p.Architecture, p.Build = true, boot.AMD64, readBuild(content)
	case !isPE:
		return fmt.Errorf("%w: it is no UEFI program", boot.ErrInvalid)
	case machine == "":
		return fmt.Errorf("%w: it is a UEFI program for another architecture than x86-64 and arm64", boot.ErrInvalid)
	default:
		p.Architecture, p.Build = machine, readBuild(content)
	}
	return nil
}

// rescan looks at the directory again, and tells what changed.
func (s *Server) rescan() {
	s.scanning.Lock()
	defer s.scanning.Unlock()
	old := s.catalog.Load()
	c, wrong := scan(s.options.ProgramDir, old)
	s.catalog.Store(c)
	s.metrics.setPrograms(c.programs())
	for _, p := range c.programs() {
		if old.files[p.Name] != p {
			s.options.Logger.Info("Found a network boot program", "file", p.Name, "architecture", p.Architecture, "bios", p.BIOS,
				"version", p.Build.Version, "https", p.Build.HTTPS, "imgverify", p.Build.ImgVerify, "autoexec", p.Build.Autoexec)
		}
	}
	for name := range old.files {
		if _, ok := c.files[name]; !ok {
			s.options.Logger.Info("A network boot program is gone", "file", name)
		}
	}
	for _, err := range wrong {
		if text := err.Error(); !s.told[text] {
			s.told[text] = true
			s.options.Logger.Info("A file among the network boot programs is not served", "reason", text)
		}
	}
}
