package httpserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestFirmwareGetsItsUKI(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/httpboot"

	head := ask(t, addrA, http.MethodHead, url, "Accept", "*/*", "User-Agent", "UefiHttpBoot/1.0")
	require.Equal(t, 200, head.StatusCode)
	require.Equal(t, int64(len(w.data)), head.ContentLength)
	require.Empty(t, head.body)
	require.Empty(t, w.attempts.observed(boot.StageUKI), "a HEAD delivers nothing")
	_, _, begins := w.attempts.count()
	require.Zero(t, begins, "a HEAD opens no attempt")

	a := get(t, url, "Accept", "*/*")
	require.NoError(t, a.err)
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, w.data, a.body)
	for _, h := range []http.Header{head.Header, a.Header} {
		require.Equal(t, []string{"application/efi"}, h["Content-Type"])
		require.Equal(t, fmt.Sprintf("%q", w.plan.Artifacts[0].Digest), h.Get("Etag"))
		require.Equal(t, "bytes", h.Get("Accept-Ranges"))
	}
	eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 1 })
	o := w.attempts.observed(boot.StageUKI)[0]
	require.Equal(t, boot.Observation{
		Object: w.plan.Object, Attempt: 1, Stage: boot.StageUKI, Complete: true, Addr: addrA, Proof: boot.Address,
		Digest: w.plan.Artifacts[0].Digest, Time: w.clock.now(), Sent: int64(len(w.data)), Size: int64(len(w.data)),
	}, o)
}

// Known defect 18: status writes on the request path.
func TestBootOfAlwaysNeverWaitsForTheAPIServer(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer()
	require.Equal(t, 200, get(t, url+"/httpboot").StatusCode)
	require.Equal(t, 200, get(t, url+"/ignition").StatusCode)
	commits, refreshes, _ := w.attempts.count()
	require.Zero(t, commits)
	require.Zero(t, refreshes)

	// The control: Once does commit.
	w.plan.Policy = boot.Once
	require.Equal(t, 200, get(t, url+"/httpboot").StatusCode)
	commits, _, _ = w.attempts.count()
	require.Equal(t, 1, commits)
}

func TestUnknownMachineGets404(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/httpboot"
	a := ask(t, addrB, http.MethodGet, url)
	require.Equal(t, 404, a.StatusCode)
	require.JSONEq(t, `{"error":"not found","reason":"NotFound"}`, string(a.body))
	head := ask(t, addrB, http.MethodHead, url)
	require.Equal(t, 404, head.StatusCode)
	require.Equal(t, int64(len(a.body)), head.ContentLength)

	// Too weak a proof, an ambiguous address, one of our own cluster and an
	// unknown machine look the same from outside.
	for name, change := range map[string]func(){
		"weak":    func() { w.plan.MinimumProof = boot.BMC },
		"cluster": func() { w.source.cluster = []netip.Addr{addrA} },
		"ambiguous": func() {
			w.source.broken = boot.ErrAmbiguous
		},
	} {
		w.plan.MinimumProof, w.source.cluster, w.source.broken = boot.Address, nil, nil
		require.Equal(t, 200, get(t, url).StatusCode, name)
		change()
		b := get(t, url)
		require.Equal(t, 404, b.StatusCode, name)
		require.Equal(t, a.body, b.body, name)
		require.Equal(t, len(a.Header), len(b.Header), name)
	}
}

// Known defect 23.
func TestUnavailableIsNotUnknown(t *testing.T) {
	unavailable := fmt.Errorf("syncing: %w", boot.ErrUnavailable)
	for name, change := range map[string]func(*world){
		"source":   func(w *world) { w.source.broken = unavailable },
		"store":    func(w *world) { w.blobs.broken = unavailable },
		"arriving": func(w *world) { w.blobs.broken = boot.ErrNotReady },
		"plan":     func(w *world) { w.plan.NotReady = "pulling the image" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, change)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := ask(t, addrA, method, w.bootServer()+"/httpboot")
				require.Equal(t, 503, a.StatusCode)
				require.Equal(t, "5", a.Header.Get("Retry-After"))
				require.Empty(t, a.Header.Get("Etag"))
			}
			_, _, begins := w.attempts.count()
			require.Zero(t, begins, "an attempt was opened for nothing")
		})
	}
}

