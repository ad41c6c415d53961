// Package qemu is a machine as a Go type: QEMU with OVMF, AAVMF or SeaBIOS, which
// boots by UEFI HTTP, PXE or iPXE. It is powered as a BMC powers a machine: it can
// be started, asked to shut down, unplugged, and told, in the firmware's variable
// store, what to boot next and in which order; and it says whether its guest has
// reset it or switched it off.
//
// Without a Network its NICs are on QEMU's user networking, which needs no
// privilege. Everything runs under TCG, so that it behaves alike on every host.
package qemu
