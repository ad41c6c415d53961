package qemu

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// ErrOff is for a machine that is off, or went off before.
var ErrOff = errors.New("the machine is off")

// maxConsole bounds what is kept of one power cycle's console, in bytes. What is
// said after that reaches MachineOptions.Output only.
const maxConsole = 64 << 20

// Console is the serial console of one power cycle, resets from inside included.
// What the machine says is read at once and kept, so that it never waits for a
// reader.
type Console struct {
	live io.Writer

	mu    sync.Mutex
	grown *sync.Cond
	input io.Writer // of the QEMU that runs
	clean cleaner
	text  []byte // without escape sequences and carriage returns
	ended bool
}

// newConsole makes a console that is written by QEMU and ended by end; live, if
// not nil, gets a copy of the text as it comes.
func newConsole(live io.Writer) *Console {
	c := &Console{live: live}
	c.grown = sync.NewCond(&c.mu)
	return c
}

// Write is for QEMU: it keeps what the machine says.
func (c *Console) Write(raw []byte) (int, error) {
	c.mu.Lock()
	text := c.clean.text(raw)
	c.text = append(c.text, text[:min(len(text), maxConsole-len(c.text))]...)
	c.mu.Unlock()
	c.grown.Broadcast()
	if c.live != nil {
		_, _ = c.live.Write(text) // a broken terminal must not stop the machine
	}
	return len(raw), nil
}

// end says that nothing more will be said.
func (c *Console) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.grown.Broadcast()
}

// connect makes input the machine's keyboard.
func (c *Console) connect(input io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.input = input
}

// Transcript returns all that was said so far.
func (c *Console) Transcript() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Reader reads all that was said, and waits for more; it ends with io.EOF when the
// power cycle has ended. It may not be read concurrently; there may be many.
func (c *Console) Reader() io.Reader { return &reader{console: c} }

type reader struct {
	console *Console
	at      int // of its text
}

func (r *reader) Read(p []byte) (int, error) {
	c := r.console
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.text) == r.at && !c.ended {
		c.grown.Wait()
	}
	if len(c.text) == r.at {
		return 0, io.EOF
	}
	n := copy(p, c.text[r.at:])
	r.at += n
	return n, nil
}

// Send types text.
func (c *Console) Send(text string) error {
	c.mu.Lock()
	input := c.input
	c.mu.Unlock()
	if _, err := io.WriteString(input, text); err != nil {
		return fmt.Errorf("typing on the console: %w", err)
	}
	return nil
}

// cleaner drops escape sequences and carriage returns from a stream.
type cleaner struct {
	state byte // 0, or the kind of sequence that we are in: ESC, '[' or '('
}

func (c *cleaner) text(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for _, b := range raw {
		switch c.state {
		case 0:
			if b == 0x1b {
				c.state = b
			} else if b != '\r' && b != 0 {
				out = append(out, b)
			}
		case 0x1b:
			c.state = 0
			if strings.IndexByte("[(", b) >= 0 {
				c.state = b
			}
		case '[':
			if b >= 0x40 && b <= 0x7e { // the final byte
				c.state = 0
			}
		default:
			c.state = 0
		}
	}
	return out
}
