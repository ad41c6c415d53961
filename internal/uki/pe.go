package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Offsets and sizes of the PE/COFF specification that this package uses.
const (
	dosHeaderSize     = 64
	peOffsetField     = 0x3c // in the DOS header: where "PE\0\0" is
	coffHeaderSize    = 24   // with the signature
	sectionHeaderSize = 40
	maxSections       = 4096 // PE allows 65535; a UKI with a hundred device trees has some 110
	maxOptionalHeader = 4096

	maxFileAlignment = 64 << 10
	maxDirectories   = 16

	magicPE32     = 0x10b
	magicPE32Plus = 0x20b

	// Indexes of data directories.
	certificateDirectory = 4 // signatures; its address is an offset in the file
	debugDirectory       = 6
)

// headers is what is read of a PE file: never more than maxOptionalHeader
// plus maxSections section headers, whatever the file claims.
type headers struct {
	coffOffset int64  // of the signature
	coff       []byte // signature and COFF header
	optional   []byte
	sections   []SectionHeader
}

// readHeaders parses the headers of a PE file of size bytes. Its error wraps
// ErrNotPE or ErrMalformed, or is an error of r. Nothing is read from beyond
// size.
func readHeaders(r io.ReaderAt, size int64) (*headers, error) {
	r = io.NewSectionReader(r, 0, size)
	offset, err := findCOFF(r, size)
	if err != nil {
		return nil, err
	}
	h := &headers{coffOffset: offset, coff: make([]byte, coffHeaderSize)}
	if err := readFull(r, h.coff, offset); err != nil {
		return nil, err
	}
	optionalSize := int(binary.LittleEndian.Uint16(h.coff[20:]))
	if optionalSize < 2 || optionalSize > maxOptionalHeader {
		return nil, malformed("its optional header has %d bytes", optionalSize)
	}
	h.optional = make([]byte, optionalSize)
	if err := readFull(r, h.optional, offset+coffHeaderSize); err != nil {
		return nil, err
	}
	if err := h.checkOptional(); err != nil {
		return nil, err
	}
	return h, h.readSections(r, size)
}

// findCOFF returns the offset of the PE signature.
func findCOFF(r io.ReaderAt, size int64) (int64, error) {
	dos := make([]byte, dosHeaderSize)
	n, err := readSome(r, dos, size)
	if err != nil {
		return 0, err
	}
	if n < dosHeaderSize || !bytes.HasPrefix(dos, []byte("MZ")) {
		return 0, notPE(r, size)
	}
	offset := int64(binary.LittleEndian.Uint32(dos[peOffsetField:]))
	if offset+coffHeaderSize > size {
		return 0, notPE(r, size)
	}
	signature := make([]byte, 4)
	if err := readFull(r, signature, offset); err != nil {
		return 0, err
	}
	if string(signature) != "PE\x00\x00" {
		return 0, notPE(r, size)
	}
	return offset, nil
}

func (h *headers) magic() uint16 { return binary.LittleEndian.Uint16(h.optional) }

func (h *headers) machine() uint16 { return binary.LittleEndian.Uint16(h.coff[4:]) }

func (h *headers) subsystem() uint16 { return binary.LittleEndian.Uint16(h.optional[68:]) }

func (h *headers) sectionAlignment() uint32 { return binary.LittleEndian.Uint32(h.optional[32:]) }

func (h *headers) fileAlignment() uint32 { return binary.LittleEndian.Uint32(h.optional[36:]) }

func (h *headers) sizeOfImage() uint32 { return binary.LittleEndian.Uint32(h.optional[56:]) }

func (h *headers) sizeOfHeaders() uint32 { return binary.LittleEndian.Uint32(h.optional[60:]) }

func (h *headers) tableOffset() int64 {
	return h.coffOffset + coffHeaderSize + int64(len(h.optional))
}

func (h *headers) tableEnd() int64 {
	return h.tableOffset() + int64(len(h.sections))*sectionHeaderSize
}

func (h *headers) entryPoint() uint32 { return binary.LittleEndian.Uint32(h.optional[16:]) }

// firstDirectory is the offset of the data directories in the optional header.
func (h *headers) firstDirectory() int {
	if h.magic() == magicPE32 {
		return 96
	}
	return 112
}

