package httpserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/compose"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/demoimage"
)

// composing is a world whose machine A boots a composed UKI, put together by the
// real composer, for its first attempt.
func composing(t testing.TB, change ...func(*world)) (w *world, base string) {
	t.Helper()
	w = newWorld(t, append([]func(*world){withTokens, func(w *world) {
		stub, err := demoimage.Greeting("amd64", "hello")
		require.NoError(t, err)
		parts := map[boot.Role][]byte{
			boot.RoleStub: stub, boot.RoleKernel: append(bytes.Clone(stub), randomBytes(2<<20+77)...), boot.RoleInitrd: randomBytes(1<<20 + 333),
		}
		w.plan.Artifacts = nil
		for _, role := range []boot.Role{boot.RoleStub, boot.RoleKernel, boot.RoleInitrd} {
			a := w.blobs.add(t, parts[role])
			a.Role = role
			w.plan.Artifacts = append(w.plan.Artifacts, a)
		}
		w.plan.Composes, w.plan.KernelArguments = true, []string{"machine=a"}
		w.options.BaseURL = "http://boot.example:8082"
		w.options.Composer, err = compose.New(compose.Options{Blobs: w.blobs, Keyring: w.keys, BaseURL: w.options.BaseURL})
		require.NoError(t, err)
		w.data = w.compose(1)
	}}, change...)...)
	return w, w.bootServer()
}

// compose does what the controller does: it puts another plan in the place of the
// machine's, with the UKI of an attempt, whose bytes it returns.
func (w *world) compose(attempt int64) []byte {
	w.t.Helper()
	composer, ok := w.options.Composer.(*compose.Composer)
	require.True(w.t, ok)
	p := *w.plan
	made, err := composer.Compose(context.Background(), &p, attempt, nil)
	require.NoError(w.t, err)
	p.Composed = &made
	w.publish(&p)
	blob, err := composer.OpenComposed(context.Background(), &p)
	require.NoError(w.t, err)
	defer func() { _ = blob.Close() }()
	b, err := io.ReadAll(blob)
	require.NoError(w.t, err)
	return b
}

// publish replaces the machine's plan.
func (w *world) publish(p *boot.Plan) {
	w.source.mu.Lock()
	defer w.source.mu.Unlock()
	for i, old := range w.source.plans {
		if old.Object.UID == p.Object.UID {
			w.source.plans[i] = p
		}
	}
	w.plan = p
}

// tokenIn returns the token that a composed UKI holds.
func tokenIn(t testing.TB, image []byte) string {
	t.Helper()
	return between(string(image[len(image)-uki.SlotSize-uki.CommandLineSize:]), "/ignition?token=", `"`)
}

func TestAComposedUKIGoesToItsMachineAlone(t *testing.T) {
	w, base := composing(t)
	a := get(t, base+"/httpboot")
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, w.data, a.body)
	require.Equal(t, "application/efi", a.Header.Get("Content-Type"))
	require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
	require.Equal(t, `"`+string(w.plan.Composed.Digest)+`"`, a.Header.Get("Etag"))
	o := w.attempts.observed(boot.StageUKI)
	require.Equal(t, boot.Observation{Object: w.plan.Object, Attempt: 1, Stage: boot.StageUKI, Complete: true, Addr: addrA,
		Proof: boot.Address, Digest: w.plan.Composed.Digest, Time: w.clock.now(), Sent: int64(len(w.data)), Size: int64(len(w.data))}, o[len(o)-1])

	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/httpboot").StatusCode, "a stranger")
	digest := w.plan.Composed.Digest
	images := w.serve(w.server.ImageHandler(), ServeOptions{Name: "images"})
	for _, url := range []string{
		base + "/images/" + string(digest) + "/uki.efi", base + "/httpboot/registry.example/os/sha256-" + digest.Hex() + ".efi",
		base + "/image?layerDigest=" + string(digest), images + "/images/" + string(digest) + "/uki.efi",
	} {
		for _, from := range []netip.Addr{addrA, addrC} {
			require.Equal(t, 404, ask(t, from, http.MethodGet, url).StatusCode, "%s from %s: by its digest it goes to nobody", url, from)
		}
	}
	part := w.plan.Artifacts[0]
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, base+"/images/"+string(part.Digest)+"/x").StatusCode, "the control: its parts are public")
}

