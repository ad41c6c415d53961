package observe

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

const childJob = "BOOT_OPERATOR_OBSERVE_CHILD"

// TestMain also runs the child processes that tests kill.
func TestMain(m *testing.M) {
	if job := os.Getenv(childJob); job != "" {
		if err := child(job); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	controlplane.Main(m)
}

// job is what a child does: it delivers once, as the HTTP server would.
type job struct {
	URL, Dir, Delivery string
	Plan               boot.Plan
	// Report makes it report instead, and wait to be killed.
	Report bool
}

func child(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	c, err := apiClient(&rest.Config{Host: j.URL, QPS: -1})
	if err != nil {
		return err
	}
	o, err := New(Options{Client: c, Reader: c, Dir: j.Dir, Logger: logr.Discard()})
	if err != nil {
		return err
	}
	a, err := o.Begin(&j.Plan, boot.Client{Addr: addrA, Proof: boot.Address})
	if err != nil {
		return err
	}
	if j.Report {
		o.Observe(boot.Observation{Object: j.Plan.Object, Attempt: a.Number, Stage: boot.StageUKI, Complete: true,
			Addr: addrA, Proof: boot.Address, Digest: digestA, Time: time.Now()})
		fmt.Println("reported")
		select {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := o.Commit(ctx, &j.Plan, a, digestA, addrA, j.Delivery); err != nil {
		return err
	}
	// The parent may kill before it acknowledges a line.
	in := bufio.NewReader(os.Stdin)
	for _, m := range []moment{committed, delivered} {
		fmt.Println(m)
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
	}
	return nil
}

func apiClient(config *rest.Config) (client.Client, error) {
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: s})
}

// api is a namespace on a real API server.
type api struct {
	t         *testing.T
	config    *rest.Config
	client    client.Client
	namespace string
}

func newAPI(t *testing.T) *api {
	t.Helper()
	config := controlplane.Start(t)
	config.QPS = -1
	c, err := apiClient(config)
	require.NoError(t, err)
	return &api{t: t, config: config, client: c, namespace: controlplane.Namespace(t, config)}
}

// machine creates a config, whose first attempt is open.
func (a *api) machine(name string, policy v1alpha1.BootPolicy) *v1alpha1.HTTPBootConfig {
	a.t.Helper()
	cfg := &v1alpha1.HTTPBootConfig{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: a.namespace},
		Spec:       v1alpha1.HTTPBootConfigSpec{NetworkIdentifiers: []string{"10.0.0.5"}, BootPolicy: policy},
	}
	require.NoError(a.t, a.client.Create(context.Background(), cfg))
	require.NoError(a.t, a.replica(a.client).Open(context.Background(), cfg))
	return a.get(name)
}

func (a *api) get(name string) *v1alpha1.HTTPBootConfig {
	a.t.Helper()
	cfg := &v1alpha1.HTTPBootConfig{}
	require.NoError(a.t, a.client.Get(context.Background(), client.ObjectKey{Namespace: a.namespace, Name: name}, cfg))
	return cfg
}

// replica returns an observer that does nothing in the background.
func (a *api) replica(c client.Client) *Observer {
	a.t.Helper()
	o, err := New(Options{Client: c, Reader: c, Dir: a.t.TempDir(), Logger: logr.Discard()})
	require.NoError(a.t, err)
	a.t.Cleanup(func() { _ = o.Close() })
	return o
}

// run starts the background of a replica.
func (a *api) run(o *Observer) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = o.Run(ctx) }()
	a.t.Cleanup(func() { cancel(); <-done })
}

func TestAPIExactlyOneOfHundredsOfCommits(t *testing.T) {
	a := newAPI(t)
	for round := range 5 {
		cfg := a.machine(fmt.Sprint("m", round), v1alpha1.BootPolicyOnce)
		var replicas []*Observer
		for range 2 {
			c, err := apiClient(a.config)
			require.NoError(t, err)
			replicas = append(replicas, a.replica(c))
		}
		won := race(t, replicas, planOf(cfg), 200)
		require.Len(t, won, 1)
		require.Equal(t, won[0], a.get(cfg.Name).Status.Boot.Served.Delivery)
	}
}

