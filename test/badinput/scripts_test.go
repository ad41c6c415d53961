//go:build linux

package badinput

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

// scripted is a config for iPXE that is fine until something changes it, with the
// MAC address and the address that its machine has.
type scripted struct {
	*v1alpha1.IPXEBootConfig
	mac, address string
}

func (s *site) scripted(name, image string) scripted {
	s.names++
	m := scripted{address: fmt.Sprintf("127.9.%d.%d", s.names/250, s.names%250+1), mac: fmt.Sprintf("52:54:00:ab:%02x:%02x", s.names>>8, s.names&0xff)}
	m.IPXEBootConfig = &v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.IPXEBootConfigSpec{
		SystemUUID:         fmt.Sprintf("00112233-4455-6677-8899-aabbccee%04x", s.names),
		NetworkIdentifiers: []string{m.address, m.mac},
		Image:              image,
		IgnitionSecretRef:  &corev1.LocalObjectReference{Name: "ign"},
	}}
	s.objects = append(s.objects, m.IPXEBootConfig)
	return m
}

// kernel publishes an image for iPXE, and returns its reference and its kernel's digest.
func (s *site) kernel(repository string) (image, digest string) {
	s.t.Helper()
	kernel := []byte("a kernel of " + repository)
	_, err := s.good.PublishImage(repository, "1", registry.Image{Architecture: "amd64", Layers: []registry.Layer{
		{MediaType: registry.Kernel, Data: kernel}, {MediaType: registry.Initramfs, Data: []byte("an initrd of " + repository)},
	}})
	require.NoError(s.t, err)
	return s.good.Host + "/" + repository + ":1", digestOf(kernel)
}

// script asks for a script, which is a 200 whatever is asked for.
func (s *site) script(t *testing.T, from, path string) string {
	t.Helper()
	a := s.get(from, path)
	require.NoError(t, a.err, "%.100s", path)
	require.Equal(t, 200, a.code, "%.100s: %.300s", path, a.body)
	require.Equal(t, "text/plain; charset=utf-8", a.header.Get("Content-Type"))
	require.Empty(t, a.header.Get("Location"))
	return string(a.body)
}

// badScript is a mistake in what gets into a script, and what users see of it.
type badScript struct {
	name              string
	make              func(s *site, spec *v1alpha1.IPXEBootConfigSpec)
	condition, reason string
	message           string
}

func template(text string) func(*site, *v1alpha1.IPXEBootConfigSpec) {
	return func(_ *site, spec *v1alpha1.IPXEBootConfigSpec) { spec.ScriptTemplate = text }
}

// own gives a machine this Secret for its own script.
func own(name string, data map[string]string) func(*site, *v1alpha1.IPXEBootConfigSpec) {
	return func(s *site, spec *v1alpha1.IPXEBootConfigSpec) {
		spec.Image, spec.IPXEScriptSecretRef = "", s.secret(name, data)
	}
}

func argument(arg string) func(*site, *v1alpha1.IPXEBootConfigSpec) {
	return func(_ *site, spec *v1alpha1.IPXEBootConfigSpec) { spec.KernelArguments = []string{"quiet", arg} }
}

func kernelURL(url string) func(*site, *v1alpha1.IPXEBootConfigSpec) {
	return func(_ *site, spec *v1alpha1.IPXEBootConfigSpec) {
		spec.Image, spec.KernelURL, spec.InitrdURL = "", url, "http://192.0.2.1/initrd"
	}
}

func document(name string, data map[string]string) func(*site, *v1alpha1.IPXEBootConfigSpec) {
	return func(s *site, spec *v1alpha1.IPXEBootConfigSpec) { spec.IgnitionSecretRef = s.secret(name, data) }
}