func TestAHEADTellsTheSizeWithoutComposing(t *testing.T) {
	w, base := composing(t)
	w.blobs.broken = errors.New("no disk")
	a := ask(t, addrA, http.MethodHead, base+"/httpboot")
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, w.plan.Composed.Size, a.ContentLength)
	require.Equal(t, "application/efi", a.Header.Get("Content-Type"))
	_, _, begins := w.attempts.count()
	require.Zero(t, begins)
	require.Equal(t, 500, get(t, base+"/httpboot").StatusCode, "the control")
}

func TestThePartsOfAComposedUKIAreSentByTheKernel(t *testing.T) {
	w, _ := composing(t)
	r := httptest.NewRequest(http.MethodGet, "/httpboot", nil)
	r.RemoteAddr = "127.0.0.1:1"
	rec := &sendfileWriter{ResponseRecorder: httptest.NewRecorder()}
	w.server.BootHandler().ServeHTTP(rec, r)
	require.Equal(t, w.data, rec.Body.Bytes())
	for _, src := range rec.sources {
		require.IsType(t, (*os.File)(nil), src)
	}
	require.GreaterOrEqual(t, len(rec.sources), 5, "kernel and initrd, in chunks")
	require.LessOrEqual(t, rec.largest, int64(chunk))
}

func TestAnyRangeOfAComposedUKIHoldsItsBytes(t *testing.T) {
	w, base := composing(t)
	size := len(w.data)
	for _, header := range []string{
		"bytes=0-0", "bytes=0-99", "bytes=100-", "bytes=-1", "bytes=-40000", fmt.Sprintf("bytes=%d-", size-36<<10-5), fmt.Sprintf("bytes=%d-%d", size-36<<10-1, size-36<<10),
		"bytes=2097000-2200000", "bytes=1000000-3000000", fmt.Sprintf("bytes=%d-", size-1), fmt.Sprintf("bytes=%d-", size), "bytes=5-2", "bytes=0-1,3-4",
	} {
		w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now()})
		ours := get(t, base+"/httpboot", "Range", header)
		rec, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		if !strings.Contains(header, ",") {
			r.Header.Set("Range", header)
		}
		http.ServeContent(rec, r, "x.efi", time.Time{}, bytes.NewReader(w.data))
		require.Equal(t, rec.Code, ours.StatusCode, header)
		require.Equal(t, rec.Header().Get("Content-Range"), ours.Header.Get("Content-Range"), header)
		if rec.Code < 300 {
			require.True(t, bytes.Equal(rec.Body.Bytes(), ours.body), header)
		}
	}
}

func TestAUKIIsForOneAttemptAndAnotherBootWaitsForTheNext(t *testing.T) {
	w, base := composing(t)
	require.Equal(t, w.data, get(t, base+"/httpboot").body)
	w.clock.step(5 * time.Minute)

	// The machine boots again, and the UKI of attempt 2 is nowhere yet.
	_, _, before := w.attempts.count()
	a := get(t, base+"/httpboot")
	require.Equal(t, 503, a.StatusCode)
	require.NotEmpty(t, a.Header.Get("Retry-After"))
	require.Contains(t, string(a.body), "being composed for boot attempt 2")
	require.Equal(t, 503, ask(t, addrA, http.MethodHead, base+"/httpboot").StatusCode)
	_, _, begins := w.attempts.count()
	require.Equal(t, before, begins, "no attempt is opened for nothing")

	// It comes while the machine waits.
	var second []byte
	composed := make(chan struct{})
	go func() { time.Sleep(200 * time.Millisecond); second = w.compose(2); close(composed) }()
	a = get(t, base+"/httpboot")
	<-composed
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, second, a.body)
	require.NotEqual(t, w.data, second)
	require.EqualValues(t, 2, w.attempts.Current(w.plan).Number)
}

