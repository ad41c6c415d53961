package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// boot runs a verb about machines.
func (r *rack) bootctl(args ...string) (code int, out, errs string) {
	r.t.Helper()
	return run(r.t, append(args, "--kubeconfig", r.path)...)
}

// config makes an HTTPBootConfig that is ready, with what a test adds to its status.
func (r *rack) config(name string, edit func(*v1alpha1.HTTPBootConfig)) *v1alpha1.HTTPBootConfig {
	r.t.Helper()
	c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: name}}
	c.Spec.NetworkIdentifiers = []string{"10.7.0." + strconv.Itoa(len(name))}
	c.Status.Conditions = []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Status: "True", Reason: v1alpha1.ReasonReady, LastTransitionTime: metav1.Now(), ObservedGeneration: 1},
		{Type: v1alpha1.ConditionIdentifiable, Status: "True", Reason: v1alpha1.ReasonIdentifiable, Message: "known by its address", LastTransitionTime: metav1.Now(), ObservedGeneration: 1},
	}
	opened := metav1.NowMicro()
	c.Status.Boot = &v1alpha1.BootStatus{Attempt: 1, OpenedTime: &opened, OpenedBy: "SpecChanged"}
	edit(c)
	status := c.Status.DeepCopy()
	require.NoError(r.t, r.api.Create(r.t.Context(), c))
	c.Status = *status
	require.NoError(r.t, r.api.Status().Update(r.t.Context(), c))
	return c
}

// change changes the status of a config as the operator does.
func (r *rack) change(name string, edit func(*v1alpha1.BootStatus)) {
	r.t.Helper()
	c := &v1alpha1.HTTPBootConfig{}
	require.NoError(r.t, r.api.Get(r.t.Context(), client.ObjectKey{Namespace: "machines", Name: name}, c))
	before := c.DeepCopy()
	edit(c.Status.Boot)
	require.NoError(r.t, r.api.Status().Patch(r.t.Context(), c, client.MergeFrom(before)))
}

func fetched(size, sent int64, complete bool) func(*v1alpha1.BootStatus) {
	return func(b *v1alpha1.BootStatus) {
		now := metav1.NowMicro()
		s := v1alpha1.BootStage{Name: "UKI", Attempt: b.Attempt, ClientAddress: "10.7.0.5", Proof: "Address", StartedTime: &now, Size: size, Sent: sent}
		if complete {
			s.CompletedTime = &now
		}
		b.Stages = []v1alpha1.BootStage{s}
	}
}

// obey plays the operator for the annotations of a config, until it is stopped.
func (r *rack) obey(name string) (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			c := &v1alpha1.HTTPBootConfig{}
			if r.api.Get(ctx, client.ObjectKey{Namespace: "machines", Name: name}, c) == nil {
				before, b := c.DeepCopy(), c.Status.Boot
				if request := c.Annotations[v1alpha1.RequestBootAnnotation]; request != b.Request {
					now := metav1.NowMicro()
					b.Request, b.Attempt, b.OpenedBy, b.OpenedTime = request, b.Attempt+1, "Requested", &now
				}
				if c.Annotations[v1alpha1.AbortBootAnnotation] == strconv.FormatInt(b.Attempt, 10) {
					b.Aborted = b.Attempt
				}
				_ = r.api.Status().Patch(ctx, c, client.MergeFrom(before))
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done }
}

// as writes a kubeconfig for somebody else.
func (r *rack) as(user string) string {
	config, err := clientcmd.LoadFromFile(r.path)
	require.NoError(r.t, err)
	for _, u := range config.AuthInfos {
		u.Impersonate = user
	}
	path := filepath.Join(r.t.TempDir(), user)
	require.NoError(r.t, clientcmd.WriteToFile(*config, path))
	return path
}

func TestTheVerbsThatTellOfMachinesOnACluster(t *testing.T) {
	r := newRack(t, func(r *rack) {
		code, out, errs := r.bootctl("status")
		require.Zero(t, code, errs)
		require.Empty(t, out)
		require.Contains(t, errs, "No machine in namespace machines", "a cluster without BareMetalHosts is no error")
	})
	for name, test := range map[string]func(*rack){
		"status": testStatus, "watch": testWatch, "watch ends": testWatchEnds, "explain": testExplain, "retry": testRetry, "abort": testAbort,
		"a paused machine": testPausedMachine, "who may not": testRights,
	} {
		t.Run(name, func(t *testing.T) { test(&rack{t: t, api: r.api, path: r.path}) })
	}
}

func testStatus(r *rack) {
	r.config("s-one", func(*v1alpha1.HTTPBootConfig) {})
	r.add("s-host", metal3.StateAvailable)
	code, out, errs := r.bootctl("status", "s-one", "s-host")
	require.Zero(r.t, code, errs)
	require.Regexp(r.t, `(?m)^s-host +Available `, out)
	require.Regexp(r.t, `(?m)^s-one +Waiting `, out)
	_, out, _ = r.bootctl("status", "-A", "-o", "json")
	var report statusReport
	require.NoError(r.t, json.Unmarshal([]byte(out), &report))
	require.GreaterOrEqual(r.t, len(report.Machines), 2)
	code, out, errs = r.bootctl("status", "--stuck", "s-one")
	require.Zero(r.t, code)
	require.Empty(r.t, out)
	require.Contains(r.t, errs, "None of 1 machines is stuck.")
	code, _, errs = r.bootctl("status", "s-onx")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "namespace machines has no machine s-onx (by name, UUID, MAC or IP address); it has s-one")
}

