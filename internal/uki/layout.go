package uki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// What differs from machine to machine in a composed UKI, in bytes: a piece of its
// initrd, and its command line.
const (
	SlotSize        = 32 << 10
	CommandLineSize = 4 << 10
	tailSize        = SlotSize + CommandLineSize
)

// MaxStub bounds the stub of a composed UKI, in bytes; systemd's have some 100 KiB.
const MaxStub = 4 << 20

// Layout says what lies where in a composed UKI:
//
//	the stub's headers and sections │ .linux │ .initrd: initrds, slot │ .cmdline │ certificates
//	└──────────── the same for every machine ──────────────┘└────── its own ──────┘
//
// In memory the sections lie as Build would have them, .linux last. In the file what
// differs from machine to machine is at the end, so that the states of hashes of
// everything before can be kept; and the kernel's and the initrds' bytes are not
// part of a Layout, so that they can stay where they are. A Layout is not changed
// once it is made.
type Layout struct {
	// Architecture is that of the stub, named as in Info.
	Architecture string
	// MaxCommandLine is the longest command line that the kernel takes, in bytes.
	MaxCommandLine int
	// Parts are the kernel and then the initrds. What lies between them is zero, and
	// less than CommandLineSize.
	Parts []Extent
	// Tail is where the bytes begin that differ from machine to machine.
	Tail int64
	// Size of the file without its certificate table, in bytes; a multiple of 8.
	Size int64

	head []byte // up to the kernel
	// checksum and certificates are where two fields of the headers lie that
	// Authenticode leaves out.
	checksum, certificates int64
}

// Extent is where a part lies in a file, in bytes.
type Extent struct{ Offset, Size int64 }

// NewLayout lays out the UKI that is composed around a stub, of a kernel, of which
// the headers are read, and of initrds of these sizes. The stub's .sbat gets the
// kernel's entries, as in Build. The errors are those of Build, and ErrNotUKI for a
// stub with a section .pcrsig: that signs the measurements of one UKI, and no other.
func NewLayout(stub []byte, linux Input, initrds ...int64) (*Layout, error) {
	if len(stub) > MaxStub {
		return nil, notUKI("the stub has %d bytes, more than %d", len(stub), MaxStub)
	}
	m, err := openStub(stub)
	if err != nil {
		return nil, err
	}
	architecture, err := m.checkComposable()
	if err != nil {
		return nil, fmt.Errorf("checking the stub: %w", err)
	}
	k, err := openKernel(linux, architecture)
	if err != nil {
		return nil, fmt.Errorf("checking the kernel: %w", err)
	}
	l := &Layout{Architecture: architecture, MaxCommandLine: min(k.commandLine, CommandLineSize-1), checksum: m.checksumOffset()}
	l.certificates, _ = m.certificateEntry() // checkComposable has seen that there is one
	return l, l.layOut(m, k, linux.Size, initrds)
}

// checkComposable makes sure that a UKI can be composed around the stub, and returns
// its architecture.
func (m *image) checkComposable() (string, error) {
	architecture, err := m.checkStub()
	if err != nil {
		return "", err
	}
	if _, ok := sectionNamed(m.sections, ".pcrsig"); ok {
		return "", notUKI("it has a section .pcrsig, which signs the measurements of another UKI: take a stub without it")
	}
	if _, ok := m.certificateEntry(); !ok {
		return "", fmt.Errorf("%w: its data directory ends before the entry of the certificate table", ErrNoRoom)
	}
	if a := m.fileAlignment(); a < entryAlignment || a > CommandLineSize {
		return "", malformed("its sections are aligned to %d bytes in the file; %d to %d can be", a, entryAlignment, CommandLineSize)
	}
	return architecture, nil
}

