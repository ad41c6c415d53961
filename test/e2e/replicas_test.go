package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	many "github.com/boot-operator/boot-operator/test/fleet" // another fleet is of hosts
)

const (
	// machines is how many boot at once, each every fifteen seconds.
	machines = 300
	// calm is how long nothing is done to replicas: longer than every machine's cycle.
	calm = 17 * time.Second
)

// drill does things to replicas while machines boot.
type drill struct {
	*many.Fleet
	t    *testing.T
	load *many.Load
}

// newDrill builds a fleet whose replicas are up and whose machines may boot.
func newDrill(t *testing.T, o many.Options) *drill {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: machines connect from addresses of 127.0.0.0/8, which only Linux has")
	}
	bin, err := build()
	require.NoError(t, err)
	o.Dir, o.Binary = t.TempDir(), filepath.Join(bin, "boot-operator")
	f, err := many.New(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = f.Close()
		for _, r := range f.Replicas {
			if t.Failed() {
				t.Logf("log of replica %s:\n%s", r.Name, tail(&r.Log, 6000))
			}
		}
	})
	d := &drill{Fleet: f, t: t}
	require.NoError(t, f.Up(t.Context(), f.Replicas...))
	require.NoError(t, f.AwaitConfigs(t.Context()))
	return d
}

// wait waits while machines boot.
func (d *drill) wait(t time.Duration) {
	select {
	case <-time.After(t):
	case <-d.t.Context().Done():
	}
}

// report prints a phase's figures, and checks what holds in all of them.
func (d *drill) report(p *many.Phase) many.Tally {
	d.t.Helper()
	t := d.load.Tally(p)
	d.t.Logf("FIGURE fleet-%d-%s: %.1f s, %d booted (%.1f per second; %d Once, %d by token, %d of them through another replica than told it, %d with a new key), %d failed (%d unreached, %d closed, %d cut, %d refused, %d without Ignition), %d statuses late, Ignition asked again %d times",
		machines, p.Name, t.Duration.Seconds(), t.Booted, t.PerSecond(), t.Once, t.ByToken, t.Crossed, t.NewKey,
		len(t.Failed), t.Of(many.ErrUnreached), t.Of(many.ErrClosed), t.Of(many.ErrCut), t.Of(many.ErrRefused), t.Of(many.ErrNoIgnition), len(t.Untold), t.Again)
	d.t.Logf("  requests to the API server: %v", t.Requests)
	for _, failed := range t.Failed[:min(5, len(t.Failed))] {
		d.t.Logf("  %s", failed)
	}
	for _, untold := range t.Untold[:min(5, len(t.Untold))] {
		d.t.Logf("  late: %v", untold)
	}
	require.Zero(d.t, t.Of(many.ErrForeign), "no machine ever gets another's bytes: %v", t.Failed)
	require.Zero(d.t, t.Of(many.ErrAnswer), "every answer is one that firmware takes: %v", t.Failed)
	return t
}

// undisturbed checks that every boot of a phase was complete.
func (d *drill) undisturbed(p *many.Phase) {
	d.t.Helper()
	t := d.load.Tally(p)
	if t.Duration >= calm {
		require.Positive(d.t, t.Booted, p.Name)
	}
	require.Empty(d.t, t.Failed, "failed boots in phase %s", p.Name)
}

// busy waits until so many connections lead to a replica: some are in the middle of a
// body.
func (d *drill) busy(r *many.Replica, connections int64) {
	d.t.Helper()
	require.NoError(d.t, d.Await(d.t.Context(), "replica "+r.Name+" serves", func() bool { return d.Balancer().Connections(r.Name) >= connections }))
}

// caughtUp waits until a replica is told of changes by the API server again.
func (d *drill) caughtUp(replicas ...*many.Replica) {
	d.t.Helper()
	for _, r := range replicas {
		require.NoError(d.t, d.Await(d.t.Context(), "replica "+r.Name+" watches again", r.Gate.Watching))
	}
	d.wait(2 * time.Second)
}

// restartEach drains one replica after the other, and starts each again.
func (d *drill) restartEach(connections int64, more ...string) {
	d.t.Helper()
	for _, r := range d.Replicas {
		d.busy(r, connections)
		ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
		took, err := r.Drain(ctx)
		cancel()
		require.NoError(d.t, err)
		d.t.Logf("replica %s was drained in %.1f s", r.Name, took.Seconds())
		require.NoError(d.t, r.Start(more...))
		require.NoError(d.t, d.Up(d.t.Context(), r))
	}
}