// lines is an output that another goroutine reads.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lines) expect(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(l.String(), text) }, 20*time.Second, 20*time.Millisecond, "%s in %s", text, l)
}

func testWatch(r *rack) {
	r.config("w-one", func(*v1alpha1.HTTPBootConfig) {})
	var out, errs lines
	done := make(chan int)
	go func() {
		done <- execute(r.t.Context(), []string{"watch", "w-one", "--until", "booted", "--timeout", "1m", "--kubeconfig", r.path}, &environment{In: strings.NewReader(""), Out: &out, Err: &errs})
	}()
	out.expect(r.t, "Waiting ")
	r.change("w-one", fetched(100, 12, false))
	out.expect(r.t, "FetchingUKI       12%")
	r.change("w-one", fetched(100, 77, false))
	out.expect(r.t, "FetchingUKI       77%")
	r.change("w-one", fetched(100, 100, true))
	require.Zero(r.t, <-done, errs.String())
	out.expect(r.t, "Booted ")
	require.Equal(r.t, 4, strings.Count(out.String(), "\n"), out.String())
	require.Empty(r.t, errs.String())
}

func testWatchEnds(r *rack) {
	r.config("e-one", func(*v1alpha1.HTTPBootConfig) {})
	code, out, errs := r.bootctl("watch", "e-one", "--until", "booted", "--timeout", "2s")
	require.Equal(r.t, exitTimeout, code)
	require.Contains(r.t, out, "Waiting ")
	require.Contains(r.t, errs, "not every machine is booted after 2s (--timeout)")
	code, _, errs = r.bootctl("watch", "e-one", "--timeout", "1s")
	require.Zero(r.t, code, errs)
	r.change("e-one", func(b *v1alpha1.BootStatus) { b.Aborted = 1 })
	code, _, errs = r.bootctl("watch", "e-one", "--until", "booted", "--timeout", "1m")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "machines/e-one is Aborted")
	code, _, errs = r.bootctl("watch", "e-one", "--until", "failed", "--timeout", "1m")
	require.Zero(r.t, code, errs)
}

func testExplain(r *rack) {
	c := r.config("x-one", func(*v1alpha1.HTTPBootConfig) {})
	r.change("x-one", fetched(100, 100, true))
	require.NoError(r.t, r.api.Create(r.t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "machines", Name: "x-one.1"},
		InvolvedObject: corev1.ObjectReference{Kind: "HTTPBootConfig", Namespace: "machines", Name: "x-one", UID: c.UID},
		Type:           corev1.EventTypeWarning, Reason: "BootInterfaceChanged", Message: "from here to there", LastTimestamp: metav1.Now(),
	}))
	for _, name := range []string{"x-one", "10.7.0.5"} {
		code, out, errs := r.bootctl("explain", name, "-n", "machines")
		if name != "x-one" && code != 0 { // others of this test have that address too
			require.Contains(r.t, errs, "is several machines")
			continue
		}
		require.Zero(r.t, code, errs)
		require.Contains(r.t, out, "Attempt 1 is opened: the spec changed.")
		require.Contains(r.t, out, "! BootInterfaceChanged: from here to there.")
		require.Contains(r.t, out, "All of its UKI was sent to 10.7.0.5: 100 B.")
	}
	code, out, errs := r.bootctl("explain", "x-one", "-n", "others", "-o", "json")
	require.Zero(r.t, code, "it is found in another namespace: %s", errs)
	var report explanationReport
	require.NoError(r.t, json.Unmarshal([]byte(out), &report))
	require.Equal(r.t, "machines", report.Machine.Namespace)
	require.Len(r.t, report.Entries, 3)
	code, _, errs = r.bootctl("explain", "x-onx")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "no machine x-onx")
}

func testRetry(r *rack) {
	r.config("r-one", func(c *v1alpha1.HTTPBootConfig) { c.Spec.BootPolicy = v1alpha1.BootPolicyOnce })
	r.change("r-one", func(b *v1alpha1.BootStatus) {
		b.Served = &v1alpha1.BootServed{Attempt: 1, Digest: "sha256:x", Delivery: "d", Time: metav1.NowMicro()}
	})
	stop := r.obey("r-one")
	code, _, errs := r.bootctl("boot", "retry", "r-one")
	require.Equal(r.t, exitUsage, code)
	require.Contains(r.t, errs, "another boot from the network installs the machine again. There is no terminal to ask on: say it with --yes")
	code, out, errs := r.bootctl("boot", "retry", "r-one", "--yes")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, out, "Attempt 2 of HTTPBootConfig machines/r-one is open")
	done := make(chan int)
	go func() {
		code, _, _ := r.bootctl("boot", "retry", "r-one", "--wait", "--timeout", "30s")
		done <- code
	}()
	require.Eventually(r.t, func() bool {
		c := &v1alpha1.HTTPBootConfig{}
		return r.api.Get(r.t.Context(), client.ObjectKey{Namespace: "machines", Name: "r-one"}, c) == nil && c.Status.Boot.Attempt == 3
	}, 20*time.Second, 50*time.Millisecond)
	stop()
	r.change("r-one", fetched(1, 1, true))
	require.Zero(r.t, <-done)

	r.config("r-driven", func(*v1alpha1.HTTPBootConfig) {})
	r.add("r-driven", metal3.StateProvisioned, booting("Always"))
	code, out, errs = r.bootctl("boot", "retry", "r-driven")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, out, "The operator boots host machines/r-driven once more; to follow it: bootctl watch r-driven -n machines")
	require.NotEmpty(r.t, r.get("r-driven").Annotations[v1alpha1.HostRequestBootAnnotation])
}

