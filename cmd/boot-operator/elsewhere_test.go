package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBootsAreOfferedHereOrElsewhere(t *testing.T) {
	here, err := parse(t, nil, "--netboot-interface=eth0")
	require.NoError(t, err)
	elsewhere, err := parse(t, nil, "--netboot-elsewhere", "--netboot-relays=10.0.0.1")
	require.NoError(t, err)
	nowhere, err := parse(t, nil)
	require.NoError(t, err)
	require.True(t, here.offersBoots())
	require.True(t, elsewhere.offersBoots())
	require.True(t, elsewhere.handsOutTokens(), "the offering processes wait for the keys that this one makes")
	require.Len(t, elsewhere.relays, 1)
	require.False(t, nowhere.offersBoots())

	_, err = parse(t, nil, "--netboot-elsewhere", "--netboot-interface=eth0")
	require.ErrorContains(t, err, "--netboot-elsewhere, --netboot-interface: give one of them")
	_, err = parse(t, nil, "--netboot-relays=10.0.0.1")
	require.ErrorContains(t, err, "--netboot-relays")
}

// Machines that are offered a boot have no name server yet.
func TestOffersLeadToAnAddress(t *testing.T) {
	offers := []string{"--controllers=none", "--boot-server-address=0", "--image-proxy-server-address=0", "--netboot-interface=eth0"}
	for url, right := range map[string]bool{
		"http://10.0.0.1:8082": true, "http://[2001:db8::1]:8082": true, "10.0.0.1": true, "http://boot.example.com:8082": false, "boot.example.com": false,
	} {
		_, err := parse(t, nil, append(offers, "--ipxe-service-url="+url)...)
		if right {
			require.NoError(t, err, url)
			continue
		}
		require.ErrorContains(t, err, "names no IP address", url)
	}
}

func TestMetricsHaveACertificateOnlyOverHTTPS(t *testing.T) {
	_, err := parse(t, nil, "--metrics-cert-dir=/etc/certificates")
	require.ErrorContains(t, err, "--metrics-secure")
	_, err = parse(t, nil, "--metrics-cert-dir=/etc/certificates", "--metrics-secure")
	require.NoError(t, err)
}

func TestAnImageOfKoBringsItsBootPrograms(t *testing.T) {
	env := func(value string) func(string) string { return func(string) string { return value } }
	require.Equal(t, "/var/run/ko/ipxe", defaultIPXEDir(env("/var/run/ko")))
	require.Equal(t, "/usr/lib/ipxe", defaultIPXEDir(env("")))
}
