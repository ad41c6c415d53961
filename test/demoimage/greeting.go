// Package demoimage assembles small EFI applications from machine code, so
// that a demonstration or a test has a real boot image without a compiler, a
// kernel or a download.
package demoimage

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"unicode/utf16"

	"github.com/boot-operator/boot-operator/internal/uki"
)

const (
	alignment     = 0x1000 // of sections, in memory and in the file
	codeAddress   = 0x1000
	relocAddress  = 0x2000
	stringAddress = 0x3000
)

// Greeting returns an EFI application for amd64 or arm64 that prints message
// on the firmware's console, waits a second and switches the machine off. The
// message's newlines become CR LF; what UCS-2 cannot say comes out as the
// firmware likes.
func Greeting(architecture, message string) ([]byte, error) {
	return assemble(architecture, message, resetShutdown)
}

// Rebooting is Greeting for an application that resets the machine instead of
// switching it off.
func Rebooting(architecture, message string) ([]byte, error) {
	return assemble(architecture, message, resetCold)
}

func assemble(architecture, message string, reset uint32) ([]byte, error) {
	m, ok := machines[architecture]
	if !ok {
		return nil, fmt.Errorf("no machine code for architecture %q: there is some for amd64 and arm64", architecture)
	}
	return uki.Assemble(stub(m.coff, m.code(reset)), uki.Section{Name: ".rdata", Data: ucs2(message)})
}

// Padded is Greeting grown to size bytes, rounded up to 4 KiB: for a test that
// needs a large image which boots. The padding is random, the same for the
// same size, so that no two parts of it are alike.
func Padded(architecture, message string, size int) ([]byte, error) {
	image, err := Greeting(architecture, message)
	if err != nil || len(image) >= size {
		return image, err
	}
	padding := make([]byte, size-len(image))
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(size))
	_, _ = rand.NewChaCha8(seed).Read(padding) // never fails
	return uki.Assemble(image, uki.Section{Name: ".pad", Data: padding})
}

// stub returns an EFI application with the sections .text and .reloc.
func stub(machine uint16, code []byte) []byte {
	// One block for the first page with two entries that relocate nothing: the
	// code runs anywhere, but some loaders refuse an image without the table.
	reloc := binary.LittleEndian.AppendUint32(nil, codeAddress)
	reloc = binary.LittleEndian.AppendUint32(reloc, 12)
	reloc = append(reloc, make([]byte, 4)...)

	var out bytes.Buffer
	dos := make([]byte, 64)
	copy(dos, "MZ")
	dos[0x3c] = byte(len(dos))
	out.Write(dos)
	out.WriteString("PE\x00\x00")
	write(&out, pe.FileHeader{
		Machine: machine, NumberOfSections: 2,
		SizeOfOptionalHeader: uint16(binary.Size(pe.OptionalHeader64{})),
		Characteristics:      pe.IMAGE_FILE_EXECUTABLE_IMAGE | pe.IMAGE_FILE_LINE_NUMS_STRIPPED | pe.IMAGE_FILE_LARGE_ADDRESS_AWARE,
	})
	write(&out, optionalHeader(uint32(len(reloc))))
	write(&out, section(".text", codeAddress, code, pe.IMAGE_SCN_CNT_CODE|pe.IMAGE_SCN_MEM_EXECUTE|pe.IMAGE_SCN_MEM_READ))
	write(&out, section(".reloc", relocAddress, reloc, pe.IMAGE_SCN_CNT_INITIALIZED_DATA|pe.IMAGE_SCN_MEM_DISCARDABLE|pe.IMAGE_SCN_MEM_READ))
	image := make([]byte, relocAddress+alignment)
	copy(image, out.Bytes())
	copy(image[codeAddress:], code)
	copy(image[relocAddress:], reloc)
	return image
}

func optionalHeader(relocSize uint32) pe.OptionalHeader64 {
	h := pe.OptionalHeader64{
		Magic: 0x20b, SizeOfCode: alignment, SizeOfInitializedData: alignment,
		AddressOfEntryPoint: codeAddress, BaseOfCode: codeAddress,
		SectionAlignment: alignment, FileAlignment: alignment,
		SizeOfImage: relocAddress + alignment, SizeOfHeaders: alignment,
		Subsystem: pe.IMAGE_SUBSYSTEM_EFI_APPLICATION, DllCharacteristics: pe.IMAGE_DLLCHARACTERISTICS_NX_COMPAT,
		NumberOfRvaAndSizes: 16,
	}
	h.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_BASERELOC] = pe.DataDirectory{VirtualAddress: relocAddress, Size: relocSize}
	return h
}

// section describes content that lies at the same offset in the file as in memory.
func section(name string, address uint32, content []byte, characteristics uint32) pe.SectionHeader32 {
	h := pe.SectionHeader32{
		VirtualSize: uint32(len(content)), VirtualAddress: address,
		SizeOfRawData: alignment, PointerToRawData: address, Characteristics: characteristics,
	}
	copy(h.Name[:], name)
	return h
}

func write(out *bytes.Buffer, header any) {
	_ = binary.Write(out, binary.LittleEndian, header) // a bytes.Buffer never fails
}

// ucs2 is a CHAR16 string as OutputString takes it.
func ucs2(message string) []byte {
	var out []byte
	for _, unit := range append(utf16.Encode([]rune(carriageReturns(message))), 0) {
		out = binary.LittleEndian.AppendUint16(out, unit)
	}
	return out
}

// carriageReturns makes each newline CR LF, as a console wants it.
func carriageReturns(message string) string {
	return strings.ReplaceAll(strings.ReplaceAll(message, "\r\n", "\n"), "\n", "\r\n")
}
