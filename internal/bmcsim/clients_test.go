package bmcsim

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// python is Debian's, whose packages python3-sushy and redfishtool are tried.
const python = "/usr/bin/python3"

// requireClient skips a test whose client is not installed; in CI it must be.
func requireClient(t *testing.T, check ...string) {
	t.Helper()
	if err := exec.CommandContext(t.Context(), check[0], check[1:]...).Run(); err == nil {
		return
	}
	text := "SKIPPED: a public Redfish client is missing: apt-get install python3-sushy redfishtool"
	if os.Getenv("CI") == "true" {
		t.Fatal(text)
	}
	t.Skip(text)
}

// caFile is the certificate of a server, for clients that check it.
func caFile(t *testing.T, server *httptest.Server) string {
	path := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	return path
}

// run runs a client; its answer is JSON, or text if that is what is wanted.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// These would send requests elsewhere, or trust another authority.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(strings.ToUpper(v), "=")
		return strings.HasSuffix(name, "_PROXY") || strings.HasSuffix(name, "_CA_BUNDLE")
	})
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "%s\n%s\n%s", strings.Join(args, " "), out.String(), errs.String())
	return out.String()
}

func TestSushyDrivesTheMachine(t *testing.T) {
	requireClient(t, python, "-c", "import sushy")
	for _, c := range []struct {
		profile, auth, target string
		boots                 NextBoot
	}{
		{"generic", "basic", "UefiHttp", NextBoot{Kind: KindHTTP}},
		{"generic", "session", "Pxe", NextBoot{Kind: KindPXE}},
		{"idrac9", "session", "UefiHttp", NextBoot{Kind: KindHTTP}},
		{"idrac10", "basic", "Pxe", NextBoot{Kind: KindPXE}},
		{"ilo6", "session", "UefiHttp", NextBoot{Kind: KindHTTP}},
		{"xcc", "session", "Pxe", NextBoot{Kind: KindPXE}},
		{"megarac", "basic", "Pxe", NextBoot{Kind: KindPXE}},
		{"hgx", "session", "UefiHttp", NextBoot{Kind: KindHTTP}},
		{"sushy-tools", "basic", "Pxe", NextBoot{Kind: KindPXE}},
	} {
		t.Run(c.profile+" "+c.auth, func(t *testing.T) {
			s := newBench(t, c.profile)
			server := s.serveTLS()
			out := run(t, python, "testdata/sushy_client.py", server.URL, testUser, testPassword, caFile(t, server), c.auth, c.target, s.SystemPath())
			found := object{}
			require.NoError(t, json.Unmarshal([]byte(out), &found), out)
			requireSushyFound(t, s, found)
			booted, next := s.machine.Boots()
			require.Equal(t, 1, booted)
			require.Equal(t, c.boots, next)
			require.False(t, s.machine.IsOn())
			require.Zero(t, s.OpenSessions())
		})
	}
}

