package qemu

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAMachineNeverWaitsForItsReader(t *testing.T) {
	c := newConsole(nil)
	line := strings.Repeat("x", 99) + "\n"
	for range 10_000 { // more than any pipe or terminal holds
		_, err := io.WriteString(c, line)
		require.NoError(t, err)
	}
	assert.Len(t, c.Transcript(), 10_000*len(line))
}

func TestAConsoleIsReadFromItsBeginningToItsEndByEveryReader(t *testing.T) {
	var live bytes.Buffer
	c := newConsole(&live)
	early := c.Reader()
	got := make(chan string)
	go func() {
		all, _ := io.ReadAll(early)
		got <- string(all)
	}()
	_, _ = io.WriteString(c, "one\r\n")
	_, _ = io.WriteString(c, "two\r\n")
	c.end()
	assert.Equal(t, "one\ntwo\n", <-got)
	late, err := io.ReadAll(c.Reader())
	require.NoError(t, err)
	assert.Equal(t, "one\ntwo\n", string(late))
	assert.Equal(t, "one\ntwo\n", live.String())
}

func TestAMachineThatTalksWithoutEndFillsNoMemory(t *testing.T) {
	c := newConsole(nil)
	c.text = make([]byte, maxConsole-1)
	n, err := io.WriteString(c, "abc")
	require.NoError(t, err)
	assert.Equal(t, 3, n, "QEMU goes on")
	assert.Len(t, c.text, maxConsole)
	_, err = io.WriteString(c, "abc")
	require.NoError(t, err)
	assert.Len(t, c.text, maxConsole)
}

func TestWhatIsTypedArrives(t *testing.T) {
	c := newConsole(nil)
	var typed bytes.Buffer
	c.connect(&typed)
	require.NoError(t, c.Send("poweroff\r"))
	assert.Equal(t, "poweroff\r", typed.String())
}

func TestEscapeSequencesAreDroppedWhereverTheyAreCut(t *testing.T) {
	raw := []byte("a\x1b[1;31mb\x1b(0c\x1b=d\x00\r\ne")
	for cut := range raw {
		var c cleaner
		text := append(c.text(raw[:cut]), c.text(raw[cut:])...)
		assert.Equal(t, "abcd\ne", string(text), "cut at %d", cut)
	}
}
