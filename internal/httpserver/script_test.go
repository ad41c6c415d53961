package httpserver

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const sesame = "#!ipxe\necho sesame\n"

// ownScript gives machine A a script of its own in a Secret.
func ownScript(w *world) {
	ipxe(w)
	w.plan.HasScript, w.plan.HasIgnition = true, false
	w.secrets.scripts[w.plan.Object.UID] = []byte(sesame)
}

func TestAScriptForAProvenMachineIsItsBoot(t *testing.T) {
	w := newWorld(t, ipxe)
	base := w.bootServer()
	url := base + "/ipxe/" + string(macA)
	bare := script(t, addrA, url)
	require.NotContains(t, bare, "token", "an address needs none")
	sum := sha256.Sum256([]byte(bare))
	o := w.attempts.observed(boot.StageIPXEScript)
	require.Equal(t, []boot.Observation{{
		Object: w.plan.Object, Attempt: 1, Stage: boot.StageIPXEScript, Complete: true, Addr: addrA, Proof: boot.Address,
		Digest: boot.Digest("sha256:" + hex.EncodeToString(sum[:])), Time: w.clock.now(),
		Sent: int64(len(bare)), Size: int64(len(bare)), MAC: macA,
	}}, o, "the HEAD beside it delivered nothing")
	require.Equal(t, []boot.Client{{Addr: addrA, Proof: boot.Address}}, w.attempts.clients)
	commits, _, _ := w.attempts.count()
	require.Zero(t, commits)

	require.Equal(t, bare, string(get(t, url).body))
	require.Equal(t, int64(2), w.attempts.Current(w.plan).Number, "Always opens an attempt at each complete boot")
	require.Equal(t, 200, get(t, base+"/ignition").StatusCode)
	require.Contains(t, w.log.String(), "Served boot bytes")
}

func TestATokenGetsAScriptWithOneForItsSecrets(t *testing.T) {
	for _, proof := range []boot.Proof{boot.Address, boot.Proxy, boot.Relay, boot.BMC} {
		w := newWorld(t, ipxe, withTokens)
		w.plan.Machine.Addrs = nil
		base := w.bootServer()
		token := w.mint(w.plan, 1, boot.AudienceBoot, proof, addrB)
		for _, path := range []string{"/ipxe/t/" + token, "/ipxe?token=" + token + "&mac=" + string(macA), "/ipxe/" + string(macA) + "?token=" + token} {
			a := ask(t, addrB, http.MethodGet, base+path)
			head := ask(t, addrB, http.MethodHead, base+path)
			require.Equal(t, int64(len(a.body)), head.ContentLength)
			secret := between(string(a.body), "/ignition?token=", " ")
			require.Len(t, secret, 80, string(a.body))
			require.NotContains(t, string(a.body), token, "the boot token is for boot bytes")
			require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition?token="+token).StatusCode)
			require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition?token="+secret).StatusCode)
			require.Equal(t, leaves, string(ask(t, addrB, http.MethodGet, base+"/ipxe/t/"+secret).body), "a secret token is for secrets")
			want := 200
			if proof == boot.Address {
				want = 404
			}
			w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now()})
			require.Equal(t, want, ask(t, addrC, http.MethodGet, base+"/ignition?token="+secret).StatusCode, "from another address")
			w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now()})
			require.NotContains(t, w.log.String(), secret[:20])
		}
		require.Equal(t, int64(1), w.attempts.Current(w.plan).Number, "a token's own attempt is not opened again")
		require.Equal(t, boot.Client{Addr: addrB, Proof: proof, Attempt: 1}, w.attempts.clients[0])
		require.NotContains(t, w.log.String(), token[:20])
		require.Contains(t, w.log.String(), ipxeTokenPrefix+"-", "the control: the path was logged")

		require.Equal(t, leaves, script(t, addrB, base+"/ipxe?token="+token+"&uuid="+string(w.machine("b", uuidB).Machine.UUID)), "a name of another machine")
		w.attempts.set(w.plan, boot.Attempt{Number: 3, OpenedAt: w.clock.now()})
		require.Equal(t, leaves, script(t, addrB, base+"/ipxe/t/"+token), "a new attempt revokes the last one's")
	}
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