// requireSushyFound checks that a client saw the machine that there is.
func requireSushyFound(t *testing.T, s *bench, found object) {
	t.Helper()
	require.Equal(t, testUUID, found["uuid"])
	require.EqualValues(t, 1+len(s.profile.siblings), found["systems"])
	require.Equal(t, "Off", found["power"])
	require.Equal(t, []any{"52:54:00:00:00:01", "52:54:00:00:00:02"}, found["macs"])
	require.EqualValues(t, 8, found["threads"])
	require.EqualValues(t, 2, found["memory"])
	require.Equal(t, []any{float64(500 << 30), float64(1 << 40)}, found["drives"])
	require.Equal(t, []any{"Storage Controller"}, found["controllers"])
	require.Equal(t, []any{s.id(s.profile.manager)}, found["managers"])
	require.Equal(t, []any{s.id(s.profile.chassis)}, found["chassis"])
	require.Equal(t, []any{"Cd", "Usb"}, found["virtual_media"])
	require.Equal(t, false, found["secure_boot"])
	require.Equal(t, []any{"KEK", "PK", "db", "dbx"}, found["databases"])
	require.Equal(t, []any{"DeleteAllKeys", "ResetAllKeysToDefault"}, found["database_resets"])
	require.Equal(t, "UserMode", found["mode"])
	mode := "SetupMode"
	if s.profile.keys == KeysStaged {
		mode = "UserMode" // until the next boot
	}
	require.Equal(t, mode, found["mode_after"])
	require.Contains(t, found["resets"], "ForceOff")
	require.EqualValues(t, len(s.profile.attributes), found["bios"])
	require.Equal(t, "On", found["power_after_on"])
	require.Equal(t, or(s.profile.stays, "Disabled"), found["enabled_after_on"])
	require.Equal(t, "Off", found["power_after_off"])
	require.Equal(t, true, found["inserted"])
	require.Equal(t, false, found["inserted_after"])
	led := s.get(s.SystemPath())["IndicatorLED"]
	if s.profile.needsMatch {
		require.EqualValues(t, 428, found["refused"])
		require.Equal(t, false, found["secure_boot_after"])
		require.Equal(t, "Off", led)
		return
	}
	require.Equal(t, true, found["secure_boot_after"])
	require.Equal(t, "Lit", led)
}

func TestRedfishtoolDrivesTheMachine(t *testing.T) {
	requireClient(t, "redfishtool", "-V")
	for _, c := range []struct{ profile, auth string }{
		{"generic", "Basic"}, {"ilo5", "Session"}, {"openbmc", "Basic"},
	} {
		t.Run(c.profile+" "+c.auth, func(t *testing.T) {
			s := newBench(t, c.profile)
			server := s.serveTLS()
			tool := func(args ...string) string {
				return run(t, "redfishtool", append([]string{
					"-r", server.Listener.Addr().String(), "-S", "Always", "-u", testUser, "-p", testPassword, "-A", c.auth,
				}, args...)...)
			}
			driveWithRedfishtool(t, s, tool)
			require.Zero(t, s.OpenSessions())
		})
	}
}

func driveWithRedfishtool(t *testing.T, s *bench, tool func(...string) string) {
	require.Contains(t, tool("versions"), `"v1"`)
	require.Contains(t, tool("root"), "SessionService")
	require.Contains(t, tool("Systems", "collection"), s.SystemPath())
	require.Contains(t, tool("Systems", "-F", "list"), s.SystemPath())
	require.Contains(t, tool("Systems", "-F", "get"), testUUID)
	require.Contains(t, tool("-P", "PowerState", "Systems", "-F", "get"), "Off")
	require.Contains(t, tool("Chassis", "-F", "get"), "RackMount")
	require.Contains(t, tool("Managers", "-F", "get"), "FirmwareVersion")
	require.Contains(t, tool("Systems", "-F", "EthernetInterfaces", "-a"), "52:54:00:00:00:02")
	require.Contains(t, tool("Systems", "-F", "Processors", "-a"), "TotalThreads")
	require.Contains(t, tool("SessionService", "get"), "SessionTimeout")
	require.Contains(t, tool("raw", "GET", s.SystemPath()+"/SecureBoot"), "SecureBootMode")
	tool("Systems", "-F", "setBootOverride", "Once", "Pxe")
	_, target := s.shown()
	require.Equal(t, "Pxe", target)
	tool("Systems", "-F", "reset", "On")
	_, next := s.machine.Boots()
	require.Equal(t, NextBoot{Kind: KindPXE}, next)
	tool("Systems", "-F", "setAssetTag", "rack 7")
	tool("Systems", "-F", "setIndicatorLed", "Blinking")
	system := s.get(s.SystemPath())
	require.Equal(t, "rack 7", system["AssetTag"])
	require.Equal(t, "Blinking", system["IndicatorLED"])
	tool("Systems", "-F", "reset", "ForceOff")
	require.False(t, s.machine.IsOn())
}