func TestAUKIWithoutATokenServesEveryAttempt(t *testing.T) {
	w, base := composing(t, func(w *world) { w.plan.HasIgnition = false; w.data = w.compose(1) })
	for n := range int64(3) {
		require.Equal(t, w.data, get(t, base+"/httpboot").body)
		require.Equal(t, n+1, w.attempts.Current(w.plan).Number)
		w.clock.step(2 * time.Minute)
	}
}

func TestAResumeGoesOnWithTheUKIOfItsDelivery(t *testing.T) {
	w, base := composing(t)
	half := len(w.data) / 2
	first := get(t, base+"/httpboot", "Range", fmt.Sprintf("bytes=0-%d", half-1))
	require.Equal(t, w.data[:half], first.body)
	w.compose(2) // too early, but it happens: another replica completed a delivery
	require.Equal(t, w.data[half:], get(t, base+"/httpboot", "Range", fmt.Sprintf("bytes=%d-", half)).body)
	o := w.attempts.observed(boot.StageUKI)
	require.True(t, o[len(o)-1].Complete, "the union of both is the whole")
	require.EqualValues(t, 1, o[len(o)-1].Attempt)
	again := get(t, base+"/httpboot", "Range", "bytes=1000000-")
	require.Equal(t, w.data[1000000:], again.body, "what the kernel took need not have reached the machine")
	require.Equal(t, first.Header.Get("Etag"), again.Header.Get("Etag"))

	w.clock.step(2 * resumeGrace)
	fresh := get(t, base+"/httpboot")
	require.Equal(t, 200, fresh.StatusCode)
	require.NotEqual(t, w.data, fresh.body, "that is the next boot")
	require.EqualValues(t, 2, w.attempts.Current(w.plan).Number)
}

func TestWhoHasATokenMayAskAgainInItsAttempt(t *testing.T) {
	w, base := composing(t)
	token, err := w.options.Issuer.Boot(w.plan, boot.Client{Addr: addrB, Proof: boot.Proxy})
	require.NoError(t, err)
	url := base + bootTokenPrefix + token + "/uki.efi"
	for range 2 { // firmware that tries again, or loads what it boots twice
		require.Equal(t, w.data, ask(t, addrB, http.MethodGet, url).body)
		w.compose(2)
	}
}

func TestTheTokenInAUKIProvesTheMachineAsItsDeliveryDid(t *testing.T) {
	w, base := composing(t, func(w *world) { w.plan.Machine.Addrs = nil })
	token := tokenIn(t, w.data)
	url := base + "/ignition?token=" + token
	a := ask(t, addrC, http.MethodGet, url)
	require.Equal(t, 503, a.StatusCode, "before any delivery it proves nothing")
	require.NotEmpty(t, a.Header.Get("Retry-After"))
	require.Zero(t, w.secrets.calls)

	bootToken, err := w.options.Issuer.Boot(w.plan, boot.Client{Proof: boot.Relay})
	require.NoError(t, err)
	require.Equal(t, w.data, ask(t, addrB, http.MethodGet, base+bootTokenPrefix+bootToken+"/uki.efi").body)
	a = ask(t, addrC, http.MethodGet, url) // the OS has another address than the firmware
	require.Equal(t, 200, a.StatusCode)
	require.Equal(t, w.secrets.docs[w.plan.Object.UID], a.body)
	require.Equal(t, boot.Relay, w.attempts.observed(boot.StageIgnition)[0].Proof)
	require.Equal(t, 403, ask(t, addrB, http.MethodGet, url).StatusCode, "another address is contested")
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+bootTokenPrefix+token+"/uki.efi").StatusCode, "it fetches no boot bytes")
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/ignition?token="+bootToken).StatusCode, "nor does a boot token fetch secrets")
	w.clock.step(boot.SecretGrace)
	require.Equal(t, 403, ask(t, addrC, http.MethodGet, url).StatusCode, "the attempt is closed")
	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now(), BootAddr: addrB, BootProof: boot.Relay})
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, url).StatusCode, "a new attempt revokes it")
	require.NotContains(t, w.log.String(), token[:20])
}

