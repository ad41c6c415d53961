package uki

import (
	"iter"
	"slices"
	"strings"
)

// maxProfiles is how many profiles systemd's tools look at.
const maxProfiles = 256

// repeatable sections are alternatives of which the stub chooses one; any other
// section comes once in a profile.
var repeatable = []string{".dtb", ".dtbauto", ".efifw"}

// profiles are the sections of a multi-profile UKI (UAPI.5): the base profile,
// which all share, and the others, each of which begins with its .profile.
type profiles struct {
	base   []SectionHeader
	others [][]SectionHeader
}

// splitProfiles sorts sections by profile.
func splitProfiles(sections []SectionHeader) profiles {
	var p profiles
	for _, s := range sections {
		switch last := len(p.others) - 1; {
		case s.Name == ".profile":
			p.others = append(p.others, []SectionHeader{s})
		case last >= 0:
			p.others[last] = append(p.others[last], s)
		default:
			p.base = append(p.base, s)
		}
	}
	return p
}

// bootable yields what can be booted, each with all sections of its own: the
// profiles, or the base profile where there are no others. What a profile has
// takes the place of all sections of that name in the base profile.
func (p profiles) bootable() iter.Seq2[int, []SectionHeader] {
	return func(yield func(int, []SectionHeader) bool) {
		if len(p.others) == 0 {
			yield(0, p.base)
			return
		}
		for number, own := range p.others {
			sections := slices.Clone(own)
			for _, s := range p.base {
				if _, ok := sectionNamed(own, s.Name); !ok {
					sections = append(sections, s)
				}
			}
			if !yield(number, sections) {
				return
			}
		}
	}
}

// check refuses sections that come twice in a profile, by an error that refuse
// makes.
func (p profiles) check(refuse func(format string, args ...any) error) error {
	if len(p.others) > maxProfiles {
		return refuse("it has %d profiles, more than %d", len(p.others), maxProfiles)
	}
	for _, sections := range append([][]SectionHeader{p.base}, p.others...) {
		for i, s := range sections {
			if _, twice := sectionNamed(sections[:i], s.Name); twice && !slices.Contains(repeatable, s.Name) {
				return refuse("it has two sections %q in one profile", s.Name)
			}
		}
	}
	return nil
}

func sectionNamed(sections []SectionHeader, name string) (SectionHeader, bool) {
	i := slices.IndexFunc(sections, func(s SectionHeader) bool { return s.Name == name })
	if i < 0 {
		return SectionHeader{}, false
	}
	return sections[i], true
}

// ParseOSRelease reads the assignments of an os-release file (os-release(5)). Lines
// that are no assignment are left out.
func ParseOSRelease(text []byte) map[string]string { return parseEnvironment(string(text)) }

// parseEnvironment reads the assignments of an os-release file or a .profile
// section (os-release(5)): KEY=value lines with a shell's quotes. Lines that are
// no assignment are left out.
func parseEnvironment(text string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.Trim(line, "\x00 \t\r\n"), "=")
		if ok && isKey(key) {
			values[key] = unquote(value)
		}
	}
	return values
}

func isKey(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// unquote takes a shell's quotes off a word.
func unquote(word string) string {
	var out strings.Builder
	var quote byte
	for i := 0; i < len(word); i++ {
		c := word[i]
		switch {
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(word) && (quote == 0 || strings.IndexByte("\"$`\\", word[i+1]) >= 0):
			i++
			out.WriteByte(word[i])
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}
