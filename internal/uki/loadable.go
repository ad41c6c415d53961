package uki

import (
	"cmp"
	"slices"
)

// maxSection bounds a section's content and memory, in bytes. Firmware and the
// tools that sign hold sizes in signed 32-bit numbers.
const maxSection = 2<<30 - 1

// checkLoadable holds the headers of a file of size bytes to what EDK2's loader
// demands before it loads an image, and refuses sections that overlap: what a
// loader makes of those is left to it. Its error wraps ErrMalformed.
func (h *headers) checkLoadable(size int64) error {
	if count := h.directories(); count > maxDirectories || h.firstDirectory()+8*int(count) != len(h.optional) {
		return malformed("it claims %d data directories in an optional header of %d bytes", count, len(h.optional))
	}
	end := int64(h.sizeOfHeaders())
	if end < h.tableEnd() || end > size || end >= int64(h.sizeOfImage()) {
		return malformed("its headers claim %d bytes: their table ends at %d, the file at %d, the image in memory at %d",
			end, h.tableEnd(), size, h.sizeOfImage())
	}
	for _, s := range h.sections {
		if err := h.checkSection(s); err != nil {
			return err
		}
	}
	if err := checkOverlaps(h.sections); err != nil {
		return err
	}
	if !slices.ContainsFunc(h.sections, func(s SectionHeader) bool {
		return h.entryPoint() >= s.VirtualAddress && int64(h.entryPoint()) < s.addressEnd()
	}) {
		return malformed("its entry point %#x lies in none of its sections", h.entryPoint())
	}
	return h.checkCertificates(size)
}

func (h *headers) checkSection(s SectionHeader) error {
	if s.rawSize > maxSection || s.memory() > maxSection {
		return malformed("section %q has %d bytes, and %d in memory: a section has less than 2 GiB", s.Name, s.rawSize, s.memory())
	}
	if s.rawSize > 0 && s.Offset < int64(h.sizeOfHeaders()) {
		return malformed("section %q begins at byte %d, within the headers' %d", s.Name, s.Offset, h.sizeOfHeaders())
	}
	if s.memory() > 0 && s.VirtualAddress < h.sizeOfHeaders() {
		return malformed("section %q begins at address %#x, within the headers' %d bytes", s.Name, s.VirtualAddress, h.sizeOfHeaders())
	}
	return nil
}

// checkOverlaps makes sure that no byte of the file or of memory belongs to two
// sections.
func checkOverlaps(sections []SectionHeader) error {
	inFile := slices.DeleteFunc(slices.Clone(sections), func(s SectionHeader) bool { return s.rawSize == 0 })
	slices.SortStableFunc(inFile, func(a, b SectionHeader) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := range max(0, len(inFile)-1) {
		if a, b := inFile[i], inFile[i+1]; a.fileEnd() > b.Offset {
			return malformed("sections %q and %q overlap in the file: one ends at byte %d, the other begins at %d", a.Name, b.Name, a.fileEnd(), b.Offset)
		}
	}
	inMemory := slices.DeleteFunc(slices.Clone(sections), func(s SectionHeader) bool { return s.memory() == 0 })
	slices.SortStableFunc(inMemory, func(a, b SectionHeader) int { return cmp.Compare(a.VirtualAddress, b.VirtualAddress) })
	for i := range max(0, len(inMemory)-1) {
		if a, b := inMemory[i], inMemory[i+1]; a.addressEnd() > int64(b.VirtualAddress) {
			return malformed("sections %q and %q overlap in memory: one ends at %#x, the other begins at %#x", a.Name, b.Name, a.addressEnd(), b.VirtualAddress)
		}
	}
	return nil
}

// checkCertificates makes sure that the table of signatures ends the file, as
// Authenticode wants it; of what it holds nothing is said.
func (h *headers) checkCertificates(size int64) error {
	from, _, err := h.certificateRange(size)
	if err != nil {
		return err
	}
	for _, s := range h.sections {
		if s.rawSize > 0 && s.fileEnd() > from {
			return malformed("section %q ends at byte %d, within the certificate table, which begins at %d", s.Name, s.fileEnd(), from)
		}
	}
	return nil
}
