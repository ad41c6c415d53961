// Package netboot offers boots beside somebody else's DHCP server: a ProxyDHCP
// server (PXE 2.1, section 2.2; UEFI 2.10, section 24.7) on the ports 67 and
// 4011, and a read-only TFTP server (RFC 1350) with the network boot programs
// that it offers. IPv4 only: over IPv6 there is no proxy, so a DHCPv6 server
// offers the URL itself.
//
// It gives no addresses, and answers only machines that have a plan. An offer
// that carries a boot token is never broadcast: it leaves as a frame to the one
// Ethernet address that asked.
//
// # The directory of programs
//
// A program is found by its name, in the directory itself or in one of its
// folders x86_64-sb, x86_64, arm64-sb and arm64, and
// is offered to the architecture that it was built for, which a UEFI program says
// of itself. The first that is there is offered:
//
//	UEFI  snponly-shim.efi with snponly.efi, ipxe-shim.efi with ipxe.efi,
//	      shimx64.efi with grubx64.efi (shimaa64.efi with grubaa64.efi),
//	      snponly.efi, ipxe.efi, snponly-arm64.efi, ipxe-arm64.efi
//	BIOS  undionly.kpxe
//
// A shim is offered first, since nobody puts one there who does not need it; what
// it loads lies beside it. mmx64.efi, mmaa64.efi and autoexec.ipxe are served
// where they are; without an autoexec.ipxe a generated one is served.
//
// # What a build can do
//
// Server.Programs tells for each program its version and whether it has HTTPS,
// imgverify and autoexec.ipxe, as far as the file itself shows it: a UEFI build
// holds the names of its commands and protocols as text, a BIOS build is packed
// and shows nothing. Debian's builds of 2019 (1.0.0+git-20190125) have none of
// the three. A newer or a signed iPXE works by putting it into the directory.
package netboot
