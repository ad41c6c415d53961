package uki

import (
	"cmp"
	"crypto"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	_ "crypto/sha256" // for crypto.SHA256.New
	_ "crypto/sha512" // for crypto.SHA384.New and crypto.SHA512.New
)

// Bounds of what is read of a certificate table. Firmware keeps a whole table in
// memory; one signature with its certificates and a time stamp has some 10 KB.
const (
	maxCertificateTable = 1 << 20 // bytes
	maxSignatures       = 16      // entries of a table
)

// The one kind of table entry that Authenticode knows: WIN_CERT_REVISION_2_0 and
// WIN_CERT_TYPE_PKCS_SIGNED_DATA.
const (
	entryHeaderSize  = 8 // of WIN_CERTIFICATE: length, revision, type
	entryAlignment   = 8
	entryRevision    = 0x0200
	entryTypeSigned  = 0x0002
	directoryEntries = 8 // bytes of an entry in the data directory: offset, size
)

// Hash returns the Authenticode SHA-256 of a PE file of size bytes: what a
// signature is made of, and what a hash in db or dbx is compared with (Microsoft,
// "Windows Authenticode Portable Executable Signature Format", "Calculating the PE
// Image Hash"). It covers all of the file but the checksum field, the data
// directory's entry of the certificate table and that table. A file that is not
// signed is hashed as if zeroes filled it up to a multiple of 8 bytes, since that
// is what Sign and other programs make of it first.
//
// Its error wraps ErrNotPE or ErrMalformed, or is an error of r.
func Hash(r io.ReaderAt, size int64) ([32]byte, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return [32]byte{}, err
	}
	c, err := h.coverage(size)
	if err != nil {
		return [32]byte{}, err
	}
	digests, err := c.digests(r, []crypto.Hash{crypto.SHA256})
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(digests[crypto.SHA256].padded), nil
}

// checksumOffset returns where in the file the CheckSum field is, 4 bytes long.
func (h *headers) checksumOffset() int64 { return h.coffOffset + coffHeaderSize + 64 }

// certificateEntry returns where in the file the data directory's entry of the
// certificate table is, 8 bytes long: offset and size of the table. It is false
// where the data directory ends before.
func (h *headers) certificateEntry() (int64, bool) {
	first := 112
	if h.magic() == magicPE32 {
		first = 96
	}
	count := binary.LittleEndian.Uint32(h.optional[first-4:])
	return h.coffOffset + coffHeaderSize + int64(first) + directoryEntries*certificateDirectory, count > certificateDirectory
}

// certificateRange returns where the certificate table is in a file of size bytes,
// and from = to = size where there is none. The table has to be the last thing in
// the file, quadword aligned, and behind what firmware loads.
func (h *headers) certificateRange(size int64) (from, to int64, err error) {
	entry, ok := h.certificateEntry()
	if !ok {
		return size, size, nil
	}
	within := entry - h.coffOffset - coffHeaderSize
	if within+directoryEntries > int64(len(h.optional)) {
		return 0, 0, malformed("its data directory ends beyond its optional header of %d bytes", len(h.optional))
	}
	from = int64(binary.LittleEndian.Uint32(h.optional[within:]))
	length := int64(binary.LittleEndian.Uint32(h.optional[within+4:]))
	if length == 0 {
		return size, size, nil
	}
	switch to = from + length; {
	case to > size:
		return 0, 0, malformed("its certificate table reaches byte %d, the file has %d", to, size)
	case to < size:
		return 0, 0, malformed("%d bytes follow its certificate table, which has to be the last thing in the file", size-to)
	case from%entryAlignment != 0:
		return 0, 0, malformed("its certificate table begins at byte %d, not at a multiple of %d", from, entryAlignment)
	case length > maxCertificateTable:
		return 0, 0, malformed("its certificate table has %d bytes, more than %d are not read", length, maxCertificateTable)
	}
	return from, to, nil
}

// span is a part of a file, from the first byte up to the one that is not in it.
type span struct{ from, to int64 }

// coverage is what the Authenticode hash of a file is made of.
type coverage struct {
	spans []span // in the order in which they are hashed
	body  int64  // the size of the file without its certificate table
	table span   // the certificate table, empty where the file has none
}

