package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/publish"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/registry"
)

// serveRegistry serves a registry; nobody is logged in to any.
func serveRegistry(t *testing.T, o registry.Options) *registry.Server {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv(epochVariable, "")
	s, err := registry.Serve("127.0.0.1:0", o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// login is docker login.
func login(t *testing.T, host, user, password string) {
	t.Helper()
	config := fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, host, user, password)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	t.Setenv("DOCKER_CONFIG", dir)
}

const created = "1767225600" // 2026-01-01

// A pipeline from files to a registry and back.
func TestAnImageIsPushedPulledInspectedAndCopied(t *testing.T) {
	s := serveRegistry(t, registry.Options{TLS: true, Auth: registry.Token, Username: "ci", Password: "s3cret"})
	login(t, s.Host, "ci", "s3cret")
	d := newDesk(t)
	d.write("ca.crt", s.CA)
	d.keys()
	d.uki("plain.efi", uki.AMD64)
	d.run("uki", "sign", "./plain.efi", "--key", "./db.key", "--cert", "./db.crt", "--output", "./amd64.efi")
	d.write("root", []byte("hsqs and more"))
	image := s.Host + "/os/debian:13"
	out, errs := d.run("image", "push", image, "--ca-file", "./ca.crt", "--created", created, "--osrel", "./os-release", "--annotation", "org.opencontainers.image.vendor=Example",
		"--arch", "amd64", "--uki", "./amd64.efi",
		"--arch", "arm64", "--stub", "./stub-arm64", "--kernel", "./linux-arm64", "--initrd", "./first.cpio", "--initrd", "./second.cpio", "--squashfs", "./root", "--cmdline", "@./cmdline")
	require.Regexp(t, `^`+s.Host+`/os/debian@sha256:[0-9a-f]{64}\n$`, out, "nothing else, so that it can be signed")
	require.Contains(t, errs, "amd64 uki.efi: done")
	require.Contains(t, errs, "for amd64 and arm64")
	require.NotContains(t, errs, "s3cret")
	pinned := strings.TrimSpace(out)

	out, _ = d.run("image", "inspect", image, "--ca-file", "./ca.crt", "-o", "json", "-q")
	var report imageReport
	decode(t, out, &report)
	require.Equal(t, pinned, s.Host+"/os/debian@"+string(report.Digest))
	require.Equal(t, "Example", report.Annotations["org.opencontainers.image.vendor"])
	require.True(t, report.UKIs[boot.AMD64].Signatures[0].Intact)
	out, errs = d.run("image", "inspect", image, "--ca-file", "./ca.crt", "--quiet")
	require.Empty(t, errs)
	out = masked(out, string(report.Digest), string(report.UKIs[boot.AMD64].Digest), report.UKIs[boot.AMD64].Signatures[0].Certificate)
	golden(t, "image-inspect.txt", strings.ReplaceAll(out, s.Host, "registry.example"))
	out, _ = d.run("image", "inspect", pinned, "--ca-file", "./ca.crt", "--pull=false")
	require.NotContains(t, out, "SECTION")
	require.Contains(t, out, "the UKI  ")

	out, _ = d.run("image", "pull", pinned, "--ca-file", "./ca.crt", "--output", "./pulled", "-o", "json")
	var pulled publish.Pulled
	decode(t, out, &pulled)
	require.Len(t, pulled.Files, 5)
	require.Equal(t, d.read("amd64.efi"), d.read("pulled/amd64/uki.efi"))
	require.Equal(t, d.read("linux-arm64"), d.read("pulled/arm64/vmlinuz"))
	out, _ = d.run("uki", "inspect", "./pulled/arm64/stub.efi")
	require.Contains(t, out, ".osrel", "composed UKIs have it")

	out, errs = d.run("image", "copy", image, s.Host+"/prod/debian:13", "--ca-file", "./ca.crt", "--from-ca-file", "./ca.crt")
	require.Equal(t, strings.Replace(pinned, "/os/", "/prod/", 1)+"\n", out)
	require.Contains(t, errs, "signatures and what else refers to it: 0")
	out, _ = d.run("image", "pull", s.Host+"/prod/debian:13", "--ca-file", "./ca.crt", "--output", "./again", "--arch", "amd64")
	require.Contains(t, out, d.in("again/amd64/uki.efi"))
	require.NoDirExists(t, d.in("again/arm64"))
}

// What the operator resolves is what was pushed.
func TestTheOperatorFindsWhatWasPushed(t *testing.T) {
	s := serveRegistry(t, registry.Options{})
	d := newDesk(t)
	d.uki("amd64.efi", uki.AMD64)
	d.run("image", "push", s.Host+"/os/debian:13", "--plain-http", "--uki", "./amd64.efi", "--kernel", "./linux-amd64", "--initrd", "./first.cpio", "--stub", "./stub-amd64")
	store, err := artifact.New(artifact.Options{Dir: t.TempDir(), AllowedRegistries: []string{s.Host}, PlainHTTPRegistries: []string{s.Host}})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	img, err := store.Resolve(t.Context(), s.Host+"/os/debian:13", boot.AMD64, artifact.Credentials{})
	require.NoError(t, err)
	for _, role := range []boot.Role{boot.RoleUKI, boot.RoleStub, boot.RoleKernel, boot.RoleInitrd} {
		_, err := img.Artifact(role)
		require.NoError(t, err)
	}
}

func TestAnImageOfADirectoryAndOfAnOS(t *testing.T) {
	s := serveRegistry(t, registry.Options{})
	d := newDesk(t)
	d.uki("one.efi", uki.AMD64)
	for name, data := range map[string][]byte{
		"dir/amd64/uki.efi": d.read("one.efi"), "dir/arm64/vmlinuz": d.read("linux-arm64"), "dir/arm64/initrd": d.read("first.cpio"),
		"root/boot/vmlinuz-1": d.read("linux-amd64"), "root/boot/initrd.img-1": d.read("first.cpio"), "root/usr/lib/os-release": d.read("os-release"),
		"root/usr/lib/systemd/boot/efi/linuxx64.efi.stub": d.read("stub-amd64"),
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(d.in(name)), 0o755))
		d.write(name, data)
	}
	out, _ := d.run("image", "push", s.Host+"/os/a:1", "--plain-http", "--from-dir", "./dir", "-o", "json", "-q")
	var pushed publish.Pushed
	decode(t, out, &pushed)
	require.Equal(t, []string{"amd64", "arm64"}, architecturesOf(pushed))
	out, _ = d.run("image", "push", s.Host+"/os/b:1", "--plain-http", "--from-root", "./root", "--uki", "./one.efi", "-o", "json", "-q")
	pushed = publish.Pushed{}
	decode(t, out, &pushed)
	var roles []boot.Role
	for _, l := range pushed.Manifests[0].Layers {
		roles = append(roles, l.Role)
	}
	require.Equal(t, []boot.Role{boot.RoleUKI, boot.RoleStub, boot.RoleKernel, boot.RoleInitrd}, roles)

	// The same inputs and the same time make the same digest, and another time another.
	digest := func(args ...string) string {
		out, _ := d.run(append([]string{"image", "push", s.Host + "/os/c:1", "--plain-http", "--from-root", "./root", "-q"}, args...)...)
		return out
	}
	want := digest("--created", created)
	require.Equal(t, want, digest("--created", "2026-01-01T01:00:00+01:00"))
	require.NotEqual(t, want, digest())
	t.Setenv(epochVariable, created)
	require.Equal(t, want, digest())
	require.Equal(t, want, digest("--no-overwrite"), "the same is no change")
}

