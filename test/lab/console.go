package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	expect "github.com/Netflix/go-expect"
	"golang.org/x/term"
)

// Errors of Expect.
var (
	// ErrNotSaid is for a console that did not say in time what was expected.
	ErrNotSaid = errors.New("the console did not say it in time")
	// ErrOff is for a machine that is off, or went off before.
	ErrOff = errors.New("the machine is off")
)

// console is a serial console of one power cycle. What the machine says is
// read at once and kept, so that it never waits for us; Expect goes through it
// in order.
type console struct {
	expect   *expect.Console
	input    io.WriteCloser
	finished chan struct{} // closed when all that was said is in text

	mu    sync.Mutex
	grown *sync.Cond
	text  []byte // without escape sequences and carriage returns
	ended bool
}

// newConsole reads output until it ends; live, if not nil, gets a copy of the
// text as it comes.
func newConsole(output io.Reader, input io.WriteCloser, live io.Writer) (*console, error) {
	e, err := expect.NewConsole()
	if err != nil {
		return nil, fmt.Errorf("opening a console: %w", err)
	}
	if err := makeRaw(e.Tty()); err != nil {
		_ = e.Close()
		return nil, fmt.Errorf("opening a console: %w", err)
	}
	c := &console{expect: e, input: input, finished: make(chan struct{})}
	c.grown = sync.NewCond(&c.mu)
	go c.read(output, live)
	go c.feed()
	return c, nil
}

// makeRaw keeps the pseudo-terminal from rewriting what passes through it.
func makeRaw(tty *os.File) error {
	raw, err := tty.SyscallConn() // Fd would make reads and writes block in Close
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { _, failed = term.MakeRaw(int(fd)) })
	return errors.Join(err, failed)
}

// read keeps what the machine says.
func (c *console) read(output io.Reader, live io.Writer) {
	defer close(c.finished)
	var clean cleaner
	buf := make([]byte, 4096)
	for {
		n, err := output.Read(buf)
		text := clean.text(buf[:n])
		if live != nil {
			_, _ = live.Write(text) // a broken terminal must not stop the machine
		}
		c.mu.Lock()
		c.text = append(c.text, text...)
		c.ended = err != nil
		c.mu.Unlock()
		c.grown.Broadcast()
		if err != nil {
			return
		}
	}
}

// feed passes the text on to go-expect, as fast as Expect is called.
func (c *console) feed() {
	defer c.expect.Tty().Close()
	for at := 0; ; {
		c.mu.Lock()
		for len(c.text) == at && !c.ended {
			c.grown.Wait()
		}
		text := c.text[at:]
		c.mu.Unlock()
		if len(text) == 0 {
			return
		}
		n, err := c.expect.Tty().Write(text)
		if err != nil {
			return
		}
		at += n
	}
}

// transcript returns all that was said so far.
func (c *console) transcript() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

func (c *console) send(text string) error {
	if _, err := io.WriteString(c.input, text); err != nil {
		return fmt.Errorf("typing on the console: %w", err)
	}
	return nil
}

// wait reads on until m matches, and returns what it read.
func (c *console) wait(m *matcher, timeout time.Duration) (string, error) {
	m.deadline = time.Now().Add(timeout)
	read, err := c.expect.Expect(
		func(o *expect.ExpectOpts) error { o.Matchers = append(o.Matchers, m); return nil },
		expect.WithTimeout(timeout))
	switch {
	case m.late || os.IsTimeout(err):
		return read, fmt.Errorf("%w: %s within %s", ErrNotSaid, m.what, timeout)
	case err != nil: // end of file, under one name or another
		return read, fmt.Errorf("%w and did not say %s", ErrOff, m.what)
	}
	return read, nil
}

// close ends the console; what was said remains.
func (c *console) close() {
	_ = c.input.Close()
	_ = c.expect.Close()
}

// matcher is asked by go-expect after every character. It looks only at the end
// of what was read, so that a long console costs no more than a short one, and
// it bounds the whole wait, where go-expect bounds the time between characters.
type matcher struct {
	what     string
	match    func(read []byte) bool
	deadline time.Time
	late     bool
}

func matchText(text string) *matcher {
	return &matcher{
		what:  fmt.Sprintf("%q", text),
		match: func(read []byte) bool { return bytes.HasSuffix(read, []byte(text)) },
	}
}

// matchLine holds pattern against each complete line.
func matchLine(pattern *regexp.Regexp) *matcher {
	return &matcher{
		what: fmt.Sprintf("a line that matches %q", pattern),
		match: func(read []byte) bool {
			return bytes.HasSuffix(read, []byte("\n")) && pattern.Match(lastLine(read))
		},
	}
}

// lastLine returns the line that read ends with, without its newline.
func lastLine(read []byte) []byte {
	read = bytes.TrimSuffix(read, []byte("\n"))
	return read[bytes.LastIndexByte(read, '\n')+1:]
}

func (m *matcher) Match(v any) bool {
	read, ok := v.(*bytes.Buffer)
	if !ok { // an error: the console's end
		return false
	}
	if m.match(read.Bytes()) {
		return true
	}
	m.late = time.Now().After(m.deadline)
	return m.late
}

func (m *matcher) Criteria() any { return m.what }

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
