package qemu

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeQEMU answers a monitor's commands, one after the other, with what answer
// returns for the number of each; it ends the connection after an empty answer.
func fakeQEMU(t *testing.T, answer func(id int, line string) string) *monitor {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	go func() {
		defer theirs.Close()
		fmt.Fprintln(theirs, `{"QMP": {"version": {}, "capabilities": []}}`)
		lines := bufio.NewScanner(theirs)
		for id := 1; lines.Scan(); id++ {
			said := answer(id, lines.Text())
			if said == "" {
				return
			}
			fmt.Fprintln(theirs, said)
		}
	}()
	return newMonitor(ours)
}

func TestAMachineRunsWhenItsCablesArePulled(t *testing.T) {
	var asked []string
	m := fakeQEMU(t, func(id int, line string) string {
		asked = append(asked, line)
		return fmt.Sprintf("{\"event\": \"NIC\"}\nnot JSON\n{\"return\": {}, \"id\": %d}", id)
	})
	require.NoError(t, m.run(t.Context(), []int{0, 2}))
	assert.Equal(t, []string{
		`{"execute":"qmp_capabilities","id":1}`,
		`{"execute":"set_link","arguments":{"name":"nic0","up":false},"id":2}`,
		`{"execute":"set_link","arguments":{"name":"nic2","up":false},"id":3}`,
		`{"execute":"cont","id":4}`,
	}, asked)
}

func TestWhatQEMURefusesIsAnError(t *testing.T) {
	m := fakeQEMU(t, func(id int, _ string) string {
		return fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "not so"}, "id": %d}`, id)
	})
	assert.ErrorContains(t, m.execute(t.Context(), "cont", nil), `cont: it answers "not so"`)
}

func TestALateReplyIsNotTheNextCommands(t *testing.T) {
	m := fakeQEMU(t, func(id int, _ string) string {
		if id == 1 {
			return `{"event": "BUSY"}`
		}
		return `{"error": {"desc": "for the first one"}, "id": 1}` + "\n" + `{"return": {}, "id": 2}`
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, m.execute(ctx, "stop", nil), context.DeadlineExceeded)
	assert.NoError(t, m.execute(t.Context(), "cont", nil))
}

func TestAMonitorKnowsWhyQEMUEnds(t *testing.T) {
	for reason, want := range map[string]End{
		"guest-reset": GuestReset, "guest-shutdown": GuestShutdown, "guest-panic": GuestPanic, "host-signal": Unplugged,
	} {
		m := fakeQEMU(t, func(id int, _ string) string {
			if id > 1 {
				return ""
			}
			return `{"return": {}, "id": 1}` + "\n" + `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "` + reason + `"}}`
		})
		require.NoError(t, m.execute(t.Context(), "cont", nil))
		require.ErrorIs(t, m.execute(t.Context(), "cont", nil), errGone)
		<-m.finished
		assert.Equal(t, want, m.ended, reason)
	}
}
