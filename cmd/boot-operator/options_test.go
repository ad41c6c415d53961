package main

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func parse(t *testing.T, env map[string]string, args ...string) (settings, error) {
	t.Helper()
	var o options
	f := o.flags()
	require.NoError(t, f.Parse(args))
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	if err := fromEnvironment(f, lookup); err != nil {
		return settings{}, err
	}
	return o.settings()
}

func TestDefaultsAreSafe(t *testing.T) {
	s, err := parse(t, nil)
	require.NoError(t, err)
	require.Equal(t, boot.Address, s.proof)
	require.Equal(t, boot.AMD64, s.arch)
	require.Equal(t, int64(20<<30), s.maxBytes)
	require.Empty(t, s.defaultImage, "unknown machines get nothing by default")
	require.False(t, s.trustClusterAddresses)
	require.Empty(t, s.proxies)
	require.Empty(t, s.dhcp)
	require.Empty(t, s.netbootInterfaces, "nobody is offered anything by default")
	require.False(t, s.netbootAnswerEveryone, "nor is anybody without a config")
	require.Empty(t, s.relays)
}

func TestFlagsOfIroncoreUsersKeepTheirNames(t *testing.T) {
	s, err := parse(t, map[string]string{"IPXE_SERVER_ADDRESS": "10.0.0.1"},
		"--boot-server-address=:9082", "--image-proxy-server-address=:9083", "--image-server-url=http://10.0.0.1:9082/httpboot",
		"--default-httpboot-oci-image=ghcr.io/os/default:1", "--allowed-registries=ghcr.io,quay.io/os", "--architecture=arm64",
		"--controllers=httpbootconfig", "--leader-elect", "--metrics-bind-address=:9080", "--health-probe-bind-address=:9081",
		"--ipxe-service-port=8082", "--ipxe-service-protocol=https")
	require.NoError(t, err)
	require.Equal(t, "https://10.0.0.1:8082", s.ipxeServiceURL)
	require.Equal(t, []string{"ghcr.io", "quay.io/os"}, s.allowedRegistries)
	require.Equal(t, boot.ARM64, s.arch)
	require.Equal(t, []string{controllerHTTP}, s.controllers)
	require.True(t, s.leaderElect)
}

func TestEnvironmentIsTheFallbackOfFlags(t *testing.T) {
	env := map[string]string{"BOOT_OPERATOR_TRUSTED_DHCP": "10.0.0.2,fd00::/64", "BOOT_OPERATOR_ARCHITECTURE": "arm64"}
	s, err := parse(t, env, "--architecture=amd64")
	require.NoError(t, err)
	require.Equal(t, boot.AMD64, s.arch, "a flag wins over the environment")
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32"), netip.MustParsePrefix("fd00::/64")}, s.dhcp)
	_, err = parse(t, map[string]string{"BOOT_OPERATOR_LEADER_ELECT": "perhaps"})
	require.ErrorContains(t, err, "BOOT_OPERATOR_LEADER_ELECT")
}

func TestBadSettingsAreNamedAllAtOnce(t *testing.T) {
	bad := map[string]string{
		"--minimum-proof=Trust":               `--minimum-proof: invalid: proof "Trust" is not one of Claimed, Address, Proxy, Relay, BMC`,
		"--architecture=x86":                  `--architecture: "x86" is not amd64 or arm64`,
		"--artifact-max-bytes=lots":           `--artifact-max-bytes: "lots" is not a size such as 20Gi`,
		"--trusted-proxies=proxy.example.com": `--trusted-proxies: "proxy.example.com" is not a prefix`,
		"--registry-mirrors=ghcr.io":          `--registry-mirrors: "ghcr.io" is not registry=mirror`,
		"--controllers=httpboot":              `--controllers: "httpboot" is not one of httpbootconfig, ipxebootconfig`,
		"--image-server-url=10.0.0.1":         `--image-server-url: "10.0.0.1" is not a URL`,
		"--boot-server-address=8082":          `--boot-server-address: "8082" is not host:port`,
		"--boot-server-tls-address=:8443":     `--boot-server-tls-address: needs --tls-cert-file and --tls-key-file`,
		"--secret-poll-budget=0":              `--secret-poll-budget: 0 is not above 0`,
		"--resolve-interval=1s":               `--resolve-interval: 1s is under 10s`,
		"--claim-namespace-selector=a in b":   `--claim-namespace-selector:`,
		"--registry-ca-file=/does/not/exist":  `--registry-ca-file: open /does/not/exist`,
	}
	var all []string
	for arg, want := range bad {
		_, err := parse(t, nil, arg)
		require.ErrorContains(t, err, want, arg)
		all = append(all, arg)
	}
	_, err := parse(t, nil, all...)
	for arg, want := range bad {
		require.ErrorContains(t, err, want, arg)
	}
}

