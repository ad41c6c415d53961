package inventory

import (
	"bytes"
	"net/netip"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// key is one identifier as the index compares it: both byte orders of a UUID
// are one key. It is a value so that lookups allocate nothing.
type key struct {
	sort  byte
	bytes [16]byte
}

const (
	sortUUID = 'u'
	sortMAC  = 'm'
	sortAddr = 'a'
)

// uuidKey folds the two byte orders of a UUID into the smaller one. ok is
// false when u is not canonical.
func uuidKey(u boot.UUID) (k key, ok bool) {
	if len(u) != 36 {
		return key{}, false
	}
	b, ok := unhex(string(u), '-', k.bytes[:])
	if !ok || b != 16 {
		return key{}, false
	}
	swapped := k.bytes
	swapped[0], swapped[1], swapped[2], swapped[3] = swapped[3], swapped[2], swapped[1], swapped[0]
	swapped[4], swapped[5] = swapped[5], swapped[4]
	swapped[6], swapped[7] = swapped[7], swapped[6]
	if bytes.Compare(swapped[:], k.bytes[:]) < 0 {
		k.bytes = swapped
	}
	k.sort = sortUUID
	return k, true
}

func macKey(m boot.MAC) (k key, ok bool) {
	n, ok := unhex(string(m), ':', k.bytes[:])
	k.sort = sortMAC
	return k, ok && n == 6
}

func addrKey(a netip.Addr) key {
	return key{sort: sortAddr, bytes: a.As16()}
}

// keysOf returns the identifiers of a machine: UUID, MACs, addresses.
func keysOf(m boot.Machine) []key {
	keys := make([]key, 0, 1+len(m.MACs)+len(m.Addrs))
	if k, ok := uuidKey(m.UUID); ok {
		keys = append(keys, k)
	}
	for _, mac := range m.MACs {
		if k, ok := macKey(mac); ok {
			keys = append(keys, k)
		}
	}
	for _, a := range m.Addrs {
		keys = append(keys, addrKey(a))
	}
	return keys
}

// spelling returns the identifier as this machine's config has it, canonical.
func spelling(m boot.Machine, k key) string {
	switch k.sort {
	case sortUUID:
		return string(m.UUID)
	case sortMAC:
		for _, mac := range m.MACs {
			if other, _ := macKey(mac); other == k {
				return string(mac)
			}
		}
	}
	return netip.AddrFrom16(k.bytes).Unmap().String()
}

// unhex decodes pairs of hexadecimal digits between separators into dst and
// says how many bytes there were.
func unhex(s string, separator byte, dst []byte) (int, bool) {
	n := 0
	for i := 0; i < len(s); {
		if s[i] == separator {
			i++
			continue
		}
		if i+1 >= len(s) || n == len(dst) {
			return n, false
		}
		hi, ok1 := nibble(s[i])
		lo, ok2 := nibble(s[i+1])
		if !ok1 || !ok2 {
			return n, false
		}
		dst[n] = hi<<4 | lo
		n, i = n+1, i+2
	}
	return n, true
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
