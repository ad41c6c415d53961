package dhcprecipe

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestServerIsReadInEveryNotation(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.2":                       "http://10.0.0.2:8082",
		"10.0.0.2:80":                    "http://10.0.0.2:80",
		"http://10.0.0.2":                "http://10.0.0.2:8082",
		"http://10.0.0.2:8082/":          "http://10.0.0.2:8082",
		"http://10.0.0.2:8082/httpboot":  "http://10.0.0.2:8082",
		"https://10.0.0.2":               "https://10.0.0.2:8443",
		"https://10.0.0.2:443":           "https://10.0.0.2:443",
		"fd00::2":                        "http://[fd00::2]:8082",
		"[fd00::2]":                      "http://[fd00::2]:8082",
		"[FD00:0::2]:99":                 "http://[fd00::2]:99",
		"https://[fd00::2]":              "https://[fd00::2]:8443",
		"::ffff:10.0.0.2":                "http://10.0.0.2:8082",
		"https://[2001:db8::2]/httpboot": "https://[2001:db8::2]:8443",
	} {
		s, err := ParseServer(text, "")
		require.NoError(t, err, text)
		require.Equal(t, want, s.String(), text)
	}
	s, err := ParseServer("10.0.0.2", "https")
	require.NoError(t, err)
	require.Equal(t, "https://10.0.0.2:8443", s.String())
}

func TestServerThatNoMachineReachesIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"boot.example.com":             "no literal IP address",
		"http://boot.example.com:8082": "no literal IP address",
		"ftp://10.0.0.2":               "neither http nor https",
		"http://user@10.0.0.2":         "nothing else",
		"http://10.0.0.2?x=1":          "nothing else",
		"http://10.0.0.2#x":            "nothing else",
		"http://10.0.0.2/boot":         "leave the path out",
		"10.0.0.2:0":                   "is no port",
		"10.0.0.2:70000":               "is no port",
		"127.0.0.1":                    "not the address of a host on a network",
		"0.0.0.0":                      "not the address of a host on a network",
		"255.255.255.255":              "not the address of a host on a network",
		"224.0.0.1":                    "not the address of a host on a network",
		"169.254.1.1":                  "only on one link",
		"fe80::1":                      "only on one link",
		"http://[fd00::1%25eth0]":      "only on one link",
		"10.0.0.2\n":                   "neither an address",
		"":                             "no literal IP address",
	} {
		_, err := ParseServer(text, "")
		require.ErrorIs(t, err, boot.ErrInvalid, text)
		require.ErrorContains(t, err, want, text)
	}
	_, err := ParseServer("http://10.0.0.2", "https")
	require.ErrorContains(t, err, "it says http")
}

func TestChosenRangeLeavesOutWhatIsInUse(t *testing.T) {
	for _, c := range []struct {
		subnet, want string
		taken        []netip.Addr
	}{
		{"10.0.0.0/24", "10.0.0.100-10.0.0.199", addrs("10.0.0.1", "10.0.0.2")},
		{"10.0.0.0/24", "10.0.0.100-10.0.0.179", addrs("10.0.0.180")},
		{"10.0.0.0/24", "10.0.0.101-10.0.0.198", addrs("10.0.0.199", "10.0.0.100")},
		{"10.0.0.0/24", "10.0.0.121-10.0.0.199", addrs("10.0.0.120", "10.0.0.120")},
		{"10.0.0.0/16", "10.0.0.100-10.0.0.199", nil},
		{"10.0.0.16/28", "10.0.0.22-10.0.0.27", nil},
		{"10.0.0.8/29", "10.0.0.11-10.0.0.13", nil},
		{"fd00::/64", "fd00::100-fd00::1ff", addrs("fd00::2")},
		{"fd00::/64", "fd00::108-fd00::1ff", addrs("fd00::107")},
		{"fd00::ab00/120", "fd00::ab64-fd00::abc7", nil},
	} {
		r, ok := chooseRange(netip.MustParsePrefix(c.subnet), c.taken)
		require.True(t, ok, c.subnet)
		require.Equal(t, c.want, r.String(), "%s without %v", c.subnet, c.taken)
	}
	_, ok := chooseRange(netip.MustParsePrefix("10.0.0.0/31"), nil)
	require.False(t, ok)
}

func TestReservedAddressesAreCutOutOfARange(t *testing.T) {
	r, err := ParseRange("10.0.0.254 - 10.0.1.3")
	require.NoError(t, err)
	require.Equal(t, []Range{{addr("10.0.0.255"), addr("10.0.0.255")}, {addr("10.0.1.1"), addr("10.0.1.2")}},
		r.without(addrs("10.0.1.3", "10.0.0.254", "10.0.1.0", "10.0.1.3", "10.9.9.9", "fd00::1")))
	require.Empty(t, r.without(addrs("10.0.0.254", "10.0.0.255", "10.0.1.0", "10.0.1.1", "10.0.1.2", "10.0.1.3")))
	require.Equal(t, []Range{r}, r.without(nil))
	require.False(t, r.Contains(addr("fd00::1")))
}

func TestPoolPrefixStaysInsideTheRange(t *testing.T) {
	for text, want := range map[string]string{
		"fd00::100-fd00::1ff": "fd00::100/120",
		"fd00::101-fd00::1ff": "fd00::180/121",
		"fd00::100-fd00::17e": "fd00::100/122",
		"fd00::5-fd00::5":     "fd00::5/128",
	} {
		r, err := ParseRange(text)
		require.NoError(t, err)
		require.Equal(t, want, r.Prefix().String(), text)
	}
}
