package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
)

// signing is a certificate in files, and its key.
type signing struct{ pem, der, key, derKey string }

// newSigning makes a certificate of this name that is in force for some time around now.
func newSigning(t *testing.T, key crypto.Signer, name pkix.Name, from, until time.Duration) signing {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(5), Subject: name, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	return signing{
		pem: write("db.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), der: write("db.der", der),
		key: write("db.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), derKey: write("key.der", pkcs8),
	}
}

func rsaKey(t *testing.T) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return key
}

func inForceNow(t *testing.T, name string) signing {
	return newSigning(t, rsaKey(t), pkix.Name{CommonName: name}, -time.Hour, 24*time.Hour)
}

// microsoftCA is one that only has the name.
func microsoftCA(t *testing.T) signing {
	return newSigning(t, rsaKey(t), pkix.Name{CommonName: "Microsoft Corporation UEFI CA 2011", Organization: []string{"Microsoft Corporation"}}, -time.Hour, time.Hour)
}

func readReport(t *testing.T, out string) enrollReport {
	t.Helper()
	var report enrollReport
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&report), out)
	return report
}

func TestACertificateIsEnrolledReadBackAndComparedWithWhatWasAskedFor(t *testing.T) {
	t.Setenv(passwordVariable, probePassword)
	bmc, url, ca := probed(t, "generic")
	enroll := func(args ...string) (int, string, string) {
		return run(t, append([]string{"host", "enroll", "--address", url, "-u", "operator", "--ca-file", ca}, args...)...)
	}
	code, out, errs := enroll("--list")
	require.Zero(t, code, errs)
	require.Contains(t, out, "Nothing was written.")
	require.Contains(t, out, "0 certificates, 0 hashes")
	requireOnlyReads(t, bmc)

	ours, theirs := inForceNow(t, "ours"), microsoftCA(t)
	code, _, errs = enroll("--db", ours.pem)
	require.Equal(t, exitUsage, code)
	require.Contains(t, errs, `is to start everything that is signed by "CN=ours" (SHA-256 `)
	require.Contains(t, errs, "say it with --yes")
	requireOnlyReads(t, bmc)

	code, _, errs = enroll("--db", theirs.der, "--yes")
	require.Zero(t, code, errs)
	code, out, errs = enroll("--db", ours.pem, "--yes")
	require.Zero(t, code, errs)
	require.Regexp(t, `(?m)^added +CN=ours +CN=ours `, out)
	require.Regexp(t, `(?m)^foreign, Microsoft's +CN=Microsoft Corporation UEFI CA 2011,O=Microsoft Corporation `, out)
	require.Contains(t, out, "ANY SHIM THAT MICROSOFT SIGNED BOOTS")
	require.Contains(t, out, "1 certificate added to db, and read back")
	require.Contains(t, out, "Secure Boot is off")
	require.Len(t, bmc.DatabaseCertificates("db"), 2)

	bmc.ClearLog()
	code, out, errs = enroll("--db", ours.der, "-o", "json")
	require.Zero(t, code, errs)
	report := readReport(t, out)
	require.Empty(t, report.Added, "it is there")
	require.Empty(t, report.Missing)
	require.True(t, report.Verified)
	require.Len(t, report.Certificates, 2)
	for _, c := range report.Certificates {
		mine := c.Subject == "CN=ours"
		require.Equal(t, []bool{mine, !mine, !mine, true}, []bool{c.Asked, c.Foreign, c.Microsoft, c.CA})
		require.Len(t, c.Fingerprint, 64)
		require.NotNil(t, c.NotAfter)
	}
	requireOnlyReads(t, bmc)
	code, out, _ = enroll("--list", "--db", inForceNow(t, "other").pem, "-o", "json")
	require.Zero(t, code)
	report = readReport(t, out)
	require.Len(t, report.Missing, 1)
	require.True(t, report.Certificates[0].Foreign)
	requireOnlyReads(t, bmc)
}

