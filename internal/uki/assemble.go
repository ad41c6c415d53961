package uki

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Characteristics of the sections that are added.
const (
	readableData = 0x40000040
	readableCode = 0x40000020

	symbolsStripped = 0x0008 // of the file
)

// Section is a section to add to a stub.
type Section struct {
	Name string // at most 8 bytes, such as .cmdline
	Data []byte
}

// Assemble adds sections to an EFI stub of any architecture, such as
// systemd's linuxx64.efi.stub, and returns the new file. It puts together
// whatever it is given; Build makes UKIs. The error wraps ErrNotPE or
// ErrMalformed (about the stub), ErrNoRoom, or ErrNotUKI when a name does not
// fit, the stub is signed, or the result would not fit in 4 GiB.
func Assemble(stub []byte, sections ...Section) ([]byte, error) {
	m, err := openStub(stub)
	if err != nil {
		return nil, err
	}
	var parts []*part
	for _, s := range sections {
		parts = append(parts, s.part())
	}
	if err := m.layOut(parts); err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(make([]byte, 0, m.size))
	err = m.write(out)
	return out.Bytes(), err
}

func (s Section) part() *part {
	return &part{name: s.Name, content: []Input{{bytes.NewReader(s.Data), int64(len(s.Data))}}}
}

// part is a section in the making.
type part struct {
	name    string
	content []Input // one after the other
	memory  int64   // bytes once loaded, where those are more than the content
	code    bool

	offset, address int64 // where layOut put it
}

func (p *part) size() int64 {
	var size int64
	for _, c := range p.content {
		size += c.Size
	}
	return size
}

// image is a PE file in the making.
type image struct {
	*headers
	head  []byte  // the stub up to the end of its last section
	parts []*part // what follows it
	size  int64   // of the whole file, in bytes; set by layOut
}

// openStub reads a stub to which sections are to be added. What follows its
// last section, such as a table of symbols, no firmware loads; it is left out,
// because Authenticode's hash skips bytes where a file has gaps between
// sections.
func openStub(stub []byte) (*image, error) {
	h, err := readHeaders(bytes.NewReader(stub), int64(len(stub)))
	if err != nil {
		return nil, fmt.Errorf("reading the stub: %w", err)
	}
	if h.signed() {
		return nil, notUKI("the stub is signed: what is added to it would break the signature")
	}
	if err := h.checkLoadable(int64(len(stub))); err != nil {
		return nil, fmt.Errorf("reading the stub: %w", err)
	}
	end := int64(h.sizeOfHeaders())
	for _, s := range h.sections {
		if s.rawSize > 0 {
			end = max(end, s.fileEnd())
		}
	}
	m := &image{headers: h, head: bytes.Clone(stub[:end])}
	le := binary.LittleEndian
	if symbols := m.head[h.coffOffset+12:]; le.Uint32(symbols) != 0 {
		clear(symbols[:8])
		flags := m.head[h.coffOffset+22:]
		le.PutUint16(flags, le.Uint16(flags)|symbolsStripped)
	}
	m.closeGaps()
	return m, nil
}

// closeGaps makes each section's content reach to that of the next, the last
// one's to the file's alignment, and the headers to the first: some stubs that
// were stripped leave gaps.
func (m *image) closeGaps() {
	le := binary.LittleEndian
	pad := alignUp(int64(len(m.head)), int64(m.fileAlignment())) - int64(len(m.head))
	m.head = append(m.head, make([]byte, pad)...)
	next := int64(len(m.head))
	for _, k := range slices.Backward(m.inFile()) {
		s := &m.sections[k]
		clear(m.head[s.fileEnd():next])
		s.virtualSize, s.rawSize = uint32(s.memory()), uint32(next-s.Offset)
		le.PutUint32(m.header(k)[8:], s.virtualSize)
		le.PutUint32(m.header(k)[16:], s.rawSize)
		next = s.Offset
	}
	if first, limit := m.headerLimits(); min(first, limit) > int64(m.sizeOfHeaders()) {
		m.setSizeOfHeaders(min(first, limit))
	}
}

