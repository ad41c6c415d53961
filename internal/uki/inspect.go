package uki

import (
	"errors"
	"fmt"
	"io"
)

// Errors of Inspect, Check, Describe and Build; their text goes on to say what was found.
var (
	// ErrNotPE is for a file without PE headers. The text names what the file
	// looks like.
	ErrNotPE = errors.New("not a PE file")
	// ErrMalformed is for a PE file that contradicts itself or is cut short.
	ErrMalformed = errors.New("malformed PE file")
	// ErrNotEFI is for a PE file that firmware does not boot: a Windows
	// program, an EFI driver, or a machine type that is not known here.
	ErrNotEFI = errors.New("not an EFI application")
	// ErrNotUKI is for an EFI application that lacks what a UKI needs or holds
	// what no stub can use, and for parts of which no UKI can be built.
	ErrNotUKI = errors.New("not a bootable UKI")
	// ErrArchitecture is for a file for other machines than it is meant for.
	ErrArchitecture = errors.New("wrong architecture")
	// ErrNoRoom is for a stub whose header has no room for more sections.
	ErrNoRoom = errors.New("no room for another section header")
)

// Architectures as Info names them: Go's and OCI's names.
const (
	AMD64 = "amd64"
	ARM64 = "arm64"
)

const subsystemEFIApplication = 10

// Info describes an EFI application.
type Info struct {
	// Architecture is what the image runs on, named as in GOARCH and OCI:
	// amd64, arm64, 386, arm, riscv64 or loong64.
	Architecture string
	// UKI tells a unified kernel image (it has a .linux section) from any
	// other EFI application.
	UKI bool
	// Signed is true when the file has a certificate table. Nothing is said
	// of what the signatures are worth.
	Signed bool
	// SizeOfImage is the memory that the loaded image takes, in bytes.
	SizeOfImage uint32
	// Sections are in the file's order.
	Sections []SectionHeader
}

// SectionHeader names one section of a PE file. An Info's sections lie within
// the file.
type SectionHeader struct {
	Name           string
	Offset         int64 // of its content in the file, in bytes
	Size           int64 // of its content without padding, in bytes
	VirtualAddress uint32

	virtualSize, rawSize uint32
}

// Open returns the section's content; r is the file that was inspected.
func (s SectionHeader) Open(r io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(r, s.Offset, s.Size)
}

// Section returns the first section of that name.
func (i Info) Section(name string) (SectionHeader, bool) { return sectionNamed(i.Sections, name) }

// Inspect reads the headers of the file of size bytes behind r, some 200 KB
// at most, and says what UEFI firmware would make of it. Its error wraps
// ErrNotPE, ErrMalformed or ErrNotEFI, or is an error of r.
func Inspect(r io.ReaderAt, size int64) (Info, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return Info{}, err
	}
	return h.info()
}

func (h *headers) info() (Info, error) {
	if h.subsystem() != subsystemEFIApplication {
		return Info{}, fmt.Errorf("%w: a PE file for %s", ErrNotEFI, subsystemName(h.subsystem()))
	}
	architecture, ok := architectures[h.machine()]
	if !ok {
		return Info{}, fmt.Errorf("%w: unknown machine type %#x", ErrNotEFI, h.machine())
	}
	info := Info{
		Architecture: architecture,
		Signed:       h.signed(),
		SizeOfImage:  h.sizeOfImage(),
		Sections:     h.sections,
	}
	_, info.UKI = info.Section(".linux")
	return info, nil
}

// architectures maps COFF machine types.
var architectures = map[uint16]string{
	0x8664: AMD64,
	0xaa64: ARM64,
	0x014c: "386",
	0x01c2: "arm",
	0x01c4: "arm",
	0x5064: "riscv64",
	0x6264: "loong64",
}

func subsystemName(subsystem uint16) string {
	names := map[uint16]string{
		1:  "Windows drivers",
		2:  "Windows with a window",
		3:  "the Windows console",
		11: "EFI as a boot service driver",
		12: "EFI as a runtime driver",
		13: "EFI as a ROM image",
		16: "the Windows boot environment",
	}
	if name, ok := names[subsystem]; ok {
		return name
	}
	return fmt.Sprintf("the unknown subsystem %d", subsystem)
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func notUKI(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotUKI, fmt.Sprintf(format, args...))
}
