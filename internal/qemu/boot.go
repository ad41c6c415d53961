package qemu

// Boot is how a machine boots from the network.
type Boot string

// The ways to boot. All of them find what to boot by DHCP, on each NIC in turn.
const (
	// UEFIHTTP is the firmware's own HTTP boot over IPv4 (DHCP vendor class
	// HTTPClient).
	UEFIHTTP Boot = ""
	// UEFIHTTPv6 is the same over IPv6 (DHCPv6 options 16 and 59).
	UEFIHTTPv6 Boot = "UEFI HTTP over IPv6"
	// UEFIPXE is the firmware's own PXE over IPv4 (vendor class PXEClient): it
	// gets an EFI application by TFTP.
	UEFIPXE Boot = "UEFI PXE"
	// UEFIIPXE is the iPXE in the NIC's option ROM, started by UEFI firmware. It
	// knows only that NIC, as net0; under a BIOS it knows all.
	UEFIIPXE Boot = "UEFI, iPXE in ROM"
	// BIOS is SeaBIOS, on amd64 only. The only network ROM that QEMU has for it
	// is iPXE, so there is no other PXE client. What firmware and iPXE say passes
	// through a screen of 80 columns, and longer lines are broken.
	BIOS Boot = "BIOS, iPXE in ROM"
)

var boots = []Boot{UEFIHTTP, UEFIHTTPv6, UEFIPXE, UEFIIPXE, BIOS}

// ipxeROM tells whether the NICs keep the option ROM that QEMU gives them.
func (b Boot) ipxeROM() bool { return b == UEFIIPXE || b == BIOS }