// The negative control of the race: without the resourceVersion two replicas
// that read before either wrote would both be told that they were first.
func TestAPIWithoutTheGuardTwoWouldWin(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyOnce)
	o := a.replica(a.client)
	write := func(delivery string, guarded bool) error {
		next := stateOf(cfg)
		require.NoError(t, next.commit(commitment{attempt: next.attempt(), digest: digestA, addr: addrA, delivery: delivery}, time.Now()))
		read := stateOf(cfg).cfg
		if !guarded {
			read.SetResourceVersion("")
		}
		return o.write(context.Background(), read, next)
	}
	require.NoError(t, write("d1", true))
	require.ErrorIs(t, write("d2", true), errConflict)
	require.Equal(t, "d1", a.get("m").Status.Boot.Served.Delivery)
	require.NoError(t, write("d2", false), "this is what the guard is for")
	require.Equal(t, "d2", a.get("m").Status.Boot.Served.Delivery)
}

func TestAPICommitOnARecreatedObject(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyOnce)
	o := a.replica(a.client)
	require.NoError(t, a.client.Delete(context.Background(), a.get("m")))
	require.ErrorIs(t, o.Commit(context.Background(), planOf(cfg), planOf(cfg).Attempt, digestA, addrA, "d1"), boot.ErrNotFound)
	a.machine("m", v1alpha1.BootPolicyOnce)
	require.ErrorIs(t, o.Commit(context.Background(), planOf(cfg), planOf(cfg).Attempt, digestA, addrA, "d1"), boot.ErrNotFound)
	require.Nil(t, a.get("m").Status.Boot.Served)
}

// The controller and two replicas write one status at the same time; nobody
// loses anything.
func TestAPIManagersKeepApart(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyAlways)
	replicas := []*Observer{a.replica(a.client), a.replica(a.client)}
	for _, o := range replicas {
		a.run(o)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if err := a.applyAsController("m", fmt.Sprint("round ", i)); err != nil {
				t.Error(err)
			}
		})
	}
	p := planOf(cfg)
	for i := range 40 {
		wg.Go(func() {
			o := replicas[i%2]
			o.Observe(boot.Observation{Object: p.Object, Attempt: 1, Stage: []boot.Stage{boot.StageUKI, boot.StageIgnition, boot.StageAmbiguous}[i%3],
				Complete: i > 20, Addr: addrA, Proof: boot.Address, Digest: digestA, Time: time.Now()})
		})
	}
	wg.Wait()
	for _, o := range replicas {
		eventually(t, "reports written", func() bool { return o.journal.pending() == 0 })
	}
	require.NoError(t, a.applyAsController("m", "the last"))
	live := a.get("m")
	require.Equal(t, "the last", condition(t, live, v1alpha1.ConditionReady).Message)
	require.Equal(t, metav1.ConditionTrue, condition(t, live, v1alpha1.ConditionUKIFetched).Status)
	require.Equal(t, metav1.ConditionTrue, condition(t, live, v1alpha1.ConditionIgnitionDataFetched).Status)
	require.Equal(t, metav1.ConditionTrue, condition(t, live, v1alpha1.ConditionClientAddressAmbiguous).Status)
	require.Len(t, live.Status.Artifacts, 1)
	require.Len(t, live.Status.Boot.Stages, 2)
	managers := map[string]bool{}
	for _, m := range live.ManagedFields {
		managers[m.Manager+" "+m.Subresource] = true
	}
	require.True(t, managers[FieldManager+" status"])
	require.True(t, managers["boot-operator status"])
}

