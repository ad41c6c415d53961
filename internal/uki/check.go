package uki

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Check makes sure that the file of size bytes behind r is a UKI that firmware
// of this architecture boots, named as in Info, or of any where it is empty. It
// is Inspect, and further: a PE32+ whose headers EDK2's loader accepts, without
// overlaps in the file or in memory, with a kernel for each profile, no section
// twice, and command lines that reach the kernel as they are. Whether the kernel
// boots it cannot know, nor what signatures are worth: see Verify. Its error
// wraps ErrNotPE, ErrMalformed, ErrNotEFI, ErrArchitecture or ErrNotUKI, or is
// an error of r.
func Check(r io.ReaderAt, size int64, architecture string) (Info, error) {
	r = io.NewSectionReader(r, 0, size)
	h, err := readHeaders(r, size)
	if err != nil {
		return Info{}, err
	}
	info, err := h.info()
	if err != nil {
		return Info{}, err
	}
	if architecture != "" && info.Architecture != architecture {
		return Info{}, fmt.Errorf("%w: it is for %s, not for %s", ErrArchitecture, info.Architecture, architecture)
	}
	if err := h.checkPlus(); err != nil {
		return Info{}, err
	}
	if err := h.checkLoadable(size); err != nil {
		return Info{}, err
	}
	all := splitProfiles(info.Sections)
	if err := all.check(malformed); err != nil {
		return Info{}, err
	}
	for _, sections := range all.bootable() {
		if err := checkProfile(r, sections, info.Architecture); err != nil {
			return Info{}, err
		}
	}
	return info, nil
}

// checkPlus refuses a PE32. UKIs, and the stubs that they are made of, are PE32+.
func (h *headers) checkPlus() error {
	if h.magic() == magicPE32 {
		return fmt.Errorf("%w: it is a PE32, for 32-bit firmware; a PE32+ is needed", ErrNotEFI)
	}
	return nil
}

// checkProfile checks what a profile boots with.
func checkProfile(r io.ReaderAt, sections []SectionHeader, architecture string) error {
	linux, ok := sectionNamed(sections, ".linux")
	if !ok {
		return notUKI("it has no kernel: there is no section .linux")
	}
	limit, err := checkLinux(linux.Open(r), architecture)
	if err != nil {
		return fmt.Errorf("checking the section .linux: %w", err)
	}
	line, ok := sectionNamed(sections, ".cmdline")
	if !ok {
		return nil
	}
	if line.Size > maxCommandLine {
		return notUKI("the command line has %d bytes: the kernel takes %d at most", line.Size, limit)
	}
	text := make([]byte, line.Size)
	if _, err := io.ReadFull(line.Open(r), text); err != nil {
		return fmt.Errorf("reading the section .cmdline: %w", err)
	}
	// What ends a file of text and pads a section does no harm.
	return checkCommandLine(strings.TrimRight(string(text), "\x00 \t\r\n"), limit)
}

// checkLinux checks a UKI's kernel and returns the longest command line that it
// takes. There are stubs that boot a kernel without an EFI stub; none unpacks
// one.
func checkLinux(r *io.SectionReader, architecture string) (int, error) {
	info, err := Inspect(r, r.Size())
	switch {
	case r.Size() == 0:
		return 0, notUKI("it is empty")
	case err == nil && info.UKI:
		return 0, notUKI("it is a UKI itself, not a kernel")
	case err == nil && info.Architecture != architecture:
		return 0, fmt.Errorf("%w: the kernel is for %s, the stub for %s", ErrArchitecture, info.Architecture, architecture)
	case errors.Is(err, ErrNotPE):
		packed, err := compressed(r, r.Size())
		if err != nil {
			return 0, err
		}
		if packed {
			return 0, notUKI("%v, and no stub unpacks it", notPE(r, r.Size()))
		}
	case err != nil:
		return 0, err
	}
	return commandLineLimit(r, r.Size(), architecture)
}