func TestTheTokenInAUKIIsNoBetterThanItsDelivery(t *testing.T) {
	for name, c := range map[string]struct {
		proof   boot.Proof
		minimum boot.Proof
		code    int
	}{
		"enough":                 {boot.Address, boot.Address, 200},
		"better":                 {boot.BMC, boot.Relay, 200},
		"too weak":               {boot.Address, boot.Proxy, 404},
		"claims are enough":      {boot.Address, boot.Claimed, 200},
		"but there was none yet": {boot.Unproven, boot.Claimed, 503},
		"delivered on a claim":   {boot.Claimed, boot.Claimed, 503},
	} {
		t.Run(name, func(t *testing.T) {
			w, base := composing(t, func(w *world) { w.plan.Machine.Addrs, w.plan.MinimumProof = nil, c.minimum; w.data = w.compose(1) })
			w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now(), BootAddr: addrB, BootProof: c.proof})
			require.Equal(t, c.code, ask(t, addrC, http.MethodGet, base+"/ignition?token="+tokenIn(t, w.data)).StatusCode)
		})
	}
}

func TestAReplicaLearnsOfTheDeliveryFromTheObject(t *testing.T) {
	w, base := composing(t, func(w *world) { w.plan.Machine.Addrs = nil })
	url := base + "/ignition?token=" + tokenIn(t, w.data)
	w.attempts.noRefresh = boot.ErrUnavailable
	w.attempts.set(w.plan, boot.Attempt{})
	require.Equal(t, 503, ask(t, addrC, http.MethodGet, url).StatusCode, "without the API server nothing is known")
	w.attempts.noRefresh = nil
	w.api.mu.Lock()
	w.api.get(w.plan.Object.UID).attempt = boot.Attempt{Number: 1, OpenedAt: w.clock.now(), BootAddr: addrB, BootProof: boot.Proxy}
	w.api.mu.Unlock()
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, url).StatusCode)
}

func TestTheTokenInAUKIReachesCloudInit(t *testing.T) {
	w, base := composing(t, func(w *world) {
		w.plan.HasIgnition, w.plan.HasCloudInit = false, true
		w.secrets.clouds[w.plan.Object.UID] = boot.CloudInit{UserData: []byte("#cloud-config\n")}
		w.data = w.compose(1)
	})
	seed := between(string(w.data[len(w.data)-uki.SlotSize-uki.CommandLineSize:]), `"seedfrom":"http://boot.example:8082`, `"`)
	require.Equal(t, 503, ask(t, addrC, http.MethodGet, base+seed+"user-data").StatusCode)
	require.Equal(t, w.data, get(t, base+"/httpboot").body)
	a := ask(t, addrC, http.MethodGet, base+seed+"user-data")
	require.Equal(t, "#cloud-config\n", string(a.body))
}

func TestAClaimGetsNoComposedUKI(t *testing.T) {
	w, base := composing(t, func(w *world) {
		w.plan.Machine.Addrs, w.plan.MinimumProof = nil, boot.Claimed
		w.data = w.compose(1)
	})
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/httpboot").StatusCode)
	text := script(t, addrC, base+"/ipxe/"+string(macA))
	require.Contains(t, text, "http://boot.example:8082/httpboot ||", "it is told where a machine that is proven finds it")
	require.NotContains(t, text, w.plan.Composed.Digest.Hex())
	require.NotContains(t, text, "/images/")

	w.plan = &boot.Plan{}
	p := *w.source.plans[0]
	p.Machine.Addrs = []netip.Addr{addrA}
	w.publish(&p)
	require.Equal(t, w.data, get(t, base+"/httpboot").body, "the control")
}

