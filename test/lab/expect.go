package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	expect "github.com/Netflix/go-expect"
	"golang.org/x/term"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// Errors of Expect.
var (
	// ErrNotSaid is for a console that did not say in time what was expected.
	ErrNotSaid = errors.New("the console did not say it in time")
	// ErrOff is for a machine that is off, or went off before.
	ErrOff = qemu.ErrOff
)

// reading is how far Expect has come through the console of one power cycle.
type reading struct {
	expect *expect.Console
}

// newReading reads text from its beginning, as fast as Expect is called.
func newReading(text io.Reader) (*reading, error) {
	e, err := expect.NewConsole()
	if err != nil {
		return nil, fmt.Errorf("opening a console: %w", err)
	}
	if err := makeRaw(e.Tty()); err != nil {
		_ = e.Close()
		return nil, fmt.Errorf("opening a console: %w", err)
	}
	go func() {
		defer e.Tty().Close()
		_, _ = io.Copy(e.Tty(), text) // ends with the text, or by close
	}()
	return &reading{expect: e}, nil
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

// wait reads on until m matches, and returns what it read.
func (r *reading) wait(m *matcher, timeout time.Duration) (string, error) {
	m.deadline = time.Now().Add(timeout)
	read, err := r.expect.Expect(
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

// close ends the reading.
func (r *reading) close() { _ = r.expect.Close() }

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
