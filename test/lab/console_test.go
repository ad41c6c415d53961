package lab

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeMachine is the other end of a console.
func fakeMachine(t *testing.T) (*console, *io.PipeWriter, *io.PipeReader) {
	t.Helper()
	output, says := io.Pipe()
	hears, input := io.Pipe()
	c, err := newConsole(output, input, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = says.Close()
		c.close()
	})
	return c, says, hears
}

func TestExpectReadsInOrderAndStopsAtTheMatch(t *testing.T) {
	c, says, _ := fakeMachine(t)
	fmt.Fprint(says, "\x1b[2J\x1b[01;01HBdsDxe: starting\r\nUKI-BOOTED\r\nDHCP-OK 10.77.0.50\r\nprompt> ")
	read, err := c.wait(matchText("UKI-BOOTED"), time.Minute)
	require.NoError(t, err)
	assert.Equal(t, "BdsDxe: starting\nUKI-BOOTED", read)
	read, err = c.wait(matchLine(regexp.MustCompile(`^DHCP-OK (\S+)$`)), time.Minute)
	require.NoError(t, err)
	assert.Equal(t, "DHCP-OK 10.77.0.50", string(lastLine([]byte(read))))
	_, err = c.wait(matchText("prompt>"), time.Minute)
	require.NoError(t, err, "a prompt has no newline")
}

func TestAMachineNeverWaitsForItsReader(t *testing.T) {
	c, says, _ := fakeMachine(t)
	line := strings.Repeat("x", 99) + "\n"
	for range 10_000 { // more than any pipe or terminal holds
		fmt.Fprint(says, line)
	}
	require.NoError(t, says.Close())
	<-c.finished
	assert.Equal(t, 10_000*len(line), len(c.transcript()))
}

func TestExpectTellsSilenceFromPowerOff(t *testing.T) {
	c, says, _ := fakeMachine(t)
	_, err := c.wait(matchText("never"), 10*time.Millisecond)
	require.ErrorIs(t, err, ErrNotSaid)
	fmt.Fprint(says, "last words")
	require.NoError(t, says.Close())
	read, err := c.wait(matchText("never"), time.Minute)
	require.ErrorIs(t, err, ErrOff)
	assert.Equal(t, "last words", read)
	assert.Contains(t, err.Error(), `"never"`)
}

func TestExpectBoundsTheWholeWaitOfAChattyMachine(t *testing.T) {
	c, says, _ := fakeMachine(t)
	go func() {
		for {
			if _, err := fmt.Fprint(says, "."); err != nil {
				return
			}
		}
	}()
	_, err := c.wait(matchText("never"), 50*time.Millisecond)
	assert.ErrorIs(t, err, ErrNotSaid)
}

func TestWhatIsTypedArrives(t *testing.T) {
	c, _, hears := fakeMachine(t)
	go func() { _ = c.send("poweroff\r") }()
	typed := make([]byte, 9)
	_, err := io.ReadFull(hears, typed)
	require.NoError(t, err)
	assert.Equal(t, "poweroff\r", string(typed))
}

func TestEscapeSequencesAreDroppedWhereverTheyAreCut(t *testing.T) {
	raw := []byte("a\x1b[1;31mb\x1b(0c\x1b=d\x00\r\ne")
	for cut := range raw {
		var c cleaner
		text := append(c.text(raw[:cut]), c.text(raw[cut:])...)
		assert.Equal(t, "abcd\ne", string(text), "cut at %d", cut)
	}
	assert.True(t, bytes.Equal([]byte("x"), lastLine([]byte("y\nx\n"))))
}
