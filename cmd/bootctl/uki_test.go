package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/demoimage"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares an output with the file that says what it was.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// tool is a program of Debian's.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: apt-get install %s", name, pkg)
		}
		t.Skipf("SKIPPED: %s is missing: apt-get install %s", name, pkg)
	}
	return path
}

// desk is a directory with the files that a pipeline has.
type desk struct {
	*testing.T
	dir string
}

func newDesk(t *testing.T) desk {
	t.Helper()
	d := desk{t, t.TempDir()}
	for _, arch := range []string{uki.AMD64, uki.ARM64} {
		image, err := demoimage.Greeting(arch, "hello")
		require.NoError(t, err)
		d.write("stub-"+arch, image)
		d.write("linux-"+arch, image)
	}
	d.write("os-release", []byte("ID=debian\nVERSION_ID=13\nIMAGE_VERSION=13.1\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"))
	d.write("first.cpio", append([]byte("070701"), make([]byte, 997)...))
	d.write("second.cpio", append([]byte("070701"), bytes.Repeat([]byte("x"), 2000)...))
	d.write("cmdline", []byte("console=ttyS0 quiet\n"))
	return d
}

func (d desk) in(name string) string { return filepath.Join(d.dir, name) }

func (d desk) write(name string, data []byte) {
	d.Helper()
	require.NoError(d, os.WriteFile(d.in(name), data, 0o600))
}

func (d desk) read(name string) []byte {
	d.Helper()
	data, err := os.ReadFile(d.in(name))
	require.NoError(d, err)
	return data
}

// run runs a verb that has to succeed; arguments that begin with ./ are files here.
func (d desk) run(args ...string) (out, errs string) {
	d.Helper()
	code, out, errs := d.try(args...)
	require.Zero(d, code, errs)
	return out, errs
}

func (d desk) try(args ...string) (code int, out, errs string) {
	d.Helper()
	var all []string
	for _, a := range args {
		for _, before := range []string{"./", "@./"} {
			if rest, ok := strings.CutPrefix(a, before); ok {
				a = strings.TrimSuffix(before, "./") + d.in(rest)
			}
		}
		all = append(all, a)
	}
	return run(d.T, all...)
}

// uki builds a UKI.
func (d desk) uki(name, arch string, more ...string) {
	d.Helper()
	d.run(append([]string{
		"uki", "build", "--stub", "./stub-" + arch, "--linux", "./linux-" + arch, "--initrd", "./first.cpio", "--initrd", "./second.cpio",
		"--cmdline", "@./cmdline", "--osrel", "./os-release", "--uname", "6.12.0-1", "--output", "./" + name,
	}, more...)...)
}

var theKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// certificate makes a certificate of a key, as PEM and in a file; by itself, without an
// issuer.
func (d desk) certificate(name, subject string, key crypto.Signer, issuer *x509.Certificate, by crypto.Signer) *x509.Certificate {
	d.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: subject}, NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter: time.Date(2045, 1, 1, 0, 0, 0, 0, time.UTC), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if issuer == nil {
		issuer, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, key.Public(), by)
	require.NoError(d, err)
	d.write(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	made, err := x509.ParseCertificate(der)
	require.NoError(d, err)
	return made
}