func testAbort(r *rack) {
	r.config("a-one", func(*v1alpha1.HTTPBootConfig) {})
	defer r.obey("a-one")()
	code, _, errs := r.bootctl("boot", "abort", "a-one")
	require.Equal(r.t, exitUsage, code)
	require.Contains(r.t, errs, "Machine machines/a-one is Waiting. Nothing more is delivered to it after this")
	code, out, errs := r.bootctl("boot", "abort", "a-one", "-y")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, out, "Attempt 1 of HTTPBootConfig machines/a-one is aborted. To boot it again: bootctl boot retry a-one -n machines")
	code, out, _ = r.bootctl("boot", "abort", "a-one", "-y")
	require.Zero(r.t, code)
	require.Contains(r.t, out, "was aborted before")
	_, out, _ = r.bootctl("status", "a-one")
	require.Contains(r.t, out, "Aborted ")
}

func testPausedMachine(r *rack) {
	r.config("p-one", func(c *v1alpha1.HTTPBootConfig) {
		c.Annotations = map[string]string{v1alpha1.PausedAnnotation: ""}
	})
	for _, verb := range []string{"retry", "abort"} {
		code, _, errs := r.bootctl("boot", verb, "p-one", "-y")
		require.Equal(r.t, exitFailure, code)
		require.Contains(r.t, errs, "machine machines/p-one is paused: nothing is done for it until the annotation boot.ironcore.dev/paused is removed from its HTTPBootConfig")
	}
	r.add("p-bare", metal3.StateAvailable)
	code, _, errs := r.bootctl("boot", "retry", "p-bare", "--wait=false")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "names nothing to boot")
}

// Who may read configs and nothing else is told of those; who may read nothing, whom to
// ask.
func testRights(r *rack) {
	r.config("q-one", func(*v1alpha1.HTTPBootConfig) {})
	path := r.as("nobody")
	for _, args := range [][]string{{"status"}, {"watch", "--timeout", "5s"}, {"explain", "q-one"}, {"boot", "retry", "q-one"}} {
		code, out, errs := run(r.t, append(args, "--kubeconfig", path, "-n", "machines")...)
		require.Equal(r.t, exitFailure, code, args)
		require.Empty(r.t, out)
		require.Contains(r.t, errs, "you may not list HTTPBootConfigs and IPXEBootConfigs in namespace machines: ask for the ClusterRole view")
	}
	_, _, errs := run(r.t, "status", "-A", "--kubeconfig", path)
	require.Contains(r.t, errs, "in all namespaces: name one by -n")

	allow := func(name string, rules ...rbacv1.PolicyRule) {
		c := r.api
		require.NoError(r.t, rbacv1.AddToScheme(c.Scheme()))
		require.NoError(r.t, c.Create(r.t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: name}, Rules: rules}))
		require.NoError(r.t, c.Create(r.t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "viewer", APIGroup: rbacv1.GroupName}},
		}))
	}
	allow("viewer", rbacv1.PolicyRule{APIGroups: []string{"boot.ironcore.dev"}, Resources: []string{"httpbootconfigs", "ipxebootconfigs"}, Verbs: []string{"get", "list", "watch"}})
	path = r.as("viewer")
	var code int
	var out string
	require.Eventually(r.t, func() bool { // the authorizer learns of it by its own watch
		code, out, errs = run(r.t, "status", "q-one", "--kubeconfig", path, "-n", "machines")
		return code == 0
	}, 10*time.Second, 100*time.Millisecond)
	require.Contains(r.t, out, "q-one ")
	require.Contains(r.t, errs, "BareMetalHosts are left out: you may not list BareMetalHosts in namespace machines")
	code, out, errs = run(r.t, "explain", "q-one", "--kubeconfig", path, "-n", "machines")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, out, "Attempt 1 is opened")
	require.Contains(r.t, errs, "Events are left out: you may not list events")
	code, out, errs = run(r.t, "watch", "q-one", "--timeout", "2s", "--kubeconfig", path, "-n", "machines")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, out, "Waiting ")
	code, _, errs = run(r.t, "boot", "retry", "q-one", "--kubeconfig", path, "-n", "machines")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "you may not patch HTTPBootConfigs in namespace machines: ask for the ClusterRole edit")
}
