package httpserver

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestLabels(t *testing.T) {
	many := make([]string, 0, 100)
	for i := range 100 {
		many = append(many, fmt.Sprintf("k%d=v", i))
	}
	long := strings.Repeat("x", maxLabel)
	for name, tt := range map[string]struct {
		query string
		want  map[string]string
	}{
		"none":             {"", nil},
		"what iPXE sends":  {"serial=AB%20C&net0/mac=1&platform=efi&asset=", map[string]string{"serial": "AB C", "net0/mac": "1", "platform": "efi"}},
		"the first counts": {"a=1&a=2", map[string]string{"a": "1"}},
		"odd keys":         {"A=1&a:b=1&=1&" + strings.Repeat("k", maxLabelKey+1) + "=1&ok.y-/=1", map[string]string{"ok.y-/": "1"}},
		"odd values":       {"a=%0a&b=%00&c=%c3%a4&d=%zz&e=" + long + "x&f=" + long, map[string]string{"f": long}},
		"never a token":    {"token=x&%74oken=y&a=1", map[string]string{"a": "1"}},
	} {
		require.Equal(t, tt.want, readSaid(tt.query).labels, name)
	}
	require.Len(t, readSaid(strings.Join(many, "&")).labels, maxLabels)
	require.Len(t, readSaid(strings.Repeat("mac="+string(macA)+"&", 500)).macs, maxNames)
}

func TestTemplatesSeeWhatTheMachineSays(t *testing.T) {
	w := newWorld(t, ipxe)
	w.plan.ScriptTemplate = "#!ipxe\necho {{.Labels.serial}}\n"
	base := w.bootServer()
	require.Equal(t, "#!ipxe\necho A1\n", script(t, addrC, base+"/ipxe/"+string(macA)+"?serial=A1"))
	require.Equal(t, "#!ipxe\necho \n", script(t, addrC, base+"/ipxe/"+string(macA)))
	require.Nil(t, w.plan.Machine.Labels, "the plan is shared")
	// Known defect 13.
	evil := script(t, addrA, base+"/ipxe/"+string(macA)+"?serial=x%0ashell%20%24%7bx%7d")
	require.Equal(t, 2, strings.Count(evil, "\n"))
	require.Equal(t, 2, strings.Count(script(t, addrA, base+"/ipxe/"+string(macA)+"?serial=x;%20shell%20||%20$%7bx%7d"), "\n"))
	require.Equal(t, 200, ask(t, addrA, http.MethodGet, base+"/ipxe/"+string(macA)).StatusCode)
}

// FuzzLabels: no query yields more, longer or other labels than are allowed, nor
// names that are not canonical.
func FuzzLabels(f *testing.F) {
	for _, s := range []string{"", "a=b", "mac=" + string(macA), "uuid=" + string(uuidA), "a=%0a&token=1", "&&==&", strings.Repeat("a=1&", 99)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := readSaid(query)
		require.LessOrEqual(t, len(got.labels), maxLabels)
		for k, v := range got.labels {
			require.True(t, isLabelKey(k) && isLabel(v) && v != "" && k != "token", "%q=%q", k, v)
		}
		require.LessOrEqual(t, len(got.macs), maxNames)
		for _, m := range got.macs {
			again, err := boot.ParseMAC(string(m))
			require.NoError(t, err)
			require.Equal(t, m, again)
		}
		require.LessOrEqual(t, len(got.uuids), maxNames)
		for _, u := range got.uuids {
			again, err := boot.ParseUUID(string(u))
			require.NoError(t, err)
			require.Equal(t, u, again)
		}
	})
}
