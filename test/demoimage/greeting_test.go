package demoimage

import (
	"bytes"
	"debug/pe"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheStringLiesWhereTheCodeLooksForIt(t *testing.T) {
	for architecture := range machines {
		image, err := Greeting(architecture, "one\ntwo")
		require.NoError(t, err)
		file, err := pe.NewFile(bytes.NewReader(image))
		require.NoError(t, err)
		section := file.Section(".rdata")
		require.EqualValues(t, stringAddress, section.VirtualAddress)
		data, err := section.Data()
		require.NoError(t, err)
		assert.True(t, bytes.HasPrefix(data, []byte("o\x00n\x00e\x00\r\x00\n\x00t\x00w\x00o\x00\x00\x00")))
	}
}

func TestGreetingKnowsTwoArchitectures(t *testing.T) {
	_, err := Greeting("riscv64", "hello")
	assert.ErrorContains(t, err, "riscv64")
}

func TestPaddedHasTheSizeAndNoRepetition(t *testing.T) {
	image, err := Padded("amd64", "hello", 1<<20)
	require.NoError(t, err)
	assert.Len(t, image, 1<<20)
	assert.False(t, bytes.Equal(image[1<<18:1<<19], image[1<<19:3<<18]))
	again, err := Padded("amd64", "hello", 1<<20)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(image, again))
}