// coverage lists what is hashed of a file of size bytes. As the specification and
// firmware have it, sections come in the order of their offsets, whatever lies
// between them is left out, and the rest of the file begins at the sum of the
// sizes that were hashed: where a file has gaps between its sections, some bytes
// count twice and some not at all. Those are in no section and nothing loads them.
func (h *headers) coverage(size int64) (coverage, error) {
	from, to, err := h.certificateRange(size)
	if err != nil {
		return coverage{}, err
	}
	c := coverage{body: from, table: span{from, to}}
	sum := int64(h.sizeOfHeaders())
	if least := h.tableOffset() + int64(len(h.sections))*sectionHeaderSize; sum < least {
		return coverage{}, malformed("its headers are said to have %d bytes, but its section table ends at byte %d", sum, least)
	}
	at := h.checksumOffset()
	c.spans = append(c.spans, span{0, at})
	if entry, ok := h.certificateEntry(); ok {
		c.spans = append(c.spans, span{at + 4, entry})
		at = entry + directoryEntries - 4
	}
	c.spans = append(c.spans, span{at + 4, sum})
	end, what := sum, "the headers"
	for _, s := range h.inFileOrder() {
		if s.Offset < end {
			return coverage{}, malformed("section %q begins at byte %d, within %s", s.Name, s.Offset, what)
		}
		end, what = s.Offset+int64(s.rawSize), fmt.Sprintf("section %q", s.Name)
		c.spans = append(c.spans, span{s.Offset, end})
		sum += int64(s.rawSize)
	}
	if end > c.body {
		return coverage{}, malformed("%s reaches byte %d, beyond byte %d, where the certificate table or the end is", what, end, c.body)
	}
	c.spans = append(c.spans, span{sum, c.body})
	return c, nil
}

// inFileOrder returns the sections that have content, by offset.
func (h *headers) inFileOrder() []SectionHeader {
	sections := slices.Clone(h.sections)
	sections = slices.DeleteFunc(sections, func(s SectionHeader) bool { return s.rawSize == 0 })
	slices.SortStableFunc(sections, func(a, b SectionHeader) int { return cmp.Compare(a.Offset, b.Offset) })
	return sections
}

// imageDigest is the Authenticode hash of a file. As it is: what firmware computes
// of the file, padded: what a signature holds. They differ only for files that are
// not signed and whose size is not a multiple of 8.
type imageDigest struct{ asIs, padded []byte }

// padding returns how many zero bytes make a multiple of 8 of size.
func padding(size int64) int64 { return -size & (entryAlignment - 1) }

// digests reads what is hashed once, for all of these hash functions.
func (c coverage) digests(r io.ReaderAt, functions []crypto.Hash) (map[crypto.Hash]imageDigest, error) {
	var writers []io.Writer
	states := map[crypto.Hash]interface {
		io.Writer
		Sum([]byte) []byte
	}{}
	for _, f := range functions {
		if states[f] == nil {
			states[f] = f.New()
			writers = append(writers, states[f])
		}
	}
	all := io.MultiWriter(writers...)
	for _, s := range c.spans {
		if err := copySpan(all, r, s); err != nil {
			return nil, err
		}
	}
	digests := map[crypto.Hash]imageDigest{}
	for f, state := range states {
		d := imageDigest{asIs: state.Sum(nil)}
		_, _ = state.Write(make([]byte, padding(c.body))) // a hash never fails
		d.padded = state.Sum(nil)
		digests[f] = d
	}
	return digests, nil
}

// copySpan copies a part of a file.
func copySpan(w io.Writer, r io.ReaderAt, s span) error {
	n, err := io.Copy(w, io.NewSectionReader(r, s.from, s.to-s.from))
	if err != nil {
		return fmt.Errorf("reading a PE file: %w", err)
	}
	if n < s.to-s.from {
		return malformed("it is cut short: it ends at byte %d of %d", s.from+n, s.to)
	}
	return nil
}

// entry is one of a certificate table.
type entry struct {
	revision, kind uint16
	content        []byte // with padding, if its length counts that
}

// entries reads the certificate table.
func (c coverage) entries(r io.ReaderAt) ([]entry, error) {
	table := make([]byte, c.table.to-c.table.from)
	if err := readFull(r, table, c.table.from); err != nil {
		return nil, err
	}
	var all []entry
	for len(table) > 0 {
		if len(all) == maxSignatures {
			return nil, malformed("its certificate table has more than %d entries", maxSignatures)
		}
		e, rest, err := nextEntry(table)
		if err != nil {
			return nil, malformed("entry %d of its certificate table %v", len(all)+1, err)
		}
		all, table = append(all, e), rest
	}
	return all, nil
}

// nextEntry takes the first entry off a certificate table. Firmware refuses a file
// where one is longer than the rest of the table, padding included, or has nothing
// in it.
func nextEntry(table []byte) (entry, []byte, error) {
	if len(table) <= entryHeaderSize {
		return entry{}, nil, fmt.Errorf("is cut short: %d bytes are left", len(table))
	}
	length := int64(binary.LittleEndian.Uint32(table))
	if length <= entryHeaderSize {
		return entry{}, nil, fmt.Errorf("is %d bytes long, no more than its header", length)
	}
	padded := length + padding(length)
	if padded > int64(len(table)) {
		return entry{}, nil, fmt.Errorf("is %d bytes long with its padding, but %d are left", padded, len(table))
	}
	for _, b := range table[length:padded] {
		if b != 0 {
			return entry{}, nil, fmt.Errorf("is padded with something else than zeroes")
		}
	}
	return entry{
		revision: binary.LittleEndian.Uint16(table[4:]),
		kind:     binary.LittleEndian.Uint16(table[6:]),
		content:  table[entryHeaderSize:length],
	}, table[padded:], nil
}
