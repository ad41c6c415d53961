package httpserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func once(w *world) { w.plan.Policy = boot.Once }

func TestOnceIsDeliveredOnce(t *testing.T) {
	w := newWorld(t, once)
	url := w.bootServer() + "/httpboot"
	require.Equal(t, 200, ask(t, addrA, http.MethodHead, url).StatusCode)
	commits, _, _ := w.attempts.count()
	require.Zero(t, commits, "a HEAD commits nothing")
	a := get(t, url)
	require.NoError(t, a.err)
	require.Equal(t, w.data, a.body)

	for _, method := range []string{http.MethodHead, http.MethodGet} {
		a = ask(t, addrA, method, url)
		if method == http.MethodHead {
			// Within the grace a HEAD is for a resume.
			require.Equal(t, 200, a.StatusCode)
			continue
		}
		require.Equal(t, 403, a.StatusCode)
		require.Contains(t, string(a.body), "AttemptSpent")
	}
	w.clock.step(2 * resumeGrace)
	require.Equal(t, 403, ask(t, addrA, http.MethodHead, url).StatusCode)
	require.Equal(t, 403, get(t, url, "Range", "bytes=1-").StatusCode)
	// The same bytes by their digest are the same delivery.
	public := w.bootServer() + "/images/" + string(w.plan.Artifacts[0].Digest) + "/os.efi"
	require.Equal(t, 403, get(t, public).StatusCode)
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, public).StatusCode, "for a stranger they are only public bytes")

	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now()})
	require.Equal(t, 200, get(t, url).StatusCode, "a new attempt delivers again")
}

// The commit of the replica that is second must keep the end of its blob back.
func TestTwoReplicasNeverBothFinishOnce(t *testing.T) {
	for range 10 {
		w := newWorld(t, once)
		second := newWorld(t, func(v *world) {
			v.plan, v.source, v.blobs, v.api, v.clock = w.plan, w.source, w.blobs, w.api, w.clock
			v.attempts = &fakeAttempts{api: w.api, now: w.clock.now, local: map[string]boot.Attempt{}}
			v.attempts.set(w.plan, w.attempts.Current(w.plan))
			v.options.Source, v.options.Blobs, v.options.Attempts, v.options.Now = v.source, v.blobs, v.attempts, w.clock.now
		})
		urls := []string{w.bootServer() + "/httpboot", second.bootServer() + "/httpboot"}
		var complete, cut atomic.Int32
		var wg sync.WaitGroup
		for _, u := range urls {
			wg.Go(func() {
				a := get(t, u)
				switch {
				case a.err == nil && a.StatusCode == 200 && len(a.body) == len(w.data):
					complete.Add(1)
				case a.StatusCode == 200 && a.err != nil && len(a.body) <= len(w.data)-boot.HeldBack:
					cut.Add(1)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int32(1), complete.Load())
		require.Equal(t, int32(1), cut.Load(), "the loser is cut before its last 64 KiB")
		for n, v := range []*world{w, second} {
			v.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now(), Spent: true})
			require.Equal(t, 403, get(t, urls[n]).StatusCode, "and both know that it is spent")
		}
	}
}

// A machine that asks several times at once, on one replica, is one machine.
func TestOneReplicaFinishesOnceForOneOfManyRequests(t *testing.T) {
	for range 10 {
		w := newWorld(t, once)
		url := w.bootServer() + "/httpboot"
		var complete atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if a := get(t, url); a.err == nil && a.StatusCode == 200 && len(a.body) == len(w.data) {
					complete.Add(1)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int32(1), complete.Load())
	}
}

func TestTheEndOfOnceWaitsForItsCommit(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, once, func(w *world) {
		w.options.CommitWait = 5 * time.Second
		w.attempts.commit = func(ctx context.Context) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return boot.ErrUnavailable
			}
		}
	})
	resp, err := client(addrA).Get(w.bootServer() + "/httpboot")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body := make([]byte, len(w.data)-boot.HeldBack)
	_, err = io.ReadFull(resp.Body, body)
	require.NoError(t, err, "bytes flow while the commit runs")
	more := make(chan int, 1)
	go func() {
		n, _ := resp.Body.Read(make([]byte, 1))
		more <- n
	}()
	select {
	case <-more:
		t.Fatal("a held back byte left before the commit")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	require.Equal(t, 1, <-more)
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Len(t, rest, boot.HeldBack-1)
}

