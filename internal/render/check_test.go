package render

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestAnArgumentIsOneHarmlessWord(t *testing.T) {
	for arg, want := range map[string]string{
		"": "is empty", "a b": "a space", "a\nshell": "a space", "a\r": "a space", "a\x00": "a space", "\ta": "a space", "ä": "printable ASCII",
		"a\u2028b": "printable ASCII", "x=${uuid}": "contains ${", "${": "contains ${", "a$": "ends in $", `a\`: "backslash", `\`: "backslash", "#": "comment", "#a": "comment",
		"||": "separator", "&&": "separator", ";": "separator", strings.Repeat("x", 257): "at most 256",
	} {
		err := CheckArgument(arg)
		require.ErrorIs(t, err, boot.ErrInvalid, "%q", arg)
		require.ErrorContains(t, err, want, "%q", arg)
	}
	for _, arg := range []string{
		"quiet", "---", "-", "--x", "console=ttyS0,115200n8", `dyndbg="file`, "a#b", "a||b", "ds=nocloud;s=http://h/", "a'b", "$x", "a$b", `a\b`, "{}", "%0A", "~!@#$%^&*()_+|",
		strings.Repeat("x", 256),
	} {
		require.NoError(t, CheckArgument(arg), "%q", arg)
	}
}

func TestArgumentsThatDoNotFitAreRefused(t *testing.T) {
	require.ErrorContains(t, CheckArguments([]string{"a", "b c"}), "kernelArguments[1]")
	many := make([]string, 64)
	for i := range many {
		many[i] = strings.Repeat("x", 40)
	}
	require.ErrorIs(t, CheckArguments(many), boot.ErrInvalid)
	require.NoError(t, CheckArguments(many[:31]))
	p := plan(arguments(many[:31]...), func(p *boot.Plan) { p.HasCloudInit = true })
	long := Links{Base: "http://[2001:db8:1111:2222:3333:4444:5555:6666]:8082", SecretToken: strings.Repeat("s", 80)}
	_, err := NewScripts().Script(p, long)
	require.NoError(t, err, "what CheckArguments takes has room on the command line")
}

func TestAURLThatAMachineCannotFetchIsRefused(t *testing.T) {
	for s, want := range map[string]string{
		"": "is empty", "http://h/" + strings.Repeat("x", 2048): "at most 2048", "http://h/a\nshell": "percent-encode", "http://h/a b": "%20", "http://h/\x00": "control",
		"http://h/${uuid}": "scriptTemplate", `http://h/a\`: "%5C", "http://h/#x": "%23", "http://h/ä": "printable ASCII", `http://h/"x"`: "%22", "http://h/a|b": "%7C",
		"ftp://h/x": "http or https", "//h/x": "http or https", "/x": "http or https", "http:///x": "http or https", "http://": "http or https", "x": "http or https",
		"http://:80/x": "http or https", "http://u:p@h/x": "user name or password", "http://h:port/x": "cannot be read", "http://[::1/x": "cannot be read", "http://h/%zz": "cannot be read",
	} {
		err := CheckURL(s)
		require.ErrorIs(t, err, boot.ErrInvalid, "%q", s)
		require.ErrorContains(t, err, want, "%q", s)
		require.NotContains(t, err.Error(), "\n")
		require.NotContains(t, err.Error(), ":p@", "a password is not repeated")
	}
	for _, s := range []string{"http://h/vmlinuz", "https://[fd00::1]:8443/a/b?c=d&e=f%20g", "http://10.0.0.1/~x/$y/(z);v=1,2"} {
		require.NoError(t, CheckURL(s), "%q", s)
		safe, err := safeURL(s)
		require.NoError(t, err)
		require.Equal(t, strings.ReplaceAll(s, "$", "%24"), safe)
	}
}

func TestAScriptThatIPXEDoesNotKnowIsRefused(t *testing.T) {
	for s, want := range map[string]string{
		"": "must be #!ipxe", "boot\n": "line 1 of the script must be", "#!ipxe": "must be", "#!ipxexy\n": "must be", "\ufeff#!ipxe\n": "must be", "\t#!ipxe\n": "must be", "#!gpxe\nboot\n": "must be",
		"#!ipxe\n\nx\x00y": "line 3", "#!ipxe\n" + strings.Repeat("x", MaxScript): "at most 65536",
	} {
		err := CheckScript([]byte(s))
		require.ErrorIs(t, err, boot.ErrInvalid, "%q", clip(s))
		require.ErrorContains(t, err, want, "%q", clip(s))
	}
	require.NotContains(t, CheckScript([]byte("sesame\n")).Error(), "sesame", "a Secret's content")
	for _, s := range []string{"#!ipxe\n", "#!ipxe \nboot", "#!ipxe\r\nboot\r\n", "#!ipxe\nx" + strings.Repeat("x", MaxScript-8)} {
		require.NoError(t, CheckScript([]byte(s)), "%q", clip(s))
	}
}
