package httpserver

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
)

const macB = boot.MAC("52:54:00:aa:bb:02")

// withTokens makes a world's server check and hand out tokens.
func withTokens(w *world) {
	w.keys, _ = boot.NewKeyring(boot.TokenKey{ID: 1, Secret: randomBytes(32)})
	w.options.Keyring = w.keys
	w.options.Issuer = boot.NewIssuer(w.keys, w.attempts, w.clock.now)
}

// ipxe makes machine A one that boots a kernel by script.
func ipxe(w *world) {
	kernel, initrd := w.blobs.add(w.t, []byte("kernel")), w.blobs.add(w.t, []byte("initrd"))
	kernel.Role, initrd.Role = boot.RoleKernel, boot.RoleInitrd
	w.plan.Object.Kind = kindIPXE
	w.plan.Artifacts = []boot.Artifact{kernel, initrd}
}

func (w *world) mint(p *boot.Plan, attempt int64, audience boot.Audience, proof boot.Proof, addr netip.Addr) string {
	w.t.Helper()
	s, err := w.keys.Mint(boot.Token{
		Object: boot.UUID(p.Object.UID), Attempt: attempt, Audience: audience, Proof: proof, Addr: addr, Expires: w.clock.now().Add(time.Hour),
	})
	require.NoError(w.t, err)
	return s
}

// script asks for a script and checks what is true of every one.
func script(t *testing.T, from netip.Addr, url string) string {
	t.Helper()
	a := ask(t, from, http.MethodGet, url)
	require.NoError(t, a.err)
	require.Equal(t, 200, a.StatusCode, string(a.body))
	require.Equal(t, "text/plain; charset=utf-8", a.Header.Get("Content-Type"))
	require.Equal(t, int64(len(a.body)), a.ContentLength, "iPXE hangs without Content-Length")
	head := ask(t, from, http.MethodHead, url)
	require.Equal(t, 200, head.StatusCode)
	require.Empty(t, head.body)
	return string(a.body)
}

var leaves = string(render.Leave())

func TestAMachineIsMadeToNameItself(t *testing.T) {
	w := newWorld(t, ipxe)
	base := w.bootServer()
	for _, path := range []string{"/boot.ipxe", "/ipxe", "/ipxe/", "//boot.ipxe"} {
		require.Equal(t, string(render.Chain(base)), script(t, addrC, base+path), path)
	}
	// Not the Host header's: firmware and proxies say what they like there.
	forged := ask(t, addrC, http.MethodGet, base+"/boot.ipxe", "Host", "evil.example", "X-Forwarded-Host", "evil.example")
	require.NotContains(t, string(forged.body), "evil.example")

	w = newWorld(t, ipxe, func(w *world) { w.options.BaseURL = "https://boot.example:9443/" })
	require.Equal(t, string(render.Chain("https://boot.example:9443")), script(t, addrC, w.bootServer()+"/boot.ipxe"))
}

func TestTheScriptOfAMachineByAnyOfItsNames(t *testing.T) {
	w := newWorld(t, ipxe)
	w.plan.Machine.MACs = []boot.MAC{macA, macB}
	base := w.bootServer()
	want := ""
	for _, path := range []string{
		"/ipxe/52:54:00:aa:bb:01", "/ipxe/52-54-00-AA-BB-01", "/ipxe/5254.00aa.bb01", "/ipxe/525400AABB01", "/ipxe/01-52-54-00-aa-bb-01",
		"/ipxe/52%3A54%3A00%3Aaa%3Abb%3A01", "/ipxe/" + string(macB), "//ipxe//525400aabb01/",
		"/ipxe?mac=52%3a54%3a00%3aaa%3abb%3a01", "/ipxe?mac=52:54:00:ff:ff:ff&mac=" + string(macB) + "&mac=&uuid=",
		"/ipxe?uuid=00000000-0000-0000-0000-000000000000&mac=" + string(macA), "/ipxe?mac=junk&mac=" + string(macA),
	} {
		got := script(t, addrC, base+path)
		require.Contains(t, got, "/images/"+string(w.plan.Artifacts[0].Digest)+"/", path)
		if want == "" {
			want = got
		}
		require.Equal(t, want, got, path)
	}
	// Known defect 28: either byte order.
	for _, u := range []string{string(uuidA), strings.ToUpper(string(uuidA)), string(uuidA.Swapped()), strings.ReplaceAll(string(uuidA), "-", "")} {
		for _, path := range []string{"/ipxe/", "/ipxe?uuid="} {
			require.Contains(t, script(t, addrC, base+path+u), string(w.plan.Artifacts[1].Digest), u)
		}
	}
	_, _, begins := w.attempts.count()
	require.Zero(t, begins, "a claim opens nothing")
	require.Empty(t, w.attempts.seen, "and is nobody's delivery")
}