func TestATokenOfTheComingBootOpensIt(t *testing.T) {
	w := newWorld(t, ipxe, withTokens)
	w.attempts.set(w.plan, boot.Attempt{Number: 4, OpenedAt: w.clock.now(), BootServedAt: w.clock.now()})
	base := w.bootServer()
	next := w.mint(w.plan, 5, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	a := ask(t, addrB, http.MethodGet, base+"/ipxe/t/"+next)
	require.Equal(t, int64(5), w.attempts.Current(w.plan).Number)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition?token="+between(string(a.body), "?token=", " ")).StatusCode)
	require.Equal(t, a.body, ask(t, addrB, http.MethodGet, base+"/ipxe/t/"+next).body, "firmware tries again")
	require.Equal(t, int64(5), w.attempts.Current(w.plan).Number)
	_, refreshes, _ := w.attempts.count()
	require.Zero(t, refreshes, "Always asks nobody")
	far := w.mint(w.plan, 9, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	require.Equal(t, 503, ask(t, addrB, http.MethodGet, base+"/ipxe/t/"+far).StatusCode, "it may be another replica's news")
	_, refreshes, _ = w.attempts.count()
	require.Equal(t, 1, refreshes)
	w.attempts.noRefresh = boot.ErrUnavailable
	w.clock.step(2 * refreshEvery)
	require.Equal(t, 503, ask(t, addrB, http.MethodGet, base+"/ipxe/t/"+far).StatusCode)
}

func TestOnceByScriptIsDeliveredOnce(t *testing.T) {
	w := newWorld(t, ipxe, once, withTokens)
	base := w.bootServer()
	url := base + "/ipxe/" + string(macA)
	require.Equal(t, leaves, script(t, addrC, url), "a claim commits nothing")
	require.Equal(t, 200, ask(t, addrA, http.MethodHead, url).StatusCode)
	commits, _, _ := w.attempts.count()
	require.Zero(t, commits)
	a := get(t, url)
	require.NotEqual(t, leaves, string(a.body))
	commits, _, _ = w.attempts.count()
	require.Equal(t, 1, commits)
	require.Equal(t, leaves, string(get(t, url).body), "spent: the disk's turn")
	require.Equal(t, int64(len(leaves)), ask(t, addrA, http.MethodHead, url).ContentLength)
	require.Equal(t, leaves, script(t, addrB, base+"/ipxe/t/"+w.mint(w.plan, 1, boot.AudienceBoot, boot.Relay, netip.Addr{})))
	w.clock.step(time.Second)
	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now()})
	require.Equal(t, string(a.body), string(get(t, url).body), "a new attempt delivers again")
}

func TestOneOfManyRequestsFinishesAOnceScript(t *testing.T) {
	for range 10 {
		w := newWorld(t, ipxe, once)
		url := w.bootServer() + "/ipxe/" + string(macA)
		var whole, left atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				switch a := get(t, url); {
				case a.err != nil || a.StatusCode != 200:
				case string(a.body) == leaves:
					left.Add(1)
				default:
					whole.Add(1)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int32(1), whole.Load())
		require.Equal(t, int32(7), left.Load())
	}
}

func TestAOnceScriptWaitsForItsCommit(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	w := newWorld(t, ipxe, once, func(w *world) {
		w.attempts.commit = func(context.Context) error {
			if broken.Load() {
				return boot.ErrUnavailable
			}
			return nil
		}
	})
	url := w.bootServer() + "/ipxe/" + string(macA)
	a := get(t, url)
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, "5", a.Header.Get("Retry-After"))
	require.NotContains(t, string(a.body), "ipxe")
	require.Empty(t, w.attempts.observed(boot.StageIPXEScript))
	broken.Store(false)
	require.Contains(t, string(get(t, url).body), "/images/", "the API server is back")
}