// other is a replica that is not this one.
func (d *drill) other(than *many.Replica) *many.Replica {
	for _, r := range d.Replicas {
		if r != than {
			return r
		}
	}
	return nil
}

// leader is the replica that leads now.
func (d *drill) leader() *many.Replica {
	d.t.Helper()
	leader, err := d.AwaitLeader(d.t.Context())
	require.NoError(d.t, err)
	return leader
}

// Three replicas behind a balancer that speaks PROXY protocol: 300 machines boot
// continuously, each checked to get its own bytes, while replicas are drained, killed,
// restarted and cut from the API server. It runs alone, for its figures.
func TestThreeReplicasServeThreeHundredMachinesWhateverHappensToReplicas(t *testing.T) {
	d := newDrill(t, many.Options{Machines: machines, Flags: []string{"--drain-delay=2s", "--drain-timeout=20s"}})
	first, err := d.TokenKeys(t.Context())
	require.NoError(t, err)
	require.Len(t, first, 1)
	second := make([]byte, 32)
	_, _ = rand.Read(second)
	require.NoError(t, d.RotateTo(t.Context(), map[string][]byte{"key-1": first["key-1"], "key-2": second}))

	d.load = d.Begin(t.Context(), "calm")
	d.wait(calm)
	d.anyReplicaAnswers()
	d.drainEach()
	d.killInTheMiddle()
	d.killLeader()
	d.cutOne()
	d.outage()
	d.rotated(first, second)
	d.load.End()
	for _, p := range d.load.Phases() {
		if p.Rough == 0 {
			d.report(p)
		}
	}
	for _, p := range d.load.Phases() {
		if p.Rough == 0 {
			d.undisturbed(p)
		}
	}
	d.everyStatusTells()
}

// anyReplicaAnswers sends each connection to another replica: attempts and tokens work
// whichever answers.
func (d *drill) anyReplicaAnswers() {
	d.t.Helper()
	defer d.WithoutAffinity(d.t.Context())()
	p := d.load.Phase("without-affinity", 0)
	d.wait(calm)
	require.Positive(d.t, d.load.Tally(p).Crossed, "URLs with tokens that another replica told")
}

func (d *drill) drainEach() {
	d.t.Helper()
	d.load.Phase("rolling-drain", 0)
	d.restartEach(5)
}

// killInTheMiddle kills a replica that does not lead while it sends images: the boots
// are lost, and the machines boot at the next try.
func (d *drill) killInTheMiddle() {
	d.t.Helper()
	r := d.other(d.leader())
	p := d.load.Phase("kill", 1)
	d.busy(r, 8)
	r.Kill()
	d.wait(time.Second) // machines that come now go to the others
	require.NoError(d.t, d.Up(d.t.Context(), r))
	d.wait(calm / 2)
	tally := d.report(p)
	require.NotEmpty(d.t, tally.Failed, "a replica was killed in the middle of bodies")
	require.Positive(d.t, tally.Booted)
}

// killLeader kills the replica that leads: another one does within the time of a
// lease, and opens attempts again.
func (d *drill) killLeader() {
	d.t.Helper()
	old := d.leader()
	p := d.load.Phase("leader-killed", 1)
	d.busy(old, 5)
	old.Kill()
	leader := d.leader()
	require.NotSame(d.t, old, leader)
	before := d.load.Tally(p).Once
	require.NoError(d.t, d.Up(d.t.Context(), old))
	require.NoError(d.t, d.Await(d.t.Context(), "machines that are installed once boot again", func() bool { return d.load.Tally(p).Once > before }))
	d.wait(calm) // every machine has booted at its own replica again
	d.report(p)
}

// cutOne cuts a replica that does not lead from the API server: its machines boot from
// its cache, but for those that are installed once.
func (d *drill) cutOne() {
	d.t.Helper()
	r := d.other(d.leader())
	p := d.load.Phase("one-cut-off", 2)
	r.Gate.Cut()
	d.wait(calm)
	r.Gate.Restore()
	d.caughtUp(r)
	d.bootFromCache(d.report(p))
}

