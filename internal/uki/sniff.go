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

// sniffSize reaches the volume descriptor of an ISO 9660 file system.
const sniffSize = 0x8006

// signature is a kind of file that people push by mistake.
type signature struct {
	offset int
	magic  string
	name   string
}

// compressions is how many of signatures, the first, are of compressed files.
const compressions = 6

// signatures are tried in order: the more telling first.
var signatures = []signature{
	{0, "\x1f\x8b", "a gzip archive"},
	{0, "\xfd7zXZ\x00", "an xz archive"},
	{0, "\x28\xb5\x2f\xfd", "a zstd archive"},
	{0, "\x04\x22\x4d\x18", "an lz4 archive"},
	{0, "\x02\x21\x4c\x18", "an lz4 archive"},
	{0, "BZh", "a bzip2 archive"},
	{0, "PK\x03\x04", "a zip archive"},
	{0, "\x7fELF", "an ELF program or kernel"},
	{0, "QFI\xfb", "a qcow2 disk image"},
	{0, "hsqs", "a squashfs file system"},
	{0, "070701", "a cpio archive (an initrd)"},
	{0, "070702", "a cpio archive (an initrd)"},
	{0, "\x27\x05\x19\x56", "a U-Boot image"},
	{0, "\xd0\x0d\xfe\xed", "a device tree or FIT image"},
	{0, "\xcf\xfa\xed\xfe", "a Mach-O program"},
	{0, "%PDF-", "a PDF document"},
	{0, "#!ipxe", "an iPXE script"},
	{0, "#!", "a script"},
	{56, "ARM\x64", "a Linux arm64 Image without an EFI stub"},
	{0x202, "HdrS", "a Linux x86 kernel without an EFI stub"},
	{257, "ustar", "a tar archive"},
	{0x8001, "CD001", "an ISO 9660 image"},
	{0x200, "EFI PART", "a disk image with a partition table"},
	{0x438, "\x53\xef", "an ext file system"},
	{0x1fe, "\x55\xaa", "a disk image or FAT file system"},
	{0, "MZ", "a DOS program without a PE header"},
}

// notPE returns an ErrNotPE that says what the file is instead.
func notPE(r io.ReaderAt, size int64) error {
	if size <= 0 {
		return fmt.Errorf("%w: it is empty", ErrNotPE)
	}
	head := make([]byte, sniffSize)
	n, err := readSome(r, head, size)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: it %s", ErrNotPE, describe(head[:n]))
}

// Sniff says what a file of size bytes looks like, for whoever was given a wrong
// one: it completes the sentence "the file …", such as "looks like an xz archive".
// Its errors are those of r.
func Sniff(r io.ReaderAt, size int64) (string, error) {
	if size <= 0 {
		return "is empty", nil
	}
	switch info, err := Inspect(r, size); {
	case err == nil && info.UKI:
		return "is a UKI for " + info.Architecture, nil
	case err == nil:
		return "is an EFI application for " + info.Architecture, nil
	case errors.Is(err, ErrMalformed):
		return "is a damaged PE file", nil
	case errors.Is(err, ErrNotEFI):
		return "is a PE file, but no EFI application", nil
	case !errors.Is(err, ErrNotPE):
		return "", err
	}
	head := make([]byte, sniffSize)
	n, err := readSome(r, head, size)
	if err != nil {
		return "", err
	}
	return describe(head[:n]), nil
}

// compressed tells whether a file of size bytes is compressed as a whole. Its
// errors are those of r.
func compressed(r io.ReaderAt, size int64) (bool, error) {
	head := make([]byte, 8)
	n, err := readSome(r, head, size)
	return slices.ContainsFunc(signatures[:compressions], func(s signature) bool {
		return bytes.HasPrefix(head[:n], []byte(s.magic))
	}), err
}

// describe completes the sentence "the file …" from its first bytes.
func describe(head []byte) string {
	for _, s := range signatures {
		if s.offset < len(head) && bytes.HasPrefix(head[s.offset:], []byte(s.magic)) {
			return "looks like " + s.name
		}
	}
	if len(bytes.Trim(head, "\x00")) == 0 {
		return "begins with nothing but zero bytes"
	}
	if name := describeText(head); name != "" {
		return "looks like " + name
	}
	return fmt.Sprintf("begins with the bytes % x", head[:min(8, len(head))])
}

// describeText names a kind of text, or nothing for what is not text.
func describeText(head []byte) string {
	head = head[:min(512, len(head))]
	for i := 0; i < utf8.UTFMax && !utf8.Valid(head); i++ { // a character cut in two
		head = head[:max(0, len(head)-1)]
	}
	control := func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\r\n\f\x1b", r) }
	if !utf8.Valid(head) || bytes.ContainsFunc(head, control) {
		return ""
	}
	text := strings.ToLower(strings.TrimLeft(strings.TrimPrefix(string(head), "\ufeff"), " \t\r\n"))
	for _, kind := range []struct{ prefix, name string }{
		{"<!doctype html", "an HTML page"},
		{"<html", "an HTML page"},
		{"<?xml", "an XML document"},
		{"{", "JSON"},
		{"[", "JSON"},
	} {
		if strings.HasPrefix(text, kind.prefix) {
			return kind.name
		}
	}
	return "text"
}
