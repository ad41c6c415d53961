package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
)

// reaper ends the operator at one side effect: before the server has the request,
// or after it has executed it, and the answer is lost.
type reaper struct {
	mu    sync.Mutex
	op    *operator
	at    int    // the side effect, counted from 1
	part  string // or the first one that has this in it
	after bool
	count int
	what  string // the side effect at which the operator was ended
	log   []string
	ended chan struct{}
}

// strike counts a side effect, and says whether it is the one.
func (r *reaper) strike(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.log = append(r.log, what)
	if r.what != "" || r.part == "" && r.count != r.at || r.part != "" && !strings.Contains(what, r.part) {
		return false
	}
	r.what = what
	return true
}

func (r *reaper) kill() {
	r.op.kill()
	close(r.ended)
	panic(http.ErrAbortHandler)
}

// changes says whether a request has a side effect that counts here: what the
// controller of hosts writes. (The delivery's own commit has tests of its own.)
func (r *reaper) changes(q *http.Request) bool {
	return q.Method != http.MethodGet && q.Method != http.MethodHead && q.URL.Query().Get("fieldManager") == "boot-operator-host"
}

// api is the gate's hook on one side of the API server.
func (r *reaper) api(after bool) func(*http.Request) {
	return func(q *http.Request) {
		if r.after == after && r.changes(q) && r.strike(q.Method+" "+q.URL.Path) {
			r.kill()
		}
	}
}

// bmc puts the reaper between the operator and a BMC.
func (r *reaper) bmc(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		counts := q.Method != http.MethodGet && q.Method != http.MethodHead
		if counts && !r.after && r.strike("BMC "+q.Method+" "+q.URL.Path) {
			r.kill()
		}
		if !counts || !r.after {
			inner.ServeHTTP(w, q)
			return
		}
		inner.ServeHTTP(discarded{http.Header{}}, q)
		if r.strike("BMC " + q.Method + " " + q.URL.Path) {
			r.kill()
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// discarded is an answer that nobody gets.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header         { return d.header }
func (d discarded) Write(p []byte) (int, error) { return len(p), nil }
func (d discarded) WriteHeader(int)             {}

// post is how long a machine tests itself before it boots: a hundredth of the real
// time, and long enough for what follows its power-on.
const post = time.Second

// firmware boots what a BMC told a machine, as UEFI and an operating system do,
// from an address of its own; it counts what it got whole.
type firmware struct {
	s      *site
	addr   netip.Addr
	boots  chan string // URLs
	mu     sync.Mutex
	loaded int
}

func (s *site) firmware(addr netip.Addr) *firmware {
	return &firmware{s: s, addr: addr, boots: make(chan string, 16)}
}

// run boots until ctx ends.
func (f *firmware) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case url := <-f.boots:
			time.Sleep(post)
			f.boot(ctx, url)
		}
	}
}

// boot asks until it is answered: the operator may be ended just now, and firmware
// with its retries and an impatient user's reset are not what is tested here.
func (f *firmware) boot(ctx context.Context, url string) {
	if f.fetch(ctx, http.MethodHead, url) && f.fetch(ctx, http.MethodGet, url) {
		f.mu.Lock()
		f.loaded++
		f.mu.Unlock()
		f.fetch(ctx, http.MethodGet, f.s.url("/ignition"))
	}
}

func (f *firmware) fetch(ctx context.Context, method, url string) bool {
	c := f.s.network.HTTPClient(f.addr)
	defer c.CloseIdleConnections()
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		q, err := http.NewRequestWithContext(ctx, method, url, nil)
		if err != nil {
			return false
		}
		a, err := c.Do(q)
		if err != nil {
			continue
		}
		_, err = io.Copy(io.Discard, a.Body)
		_ = a.Body.Close()
		if err == nil && a.StatusCode == http.StatusOK {
			return true
		}
	}
	return false
}

// crash is one host's way to provisioned, with an operator that is ended once.
type crash struct {
	*site
	t     *testing.T
	ca    *lab.CA
	image string
	flags []string
}