func TestJSONForm(t *testing.T) {
	known := map[string]string{
		"ClientIPs":  "127.0.0.1",
		"SystemUUID": string(uuidA),
	}
	tests := []struct {
		name    string
		change  func(*world)
		from    netip.Addr
		headers []string
		code    int
		want    func(w *world) map[string]string
	}{
		{name: "the machine itself", headers: []string{"Accept", "application/json"}, from: addrA, code: 200,
			want: func(w *world) map[string]string {
				return with(known, "UKIURL", "http://10.0.0.1:8083/httpboot/registry.example/os/sha256-"+w.plan.Artifacts[0].Digest.Hex()+".efi")
			}},
		{name: "never from the Host header", headers: []string{"Accept", "text/html, application/json;q=0.9", "Host", "evil.example"}, from: addrA, code: 200,
			want: func(w *world) map[string]string {
				return with(known, "UKIURL", "http://10.0.0.1:8083/httpboot/registry.example/os/sha256-"+w.plan.Artifacts[0].Digest.Hex()+".efi")
			}},
		{name: "a foreign UKI", headers: []string{"Accept", "application/json"}, from: addrA, code: 200,
			change: func(w *world) {
				w.plan.Artifacts, w.plan.Foreign = nil, map[boot.Role]string{boot.RoleUKI: `https://images.example/"x"&<y>.efi`}
			},
			want: func(*world) map[string]string { return with(known, "UKIURL", `https://images.example/"x"&<y>.efi`) }},
		{name: "unknown", headers: []string{"Accept", "application/json"}, from: addrB, code: 404},
		{name: "unknown with a default image", headers: []string{"Accept", "application/json"}, from: addrB, code: 200,
			change: func(w *world) { w.defaultImage() },
			want: func(w *world) map[string]string {
				return map[string]string{"ClientIPs": "127.0.0.2", "UKIURL": "http://10.0.0.1:8083/httpboot/registry.example/default/sha256-" + w.source.public[0].Digest.Hex() + ".efi"}
			}},
		{name: "unknown with a default URL", headers: []string{"Accept", "application/json"}, from: addrB, code: 200,
			change: func(w *world) {
				w.options.DefaultImage = func() (boot.Artifact, string, bool) {
					return boot.Artifact{Source: "https://images.example/default.efi"}, "", true
				}
			},
			want: func(*world) map[string]string {
				return map[string]string{"ClientIPs": "127.0.0.2", "UKIURL": "https://images.example/default.efi"}
			}},
		{name: "no URL of our own", headers: []string{"Accept", "application/json"}, from: addrA, code: 503,
			change: func(w *world) { w.options.ImageServerURL = "" }},
		{name: "DHCP on behalf by MAC", headers: []string{"X-Forwarded-For", "10.9.9.9, 52-54-00-AA-BB-01"}, from: addrC, code: 200,
			change: trustDHCP,
			want: func(w *world) map[string]string {
				return map[string]string{"ClientIPs": "127.0.0.3,10.9.9.9,52:54:00:aa:bb:01", "SystemUUID": string(uuidA),
					"UKIURL": "http://10.0.0.1:8083/httpboot/registry.example/os/sha256-" + w.plan.Artifacts[0].Digest.Hex() + ".efi"}
			}},
		{name: "DHCP on behalf by two header lines", headers: []string{"X-Forwarded-For", "::ffff:127.0.0.1", "X-Forwarded-For", "junk"}, from: addrC, code: 200,
			change: trustDHCP,
			want: func(w *world) map[string]string {
				return map[string]string{"ClientIPs": "127.0.0.3,127.0.0.1", "SystemUUID": string(uuidA),
					"UKIURL": "http://10.0.0.1:8083/httpboot/registry.example/os/sha256-" + w.plan.Artifacts[0].Digest.Hex() + ".efi"}
			}},
		{name: "DHCP on behalf of nobody we know", headers: []string{"X-Forwarded-For", "10.9.9.9"}, from: addrC, code: 404, change: trustDHCP},
		{name: "DHCP on behalf of nothing", headers: []string{"X-Forwarded-For", "junk, more"}, from: addrC, code: 400, change: trustDHCP},
		{name: "DHCP on behalf of two machines", headers: []string{"X-Forwarded-For", "127.0.0.2, " + string(macA)}, from: addrC, code: 404,
			change: func(w *world) { trustDHCP(w); w.machine("b", uuidB, addrB) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var change []func(*world)
			if tt.change != nil {
				change = append(change, tt.change)
			}
			w := newWorld(t, change...)
			a := ask(t, tt.from, http.MethodGet, w.bootServer()+"/httpboot", tt.headers...)
			require.Equal(t, tt.code, a.StatusCode, string(a.body))
			require.Equal(t, "application/json", a.Header.Get("Content-Type"))
			if tt.want != nil {
				got := map[string]string{}
				require.NoError(t, json.Unmarshal(a.body, &got))
				require.Equal(t, tt.want(w), got)
			}
			_, _, begins := w.attempts.count()
			require.Zero(t, begins, "telling a URL opens no attempt")
		})
	}
}

