package demoimage

import (
	"debug/pe"
	"encoding/binary"
	"slices"
)

// Offsets of the UEFI specification's tables on 64-bit machines (UEFI 2.10,
// sections 4.3, 4.4, 4.5 and 12.4), and what is passed to their functions.
const (
	systemConOut          = 64
	systemRuntimeServices = 88
	systemBootServices    = 96
	conOutOutputString    = 8
	bootStall             = 248
	runtimeResetSystem    = 104

	resetCold     = 0         // EfiResetCold
	resetShutdown = 2         // EfiResetShutdown
	pause         = 1_000_000 // microseconds
)

type machine struct {
	coff uint16
	code func(reset uint32) []byte
}

// machines holds, by architecture, code for
//
//	ConOut->OutputString(ConOut, message); Stall(pause);
//	ResetSystem(reset, EFI_SUCCESS, 0, NULL); return EFI_SUCCESS
//
// which is called at codeAddress with (ImageHandle, SystemTable).
var machines = map[string]machine{
	"amd64": {pe.IMAGE_FILE_MACHINE_AMD64, amd64Code},
	"arm64": {pe.IMAGE_FILE_MACHINE_ARM64, arm64Code},
}

// amd64Code follows Microsoft's calling convention: arguments in rcx, rdx, r8
// and r9, 32 bytes of shadow space, rsp aligned to 16 at each call.
func amd64Code(reset uint32) []byte {
	load := slices.Concat(
		[]byte{0x53},                            // push rbx
		[]byte{0x48, 0x83, 0xec, 0x20},          // sub rsp, 32
		[]byte{0x48, 0x89, 0xd3},                // mov rbx, rdx
		[]byte{0x48, 0x8b, 0x4b, systemConOut},  // mov rcx, [rbx+ConOut]
		[]byte{0x48, 0x8d, 0x15, 0x00, 0, 0, 0}, // lea rdx, [rip+message]
	)
	next := codeAddress + len(load)
	binary.LittleEndian.PutUint32(load[len(load)-4:], uint32(stringAddress-next))
	return slices.Concat(load,
		[]byte{0xff, 0x51, conOutOutputString},                          // call [rcx+OutputString]
		[]byte{0x48, 0x8b, 0x43, systemBootServices},                    // mov rax, [rbx+BootServices]
		binary.LittleEndian.AppendUint32([]byte{0xb9}, pause),           // mov ecx, pause
		binary.LittleEndian.AppendUint32([]byte{0xff, 0x90}, bootStall), // call [rax+Stall]
		[]byte{0x48, 0x8b, 0x43, systemRuntimeServices},                 // mov rax, [rbx+RuntimeServices]
		binary.LittleEndian.AppendUint32([]byte{0xb9}, reset),           // mov ecx, reset
		[]byte{0x31, 0xd2},                     // xor edx, edx
		[]byte{0x45, 0x31, 0xc0},               // xor r8d, r8d
		[]byte{0x45, 0x31, 0xc9},               // xor r9d, r9d
		[]byte{0xff, 0x50, runtimeResetSystem}, // call [rax+ResetSystem]
		[]byte{0x48, 0x83, 0xc4, 0x20},         // add rsp, 32
		[]byte{0x5b},                           // pop rbx
		[]byte{0x31, 0xc0},                     // xor eax, eax
		[]byte{0xc3},                           // ret
	)
}

// arm64Code follows the AArch64 procedure call standard: arguments in x0 to
// x3; x19 outlives a call.
func arm64Code(reset uint32) []byte {
	code := []uint32{
		0xa9be7bfd,                              // stp x29, x30, [sp, #-32]!
		0xf9000bf3,                              // str x19, [sp, #16]
		0xaa0103f3,                              // mov x19, x1
		arm64Load(0, 19, systemConOut),          // ldr x0, [x19, #ConOut]
		0,                                       // adr x1, message: below
		arm64Load(8, 0, conOutOutputString),     // ldr x8, [x0, #OutputString]
		0xd63f0100,                              // blr x8
		arm64Move(0, pause&0xffff),              // mov x0, #pause, low half
		0xf2a00000 | pause>>16<<5,               // movk x0, #pause, high half
		arm64Load(8, 19, systemBootServices),    // ldr x8, [x19, #BootServices]
		arm64Load(8, 8, bootStall),              // ldr x8, [x8, #Stall]
		0xd63f0100,                              // blr x8
		arm64Move(0, reset),                     // mov x0, #reset
		arm64Move(1, 0),                         // mov x1, #0
		arm64Move(2, 0),                         // mov x2, #0
		arm64Move(3, 0),                         // mov x3, #0
		arm64Load(8, 19, systemRuntimeServices), // ldr x8, [x19, #RuntimeServices]
		arm64Load(8, 8, runtimeResetSystem),     // ldr x8, [x8, #ResetSystem]
		0xd63f0100,                              // blr x8
		0xf9400bf3,                              // ldr x19, [sp, #16]
		0xa8c27bfd,                              // ldp x29, x30, [sp], #32
		arm64Move(0, 0),                         // mov x0, #0
		0xd65f03c0,                              // ret
	}
	code[4] = arm64Address(1, stringAddress-(codeAddress+4*4))
	var out []byte
	for _, instruction := range code {
		out = binary.LittleEndian.AppendUint32(out, instruction)
	}
	return out
}

// arm64Load encodes ldr to, [from, #offset]; the offset is a multiple of 8.
func arm64Load(to, from, offset uint32) uint32 { return 0xf9400000 | offset/8<<10 | from<<5 | to }

// arm64Move encodes movz to, #value; the value has 16 bits.
func arm64Move(to, value uint32) uint32 { return 0xd2800000 | value<<5 | to }

// arm64Address encodes adr to, distance: bytes from this instruction, below 1 MiB.
func arm64Address(to, distance uint32) uint32 {
	return 0x10000000 | distance&3<<29 | distance>>2<<5 | to
}