func TestOnceFailsClosedWithoutTheAPIServer(t *testing.T) {
	w := newWorld(t, once, func(w *world) {
		w.attempts.commit = func(context.Context) error { return fmt.Errorf("no answer: %w", boot.ErrUnavailable) }
	})
	url := w.bootServer() + "/httpboot"
	a := get(t, url)
	require.Error(t, a.err)
	require.LessOrEqual(t, len(a.body), len(w.data)-boot.HeldBack)
	eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 1 })
	require.False(t, w.attempts.observed(boot.StageUKI)[0].Complete)
	// What lies in the held back end alone is refused before its first byte.
	a = get(t, url, "Range", fmt.Sprintf("bytes=%d-", len(w.data)-1000))
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, "5", a.Header.Get("Retry-After"))
	require.Empty(t, a.Header.Get("Content-Range"))

	w.plan.Policy = boot.Always
	require.NoError(t, get(t, url).err, "the control: Always never waits")

	// The API server is back: the machine fetches the rest.
	w.plan.Policy = boot.Once
	w.attempts.mu.Lock()
	w.attempts.commit = nil
	w.attempts.mu.Unlock()
	require.NoError(t, get(t, url).err)
}

func TestACommitThatTakesLongIsTriedAgainWhileBytesFlow(t *testing.T) {
	var tries atomic.Int32
	w := newWorld(t, once, func(w *world) {
		w.options.CommitWait = 5 * time.Second
		w.attempts.commit = func(context.Context) error {
			if tries.Add(1) < 3 {
				return boot.ErrUnavailable
			}
			return nil
		}
	})
	a := get(t, w.bootServer()+"/httpboot")
	require.NoError(t, a.err)
	require.Equal(t, w.data, a.body)
	require.Equal(t, int32(3), tries.Load())
}

// The commit was made and its answer lost: the same delivery is known again.
func TestALostAnswerToACommitIsNotADoubleDelivery(t *testing.T) {
	w := newWorld(t, once, func(w *world) { w.attempts.lost = boot.ErrUnavailable })
	url := w.bootServer() + "/httpboot"
	first := get(t, url)
	require.Error(t, first.err)
	require.True(t, w.attempts.Current(w.plan).Spent)
	w.attempts.mu.Lock()
	w.attempts.lost = nil
	w.attempts.mu.Unlock()
	a := get(t, url, "Range", fmt.Sprintf("bytes=%d-", len(first.body)))
	require.NoError(t, a.err)
	require.Equal(t, 206, a.StatusCode)
	require.Equal(t, w.data[len(first.body):], a.body)
	eventually(t, "completion: the union of both covers the blob", func() bool {
		o := w.attempts.observed(boot.StageUKI)
		return o[len(o)-1].Complete
	})
}

func TestACutOnceIsResumedByTheSameAddressOnly(t *testing.T) {
	w := newWorld(t, once, func(w *world) {
		w.data = randomBytes(8 << 20)
		w.plan.Artifacts = []boot.Artifact{w.blobs.add(w.t, w.data)}
		w.plan.Machine.Addrs = []netip.Addr{addrA, addrB}
	})
	url := w.bootServer() + "/httpboot"
	resp, err := client(addrA).Get(url)
	require.NoError(t, err)
	_, err = io.ReadFull(resp.Body, make([]byte, 1<<20))
	require.NoError(t, err)
	eventually(t, "the commit", func() bool { return w.attempts.Current(w.plan).Spent })
	_ = resp.Body.Close()
	eventually(t, "the cut delivery's observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 1 })
	require.False(t, w.attempts.observed(boot.StageUKI)[0].Complete)

	require.Equal(t, 403, get(t, url).StatusCode, "from the start again is another delivery")
	require.Equal(t, 403, ask(t, addrB, http.MethodGet, url, "Range", "bytes=1048576-").StatusCode)
	etag := fmt.Sprintf("%q", w.plan.Artifacts[0].Digest)
	a := get(t, url, "Range", "bytes=1048576-", "If-Range", etag)
	require.Equal(t, 206, a.StatusCode)
	require.Equal(t, w.data[1<<20:], a.body)
	eventually(t, "completion", func() bool {
		o := w.attempts.observed(boot.StageUKI)
		return o[len(o)-1].Complete && o[0].Attempt == o[len(o)-1].Attempt
	})

	// Another process knows nothing of the delivery.
	restarted, err := New(Options{Source: w.source, Blobs: w.blobs, Secrets: w.secrets, Attempts: w.attempts, Now: w.clock.now})
	require.NoError(t, err)
	w.server = restarted
	require.Equal(t, 403, get(t, w.bootServer()+"/httpboot", "Range", "bytes=1048576-").StatusCode)
}

func TestRangesBeforeTheEndCommitNothing(t *testing.T) {
	w := newWorld(t, once)
	url := w.bootServer() + "/httpboot"
	require.Equal(t, 206, get(t, url, "Range", "bytes=0-1023").StatusCode)
	commits, _, _ := w.attempts.count()
	require.Zero(t, commits)
	require.Equal(t, 206, get(t, url, "Range", "bytes=1024-").StatusCode)
	commits, _, _ = w.attempts.count()
	require.Equal(t, 1, commits)
	eventually(t, "completion", func() bool {
		o := w.attempts.observed(boot.StageUKI)
		return len(o) == 2 && !o[0].Complete && o[1].Complete
	})
}

func TestUnionOfRangesCompletesADelivery(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/httpboot"
	last := func() boot.Observation {
		o := w.attempts.observed(boot.StageUKI)
		return o[len(o)-1]
	}
	for i, r := range []string{"bytes=200000-", "bytes=0-99999", "bytes=50000-150000"} {
		require.Equal(t, 206, get(t, url, "Range", r).StatusCode)
		eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == i+1 })
		require.False(t, last().Complete, r)
	}
	require.Equal(t, 206, get(t, url, "Range", "bytes=150001-199999").StatusCode)
	eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 4 })
	require.True(t, last().Complete)
	require.Equal(t, int64(1), last().Attempt)
}

