// Package uki reads, checks, builds, signs and verifies the PE files that UEFI
// firmware boots: plain EFI applications and unified kernel images (UKIs), which are
// EFI applications that carry a kernel, an initrd and a command line in
// sections of their own.
//
// File format: Microsoft PE/COFF specification. UKI sections: UAPI group
// specification "Unified Kernel Image (UKI)" and systemd-stub(7).
package uki
