package httpserver

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestIgnitionOfTheProvenMachine(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer()
	// Known defects 4 and 28: any notation and either byte order.
	for _, path := range []string{
		"/ignition", "/ignition/", "/ignition/" + string(uuidA), "/ignition/" + strings.ToUpper(string(uuidA)),
		"/ignition/" + string(uuidA.Swapped()), "/ignition/" + strings.ToUpper(string(uuidA.Swapped())),
	} {
		a := get(t, url+path, "Accept", "application/vnd.coreos.ignition+json;version=3.4.0, */*;q=0.1")
		require.Equal(t, 200, a.StatusCode, path)
		require.Equal(t, w.secrets.docs[w.plan.Object.UID], a.body)
		require.Equal(t, "application/vnd.coreos.ignition+json", a.Header.Get("Content-Type"))
		require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	}
	o := w.attempts.observed(boot.StageIgnition)
	require.Len(t, o, 6)
	require.Equal(t, boot.Observation{Object: w.plan.Object, Attempt: 1, Stage: boot.StageIgnition, Complete: true,
		Addr: addrA, Proof: boot.Address, Time: w.clock.now(), Sent: 43, Size: 43}, o[0])

	head := ask(t, addrA, http.MethodHead, url+"/ignition")
	require.Equal(t, 200, head.StatusCode)
	require.Equal(t, int64(len(w.secrets.docs[w.plan.Object.UID])), head.ContentLength)
	require.Len(t, w.attempts.observed(boot.StageIgnition), 6, "a HEAD delivers nothing")
}

// Known defect 2.
func TestIgnitionIsNotForWhoeverKnowsAUUID(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer()
	unknown := ask(t, addrC, http.MethodGet, url+"/ignition/"+string(uuidB))
	require.Equal(t, 404, unknown.StatusCode)
	for _, path := range []string{"/ignition/" + string(uuidA), "/ignition", "/ignition/junk", "/ignition/00000000-0000-0000-0000-000000000000"} {
		a := ask(t, addrC, http.MethodGet, url+path)
		require.Equal(t, 404, a.StatusCode, path)
		require.Equal(t, unknown.body, a.body, path)
	}
	require.Zero(t, w.secrets.calls, "a secret was read for a stranger")
	require.Equal(t, 200, get(t, url+"/ignition/"+string(uuidA)).StatusCode, "the control")
}

func TestAskingForAnotherMachineMakesTheAddressAmbiguous(t *testing.T) {
	w := newWorld(t)
	w.machine("b", uuidB, addrB)
	url := w.bootServer()
	unknown := ask(t, addrC, http.MethodGet, url+"/ignition")

	require.Equal(t, 404, get(t, url+"/ignition/"+string(boot.UUID("11111111-2222-3333-4444-555555555555"))).StatusCode)
	require.Empty(t, w.attempts.observed(boot.StageAmbiguous), "a UUID of nobody says nothing")

	a := get(t, url+"/ignition/"+string(uuidB))
	require.Equal(t, 404, a.StatusCode)
	require.Equal(t, unknown.body, a.body)
	o := w.attempts.observed(boot.StageAmbiguous)
	require.Len(t, o, 1)
	require.Equal(t, w.plan.Object, o[0].Object)
	require.Equal(t, addrA, o[0].Addr)

	// The address is void for the secrets of this attempt, and of no other.
	a = get(t, url+"/ignition")
	require.Equal(t, 404, a.StatusCode)
	require.Equal(t, unknown.body, a.body)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, url+"/ignition").StatusCode)
	require.Equal(t, 200, get(t, url+"/httpboot").StatusCode, "boot bytes are public")
	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now()})
	require.Equal(t, 200, get(t, url+"/ignition").StatusCode)
}

