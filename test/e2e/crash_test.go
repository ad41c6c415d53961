package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/demoimage"
)

// delivery is one download of a UKI by something that acts as firmware.
type delivery struct {
	got    int64
	digest string
	code   int
	err    error
}

func (d delivery) complete(want string) bool {
	return d.err == nil && d.code == 200 && d.digest == want
}

// fetch downloads url as the machine that has this address, at most
// bytesPerSecond fast (0: as fast as it comes); progress is told how far it is.
func (s *site) fetch(from netip.Addr, url string, bytesPerSecond int, progress func(int64)) delivery {
	client := s.network.HTTPClient(from)
	client.Timeout = 5 * time.Minute
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err != nil {
		return delivery{err: err}
	}
	defer resp.Body.Close()
	d := delivery{code: resp.StatusCode}
	sum := sha256.New()
	buf := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(buf)
		sum.Write(buf[:n])
		d.got += int64(n)
		if progress != nil {
			progress(d.got)
		}
		if bytesPerSecond > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(bytesPerSecond))
		}
		if err == io.EOF {
			d.digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
			return d
		}
		if err != nil {
			d.err = err
			return d
		}
	}
}

// rack is a site with one config, whose UKI has size bytes, and without QEMU.
type rack struct {
	*site
	machine netip.Addr
	digest  string
	size    int64
	flags   []string
	reg     *siteRegistry
}

func newRack(t *testing.T, size int, policy v1alpha1.BootPolicy) *rack {
	t.Helper()
	s := newSite(t)
	uki, err := demoimage.Padded("amd64", "rack", size)
	require.NoError(t, err)
	r := &rack{site: s, machine: s.network.Addr(50), size: int64(len(uki)), reg: s.registry()}
	image := r.reg.publish("os/lab", "1", map[string][]byte{"amd64": uki})
	r.digest = r.reg.digest("amd64")
	r.flags = []string{"--plain-http-registries=" + r.reg.host}
	s.network.AddAddress(r.machine)
	config := machineConfig("m", image, r.machine.String())
	config.Spec.BootPolicy = policy
	s.create(s.ignition("m", ignitionFile("x")), config)
	return r
}

// httpboot is the URL of /httpboot on this port.
func (r *rack) httpboot(port int) string {
	return fmt.Sprintf("http://%s:%d/httpboot", r.network.Gateway(), port)
}

func TestKillInTheMiddleOfAPullLeavesNothingPartial(t *testing.T) {
	t.Parallel()
	r := newRack(t, 16<<20, v1alpha1.BootPolicyAlways)
	release := r.reg.Hold(8 << 20)
	op := r.start("a", r.flags...)
	ingest := filepath.Join(r.dir, "a", "artifacts", "ingest")
	require.Eventually(t, func() bool { return sizeOf(ingest) >= 8<<20 }, time.Minute, 20*time.Millisecond, "half of the pull")
	op.kill()
	blob := filepath.Join(r.dir, "a", "artifacts", "blobs", "sha256", strings.TrimPrefix(r.digest, "sha256:"))
	_, err := os.Stat(blob)
	require.ErrorIs(t, err, os.ErrNotExist, "a partial blob must not be visible")

	release()
	r.start("a", r.flags...)
	r.condition("m", v1alpha1.ConditionReady)
	d := r.fetch(r.machine, r.httpboot(8082), 0, nil)
	require.True(t, d.complete(r.digest), "%+v", d)
}

// sizeOf is the size of all files in a directory.
func sizeOf(dir string) int64 {
	var sum int64
	entries, _ := os.ReadDir(dir) // none yet
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

func TestKillInTheMiddleOfServingDoesNotSpoilTheNextBoot(t *testing.T) {
	t.Parallel()
	r := newRack(t, 16<<20, v1alpha1.BootPolicyAlways)
	op := r.start("a", r.flags...)
	r.condition("m", v1alpha1.ConditionReady)
	d := r.fetch(r.machine, r.httpboot(8082), 4<<20, func(got int64) {
		if got > r.size/2 && op.running() {
			op.kill()
		}
	})
	require.Error(t, d.err, "the transfer must break, not end: %+v", d)
	require.Less(t, d.got, r.size)

	r.start("a", r.flags...)
	r.eventuallyDelivers(8082)
	r.condition("m", v1alpha1.ConditionUKIFetched)
}

// eventuallyDelivers waits until the whole UKI is delivered.
func (r *rack) eventuallyDelivers(port int) {
	r.t.Helper()
	var d delivery
	require.Eventually(r.t, func() bool {
		d = r.fetch(r.machine, r.httpboot(port), 0, nil)
		return d.complete(r.digest)
	}, time.Minute, 200*time.Millisecond, "last try: %+v", d)
}

func TestTwoReplicasThatRaceDeliverOnceInEveryAttempt(t *testing.T) {
	t.Parallel()
	r := newRack(t, 1<<20, v1alpha1.BootPolicyOnce)
	r.start("a", r.flags...)
	r.start("b", append(r.flags, "--boot-server-address=:9082")...)
	r.condition("m", v1alpha1.ConditionReady)
	for attempt := 1; attempt <= 5; attempt++ {
		r.attemptKnown(int64(attempt))
		var wg sync.WaitGroup
		results := make([]delivery, 8)
		for i := range results {
			wg.Go(func() { results[i] = r.fetch(r.machine, r.httpboot(8082+1000*(i%2)), 0, nil) })
		}
		wg.Wait()
		complete := 0
		for _, d := range results {
			if d.complete(r.digest) {
				complete++
			}
			require.LessOrEqual(t, d.got, r.size)
		}
		require.Equal(t, 1, complete, "attempt %d: %+v", attempt, results)
		for _, port := range []int{8082, 9082} {
			// A replica whose cache is behind begins, but cannot end.
			again := r.fetch(r.machine, r.httpboot(port), 0, nil)
			require.False(t, again.complete(r.digest), "%+v", again)
			r.served(r.machine, r.httpboot(port), 403)
		}
		config := r.configOf("m") // whose status may be written just now
		before := config.DeepCopy()
		config.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: fmt.Sprint(attempt)}
		require.NoError(t, r.client.Patch(context.Background(), config, client.MergeFrom(before)))
	}
}