// What a new user does wrong before anything is sent.
func TestAPushThatIsCalledWronglySaysWhatWouldBeRight(t *testing.T) {
	s := serveRegistry(t, registry.Options{})
	ref := s.Host + "/os/debian:13"
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no reference":      {nil, exitUsage, "accepts 1 arg"},
		"nothing":           {[]string{ref}, exitUsage, "nothing to publish is named: use --uki, --kernel with --initrd, --from-dir or --from-root"},
		"a URL":             {[]string{"https://" + ref, "--uki", "./one.efi"}, exitUsage, "it begins with a scheme (https://)"},
		"upper case":        {[]string{s.Host + "/OS/debian", "--uki", "./one.efi"}, exitUsage, "is not a repository name"},
		"a digest":          {[]string{s.Host + "/os/debian@sha256:" + strings.Repeat("0", 64), "--uki", "./one.efi", "--plain-http"}, exitFailure, "name a tag"},
		"twice":             {[]string{ref, "--uki", "./one.efi", "--uki", "./one.efi"}, exitUsage, "given twice for one architecture; begin the files of another with --arch, before --uki"},
		"arch twice":        {[]string{ref, "--arch", "amd64", "--uki", "./one.efi", "--arch", "amd64"}, exitUsage, "it begins the files of amd64 twice"},
		"another's name":    {[]string{ref, "--arch", "x86_64", "--uki", "./one.efi"}, exitUsage, `the architecture "x86_64" is called amd64 here`},
		"aarch64":           {[]string{ref, "--arch", "aarch64"}, exitUsage, "is called arm64 here"},
		"riscv64":           {[]string{ref, "--arch", "riscv64"}, exitUsage, "it must be amd64 or arm64"},
		"wrong arch":        {[]string{ref, "--arch", "arm64", "--uki", "./one.efi"}, exitFailure, "is for amd64; it should be for arm64, it was said to be"},
		"empty":             {[]string{ref, "--uki", ""}, exitUsage, "it is empty"},
		"missing":           {[]string{ref, "--arch", "amd64", "--uki", "./one.efi", "--arch", "arm64"}, exitFailure, "an image needs a UKI, or a kernel and an initrd"},
		"a disk image":      {[]string{ref, "--uki", "./disk"}, exitFailure, "is no UKI: not a PE file: it looks like a qcow2 disk image"},
		"kernel alone":      {[]string{ref, "--kernel", "./linux-amd64"}, exitFailure, "needs an initrd"},
		"directory":         {[]string{ref, "--from-dir", "./"}, exitFailure, "has neither a UKI"},
		"no OS":             {[]string{ref, "--from-root", "./"}, exitFailure, "has no kernel; it would be one of"},
		"both":              {[]string{ref, "--from-dir", ".", "--uki", "./one.efi"}, exitUsage, "--from-dir finds the files itself"},
		"version of what":   {[]string{ref, "--uki", "./one.efi", "--kernel-version", "1"}, exitUsage, "chooses a kernel of --from-root, which is missing"},
		"a file as text":    {[]string{ref, "--uki", "./one.efi", "--cmdline", "./cmdline"}, exitUsage, "for what is in it, say @"},
		"a time":            {[]string{ref, "--uki", "./one.efi", "--created", "yesterday"}, exitUsage, `--created is "yesterday"; it must be a time`},
		"an odd time":       {[]string{ref, "--uki", "./one.efi", "--created", "999999999999999"}, exitUsage, "seconds since 1970"},
		"annotation":        {[]string{ref, "--uki", "./one.efi", "--annotation", "vendor"}, exitUsage, `"vendor" is no annotation`},
		"annotation again":  {[]string{ref, "--uki", "./one.efi", "--annotation", "a=b", "--annotation", "a=c"}, exitUsage, "is given twice"},
		"append and keep":   {[]string{ref, "--uki", "./one.efi", "--append", "--no-overwrite"}, exitUsage, "exclude each other"},
		"password where":    {[]string{ref, "--uki", "./one.efi", "--username", "ci"}, exitUsage, "--username needs --password-stdin"},
		"password of whom":  {[]string{ref, "--uki", "./one.efi", "--password-stdin"}, exitUsage, "--username is missing"},
		"no password":       {[]string{ref, "--uki", "./one.efi", "--username", "ci", "--password-stdin"}, exitFailure, "is empty; it must be the password"},
		"no authority":      {[]string{ref, "--uki", "./one.efi", "--ca-file", "./os-release"}, exitFailure, "holds no PEM certificate"},
		"xml":               {[]string{ref, "--uki", "./one.efi", "-o", "xml"}, exitUsage, "it must be text or json"},
		"without TLS":       {[]string{ref, "--uki", "./one.efi"}, exitFailure, "speaks plain HTTP: use --plain-http"},
		"no tag to keep":    {[]string{s.Host + "/os/debian:new", "--uki", "./one.efi", "--plain-http", "--no-overwrite"}, 0, ""},
		"a tag that stands": {[]string{ref, "--uki", "./one.efi", "--plain-http", "--no-overwrite", "--version", "2"}, exitFailure, "the tag exists already: " + ref + " is sha256:"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.uki("one.efi", uki.AMD64)
			d.write("disk", []byte("QFI\xfb and more"))
			if name == "a tag that stands" {
				d.run("image", "push", ref, "--uki", "./one.efi", "--plain-http")
			}
			code, _, errs := d.try(append([]string{"image", "push"}, c.args...)...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.says)
		})
	}
}

