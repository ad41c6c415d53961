package host

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The queue takes a negative time for none, and what a BMC is asked takes time.
func TestAWaitThatIsOverAlreadyStillComesBack(t *testing.T) {
	v := &visit{}
	require.NoError(t, v.wait(-time.Second, "waits"))
	require.Positive(t, v.after)
}

func TestMessagesOfAStatusAreBoundedAndOnOneLine(t *testing.T) {
	require.Equal(t, "a b", clip(" a\n\tb "))
	long := clip(string(make([]byte, 5000)) + "ä")
	require.LessOrEqual(t, len(long), maxMessage)
}