func (a *api) applyAsController(name, message string) error {
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{
		"state": "Ready", "observedGeneration": int64(1),
		"artifacts": []any{map[string]any{"role": "UKI", "digest": string(digestA), "size": int64(1)}},
		"conditions": []any{map[string]any{"type": v1alpha1.ConditionReady, "status": "True", "reason": "Ready",
			"message": message, "lastTransitionTime": "2026-03-01T12:00:00Z"}},
	}}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindHTTPBootConfig))
	u.SetNamespace(a.namespace)
	u.SetName(name)
	return a.client.Status().Apply(context.Background(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("boot-operator"), client.ForceOwnership)
}

// arm writes what a BMC was told, as the manager that speaks to it does; 0 takes
// it back.
func (a *api) arm(name string, attempt int64) {
	a.t.Helper()
	status := map[string]any{}
	if attempt > 0 {
		status["boot"] = map[string]any{"armed": map[string]any{"attempt": attempt}}
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": status}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.KindHTTPBootConfig))
	u.SetNamespace(a.namespace)
	u.SetName(name)
	require.NoError(a.t, a.client.Status().Apply(context.Background(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("bmc")))
}

// What the BMC was told is not the observer's: it neither owns it nor brings it
// back, and whoever wrote it needs no force.
func TestAPIWhatTheBMCWasToldIsLeftAlone(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyAlways)
	o := a.replica(a.client)
	p := planOf(cfg)
	write := func(stage boot.Stage) {
		o.Observe(boot.Observation{Object: p.Object, Attempt: 1, Stage: stage, Complete: true, Addr: addrA, Proof: boot.BMC, Time: time.Now()})
		require.NoError(t, o.update(context.Background(), p.Object, nil))
	}
	a.arm("m", 1)
	require.True(t, planOf(a.get("m")).Attempt.Armed)
	write(boot.StageAmbiguous)
	require.EqualValues(t, 1, a.get("m").Status.Boot.Armed.Attempt)
	a.arm("m", 2)
	write(boot.StageUKI)
	require.EqualValues(t, 2, a.get("m").Status.Boot.Armed.Attempt)
	for _, m := range a.get("m").ManagedFields {
		if m.Manager == FieldManager {
			require.NotContains(t, m.FieldsV1.GetRawString(), "f:armed")
			require.Contains(t, m.FieldsV1.GetRawString(), "f:stages")
		}
	}
	a.arm("m", 0)
	require.Nil(t, a.get("m").Status.Boot.Armed)
	write(boot.StageIgnition)
	live := a.get("m")
	require.Nil(t, live.Status.Boot.Armed)
	require.Len(t, live.Status.Boot.Stages, 2, "and nothing of ours went with it")
}

// Nothing that comes from the network may make the API server refuse the rest.
func TestAPIWhateverTheNetworkSaysIsAccepted(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyAlways)
	o := a.replica(a.client)
	long := strings.Repeat("\x00\n<\xff\u202eé", 1000)
	for _, stage := range []boot.Stage{boot.StageUKI, boot.StageCloudInit, boot.StageOffer, boot.StageForeignOffer, boot.StageNoProgram, boot.StagePortChanged} {
		o.Observe(boot.Observation{Object: refOf(cfg), Attempt: 1, Stage: stage, Complete: true, Proof: boot.Relay, Time: time.Now(),
			Addr: netip.MustParseAddr("fe80::1%eth0"), MAC: boot.MAC(long), Firmware: long, Detail: long,
			Port: boot.RelayPort{Relay: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), Circuit: long, Remote: long}})
	}
	require.NoError(t, o.update(context.Background(), refOf(cfg), nil))
	require.Zero(t, o.journal.pending())
	live := a.get("m")
	b := live.Status.Boot
	require.NotEmpty(t, b.RelayPort.CircuitID)
	require.NotEmpty(t, b.Offer.Firmware)
	require.Equal(t, "Relay", findStage(b.Stages, "CloudInit").Proof)
	require.Equal(t, metav1.ConditionTrue, condition(t, live, v1alpha1.ConditionForeignBootOffer).Status)
	require.Equal(t, metav1.ConditionTrue, condition(t, live, v1alpha1.ConditionCloudInitFetched).Status)
	require.Equal(t, o.Current(planOf(cfg)).Port, planOf(live).Attempt.Port, "the object says what is known here")
	require.Equal(t, boot.Relay, planOf(live).Attempt.BootProof)
}

