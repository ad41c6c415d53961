package netboot

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// dhcpFilter is a program for the kernel that lets pass what this server looks
// at: whole UDP datagrams to the ports 67, 4011 and 68, which arrived on the
// interface itself, not on a VLAN of it, and are for us or for everyone.
func dhcpFilter(index int) ([]bpf.RawInstruction, error) {
	const drop = 0xff // is replaced by the distance to the end
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(index), SkipTrue: drop},
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: drop},
		bpf.LoadExtension{Num: bpf.ExtType}, // 0: to this host, 1: broadcast (packet(7))
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 1, SkipTrue: drop},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherTypeIPv4, SkipTrue: drop},
		bpf.LoadAbsolute{Off: ethernetHeader + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolUDP, SkipTrue: drop},
		bpf.LoadAbsolute{Off: ethernetHeader + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: drop}, // a fragment
		bpf.LoadMemShift{Off: ethernetHeader},
		bpf.LoadIndirect{Off: ethernetHeader + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: portServer, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: portPXE, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: portClient, SkipTrue: 1},
		bpf.RetConstant{Val: maxFrame},
		bpf.RetConstant{Val: 0},
	}
	for i, in := range program {
		if j, ok := in.(bpf.JumpIf); ok && j.SkipTrue == drop {
			j.SkipTrue = uint8(len(program) - 2 - i)
			program[i] = j
		}
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assembling the filter for DHCP: %w", err)
	}
	return raw, nil
}

// dropAll is a program that lets nothing pass.
func dropAll() ([]bpf.RawInstruction, error) {
	raw, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		return nil, fmt.Errorf("assembling a filter: %w", err)
	}
	return raw, nil
}