// Known defect 32.
func TestAddressProofEnds(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/ignition"
	require.Equal(t, 200, get(t, url).StatusCode)
	w.clock.step(boot.SecretGrace - time.Second)
	require.Equal(t, 200, get(t, url).StatusCode, "a client may try again")
	w.clock.step(2 * time.Second)
	a := get(t, url)
	require.Equal(t, 403, a.StatusCode)
	require.Contains(t, string(a.body), "AttemptClosed")

	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now()})
	require.Equal(t, 200, get(t, url).StatusCode)
	w.attempts.set(w.plan, boot.Attempt{Number: 3, OpenedAt: w.clock.now().Add(-boot.AttemptLifetime - time.Second)})
	require.Equal(t, 403, get(t, url).StatusCode)
}

func TestAddressesThatProveNothing(t *testing.T) {
	for name, change := range map[string]func(*world){
		"of the cluster": func(w *world) { w.source.cluster = []netip.Addr{addrA} },
		"of a proxy":     func(w *world) { w.options.TrustedProxies = []netip.Prefix{netip.PrefixFrom(addrA, 32)} },
		"below minimum":  func(w *world) { w.plan.MinimumProof = boot.Relay },
	} {
		w := newWorld(t, change)
		require.Equal(t, 404, get(t, w.bootServer()+"/ignition").StatusCode, name)
		require.Zero(t, w.secrets.calls, name)
	}
}

// Known defect 33.
func TestWhatMayPassIsNever403(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/ignition"
	old := boot.Attempt{Number: 1, OpenedAt: w.clock.now().Add(-time.Hour)}

	w.attempts.set(w.plan, old)
	w.attempts.noRefresh = boot.ErrUnavailable
	a := get(t, url)
	require.Equal(t, 503, a.StatusCode, "closed as far as we know, and the object cannot be asked")
	require.Equal(t, "5", a.Header.Get("Retry-After"))

	w.attempts.set(w.plan, boot.Attempt{})
	require.Equal(t, 503, get(t, url).StatusCode)
	w.attempts.noRefresh = nil
	require.Equal(t, 503, get(t, url).StatusCode, "no attempt yet: one may be opened any moment")

	w.attempts.set(w.plan, old)
	w.clock.step(2 * refreshEvery)
	require.Equal(t, 403, get(t, url).StatusCode, "the control: the object says that it is closed")

	w.api.get(w.plan.Object.UID).attempt = boot.Attempt{Number: 2, OpenedAt: w.clock.now()}
	w.clock.step(2 * refreshEvery)
	require.Equal(t, 200, get(t, url).StatusCode, "another replica opened one")

	w.secrets.broken = boot.ErrUnavailable
	require.Equal(t, 503, get(t, url).StatusCode)
}

func TestAClosedMachineThatKeepsAskingDoesNotFloodTheAPIServer(t *testing.T) {
	w := newWorld(t)
	w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now().Add(-time.Hour)})
	url := w.bootServer() + "/ignition"
	for range 20 {
		require.Equal(t, 403, get(t, url).StatusCode)
	}
	_, refreshes, _ := w.attempts.count()
	require.Equal(t, 1, refreshes)
	w.clock.step(2 * refreshEvery)
	get(t, url)
	_, refreshes, _ = w.attempts.count()
	require.Equal(t, 2, refreshes)
}

func TestSecondAddressIsContested(t *testing.T) {
	w := newWorld(t)
	w.plan.Machine.Addrs = []netip.Addr{addrA, addrB}
	url := w.bootServer()
	require.Equal(t, 200, get(t, url+"/httpboot").StatusCode, "the firmware's address")
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, url+"/ignition").StatusCode, "the OS may have another one")
	a := get(t, url+"/ignition")
	require.Equal(t, 403, a.StatusCode)
	require.Contains(t, string(a.body), "SecretContested")
	o := w.attempts.observed(boot.StageContested)
	require.Len(t, o, 1)
	require.Equal(t, addrA, o[0].Addr)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, url+"/ignition").StatusCode)
}

