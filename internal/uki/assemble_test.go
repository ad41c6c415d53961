package uki_test

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

func TestAssembleMakesAFileThatOthersRead(t *testing.T) {
	kernel := bytes.Repeat([]byte("kernel"), 3000)
	for _, architecture := range []string{uki.AMD64, uki.ARM64} {
		t.Run(architecture, func(t *testing.T) {
			image, err := uki.Assemble(greeting(t, architecture),
				uki.Section{Name: ".osrel", Data: []byte("ID=test\n")},
				uki.Section{Name: ".cmdline"},
				uki.Section{Name: ".linux", Data: kernel})
			require.NoError(t, err)
			file, err := pe.NewFile(bytes.NewReader(image))
			require.NoError(t, err)
			header := file.OptionalHeader.(*pe.OptionalHeader64)
			assert.EqualValues(t, pe.IMAGE_SUBSYSTEM_EFI_APPLICATION, header.Subsystem)
			checkLayout(t, file, header, len(image))
			data, err := file.Section(".linux").Data()
			require.NoError(t, err)
			assert.Equal(t, kernel, data[:len(kernel)])
		})
	}
}

// checkLayout holds a file to the rules of the PE specification's section
// "Section Table": in order, aligned, without overlap, within the image.
func checkLayout(t *testing.T, file *pe.File, header *pe.OptionalHeader64, size int) {
	t.Helper()
	end := header.SizeOfHeaders
	for _, s := range file.Sections {
		assert.Zero(t, s.VirtualAddress%header.SectionAlignment, s.Name)
		assert.Zero(t, s.Offset%header.FileAlignment, s.Name)
		assert.Zero(t, s.Size%header.FileAlignment, s.Name)
		assert.GreaterOrEqual(t, s.VirtualAddress, end, s.Name)
		assert.LessOrEqual(t, int(s.Offset+s.Size), size, s.Name)
		end = s.VirtualAddress + s.VirtualSize
	}
	assert.Zero(t, header.SizeOfImage%header.SectionAlignment)
	assert.GreaterOrEqual(t, header.SizeOfImage, end)
	assert.Less(t, header.SizeOfImage, end+header.SectionAlignment)
}

func TestAssembleRefusesAStubWithoutRoom(t *testing.T) {
	var sections []uki.Section
	for i := range 100 {
		sections = append(sections, uki.Section{Name: fmt.Sprintf(".dtb%d", i), Data: []byte("tree")})
	}
	_, err := uki.Assemble(greeting(t, uki.AMD64), sections...)
	require.ErrorIs(t, err, uki.ErrNoRoom)
	assert.Contains(t, err.Error(), "100 wanted, 91 fit")

	used := greeting(t, uki.AMD64)
	used[64+24+240+3*40+5] = 1
	_, err = uki.Assemble(used, sections[0])
	assert.ErrorIs(t, err, uki.ErrNoRoom, "what lies after the section table must not be overwritten")
}

func TestAssembleTakesTheFillerOfARM64Stubs(t *testing.T) {
	stub := greeting(t, uki.ARM64)
	at := 64 + 24 + 240 + 3*40
	copy(stub[at:0x1000], bytes.Repeat([]byte{0x1f, 0x20, 0x03, 0xd5}, 1024)) // nop
	image, err := uki.Assemble(stub, uki.Section{Name: ".linux", Data: []byte("kernel")})
	require.NoError(t, err)
	file, err := pe.NewFile(bytes.NewReader(image))
	require.NoError(t, err)
	header := file.Section(".linux").SectionHeader
	assert.Zero(t, header.PointerToRelocations, "what was there must not show through")
	assert.EqualValues(t, 6, header.VirtualSize)
}

func TestAssembleRefusesBadInput(t *testing.T) {
	_, err := uki.Assemble([]byte("\x1f\x8b\x08"), uki.Section{Name: ".linux"})
	assert.ErrorIs(t, err, uki.ErrNotPE)
	for _, name := range []string{"", ".toolong9", ".nul\x00", ".two it", ".ümlaut"} {
		_, err = uki.Assemble(greeting(t, uki.AMD64), uki.Section{Name: name})
		require.ErrorIs(t, err, uki.ErrNotUKI)
		assert.ErrorContains(t, err, "1 to 8 printable ASCII characters")
	}
	_, err = uki.Assemble(greeting(t, uki.AMD64), uki.Section{Name: "/4"})
	require.ErrorIs(t, err, uki.ErrNotUKI, "debug/pe and objdump look it up in a table of strings")
	signed := greeting(t, uki.AMD64)
	binary.LittleEndian.PutUint32(signed[64+24+112+8*4+4:], 1000)
	_, err = uki.Assemble(signed, uki.Section{Name: ".linux"})
	assert.ErrorContains(t, err, "signed")
}

func TestAssembleLeavesTheStubAlone(t *testing.T) {
	stub := greeting(t, uki.ARM64)
	before := bytes.Clone(stub)
	_, err := uki.Assemble(stub, uki.Section{Name: ".linux", Data: []byte("kernel")})
	require.NoError(t, err)
	assert.Equal(t, before, stub)
}
