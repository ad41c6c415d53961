package uki

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what is not the kernel or an initrd, in bytes.
const (
	maxOSRelease = maxText
	maxUname     = 64 // Linux's own
)

// Input is a part of a UKI that may be too large to hold in memory.
type Input struct {
	R    io.ReaderAt
	Size int64 // in bytes; all of them are read, from offset 0
}

// Parts are what a UKI is built of. Stub and Linux are required.
type Parts struct {
	// Stub is an EFI stub such as systemd's linuxx64.efi.stub. Its
	// architecture is the UKI's.
	Stub []byte
	// Linux is a kernel with an EFI stub of its own, not compressed as a whole.
	Linux Input
	// Initrds become one .initrd. Where they are several, each is padded with
	// zeroes to 4 bytes.
	Initrds []Input
	// Ucode is early microcode, which becomes one .ucode as Initrds do.
	Ucode []Input
	// CommandLine is the kernel's; the UKI has none where it is empty.
	CommandLine string
	// OSRelease is the content of the OS's os-release file.
	OSRelease string
	// Uname is the kernel's release, as uname -r says it.
	Uname string
	// SBAT holds entries to add to those of the stub and the kernel, with or
	// without the entry of the format itself.
	SBAT string
	// Splash is a BMP image, DTB a compiled device tree.
	Splash, DTB []byte
	// Extra sections come after those above and before .linux; those from the
	// first .profile on come after it, as what stands before is shared by the
	// profiles. A .pcrsig has to be made for this very UKI.
	Extra []Section
}

// Build writes a UKI as the UAPI group's specification and systemd's ukify lay
// it out: the stub, then .osrel, .cmdline, .dtb, .uname, .splash, .initrd,
// .ucode, Extra, .sbat where the stub's has no room for the merged one, and
// .linux, which gets as much memory as the kernel asks for, and so is read with
// the zeroes that pad it. The kernel and the initrds are not held in memory, and
// nothing is written before all that can be checked is. The same parts make the
// same bytes.
//
// The error wraps ErrNotPE, ErrMalformed or ErrNotEFI (about the stub or the
// kernel), ErrArchitecture (the kernel is not for the stub's), ErrNoRoom, or
// ErrNotUKI for any other part that cannot be; else it is an error of a part or
// of w.
func Build(w io.Writer, p Parts) error {
	m, err := p.image()
	if err != nil {
		return err
	}
	return m.write(w)
}

// image checks the parts and lays them out.
func (p Parts) image() (*image, error) {
	m, err := openStub(p.Stub)
	if err != nil {
		return nil, err
	}
	architecture, err := m.checkStub()
	if err != nil {
		return nil, fmt.Errorf("checking the stub: %w", err)
	}
	k, err := openKernel(p.Linux, architecture)
	if err != nil {
		return nil, fmt.Errorf("checking the kernel: %w", err)
	}
	if err := p.check(k); err != nil {
		return nil, err
	}
	parts, err := p.parts(m, k)
	if err != nil {
		return nil, err
	}
	if err := m.checkNames(parts); err != nil {
		return nil, err
	}
	return m, m.layOut(parts)
}

// checkStub returns the stub's architecture.
func (m *image) checkStub() (string, error) {
	if err := m.checkPlus(); err != nil {
		return "", err
	}
	info, err := m.info()
	if err != nil {
		return "", err
	}
	for _, name := range []string{".linux", ".initrd", ".cmdline", ".profile"} {
		if _, ok := info.Section(name); ok {
			return "", notUKI("it has a section %s: it is a UKI already, or a part of one", name)
		}
	}
	return info.Architecture, nil
}

// kernel is what has to be known of one.
type kernel struct {
	memory      int64  // that the loaded image takes, in bytes
	commandLine int    // the longest that it takes, in bytes
	sbat        string // its .sbat section
}

func openKernel(in Input, architecture string) (kernel, error) {
	if err := in.check(); err != nil {
		return kernel{}, err
	}
	info, err := Inspect(in.R, in.Size)
	if errors.Is(err, ErrNotPE) {
		return kernel{}, fmt.Errorf("%w; a kernel with an EFI stub is needed, not compressed as a whole", err)
	}
	if err != nil {
		return kernel{}, err
	}
	r := io.NewSectionReader(in.R, 0, in.Size)
	limit, err := checkLinux(r, architecture)
	if err != nil {
		return kernel{}, err
	}
	if info.SizeOfImage > maxSection {
		return kernel{}, malformed("it claims %d bytes of memory", info.SizeOfImage)
	}
	texts := &textReader{r: r, left: maxText, read: map[int64]string{}}
	k := kernel{memory: int64(info.SizeOfImage), commandLine: limit, sbat: texts.of(info.Sections, ".sbat")}
	return k, texts.err
}

// check makes sure that an input is there and fits in a section.
func (i Input) check() error {
	if i.R == nil || i.Size <= 0 {
		return notUKI("it is empty")
	}
	if i.Size > maxSection {
		return notUKI("it has %d bytes: less than 2 GiB fit", i.Size)
	}
	return nil
}