func TestHelpNamesEveryFlagAndEndsWell(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, command(context.Background(), []string{"--help"}, func(string) (string, bool) { return "", false }, &out))
	for _, name := range []string{"--boot-server-address", "--minimum-proof", "--trusted-dhcp", "--zap-log-level", "BOOT_OPERATOR_<NAME>"} {
		require.Contains(t, out.String(), name)
	}
	out.Reset()
	require.NoError(t, command(context.Background(), []string{"--version"}, func(string) (string, bool) { return "", false }, &out))
	require.Equal(t, "boot-operator development\n", out.String())
	err := command(context.Background(), []string{"serve"}, func(string) (string, bool) { return "", false }, &out)
	require.ErrorContains(t, err, `unexpected argument "serve"`)
}

func TestTokenKeysSignWithTheNewestAndAcceptBoth(t *testing.T) {
	old, young := []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("y", 32))
	keyring := func(data map[string][]byte) (*boot.Keyring, error) {
		keys, err := keysFrom(data, true)
		if err != nil {
			return nil, err
		}
		return boot.NewKeyring(keys...)
	}
	before, err := keyring(map[string][]byte{"key-1": old})
	require.NoError(t, err)
	both, err := keyring(map[string][]byte{"key-1": old, "key-2": young})
	require.NoError(t, err)
	after, err := keyring(map[string][]byte{"key-2": young})
	require.NoError(t, err)

	now := time.Unix(1700000000, 0)
	token := boot.Token{Object: "00112233-4455-6677-8899-aabbccddeeff", Attempt: 1, Audience: boot.AudienceBoot, Proof: boot.Relay, Expires: now.Add(time.Minute)}
	minted := func(k *boot.Keyring) string {
		s, err := k.Mint(token)
		require.NoError(t, err)
		return s
	}
	_, err = both.Verify(minted(before), boot.AudienceBoot, netip.Addr{}, now)
	require.NoError(t, err, "a token of the old key")
	_, err = after.Verify(minted(both), boot.AudienceBoot, netip.Addr{}, now)
	require.NoError(t, err, "the newest key signs")
	_, err = after.Verify(minted(before), boot.AudienceBoot, netip.Addr{}, now)
	require.ErrorIs(t, err, boot.ErrToken, "a key that was removed")

	for _, bad := range []map[string][]byte{
		{}, {"key": old}, {"key-256": old}, {"key-1": []byte("short")}, {"key-1": old, "key-2": old, "key-3": old},
	} {
		_, err := keyring(bad)
		require.ErrorIs(t, err, boot.ErrInvalid)
	}
}

// Firmware that has no address yet has no name server either, and the port of the
// image server does not serve boots.
func TestOffersLeadToALiteralAddressOfTheBootServer(t *testing.T) {
	local := netip.MustParseAddr("10.0.0.2")
	for url, want := range map[string]string{
		"":                             "http://10.0.0.2:8082",
		"http://boot.example.com:8082": "http://10.0.0.2:8082",
		"http://10.9.9.9:80":           "http://10.9.9.9:80",
		"https://[fd00::1]:8443":       "https://[fd00::1]:8443",
	} {
		s := settings{options: options{bootAddress: ":8082", ipxeServiceURL: url, imageServerURL: "http://10.0.0.3:8083/httpboot"}}
		require.Equal(t, want, s.literalBootURL(local), url)
	}
}

func TestNetbootFlagsAreCheckedTogether(t *testing.T) {
	for want, change := range map[string]func(*options){
		"give --netboot-interface too":       func(o *options) { o.netbootRelays = []string{"10.0.0.1"} },
		"--boot-server-address switches off": func(o *options) { o.netbootInterfaces, o.bootAddress = []string{"eth0"}, "0" },
		"give one of them":                   func(o *options) { o.ipxeTemplateFile, o.ipxeTemplateConfigMap = "a", "b" },
		"is not a prefix":                    func(o *options) { o.netbootInterfaces, o.netbootRelays = []string{"eth0"}, []string{"relay"} },
	} {
		o := options{}
		require.NoError(t, o.flags().Parse(nil))
		change(&o)
		_, err := o.settings()
		require.ErrorContains(t, err, want)
	}
}
