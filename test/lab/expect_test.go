package lab

import (
	"fmt"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeMachine is the other end of a console.
func fakeMachine(t *testing.T) (*reading, *io.PipeWriter) {
	t.Helper()
	output, says := io.Pipe()
	r, err := newReading(output)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = says.Close()
		r.close()
	})
	return r, says
}

func TestExpectReadsInOrderAndStopsAtTheMatch(t *testing.T) {
	r, says := fakeMachine(t)
	fmt.Fprint(says, "BdsDxe: starting\nUKI-BOOTED\nDHCP-OK 10.77.0.50\nprompt> ")
	read, err := r.wait(matchText("UKI-BOOTED"), time.Minute)
	require.NoError(t, err)
	assert.Equal(t, "BdsDxe: starting\nUKI-BOOTED", read)
	read, err = r.wait(matchLine(regexp.MustCompile(`^DHCP-OK (\S+)$`)), time.Minute)
	require.NoError(t, err)
	assert.Equal(t, "DHCP-OK 10.77.0.50", string(lastLine([]byte(read))))
	_, err = r.wait(matchText("prompt>"), time.Minute)
	require.NoError(t, err, "a prompt has no newline")
}

func TestExpectTellsSilenceFromPowerOff(t *testing.T) {
	r, says := fakeMachine(t)
	_, err := r.wait(matchText("never"), 10*time.Millisecond)
	require.ErrorIs(t, err, ErrNotSaid)
	fmt.Fprint(says, "last words")
	require.NoError(t, says.Close())
	read, err := r.wait(matchText("never"), time.Minute)
	require.ErrorIs(t, err, ErrOff)
	assert.Equal(t, "last words", read)
	assert.Contains(t, err.Error(), `"never"`)
}

func TestExpectBoundsTheWholeWaitOfAChattyMachine(t *testing.T) {
	r, says := fakeMachine(t)
	go func() {
		for {
			if _, err := fmt.Fprint(says, "."); err != nil {
				return
			}
		}
	}()
	_, err := r.wait(matchText("never"), 50*time.Millisecond)
	assert.ErrorIs(t, err, ErrNotSaid)
}