// check checks what is not the stub or the kernel.
func (p Parts) check(k kernel) error {
	for name, inputs := range map[string][]Input{"initrd": p.Initrds, "microcode": p.Ucode} {
		for n, in := range inputs {
			if err := in.check(); err != nil {
				return fmt.Errorf("checking %s %d of %d: %w", name, n+1, len(inputs), err)
			}
		}
	}
	if err := p.checkCommandLines(k.commandLine); err != nil {
		return err
	}
	if err := checkSBAT(p.SBAT); err != nil {
		return err
	}
	if err := checkText("os-release", p.OSRelease, maxOSRelease); err != nil {
		return err
	}
	if err := checkText("uname", p.Uname, maxUname); err != nil {
		return err
	}
	if strings.ContainsFunc(p.Uname, func(r rune) bool { return r <= ' ' }) {
		return notUKI("uname %q has white space in it", p.Uname)
	}
	if len(p.Splash) > 0 && !bytes.HasPrefix(p.Splash, []byte("BM")) {
		return notUKI("the splash image is no BMP: it %s", describe(p.Splash[:min(len(p.Splash), sniffSize)]))
	}
	if len(p.DTB) > 0 && !bytes.HasPrefix(p.DTB, []byte("\xd0\x0d\xfe\xed")) {
		return notUKI("the device tree is not compiled: it %s", describe(p.DTB[:min(len(p.DTB), sniffSize)]))
	}
	return nil
}

func (p Parts) checkCommandLines(limit int) error {
	lines := []string{p.CommandLine}
	for _, s := range p.Extra {
		if s.Name == ".cmdline" {
			lines = append(lines, string(s.Data))
		}
	}
	for _, line := range lines {
		if err := checkCommandLine(line, limit); err != nil {
			return err
		}
	}
	return nil
}

// checkText refuses text that is longer than limit bytes, not UTF-8, or has a
// NUL, which ends what the stub reads.
func checkText(name, text string, limit int) error {
	if len(text) > limit {
		return notUKI("%s has %d bytes, more than %d", name, len(text), limit)
	}
	if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
		return notUKI("%s is not UTF-8 text", name)
	}
	return nil
}

// parts returns the sections to add to the stub, in their order, and changes
// those of the stub that are made anew.
func (p Parts) parts(m *image, k kernel) ([]*part, error) {
	var parts []*part
	add := func(name string, content ...Input) {
		if len(content) > 0 {
			parts = append(parts, &part{name: name, content: content})
		}
	}
	add(".osrel", text(p.OSRelease)...)
	add(".cmdline", text(p.CommandLine)...)
	add(".dtb", text(string(p.DTB))...)
	add(".uname", text(p.Uname)...)
	add(".splash", text(string(p.Splash))...)
	add(".initrd", join(p.Initrds)...)
	add(".ucode", join(p.Ucode)...)
	base, profiles, err := p.extra(m)
	if err != nil {
		return nil, err
	}
	for _, s := range base {
		parts = append(parts, s.part())
	}
	if sbat := mergeSBAT(m.text(".sbat"), k.sbat, p.SBAT); sbat != "" && !m.replace(".sbat", []byte(sbat)) {
		add(".sbat", text(sbat)...)
	}
	parts = append(parts, &part{name: ".linux", content: []Input{p.Linux}, memory: k.memory, code: true})
	for _, s := range profiles {
		parts = append(parts, s.part())
	}
	return parts, nil
}

// extra returns the extra sections that come before .linux and those that come
// after it. A .pcrsig of the stub, which is one of another UKI, is replaced.
func (p Parts) extra(m *image) (base, profiles []Section, err error) {
	base = slices.Clone(p.Extra)
	if i := slices.IndexFunc(base, func(s Section) bool { return s.Name == ".profile" }); i >= 0 {
		base, profiles = base[:i:i], base[i:]
	}
	if _, ok := sectionNamed(m.sections, ".pcrsig"); !ok {
		return base, profiles, nil
	}
	i := slices.IndexFunc(base, func(s Section) bool { return s.Name == ".pcrsig" })
	if i < 0 {
		return nil, nil, notUKI("the stub has a section .pcrsig, which signs the measurements of another UKI: sign those of this one, or take a stub without it")
	}
	if m.replace(".pcrsig", base[i].Data) {
		base = slices.Delete(base, i, i+1)
	}
	return base, profiles, nil
}

// text returns a section's content, none for an empty text.
func text(s string) []Input {
	if s == "" {
		return nil
	}
	return []Input{{strings.NewReader(s), int64(len(s))}}
}

// join puts archives that the kernel unpacks one after the other: where they
// are several, each padded to 4 bytes, as the kernel looks for the next there.
func join(archives []Input) []Input {
	if len(archives) < 2 {
		return archives
	}
	var all []Input
	for _, a := range archives {
		all = append(all, a)
		if pad := alignUp(a.Size, 4) - a.Size; pad > 0 {
			all = append(all, Input{bytes.NewReader(make([]byte, pad)), pad})
		}
	}
	return all
}

// text returns the stub's section of that name as it is.
func (m *image) text(name string) string {
	s, _ := sectionNamed(m.sections, name)
	return string(m.head[s.Offset : s.Offset+s.Size])
}

// checkNames refuses sections that come twice. Its error wraps ErrNotUKI.
func (m *image) checkNames(parts []*part) error {
	sections := slices.Clone(m.sections)
	for _, p := range parts {
		sections = append(sections, SectionHeader{Name: p.name})
	}
	return splitProfiles(sections).check(notUKI)
}
