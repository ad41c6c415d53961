package httpserver

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func (w *world) abort() {
	a := w.attempts.Current(w.plan)
	a.Aborted = true
	w.attempts.set(w.plan, a)
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	w.api.get(w.plan.Object.UID).attempt = a
}

func TestNothingIsServedInAnAbortedAttempt(t *testing.T) {
	w := newWorld(t, withTokens, func(w *world) {
		w.options.TrustedDHCP = []netip.Prefix{netip.PrefixFrom(addrC, 32)}
		w.plan.HasCloudInit = true
		w.secrets.clouds[w.plan.Object.UID] = boot.CloudInit{UserData: []byte("#cloud-config\n")}
	})
	base := w.bootServer()
	digest := "/images/" + string(w.plan.Artifacts[0].Digest) + "/uki.efi"
	token := w.mint(w.plan, 1, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	paths := []string{"/httpboot", "/httpboot/t/" + token + "/uki.efi", digest, "/ignition", "/ignition/" + string(uuidA), "/cloud-init/user-data"}
	for _, path := range paths {
		require.Equal(t, 200, ask(t, addrA, http.MethodHead, base+path).StatusCode, "the control: %s", path)
	}
	w.abort()
	for _, path := range paths {
		for _, method := range []string{http.MethodHead, http.MethodGet} {
			a := ask(t, addrA, method, base+path)
			require.Equal(t, 403, a.StatusCode, path)
			if method == http.MethodGet {
				require.Contains(t, string(a.body), `"reason":"AttemptAborted"`, path)
			}
		}
	}
	require.Equal(t, 403, get(t, base+"/httpboot", "Accept", "application/json").StatusCode)
	require.Equal(t, 403, ask(t, addrC, http.MethodGet, base+"/httpboot", "X-Forwarded-For", "127.0.0.1, "+string(macA)).StatusCode)
	require.Equal(t, leaves, script(t, addrA, base+"/ipxe/"+string(macA)))
	require.Equal(t, leaves, script(t, addrB, base+"/ipxe/"+string(macA)), "on a claim")
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition/"+string(uuidA)).StatusCode, "nobody else learns of it")
	_, _, begins := w.attempts.count()
	require.Zero(t, begins)
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+digest).StatusCode, "to others it is a public blob as ever")

	// A claim opens nothing either.
	w.plan.MinimumProof = boot.Claimed
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition/"+string(uuidA)).StatusCode)
	_, _, begins = w.attempts.count()
	require.Zero(t, begins)

	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now()})
	require.Equal(t, 200, get(t, base+"/httpboot").StatusCode, "another attempt was opened")
}

// A boot under way tells how far it has come, and ends when its attempt is aborted.
func TestADeliveryTellsItsProgressAndEndsWhenItIsAborted(t *testing.T) {
	for _, file := range []bool{true, false} {
		w := newWorld(t, func(w *world) {
			w.data = randomBytes(8 * chunk)
			w.plan.Artifacts = []boot.Artifact{w.blobs.add(w.t, w.data)}
			w.blobs.wrap = func(b boot.Blob) boot.Blob {
				step := func(pos int64) error {
					if pos%chunk == 0 && pos > 0 && pos <= 5*chunk {
						w.clock.step(progressEvery)
					}
					return nil
				}
				if file {
					return b
				}
				return &arriving{Blob: b, before: step}
			}
		})
		if file {
			// The kernel sends: time passes between looks.
			w.server.now = func() time.Time { w.clock.step(progressEvery); return w.clock.now() }
		}
		a := get(t, w.bootServer()+"/httpboot")
		require.NoError(t, a.err)
		require.Equal(t, w.data, a.body)
		seen := w.attempts.observed(boot.StageUKI)
		progress := seen[:len(seen)-1]
		require.NotEmpty(t, progress)
		last := int64(0)
		for _, o := range progress {
			require.True(t, o.UnderWay)
			require.False(t, o.Complete)
			require.Equal(t, int64(len(w.data)), o.Size)
			require.Greater(t, o.Sent, last)
			last = o.Sent
		}
		require.Zero(t, w.attempts.begun[0].Sent)
		done := seen[len(seen)-1]
		require.Equal(t, int64(len(w.data)), done.Sent)
		require.True(t, done.Complete)
		require.False(t, done.UnderWay)
		if !file {
			require.Len(t, progress, 5, "once every five seconds")
		}
	}

	w := newWorld(t, func(w *world) {
		w.data = randomBytes(8 * chunk)
		w.plan.Artifacts = []boot.Artifact{w.blobs.add(w.t, w.data)}
		w.blobs.wrap = func(b boot.Blob) boot.Blob {
			return &arriving{Blob: b, before: func(pos int64) error {
				if pos == 2*chunk {
					w.abort()
					w.clock.step(abortEvery)
				}
				return nil
			}}
		}
	})
	a := get(t, w.bootServer()+"/httpboot")
	require.Error(t, a.err)
	require.Less(t, len(a.body), 4*chunk)
	eventually(t, "the cut delivery", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 1 })
	cut := w.attempts.observed(boot.StageUKI)[0]
	require.False(t, cut.Complete)
	require.False(t, cut.UnderWay)
}