// outage cuts all replicas from the API server.
func (d *drill) outage() {
	d.t.Helper()
	p := d.load.Phase("outage", 3)
	for _, r := range d.Replicas {
		r.Gate.Cut()
	}
	cut := d.load.Phase("outage-under-way", 3)
	d.wait(calm + 5*time.Second)
	under := d.load.Tally(cut)
	for _, r := range d.Replicas {
		r.Gate.Restore()
	}
	back := d.load.Phase("after-outage", 2)
	d.leader()
	d.caughtUp(d.Replicas...)
	require.Zero(d.t, under.OnceBegun, "without the API server nothing is delivered once")
	require.Greater(d.t, under.Booted, machines/2, "machines boot from cache")
	for _, phase := range []*many.Phase{p, cut, back} {
		d.bootFromCache(d.report(phase))
	}
}

// bootFromCache checks that no machine failed that needs nothing of the API server: one
// that is installed once does, and one whose URL was told by a replica that knew of a
// newer attempt; that is answered with 503, which says that it may be right.
func (d *drill) bootFromCache(t many.Tally) {
	d.t.Helper()
	for _, failed := range t.Failed {
		if failed.Machine.ByToken {
			require.ErrorIs(d.t, failed.Err, many.ErrRefused, "%s", failed)
			continue
		}
		require.Equal(d.t, v1alpha1.BootPolicyOnce, failed.Machine.Policy, "%s", failed)
	}
}

// rotated waits until every replica signs with the second key, and takes the first one
// away.
func (d *drill) rotated(first map[string][]byte, second []byte) {
	d.t.Helper()
	d.load.Phase("rotating", 0)
	for _, r := range d.Replicas {
		var last error
		deadline := time.Now().Add(3 * time.Minute)
		for {
			key, err := d.SigningKey(d.t.Context(), r)
			if err == nil && key == 2 {
				break
			}
			last = errors.Join(err)
			require.False(d.t, time.Now().After(deadline), "replica %s does not sign with the new key: %v", r.Name, last)
			d.wait(200 * time.Millisecond)
		}
	}
	d.wait(2 * time.Second) // tokens of the first key are used at once
	require.NotEqual(d.t, first["key-1"], second)
	require.NoError(d.t, d.RotateTo(d.t.Context(), map[string][]byte{"key-2": second}))
	p := d.load.Phase("rotated", 0)
	d.wait(calm)
	tally := d.load.Tally(p)
	require.Positive(d.t, tally.ByToken)
	require.InDelta(d.t, tally.ByToken, tally.NewKey, 3, "tokens are of the new key")
}

// everyStatusTells boots every machine once more: all do, and each status tells of it.
func (d *drill) everyStatusTells() {
	d.t.Helper()
	p := d.load.Phase("last", 0)
	d.load.Last(d.t.Context())
	d.report(p)
	d.undisturbed(p)
	require.Equal(d.t, machines, d.load.Tally(p).Booted)
	require.NoError(d.t, d.load.Told(d.t.Context()))
}

// Without PROXY protocol every machine has the balancer's address: the test above must
// see that.
func TestWithoutPROXYProtocolMachinesAreNotThemselves(t *testing.T) {
	d := newDrill(t, many.Options{Machines: 20, Replicas: 1, Plain: true, Cycle: 10 * time.Second})
	d.load = d.Begin(t.Context(), "plain")
	plain := d.load.Phases()[0]
	d.wait(calm)
	tally := d.load.Tally(plain)
	require.Zero(t, tally.Booted)
	require.Positive(t, tally.Of(many.ErrRefused), "nobody is at the balancer's address: %v", tally.Failed)

	require.NoError(t, d.Declare(t.Context(), "the-balancer", netip.MustParseAddr("127.0.0.1")))
	listed := d.load.Phase("the balancer's address is listed", 0)
	d.wait(calm)
	d.load.End()
	tally = d.load.Tally(listed)
	require.Zero(t, tally.Booted)
	require.Positive(t, tally.Of(many.ErrForeign), "machines are given what is another's: %v", tally.Failed)
}

// Without draining a restart costs boots: the test above must see that.
func TestWithoutDrainingARollingRestartFailsBoots(t *testing.T) {
	d := newDrill(t, many.Options{Machines: 100, Flags: []string{"--drain-delay=0s", "--drain-timeout=0s"}, Cycle: 10 * time.Second})
	d.load = d.Begin(t.Context(), "rolling-restart")
	p := d.load.Phases()[0]
	d.restartEach(3)
	d.load.End()
	require.NotEmpty(t, d.load.Tally(p).Failed)
}