// The HEAD of one boot reaches one replica, its GET the other.
func TestAPIReplicasOpenOneAttemptForOneBoot(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyAlways)
	replicas := []*Observer{a.replica(a.client), a.replica(a.client)}
	for _, o := range replicas {
		a.run(o)
	}
	p := planOf(cfg)
	for n := int64(2); n <= 4; n++ {
		p.Attempt.BootServedAt = time.Now() // the boot before this one was complete
		var wg sync.WaitGroup
		for _, o := range replicas {
			wg.Go(func() {
				got, err := o.Begin(p, boot.Client{Addr: addrA, Proof: boot.Address})
				if err != nil || got.Number != n {
					t.Errorf("attempt %d, %v", got.Number, err)
				}
			})
		}
		wg.Wait()
		for _, o := range replicas {
			eventually(t, "reports written", func() bool { return o.journal.pending() == 0 })
		}
		cfg = a.get("m")
		require.Equal(t, n, cfg.Status.Boot.Attempt)
		p = planOf(cfg)
	}
}

func TestAPIBothKindsInAboutASecond(t *testing.T) {
	a := newAPI(t)
	o := a.replica(a.client)
	a.run(o)
	ipxe := &v1alpha1.IPXEBootConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "i", Namespace: a.namespace},
		Spec:       v1alpha1.IPXEBootConfigSpec{KernelURL: "http://h/k", InitrdURL: "http://h/i"},
	}
	require.NoError(t, a.client.Create(context.Background(), ipxe))
	require.NoError(t, o.Open(context.Background(), ipxe))
	start := time.Now()
	o.Observe(boot.Observation{Object: refOf(ipxe), Attempt: 1, Stage: boot.StageIPXEScript, Complete: true, Addr: addrA, Proof: boot.Claimed, Time: time.Now()})
	eventually(t, "reports written", func() bool { return o.journal.pending() == 0 })
	t.Logf("written after %s", time.Since(start).Round(time.Millisecond))
	require.Less(t, time.Since(start), 3*time.Second)
	require.NoError(t, a.client.Get(context.Background(), client.ObjectKeyFromObject(ipxe), ipxe))
	require.Equal(t, metav1.ConditionTrue, condition(t, ipxe, v1alpha1.ConditionIPXEScriptFetched).Status)
	require.False(t, o.Current(planOf(ipxe)).BootServedAt.IsZero(), "for iPXE the script is what is booted")
}

func TestAPINewAttemptForgetsWhoFetchedTheSecret(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyOnce)
	o := a.replica(a.client)
	a.run(o)
	p := planOf(cfg)
	require.NoError(t, o.Commit(context.Background(), p, p.Attempt, digestA, addrA, "d1"))
	for _, stage := range []boot.Stage{boot.StageUKI, boot.StageIgnition} {
		o.Observe(boot.Observation{Object: p.Object, Attempt: 1, Stage: stage, Complete: true, Addr: addrA, Proof: boot.Address, Time: time.Now()})
	}
	eventually(t, "reports written", func() bool { return o.journal.pending() == 0 })
	live := a.get("m")
	require.Equal(t, "10.0.0.5", live.Status.Boot.SecretAddress)
	require.ErrorIs(t, o.Current(planOf(live)).Admit(addrB, time.Now()), boot.ErrContested)

	live.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: "2"}
	require.NoError(t, a.client.Update(context.Background(), live))
	require.NoError(t, o.Open(context.Background(), live))
	live = a.get("m")
	require.Empty(t, live.Status.Boot.SecretAddress)
	require.Equal(t, v1alpha1.ReasonNewAttempt, condition(t, live, v1alpha1.ConditionUKIFetched).Reason)
	require.EqualValues(t, 1, live.Status.Boot.Served.Attempt, "the last delivery stays readable")
	got := o.Current(p)
	require.False(t, got.Spent)
	require.NoError(t, got.Admit(addrB, time.Now()))
	require.ErrorIs(t, o.Commit(context.Background(), p, p.Attempt, digestA, addrA, "late"), boot.ErrClosed,
		"a delivery that began before may not consume it")
	require.NoError(t, o.Commit(context.Background(), p, got, digestA, addrA, "d2"))
}

