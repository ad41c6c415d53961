package uki

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Fingerprint is the same for databases that decide the same, whatever they were read
// from and in which order.
func (d *Database) Fingerprint() [sha256.Size]byte {
	h := sha256.New()
	write := func(entries [][]byte) {
		slices.SortFunc(entries, slices.Compare)
		entries = slices.CompactFunc(entries, slices.Equal)
		_ = binary.Write(h, binary.BigEndian, uint64(len(entries)))
		for _, e := range entries {
			_ = binary.Write(h, binary.BigEndian, uint64(len(e)))
			_, _ = h.Write(e)
		}
	}
	for _, s := range []digestSet{d.hashes, d.refusedHashes, d.refusedTBS} {
		write(s.entries())
	}
	var trusted, refused [][]byte
	for _, c := range d.certificates {
		trusted = append(trusted, c.Raw)
	}
	for _, c := range d.refusedCertificates {
		refused = append(refused, c.Raw)
	}
	write(trusted)
	write(refused)
	return [sha256.Size]byte(h.Sum(nil))
}

func (s digestSet) entries() (all [][]byte) {
	for e := range s {
		all = append(all, []byte(e))
	}
	return all
}