// layOut places everything, in memory and in the file, and writes the headers.
func (l *Layout) layOut(m *image, k kernel, linux int64, initrds []int64) error {
	alignment := int64(m.fileAlignment())
	inside, initrdSize, err := placeInitrds(initrds, alignment)
	if err != nil {
		return err
	}
	sized := func(name string, size int64) *part { return &part{name: name, content: []Input{{Size: size}}} }
	initrd, commandLine, kernel := sized(".initrd", initrdSize+SlotSize), sized(".cmdline", CommandLineSize), sized(".linux", linux)
	kernel.memory, kernel.code = k.memory, true
	parts := []*part{initrd, commandLine, kernel} // in the order of memory
	inFile := []*part{kernel, initrd, commandLine}
	sbat := mergeSBAT(m.text(".sbat"), k.sbat)
	if sbat != "" && !m.replace(".sbat", []byte(sbat)) {
		p := sized(".sbat", int64(len(sbat)))
		parts, inFile = append([]*part{p}, parts...), append([]*part{p}, inFile...)
	} else {
		sbat = ""
	}

	if err := m.makeRoom(len(parts)); err != nil {
		return err
	}
	m.parts = parts
	end, err := m.placeInMemory()
	if err != nil {
		return err
	}
	at := int64(len(m.head))
	for _, p := range inFile {
		p.offset = at
		at += alignUp(p.size(), alignment)
	}
	if at > math.MaxUint32 {
		return notUKI("it would have %d bytes: a PE file ends at 4 GiB", at)
	}
	m.writeHeaders(end)
	if first, _ := m.headerLimits(); first != int64(m.sizeOfHeaders()) {
		return malformed("the stub's headers end at byte %d, its sections begin at %d: Authenticode hashes nothing in between", m.sizeOfHeaders(), first)
	}

	l.head = make([]byte, kernel.offset)
	copy(l.head[copy(l.head, m.head):], sbat)
	l.Parts = append(l.Parts, Extent{kernel.offset, linux})
	for _, e := range inside {
		l.Parts = append(l.Parts, Extent{initrd.offset + e.Offset, e.Size})
	}
	l.Tail, l.Size = initrd.offset+initrdSize, at
	return nil
}

// placeInitrds places initrds in their section, each from a multiple of 4 bytes on,
// where the kernel looks for the next; size is that of all of them, up to where the
// slot begins.
func placeInitrds(sizes []int64, alignment int64) (all []Extent, size int64, err error) {
	for n, s := range sizes {
		if s < 0 || s > maxSection {
			return nil, 0, notUKI("initrd %d of %d has %d bytes: less than 2 GiB fit", n+1, len(sizes), s)
		}
		all = append(all, Extent{size, s})
		size = alignUp(size+s, 4)
	}
	return all, alignUp(size, alignment), nil
}

// Head returns the first bytes of a file whose certificate table has this many
// bytes, 0 for none, in pieces: all of it up to Parts[0]. They are shared and must
// not be changed.
func (l *Layout) Head(table int) [3][]byte {
	entry := make([]byte, directoryEntries)
	if table > 0 {
		binary.LittleEndian.PutUint32(entry, uint32(l.Size))
		binary.LittleEndian.PutUint32(entry[4:], uint32(table))
	}
	return [3][]byte{l.head[:l.certificates], entry, l.head[l.certificates+directoryEntries:]}
}

// HashHead writes to w what Authenticode hashes of the head; see Hash.
func (l *Layout) HashHead(w io.Writer) error {
	var failed error
	for _, piece := range [][]byte{l.head[:l.checksum], l.head[l.checksum+4 : l.certificates], l.head[l.certificates+directoryEntries:]} {
		_, err := w.Write(piece)
		failed = errors.Join(failed, err)
	}
	return failed
}

// NewTail returns the bytes of a UKI from Tail on, without its certificate table.
// Slot and command line are padded with zeroes, which end what Linux unpacks of the
// one and what stubs read of the other. The error wraps ErrNotUKI.
func (l *Layout) NewTail(slot []byte, commandLine string) ([]byte, error) {
	if len(slot) > SlotSize {
		return nil, notUKI("what the machine is told in its initrd has %d bytes: %d fit", len(slot), SlotSize)
	}
	if err := checkCommandLine(commandLine, l.MaxCommandLine); err != nil {
		return nil, err
	}
	tail := make([]byte, tailSize)
	copy(tail, slot)
	copy(tail[SlotSize:], commandLine)
	return tail, nil
}
