package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

// maxMessage bounds one line of QEMU's monitor, in bytes.
const maxMessage = 1 << 20

// monitor is our end of QEMU's monitor, which speaks QMP: JSON texts, one a line
// (QEMU Machine Protocol, "QMP protocol specification"). QEMU reports there why it
// ends.
type monitor struct {
	conn     io.ReadWriteCloser
	finished chan struct{} // closed when QEMU has said its last, and ended is set
	ended    End

	mu      sync.Mutex // one command at a time
	asked   int        // how many so far
	replies chan reply
}

// command is what we say, reply what QEMU answers, event what it says unasked.
type command struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        int    `json:"id"`
}

type reply struct {
	ID     int             `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

type event struct {
	Event string `json:"event"`
	Data  struct {
		Reason string `json:"reason"`
	} `json:"data"`
}

// monitorArguments are QEMU's: it waits for the monitor's "cont".
func monitorArguments() []string {
	return []string{"-S", "-chardev", "socket,id=monitor,fd=3", "-mon", "chardev=monitor,mode=control"}
}

// attachMonitor gives cmd, a QEMU, a monitor on its first extra file. The caller
// closes theirs once QEMU has started, or could not be.
func attachMonitor(cmd *exec.Cmd) (m *monitor, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a monitor: %w", err)
	}
	unix.CloseOnExec(pair[0])
	unix.CloseOnExec(pair[1]) // exec.Cmd passes on a copy
	_ = unix.SetNonblock(pair[0], true)
	theirs = os.NewFile(uintptr(pair[1]), "monitor")
	cmd.ExtraFiles = []*os.File{theirs}
	return newMonitor(os.NewFile(uintptr(pair[0]), "monitor")), theirs, nil
}

func newMonitor(conn io.ReadWriteCloser) *monitor {
	m := &monitor{conn: conn, finished: make(chan struct{}), replies: make(chan reply, 16)}
	go m.read()
	return m
}

// read notes why QEMU ends, and passes replies on to execute.
func (m *monitor) read() {
	defer close(m.finished)
	defer m.conn.Close()
	lines := bufio.NewScanner(m.conn)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		var said struct {
			event
			reply
		}
		if json.Unmarshal(lines.Bytes(), &said) != nil {
			continue
		}
		switch {
		case said.Event == "SHUTDOWN":
			m.ended = endOf(said.Data.Reason)
		case said.Return != nil || said.Error != nil:
			select {
			case m.replies <- said.reply:
			default: // nobody asks any more
			}
		}
	}
}

// endOf translates QEMU's ShutdownCause.
func endOf(reason string) End {
	switch reason {
	case "guest-reset", "subsystem-reset":
		return GuestReset
	case "guest-shutdown":
		return GuestShutdown
	case "guest-panic":
		return GuestPanic
	default:
		return Unplugged
	}
}

// execute runs a command and waits until QEMU has answered.
func (m *monitor) execute(ctx context.Context, name string, arguments any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	line, err := json.Marshal(command{Execute: name, Arguments: arguments, ID: m.asked})
	if err != nil {
		return fmt.Errorf("encoding QEMU's command %s: %w", name, err)
	}
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("asking QEMU for %s: %w", name, err)
	}
	if err := m.answer(ctx); err != nil {
		return fmt.Errorf("asking QEMU for %s: %w", name, err)
	}
	return nil
}

// answer waits for the reply to the last command, past late ones to others.
func (m *monitor) answer(ctx context.Context) error {
	for {
		select {
		case answer := <-m.replies:
			switch {
			case answer.ID != m.asked:
			case answer.Error != nil:
				return fmt.Errorf("it answers %q", answer.Error.Desc)
			default:
				return nil
			}
		case <-m.finished:
			return errGone
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errGone = errors.New("it ended without an answer")

// run lets the machine run: QEMU was started with its CPUs stopped, so that cables
// can be pulled first, for which there is no option.
func (m *monitor) run(ctx context.Context, unplugged []int) error {
	if err := m.execute(ctx, "qmp_capabilities", nil); err != nil {
		return err
	}
	for _, i := range unplugged {
		link := map[string]any{"name": fmt.Sprintf("nic%d", i), "up": false}
		if err := m.execute(ctx, "set_link", link); err != nil {
			return err
		}
	}
	return m.execute(ctx, "cont", nil)
}
