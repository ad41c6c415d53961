package uki

import (
	"slices"
	"strconv"
	"strings"
)

// sbatHeader is the entry that every .sbat section begins with: that of the
// format itself.
const sbatHeader = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md"

// sbatFields is how many fields an entry has.
const sbatFields = 6

// SBATEntry is one line of a .sbat section: a component by whose generation
// number it can be revoked (SBAT.md of the shim project).
type SBATEntry struct {
	Component  string `json:"component"`
	Generation string `json:"generation"`
	Vendor     string `json:"vendor,omitempty"`
	Package    string `json:"package,omitempty"`
	Version    string `json:"version,omitempty"`
	URL        string `json:"url,omitempty"`
}

// parseSBAT reads the text of a .sbat section; fields that a line lacks are
// empty.
func parseSBAT(text string) []SBATEntry {
	var entries []SBATEntry
	for _, line := range sbatLines(text) {
		f := append(strings.SplitN(line, ",", sbatFields), make([]string, sbatFields)...)
		entries = append(entries, SBATEntry{f[0], f[1], f[2], f[3], f[4], f[5]})
	}
	return entries
}

// sbatLines are the lines of a .sbat section that are not empty.
func sbatLines(text string) []string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\x00"), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// mergeSBAT adds the entries of more to those of own, and returns a section's
// content; empty where nothing is new.
func mergeSBAT(own string, more ...string) string {
	lines := sbatLines(own)
	had := len(lines)
	if had == 0 {
		lines = []string{sbatHeader}
	}
	for _, text := range more {
		for _, line := range sbatLines(text) {
			if component, _, _ := strings.Cut(line, ","); component != "sbat" && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) <= max(1, had) {
		return ""
	}
	return strings.Join(lines, "\n") + "\n\x00"
}

// checkSBAT refuses entries that shim would refuse the whole UKI for. Its error
// wraps ErrNotUKI.
func checkSBAT(text string) error {
	for _, line := range sbatLines(text) {
		fields := strings.Split(line, ",")
		if len(fields) != sbatFields || slices.Contains(fields, "") {
			return notUKI("the SBAT entry %.100q has to have %d fields, with commas between them: component, generation, vendor, package, version, URL", line, sbatFields)
		}
		if generation, err := strconv.ParseUint(fields[1], 10, 16); err != nil || generation == 0 {
			return notUKI("the SBAT entry %.100q has generation %q: it is a number from 1 to 65535", line, fields[1])
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			return notUKI("the SBAT entry %.100q has characters that are not printable ASCII", line)
		}
	}
	return nil
}