func TestTheOtherVerbsOfImageSayWhatWouldBeRight(t *testing.T) {
	s := serveRegistry(t, registry.Options{})
	ref := s.Host + "/os/debian:13"
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no verb":             {nil, exitUsage, "a verb of image is missing"},
		"unknown verb":        {[]string{"upload"}, exitUsage, `"upload"`},
		"pull nowhere":        {[]string{"pull", ref}, exitUsage, "--output is missing"},
		"pull in a format":    {[]string{"pull", ref, "--output", "./x", "-o", "./x"}, exitUsage, "and the directory is --output"},
		"pull for a stranger": {[]string{"pull", ref, "--output", "./x", "--arch", "i386"}, exitUsage, "it must be amd64 or arm64"},
		"pull what is not":    {[]string{"pull", ref, "--output", "./x", "--plain-http"}, exitFailure, "not found"},
		"inspect what is not": {[]string{"inspect", ref, "--plain-http"}, exitFailure, "reading " + ref + ": image or blob not found"},
		"inspect as xml":      {[]string{"inspect", ref, "-o", "xml"}, exitUsage, "it must be text or json"},
		"copy to nowhere":     {[]string{"copy", ref}, exitUsage, "accepts 2 arg"},
		"copy with one stdin": {[]string{"copy", ref, ref, "--username", "a", "--password-stdin", "--from-username", "b", "--from-password-stdin"}, exitUsage, "there is one standard input"},
		"copy for whom":       {[]string{"copy", ref, ref, "--from-username", "b"}, exitUsage, "--from-username needs --from-password-stdin"},
		"copy without TLS":    {[]string{"copy", ref, ref, "--plain-http"}, exitFailure, "speaks plain HTTP"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := newDesk(t).try(append([]string{"image"}, c.args...)...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.says)
		})
	}
}