func (d desk) key(name string, key *rsa.PrivateKey) {
	d.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(d, err)
	d.write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// keys makes db.key and db.crt.
func (d desk) keys() {
	d.Helper()
	key, err := theKey()
	require.NoError(d, err)
	d.key("db.key", key)
	d.certificate("db.crt", "Example signing key", key, nil, nil)
}

func TestABuiltUKIIsWhatTheLibraryMakes(t *testing.T) {
	d := newDesk(t)
	d.write("splash.bmp", []byte("BM and more"))
	d.write("tree.dtb", []byte("\xd0\x0d\xfe\xed and more"))
	d.write("sbat.csv", []byte("sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nexample,1,Example,example,1,https://example.com/\n"))
	d.write("key.pem", []byte("a key"))
	d.uki("built.efi", uki.AMD64, "--sbat", "@./sbat.csv", "--splash", "./splash.bmp", "--dtb", "./tree.dtb", "--ucode", "./first.cpio", "--section", ".pcrpkey="+d.in("key.pem"))

	input := func(name string) uki.Input {
		data := d.read(name)
		return uki.Input{R: bytes.NewReader(data), Size: int64(len(data))}
	}
	var want bytes.Buffer
	require.NoError(t, uki.Build(&want, uki.Parts{
		Stub: d.read("stub-amd64"), Linux: input("linux-amd64"), Initrds: []uki.Input{input("first.cpio"), input("second.cpio")}, Ucode: []uki.Input{input("first.cpio")},
		CommandLine: "console=ttyS0 quiet", OSRelease: string(d.read("os-release")), Uname: "6.12.0-1", SBAT: strings.TrimSpace(string(d.read("sbat.csv"))),
		Splash: d.read("splash.bmp"), DTB: d.read("tree.dtb"), Extra: []uki.Section{{Name: ".pcrpkey", Data: []byte("a key")}},
	}))
	require.True(t, bytes.Equal(want.Bytes(), d.read("built.efi")))
	left, err := filepath.Glob(d.in(".*"))
	require.NoError(t, err)
	require.Empty(t, left, "no temporary file stays")
}

// What a new user does wrong.
func TestAUKIThatCannotBeBuiltSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":             {nil, exitUsage, "--linux and --output are missing"},
		"no output":           {[]string{"--linux", "./linux-amd64"}, exitUsage, "--output is missing"},
		"an argument":         {[]string{"linux"}, exitUsage, `"linux"`},
		"no such kernel":      {[]string{"--linux", "/nowhere/vmlinuz", "--output", "./x"}, exitFailure, "reading --linux: open /nowhere/vmlinuz: no such file"},
		"a directory":         {[]string{"--linux", "/", "--output", "./x"}, exitFailure, "/ is not a file"},
		"an empty initrd":     {[]string{"--stub", "./stub-amd64", "--linux", "./linux-amd64", "--initrd", "./empty", "--output", "./x"}, exitFailure, "empty is empty"},
		"an initrd as kernel": {[]string{"--linux", "./first.cpio", "--output", "./x"}, exitFailure, "is no kernel with an EFI stub: not a PE file: it looks like a cpio archive (an initrd)"},
		"a text as stub":      {[]string{"--stub", "./os-release", "--linux", "./linux-amd64", "--output", "./x"}, exitFailure, "it looks like text"},
		"another's stub":      {[]string{"--stub", "./stub-arm64", "--linux", "./linux-amd64", "--output", "./x"}, exitFailure, "wrong architecture"},
		"a UKI as stub":       {[]string{"--stub", "./built.efi", "--linux", "./linux-amd64", "--output", "./x"}, exitFailure, "it is a UKI already"},
		"a file as text":      {[]string{"--stub", "./stub-amd64", "--linux", "./linux-amd64", "--cmdline", "./cmdline", "--output", "./x"}, exitUsage, "which is the name of a file; for what is in it, say @"},
		"a line end":          {[]string{"--stub", "./stub-amd64", "--linux", "./linux-amd64", "--cmdline", "a\nb", "--output", "./x"}, exitFailure, "command line"},
		"a long command line": {[]string{"--stub", "./stub-amd64", "--linux", "./linux-amd64", "--cmdline", strings.Repeat("a ", 5000), "--output", "./x"}, exitFailure, "command line"},
		"a section":           {[]string{"--stub", "./stub-amd64", "--linux", "./linux-amd64", "--section", ".x", "--output", "./x"}, exitUsage, "it must be NAME=FILE"},
		"a section's name":    {[]string{"--stub", "./stub-amd64", "--linux", "./linux-amd64", "--section", "x=y", "--output", "./x"}, exitUsage, "it begins with a dot"},
		"nowhere to write":    {[]string{"--stub", "./stub-amd64", "--linux", "./linux-amd64", "--output", "/nowhere/x"}, exitFailure, "writing --output"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.write("empty", nil)
			d.uki("built.efi", uki.AMD64)
			code, out, errs := d.try(append([]string{"uki", "build"}, c.args...)...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.says)
			require.Empty(t, out)
			require.NoFileExists(t, d.in("x"))
			left, err := filepath.Glob(d.in(".*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestASignedUKIIsAcceptedBySbverify(t *testing.T) {
	sbverify := tool(t, "sbverify", "sbsigntool")
	d := newDesk(t)
	d.keys()
	d.uki("built.efi", uki.AMD64)
	_, errs := d.run("uki", "sign", "./built.efi", "--key", "./db.key", "--cert", "./db.crt", "--output", "./signed.efi")
	require.Contains(t, errs, "signed by CN=Example signing key\n")
	require.Contains(t, errs, "signed.efi: signed UKI for amd64, ")
	out, err := exec.Command(sbverify, "--cert", d.in("db.crt"), d.in("signed.efi")).CombinedOutput()
	require.NoError(t, err, string(out))
	text, _ := d.run("uki", "verify", "./signed.efi", "--db", "./db.crt")
	require.Equal(t, "trusted: signed by CN=Example signing key, whom db has\n", text)

	// A second signature, in place.
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	d.key("other.key", other)
	d.certificate("other.crt", "Another", other, nil, nil)
	d.run("uki", "sign", "./signed.efi", "--key", "./other.key", "--cert", "./other.crt", "--output", "./signed.efi")
	for _, cert := range []string{"db.crt", "other.crt"} {
		out, err := exec.Command(sbverify, "--cert", d.in(cert), d.in("signed.efi")).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	out, err = exec.Command(sbverify, "--list", d.in("signed.efi")).CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), "signature 2")
}

func TestASignatureLeadsToTheDatabaseThroughItsChain(t *testing.T) {
	d := newDesk(t)
	d.uki("built.efi", uki.AMD64)
	root, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	authority := d.certificate("root.crt", "Example root", root, nil, nil)
	middle, err := theKey()
	require.NoError(t, err)
	between := d.certificate("middle.crt", "Example between", middle, authority, root)
	leaf, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	d.key("leaf.key", leaf)
	d.certificate("leaf.crt", "Example leaf", leaf, between, middle)
	d.run("uki", "sign", "./built.efi", "--key", "./leaf.key", "--cert", "./leaf.crt", "--chain", "./middle.crt", "--output", "./signed.efi")
	text, _ := d.run("uki", "verify", "./signed.efi", "--db", "./root.crt")
	require.Equal(t, "trusted: signed by CN=Example leaf, whom CN=Example root in db vouches for\n", text)
	out, _ := d.run("uki", "verify", "./signed.efi", "--db", "./root.crt", "-o", "json")
	var report verifyReport
	decode(t, out, &report)
	require.Equal(t, "CN=Example root", report.TrustedBy)
	require.True(t, report.Signature.Intact)

	d.run("uki", "sign", "./built.efi", "--key", "./leaf.key", "--cert", "./leaf.crt", "--output", "./short.efi")
	code, _, errs := d.try("uki", "verify", "./short.efi", "--db", "./root.crt")
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "not trusted: signature 1 by CN=Example leaf")
	code, _, errs = d.try("uki", "verify", "./signed.efi", "--db", "./root.crt", "--dbx", "./middle.crt")
	require.Equal(t, exitFailure, code, errs)
	code, _, errs = d.try("uki", "verify", "./built.efi", "--db", "./root.crt")
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "not signed")
}

