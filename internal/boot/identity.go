package boot

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// UUID is a machine's SMBIOS UUID in canonical form: lower case, with hyphens
// (RFC 9562 section 4), in the byte order that SMBIOS 2.6 and later print.
type UUID string

// MAC is an EUI-48 hardware address in canonical form: lower case, with colons.
type MAC string

// placeholders are UUIDs that vendors leave in boards they did not number.
// They identify nobody.
var placeholders = map[UUID]bool{
	"00000000-0000-0000-0000-000000000000": true,
	"ffffffff-ffff-ffff-ffff-ffffffffffff": true,
	"03000200-0400-0500-0006-000700080009": true,
	"00020003-0004-0005-0006-000700080009": true,
}

// ParseUUID reads a UUID in any usual notation: upper or lower case, with or
// without hyphens, in braces or as a URN. It returns ErrInvalid for anything
// else, and for a placeholder that identifies no machine.
func ParseUUID(s string) (UUID, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	t = strings.TrimPrefix(t, "urn:uuid:")
	if strings.HasPrefix(t, "{") && strings.HasSuffix(t, "}") {
		t = t[1 : len(t)-1]
	}
	if len(t) == 36 && t[8] == '-' && t[13] == '-' && t[18] == '-' && t[23] == '-' {
		t = t[:8] + t[9:13] + t[14:18] + t[19:23] + t[24:]
	}
	b, err := hex.DecodeString(t)
	if err != nil || len(b) != 16 {
		return "", fmt.Errorf("%w: %q is not a UUID such as 00112233-4455-6677-8899-aabbccddeeff", ErrInvalid, clip(s))
	}
	u := formatUUID([16]byte(b))
	if placeholders[u] {
		return "", fmt.Errorf("%w: %s is a placeholder that many machines carry and identifies none", ErrInvalid, u)
	}
	return u, nil
}

// Swapped returns the same UUID as read in the other byte order: the first
// three fields of an EFI_GUID are little-endian (UEFI 2.10, appendix A), and
// DHCP option 97 and some BMCs print them unswapped.
func (u UUID) Swapped() UUID {
	b, err := u.Bytes()
	if err != nil {
		return u
	}
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5] = b[5], b[4]
	b[6], b[7] = b[7], b[6]
	return formatUUID(b)
}

// Bytes returns the UUID's 16 bytes in the order they are printed in.
// It returns ErrInvalid when u was not made by ParseUUID.
func (u UUID) Bytes() ([16]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(string(u), "-", ""))
	if err != nil || len(b) != 16 {
		return [16]byte{}, fmt.Errorf("%w: %q is not a canonical UUID", ErrInvalid, clip(string(u)))
	}
	return [16]byte(b), nil
}

func formatUUID(b [16]byte) UUID {
	h := hex.EncodeToString(b[:])
	return UUID(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:])
}

// ParseMAC reads an EUI-48 address in any usual notation: colons, hyphens,
// Cisco's dotted groups or bare hexadecimal digits, in either case, and iPXE's
// hexhyp form with the leading hardware type 01-. It returns ErrInvalid for
// anything else, and for a zero or multicast address.
func ParseMAC(s string) (MAC, error) {
	digits, ok := macDigits(strings.ToLower(strings.TrimSpace(s)))
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != 6 {
		return "", fmt.Errorf("%w: %q is not a MAC address such as 52:54:00:aa:bb:01", ErrInvalid, clip(s))
	}
	if b[0]&1 != 0 || [6]byte(b) == [6]byte{} {
		return "", fmt.Errorf("%w: %q is a multicast or zero MAC address and names no machine", ErrInvalid, clip(s))
	}
	return formatMAC([6]byte(b)), nil
}

func formatMAC(b [6]byte) MAC {
	const digits = "0123456789abcdef"
	text := []byte("00:00:00:00:00:00")
	for i, v := range b {
		text[3*i], text[3*i+1] = digits[v>>4], digits[v&15]
	}
	return MAC(text)
}

// macDigits strips the separators of the notations that ParseMAC knows.
func macDigits(s string) (string, bool) {
	group := 2
	sep := ""
	switch {
	case strings.Contains(s, ":"):
		sep = ":"
	case strings.Contains(s, "-"):
		sep = "-"
		if len(s) == 20 {
			s = strings.TrimPrefix(s, "01-")
		}
	case strings.Contains(s, "."):
		sep, group = ".", 4
	default:
		return s, len(s) == 12
	}
	parts := strings.Split(s, sep)
	for _, p := range parts {
		if len(p) != group {
			return "", false
		}
	}
	return strings.Join(parts, ""), len(parts)*group == 12
}

// ParseAddr reads an IP address and returns it in canonical form, see
// CanonicalAddr. It returns ErrInvalid for anything that is not the unicast
// address of one machine.
func ParseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %q is not an IP address such as 10.0.0.5 or 2001:db8::5", ErrInvalid, clip(s))
	}
	a = CanonicalAddr(a)
	if a.IsUnspecified() || a.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%w: %s is not the address of one machine", ErrInvalid, a)
	}
	return a, nil
}

// CanonicalAddr unmaps IPv4-mapped IPv6 addresses and drops the zone, so that
// one machine has one spelling.
func CanonicalAddr(a netip.Addr) netip.Addr {
	return a.Unmap().WithZone("")
}

// ParseIdentifier reads a network identifier, which is an IP or a MAC address
// in any notation; exactly one of the results is set. It returns ErrInvalid
// when s is neither.
func ParseIdentifier(s string) (netip.Addr, MAC, error) {
	if m, err := ParseMAC(s); err == nil {
		return netip.Addr{}, m, nil
	}
	if a, err := ParseAddr(s); err == nil {
		return a, "", nil
	}
	return netip.Addr{}, "", fmt.Errorf("%w: %q is neither an IP address such as 10.0.0.5 nor a MAC address such as 52:54:00:aa:bb:01", ErrInvalid, clip(s))
}

// clip bounds what an error repeats of its input.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
