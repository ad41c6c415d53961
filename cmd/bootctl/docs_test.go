package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Commands that the documentation shows have verbs and flags that are there.
func TestDocumentedCommandsAreUnderstood(t *testing.T) {
	command := regexp.MustCompile(`\bbootctl (?:uki|image) [a-z]+ [^\n|)]*`)
	count := 0
	for _, page := range []string{"../../docs/publishing.md", "../../docs/bootctl.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for block := range fenced(string(text)) {
			for _, line := range command.FindAllString(strings.ReplaceAll(block, "\\\n", " "), -1) {
				root, _ := newRootCommand(&environment{})
				args := words(line)[1:]
				verb, rest, err := root.Find(args)
				require.NoError(t, err, line)
				require.NoError(t, verb.ParseFlags(rest), line)
				require.NoError(t, verb.Args(verb, verb.Flags().Args()), line)
				count++
			}
		}
	}
	require.Greater(t, count, 20)
}

// fenced yields the blocks of code of a page, but for those that show output.
func fenced(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i, block := range strings.Split(text, "```") {
			if i%2 == 1 && !strings.HasPrefix(block, "\n") && !yield(block) {
				return
			}
		}
	}
}

// words splits a command as a shell does, as far as documentation needs it.
func words(line string) []string {
	var all []string
	word, quote := "", rune(0)
	in := false
	for _, c := range line + " " {
		switch {
		case quote == 0 && (c == '\'' || c == '"'):
			quote, in = c, true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == ' ' || c == '\n'):
			if in || word != "" {
				all = append(all, word)
			}
			word, in = "", false
		default:
			word += string(c)
		}
	}
	for i, w := range all {
		if strings.HasPrefix(w, ">") {
			return all[:i]
		}
	}
	return all
}