func TestACertificateThatTheBMCOnlyStagesIsNotCalledEnrolled(t *testing.T) {
	t.Setenv(passwordVariable, probePassword)
	bmc, url, ca := probed(t, "ilo6")
	args := []string{"host", "enroll", "--address", url, "-u", "operator", "--ca-file", ca, "--db", inForceNow(t, "ours").pem}
	code, out, errs := run(t, append(args, "--yes", "-o", "json")...)
	require.Zero(t, code, errs)
	report := readReport(t, out)
	require.Len(t, report.Added, 1)
	require.Equal(t, report.Added, report.Missing)
	require.NotEmpty(t, report.Messages)
	require.Contains(t, report.Warnings[0], "at the machine's next boot")
	code, out, errs = run(t, append(args, "--yes")...)
	require.Zero(t, code, errs)
	require.Contains(t, out, "it has this certificate already, and does not show it: CN=ours")
	require.Contains(t, out, "Nothing was written; 1 certificate not in db.")
	require.NoError(t, bmc.PressPower())
	code, out, errs = run(t, append(args, "--list")...)
	require.Zero(t, code, errs)
	require.Regexp(t, `(?m)^asked for +CN=ours `, out)
}

func TestABMCThatTakesNoCertificateIsToldAsAFailure(t *testing.T) {
	t.Setenv(passwordVariable, probePassword)
	ours := inForceNow(t, "ours").pem
	_, url, ca := probed(t, "openbmc")
	code, out, errs := run(t, "host", "enroll", "--address", url, "-u", "operator", "--ca-file", ca, "--db", ours, "--yes")
	require.Equal(t, exitFailure, code)
	require.Empty(t, out)
	require.Contains(t, errs, "the BMC cannot do this: its SecureBoot has no SecureBootDatabases")
	bmc, url, ca := probed(t, "generic")
	bmc.Keys(bmcsim.KeysInSetupMode)
	code, _, errs = run(t, "host", "enroll", "--address", url, "-u", "operator", "--ca-file", ca, "--db", ours, "--yes")
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "in Setup Mode only")
}

func TestWhatShouldNotBeInDBIsRefusedBeforeAnybodyIsAsked(t *testing.T) {
	t.Setenv(passwordVariable, probePassword)
	bmc, url, ca := probed(t, "generic")
	ours := inForceNow(t, "ours")
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("hello"), 0o600))
	both := filepath.Join(t.TempDir(), "both.pem")
	certificate, err := os.ReadFile(ours.pem)
	require.NoError(t, err)
	key, err := os.ReadFile(ours.key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(both, append(certificate, key...), 0o600))
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(program, append([]byte("\x7fELF"), make([]byte, 1<<16)...), 0o600))
	for name, c := range map[string]struct{ path, says string }{
		"a key":           {ours.key, "holds a private key"},
		"a key in DER":    {ours.derKey, "holds a private key"},
		"both":            {both, "holds a private key"},
		"text":            {text, "is no certificate"},
		"nothing":         {os.DevNull, "is empty"},
		"a program":       {program, "is no certificate"},
		"no file":         {"/nowhere", "no such file"},
		"over":            {newSigning(t, rsaKey(t), pkix.Name{CommonName: "old"}, -48*time.Hour, -24*time.Hour).pem, "has expired on"},
		"not yet":         {newSigning(t, rsaKey(t), pkix.Name{CommonName: "new"}, 24*time.Hour, 48*time.Hour).pem, "is valid from"},
		"not yet, in DER": {newSigning(t, rsaKey(t), pkix.Name{CommonName: "new"}, 24*time.Hour, 48*time.Hour).der, "is valid from"},
	} {
		code, out, errs := run(t, "host", "enroll", "--address", url, "-u", "operator", "--ca-file", ca, "--yes", "--db", ours.pem, "--db", c.path)
		require.Equal(t, exitFailure, code, name)
		require.Empty(t, out, name)
		require.Contains(t, errs, c.says, name)
	}
	require.Empty(t, bmc.Log())

	elliptic, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	code, out, errs := run(t, "host", "enroll", "--address", url, "-u", "operator", "--ca-file", ca, "--yes", "--db", newSigning(t, elliptic, pkix.Name{CommonName: "ec"}, -time.Hour, time.Hour).pem)
	require.Zero(t, code, errs)
	require.Contains(t, out, "no RSA key")
}