// Known defect 1: who says a victim's MAC address learns its UUID.
func TestAClaimLearnsNoUUIDAndNoToken(t *testing.T) {
	w := newWorld(t, ipxe, withTokens)
	base := w.bootServer()
	for _, path := range []string{"/ipxe/" + string(macA), "/ipxe?mac=" + string(macA) + "&uuid=" + string(uuidB), "/grub/grub.cfg-01-52-54-00-aa-bb-01"} {
		a := ask(t, addrC, http.MethodGet, base+path, "X-Forwarded-For", "127.0.0.1, "+string(macA))
		require.Contains(t, string(a.body), "/ignition", path)
		require.NotContains(t, string(a.body), string(uuidA), path)
		require.NotContains(t, string(a.body), "token", path)
	}
	require.Contains(t, script(t, addrC, base+"/ipxe/"+string(uuidA)), "/ignition/"+string(uuidA), "the control: it says the UUID itself")
	require.Contains(t, script(t, addrC, base+"/ipxe/"+string(uuidA.Swapped())), "/ignition/"+string(uuidA), "in the other byte order")
	require.Contains(t, script(t, addrA, base+"/ipxe/"+string(macA)), "/ignition/"+string(uuidA), "the control: it is proven")
	require.Zero(t, w.secrets.calls)
}

// Known defects 14 and 31: what no script is for ends in one that leaves, never
// in an error that nobody runs.
func TestWhatNoScriptIsForLeaves(t *testing.T) {
	w := newWorld(t, ipxe, withTokens)
	other := w.machine("b", uuidB, addrB)
	other.Machine.MACs, other.Object.Kind, other.Artifacts = []boot.MAC{macB}, kindIPXE, w.plan.Artifacts
	own := w.machine("own", "11111111-2222-3333-4444-555555555555")
	own.Object.Kind, own.HasScript = kindIPXE, true
	w.secrets.scripts[own.Object.UID] = []byte("#!ipxe\necho sesame\n")
	single := w.machine("once", "21111111-2222-3333-4444-555555555555")
	single.Object.Kind, single.Policy, single.Artifacts = kindIPXE, boot.Once, w.plan.Artifacts
	base := w.bootServer()
	unknown := ask(t, addrC, http.MethodGet, base+"/ipxe/52:54:00:ff:ff:ff")
	require.Equal(t, leaves, string(unknown.body))
	for name, path := range map[string]string{
		"junk":                      "/ipxe/junk",
		"multicast":                 "/ipxe/01:00:5e:00:00:01",
		"placeholder":               "/ipxe/ffffffff-ffff-ffff-ffff-ffffffffffff",
		"unknown UUID":              "/ipxe/99999999-2222-3333-4444-555555555555",
		"no name":                   "/ipxe?serial=1",
		"two machines":              "/ipxe?mac=" + string(macA) + "&mac=" + string(macB),
		"two machines, path":        "/ipxe/" + string(macA) + "?uuid=" + string(uuidB),
		"other architecture":        "/ipxe/" + string(macA) + "?buildarch=arm64",
		"unknown architecture":      "/ipxe/" + string(macA) + "?buildarch=riscv64",
		"other architecture, words": "/ipxe?architecture=AArch64&mac=" + string(macA),
		"own script on a claim":     "/ipxe/" + string(own.Machine.UUID),
		"Once on a claim":           "/ipxe/" + string(single.Machine.UUID),
		"junk token":                "/ipxe/t/junk",
		"empty token":               "/ipxe?token=",
		"token twice":               "/ipxe?token=a&token=b&mac=" + string(macA),
	} {
		a := ask(t, addrC, http.MethodGet, base+path)
		require.Equal(t, 200, a.StatusCode, name)
		require.Equal(t, unknown.body, a.body, name)
		require.Len(t, a.Header, len(unknown.Header), name)
		require.NotContains(t, string(a.body), "sesame")
	}
	for _, arch := range []string{"buildarch=x86_64", "buildarch=i386", "architecture=AMD64", "buildarch="} {
		require.NotEqual(t, leaves, script(t, addrC, base+"/ipxe/"+string(macA)+"?"+arch), arch)
	}
	require.Empty(t, w.attempts.seen)
	require.Contains(t, w.log.String(), "AmbiguousIdentity")
	require.Contains(t, w.log.String(), "WrongArchitecture")
}

