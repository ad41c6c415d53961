package boot

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// ID names one boot attempt wherever it leaves a trace: in log lines, under the key
// "boot", in status.boot.id, and as the ID of its trace (W3C Trace Context, 3.2.2.3).
// Every replica makes the same ID of the same attempt, without asking anyone.
type ID [16]byte

// NewID returns the ID of an attempt of the API object with this UID.
func NewID(uid string, attempt int64) ID {
	sum := sha256.Sum256([]byte("boot-operator boot " + uid + " " + strconv.FormatInt(attempt, 10)))
	return ID(sum[:16])
}

// String returns 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Root is the ID of the span that all others of the boot are children of.
func (id ID) Root() [8]byte {
	sum := sha256.Sum256(append([]byte("boot-operator root "), id[:]...))
	return [8]byte(sum[:8])
}