// attemptKnown waits until the object and both replicas' caches know an attempt.
func (r *rack) attemptKnown(n int64) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		b := r.configOf("m").Status.Boot
		return b != nil && b.Attempt == n
	}, time.Minute, 50*time.Millisecond)
	for _, port := range []int{8082, 9082} {
		require.Eventually(r.t, func() bool { return r.head(port) == 200 }, time.Minute, 50*time.Millisecond)
	}
}

func (r *rack) head(port int) int {
	client := r.network.HTTPClient(r.machine)
	defer client.CloseIdleConnections()
	resp, err := client.Head(r.httpboot(port))
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// isCommit recognises the write that spends a Once.
func isCommit(r *http.Request, served func() bool) bool {
	return r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/httpbootconfigs/m/status") && served()
}

func TestKillOnEitherSideOfTheCommitNeverDeliversTwice(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"before", "after"} {
		t.Run(side, func(t *testing.T) {
			r := newRack(t, 1<<20, v1alpha1.BootPolicyOnce)
			op := r.start("a", r.flags...)
			r.condition("m", v1alpha1.ConditionReady)
			require.Eventually(t, func() bool { return r.head(8082) == 200 }, time.Minute, 50*time.Millisecond)
			killed := make(chan struct{})
			var once sync.Once
			die := func(*http.Request) { once.Do(func() { op.kill(); close(killed) }) }
			if side == "before" {
				r.api.at(func(req *http.Request) {
					if isCommit(req, func() bool { return true }) {
						die(req)
						panic(http.ErrAbortHandler) // the API server never gets it
					}
				}, nil)
			} else {
				r.api.at(nil, func(req *http.Request) {
					if isCommit(req, func() bool { return r.configOf("m").Status.Boot.Served != nil }) {
						die(req)
					}
				})
			}
			d := r.fetch(r.machine, r.httpboot(8082), 0, nil)
			require.False(t, d.complete(r.digest))
			require.LessOrEqual(t, d.got, r.size-boot.HeldBack, "the end waits for the commit")
			<-killed
			r.api.at(nil, nil)

			r.start("a", r.flags...)
			if side == "before" {
				require.Nil(t, r.configOf("m").Status.Boot.Served)
				r.eventuallyDelivers(8082)
			}
			r.served(r.machine, r.httpboot(8082), 403)
			require.NotNil(t, r.configOf("m").Status.Boot.Served)
		})
	}
}

func TestASpentOnceStaysSpentOverARestartWithoutTheAPIServer(t *testing.T) {
	t.Parallel()
	r := newRack(t, 1<<20, v1alpha1.BootPolicyOnce)
	op := r.start("a", r.flags...)
	r.condition("m", v1alpha1.ConditionReady)
	r.eventuallyDelivers(8082)
	r.api.Cut()
	require.Equal(t, 403, r.get(r.machine, r.httpboot(8082)).code, "spent, while the API server is away")
	op.kill()
	r.start("a", r.flags...)
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		d := r.fetch(r.machine, r.httpboot(8082), 0, nil)
		require.NotEqual(t, 200, d.code, "nothing is served before the API server said what is spent")
	}
	r.api.Restore()
	r.served(r.machine, r.httpboot(8082), 403)
}

func TestTransferOutlivesAnAPIOutage(t *testing.T) {
	t.Parallel()
	r := newRack(t, 16<<20, v1alpha1.BootPolicyAlways)
	op := r.start("a", append(r.flags, "--leader-elect")...)
	r.condition("m", v1alpha1.ConditionReady)
	pid := op.cmd.Process.Pid
	var cut, restored sync.Once
	var restore time.Time
	d := r.fetch(r.machine, r.httpboot(8082), 200<<10, func(got int64) { // 80 s
		if got > 1<<20 {
			cut.Do(func() { r.api.Cut(); restore = time.Now().Add(time.Minute) })
		}
		if !restore.IsZero() && time.Now().After(restore) {
			restored.Do(r.api.Restore)
		}
	})
	require.True(t, d.complete(r.digest), "%+v", d)
	require.Contains(t, op.log.String(), "leader election lost", "the outage did cost the lease")
	require.True(t, op.running())
	require.Equal(t, pid, op.cmd.Process.Pid)

	second := machineConfig("second", r.configOf("m").Spec.Image, r.network.Addr(51).String())
	second.Spec.SystemUUID = otherUUID
	r.create(r.ignition("second", ignitionFile("x")), second)
	r.condition("second", v1alpha1.ConditionReady) // it leads again
	r.condition("m", v1alpha1.ConditionUKIFetched) // and what it saw in the outage is not lost
}
