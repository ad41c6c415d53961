package render

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// MaxScript bounds a script, in bytes, whoever wrote it.
	MaxScript = 64 << 10
	// MaxCommandLine bounds a kernel's command line, in bytes: x86 and arm64
	// kernels cut off what comes after that (COMMAND_LINE_SIZE is 2048).
	MaxCommandLine = 2047
	// MaxArguments bounds the kernel arguments of one plan, in bytes, so that
	// there is room for what the default script adds.
	MaxArguments = 1280
	maxArgument  = 256
	maxURL       = 2048
)

// CheckArgument says whether arg can be one argument on the kernel's command
// line. iPXE splits a line at white space, takes the words #…, ||, && and ; for
// itself, expands ${…}, and joins a line that ends in a backslash with the next.
// It returns ErrInvalid.
func CheckArgument(arg string) error {
	switch {
	case arg == "":
		return fmt.Errorf("%w: a kernel argument is empty", boot.ErrInvalid)
	case len(arg) > maxArgument:
		return fmt.Errorf("%w: the kernel argument %q has %d bytes; at most %d are possible", boot.ErrInvalid, clip(arg), len(arg), maxArgument)
	case !printable(arg):
		return fmt.Errorf("%w: the kernel argument %q has a space, a control character or something else that is not printable ASCII; give each argument as an item of its own", boot.ErrInvalid, clip(arg))
	case strings.Contains(arg, "${"), arg[len(arg)-1] == '$':
		return fmt.Errorf("%w: the kernel argument %q contains ${ or ends in $, which iPXE may expand; a script template can say ${…} itself", boot.ErrInvalid, clip(arg))
	case arg[len(arg)-1] == '\\':
		return fmt.Errorf("%w: the kernel argument %q ends in a backslash, which would join the next line to it", boot.ErrInvalid, clip(arg))
	case arg[0] == '#', arg == "||", arg == "&&", arg == ";":
		return fmt.Errorf("%w: the kernel argument %q is a comment or separator to iPXE", boot.ErrInvalid, clip(arg))
	}
	return nil
}

// CheckArguments checks the arguments of one plan, each and together. It returns
// ErrInvalid.
func CheckArguments(args []string) error {
	n := len(args)
	for i, arg := range args {
		if err := CheckArgument(arg); err != nil {
			return fmt.Errorf("kernelArguments[%d]: %w", i, err)
		}
		n += len(arg)
	}
	if n > MaxArguments {
		return fmt.Errorf("%w: the kernelArguments have %d bytes with the spaces between them; at most %d fit on a kernel's command line beside what a boot needs", boot.ErrInvalid, n, MaxArguments)
	}
	return nil
}

// CheckURL says whether a user's URL of a kernel, an initrd or a squashfs can be
// fetched by a machine. It returns ErrInvalid.
func CheckURL(s string) error {
	fail := func(what string) error {
		return fmt.Errorf("%w: the URL %q %s", boot.ErrInvalid, clip(s), what)
	}
	if s == "" {
		return fmt.Errorf("%w: the URL is empty", boot.ErrInvalid)
	}
	if len(s) > maxURL {
		return fail(fmt.Sprintf("has %d bytes; at most %d are possible", len(s), maxURL))
	}
	if !printable(s) {
		return fail("has a space, a control character or something else that is not printable ASCII; percent-encode it (a space is %20)")
	}
	if i := strings.IndexAny(s, `\{}"<>^|`+"`#"); i >= 0 {
		return fail(fmt.Sprintf("contains %q; percent-encode it (%%%02X), and for iPXE's ${…} write a scriptTemplate", s[i:i+1], s[i]))
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fail("cannot be read; it should be like http://example.com/vmlinuz")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fail("is not an absolute http or https URL such as http://example.com/vmlinuz")
	case u.User != nil:
		return fmt.Errorf("%w: the URL of %q contains a user name or password, and the script that it gets into is public; put such a script into a Secret (ipxeScriptSecretRef)", boot.ErrInvalid, u.Host)
	}
	return nil
}

// CheckScript says whether a user's own script can be handed to iPXE. It returns
// ErrInvalid, which tells no part of the script: that comes from a Secret.
func CheckScript(script []byte) error {
	switch {
	case len(script) > MaxScript:
		return fmt.Errorf("%w: the script has %d bytes; at most %d are possible", boot.ErrInvalid, len(script), MaxScript)
	case bytes.IndexByte(script, 0) >= 0:
		line := 1 + bytes.Count(script[:bytes.IndexByte(script, 0)], []byte("\n"))
		return fmt.Errorf("%w: line %d of the script has a NUL character, where iPXE would stop reading it", boot.ErrInvalid, line)
	case !isScript(script):
		return fmt.Errorf("%w: line 1 of the script must be #!ipxe, or iPXE does not know it as a script", boot.ErrInvalid)
	}
	return nil
}

// isScript says whether iPXE would take b for a script: it looks for the magic
// word and white space behind it.
func isScript(b []byte) bool {
	const magic = "#!ipxe"
	return len(b) > len(magic) && string(b[:len(magic)]) == magic && strings.IndexByte(" \t\r\n", b[len(magic)]) >= 0
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// clip bounds what an error repeats of its input.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