func TestTheScriptOfAProvenMachineChainsItsComposedUKI(t *testing.T) {
	w, base := composing(t)
	require.Contains(t, script(t, addrA, base+"/ipxe/"+string(macA)), "http://boot.example:8082/httpboot ||")
	token, err := w.options.Issuer.Boot(w.plan, boot.Client{Addr: addrB, Proof: boot.Proxy})
	require.NoError(t, err)
	require.Contains(t, script(t, addrB, base+"/ipxe/t/"+token), "http://boot.example:8082/httpboot/t/"+token+"/uki.efi ||")
	menu := ask(t, addrA, http.MethodGet, base+"/grub/grub.cfg-01-"+strings.ReplaceAll(string(macA), ":", "-"))
	require.Contains(t, string(menu.body), "chainloader '(http,boot.example:8082)/httpboot'\n")
}

func TestADHCPServerIsToldOfAComposedUKIByATokenOnly(t *testing.T) {
	w, base := composing(t, trustDHCP)
	code, url := feDHCP(t, base, "127.0.0.1, "+string(macA))
	require.Equal(t, 200, code)
	path, ok := strings.CutPrefix(url, "http://boot.example:8082"+bootTokenPrefix)
	require.True(t, ok, url)
	require.Equal(t, w.data, get(t, base+bootTokenPrefix+path).body)

	for name, forwarded := range map[string]string{"no address to bind a token to": string(macA), "not the machine's address": "127.0.0.2, " + string(macA)} {
		a := ask(t, addrC, http.MethodGet, base+"/httpboot", "X-Forwarded-For", forwarded)
		require.Equal(t, 503, a.StatusCode, name)
		require.Contains(t, string(a.body), "NoTokenURL")
		require.NotContains(t, string(a.body), w.plan.Composed.Digest.Hex())
	}
}

func TestAMachineThatAsksIsToldAURLForItAlone(t *testing.T) {
	w, base := composing(t)
	told := func(from netip.Addr, path string) (int, string) {
		a := ask(t, from, http.MethodGet, base+path, "Accept", "application/json")
		return a.StatusCode, between(string(a.body), `"UKIURL":"http://boot.example:8082`, `"`)
	}
	code, path := told(addrA, "/httpboot")
	require.Equal(t, 200, code)
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+path).StatusCode, "its token is for one address")
	require.Equal(t, w.data, get(t, base+path).body)

	token, err := w.options.Issuer.Boot(w.plan, boot.Client{Proof: boot.Proxy})
	require.NoError(t, err)
	code, path = told(addrB, bootTokenPrefix+token+"/uki.efi")
	require.Equal(t, 200, code)
	require.Equal(t, bootTokenPrefix+token+"/uki.efi", path, "who has one is told of that")

	_, base = composing(t, func(w *world) { w.options.Issuer = nil })
	a := get(t, base+"/httpboot", "Accept", "application/json")
	require.Equal(t, 503, a.StatusCode)
	require.Contains(t, string(a.body), "NoTokenURL")
}

func TestWhatCannotBeComposedNowIsNotReady(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"not composed yet":       func(w *world) { w.plan.Composed = nil },
		"no composer":            func(w *world) { w.options.Composer = nil },
		"the spec changed since": func(w *world) { w.plan.KernelArguments = []string{"other"} },
		"it can never be":        func(w *world) { w.plan.KernelArguments = []string{strings.Repeat("a", 4000)} },
		"a part is not here": func(w *world) {
			require.NoError(t, os.Remove(w.blobs.dir+"/"+w.plan.Artifacts[1].Digest.Hex()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, base := composing(t, change)
			a := get(t, base+"/httpboot")
			require.Equal(t, 503, a.StatusCode)
			require.NotEmpty(t, a.Header.Get("Retry-After"))
			_, _, begins := w.attempts.count()
			require.Zero(t, begins)
		})
	}
}

