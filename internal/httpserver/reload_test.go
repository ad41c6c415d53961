package httpserver

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// keySecret is the Secret that all replicas read the keys of tokens from.
type keySecret struct {
	mu    sync.Mutex
	keys  []boot.TokenKey
	away  bool
	reads int
}

func (s *keySecret) set(keys ...boot.TokenKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = keys
}

// reader reads it into the keyring of one replica.
func (s *keySecret) reader(k *boot.Keyring) func(context.Context) error {
	return func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reads++
		if s.away {
			return errors.New("dial tcp: connection refused")
		}
		return k.Replace(s.keys...)
	}
}

func tokenKey(id byte, seed int) boot.TokenKey {
	return boot.TokenKey{ID: id, Secret: randomBytes(32 * (seed + 1))[32*seed:]}
}

// replica is one server of several that serve the same machines.
type replica struct {
	keys *boot.Keyring
	base string
}

func (w *world) replica(s *keySecret, first ...boot.TokenKey) replica {
	w.t.Helper()
	r := replica{keys: &boot.Keyring{}}
	require.NoError(w.t, r.keys.Replace(first...))
	o := w.options
	o.Keyring, o.Registerer = r.keys, nil
	if s != nil {
		o.ReloadKeys = s.reader(r.keys)
	}
	server, err := New(o)
	require.NoError(w.t, err)
	beside := *w
	beside.server = server
	r.base = beside.bootServer()
	return r
}

// token is one that this replica hands out.
func (r replica) token(w *world) string {
	t, err := r.keys.Mint(boot.Token{Object: boot.UUID(w.plan.Object.UID), Attempt: 1, Audience: boot.AudienceBoot, Proof: boot.Proxy, Expires: w.clock.now().Add(time.Hour)})
	require.NoError(w.t, err)
	return t
}

func (r replica) boots(w *world, token string) answer {
	return ask(w.t, addrB, http.MethodGet, r.base+bootTokenPrefix+token+"/uki.efi")
}

// Machines boot without a break while the keys are rotated, and the replicas learn of
// each step at different times.
func TestKeysAreRotatedWithoutAFailedBoot(t *testing.T) {
	one, two := tokenKey(1, 0), tokenKey(2, 1)
	w := newWorld(t, func(w *world) {
		w.data = randomBytes(2000)
		w.plan.Artifacts = []boot.Artifact{w.blobs.add(w.t, w.data)}
	})
	secret := &keySecret{}
	secret.set(one)
	a, b := w.replica(secret, one), w.replica(secret, one)

	var boots, failed atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, pair := range [][2]replica{{a, b}, {b, a}, {a, a}, {b, b}} {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				boots.Add(1)
				if r := pair[1].boots(w, pair[0].token(w)); r.err != nil || r.StatusCode != 200 {
					failed.Add(1)
				}
			}
		})
	}
	for _, step := range []func(){
		func() { secret.set(two, one) },
		func() { require.NoError(t, a.keys.Replace(one, two)) }, // read, and not settled
		func() { require.NoError(t, a.keys.Replace(two, one)) }, // its clock is ahead: it signs with what b never read
		func() { require.NoError(t, b.keys.Replace(two, one)) },
		func() { secret.set(two); require.NoError(t, a.keys.Replace(two)) },
		func() { require.NoError(t, b.keys.Replace(two)) },
	} {
		step()
		before := boots.Load()
		eventually(t, "boots", func() bool { return boots.Load() > before+20 })
	}
	close(stop)
	load.Wait()
	require.Zero(t, failed.Load(), "of %d boots", boots.Load())
	secret.mu.Lock()
	defer secret.mu.Unlock()
	require.Positive(t, secret.reads, "b had to read the Secret for a token of a")
}

// The negative control: a replica that does not read the keys again refuses.
func TestATokenOfAKeyThatIsNeverReadIsRefused(t *testing.T) {
	w := newWorld(t)
	one, two := tokenKey(1, 0), tokenKey(2, 1)
	a, b := w.replica(nil, two), w.replica(nil, one)
	require.Equal(t, 200, a.boots(w, a.token(w)).StatusCode)
	require.Equal(t, 404, b.boots(w, a.token(w)).StatusCode)
}

func TestATokenOfAKeyThatWasNotReadYet(t *testing.T) {
	one, two, three := tokenKey(1, 0), tokenKey(2, 1), tokenKey(3, 2)
	w := newWorld(t)
	secret := &keySecret{away: true}
	secret.set(two, one)
	a, b := w.replica(nil, two), w.replica(secret, one)
	r := b.boots(w, a.token(w))
	require.Equal(t, 503, r.StatusCode, "the Secret may have the key")
	require.Contains(t, string(r.body), `"reason":"Unavailable"`)
	require.NotEmpty(t, r.Header.Get("Retry-After"))
	require.NotContains(t, string(r.body), "dial tcp")
	require.Equal(t, 404, b.boots(w, "x"+a.token(w)[1:]).StatusCode, "what is no token is refused at once")
	forged := []byte(b.token(w))
	forged[70] ^= 1
	require.Equal(t, 404, b.boots(w, string(forged)).StatusCode, "signed with a key of ours, and wrong")

	secret.mu.Lock()
	secret.away = false
	secret.mu.Unlock()
	require.Equal(t, 200, b.boots(w, a.token(w)).StatusCode)
	stranger := w.replica(nil, three)
	require.Equal(t, 404, b.boots(w, stranger.token(w)).StatusCode, "the Secret does not have it")

	// The Secret was made anew, under the same name of a key.
	fresh := tokenKey(2, 3)
	secret.set(fresh)
	require.NoError(t, a.keys.Replace(fresh))
	require.Equal(t, 200, b.boots(w, a.token(w)).StatusCode)
}

// Strangers can make us read the Secret once a second, however many they are.
func TestReadingTheKeysAgainIsSharedAndBounded(t *testing.T) {
	one, three := tokenKey(1, 0), tokenKey(3, 2)
	w := newWorld(t)
	secret := &keySecret{}
	secret.set(one)
	b, stranger := w.replica(secret, one), w.replica(nil, three)
	began := time.Now()
	var all sync.WaitGroup
	for range 60 {
		all.Go(func() {
			if got := b.boots(w, stranger.token(w)).StatusCode; got != 404 {
				t.Errorf("got %d", got)
			}
		})
	}
	all.Wait()
	secret.mu.Lock()
	defer secret.mu.Unlock()
	require.LessOrEqual(t, secret.reads, 2+int(time.Since(began)/reloadEvery))
	require.Positive(t, secret.reads)
}

// A token of an attempt that another replica opened a moment ago waits for the news.
func TestATokenOfAnAttemptThatIsBeingWrittenWaitsForIt(t *testing.T) {
	w := newWorld(t, withTokens)
	base := w.bootServer()
	token := w.mint(w.plan, 2, boot.AudienceSecret, boot.Proxy, netip.Addr{})
	go func() {
		time.Sleep(300 * time.Millisecond) // the write, and the news of it
		w.source.mu.Lock()
		defer w.source.mu.Unlock()
		told := *w.plan
		told.Attempt = boot.Attempt{Number: 2, OpenedAt: w.clock.now()}
		w.source.plans = []*boot.Plan{&told}
	}()
	require.Equal(t, 200, ask(t, addrB, http.MethodGet, base+"/ignition?token="+token).StatusCode)
	old := w.mint(w.plan, 1, boot.AudienceSecret, boot.Proxy, netip.Addr{})
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, base+"/ignition?token="+old).StatusCode, "the control: a new attempt revokes the last one's")
}