func with(m map[string]string, k, v string) map[string]string {
	out := map[string]string{k: v}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func trustDHCP(w *world) {
	w.options.TrustedDHCP = []netip.Prefix{netip.PrefixFrom(addrC, 32)}
}

func (w *world) defaultImage() []byte {
	data := []byte("the default image")
	a := w.blobs.add(w.t, data)
	w.source.public = append(w.source.public, a)
	w.options.DefaultImage = func() (boot.Artifact, string, bool) { return a, "registry.example/default", true }
	return data
}

// Known defect 26.
func TestDefaultImageIsOnlyForTheUnknownAndOnlyWhenConfigured(t *testing.T) {
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, newWorld(t).bootServer()+"/httpboot").StatusCode)

	var data []byte
	w := newWorld(t, func(w *world) { data = w.defaultImage() })
	url := w.bootServer() + "/httpboot"
	a := ask(t, addrB, http.MethodGet, url)
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, data, a.body)
	require.Equal(t, "application/efi", a.Header.Get("Content-Type"))
	require.Empty(t, w.attempts.observed(boot.StageUKI))

	require.Equal(t, w.data, get(t, url).body, "a known machine boots its own")
	require.Equal(t, 404, get(t, url+"?token=bad").StatusCode, "a bad token is not made good by the default image")
	w.plan.MinimumProof = boot.BMC
	require.Equal(t, 404, get(t, url).StatusCode, "a machine that is not proven enough boots nothing")

	// A config that names no image boots the default one, as its own delivery.
	w.plan.MinimumProof, w.plan.Artifacts = boot.Address, nil
	require.Equal(t, data, get(t, url).body)
	eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 2 })
}

func TestConfigsWithNothingForHTTPBoot(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/httpboot"
	w.plan.Artifacts = nil
	a := get(t, url)
	require.Equal(t, 404, a.StatusCode)
	require.Contains(t, string(a.body), `"NoUKI"`)

	w.plan.Foreign = map[boot.Role]string{boot.RoleUKI: "https://images.example/x.efi"}
	a = get(t, url)
	require.Equal(t, 404, a.StatusCode)
	require.Contains(t, string(a.body), `"ForeignUKI"`)
	require.Empty(t, a.Header.Get("Location"))

	w.plan.Object.Kind = kindIPXE
	require.Contains(t, string(get(t, url).body), `"NoUKI"`)
}

func TestAlwaysOpensAnAttemptAtEachCompleteBoot(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/httpboot"
	for boots := 1; boots <= 3; boots++ {
		require.Equal(t, 200, get(t, url).StatusCode)
		eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == boots })
		require.Equal(t, int64(boots), w.attempts.observed(boot.StageUKI)[boots-1].Attempt)
	}
}

