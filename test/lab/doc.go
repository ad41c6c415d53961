// Package lab is a UEFI machine as a Go type: QEMU with OVMF or AAVMF
// firmware, in a network namespace with a DHCP server or, unprivileged, on
// QEMU's user networking; its serial console driven with go-expect; and a small
// operating system, booted as a UKI, in which Debian's real Ignition fetches and
// applies its config.
//
// A test calls NewNetwork, Network.DHCP, Network.Machine and OS: these skip the
// test where something is not installed (and fail it when CI=true), fail it when
// something goes wrong, and clean up after it. A program that is not a test uses
// VM and BuildOS, which return errors instead.
//
// Everything runs under TCG, so that it behaves alike on every host.
package lab
