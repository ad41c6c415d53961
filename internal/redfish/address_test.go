package redfish

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestAddressesAsMetal3WritesThem(t *testing.T) {
	for in, want := range map[string]Address{
		"redfish://10.0.0.5/redfish/v1/Systems/1":                       {"redfish", true, "10.0.0.5:443", "/redfish/v1/Systems/1"},
		"redfish+http://bmc.example:8000/":                              {"redfish+http", false, "bmc.example:8000", ""},
		"redfish+https://[2001:DB8::5]":                                 {"redfish+https", true, "[2001:db8::5]:443", ""},
		"redfish-virtualmedia+http://h/redfish/v1/Systems/a":            {"redfish-virtualmedia+http", false, "h:80", "/redfish/v1/Systems/a"},
		"redfish-uefihttp://h":                                          {"redfish-uefihttp", true, "h:443", ""},
		"idrac-redfish+https://h/redfish/v1/Systems/System.Embedded.1/": {"idrac-redfish+https", true, "h:443", "/redfish/v1/Systems/System.Embedded.1"},
		"idrac-virtualmedia://h":                                        {"idrac-virtualmedia", true, "h:443", ""},
		"ilo5-redfish://h":                                              {"ilo5-redfish", true, "h:443", ""},
		"ilo5-virtualmedia+https://h:8443":                              {"ilo5-virtualmedia+https", true, "h:8443", ""},
		"https://BMC.Example.":                                          {"https", true, "bmc.example:443", ""},
		"HTTP://10.0.0.5":                                               {"http", false, "10.0.0.5:80", ""},
		"https://[::ffff:10.0.0.5]":                                     {"https", true, "10.0.0.5:443", ""},
	} {
		got, err := ParseAddress(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
		again, err := ParseAddress(got.String())
		require.NoError(t, err, in)
		require.Equal(t, got, again)
	}
}

func TestAnAddressThatIsNoneIsRefusedWithWhatWouldBeRight(t *testing.T) {
	for in, says := range map[string]string{
		"":                                     "no scheme",
		"10.0.0.5":                             "no scheme",
		"ipmi://10.0.0.5":                      "not a Redfish driver",
		"libvirt://10.0.0.5":                   "not a Redfish driver",
		"redfish+ftp://10.0.0.5":               "redfish+https",
		"redfish://admin:hunter2@10.0.0.5":     "Secret",
		"redfish://10.0.0.5:0":                 "port",
		"redfish://10.0.0.5:99999":             "port",
		"redfish://10.0.0.5:":                  "port",
		"redfish://2001:db8::5":                "brackets",
		"redfish://[10.0.0.5]":                 "brackets",
		"redfish://[fe80::1%25eth0]":           "zone",
		"redfish://[fe80::1%eth0]":             "zone",
		"redfish://0.0.0.0":                    "one BMC",
		"redfish://":                           "host",
		"redfish://a b":                        "host",
		"redfish://1.2.3":                      "host",
		"redfish://h?x=1":                      "query",
		"redfish://h/redfish/v1/Systems/1#x":   "fragment",
		"redfish://h/redfish/../etc":           "segments",
		"redfish://h/redfish/%2e%2e/etc":       "characters",
		"redfish://h/redfish//v1":              "segments",
		"redfish://h/cgi-bin":                  "/redfish/v1/Systems/1",
		"https://" + strings.Repeat("a", 2000): "characters",
	} {
		_, err := ParseAddress(in)
		require.ErrorIs(t, err, boot.ErrInvalid, in)
		require.ErrorContains(t, err, says, in)
		require.NotContains(t, err.Error(), "hunter2")
		require.Less(t, len(err.Error()), 500)
	}
}

func TestAReferenceThatLeavesTheBMCIsRefused(t *testing.T) {
	a, err := ParseAddress("redfish://10.0.0.5")
	require.NoError(t, err)
	for _, bad := range []string{
		"", "redfish/v1", ".evil.example/redfish", "@evil.example/", "//evil.example/redfish", "https://evil.example/redfish", "https://10.0.0.5:443.evil.example/",
		"https://10.0.0.5:443@evil.example/", `/\evil.example`, "/redfish/../x", "/redfish/%2e%2e/x", "/redfish/v1 x", "/redfish\r\nX: y", "/", strings.Repeat("/a", 2000),
	} {
		_, err := a.pathOf(bad)
		require.ErrorIs(t, err, ErrLeavesHost, bad)
	}
	for in, want := range map[string]string{
		"/redfish/v1/Systems/1":                        "/redfish/v1/Systems/1",
		"/redfish/v1/":                                 "/redfish/v1/",
		"/redfish/v1/X#/Members/0":                     "/redfish/v1/X",
		"/redfish/v1/X?$skip=50":                       "/redfish/v1/X?$skip=50",
		"https://10.0.0.5:443/redfish/v1/Sessions/abc": "/redfish/v1/Sessions/abc",
	} {
		got, err := a.pathOf(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
}

// FuzzParseAddress protects that an address that is taken is one host and a plain
// path, and reads back as itself.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"redfish://10.0.0.5/redfish/v1/Systems/1", "redfish+http://h:1", "https://[2001:db8::5]:8443/", "idrac-virtualmedia+https://h", "redfish://u:p@h", "ipmi://h",
		"redfish://h/redfish/../x", "redfish://h.", "redfish://[::1%25x]", "http://::1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			require.ErrorIs(t, err, boot.ErrInvalid)
			return
		}
		again, err := ParseAddress(a.String())
		require.NoError(t, err, a.String())
		require.Equal(t, a, again)
		require.NotContains(t, a.String(), "@"+a.Host)
		require.NotContains(t, a.SystemPath+"/", "/../", s)
		if a.SystemPath != "" {
			path, err := a.pathOf(a.SystemPath)
			require.NoError(t, err, a.SystemPath)
			require.Equal(t, a.SystemPath, path)
		}
	})
}
