//go:build linux

package badinput

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// requireRefusedByTheAPIServer holds that what could begin a line of a script, or
// be expanded by iPXE, is refused where users see it at once.
func (s *site) requireRefusedByTheAPIServer(t *testing.T) {
	type spec = v1alpha1.IPXEBootConfigSpec
	fields := map[string]struct {
		good string
		set  func(*spec, string)
		evil []string
	}{
		"systemUUID":         {"00112233-4455-6677-8899-aabbccddeeff", func(c *spec, v string) { c.SystemUUID = v }, nil},
		"systemIPs":          {"192.0.2.7", func(c *spec, v string) { c.SystemIPs = []string{v} }, nil},
		"networkIdentifiers": {"52:54:00:aa:bb:01", func(c *spec, v string) { c.NetworkIdentifiers = []string{v} }, []string{"fe80::1%a\nb"}},
		"image":              {"registry.example.com/os:1", func(c *spec, v string) { c.Image = v }, nil},
		"kernelArguments":    {"quiet", func(c *spec, v string) { c.KernelArguments = []string{v} }, []string{"ä", "\x00", "a\tb", "a\rb", "a\u2028b"}},
		"architecture":       {"amd64", func(c *spec, v string) { c.Architecture = v1alpha1.Architecture(v) }, []string{"riscv64", "AMD64"}},
		"bootPolicy":         {"Once", func(c *spec, v string) { c.BootPolicy = v1alpha1.BootPolicy(v) }, nil},
		"minimumProof":       {"Proxy", func(c *spec, v string) { c.MinimumProof = v1alpha1.Proof(v) }, nil},
	}
	for name, f := range fields {
		for _, v := range append(f.evil, f.good+"\nshell", "\n"+f.good, f.good+"\n", f.good+" || shell", f.good+"${uuid}", f.good+"\x00${uuid}") {
			s.requireRefused(t, name, func(c *spec) { f.set(c, v) })
		}
	}
	urls := map[string]func(*spec, string){
		"kernelURL":   func(c *spec, v string) { c.KernelURL = v },
		"initrdURL":   func(c *spec, v string) { c.InitrdURL = v },
		"squashfsURL": func(c *spec, v string) { c.SquashfsURL = v },
	}
	for name, set := range urls {
		for _, v := range []string{"http://h/a\nshell", "http://h/a\r\nshell", "http://h/a || shell", "http://h/a\t", "file:///etc/passwd", "tftp://h/x", "\nhttp://h/a", "http:///a"} {
			s.requireRefused(t, name, func(c *spec) { set(c, v) })
		}
	}
	for _, v := range []string{"boot\n", "\n#!ipxe\n", "\ufeff#!ipxe\n", "#!ipxe\n" + strings.Repeat("x", 16384)} {
		s.requireRefused(t, "scriptTemplate", func(c *spec) { c.ScriptTemplate = v })
	}
	big := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "two-mib", Namespace: s.namespace}, StringData: map[string]string{"ipxe-script": "#!ipxe\n" + strings.Repeat("x", 2<<20)}}
	require.Error(t, s.client.Create(context.Background(), big), "a script of 2 MiB fits into no Secret")
}

func (s *site) requireRefused(t *testing.T, field string, change func(*v1alpha1.IPXEBootConfigSpec)) {
	t.Helper()
	c := &v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Name: "refused", Namespace: s.namespace}, Spec: v1alpha1.IPXEBootConfigSpec{Image: "registry.example.com/os:1"}}
	change(&c.Spec)
	err := s.client.Create(t.Context(), c, client.DryRunAll)
	require.True(t, apierrors.IsInvalid(err), "%s of %+v: %v", field, c.Spec, err)
	require.ErrorContains(t, err, "spec."+field)
}

