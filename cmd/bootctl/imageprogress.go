package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/boot-operator/boot-operator/internal/publish"
)

const (
	// drawEvery is how often a bar changes.
	drawEvery = 100 * time.Millisecond
	// barWidth is that of the bar itself, in characters.
	barWidth = 24
	// worthALine is how large a transfer is that is told of when it begins, in bytes.
	worthALine = 1_000_000
)

// progress tells how far transfers are: by a bar on a terminal, by a line for what is
// done elsewhere.
type progress struct {
	out      io.Writer
	terminal bool
	width    int
	now      func() time.Time

	name  string
	began time.Time
	from  int64
	drawn time.Time
	bar   bool // there is one in the line of the cursor
}

// newProgress returns the progress for this environment.
func newProgress(env *environment, quiet bool) publish.Progress {
	if quiet {
		return nil
	}
	p := &progress{out: env.Err, now: time.Now, width: 80}
	if f, is := env.Err.(*os.File); is && term.IsTerminal(int(f.Fd())) {
		p.terminal = true
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			p.width = width
		}
	}
	return p.note
}

// note is a publish.Progress.
func (p *progress) note(e publish.Event) {
	switch e.Step {
	case publish.Reading, publish.Sending, publish.Receiving:
		p.draw(e)
	case publish.Present:
		p.line(fmt.Sprintf("%s: there already (%s)", e.Name, amount(e.Size)))
	case publish.Repeating:
		p.line(fmt.Sprintf("%s: broke, and is tried again: %v", e.Name, e.Err))
	case publish.Done:
		p.line(fmt.Sprintf("%s: done (%s)", e.Name, amount(e.Size)))
	}
}

// line prints a line in place of the bar.
func (p *progress) line(text string) {
	if p.bar {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.bar = false
	}
	fmt.Fprintln(p.out, visible(text))
	p.name = ""
}

// draw draws the bar anew, now and then.
func (p *progress) draw(e publish.Event) {
	now := p.now()
	if name := string(e.Step) + " " + e.Name; name != p.name {
		p.name, p.began, p.from, p.drawn = name, now, e.At, time.Time{}
		if !p.terminal && e.Step != publish.Reading && e.Size >= worthALine {
			fmt.Fprintf(p.out, "%s: %s %s\n", visible(e.Name), e.Step, amount(e.Size))
		}
	}
	if !p.terminal || (now.Sub(p.drawn) < drawEvery && e.At < e.Size) {
		return
	}
	p.drawn, p.bar = now, true
	fmt.Fprint(p.out, "\r", fit(p.text(e, now), p.width-1), "\x1b[K")
}

// text is the bar.
func (p *progress) text(e publish.Event, now time.Time) string {
	part := 1.0
	if e.Size > 0 {
		part = min(1, float64(e.At)/float64(e.Size))
	}
	full := int(part * barWidth)
	rate := ""
	if seconds := now.Sub(p.began).Seconds(); seconds >= 1 {
		rate = fmt.Sprintf("  %s/s", amount(int64(float64(e.At-p.from)/seconds)))
	}
	return fmt.Sprintf("%s: %s  [%s%s] %3.0f%%  %s of %s%s", visible(e.Name), e.Step,
		strings.Repeat("#", full), strings.Repeat(" ", barWidth-full), part*100, amount(e.At), amount(e.Size), rate)
}

// fit cuts a text to a number of characters.
func fit(s string, width int) string {
	if r := []rune(s); len(r) > width && width >= 0 {
		return string(r[:width])
	}
	return s
}