// decode reads JSON that has no field that is not known.
func decode(t *testing.T, text string, to any) {
	t.Helper()
	j := json.NewDecoder(strings.NewReader(text))
	j.DisallowUnknownFields()
	require.NoError(t, j.Decode(to), text)
}

func TestWhatCannotBeSignedSaysWhy(t *testing.T) {
	openssl := tool(t, "openssl", "openssl")
	d := newDesk(t)
	d.keys()
	d.uki("built.efi", uki.AMD64)
	before := d.read("built.efi")
	out, err := exec.Command(openssl, "pkcs8", "-topk8", "-in", d.in("db.key"), "-out", d.in("locked.key"), "-passout", "pass:open sesame").CombinedOutput()
	require.NoError(t, err, string(out))
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	d.key("other.key", other)
	d.write("wrong", []byte("close sesame\n"))
	d.write("right", []byte("open sesame\n"))
	d.write("none", []byte("\n"))
	t.Setenv(passphraseVariable, "")
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":         {[]string{"./built.efi"}, exitUsage, "--key, --cert and --output are missing"},
		"no file":         {[]string{"--key", "./db.key", "--cert", "./db.crt", "--output", "./x"}, exitUsage, "accepts 1 arg"},
		"no program":      {[]string{"./os-release", "--key", "./db.key", "--cert", "./db.crt", "--output", "./x"}, exitFailure, "is nothing that firmware starts: not a PE file: it looks like text"},
		"no key":          {[]string{"./built.efi", "--key", "./db.crt", "--cert", "./db.crt", "--output", "./x"}, exitFailure, "reading --key"},
		"no certificate":  {[]string{"./built.efi", "--key", "./db.key", "--cert", "./db.key", "--output", "./x"}, exitFailure, "reading --cert"},
		"another's key":   {[]string{"./built.efi", "--key", "./other.key", "--cert", "./db.crt", "--output", "./x"}, exitFailure, "signing with"},
		"encrypted":       {[]string{"./built.efi", "--key", "./locked.key", "--cert", "./db.crt", "--output", "./x"}, exitFailure, "is encrypted, and there is no terminal to ask for its passphrase on: use --passphrase-file or the environment variable " + passphraseVariable},
		"wrong":           {[]string{"./built.efi", "--key", "./locked.key", "--cert", "./db.crt", "--output", "./x", "--passphrase-file", "./wrong"}, exitFailure, "the passphrase does not open the private key"},
		"empty":           {[]string{"./built.efi", "--key", "./locked.key", "--cert", "./db.crt", "--output", "./x", "--passphrase-file", "./none"}, exitFailure, "is empty; it must be the passphrase"},
		"no such file":    {[]string{"./built.efi", "--key", "./locked.key", "--cert", "./db.crt", "--output", "./x", "--passphrase-file", "/nowhere"}, exitFailure, "reading --passphrase-file"},
		"no such program": {[]string{"/nowhere", "--key", "./db.key", "--cert", "./db.crt", "--output", "./x"}, exitFailure, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := d.try(append([]string{"uki", "sign"}, c.args...)...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.says)
			require.NotContains(t, errs, "sesame")
			require.NoFileExists(t, d.in("x"))
			require.Equal(t, before, d.read("built.efi"))
		})
	}
	d.run("uki", "sign", "./built.efi", "--key", "./locked.key", "--cert", "./db.crt", "--output", "./x", "--passphrase-file", "./right")
	t.Setenv(passphraseVariable, "open sesame")
	d.run("uki", "sign", "./built.efi", "--key", "./locked.key", "--cert", "./db.crt", "--output", "./y")
}