// Known defect 23.
func TestAKnownMachineThatCannotBootYetIsToldToComeAgain(t *testing.T) {
	for name, change := range map[string]func(*world){
		"plan":     func(w *world) { w.plan.NotReady = "pulling from registry.example" },
		"source":   func(w *world) { w.source.broken = boot.ErrUnavailable },
		"template": func(w *world) { w.plan.ScriptTemplate = "{{" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ipxe, change)
			base := w.bootServer()
			for _, from := range []netip.Addr{addrA, addrC} {
				for _, path := range []string{"/ipxe/" + string(macA), "/grub/grub.cfg-01-" + string(macA)} {
					if name == "template" && strings.HasPrefix(path, "/grub") {
						continue
					}
					a := ask(t, from, http.MethodGet, base+path)
					require.Equal(t, 503, a.StatusCode, path)
					require.Equal(t, "5", a.Header.Get("Retry-After"))
					require.Less(t, len(a.body), 512)
					if from == addrC && name == "plan" {
						require.NotContains(t, string(a.body), "registry.example", "a claim learns no reason")
					}
				}
			}
			_, _, begins := w.attempts.count()
			require.Zero(t, begins, "an attempt was opened for nothing")
		})
	}
}

func TestTheConfigForIPXEGoesBeforeTheOtherKind(t *testing.T) {
	w := newWorld(t, withTokens)
	base := w.bootServer()
	chain := script(t, addrC, base+"/ipxe/"+string(macA))
	require.Contains(t, chain, base+"/httpboot ", "a config for HTTP boot has its UKI chained")
	require.NotContains(t, chain, string(uuidA))
	p := w.machine("b", uuidA)
	p.Machine.MACs = []boot.MAC{macA}
	p.Object.Kind, p.Artifacts = kindIPXE, []boot.Artifact{{Role: boot.RoleKernel, Digest: w.plan.Artifacts[0].Digest, Size: 1}}
	require.Contains(t, script(t, addrC, base+"/ipxe/"+string(macA)), "/images/")

	// By a token, with the token for the UKI.
	token := w.mint(w.plan, 1, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	chain = script(t, addrC, base+"/ipxe/t/"+token)
	require.Contains(t, chain, base+"/httpboot/t/"+token+"/uki.efi ")
	require.Equal(t, w.data, ask(t, addrC, http.MethodGet, base+"/httpboot/t/"+token+"/uki.efi").body)
	require.Empty(t, w.attempts.observed(boot.StageIPXEScript), "the UKI is the delivery")

	w.plan.Policy = boot.Once
	w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now(), Spent: true})
	require.Equal(t, leaves, script(t, addrC, base+"/ipxe/t/"+token), "nothing is left to chain to")
}

func TestAUKIChainOfTheDefaultImage(t *testing.T) {
	w := newWorld(t, func(w *world) { w.defaultImage() })
	base := w.bootServer()
	w.plan.Artifacts = nil
	require.Contains(t, script(t, addrC, base+"/ipxe/"+string(macA)), base+"/httpboot ")
	w = newWorld(t)
	w.plan.Artifacts = nil
	require.Equal(t, leaves, script(t, addrC, w.bootServer()+"/ipxe/"+string(macA)))
	w.plan.Foreign = map[boot.Role]string{boot.RoleUKI: "https://images.example/x.efi"}
	require.Contains(t, script(t, addrC, w.bootServer()+"/ipxe/"+string(macA)), "https://images.example/x.efi")
}

