package demoimage

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestABootSectorFindsItsMessage(t *testing.T) {
	disk, err := BootSector("one\ntwo")
	require.NoError(t, err)
	require.Len(t, disk, diskSize)
	assert.Equal(t, []byte{0x55, 0xaa}, disk[sectorSize-2:sectorSize])
	address := binary.LittleEndian.Uint16(disk[5:]) // of mov si
	assert.True(t, strings.HasPrefix(string(disk[address-loadAddress:]), "one\r\ntwo\x00"))
}

func TestABootSectorRefusesAMessageThatWouldCoverItsSignature(t *testing.T) {
	room := sectorSize - 2 - len(sectorCode()) - 1
	_, err := BootSector(strings.Repeat("x", room))
	require.NoError(t, err)
	_, err = BootSector(strings.Repeat("x", room+1))
	assert.ErrorContains(t, err, "has room for a message of")
}
