package main

import (
	"strings"
	"unicode"
)

// pageWidth is how many columns of a terminal text is laid out for.
const pageWidth = 80

// wideRunes are the characters that take two columns of a terminal (Unicode's annex 11,
// classes W and F), as far as fonts agree on them.
var wideRunes = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0x33ff, 1}, {0x3400, 0x4dbf, 1}, {0x4e00, 0x9fff, 1}, {0xa000, 0xa4cf, 1},
		{0xa960, 0xa97f, 1}, {0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1}, {0xff00, 0xff60, 1}, {0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{{0x1f300, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1}, {0x1f900, 0x1f9ff, 1}, {0x20000, 0x3fffd, 1}},
}

// columns is how many columns of a terminal a text takes.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += columnsOf(r)
	}
	return n
}

func columnsOf(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Cc):
		return 0
	case unicode.Is(wideRunes, r):
		return 2
	}
	return 1
}

// cut shortens a text to so many columns; what was cut ends in an ellipsis.
func cut(s string, width int) string {
	if columns(s) <= width {
		return s
	}
	var b strings.Builder
	used := 0
	for _, r := range s {
		if used+columnsOf(r) > width-1 {
			break
		}
		b.WriteRune(r)
		used += columnsOf(r)
	}
	return b.String() + "…"
}

// pad fills a text up to so many columns.
func pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-columns(s))) }

// wrap breaks a text into lines of at most so many columns, the first behind first and
// the others behind rest. A word that is longer than a line, such as a digest, is broken.
func wrap(text string, width int, first, rest string) string {
	var b strings.Builder
	line, empty := first, true
	flush := func() {
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		line, empty = rest, true
	}
	for _, word := range strings.Fields(text) {
		for columns(line)+columns(word)+1 > width && !empty {
			flush()
		}
		for columns(line)+columns(word) > width {
			head := breakWord(word, width-columns(line))
			line += head
			word = word[len(head):]
			flush()
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	if !empty {
		flush()
	}
	return b.String()
}

// breakWord returns as much of a word as fits, but at least one character.
func breakWord(word string, width int) string {
	used := 0
	for i, r := range word {
		if used += columnsOf(r); used > width && i > 0 {
			return word[:i]
		}
	}
	return word
}

// plain makes one line of a text that somebody else wrote: no character of it moves the
// cursor of a terminal.
func plain(s string) string {
	return oneLine(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s))
}
