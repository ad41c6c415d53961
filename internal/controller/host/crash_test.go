package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// crash ends the controller right before, or right after, the nth of its writes to
// the API server and to the BMC, as kill -9 does.
type crash struct {
	at    int64
	after bool

	count atomic.Int64
	dead  atomic.Bool
	kill  context.CancelFunc
	what  atomic.Value
}

var errCrashed = errors.New("the process is gone")

// around does something, unless the process is gone.
func (c *crash) around(what string, do func()) error {
	if c.dead.Load() {
		return errCrashed
	}
	n := c.count.Add(1)
	if n == c.at && !c.after {
		c.end(what)
		return errCrashed
	}
	do()
	if n == c.at {
		c.end(what)
		return errCrashed
	}
	return nil
}

func (c *crash) end(what string) {
	c.what.Store(what)
	c.dead.Store(true)
	c.kill()
}

// crashing is the way of the controller's requests to the API server.
type crashing struct {
	*crash
	next http.RoundTripper
}

func (c crashing) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	if r.Method == http.MethodGet {
		if c.dead.Load() {
			return nil, errCrashed
		}
		return c.next.RoundTrip(r)
	}
	if gone := c.around(r.Method+" "+r.URL.Path, func() { resp, err = c.next.RoundTrip(r) }); gone != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return nil, gone
	}
	return resp, err
}

// between is the same for its requests to a BMC.
func (c *crash) between(current func() *crash) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && !current().dead.Load() { // changes nothing: to end there is to end after the last write
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			if current().around(r.Method+" "+r.URL.Path, func() { next.ServeHTTP(answer, r) }) != nil {
				panic(http.ErrAbortHandler)
			}
			for k, v := range answer.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes())
		})
	}
}

// life is one host that is provisioned over a crash.
type life struct {
	*fixture
	name    string
	machine *machine
	host    *metal3.BareMetalHost
	present atomic.Pointer[crash]
}

// begin is a new process: it knows nothing.
func (l *life) begin(c *crash) (*reconciler, context.Context) {
	ctx, cancel := context.WithCancel(l.t.Context())
	c.kill = cancel
	l.present.Store(c)
	config := rest.CopyConfig(l.operator)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return crashing{c, next} })
	scheme, mapper, err := kinds()
	require.NoError(l.t, err)
	live, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	require.NoError(l.t, err)
	o := l.options
	o.Recorder = events.NewFakeRecorder(1000)
	o.BMCs = redfish.New(redfish.Options{Limits: redfish.Limits{PerSecond: 5000, BreakFor: 10 * time.Millisecond}})
	require.NoError(l.t, o.complete())
	return newReconciler(o, live), ctx
}

// visit visits the host until it is as wanted, or the process is gone.
func (l *life) visit(ctx context.Context, r *reconciler, done func(*metal3.BareMetalHost) bool) error {
	for end := time.Now().Add(deadline); ctx.Err() == nil; {
		res, _ := r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(l.host)})
		h := l.host.DeepCopy()
		if err := l.client.Get(l.t.Context(), client.ObjectKeyFromObject(h), h); err != nil {
			return err
		}
		if done(h) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s never came to an end: %+v", l.name, h.Status)
		}
		pause := time.NewTimer(max(min(res.RequeueAfter, 20*time.Millisecond), time.Millisecond))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
	return nil
}

func settled(h *metal3.BareMetalHost) bool {
	return h.Status.Provisioning.State == metal3.StateProvisioned && h.Status.ErrorMessage == "" && h.Status.PoweredOn
}

// crashes provisions one host for each moment at which the process can end, and
// checks each.
func crashes(t *testing.T, f *fixture, prepare func(*machine, *metal3.BareMetalHost), check func(l *life) error) {
	t.Helper()
	const workers = 6
	var next, ended atomic.Int64
	var group sync.WaitGroup
	ended.Store(1 << 30)
	f.secret("user-data", map[string]string{"value": "#cloud-config\n"})
	for range workers {
		group.Go(func() {
			for {
				k := next.Add(1)
				if k > ended.Load() || t.Failed() {
					return
				}
				c := &crash{at: (k + 1) / 2, after: k%2 == 0}
				l := &life{fixture: f, name: fmt.Sprintf("n%d", k)}
				err := l.run(c, prepare, check)
				what, crashed := c.what.Load().(string)
				if err != nil {
					t.Errorf("ended %s request %d, %s: %v\n%v", map[bool]string{false: "before", true: "after"}[c.after], c.at, what, err, f.bmcText(l.name))
				}
				if !crashed && k < ended.Load() {
					ended.Store(k)
				}
			}
		})
	}
	group.Wait()
	require.Greater(t, ended.Load(), int64(30), "the moments were found")
	t.Logf("the process was ended at %d moments", ended.Load()-1)
}

