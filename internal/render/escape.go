package render

import (
	"fmt"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// inURL and inWord are the bytes that need no escape: inURL those of RFC 3986
// without the # of a fragment, which no client sends; inWord its unreserved
// ones and the colon of a digest.
var inURL, inWord [256]bool

func init() {
	for c := range 256 {
		b := byte(c)
		alnum := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		inWord[c] = alnum || b != 0 && strings.IndexByte("-._~:", b) >= 0
		inURL[c] = inWord[c] || b != 0 && strings.IndexByte("/?@!&'()*+,;=%[]", b) >= 0
	}
}

// escapeURL percent-encodes everything in a URL that could mean something to a
// script: white space and line ends, ${, backslashes, quotes, # and |.
func escapeURL(s string) string { return escape(s, &inURL) }

// escapeWord does the same for a part of a URL and for what machines say of
// themselves, of which only letters, digits and -._~: stay as they are.
func escapeWord(s string) string { return escape(s, &inWord) }

func escape(s string, keep *[256]bool) string {
	n := 0
	for i := range len(s) {
		if !keep[s[i]] {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; keep[c] {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

// safeURL returns a URL that is safe in a script. It returns ErrInvalid when s
// is not an absolute http or https URL.
func safeURL(s string) (string, error) {
	rest, ok := strings.CutPrefix(s, "http://")
	if !ok {
		rest, ok = strings.CutPrefix(s, "https://")
	}
	if !ok || rest == "" || rest[0] == '/' || len(s) > maxURL {
		return "", fmt.Errorf("%w: %q is not an absolute http or https URL of at most %d bytes", boot.ErrInvalid, clip(s), maxURL)
	}
	return escapeURL(s), nil
}