var objdumpRow = regexp.MustCompile(`(?m)^\s*\d+ (\.\S+)\s+([0-9a-f]{8})\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]{8})`)

// Every section, with its size, address and place in the file. The image base, which
// objdump adds to addresses, is 0 in all of these files.
func TestInspectAgreesWithObjdump(t *testing.T) {
	objdump := tool(t, "objdump", "binutils")
	d := newDesk(t)
	d.keys()
	d.uki("built.efi", uki.AMD64)
	d.run("uki", "sign", "./built.efi", "--key", "./db.key", "--cert", "./db.crt", "--output", "./signed.efi")
	files := []string{d.in("built.efi"), d.in("signed.efi"), d.in("stub-amd64")}
	if _, err := os.Stat(stubDirectory + "/linuxx64.efi.stub"); err == nil {
		files = append(files, stubDirectory+"/linuxx64.efi.stub")
		d.run("uki", "build", "--stub", stubDirectory+"/linuxx64.efi.stub", "--linux", "./linux-amd64", "--cmdline", "x", "--output", "./systemd.efi")
		files = append(files, d.in("systemd.efi"))
	}
	for _, file := range files {
		out, err := exec.Command(objdump, "-h", file).CombinedOutput()
		require.NoError(t, err, string(out))
		text, _ := d.run("uki", "inspect", file, "-o", "json")
		var r ukiReport
		decode(t, text, &r)
		found := objdumpRow.FindAllStringSubmatch(string(out), -1)
		require.Len(t, r.Sections, len(found), string(out))
		for i, m := range found {
			s := r.Sections[i]
			require.Equal(t, m[1], s.Name, file)
			require.Equal(t, hexadecimal(t, m[2]), s.Size, "%s: size of %s", file, s.Name)
			require.Equal(t, hexadecimal(t, m[3]), int64(s.VirtualAddress), "%s: address of %s", file, s.Name)
			require.Equal(t, hexadecimal(t, m[4]), s.Offset, "%s: offset of %s", file, s.Name)
		}
	}
}

func hexadecimal(t *testing.T, s string) int64 {
	t.Helper()
	v, err := strconv.ParseInt(s, 16, 64)
	require.NoError(t, err)
	return v
}