func (l *life) run(c *crash, prepare func(*machine, *metal3.BareMetalHost), check func(*life) error) error {
	l.present.Store(c)
	start := time.Now()
	l.machine = l.newMachine(l.name, bmcOptions{
		between: c.between(l.present.Load),
		// So that LastResetTime, which has whole seconds, tells two resets apart.
		change: func(o *bmcsim.Options) { o.Now = func() time.Time { return start.Add(200 * time.Since(start)) } },
	})
	l.host = &metal3.BareMetalHost{}
	l.host.Namespace, l.host.Name = l.ns, l.name
	l.host.Spec.BMC = metal3.BMCDetails{Address: l.machine.address(), CredentialsName: l.name + "-bmc"}
	withAddress(l.host)
	boots(ukiImage)(l.host)
	withUserData("user-data")(l.host)
	prepare(l.machine, l.host)
	l.secret(l.name+"-bmc", map[string]string{"username": username, "password": password})
	l.create(l.host)

	r, ctx := l.begin(c)
	if err := l.visit(ctx, r, settled); err != nil {
		return err
	}
	r, ctx = l.begin(&crash{})
	if err := l.visit(ctx, r, settled); err != nil {
		return err
	}
	for range 10 { // and it stays so
		if _, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(l.host)}); err != nil {
			return err
		}
	}
	if err := l.visit(ctx, r, settled); err != nil {
		return err
	}
	all := l.children(l.host)
	served, secrets := l.site.count(l.name)
	switch record := all.record(); {
	case len(all) != 1:
		return fmt.Errorf("it has %d configs", len(all))
	case !delivered(record) || record.PinnedBy != "" || record.Try != 1:
		return fmt.Errorf("its record is %+v", record)
	case served != 1 || secrets != 1:
		return fmt.Errorf("it was served %d times, and %d secrets", served, secrets)
	}
	return check(l)
}

func TestAnOperatorThatDiesAnywhereBootsTheMachineOnce(t *testing.T) {
	f := newFixture(t)
	crashes(t, f, func(*machine, *metal3.BareMetalHost) {}, func(l *life) error {
		if got := strings.Join(l.machine.executed(), " "); got != "On" {
			return fmt.Errorf("the machine was switched by %s", got)
		}
		return nil
	})
}

func TestAnOperatorThatDiesAnywhereResetsAMachineThatMustStayOnOnce(t *testing.T) {
	f := newFixture(t)
	crashes(t, f, func(m *machine, h *metal3.BareMetalHost) {
		require.NoError(t, m.bmc.PressPower())
		h.Spec.DisablePowerOff = true
	}, func(l *life) error {
		if got := strings.Join(l.machine.executed(), " "); got != "On ForceRestart" {
			return fmt.Errorf("the machine was switched by %s", got)
		}
		return nil
	})
}

// What is tried above must be able to fail: a record that is lost is a second boot.
func TestABootWhoseRecordIsLostIsRepeated(t *testing.T) {
	f := newFixture(t)
	f.secret("user-data", map[string]string{"value": "#cloud-config\n"})
	l := &life{fixture: f, name: "n1"}
	err := l.run(&crash{}, func(*machine, *metal3.BareMetalHost) {}, func(l *life) error {
		for _, c := range l.children(l.host) {
			require.NoError(t, f.client.Delete(t.Context(), c))
		}
		h := l.host.DeepCopy()
		f.reread(h)
		h.Status.Provisioning.State = metal3.StateProvisioning
		require.NoError(t, f.client.Status().Update(t.Context(), h))
		r, ctx := l.begin(&crash{})
		if err := l.visit(ctx, r, settled); err != nil {
			return err
		}
		if l.machine.powerOns() == 1 {
			return errors.New("it was not booted again")
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, v1alpha1.NetworkBootDelivered, f.record(l.host).Step)
}
