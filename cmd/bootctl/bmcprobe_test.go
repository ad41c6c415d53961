package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/bmcsim"
)

const probePassword = "correct horse"

// probed starts a simulated BMC; it returns its URL and a file with its certificate.
func probed(t *testing.T, profile string) (bmc *bmcsim.BMC, url, ca string) {
	t.Helper()
	bmc, err := bmcsim.New(bmcsim.Options{
		Profile: profile, Machine: bmcsim.NewMemoryMachine(nil, bootOptions([]string{"52:54:00:00:00:01"})...),
		Username: "operator", Password: probePassword, UUID: "00112233-4455-6677-8899-aabbccddeeff",
	})
	require.NoError(t, err)
	t.Cleanup(bmc.Close)
	server := httptest.NewUnstartedServer(bmc)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca = filepath.Join(t.TempDir(), "bmc.crt")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return bmc, server.URL, ca
}

func requireOnlyReads(t *testing.T, bmc *bmcsim.BMC) {
	t.Helper()
	require.NotEmpty(t, bmc.Log())
	for _, r := range bmc.Log() {
		require.Equal(t, http.MethodGet, r.Method, r.Path)
	}
}

func TestProbeSaysWhatABMCCanDoAndWritesNothing(t *testing.T) {
	t.Setenv(passwordVariable, probePassword)
	bmc, url, ca := probed(t, "idrac9")
	code, out, errs := run(t, "bmc", "probe", url, "--username", "operator", "--ca-file", ca)
	require.Zero(t, code, errs)
	for _, want := range []string{
		"16G Monolithic", "TLS, verified", "/redfish/v1/Systems/System.Embedded.1", "can be set through the BMC, in HttpDev1Uri",
		"mode-only-if-different: ", `PATCH /redfish/v1/Systems/System.Embedded.1  If-Match: "`,
		`{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp"}}`, "Nothing was written.",
	} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out+errs, probePassword)
	requireOnlyReads(t, bmc)

	bmc, url, ca = probed(t, "openbmc-no-override")
	code, out, errs = run(t, "bmc", "probe", url, "--username", "operator", "--ca-file", ca)
	require.Zero(t, code, errs)
	require.Contains(t, out, "cannot work: ")
	require.Contains(t, out, "has no boot override")
	requireOnlyReads(t, bmc)
}

func TestProbeAsJSONIsReadByPrograms(t *testing.T) {
	bmc, url, _ := probed(t, "xcc")
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte(probePassword+"\r\nmore\n"), 0o600))
	code, out, errs := run(t, "bmc", "probe", url, "-u", "operator", "--password-file", file, "--insecure-skip-verify", "-o", "json")
	require.Zero(t, code, errs)
	var report probeReport
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&report))
	require.False(t, report.Verified)
	require.Equal(t, "00112233-4455-6677-8899-aabbccddeeff", report.Machine.UUID)
	require.True(t, report.Can.HTTP)
	require.Equal(t, "no-uefihttp", report.Quirks[0].Name)
	require.Len(t, report.Plans, 3)
	require.Contains(t, report.Plans[0].Requests[0].Body, "UefiBootNext")
	require.NotContains(t, out, probePassword)
	requireOnlyReads(t, bmc)
}

func TestASessionOfAProbeIsClosed(t *testing.T) {
	t.Setenv(passwordVariable, probePassword)
	bmc, url, ca := probed(t, "generic")
	code, _, errs := run(t, "bmc", "probe", url, "-u", "operator", "--ca-file", ca, "--session")
	require.Zero(t, code, errs)
	require.Zero(t, bmc.OpenSessions())
}

func TestAProbeThatFailsSaysWhatToDo(t *testing.T) {
	t.Setenv(passwordVariable, probePassword)
	_, url, ca := probed(t, "hgx")
	_, plain, plainCA := probed(t, "generic")
	page := httptest.NewServer(http.NotFoundHandler())
	defer page.Close()
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"several systems":   {[]string{url, "--ca-file", ca}, []string{"/redfish/v1/Systems/HGX_Baseboard_0, /redfish/v1/Systems/System_0"}},
		"another's":         {[]string{plain, "--ca-file", plainCA, "-u", "other"}, []string{"refused the credentials", "lock an account"}},
		"no authority":      {[]string{plain}, []string{"certificate is not trusted", "--ca-file"}},
		"nobody there":      {[]string{"redfish://127.0.0.1:1"}, []string{"cannot be reached", "Check the address"}},
		"no BMC":            {[]string{"redfish+" + page.URL}, []string{"not a Redfish service"}},
		"no such file":      {[]string{plain, "--ca-file", "/nowhere"}, []string{"reading --ca-file"}},
		"no certificate":    {[]string{plain, "--ca-file", os.Args[0]}, []string{"holds no PEM certificate"}},
		"no password there": {[]string{plain, "--password-file", "/nowhere"}, []string{"reading --password-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := run(t, append([]string{"bmc", "probe", "-u", "operator"}, c.args...)...)
			require.Equal(t, exitFailure, code, errs)
			require.Empty(t, out)
			for _, want := range c.says {
				require.Contains(t, errs, want)
			}
			require.NotContains(t, errs, probePassword)
		})
	}
}

func TestAProbeThatIsCalledWronglyAsksNobody(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no address":     {[]string{}, "accepts 1 arg"},
		"not an address": {[]string{"ftp://x", "-u", "a"}, "ftp"},
		"no user":        {[]string{"10.0.0.1"}, "--username is missing"},
		"no password":    {[]string{"10.0.0.1", "-u", "a"}, "there is no password"},
		"output":         {[]string{"10.0.0.1", "-u", "a", "-o", "xml"}, "must be text or json"},
		"both":           {[]string{"10.0.0.1", "-u", "a", "--ca-file", "x", "--insecure-skip-verify"}, "exclude each other"},
		"no time":        {[]string{"10.0.0.1", "-u", "a", "--timeout", "0s"}, "must be positive"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := run(t, append([]string{"bmc", "probe"}, c.args...)...)
			require.Equal(t, exitUsage, code, errs)
			require.Contains(t, errs, c.says)
		})
	}
}

func TestThePasswordIsTheFirstLine(t *testing.T) {
	got, err := readPassword(strings.NewReader("one two\nthree"), "-")
	require.NoError(t, err)
	require.Equal(t, "one two", got)
	_, err = readPassword(bytes.NewReader(nil), "-")
	require.ErrorContains(t, err, "is empty")
}