func TestAnAddressNamesAMachineThatNamesItselfByNothingElse(t *testing.T) {
	w := newWorld(t, ipxe)
	w.plan.Machine = boot.Machine{Addrs: []netip.Addr{addrA}, Architecture: boot.AMD64}
	base := w.bootServer()
	path := "/ipxe?mac=52:54:00:ff:ff:ff&uuid=" + string(uuidB)
	require.NotEqual(t, leaves, script(t, addrA, base+path))
	require.Equal(t, leaves, script(t, addrC, base+path), "the control")
	w.plan.Machine.MACs = []boot.MAC{macA}
	require.Equal(t, leaves, script(t, addrA, base+path), "the config lists a MAC address, and that is another")
}

func TestNamingAnotherMachineMakesTheAddressAmbiguous(t *testing.T) {
	w := newWorld(t, ipxe)
	b := w.machine("b", uuidB, addrB)
	b.Machine.MACs, b.Object.Kind, b.Artifacts = []boot.MAC{macB}, kindIPXE, w.plan.Artifacts
	base := w.bootServer()
	path := base + "/ipxe/" + string(macB)
	require.Equal(t, 200, ask(t, addrA, http.MethodHead, path).StatusCode)
	require.Empty(t, w.attempts.observed(boot.StageAmbiguous), "a HEAD has no effect")
	a := get(t, path)
	require.NotContains(t, string(a.body), string(uuidB), "served as to any claim")
	require.NotEqual(t, leaves, string(a.body))
	o := w.attempts.observed(boot.StageAmbiguous)
	require.Len(t, o, 1)
	require.Equal(t, w.plan.Object, o[0].Object)
	require.Equal(t, 404, get(t, base+"/ignition").StatusCode)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition").StatusCode, "the control")
}

func TestScriptsAreOnTheBootPortOnly(t *testing.T) {
	w := newWorld(t, ipxe)
	images := w.serve(w.server.ImageHandler(), ServeOptions{})
	for _, path := range []string{"/boot.ipxe", "/ipxe", "/ipxe/" + string(macA), "/ipxe/t/x", "/grub/grub.cfg", "/cloud-init/user-data", "/cloud-init/t/x/user-data"} {
		require.Equal(t, 404, get(t, images+path).StatusCode, path)
		require.Equal(t, 405, ask(t, addrA, http.MethodPost, w.bootServer()+path).StatusCode, path)
	}
}

// FuzzIPXEPath: whatever names are asked for, from wherever, there is a script
// or a 503; and only the machine's own names lead to its script.
func FuzzIPXEPath(f *testing.F) {
	w := newWorld(f, ipxe, withTokens)
	for _, s := range []string{"/ipxe", "/ipxe/" + string(macA), "/ipxe/52-54-00-aa-bb-01", "/ipxe?mac=" + string(macA), "/ipxe/t/x", "/ipxe/" + string(uuidA),
		"/ipxe/%00", "/ipxe?mac=%zz&uuid=;", "/ipxe?a=b&a=c&=&&", "/grub/grub.cfg-01-525400aabb01", "/cloud-init/x/user-data", "/ipxe/a?buildarch=${x}"} {
		f.Add(s, "127.0.0.1:1")
		f.Add(s, "[::1]:1")
	}
	h := w.server.BootHandler()
	digest := string(w.plan.Artifacts[0].Digest)
	f.Fuzz(func(t *testing.T, target, remote string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Path == "" || u.Path[0] != '/' {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL, r.RequestURI, r.RemoteAddr = u, target, remote
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		clean, ok := cleanPath(u.Path)
		if !ok {
			return
		}
		isScript := clean == "/ipxe" || strings.HasPrefix(clean, "/ipxe/") && strings.Count(clean, "/") == 2
		if isScript {
			require.Equal(t, 200, rec.Code)
			require.True(t, strings.HasPrefix(rec.Body.String(), "#!ipxe\n"))
		}
		from, _ := netip.ParseAddrPort(remote)
		if isScript && boot.CanonicalAddr(from.Addr()) != addrA && strings.Contains(rec.Body.String(), digest) {
			named := strings.ToLower(u.Path + u.RawQuery)
			unescaped, _ := url.QueryUnescape(named)
			named = strings.NewReplacer(":", "", "-", "", ".", "", " ", "", "+", "", "{", "", "}", "").Replace(strings.ToLower(unescaped))
			require.True(t, strings.Contains(named, "525400aabb01") || strings.Contains(named, "00112233445566778899aabbccddeeff") ||
				strings.Contains(named, "33221100554477668899aabbccddeeff"), target)
		}
	})
}