func TestALostAnswerToAScriptsCommitIsKnownAgain(t *testing.T) {
	w := newWorld(t, ipxe, once, withTokens, func(w *world) { w.attempts.lost = boot.ErrUnavailable })
	url := w.bootServer() + "/ipxe/t/" + w.mint(w.plan, 1, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	require.Equal(t, 503, ask(t, addrB, http.MethodGet, url).StatusCode)
	require.True(t, w.attempts.Current(w.plan).Spent)
	w.attempts.mu.Lock()
	w.attempts.lost = nil
	w.attempts.mu.Unlock()
	require.Equal(t, leaves, string(ask(t, addrC, http.MethodGet, url).body), "another address's delivery is another")
	require.Contains(t, string(ask(t, addrB, http.MethodGet, url).body), "?token=")
	require.Equal(t, leaves, string(ask(t, addrB, http.MethodGet, url).body))
}

func TestAMachinesOwnScriptIsASecret(t *testing.T) {
	w := newWorld(t, ownScript, withTokens)
	base := w.bootServer()
	url := base + "/ipxe/" + string(macA)
	for _, path := range []string{url, base + "/ipxe/" + string(uuidA), url + "?token=x", base + "/ipxe?mac=" + string(macA)} {
		a := ask(t, addrC, http.MethodGet, path, "X-Forwarded-For", "127.0.0.1, "+string(macA))
		require.Equal(t, leaves, string(a.body))
	}
	require.Zero(t, w.secrets.calls, "a secret was read for a stranger")
	_, _, begins := w.attempts.count()
	require.Zero(t, begins)

	require.Equal(t, sesame, script(t, addrA, url))
	w.plan.MinimumProof = boot.Proxy
	require.Equal(t, leaves, script(t, addrA, url), "the address is not enough")
	token := w.mint(w.plan, w.attempts.Current(w.plan).Number, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	require.Equal(t, sesame, script(t, addrA, base+"/ipxe/t/"+token))
	w.clock.step(boot.AttemptLifetime + time.Second)
	require.Equal(t, leaves, script(t, addrA, base+"/ipxe/t/"+token), "the attempt of the token is closed")
	w.clock.step(-boot.AttemptLifetime)
	a := w.attempts.Current(w.plan)
	a.SecretAddr, a.SecretServedAt = addrB, w.clock.now()
	w.attempts.set(w.plan, a)
	require.Equal(t, leaves, string(get(t, base+"/ipxe/t/"+token).body), "another address has the secret")
	require.NotEmpty(t, w.attempts.observed(boot.StageContested))

	w.plan.MinimumProof = boot.Address
	a = boot.Attempt{Number: 9, OpenedAt: w.clock.now(), Ambiguous: true}
	w.attempts.set(w.plan, a)
	require.Equal(t, leaves, script(t, addrA, url), "the address stands for several machines")
	w.attempts.set(w.plan, boot.Attempt{Number: 10, OpenedAt: w.clock.now()})
	require.Equal(t, sesame, script(t, addrA, url), "the control")

	w.plan.MinimumProof = boot.Claimed
	require.Equal(t, sesame, script(t, addrC, url), "on request, whoever says so")
	require.False(t, w.attempts.Current(w.plan).BootAddr == addrC, "a claim binds no address")
}

func TestAnOwnScriptThatCannotBeServed(t *testing.T) {
	for name, change := range map[string]func(*world){
		"gone":        func(w *world) { clear(w.secrets.scripts) },
		"unavailable": func(w *world) { w.secrets.broken = boot.ErrUnavailable },
		"no script":   func(w *world) { w.secrets.scripts[w.plan.Object.UID] = []byte("echo hello\n") },
	} {
		w := newWorld(t, ownScript, change)
		a := get(t, w.bootServer()+"/ipxe/"+string(macA))
		require.Equal(t, 503, a.StatusCode, name)
		require.Equal(t, "5", a.Header.Get("Retry-After"))
		_, _, begins := w.attempts.count()
		require.Zero(t, begins, name)
	}
}

func TestTwoAddressesAtOnceNeverBothGetTheOwnScript(t *testing.T) {
	w := newWorld(t, ownScript, withTokens)
	release, ok := w.server.holds.take(w.plan.Object.UID, addrB)
	require.True(t, ok)
	url := w.bootServer() + "/ipxe/" + string(macA)
	require.Equal(t, 503, get(t, url).StatusCode)
	release()
	require.Equal(t, sesame, script(t, addrA, url))
}

// No secret over RSA key exchange, which has no forward secrecy.
func TestNoOwnScriptNoUserDataAndNoUUIDOverWeakTLS(t *testing.T) {
	w := newWorld(t, ownScript, cloud)
	files, pool := certificateFiles(t, t.TempDir(), 1, false)
	base := w.serve(w.server.BootHandler(), ServeOptions{Name: "https", TLS: &files})
	old := &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}
	modern := &tls.Config{RootCAs: pool}
	require.Equal(t, leaves, string(askTLS(t, base+"/ipxe/"+string(macA), old).body))
	require.Equal(t, 403, askTLS(t, base+"/cloud-init/user-data", old).StatusCode)
	require.Zero(t, w.secrets.calls)
	require.Equal(t, sesame, string(askTLS(t, base+"/ipxe/"+string(macA), modern).body), "the control")
	require.Equal(t, 200, askTLS(t, base+"/cloud-init/user-data", modern).StatusCode, "the control")
	require.Contains(t, string(askTLS(t, base+"/boot.ipxe", modern).body), base+"/ipxe?", "the scheme is that of the connection")

	w.plan.HasScript, w.plan.HasIgnition = false, true
	require.NotContains(t, string(askTLS(t, base+"/ipxe/"+string(macA), old).body), string(uuidA))
	require.Contains(t, string(askTLS(t, base+"/ipxe/"+string(macA), modern).body), string(uuidA), "the control")
}

func TestMinimumProofClaimedGetsEverythingButTokens(t *testing.T) {
	w := newWorld(t, ipxe, once, withTokens)
	w.plan.MinimumProof = boot.Claimed
	base := w.bootServer()
	a := ask(t, addrC, http.MethodGet, base+"/ipxe/"+string(macA))
	require.Contains(t, string(a.body), "/ignition/"+string(uuidA), "its UUID is what it will claim to be")
	require.NotContains(t, string(a.body), "token")
	commits, _, _ := w.attempts.count()
	require.Equal(t, 1, commits)
	require.Equal(t, boot.Claimed, w.attempts.observed(boot.StageIPXEScript)[0].Proof)
	require.Equal(t, leaves, script(t, addrC, base+"/ipxe/"+string(macA)))
}

func TestGRUBGetsAMenuByTheSameRules(t *testing.T) {
	w := newWorld(t, ipxe, withTokens)
	base := w.bootServer()
	grubLeaves := string(grubLanguage.leave())
	require.Contains(t, script(t, addrC, base+"/grub/grub.cfg"), strings.TrimPrefix(base, "http://"))
	menu := script(t, addrC, base+"/grub/grub.cfg-01-52-54-00-aa-bb-01")
	require.Contains(t, menu, "menuentry")
	require.Equal(t, menu, script(t, addrC, base+"/grub/grub.cfg-01-"+string(macA)))
	require.Empty(t, w.attempts.observed(boot.StageIPXEScript))
	for _, mac := range []string{"52-54-00-ff-ff-ff", "junk"} {
		require.Equal(t, grubLeaves, script(t, addrC, base+"/grub/grub.cfg-01-"+mac))
	}
	require.Contains(t, script(t, addrA, base+"/grub/grub.cfg-01-"+string(macA)), "menuentry")
	require.Len(t, w.attempts.observed(boot.StageIPXEScript), 1)

	w.plan.Policy = boot.Once
	w.attempts.set(w.plan, boot.Attempt{Number: 5, OpenedAt: w.clock.now()})
	require.Equal(t, grubLeaves, script(t, addrC, base+"/grub/grub.cfg-01-"+string(macA)))
	require.Contains(t, string(get(t, base+"/grub/grub.cfg-01-"+string(macA)).body), "menuentry")
	require.Equal(t, grubLeaves, script(t, addrA, base+"/grub/grub.cfg-01-"+string(macA)), "spent")
	require.Equal(t, leaves, script(t, addrA, base+"/ipxe/"+string(macA)), "whatever boots it")

	own := newWorld(t, ownScript)
	require.Equal(t, grubLeaves, script(t, addrA, own.bootServer()+"/grub/grub.cfg-01-"+string(macA)), "GRUB cannot run it")
}
