package boot

import (
	"fmt"
	"strings"
)

// Proof says how we know which machine is asking; a larger one is stronger.
type Proof uint8

const (
	// Unproven: nothing names the machine.
	Unproven Proof = iota
	// Claimed: someone said a MAC or a UUID.
	Claimed
	// Address: the request comes from an address that the config lists.
	Address
	// Proxy: our ProxyDHCP answered this MAC on the attached segment, by L2
	// unicast, with a token.
	Proxy
	// Relay: a trusted DHCP relay named the port (RFC 3046, option 82).
	Relay
	// BMC: the URL with its token was set through a verified BMC connection.
	BMC
)

var proofNames = [...]string{"Unproven", "Claimed", "Address", "Proxy", "Relay", "BMC"}

func (p Proof) String() string {
	if int(p) < len(proofNames) {
		return proofNames[p]
	}
	return fmt.Sprintf("Proof(%d)", uint8(p))
}

// ParseProof reads the name of a proof that can be asked for, which Unproven
// cannot. It returns ErrInvalid for anything else.
func ParseProof(s string) (Proof, error) {
	for i, n := range proofNames[1:] {
		if n == s {
			return Proof(i + 1), nil //nolint:gosec // five names
		}
	}
	return Unproven, fmt.Errorf("%w: proof %q is not one of %s", ErrInvalid, clip(s), strings.Join(proofNames[1:], ", "))
}