// directories is how many data directories the file claims to have.
func (h *headers) directories() uint32 {
	return binary.LittleEndian.Uint32(h.optional[h.firstDirectory()-4:])
}

// directorySize returns the size of what a data directory points to, 0 where
// there is none.
func (h *headers) directorySize(index int) uint32 {
	at := h.firstDirectory() + 8*index
	if uint32(index) >= h.directories() || at+8 > len(h.optional) {
		return 0
	}
	return binary.LittleEndian.Uint32(h.optional[at+4:])
}

// signed tells whether the data directory of certificates is in use.
func (h *headers) signed() bool { return h.directorySize(certificateDirectory) > 0 }

func (h *headers) checkOptional() error {
	least := 112
	switch h.magic() {
	case magicPE32Plus:
	case magicPE32:
		least = 96
	default:
		return malformed("its optional header has magic %#x, neither PE32 nor PE32+", h.magic())
	}
	if len(h.optional) < least {
		return malformed("its optional header has only %d bytes", len(h.optional))
	}
	if !powerOfTwo(h.sectionAlignment()) || !powerOfTwo(h.fileAlignment()) {
		return malformed("its alignments are %d and %d, not powers of two", h.sectionAlignment(), h.fileAlignment())
	}
	if h.fileAlignment() > maxFileAlignment {
		return malformed("its alignment in the file is %d bytes, more than %d", h.fileAlignment(), maxFileAlignment)
	}
	return nil
}

func (h *headers) readSections(r io.ReaderAt, size int64) error {
	count := int(binary.LittleEndian.Uint16(h.coff[6:]))
	if count == 0 || count > maxSections {
		return malformed("it has %d sections", count)
	}
	table := make([]byte, count*sectionHeaderSize)
	if err := readFull(r, table, h.tableOffset()); err != nil {
		return err
	}
	for ; len(table) > 0; table = table[sectionHeaderSize:] {
		s := parseSection(table)
		if end := s.fileEnd(); s.rawSize > 0 && end > size {
			return malformed("it is cut short: section %q reaches byte %d, the file has %d", s.Name, end, size)
		}
		if s.addressEnd() > int64(h.sizeOfImage()) {
			return malformed("section %q reaches beyond the image's %d bytes", s.Name, h.sizeOfImage())
		}
		h.sections = append(h.sections, s)
	}
	return nil
}

func parseSection(b []byte) SectionHeader {
	le := binary.LittleEndian
	name, _, _ := bytes.Cut(b[:8], []byte{0})
	s := SectionHeader{
		Name:           string(name),
		VirtualAddress: le.Uint32(b[12:]),
		Offset:         int64(le.Uint32(b[20:])),
		virtualSize:    le.Uint32(b[8:]),
		rawSize:        le.Uint32(b[16:]),
	}
	s.Size = int64(min(s.virtualSize, s.rawSize))
	if s.virtualSize == 0 { // as some old linkers leave it
		s.Size = int64(s.rawSize)
	}
	return s
}

// memory is how many bytes the section takes once loaded.
func (s SectionHeader) memory() int64 {
	if s.virtualSize == 0 {
		return int64(s.rawSize)
	}
	return int64(s.virtualSize)
}

// addressEnd is the first address after the section.
func (s SectionHeader) addressEnd() int64 { return int64(s.VirtualAddress) + s.memory() }

// fileEnd is the offset of the first byte after the section's padding.
func (s SectionHeader) fileEnd() int64 { return s.Offset + int64(s.rawSize) }

func powerOfTwo(v uint32) bool { return v != 0 && v&(v-1) == 0 }

// readFull reads len(b) bytes at offset; a file that ends before is malformed.
func readFull(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("it is cut short: it ends within its headers")
	}
	return fmt.Errorf("reading a PE file's headers: %w", err)
}

// readSome reads up to len(b) of the first size bytes.
func readSome(r io.ReaderAt, b []byte, size int64) (int, error) {
	b = b[:max(0, min(int64(len(b)), size))]
	n, err := r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) && n < len(b) {
		return n, fmt.Errorf("reading a file's first bytes: %w", err)
	}
	return n, nil
}
