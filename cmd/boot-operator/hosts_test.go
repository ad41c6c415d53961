package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/controller/host"
)

func TestNoHostIsTouchedByDefault(t *testing.T) {
	s, err := parse(t, nil)
	require.NoError(t, err)
	require.Equal(t, host.ModeOff, s.hosts.mode)
	require.False(t, s.handsOutTokens())
	s, err = parse(t, nil, "--baremetalhost-mode=drive")
	require.NoError(t, err)
	require.True(t, s.handsOutTokens(), "a URL in a BMC has a token in it")
}

func TestHostFlagsAreChecked(t *testing.T) {
	noCertificate := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(noCertificate, []byte("no certificate"), 0o600))
	_, err := parse(t, nil, "--baremetalhost-mode=steer", "--baremetalhost-provisioned-when=Soon", "--bmc-ca-file="+noCertificate,
		"--bmc-boot-ca-file=/nowhere", "--bmc-boot-url=boot.example", "--bmc-concurrency=0", "--bmc-power-interval=1ms", "--baremetalhost-fetch-timeout=30m")
	for _, want := range []string{
		`--baremetalhost-mode: "steer" is not off, translate or drive`, `--baremetalhost-provisioned-when: "Soon" is not`,
		"--bmc-ca-file: " + noCertificate + " has no certificate in PEM", "--bmc-boot-ca-file: open /nowhere",
		`--bmc-boot-url: "boot.example" is not a URL`, "--bmc-concurrency: 0", "--bmc-power-interval: 1ms", "--baremetalhost-fetch-timeout: 30m0s",
	} {
		require.ErrorContains(t, err, want)
	}
}

func TestBMCsAreToldTheBootServerThatMachinesReach(t *testing.T) {
	for want, args := range map[string][]string{
		"":                      nil,
		"https://boot.example":  {"--bmc-boot-url=https://boot.example/", "--ipxe-service-url=http://10.0.0.1:8082"},
		"http://10.0.0.1:8082":  {"--ipxe-service-url=http://10.0.0.1:8082"},
		"http://10.0.0.2:8082":  {"--ipxe-service-url=10.0.0.2", "--ipxe-service-port=8082"},
		"https://10.0.0.3:8443": {"--image-server-url=https://10.0.0.3:8443/httpboot"},
	} {
		s, err := parse(t, nil, args...)
		require.NoError(t, err, args)
		require.Equal(t, want, s.hosts.bootURL, args)
	}
}

// A URL with a token is the strongest proof only where nobody could read it: on its
// way to the BMC, and from the machine to us.
func TestAURLInABMCProvesWhatItsWayIsWorth(t *testing.T) {
	for _, c := range []struct {
		base     string
		verified bool
		want     boot.Proof
	}{
		{"https://boot.example", true, boot.BMC},
		{"https://boot.example", false, boot.Proxy},
		{"http://boot.example", true, boot.Proxy},
		{"", true, boot.Unproven},
	} {
		require.Equal(t, c.want, bootLinks{base: c.base}.Proof(c.verified), "%+v", c)
	}
}