// The API server takes requests and does not answer: the connection is there,
// and nothing tells whether the write came through.
func TestAPIAnAnswerThatHangs(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyOnce)
	release := make(chan struct{})
	var hung atomic.Bool
	p := newProxy(t, a.config, func(m moment) bool {
		if m == writeAnswered && !hung.Swap(true) {
			<-release
		}
		return true
	})
	defer close(release)
	c, err := apiClient(&rest.Config{Host: p.url, QPS: -1})
	require.NoError(t, err)
	o := a.replica(c)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	require.NoError(t, o.Commit(ctx, planOf(cfg), planOf(cfg).Attempt, digestA, addrA, "d1"), "the commit is known again in time")
	require.True(t, hung.Load())
	require.Equal(t, "d1", a.get("m").Status.Boot.Served.Delivery)
}

func TestAPIAServerThatHangs(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyOnce)
	release := make(chan struct{})
	p := newProxy(t, a.config, func(moment) bool { <-release; return true })
	defer close(release)
	c, err := apiClient(&rest.Config{Host: p.url, QPS: -1})
	require.NoError(t, err)
	o := a.replica(c)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, o.Commit(ctx, planOf(cfg), planOf(cfg).Attempt, digestA, addrA, "d1"), boot.ErrUnavailable)
	start := time.Now()
	_, err = o.Refresh(context.Background(), planOf(cfg))
	require.ErrorIs(t, err, boot.ErrUnavailable)
	require.Less(t, time.Since(start), refreshTimeout+time.Second)
	o.Observe(boot.Observation{Object: refOf(cfg), Attempt: 1, Stage: boot.StageUKI, Addr: addrA, Time: time.Now()})
	require.Less(t, time.Since(start), refreshTimeout+time.Second, "reporting waits for nobody")
}

// deliver runs a child and kills it at one moment, "" for never. It returns how
// often the child handed over the last bytes (0 or 1) and what it said last.
func (a *api) deliver(cfg *v1alpha1.HTTPBootConfig, dir, delivery string, killAt moment) (int, string) {
	a.t.Helper()
	var process atomic.Pointer[os.Process]
	kill := func(m moment) bool {
		if m != killAt {
			return true
		}
		_ = process.Load().Kill()
		return false
	}
	started := make(chan struct{})
	p := newProxy(a.t, a.config, func(m moment) bool { <-started; return kill(m) })
	text, err := json.Marshal(job{URL: p.url, Dir: dir, Delivery: delivery, Plan: *planOf(cfg)})
	require.NoError(a.t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childJob+"="+string(text))
	in, err := cmd.StdinPipe()
	require.NoError(a.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(a.t, err)
	require.NoError(a.t, cmd.Start())
	process.Store(cmd.Process)
	close(started)
	count, last := 0, ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		last = lines.Text()
		if moment(last) == delivered {
			count++
		}
		if kill(moment(last)) {
			_, _ = in.Write([]byte("\n"))
		}
	}
	_ = cmd.Wait()
	return count, last
}