// Whoever may only pull is told so, and no password is printed.
func TestARegistryThatLetsNobodyPushSaysSo(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	inner := registry.New(registry.Options{Auth: registry.Basic, Username: "reader", Password: "s3cret"})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, known := r.BasicAuth(); known && r.Method == http.MethodPost {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"push access denied"}]}`)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	defer s.Close()
	host := s.Listener.Addr().String()
	d := newDesk(t)
	d.uki("one.efi", uki.AMD64)
	var out, errs bytes.Buffer
	push := func(password string) int {
		errs.Reset()
		return execute(t.Context(), []string{"image", "push", host + "/os/debian:13", "--plain-http", "--uki", d.in("one.efi"), "--username", "reader", "--password-stdin"},
			&environment{In: strings.NewReader(password + "\n"), Out: &out, Err: &errs})
	}
	require.Equal(t, exitFailure, push("s3cret"))
	require.Contains(t, errs.String(), "unauthorized: "+host+" does not allow that in os/debian (DENIED push access denied); check the user, the password and its rights")
	require.Equal(t, exitFailure, push("wr0ng"))
	require.Contains(t, errs.String(), "refused the credentials")
	require.NotContains(t, errs.String(), "wr0ng")
	code, _, text := d.try("image", "push", host+"/os/debian:13", "--plain-http", "--uki", "./one.efi")
	require.Equal(t, exitFailure, code)
	require.Contains(t, text, "wants credentials for os/debian; docker login "+host)
	require.Empty(t, out.String())
}

// An image that says it is for an architecture that its UKI is not for.
func TestInspectSeesThroughAnImage(t *testing.T) {
	s := serveRegistry(t, registry.Options{})
	d := newDesk(t)
	d.uki("arm64.efi", uki.ARM64)
	_, err := s.Publish("os/wrong", "1", map[string][]byte{"amd64": d.read("arm64.efi"), "arm64": []byte("<html>not found")})
	require.NoError(t, err)
	out, _ := d.run("image", "inspect", s.Host+"/os/wrong:1", "--plain-http", "-q")
	require.Contains(t, out, "not what it should be: the UKI is for arm64: no machine of this architecture starts it")
	require.Contains(t, out, "not what it should be: not a PE file: it looks like an HTML page")
	_, err = s.PublishIndex("os/empty", "1", false)
	require.NoError(t, err)
	out, _ = d.run("image", "inspect", s.Host+"/os/empty:1", "--plain-http", "-q")
	require.Contains(t, out, "No machine boots it: it has nothing for amd64 and arm64")
	_, err = s.PublishImage("os/app", "1", registry.Image{Architecture: "amd64", Layers: []registry.Layer{{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Data: []byte("x")}}})
	require.NoError(t, err)
	out, _ = d.run("image", "inspect", s.Host+"/os/app:1", "--plain-http", "-q")
	require.Contains(t, out, "nothing: ")
	require.Contains(t, out, "nothing to boot in the image: its layers are application/vnd.oci.image.layer.v1.tar+gzip")
	d.run("image", "push", s.Host+"/os/drivers:1", "--plain-http", "--arch", "amd64", "--initrd", "./first.cpio")
	out, _ = d.run("image", "inspect", s.Host+"/os/drivers:1", "--plain-http", "-q")
	require.Contains(t, out, "nothing alone: an initrd to append to another image's")
	_, err = s.PublishImage("os/kernel", "1", registry.Image{Architecture: "amd64", Layers: []registry.Layer{{MediaType: registry.Kernel, Data: []byte("x")}}})
	require.NoError(t, err)
	out, _ = d.run("image", "inspect", s.Host+"/os/kernel:1", "--plain-http", "-q")
	require.Contains(t, out, "nothing: a UKI, or a kernel and an initrd, is missing")
}

func TestProgressIsABarOnATerminalAndLinesElsewhere(t *testing.T) {
	now := time.Unix(0, 0)
	show := func(terminal bool) string {
		var b bytes.Buffer
		p := &progress{out: &b, terminal: terminal, width: 70, now: func() time.Time { return now }}
		for at := int64(0); at <= 10_000_000; at += 2_500_000 {
			p.note(publish.Event{Step: publish.Sending, Name: "amd64 uki.efi", Size: 10_000_000, At: at})
			now = now.Add(time.Second)
		}
		p.note(publish.Event{Step: publish.Repeating, Name: "amd64 uki.efi", Err: errors.New("cut\x1b[0m")})
		p.note(publish.Event{Step: publish.Done, Name: "amd64 uki.efi", Size: 10_000_000})
		p.note(publish.Event{Step: publish.Sending, Name: "amd64 config", Size: 100})
		p.note(publish.Event{Step: publish.Present, Name: "amd64 config", Size: 100})
		return b.String()
	}
	require.Equal(t, "amd64 uki.efi: sending 10.0 MB\n"+
		"amd64 uki.efi: broke, and is tried again: cut?[0m\n"+
		"amd64 uki.efi: done (10.0 MB)\n"+
		"amd64 config: there already (100 B)\n", show(false))
	bar := show(true)
	require.Contains(t, bar, "\ramd64 uki.efi: sending  [############            ]  50%  5.0 MB of 10\x1b[K", "as wide as the terminal")
	require.Contains(t, bar, "\r\x1b[Kamd64 uki.efi: broke, and is tried again")
	require.NotContains(t, bar, "\x1b[0m")
	require.Nil(t, newProgress(&environment{}, true))
	require.NotNil(t, newProgress(&environment{Err: &bytes.Buffer{}}, false))
}

// A report is JSON that is read by programs: its names are promises.
func TestReportsAreJSON(t *testing.T) {
	for _, v := range []any{publish.Pushed{}, publish.Pulled{}, publish.Copied{}, imageReport{}, imageVerifyReport{}, checkReport{}, ukiReport{}, verifyReport{}} {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		require.NotRegexp(t, `"[A-Z]\w*":`, string(text))
	}
}
