package discovers

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/test/lab"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Command {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := Serve(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestDiscoversAreAnswered(t *testing.T) {
	lab.Require(t, lab.Root)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sent, answered, cpu, err := Measure(ctx, 200, 1)
	require.NoError(t, err)
	require.Equal(t, 200, sent)
	require.Equal(t, 200, answered)
	require.Positive(t, cpu+0.01)
	t.Logf("%.2f s of CPU", cpu)
}

// The server gives no loss away: asked more than its limit allows, it must show.
func TestLossIsSeen(t *testing.T) {
	lab.Require(t, lab.Root)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sent, answered, _, err := Measure(ctx, 20000, 1)
	require.NoError(t, err)
	require.Less(t, answered, sent)
}
