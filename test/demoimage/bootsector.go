package demoimage

import (
	"encoding/binary"
	"fmt"
	"slices"
)

const (
	sectorSize = 512
	// diskSize is what BIOSes take for a disk without asking further.
	diskSize = 1 << 20
	// loadAddress is where a BIOS puts a boot sector.
	loadAddress = 0x7c00

	com1       = 0x3f8
	lineStatus = com1 + 5
)

// BootSector returns a small disk whose boot sector prints message on the first
// serial port and switches the machine off: what Greeting is for UEFI, for a
// BIOS. The message's newlines become CR LF.
func BootSector(message string) ([]byte, error) {
	text := append([]byte(carriageReturns(message)), 0)
	code := sectorCode()
	if room := sectorSize - 2 - len(code); len(text) > room {
		return nil, fmt.Errorf("a boot sector has room for a message of %d bytes, not %d", room-1, len(text)-1)
	}
	disk := make([]byte, diskSize)
	copy(disk, code)
	copy(disk[len(code):], text)
	copy(disk[sectorSize-2:], []byte{0x55, 0xaa})
	return disk, nil
}

// sectorCode is 16-bit code; the message follows it.
func sectorCode() []byte {
	code := slices.Concat(
		[]byte{0x31, 0xc0},       // 00 xor ax, ax
		[]byte{0x8e, 0xd8},       // 02 mov ds, ax
		[]byte{0xbe, 0x00, 0x00}, // 04 mov si, message: below
		[]byte{0xfc},             // 07 cld
		// next:
		[]byte{0xac},           // 08 lodsb
		[]byte{0x84, 0xc0},     // 09 test al, al
		[]byte{0x74, 0x12},     // 0b jz off
		[]byte{0x88, 0xc4},     // 0d mov ah, al
		word(0xba, lineStatus), // 0f mov dx, lineStatus
		[]byte{0xec},           // 12 wait: in al, dx
		[]byte{0xa8, 0x20},     // 13 test al, 0x20: can it take a byte?
		[]byte{0x74, 0xfb},     // 15 jz wait
		[]byte{0x88, 0xe0},     // 17 mov al, ah
		word(0xba, com1),       // 19 mov dx, com1
		[]byte{0xee},           // 1c out dx, al
		[]byte{0xeb, 0xe9},     // 1d jmp next
		// off: APM 1.2, function 07h
		word(0xb8, 0x5307), // 1f mov ax, 0x5307
		word(0xbb, 1),      // 22 mov bx, 1: all devices
		word(0xb9, 3),      // 25 mov cx, 3: off
		[]byte{0xcd, 0x15}, // 28 int 0x15
		[]byte{0xf4},       // 2a halt: hlt
		[]byte{0xeb, 0xfd}, // 2b jmp halt
	)
	binary.LittleEndian.PutUint16(code[5:], uint16(loadAddress+len(code)))
	return code
}

// word is an instruction with a 16-bit operand.
func word(opcode byte, operand uint16) []byte {
	return binary.LittleEndian.AppendUint16([]byte{opcode}, operand)
}