func TestAnEnrolmentThatIsCalledWronglyAsksNobody(t *testing.T) {
	ours := inForceNow(t, "ours").pem
	for says, args := range map[string][]string{
		"one of the two":            {"--db", ours},
		"or a BMC with --address":   {"m1", "--address", "10.0.0.1", "-u", "a", "--db", ours},
		"--db is missing":           {"m1"},
		"belong to --address":       {"m1", "-u", "a", "--list"},
		"disableCertificateVerific": {"m1", "--insecure-skip-verify", "--list"},
		"must be text or json":      {"m1", "--list", "-o", "yaml"},
		"--username is missing":     {"--address", "10.0.0.1", "--list"},
		"there is no password":      {"--address", "10.0.0.1", "--list", "-u", "a"},
	} {
		code, _, errs := run(t, append([]string{"host", "enroll"}, args...)...)
		require.Equal(t, exitUsage, code, errs)
		require.Contains(t, errs, says)
	}
}

// testEnroll is the verb for a BareMetalHost: its BMC, and its Secret.
func testEnroll(r *rack) {
	bmc, url, ca := probed(r.t, "generic")
	ours := inForceNow(r.t, "ours").pem
	named := func(h *metal3.BareMetalHost) {
		h.Spec.BMC = metal3.BMCDetails{Address: "redfish+" + url + bmc.SystemPath(), CredentialsName: "enroll-bmc"}
		h.Annotations[v1alpha1.HostSystemUUIDAnnotation] = "00112233-4455-6677-8899-aabbccddeeff"
	}
	r.add("enrolled", metal3.StateAvailable, named)
	enroll := func(args ...string) (int, string, string) {
		return r.host(append([]string{"enroll", "enrolled", "--ca-file", ca, "--db", ours, "--yes"}, args...)...)
	}
	code, _, errs := enroll()
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "there is no Secret machines/enroll-bmc, which host machines/enrolled names")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: "enroll-bmc"}, StringData: map[string]string{"username": "operator"}}
	require.NoError(r.t, r.api.Create(r.t.Context(), secret))
	_, _, errs = enroll()
	require.Contains(r.t, errs, "lacks the keys username and password")
	secret.StringData = map[string]string{"password": probePassword}
	require.NoError(r.t, r.api.Update(r.t.Context(), secret))
	require.Empty(r.t, bmc.Log())

	code, out, errs := enroll("-o", "json")
	require.Zero(r.t, code, errs)
	require.Len(r.t, readReport(r.t, out).Added, 1)
	require.Len(r.t, bmc.DatabaseCertificates("db"), 1)
	require.NotContains(r.t, out+errs, probePassword)

	bmc.SetUUID("ffffffff-4455-6677-8899-aabbccddeeff")
	bmc.ClearLog()
	code, _, errs = r.host("enroll", "enrolled", "--ca-file", ca, "--db", inForceNow(r.t, "other").pem, "--yes")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "another machine is behind this BMC")
	for _, request := range bmc.Log() {
		require.Equal(r.t, http.MethodGet, request.Method)
	}
	r.add("bare-bmc", metal3.StateAvailable, func(h *metal3.BareMetalHost) { h.Spec.BMC = metal3.BMCDetails{} })
	_, _, errs = r.host("enroll", "bare-bmc", "--list")
	require.Contains(r.t, errs, "names no BMC")
}