// run provisions a host and returns the reaper; nobody was ended where there are
// fewer side effects. Where part is not empty, that and not n says which one counts.
func (c *crash) run(n int, part string, after bool) *reaper {
	name := fmt.Sprintf("m%d-%t", n, after)
	r := &reaper{at: n, part: part, after: after, ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel()
	f := c.firmware(c.network.Addr(100))
	go f.run(ctx)
	machine := bmcsim.NewMemoryMachine(func(next bmcsim.NextBoot) {
		if next.Kind == bmcsim.KindHTTP {
			f.boots <- next.URL
		}
	})
	b := c.memoryBMC(c.ca.ServerConfig("127.0.0.1"), r.bmc, bmcsim.Options{Machine: machine, UUID: fmt.Sprintf("00112233-4455-6677-8899-%012x", 2*n+1)})

	r.op = c.start("a", c.flags...)
	c.api.at(r.api(false), r.api(true))
	c.create(c.userDataIgnition(name, name),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name + "-bmc"}, StringData: map[string]string{"username": bmcUser, "password": bmcPassword}})
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace}}
	h.Spec.BMC = metal3.BMCDetails{Address: b.address, CredentialsName: name + "-bmc"}
	h.Spec.Online, h.Spec.Image = true, &metal3.Image{URL: "oci://" + c.image}
	h.Spec.UserData = &corev1.SecretReference{Name: name}
	require.NoError(c.t, c.client.Create(c.t.Context(), h))
	c.follow(name, r)
	last := c.host(name)
	require.Equal(c.t, 1, b.switched(), "%s: exactly one boot: %+v\n%s", r.where(), b.Resets(), strings.Join(r.log, "\n"))
	require.Equal(c.t, 1, f.loaded, "%s: exactly one installation", r.where())
	require.Equal(c.t, metal3.StateProvisioned, last.Status.Provisioning.State, r.where())
	c.remove(r, last)
	return r
}

// follow waits until the host is provisioned, and starts another operator when the
// first was ended.
func (c *crash) follow(name string, r *reaper) {
	c.t.Helper()
	done := make(chan struct{})
	go func() {
		select {
		case <-r.ended:
			r.op = c.start("a", c.flags...)
		case <-done:
		}
	}()
	c.hostWhere(name, "provisioned "+r.where(), func(h *metal3.BareMetalHost) bool {
		return h.Status.Provisioning.State == metal3.StateProvisioned
	})
	close(done)
}

// remove ends the operator and forgets the host, for the next run.
func (c *crash) remove(r *reaper, h *metal3.BareMetalHost) {
	c.api.at(nil, nil)
	r.op.kill()
	require.NoError(c.t, c.client.Patch(c.t.Context(), h, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))))
	require.NoError(c.t, c.client.Delete(c.t.Context(), h))
	config := machineConfig(h.Name, "")
	config.Namespace = c.namespace
	require.NoError(c.t, client.IgnoreNotFound(c.client.Delete(c.t.Context(), config)))
}

func (r *reaper) where() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	side := "before"
	if r.after {
		side = "after"
	}
	return fmt.Sprintf("ended %s side effect %d (%s)", side, r.at, r.what)
}

// The operator is ended (kill -9) before and after every side effect of one host's
// provisioning: what it writes to the API server, what it asks of the BMC. Whatever
// the moment, the machine is switched on once and installed once.
func TestAKilledOperatorBootsABareMetalHostExactlyOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installMetal3()
	registry := s.registry()
	uki, err := demoimage.Greeting("amd64", "small")
	require.NoError(t, err)
	c := &crash{site: s, t: t, ca: lab.NewCA(t, "bmcs"), image: registry.publish("os/lab", "1", map[string][]byte{"amd64": uki})}
	require.NoError(t, os.WriteFile(s.bmcCA(), c.ca.PEM, 0o600))
	c.flags = []string{
		"--plain-http-registries=" + registry.host, "--baremetalhost-mode=drive", "--bmc-ca-file=" + s.bmcCA(),
		"--bmc-power-interval=1s", s.pinning(),
	}
	s.network.AddAddress(s.network.Addr(100))
	var all []string
	n := 1
	for ; ; n++ {
		before, after := c.run(n, "", false), c.run(n, "", true)
		all = append(all, before.what)
		if before.what == "" || after.what == "" {
			break
		}
	}
	// How many writes come before one that matters differs from run to run: one that was
	// never the n-th is looked for by its name.
	for _, part := range []string{"Actions/ComputerSystem.Reset", "BMC PATCH", "/baremetalhosts/", "/httpbootconfigs/"} {
		if slices.ContainsFunc(all, func(what string) bool { return strings.Contains(what, part) }) {
			continue
		}
		n++
		for _, after := range []bool{false, true} {
			r := c.run(n, part, after)
			require.Contains(t, r.what, part, "is among the side effects: %v", r.log)
		}
	}
	t.Logf("%d side effects: %s", len(all)-1, strings.Join(all, "\n"))
}