// badNames are requests for scripts in the name of nobody.
var badNames = []badRequest{
	{"names-of-nobody", func(t *testing.T, s *site, _ machine) {
		leave := s.script(t, stranger, "/ipxe/52:54:00:ff:ff:ff")
		require.Contains(t, leave, "exit")
		for _, name := range []string{
			"junk", "%24%7Bnet0%7D", "${net0}", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52:54:00:aa:bb", "52:54:00:aa:bb:01:02",
			"00000000-0000-0000-0000-000000000000", "03000200-0400-0500-0006-000700080009", "::1", "10.0.0.1", strings.Repeat("5", 400), "ä", "*", "'%20OR%201=1", "T", "t",
		} {
			require.Equal(t, leave, s.script(t, stranger, "/ipxe/"+name), "%.100s", name)
		}
		grub := s.script(t, stranger, "/grub/grub.cfg-01-52-54-00-ff-ff-ff")
		for _, name := range []string{"garbage", "", "01-", "$x", "';reboot;'", "52-54-00-aa-bb", strings.Repeat("5", 400)} {
			require.Equal(t, grub, s.script(t, stranger, "/grub/grub.cfg-01-"+name), "%.100s", name)
		}
	}},
	{"labels-without-end", func(t *testing.T, s *site, _ machine) {
		many, huge := strings.Builder{}, "&serial="+strings.Repeat("x", 3000)
		for i := range 2000 {
			many.WriteString("&" + string(rune('a'+i%26)) + strings.Repeat("b", i/26) + "=x")
		}
		leave := s.script(t, stranger, "/ipxe/52:54:00:ff:ff:ff")
		mac := s.objects[2].(*v1alpha1.IPXEBootConfig).Spec.NetworkIdentifiers[1]
		for _, query := range []string{
			huge, "&%00=%00", "&a%0Ab=c%0Ad", "&=", "&&&", "&%zz=%", "&;", "&mac=" + strings.Repeat("&mac=", 500), "&" + url.QueryEscape("a\x01\x7f${x}") + "=y", many.String()[:3000],
		} {
			require.NotEqual(t, leave, s.script(t, stranger, "/ipxe?mac="+mac+query), "%.100s", query)
			require.Equal(t, leave, s.script(t, stranger, "/ipxe?x="+query), "%.100s", query)
		}
		for _, query := range []string{many.String(), strings.Repeat("serial=x&", 1<<20)} {
			a := s.get(stranger, "/ipxe?mac="+mac+query)
			require.True(t, a.err != nil || a.code == 431 || a.code == 414 || a.code == 200, "%d", a.code)
		}
	}},
	{"architectures-of-nobody", func(t *testing.T, s *site, _ machine) {
		leave := s.script(t, stranger, "/ipxe/52:54:00:ff:ff:ff")
		mac := s.objects[2].(*v1alpha1.IPXEBootConfig).Spec.NetworkIdentifiers[1]
		for _, arch := range []string{"riscv64", "loong64", "arm32", "arm64", "x86", "amd64v3", "$%7Bbuildarch%7D", "amd64%20arm64", "..", strings.Repeat("x", 200)} {
			require.Equal(t, leave, s.script(t, stranger, "/ipxe/"+mac+"?buildarch="+arch), arch)
		}
		for _, arch := range []string{"x86_64", "i386", "AMD64", ""} {
			require.NotEqual(t, leave, s.script(t, stranger, "/ipxe/"+mac+"?buildarch="+arch), arch)
		}
	}},
	{"scripts-and-seeds-with-dots", func(t *testing.T, s *site, healthy machine) {
		for _, path := range []string{
			"/ipxe/%00", "/ipxe/%0Ashell", "/ipxe/" + strings.Repeat("5", 4000), "/grub/grub.cfg-01-" + strings.Repeat("5", 4000), "/grub/grub.cfg-01-%0A", "/cloud-init/x/y", "/cloud-init/", "/cloud-init/user-data", "/cloud-init/" + healthy.Spec.SystemUUID + "/../../ignition", "/cloud-init/" + healthy.Spec.SystemUUID + "/passwd",
			"/cloud-init/../ignition", "/cloud-init/%2e%2e/user-data", "/cloud-init/t/x/user-data", "/cloud-init/t/../user-data", "/ipxe/../ignition", "/ipxe/%2e%2e/ignition", "/ipxe/t/../../ignition",
			"/ipxe/..%2fignition", "/grub/../ignition", "/grub/grub.cfg-01-../../ignition", "/grub/etc/passwd", "/grub/grub.cfg-02-x", "/boot.ipxe/../ignition", "/boot.ipxe/x", "/autoexec.ipxe/..",
		} {
			a := s.raw(t, stranger, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			require.Contains(t, []int{200, 404}, a.code, "%s: %s", path, a.body)
			require.Empty(t, a.header.Get("Location"), path)
			require.NotContains(t, string(a.body), marker, path)
			require.NotContains(t, string(a.body), "root:", path)
			if a.code == 200 {
				require.Contains(t, string(a.body), "exit", "%s: nothing but a script that leaves", path)
				require.NotContains(t, string(a.body), "kernel", path)
			}
		}
	}},
	{"other-methods-of-scripts", func(t *testing.T, s *site, _ machine) {
		mac := s.objects[2].(*v1alpha1.IPXEBootConfig).Spec.NetworkIdentifiers[1]
		for _, path := range []string{"/boot.ipxe", "/ipxe", "/ipxe/" + mac, "/ipxe/t/x", "/grub/grub.cfg", "/grub/grub.cfg-01-" + mac} {
			a := s.raw(t, stranger, "HEAD "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			require.Equal(t, 200, a.code, path)
			require.NotEqual(t, "0", a.header.Get("Content-Length"), path)
			for _, method := range []string{"POST", "PUT", "DELETE"} {
				require.Equal(t, 405, s.raw(t, stranger, method+" "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").code, path)
			}
		}
	}},
}