func TestAComposedUKIIsDeliveredOnce(t *testing.T) {
	w, base := composing(t, once)
	url := base + "/httpboot"
	half := len(w.data) / 2
	require.Equal(t, w.data[:half], get(t, url, "Range", fmt.Sprintf("bytes=0-%d", half-1)).body)
	require.Equal(t, w.data[half:], get(t, url, "Range", fmt.Sprintf("bytes=%d-", half)).body)
	require.Equal(t, 403, get(t, url).StatusCode)
	require.Equal(t, 200, ask(t, addrA, http.MethodHead, url).StatusCode, "within the grace a HEAD is for a resume")
	require.Equal(t, w.data[half:], get(t, url, "Range", fmt.Sprintf("bytes=%d-", half)).body)
	w.clock.step(2 * resumeGrace)
	require.Equal(t, 403, ask(t, addrA, http.MethodHead, url).StatusCode)
	commits, _, _ := w.attempts.count()
	require.Equal(t, 1, commits)
}

// slowly makes blobs that have no file until released.
func slowly(w *world, whole *atomic.Bool) {
	w.blobs.wrap = func(b boot.Blob) boot.Blob { return &coming{Blob: b, whole: whole} }
}

type coming struct {
	boot.Blob
	whole *atomic.Bool
}

func (c *coming) File() *os.File {
	if c.whole.Load() {
		return c.Blob.File()
	}
	return nil
}

func TestOfAStrictPlanNoByteFlowsBeforeAllIsVerified(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"/httpboot": func(w *world) { w.plan.Strict = true },
		"/images/":  func(w *world) { w.plan.Artifacts[0].Strict, w.plan.Machine.Addrs = true, nil },
	} {
		t.Run(name, func(t *testing.T) {
			var whole atomic.Bool
			w := newWorld(t, change, func(w *world) { slowly(w, &whole) })
			url := w.bootServer() + name
			if name == "/images/" {
				url += string(w.plan.Artifacts[0].Digest) + "/uki.efi"
			}
			a := get(t, url)
			require.Equal(t, 503, a.StatusCode)
			require.NotEmpty(t, a.Header.Get("Retry-After"))
			require.Contains(t, string(a.body), "still arriving")
			_, _, begins := w.attempts.count()
			require.Zero(t, begins)
			require.Equal(t, 200, ask(t, addrA, http.MethodHead, url).StatusCode, "the size is no byte of it")

			go func() { time.Sleep(200 * time.Millisecond); whole.Store(true) }()
			require.Equal(t, w.data, get(t, url).body, "a little it is waited for")
		})
	}
	var never atomic.Bool
	w := newWorld(t, func(w *world) { slowly(w, &never) })
	require.Equal(t, w.data, get(t, w.bootServer()+"/httpboot").body, "the control: of another plan what is there flows")
}

func TestAComposedUKIWaitsForWholeParts(t *testing.T) {
	var whole atomic.Bool
	whole.Store(true)
	w, base := composing(t, func(w *world) { slowly(w, &whole) })
	whole.Store(false)
	a := get(t, base+"/httpboot")
	require.Equal(t, 503, a.StatusCode)
	whole.Store(true)
	require.Equal(t, w.data, get(t, base+"/httpboot").body)
}

// FuzzComposedRange holds the answers to any Range against the bytes themselves.
func FuzzComposedRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=5-9", "bytes=-7", "bytes=3100000-", "bytes=3-1", "bytes= 0 - 5", "items=0-1", "bytes=--1", ""} {
		f.Add(s)
	}
	w, _ := composing(f)
	h := w.server.BootHandler()
	f.Fuzz(func(t *testing.T, header string) {
		w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now()})
		ours, theirs := httptest.NewRecorder(), httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/httpboot", nil)
		r.RemoteAddr = "127.0.0.1:1"
		if header != "" {
			r.Header.Set("Range", header)
		}
		reference := r.Clone(t.Context())
		if strings.Contains(header, ",") {
			reference.Header.Del("Range")
		}
		h.ServeHTTP(ours, r)
		http.ServeContent(theirs, reference, "x.efi", time.Time{}, bytes.NewReader(w.data))
		require.Equal(t, theirs.Code, ours.Code)
		if theirs.Code < 300 {
			require.True(t, bytes.Equal(theirs.Body.Bytes(), ours.Body.Bytes()))
		}
	})
}