// inFile returns the indexes of the sections that have content, in its order.
func (m *image) inFile() []int {
	var all []int
	for k, s := range m.sections {
		if s.rawSize > 0 {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b int) int { return cmp.Compare(m.sections[a].Offset, m.sections[b].Offset) })
	return all
}

func (m *image) setSizeOfHeaders(size int64) {
	binary.LittleEndian.PutUint32(m.optional[60:], uint32(size))
	copy(m.head[m.coffOffset+coffHeaderSize:], m.optional[:64])
}

// header is the k-th header in the section table.
func (m *image) header(k int) []byte {
	return m.head[m.tableOffset()+int64(k)*sectionHeaderSize:][:sectionHeaderSize]
}

// replace writes content over that of the stub's section of that name, and
// tells whether it fitted. Where it does not, the section gets another name:
// nothing that lies behind it can be moved, so the new one is to be added.
func (m *image) replace(name string, content []byte) bool {
	k := slices.IndexFunc(m.sections, func(s SectionHeader) bool { return s.Name == name })
	if k < 0 {
		return false
	}
	s := &m.sections[k]
	room := int64(s.rawSize)
	for _, other := range m.sections {
		if other.VirtualAddress > s.VirtualAddress {
			room = min(room, int64(other.VirtualAddress-s.VirtualAddress))
		}
	}
	header := m.header(k)
	if int64(len(content)) > room || len(content) == 0 {
		s.Name = ".old" + name[1:min(len(name), 5)]
		clear(header[:8])
		copy(header[:8], s.Name)
		return false
	}
	clear(m.head[s.Offset:s.fileEnd()])
	copy(m.head[s.Offset:], content)
	s.virtualSize, s.Size = uint32(len(content)), int64(len(content))
	binary.LittleEndian.PutUint32(header[8:], s.virtualSize)
	return true
}

// layOut gives each part its place, in their order, and writes the headers for
// them.
func (m *image) layOut(parts []*part) error {
	if err := m.makeRoom(len(parts)); err != nil {
		return err
	}
	m.parts = parts
	address, err := m.placeInMemory()
	if err != nil {
		return err
	}
	if err := m.placeInFile(); err != nil {
		return err
	}
	m.writeHeaders(address)
	return nil
}

// makeRoom makes sure that n more headers fit behind the section table, if need
// be by moving the content of the stub's sections back in the file. Memory has
// to have room for the larger headers.
func (m *image) makeRoom(n int) error {
	first, limit := m.headerLimits()
	want := min(limit, m.tableEnd()+int64(n)*sectionHeaderSize)
	if want > first {
		shift := alignUp(want-first, int64(m.fileAlignment()))
		m.shift(first, shift)
		first += shift
	}
	if want > int64(m.sizeOfHeaders()) {
		m.setSizeOfHeaders(min(first, limit))
	}
	return checkRoom(m.headers, m.head, n)
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
	from := h.tableEnd()
	to := from + int64(n)*sectionHeaderSize
	if to > limit || to > int64(len(stub)) || len(h.sections)+n > maxSections {
		return fmt.Errorf("%w: %d wanted, %d fit", ErrNoRoom, n, max(0, (limit-from)/sectionHeaderSize))
	}
	if !filler(stub[from:to]) {
		return fmt.Errorf("%w: the space after the section table is in use", ErrNoRoom)
	}
	return nil
}

// headerLimits returns where the first section's content begins in the file,
// and how long the headers may become.
func (m *image) headerLimits() (first, limit int64) {
	first, lowest := int64(len(m.head)), int64(m.sizeOfImage())
	for _, s := range m.sections {
		lowest = min(lowest, int64(s.VirtualAddress))
		if s.rawSize > 0 {
			first = min(first, s.Offset)
		}
	}
	if m.directorySize(debugDirectory) > 0 || lowest <= first { // a debug directory points into the file
		return first, min(first, lowest)
	}
	return first, first + (lowest-first)&^(int64(m.fileAlignment())-1)
}

// shift moves all content from offset first on back in the file.
func (m *image) shift(first, by int64) {
	m.head = slices.Insert(m.head, int(first), make([]byte, by)...)
	for k := range m.sections {
		if s := &m.sections[k]; s.rawSize > 0 {
			s.Offset += by
			binary.LittleEndian.PutUint32(m.header(k)[20:], uint32(s.Offset))
		}
	}
}