// badScripts pass what the API server checks. What is secret in them is never
// repeated: neither a line of a machine's own script, nor of its user data.
var badScripts = []badScript{
	{"template-unclosed", template("#!ipxe\n{{"), artifacts, v1alpha1.ReasonTemplateInvalid, "spec.scriptTemplate: "},
	{"template-no-magic", template("#!ipxexy\nboot\n"), artifacts, v1alpha1.ReasonTemplateInvalid, `line 1 of the script that the template yields is "#!ipxexy"`},
	{"template-recursion", template("#!ipxe\n{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}"), artifacts, v1alpha1.ReasonTemplateInvalid, "does not end"},
	{"template-loop", template("#!ipxe\n{{range 2000000000}}{{range 2000000000}}{{end}}{{end}}"), artifacts, v1alpha1.ReasonTemplateInvalid, "steps"},
	{"template-too-much", template("#!ipxe\n{{range 4000}}" + strings.Repeat("x", 100) + "{{end}}"), artifacts, v1alpha1.ReasonTemplateInvalid, "more than 65536 bytes"},
	{"template-no-field", template("#!ipxe\n{{.Secret}}"), artifacts, v1alpha1.ReasonTemplateInvalid, "there is no field Secret here"},
	{"template-function", template("#!ipxe\n{{printf \"%999999999d\" 1}}"), artifacts, v1alpha1.ReasonTemplateInvalid, "the function printf is not there"},
	{"template-expansion", template("#!ipxe\necho ${{.Name}}"), artifacts, v1alpha1.ReasonTemplateInvalid, "line 2 of the template: a $ stands right before"},
	{"template-nul", template("#!ipxe\n\x00"), artifacts, v1alpha1.ReasonTemplateInvalid, "line 2 of the template has a NUL"},

	{"own-no-magic", own("own-no-magic", map[string]string{"ipxe-script": marker + "\nboot\n"}), artifacts, v1alpha1.ReasonScriptInvalid, "must be #!ipxe"},
	{"own-too-long", own("own-too-long", map[string]string{"ipxe-script": "#!ipxe\n" + strings.Repeat("# "+marker+"\n", 40_000)}), artifacts, v1alpha1.ReasonScriptInvalid, "at most 65536"},
	{"own-nul", own("own-nul", map[string]string{"ipxe-script": "#!ipxe\n" + marker + "\n\x00"}), artifacts, v1alpha1.ReasonScriptInvalid, "line 3"},
	{"own-no-key", own("own-no-key", map[string]string{"script": marker}), artifacts, v1alpha1.ReasonSecretKeyMissing, `no key "ipxe-script"`},
	{"own-empty", own("own-empty", nil), artifacts, v1alpha1.ReasonSecretKeyMissing, `no key "ipxe-script"`},
	{"own-no-secret", func(_ *site, spec *v1alpha1.IPXEBootConfigSpec) {
		spec.Image, spec.IPXEScriptSecretRef = "", &corev1.LocalObjectReference{Name: "nowhere"}
	}, artifacts, v1alpha1.ReasonSecretNotFound, "there is no Secret nowhere"},

	{"argument-comment", argument("#x"), artifacts, v1alpha1.ReasonArgumentInvalid, `spec.kernelArguments[1]: invalid: the kernel argument "#x" is a comment or separator`},
	{"argument-or", argument("||"), artifacts, v1alpha1.ReasonArgumentInvalid, "comment or separator"},
	{"argument-and", argument("&&"), artifacts, v1alpha1.ReasonArgumentInvalid, "comment or separator"},
	{"argument-semicolon", argument(";"), artifacts, v1alpha1.ReasonArgumentInvalid, "comment or separator"},
	{"argument-backslash", argument(`a\`), artifacts, v1alpha1.ReasonArgumentInvalid, "ends in a backslash"},
	{"argument-dollar", argument("a$"), artifacts, v1alpha1.ReasonArgumentInvalid, "ends in $"},
	{"arguments-too-long", func(_ *site, spec *v1alpha1.IPXEBootConfigSpec) {
		for range 8 {
			spec.KernelArguments = append(spec.KernelArguments, strings.Repeat("x", 200))
		}
	}, artifacts, v1alpha1.ReasonArgumentInvalid, "at most 1280 fit"},

	{"url-newline", kernelURL("http://h\nshell/vmlinuz"), artifacts, v1alpha1.ReasonInvalidReference, "spec.kernelURL: "},
	{"url-expansion", kernelURL("http://192.0.2.1/${uuid}"), artifacts, v1alpha1.ReasonInvalidReference, "percent-encode it"},
	{"url-separator", kernelURL("http://192.0.2.1/a||shell"), artifacts, v1alpha1.ReasonInvalidReference, "percent-encode it"},
	{"url-quote", kernelURL(`http://192.0.2.1/"a"`), artifacts, v1alpha1.ReasonInvalidReference, "percent-encode it"},
	{"url-control", kernelURL("http://192.0.2.1/\x0b\x00"), artifacts, v1alpha1.ReasonInvalidReference, "percent-encode it"},
	{"url-password", kernelURL("http://user:" + "pass" + "@192.0.2.1/a"), artifacts, v1alpha1.ReasonInvalidReference, "user name or password"},

	{"no-initrd", func(s *site, spec *v1alpha1.IPXEBootConfigSpec) {
		spec.Image = s.publishLayer("os/kernel-only", registry.Layer{MediaType: registry.Kernel, Data: []byte("kernel")})
	}, artifacts, v1alpha1.ReasonNoArtifact, "nitrd"},
	{"uki-for-ipxe", func(s *site, spec *v1alpha1.IPXEBootConfigSpec) {
		spec.Image = s.publish(s.good, "os/uki-only", map[string][]byte{"amd64": s.uki("amd64", 0)})
	}, artifacts, v1alpha1.ReasonNoArtifact, "its layers are application/vnd.ironcore.image.uki"},

	{"user-data-no-header", document("user-data-no-header", map[string]string{"format": "cloud-config", "user-data": marker}),
		ignition, v1alpha1.ReasonIgnitionInvalid, "the user data's first line is none that cloud-init knows"},
	{"user-data-no-yaml", document("user-data-no-yaml", map[string]string{"format": "cloud-config", "user-data": "#cloud-config\na: b\n" + marker + ": {" + marker}),
		ignition, v1alpha1.ReasonIgnitionInvalid, "is not YAML (line "},
	{"user-data-list", document("user-data-list", map[string]string{"format": "cloud-config", "user-data": "#cloud-config\n- " + marker}),
		ignition, v1alpha1.ReasonIgnitionInvalid, "must be a YAML mapping"},
	{"network-config-text", document("network-config-text", map[string]string{"format": "cloud-config", "user-data": "#!/bin/sh\n", "network-config": marker}),
		ignition, v1alpha1.ReasonIgnitionInvalid, "the network-config must be a YAML mapping"},
	{"user-data-no-key", document("user-data-no-key", map[string]string{"format": "cloud-config", "userdata": marker}),
		ignition, v1alpha1.ReasonSecretKeyMissing, `there is no key "user-data"`},
	{"ignition-no-keys", document("ignition-no-keys", nil), ignition, v1alpha1.ReasonSecretKeyMissing, `there is no key "ignition"`},
}

func (b badScript) check(t *testing.T, s *site, m scripted) {
	got := s.showsOf(t, m.IPXEBootConfig, b.condition, metav1.ConditionFalse, b.reason)
	require.Contains(t, got.Message, b.message)
	require.NotContains(t, got.Message, "\n")
	require.NotContains(t, got.Message, strings.Split(marker, "-")[0])
	s.showsOf(t, m.IPXEBootConfig, v1alpha1.ConditionReady, metav1.ConditionFalse, b.reason)
	s.event(t, m.Name, b.reason, corev1.EventTypeWarning)
	paths := map[string][]string{m.address: {"/ipxe/" + m.mac, "/grub/grub.cfg-01-" + m.mac, "/ignition", "/cloud-init/user-data"}}
	if m.Spec.IPXEScriptSecretRef == nil { // else a claim is told to leave
		paths[stranger] = []string{"/ipxe/" + m.mac}
	}
	for from, list := range paths {
		for _, path := range list {
			a := s.get(from, path)
			require.NoError(t, a.err)
			require.NotContains(t, string(a.body), "kernel http", path)
			require.NotContains(t, string(a.body), marker, path)
			if strings.HasPrefix(path, "/ipxe") {
				require.Equal(t, http.StatusServiceUnavailable, a.code, "%s: %s", path, a.body)
				require.NotEmpty(t, a.header.Get("Retry-After"))
				requireError(t, a)
			}
		}
	}
}

// makeHostile makes the fields of a spec as hostile as they can be where they are
// valid: it is served, and no line of its script is another than those of a spec
// without malice.
func makeHostile(spec *v1alpha1.IPXEBootConfigSpec) {
	evil := `'a';b&&c||d&$x$(id)` + "%0Ashell%24%7Buuid%7D"
	spec.Image, spec.IPXEServerURL = "", "http://h/\n#!ipxe\nshell ${uuid}\n"
	url := "http://192.0.2.1/" + strings.ReplaceAll(evil, "||", "%7C%7C")
	spec.KernelURL, spec.InitrdURL, spec.SquashfsURL = url, url, url
	spec.KernelArguments = []string{evil, `"a`, "a;b", "`id`", `a\b`, "{}", "!#", "||x", "--", "a#b"}
}

func (s *site) requireHarmless(t *testing.T, hostile, plain scripted) {
	s.showsOf(t, hostile.IPXEBootConfig, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	lines := func(script string) []string {
		var kept []string
		for line := range strings.Lines(script) {
			if !strings.HasPrefix(line, "#") { // its digests are known of images only
				kept = append(kept, line)
			}
		}
		return kept
	}
	want := lines(s.script(t, stranger, "/ipxe/"+plain.mac))
	for _, query := range []string{"", "?serial=a%0Ashell+%24%7Buuid%7D&a%0Ashell=x&manufacturer=%7C%7C+reboot&product=%22%27%60%24(id)%60"} {
		got := lines(s.script(t, stranger, "/ipxe/"+hostile.mac+query))
		require.Len(t, got, len(want), "%q", got)
		for i, line := range got {
			word, _, _ := strings.Cut(line, " ")
			if word == "kernel" || word == "initrd" {
				require.True(t, strings.HasPrefix(want[i], word+" "), line)
				require.Equal(t, 1, strings.Count(line, " || "), line)
				require.NotContains(t, line, "${")
				continue
			}
			require.Equal(t, want[i], line)
		}
		require.NotContains(t, strings.Join(got, ""), "shell\n")
	}
}

// requireOneMachine holds that a machine of two NICs has one script, by every
// notation of each.
func (s *site) requireOneMachine(t *testing.T, m scripted, digest string) {
	s.showsOf(t, m.IPXEBootConfig, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	for _, path := range []string{
		"/ipxe/52:54:00:ac:00:01", "/ipxe/52-54-00-AC-00-01", "/ipxe/5254.00ac.0001", "/ipxe/525400AC0001", "/ipxe/01-52-54-00-ac-00-01",
		"/ipxe?mac=52:54:00:ff:ff:ff&mac=52-54-00-ac-00-02&mac=", "/ipxe?mac=525400ac0002&mac=5254.00AC.0001",
	} {
		require.Contains(t, s.script(t, stranger, path), "/"+digest+"/", path)
	}
	require.Contains(t, string(s.get(stranger, "/grub/grub.cfg-01-52-54-00-ac-00-02").body), "/"+digest+"/")
}

// useScriptToken boots by a script with a token, and returns all tokens that the
// machine was told on the way.
func (s *site) useScriptToken(t *testing.T, m scripted, key []byte) []string {
	t.Helper()
	s.showsOf(t, m.IPXEBootConfig, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	ring, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: key})
	require.NoError(t, err)
	mint := func(audience boot.Audience) string {
		token, err := ring.Mint(boot.Token{
			Object: boot.UUID(m.UID), Attempt: m.Status.Boot.Attempt, Audience: audience, Proof: boot.Proxy, Expires: time.Now().Add(time.Hour),
		})
		require.NoError(t, err)
		return token
	}
	own, secret := mint(boot.AudienceBoot), mint(boot.AudienceSecret)
	leave := s.script(t, stranger, "/ipxe/52:54:00:ff:ff:ff")
	const host = "127.9.255.4"
	for _, path := range []string{
		"/ipxe/t/", "/ipxe/t/x", "/ipxe/t/" + own[:79], "/ipxe/t/" + own + "A", "/ipxe/t/" + strings.ToLower(own), "/ipxe/t/" + own[:70] + strings.Repeat("A", 10),
		"/ipxe/t/" + secret, "/ipxe?token=" + secret, "/ipxe?token=", "/ipxe?token=" + own + "&token=" + own, "/ipxe/" + own, "/ipxe/t/" + strings.Repeat("A", 80),
	} {
		require.Equal(t, leave, s.script(t, host, path), path)
	}
	for _, path := range []string{"/ipxe/T/" + own, "/ipxe/t/" + own + "/x", "/cloud-init/t/" + own + "/user-data", "/cloud-init/" + own + "/user-data", "/grub/" + own, "/ipxe/t/../" + own + "/x", "/ipxe/t/%00" + own} {
		requireNotFound(t, s.raw(t, host, "GET "+path+" HTTP/1.1\r\nHost: x\r\nReferer: http://x/"+own+"\r\n\r\n"))
	}
	script := s.script(t, host, "/ipxe/t/"+own)
	told := tokenPattern.FindAllString(script, -1)
	require.NotEmpty(t, told, "a proven machine is told a token for its secrets:\n%s", script)
	require.Contains(t, string(s.get(host, "/ignition?token="+told[0]).body), marker)
	return append(told, own, secret)
}
