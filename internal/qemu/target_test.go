package qemu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// offMachine is a machine that is never switched on: it needs no QEMU.
func offMachine(t *testing.T, options MachineOptions) *VM {
	t.Helper()
	options.complete()
	v := &VM{options: options, platform: platforms[options.Arch], dir: t.TempDir()}
	template := filepath.Join(v.dir, "template.fd")
	require.NoError(t, os.WriteFile(template, make([]byte, blankLength), 0o600))
	v.firmware.vars = template
	require.NoError(t, v.writeFiles())
	return v
}

func TestAMachineTriesTheNetworkOrTheDiskFirst(t *testing.T) {
	nics := MachineOptions{MoreMACs: []string{"52:54:00:77:01:01"}, NextBoot: []byte("MZ")}
	order, err := offMachine(t, nics).BootOrder()
	require.NoError(t, err)
	assert.Equal(t, []Target{{Kind: HTTP}, {Kind: HTTP, NIC: 1}, {Kind: Disk}}, order)
	nics.DiskFirst, nics.Boot = true, UEFIPXE
	order, err = offMachine(t, nics).BootOrder()
	require.NoError(t, err)
	assert.Equal(t, []Target{{Kind: Disk}, {Kind: PXE}, {Kind: PXE, NIC: 1}}, order)
}

func TestABootOrderIsReadAsItWasWrittenAndKeepsWhatTheFirmwareFound(t *testing.T) {
	v := offMachine(t, MachineOptions{MoreMACs: []string{"52:54:00:77:01:01"}, NextBoot: []byte("MZ")})
	require.NoError(t, v.edit(func(s *VarStore) error { return s.SetBootOrder(append(s.BootOrder(), 0, 1)...) }))
	want := []Target{{Kind: PXE, NIC: 1}, {Kind: Disk}, {Kind: HTTP, NIC: 1, URL: "http://a/b"}, {Kind: PXE}}
	require.NoError(t, v.SetBootOrder(want...))
	order, err := v.BootOrder()
	require.NoError(t, err)
	assert.Equal(t, want, order)
	s, err := v.VarStore()
	require.NoError(t, err)
	assert.Equal(t, []uint16{0xE9, 0xD0, 0xE1, 0xE8, 0, 1}, s.BootOrder())
	assert.Equal(t, "Boot00E9", want[0].Reference())
}

func TestAGuestThatSpoilsTheBootOrderBreaksNothing(t *testing.T) {
	v := offMachine(t, MachineOptions{})
	mac := []byte{0x52, 0x54, 0, 0, 0, 1}
	require.NoError(t, v.edit(func(s *VarStore) error {
		require.NoError(t, s.SetEntry(0xE1, "no such NIC", NICPath(0x11, mac).URI("")))
		require.NoError(t, s.SetEntry(0xE8, "another kind than its number", NICPath(0x10, mac).URI("")))
		require.NoError(t, s.SetEntry(0xD0, "no such disk", PCIPath(0x18)))
		require.NoError(t, s.Set("Boot00E9", []byte("cut")))
		return s.SetBootOrder(0xD0, 0xE9, 0xEA, 0xE8, 0xE1, 0xE0, 0xE7)
	}))
	order, err := v.BootOrder()
	require.NoError(t, err)
	assert.Equal(t, []Target{{Kind: HTTP}}, order)
}

func TestTheFirmwaresPXEIsOnOnlyWhereItIsToBeUsed(t *testing.T) {
	v := offMachine(t, MachineOptions{})
	assert.False(t, v.wantsPXE())
	require.NoError(t, v.SetBootNext(Target{Kind: PXE}))
	assert.True(t, v.wantsPXE(), "once")
	require.NoError(t, v.SetBootNext(Target{Kind: HTTP}))
	assert.False(t, v.wantsPXE())
	require.NoError(t, v.SetBootOrder(Target{Kind: HTTP}, Target{Kind: PXE}))
	assert.True(t, v.wantsPXE(), "in the boot order")
}

func TestAnOverrideIsForgottenOnRequestButNotTheOperatingSystems(t *testing.T) {
	v := offMachine(t, MachineOptions{})
	pending := func() bool {
		t.Helper()
		p, err := v.BootNextPending()
		require.NoError(t, err)
		return p
	}
	assert.False(t, pending())
	for _, next := range []Target{{Kind: HTTP, URL: "http://a/b"}, {Kind: PXE}, {Kind: Setup}} {
		require.NoError(t, v.SetBootNext(next))
		assert.True(t, pending(), next)
		require.NoError(t, v.ClearBootNext())
		assert.False(t, pending(), next)
	}
	require.NoError(t, v.edit(func(s *VarStore) error { return s.SetBootNext(7) }))
	require.NoError(t, v.ClearBootNext())
	s, err := v.VarStore()
	require.NoError(t, err)
	next, ok := s.BootNext()
	assert.True(t, ok)
	assert.EqualValues(t, 7, next)
}

func TestWhatAMachineDoesNotHaveIsNotBooted(t *testing.T) {
	v := offMachine(t, MachineOptions{})
	assert.ErrorContains(t, v.SetBootNext(Target{Kind: Disk}), "no disk")
	assert.ErrorContains(t, v.SetBootNext(Target{Kind: HTTP, NIC: 1}), "no NIC 1")
	assert.ErrorContains(t, v.SetBootNext(Target{Kind: "floppy"}), "floppy")
	assert.ErrorContains(t, v.SetBootOrder(Target{Kind: HTTP}, Target{Kind: HTTP, URL: "http://a"}), "twice")
	assert.ErrorContains(t, v.SetBootOrder(Target{Kind: Setup}), "setup")
	order, err := v.BootOrder()
	require.NoError(t, err)
	assert.Equal(t, []Target{{Kind: HTTP}}, order, "a refused order changes nothing")
	bios := offMachine(t, MachineOptions{Boot: BIOS})
	_, err = bios.BootOrder()
	assert.ErrorContains(t, err, "BIOS")
}
