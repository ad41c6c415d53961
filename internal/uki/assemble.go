package uki

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Section is a section to add to a stub.
type Section struct {
	Name string // at most 8 bytes, such as .cmdline
	Data []byte
}

// Assemble adds sections to an EFI stub of any architecture, such as
// systemd's linuxx64.efi.stub, and returns the new file. A UKI wants .osrel,
// .cmdline, .initrd and .linux; the kernel comes last, as it may grow in
// memory when it unpacks itself. The error wraps ErrNotPE or ErrMalformed
// (about the stub) or ErrNoRoom; it is another one when a name does not fit,
// the stub is signed, or the result would not fit in 4 GiB.
func Assemble(stub []byte, sections ...Section) ([]byte, error) {
	h, err := readHeaders(bytes.NewReader(stub), int64(len(stub)))
	if err != nil {
		return nil, fmt.Errorf("reading the stub: %w", err)
	}
	if h.signed() {
		return nil, fmt.Errorf("the stub is signed: what is added to it would break the signature")
	}
	if err := checkRoom(h, stub, len(sections)); err != nil {
		return nil, err
	}
	total := len(stub)
	for _, s := range sections {
		total += len(s.Data) + int(h.fileAlignment())
	}
	a := &assembly{headers: h, out: append(make([]byte, 0, total), stub...)}
	for _, s := range h.sections {
		a.end = max(a.end, uint64(s.VirtualAddress)+uint64(s.virtualSize))
	}
	for _, s := range sections {
		if err := a.add(s); err != nil {
			return nil, err
		}
	}
	return a.finish(), nil
}

// checkRoom makes sure that n more section headers fit between the table and
// the first section's content, and that nothing else lies there.
func checkRoom(h *headers, stub []byte, n int) error {
	limit := int64(h.sizeOfHeaders())
	for _, s := range h.sections {
		if s.rawSize > 0 {
			limit = min(limit, s.Offset)
		}
	}
	from := h.tableOffset() + int64(len(h.sections))*sectionHeaderSize
	to := from + int64(n)*sectionHeaderSize
	if to > limit || to > int64(len(stub)) || len(h.sections)+n > maxSections {
		return fmt.Errorf("%w: %d wanted, %d fit", ErrNoRoom, n, max(0, (limit-from)/sectionHeaderSize))
	}
	if !filler(stub[from:to]) {
		return fmt.Errorf("%w: the space after the section table is in use", ErrNoRoom)
	}
	return nil
}

// filler tells whether b is one word over and over: zeroes, or the NOP that
// assemblers align the code of arm64 stubs with.
func filler(b []byte) bool {
	return len(b) < 4 || bytes.Equal(b[4:], b[:len(b)-4])
}

// assembly is a PE file that grows.
type assembly struct {
	*headers
	out   []byte
	end   uint64 // of the image in memory
	added uint32 // bytes of file content
	count int    // of sections added
}

func (a *assembly) add(s Section) error {
	if s.Name == "" || len(s.Name) > 8 {
		return fmt.Errorf("a section's name has 1 to 8 bytes, %q has %d", s.Name, len(s.Name))
	}
	address := alignUp(a.end, uint64(a.sectionAlignment()))
	offset := alignUp(uint64(len(a.out)), uint64(a.fileAlignment()))
	raw := alignUp(uint64(len(s.Data)), uint64(a.fileAlignment()))
	if address+raw > math.MaxUint32-uint64(a.sectionAlignment()) || offset+raw > math.MaxUint32 {
		return fmt.Errorf("section %s does not fit: a PE file ends at 4 GiB", s.Name)
	}
	a.out = append(a.out, make([]byte, offset-uint64(len(a.out)))...)
	a.out = append(a.out, s.Data...)
	a.out = append(a.out, make([]byte, raw-uint64(len(s.Data)))...)

	le := binary.LittleEndian
	header := a.out[a.tableOffset()+int64(len(a.sections)+a.count)*sectionHeaderSize:][:sectionHeaderSize]
	clear(header)
	copy(header, s.Name)
	le.PutUint32(header[8:], uint32(len(s.Data)))
	le.PutUint32(header[12:], uint32(address))
	le.PutUint32(header[16:], uint32(raw))
	le.PutUint32(header[20:], uint32(offset))
	le.PutUint32(header[36:], 0x40000040) // readable, initialized data
	a.end = address + uint64(len(s.Data))
	a.added += uint32(raw)
	a.count++
	return nil
}

// finish writes the counts and sizes that the new sections changed.
func (a *assembly) finish() []byte {
	le := binary.LittleEndian
	optional := a.out[a.coffOffset+coffHeaderSize:]
	le.PutUint16(a.out[a.coffOffset+6:], uint16(len(a.sections)+a.count))
	le.PutUint32(optional[8:], le.Uint32(optional[8:])+a.added) // SizeOfInitializedData
	le.PutUint32(optional[56:], uint32(alignUp(a.end, uint64(a.sectionAlignment()))))
	le.PutUint32(optional[64:], 0) // CheckSum: not checked for EFI applications
	return a.out
}

func alignUp(v, alignment uint64) uint64 { return (v + alignment - 1) &^ (alignment - 1) }