func TestTokensProve(t *testing.T) {
	keys, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: randomBytes(32)})
	require.NoError(t, err)
	other, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: randomBytes(64)[32:]})
	require.NoError(t, err)
	w := newWorld(t, func(w *world) { w.options.Keyring = keys })
	w.plan.MinimumProof = boot.Proxy
	url := w.bootServer()
	mint := func(k *boot.Keyring, change func(*boot.Token)) string {
		tok := boot.Token{Object: boot.UUID(w.plan.Object.UID), Attempt: 1, Audience: boot.AudienceBoot, Proof: boot.Proxy, Expires: w.clock.now().Add(time.Minute)}
		if change != nil {
			change(&tok)
		}
		s, err := k.Mint(tok)
		require.NoError(t, err)
		return s
	}
	good := mint(keys, nil)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, url+"/httpboot").StatusCode, "the control: without a token")
	for _, path := range []string{"/httpboot?token=" + good, "/httpboot/t/" + good + "/boot.efi"} {
		a := ask(t, addrB, http.MethodHead, url+path)
		require.Equal(t, 200, a.StatusCode)
		require.Equal(t, "application/efi", a.Header.Get("Content-Type"))
	}
	for name, bad := range map[string]string{
		"empty":          "",
		"junk":           "junk",
		"long":           "x" + good,
		"other key":      mint(other, nil),
		"other audience": mint(keys, func(tok *boot.Token) { tok.Audience = boot.AudienceSecret }),
		"expired":        mint(keys, func(tok *boot.Token) { tok.Expires = w.clock.now() }),
		"weak proof":     mint(keys, func(tok *boot.Token) { tok.Proof, tok.Addr = boot.Address, addrA }),
		"other object":   mint(keys, func(tok *boot.Token) { tok.Object = uuidB }),
		"twice":          good + "&token=" + good,
	} {
		// From the machine's own address: a bad token is never made good by it.
		w.plan.MinimumProof = boot.Proxy
		if name != "weak proof" {
			w.plan.MinimumProof = boot.Address
			require.Equal(t, 200, ask(t, addrA, http.MethodHead, url+"/httpboot").StatusCode)
		}
		require.Equal(t, 404, ask(t, addrA, http.MethodHead, url+"/httpboot?token="+bad).StatusCode, name)
	}

	// A boot token is not a secret token.
	secret := mint(keys, func(tok *boot.Token) { tok.Audience = boot.AudienceSecret })
	w.plan.MinimumProof = boot.Proxy
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, url+"/ignition?token="+good).StatusCode)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, url+"/ignition").StatusCode)
	a := ask(t, addrB, http.MethodGet, url+"/ignition?token="+secret)
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, url+"/ignition/"+string(uuidB)+"?token="+secret).StatusCode)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, url+"/ignition/"+string(uuidA)+"?token="+secret).StatusCode)

	// One of an attempt that nobody told of yet is not refused: Ignition would not ask
	// again, nor a machine boot.
	ahead := mint(keys, func(tok *boot.Token) { tok.Attempt = 7 })
	for _, path := range []string{"/httpboot?token=" + ahead, "/ignition?token=" + mint(keys, func(tok *boot.Token) { tok.Attempt, tok.Audience = 7, boot.AudienceSecret })} {
		a = ask(t, addrB, http.MethodGet, url+path)
		require.Equal(t, 503, a.StatusCode)
		require.NotEmpty(t, a.Header.Get("Retry-After"))
	}

	// A token for an attempt that another replica opened is known after one look.
	w.api.get(w.plan.Object.UID).attempt = boot.Attempt{Number: 9, OpenedAt: w.clock.now()}
	newer := mint(keys, func(tok *boot.Token) { tok.Attempt = 9 })
	w.clock.step(2 * refreshEvery)
	require.Equal(t, 200, ask(t, addrB, http.MethodHead, url+"/httpboot?token="+newer).StatusCode)
	require.Equal(t, 404, ask(t, addrB, http.MethodHead, url+"/httpboot?token="+good).StatusCode, "a new attempt revokes the last one's tokens")

	for _, tok := range []string{good, secret, newer} {
		require.NotContains(t, w.log.String(), tok[:20])
	}
	require.Contains(t, w.log.String(), "/httpboot/t/-", "the control: the path was logged, without the token")
}

func TestTokensWithoutAKeyringProveNothing(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, 404, get(t, w.bootServer()+"/httpboot?token=x").StatusCode)
}