func TestTwoAddressesAtOnceNeverBothGetTheSecret(t *testing.T) {
	for range 20 {
		w := newWorld(t)
		w.plan.Machine.Addrs = []netip.Addr{addrA, addrB, addrC}
		url := w.bootServer() + "/ignition"
		var mu sync.Mutex
		served := map[netip.Addr]bool{}
		var wg sync.WaitGroup
		for i := range 12 {
			from := w.plan.Machine.Addrs[i%3]
			wg.Go(func() {
				if a := ask(t, from, http.MethodGet, url); a.StatusCode == 200 {
					mu.Lock()
					defer mu.Unlock()
					served[from] = true
				}
			})
		}
		wg.Wait()
		require.Len(t, served, 1)
	}
}

// Known defect 15.
func TestConfigWithoutIgnition(t *testing.T) {
	w := newWorld(t)
	w.plan.HasIgnition = false
	url := w.bootServer() + "/ignition"
	a := get(t, url)
	require.Equal(t, 404, a.StatusCode)
	require.Contains(t, string(a.body), "NoIgnition")
	w.plan.HasIgnition = true
	delete(w.secrets.docs, w.plan.Object.UID)
	require.Equal(t, 404, get(t, url).StatusCode)
}

func TestTheConfigWhoseAttemptIsOpenAnswers(t *testing.T) {
	w := newWorld(t)
	ipxe := w.machine("ipxe", uuidA, addrA)
	ipxe.Object.Kind = kindIPXE
	url := w.bootServer() + "/ignition"
	name := func() string {
		a := get(t, url)
		require.Equal(t, 200, a.StatusCode)
		return string(a.body)
	}
	w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now().Add(-time.Minute)})
	w.attempts.set(ipxe, boot.Attempt{Number: 1, OpenedAt: w.clock.now()})
	require.Contains(t, name(), `"ipxe"`, "the newest that is open")
	w.attempts.set(ipxe, boot.Attempt{Number: 1, OpenedAt: w.clock.now(), SecretServedAt: w.clock.now().Add(-time.Hour)})
	require.Contains(t, name(), `"a"`, "the one that is open")
	w.attempts.set(ipxe, boot.Attempt{Number: 2, OpenedAt: w.clock.now().Add(time.Second)})
	ipxe.HasIgnition = false
	require.Contains(t, name(), `"a"`, "the one that has a document")
}

func TestClaims(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer()
	path := url + "/ignition/" + string(uuidA)
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, path).StatusCode, "the control: claims are not accepted")

	w.plan.MinimumProof = boot.Claimed
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, url+"/ignition").StatusCode, "nothing is claimed")
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, path).StatusCode)
	require.Equal(t, boot.Claimed, w.attempts.observed(boot.StageIgnition)[0].Proof)

	// Somebody else in the same attempt looks like a stranger.
	a := ask(t, addrB, http.MethodGet, path)
	require.Equal(t, 404, a.StatusCode)
	require.NotContains(t, string(a.body), "Contested")
	require.NotEmpty(t, w.attempts.observed(boot.StageContested))

	// For Always a claim opens an attempt where none is; for Once it does not.
	w.clock.step(time.Hour)
	require.Equal(t, 200, ask(t, addrC, http.MethodHead, path).StatusCode)
	require.Equal(t, int64(1), w.attempts.Current(w.plan).Number, "a HEAD opens nothing")
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, path).StatusCode)
	require.Equal(t, int64(2), w.attempts.Current(w.plan).Number)
	w.clock.step(time.Hour)
	w.attempts.noRefresh = boot.ErrUnavailable
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, path).StatusCode, "Always goes on without the API server")
	w.attempts.noRefresh = nil
	w.clock.step(time.Hour)
	require.Equal(t, 200, ask(t, addrA, http.MethodGet, path).StatusCode, "a proven machine is not worse off than a stranger")
	w.clock.step(time.Hour)
	w.plan.Policy = boot.Once
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, path).StatusCode)
	require.Equal(t, 403, ask(t, addrA, http.MethodGet, path).StatusCode)
}
