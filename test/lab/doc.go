// Package lab is what a machine of internal/qemu boots in and from: a network
// namespace with a DHCP server and third parties or, unprivileged, QEMU's user
// networking; its serial console driven with go-expect; and a small operating
// system, booted as a UKI or as kernel and initrd, in which Debian's real Ignition
// fetches and applies its config.
//
// A test calls NewNetwork, Network.DHCP, Network.Machine and OS: these skip the
// test where something is not installed (and fail it when CI=true), fail it when
// something goes wrong, and clean up after it. A program that is not a test uses
// VM and BuildOS, which return errors instead.
//
// Everything runs under TCG, so that it behaves alike on every host.
package lab
