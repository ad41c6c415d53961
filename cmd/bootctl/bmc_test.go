package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// locked is a buffer that a verb writes while the test reads.
type locked struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

// simulation is a bmc simulate that runs.
type simulation struct {
	facts map[string]string // what it printed, by its first column
	pem   []byte
	errs  *locked
	stop  func() int
}

// simulate starts bmc simulate and reads what it prints first.
func simulate(t *testing.T, args ...string) simulation {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	s := simulation{facts: map[string]string{}, errs: &locked{}}
	code := make(chan int, 1)
	go func() {
		args := append([]string{"bmc", "simulate", "--listen", "127.0.0.1:0"}, args...)
		code <- execute(ctx, args, &environment{In: strings.NewReader(""), Out: in, Err: s.errs})
		in.Close()
	}()
	s.stop = sync.OnceValue(func() int {
		cancel()
		return <-code
	})
	t.Cleanup(func() { s.stop() })
	scanner := bufio.NewScanner(out)
	var certificate bool
	for s.facts["MAC"] == "" || (s.facts["certificate, SHA-256"] == "" && strings.HasPrefix(s.facts["URL"], "https:")) {
		require.True(t, scanner.Scan(), "it ended: %s", s.errs)
		line := scanner.Text()
		certificate = certificate || strings.HasPrefix(line, "-----BEGIN")
		if certificate {
			s.pem = append(s.pem, line+"\n"...)
			certificate = !strings.HasPrefix(line, "-----END")
			continue
		}
		name, value, _ := strings.Cut(line, "  ")
		s.facts[name] = strings.TrimSpace(value)
	}
	go io.Copy(io.Discard, out)
	return s
}

// get reads the service with the credentials that were printed, trusting a PEM
// certificate only.
func (s simulation) get(t *testing.T, path string, certificate []byte) (int, string) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.facts["URL"]+path, http.NoBody)
	require.NoError(t, err)
	r.SetBasicAuth(s.facts["username"], s.facts["password"])
	resp, err := client.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestASimulatedBMCIsReachedByWhatItPrints(t *testing.T) {
	s := simulate(t, "--profile", "ilo6", "--mac", "52:54:00:12:34:56")
	path := strings.TrimPrefix(s.facts["BareMetalHost address"], "redfish://"+strings.TrimPrefix(s.facts["URL"], "https://"))
	require.Equal(t, "/redfish/v1/Systems/1", path)
	status, body := s.get(t, path, s.pem)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, s.facts["UUID"])
	require.Contains(t, body, "ProLiant")
	status, body = s.get(t, path+"/EthernetInterfaces/NIC1", s.pem)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "52:54:00:12:34:56")
	require.Zero(t, s.stop())
	require.Contains(t, s.errs.String(), "GET /redfish/v1/Systems/1 200")
	require.NotContains(t, s.errs.String(), s.facts["password"])
}

func TestAStateDirectoryKeepsTheCertificate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var prints []string
	for range 2 {
		s := simulate(t, "--state-dir", dir, "--quiet", "--username", "root", "--password", "calvin")
		certificate, err := os.ReadFile(filepath.Join(dir, "bmc.crt"))
		require.NoError(t, err)
		require.Empty(t, s.pem)
		status, _ := s.get(t, "/redfish/v1/Systems", certificate)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "root", s.facts["username"])
		prints = append(prints, s.facts["certificate, SHA-256"])
		require.Zero(t, s.stop())
		require.Empty(t, s.errs.String())
	}
	require.Equal(t, prints[0], prints[1])
	info, err := os.Stat(filepath.Join(dir, "bmc.key"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bmc.crt"), []byte("no"), 0o600))
	code, _, errs := run(t, "bmc", "simulate", "--listen", "127.0.0.1:0", "--state-dir", dir)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "making the certificate")
}

func TestFaultsOfTheCommandLineHappen(t *testing.T) {
	s := simulate(t, "--http", "--fault", "html")
	require.True(t, strings.HasPrefix(s.facts["BareMetalHost address"], "redfish+http://"))
	status, body := s.get(t, "/redfish/v1", nil)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "<html>")
}

func TestACertificateIsForTheAddressesThatItIsServedOn(t *testing.T) {
	s := simulate(t)
	block, _ := pem.Decode(s.pem)
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	require.NoError(t, certificate.VerifyHostname("127.0.0.1"))
	require.NoError(t, certificate.VerifyHostname("localhost"))
	require.Error(t, certificate.VerifyHostname("192.0.2.1"))
}

func TestSimulationsThatMakeNoSenseAreRefused(t *testing.T) {
	for says, args := range map[string][]string{
		`--profile is "ilo9"`:         {"--profile", "ilo9"},
		`there is no fault "fire"`:    {"--fault", "fire"},
		`--machine is "vmware"`:       {"--machine", "vmware"},
		"belong to --machine qemu":    {"--console"},
		"and --secure-boot belong to": {"--secure-boot"},
		"belongs to --secure-boot":    {"--machine", "qemu", "--platform-key", "x"},
		`--mac is "x"`:                {"--mac", "x"},
		`--arch is "mips"`:            {"--arch", "mips"},
		`the UUID is "7"`:             {"--uuid", "7"},
		"--memory is 0":               {"--memory", "0"},
		`unknown command "surprise"`:  {"surprise"},
	} {
		code, out, errs := run(t, append([]string{"bmc", "simulate", "--listen", "127.0.0.1:0"}, args...)...)
		require.Equal(t, exitUsage, code, errs)
		require.Contains(t, errs, says)
		require.Empty(t, out)
	}
	code, _, errs := run(t, "bmc")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, "a verb of bmc is missing")
	code, _, errs = run(t, "bmc", "simulate", "--listen", "192.0.2.1:1")
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "listening: ")
}

func TestProfilesAndFaultsAreListed(t *testing.T) {
	code, out, _ := run(t, "bmc", "simulate", "--list")
	require.Zero(t, code)
	for _, name := range []string{"generic ", "idrac9 ", "ignores-once ", "hgx ", "slow-power-off[=30s]", "redirect=URL", "other-uuid=UUID"} {
		require.Contains(t, out, name)
	}
}