// filler tells whether b is one word over and over: zeroes, or the NOP that
// assemblers align the code of arm64 stubs with.
func filler(b []byte) bool {
	return len(b) < 4 || bytes.Equal(b[4:], b[:len(b)-4])
}

// placeInMemory gives the parts their addresses, and returns the image's end.
func (m *image) placeInMemory() (int64, error) {
	var end int64
	for _, s := range m.sections {
		end = max(end, s.addressEnd())
	}
	for _, p := range m.parts {
		if err := checkName(p.name); err != nil {
			return 0, err
		}
		size := max(p.size(), p.memory)
		if size > maxSection {
			return 0, notUKI("section %s has %d bytes: a section has less than 2 GiB", p.name, size)
		}
		p.address = alignUp(end, int64(m.sectionAlignment()))
		end = p.address + max(1, size) // no two sections at one address
		if alignUp(end, int64(m.sectionAlignment())) > math.MaxUint32 {
			return 0, notUKI("section %s does not fit: a PE image ends at 4 GiB", p.name)
		}
	}
	return end, nil
}

func checkName(name string) error {
	if name == "" || len(name) > 8 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return notUKI("a section's name has 1 to 8 printable ASCII characters, not %q", name)
	}
	if name[0] == '/' { // in objects, the place of a longer one
		return notUKI("a section's name does not begin with a slash, as %q", name)
	}
	return nil
}

// placeInFile gives the parts their offsets.
func (m *image) placeInFile() error {
	m.size = int64(len(m.head))
	for _, p := range m.parts {
		p.offset = m.size
		m.size += alignUp(p.size(), int64(m.fileAlignment()))
		if m.size > math.MaxUint32 {
			return notUKI("section %s does not fit: a PE file ends at 4 GiB", p.name)
		}
	}
	return nil
}

// writeHeaders writes the parts' headers, and the counts and sizes that they
// change, for an image that ends at address end.
func (m *image) writeHeaders(end int64) {
	le := binary.LittleEndian
	optional := m.head[m.coffOffset+coffHeaderSize:]
	initialized := le.Uint32(optional[8:])
	for k, p := range m.parts {
		raw := uint32(alignUp(p.size(), int64(m.fileAlignment())))
		header := m.header(len(m.sections) + k)
		clear(header)
		copy(header, p.name)
		le.PutUint32(header[8:], uint32(max(p.size(), p.memory)))
		le.PutUint32(header[12:], uint32(p.address))
		le.PutUint32(header[16:], raw)
		le.PutUint32(header[20:], uint32(p.offset))
		le.PutUint32(header[36:], readableData)
		if p.code {
			le.PutUint32(header[36:], readableCode)
		}
		initialized += raw
	}
	le.PutUint16(m.head[m.coffOffset+6:], uint16(len(m.sections)+len(m.parts)))
	le.PutUint32(optional[8:], initialized)
	le.PutUint32(optional[56:], uint32(alignUp(end, int64(m.sectionAlignment()))))
	le.PutUint32(optional[64:], 0) // CheckSum: not checked for EFI applications
}

// write writes the file.
func (m *image) write(w io.Writer) error {
	if _, err := w.Write(m.head); err != nil {
		return err
	}
	for _, p := range m.parts {
		for _, c := range p.content {
			if err := c.copyTo(w); err != nil {
				return fmt.Errorf("writing section %s: %w", p.name, err)
			}
		}
		pad := alignUp(p.size(), int64(m.fileAlignment())) - p.size()
		if _, err := w.Write(make([]byte, pad)); err != nil {
			return err
		}
	}
	return nil
}

// copyTo writes all of the input.
func (i Input) copyTo(w io.Writer) error {
	n, err := io.Copy(w, io.NewSectionReader(i.R, 0, i.Size))
	if err == nil && n < i.Size {
		return fmt.Errorf("it has only %d of the %d bytes that were announced: %w", n, i.Size, io.ErrUnexpectedEOF)
	}
	return err
}

func alignUp(v, alignment int64) int64 { return (v + alignment - 1) &^ (alignment - 1) }