func TestAPIKilledAroundTheCommit(t *testing.T) {
	a := newAPI(t)
	moments := []struct {
		at    moment
		spent bool
	}{
		{readArrives, false}, {readAnswered, false}, {writeArrives, false},
		{writeInFlight, true}, {writeAnswered, true}, {committed, true}, {delivered, true}, {"", true},
	}
	for i, m := range moments {
		t.Run(string("killed when "+m.at), func(t *testing.T) {
			a := &api{t: t, config: a.config, client: a.client, namespace: a.namespace}
			cfg := a.machine(fmt.Sprint("m", i), v1alpha1.BootPolicyOnce)
			dir := t.TempDir()
			first, said := a.deliver(cfg, dir, "d1", m.at)
			if m.at == writeInFlight {
				eventually(t, "the write of the dead process arrives", func() bool { return a.get(cfg.Name).Status.Boot.Served != nil })
			}
			require.Equal(t, m.spent, a.get(cfg.Name).Status.Boot.Served != nil, said)
			// The next process, its cache as old as can be.
			second, said := a.deliver(cfg, dir, "d2", "")
			require.LessOrEqual(t, first+second, 1, "never twice")
			if m.spent {
				require.Contains(t, said, boot.ErrSpent.Error())
			} else {
				require.Equal(t, 1, second, said)
			}
		})
	}
}

// Two replicas race for one delivery, each killed wherever it happens to be;
// then a third comes.
func TestAPITwoReplicasKilledAnywhere(t *testing.T) {
	a := newAPI(t)
	moments := []moment{readArrives, readAnswered, writeArrives, writeInFlight, writeAnswered, committed, delivered, ""}
	random := rand.New(rand.NewPCG(3, 4))
	total := 0
	for round := range 12 {
		cfg := a.machine(fmt.Sprint("m", round), v1alpha1.BootPolicyOnce)
		var wg sync.WaitGroup
		var count atomic.Int64
		for replica := range 2 {
			at, dir := moments[random.IntN(len(moments))], t.TempDir()
			wg.Go(func() {
				n, _ := a.deliver(cfg, dir, fmt.Sprint("d", replica), at)
				count.Add(int64(n))
			})
		}
		wg.Wait()
		n, said := a.deliver(cfg, t.TempDir(), "late", "")
		require.LessOrEqual(t, int(count.Load())+n, 1, "never twice")
		served := a.get(cfg.Name).Status.Boot.Served
		require.NotNil(t, served, "an unspent delivery is had by the third process")
		require.Equal(t, served.Delivery == "late", n == 1, "and only then: %s", said)
		total += int(count.Load()) + n
	}
	require.Positive(t, total)
}

func TestAPIReportsOfAKilledProcessInAnOutage(t *testing.T) {
	a := newAPI(t)
	cfg := a.machine("m", v1alpha1.BootPolicyAlways)
	p := newProxy(t, a.config, nil)
	p.away.Store(true)
	dir := t.TempDir()
	plan := planOf(cfg)
	plan.Attempt.BootServedAt = time.Now() // so that this boot is the next attempt
	text, err := json.Marshal(job{URL: p.url, Dir: dir, Plan: *plan, Report: true})
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childJob+"="+string(text))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "reported\n", line)
	require.NoError(t, cmd.Process.Kill()) // at once: nothing was synced yet
	_ = cmd.Wait()

	c, err := apiClient(&rest.Config{Host: p.url, QPS: -1})
	require.NoError(t, err, "a client is made without the API server")
	o, err := New(Options{Client: c, Reader: c, Dir: dir, Logger: logr.Discard(), MaxBackoff: 200 * time.Millisecond})
	require.NoError(t, err)
	defer o.Close() //nolint:errcheck // the test is over
	a.run(o)
	require.EqualValues(t, 2, o.Current(plan).Number, "the next process knows while the API server is away")
	before := p.refused.Load()
	eventually(t, "a try failed", func() bool { return p.refused.Load() > before })
	require.Equal(t, 1, o.journal.pending())
	p.away.Store(false)
	start := time.Now()
	eventually(t, "reports written", func() bool { return o.journal.pending() == 0 })
	t.Logf("written %s after the outage", time.Since(start).Round(time.Millisecond))
	live := a.get("m")
	require.EqualValues(t, 2, live.Status.Boot.Attempt)
	require.Equal(t, metav1.ConditionTrue, condition(t, live, v1alpha1.ConditionUKIFetched).Status)
}