// Another replica opened the same number first: what was opened here got the
// next when it was written.
func TestADeliveryOutlivesTheRenumberingOfItsAttempt(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/httpboot"
	opened := w.attempts.Current(w.plan).OpenedAt
	require.Equal(t, 206, get(t, url, "Range", "bytes=0-199999").StatusCode)
	eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 1 })
	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: opened})
	require.Equal(t, 206, get(t, url, "Range", "bytes=200000-").StatusCode)
	eventually(t, "completion", func() bool {
		o := w.attempts.observed(boot.StageUKI)
		return len(o) == 2 && o[1].Complete
	})
	// The control: an attempt that is really another one starts over.
	w.attempts.set(w.plan, boot.Attempt{Number: 3, OpenedAt: opened.Add(time.Second)})
	require.Equal(t, 206, get(t, url, "Range", "bytes=200000-").StatusCode)
	eventually(t, "the observation", func() bool {
		o := w.attempts.observed(boot.StageUKI)
		return len(o) == 3 && !o[2].Complete
	})
}

func TestAnswersThatCarryNoBytesOpenNothing(t *testing.T) {
	w := newWorld(t)
	url := w.bootServer() + "/httpboot"
	etag := fmt.Sprintf("%q", w.plan.Artifacts[0].Digest)
	require.Equal(t, 304, get(t, url, "If-None-Match", etag).StatusCode)
	require.Equal(t, 412, get(t, url, "If-Match", `"other"`).StatusCode)
	a := get(t, url, "Range", "bytes=999999999-")
	require.Equal(t, 416, a.StatusCode)
	require.Contains(t, string(a.body), "RangeNotSatisfiable")
	require.Equal(t, fmt.Sprintf("bytes */%d", len(w.data)), a.Header.Get("Content-Range"))
	_, _, begins := w.attempts.count()
	require.Zero(t, begins)
	require.Equal(t, 200, get(t, url, "If-Range", `"other"`, "Range", "bytes=5-").StatusCode, "another version: the whole")
	require.Equal(t, 200, get(t, url, "Range", "bytes=0-1,5-9").StatusCode, "several ranges: the whole")
}

func TestABlobThatIsStillArriving(t *testing.T) {
	var failing atomic.Bool
	gate := make(chan struct{})
	w := newWorld(t, func(w *world) {
		w.blobs.wrap = func(b boot.Blob) boot.Blob {
			return &arriving{Blob: b, before: func(pos int64) error {
				if pos >= 100_000 {
					<-gate
					if failing.Load() {
						return errors.New("digest mismatch")
					}
				}
				return nil
			}}
		}
	})
	url := w.bootServer() + "/httpboot"
	resp, err := client(addrA).Get(url)
	require.NoError(t, err)
	_, err = io.ReadFull(resp.Body, make([]byte, 90_000))
	require.NoError(t, err, "bytes flow while the blob arrives")
	close(gate)
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, w.data[90_000:], rest)
	_ = resp.Body.Close()
	eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 1 })

	failing.Store(true)
	a := get(t, url)
	require.Equal(t, 200, a.StatusCode)
	require.Error(t, a.err, "a blob that turns out wrong ends in a broken connection, not in a short file")
	eventually(t, "the observation", func() bool { return len(w.attempts.observed(boot.StageUKI)) == 2 })
	require.False(t, w.attempts.observed(boot.StageUKI)[1].Complete)
}

// Known defect 9: a HEAD moves no bytes of the blob.
func TestHeadReadsNothing(t *testing.T) {
	var read atomic.Int64
	w := newWorld(t, func(w *world) {
		w.blobs.wrap = func(b boot.Blob) boot.Blob {
			return &arriving{Blob: b, before: func(int64) error { read.Add(1); return nil }}
		}
	})
	url := w.bootServer()
	for _, path := range []string{"/httpboot", "/images/" + string(w.plan.Artifacts[0].Digest) + "/x", "/image?layerDigest=" + string(w.plan.Artifacts[0].Digest)} {
		a := ask(t, addrA, http.MethodHead, url+path)
		require.Equal(t, 200, a.StatusCode)
		require.Equal(t, int64(len(w.data)), a.ContentLength)
	}
	require.Zero(t, read.Load())
	get(t, url+"/httpboot")
	require.NotZero(t, read.Load(), "the control")
}