func TestInspectIsMadeToBeRead(t *testing.T) {
	d := newDesk(t)
	d.keys()
	d.uki("built.efi", uki.AMD64)
	out, errs := d.run("uki", "inspect", "./built.efi")
	require.Empty(t, errs)
	golden(t, "uki-inspect.txt", out)

	d.run("uki", "sign", "./built.efi", "--key", "./db.key", "--cert", "./db.crt", "--output", "./signed.efi")
	text, _ := d.run("uki", "inspect", "./signed.efi", "-o", "json")
	var r ukiReport
	decode(t, text, &r)
	out, _ = d.run("uki", "inspect", "./signed.efi")
	golden(t, "uki-inspect-signed.txt", masked(out, string(r.Digest), r.Signatures[0].Certificate))

	d.write("profile1", []byte("ID=debug\nTITLE=Debug\n"))
	d.write("profile0", []byte("ID=main\nTITLE=Main\n"))
	d.write("debug", []byte("console=ttyS0 debug"))
	d.uki("profiles.efi", uki.ARM64, "--section", ".profile="+d.in("profile0"), "--section", ".profile="+d.in("profile1"), "--section", ".cmdline="+d.in("debug"))
	out, _ = d.run("uki", "inspect", "./profiles.efi")
	golden(t, "uki-inspect-profiles.txt", out)

	out, _ = d.run("uki", "inspect", "./stub-amd64")
	require.Contains(t, out, "unsigned EFI application for amd64")
}

// masked replaces digests that are others each time by as many letters.
func masked(text string, digests ...string) string {
	for _, d := range digests {
		_, hex, _ := strings.Cut(d, ":")
		text = strings.ReplaceAll(text, hex, strings.Repeat("d", len(hex)))
		text = strings.ReplaceAll(text, hex[:16], strings.Repeat("d", 16))
	}
	return text
}

// A signature over other bytes is shown for what it is.
func TestInspectShowsABrokenSignature(t *testing.T) {
	d := newDesk(t)
	d.keys()
	d.uki("built.efi", uki.AMD64)
	d.run("uki", "sign", "./built.efi", "--key", "./db.key", "--cert", "./db.crt", "--output", "./signed.efi")
	data := d.read("signed.efi")
	at := bytes.Index(data, []byte("console=ttyS0"))
	data[at] = 'X'
	d.write("altered.efi", data)
	out, _ := d.run("uki", "inspect", "./altered.efi")
	require.Contains(t, out, "broken: ")
	code, _, errs := d.try("uki", "verify", "./altered.efi", "--db", "./db.crt")
	require.Equal(t, exitFailure, code)
	require.Contains(t, errs, "not trusted")
	d.write("cut.efi", data[:len(data)-100])
	out, _ = d.run("uki", "inspect", "./cut.efi")
	require.Contains(t, out, "The signatures cannot be read: ")
}

// What a file says of itself does not move the cursor.
func TestInspectPrintsNoControlCharacters(t *testing.T) {
	d := newDesk(t)
	d.write("os-release", []byte("ID=a\nPRETTY_NAME=\"\x1b[31mred\x07\u009b\"\n"))
	d.uki("built.efi", uki.AMD64)
	out, _ := d.run("uki", "inspect", "./built.efi")
	require.Contains(t, out, "?[31mred??")
	require.NotContains(t, out, "\x1b")
}

func TestInspectOfSomethingElseSaysWhatItIs(t *testing.T) {
	d := newDesk(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"inspect text":     {[]string{"inspect", "./os-release"}, exitFailure, "not a PE file: it looks like text"},
		"inspect nothing":  {[]string{"inspect", "/nowhere"}, exitFailure, "no such file"},
		"inspect as xml":   {[]string{"inspect", "./stub-amd64", "-o", "xml"}, exitUsage, "it must be text or json"},
		"inspect several":  {[]string{"inspect", "a", "b"}, exitUsage, "accepts 1 arg"},
		"verify as xml":    {[]string{"verify", "./stub-amd64", "--db", "./os-release", "-o", "xml"}, exitUsage, "it must be text or json"},
		"verify for whom":  {[]string{"verify", "./stub-amd64"}, exitUsage, "--db is missing"},
		"verify by text":   {[]string{"verify", "./stub-amd64", "--db", "./os-release"}, exitFailure, "os-release"},
		"verify by nobody": {[]string{"verify", "./stub-amd64", "--db", "/nowhere"}, exitFailure, "reading --db"},
		"no verb":          {nil, exitUsage, "a verb of uki is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := d.try(append([]string{"uki"}, c.args...)...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.says)
		})
	}
}

func TestAmountsAreForPeople(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_999: "1.0 MB", 61_234_567: "61.2 MB", 5_400_000_000: "5.4 GB", 7e15: "7000.0 TB"} {
		require.Equal(t, want, amount(bytes), fmt.Sprint(bytes))
	}
}
