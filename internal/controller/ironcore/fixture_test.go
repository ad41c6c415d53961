package ironcore

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	controlplane.Main(m)
}

const (
	ukiImage  = "registry.example.com/os/uki:1"
	pxeImage  = "registry.example.com/os/pxe:1"
	bothImage = "registry.example.com/os/both:1"

	serverUUID = "00112233-4455-6677-8899-aabbccddeeff"
	deadline   = time.Minute

	isTrue    = metav1.ConditionTrue
	isFalse   = metav1.ConditionFalse
	isUnknown = metav1.ConditionUnknown

	sbcReady   = metalv1alpha1.ServerBootConfigurationStateReady
	sbcPending = metalv1alpha1.ServerBootConfigurationStatePending
	sbcError   = metalv1alpha1.ServerBootConfigurationStateError
)

// metalCRDs is where metal-operator's own CRDs are.
func metalCRDs(t *testing.T) envtest.CRDInstallOptions {
	t.Helper()
	options, err := controlplane.MetalCRDs()
	require.NoError(t, err)
	options.MaxTime = deadline
	return options
}

type fixture struct {
	t        *testing.T
	ns       string
	client   client.Client
	operator *rest.Config
	requests atomic.Int64 // for metal-operator's kinds
	scheme   *runtime.Scheme
	registry *registry
	options  Options
}

// newFixture is a namespace of its own on the shared API server, which knows
// metal-operator's kinds. Nothing runs yet.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	plane := controlplane.Shared(t)
	_, err := envtest.InstallCRDs(plane.Config, metalCRDs(t))
	require.NoError(t, err)
	return fixtureOn(t, plane)
}

func fixtureOn(t *testing.T, plane *controlplane.ControlPlane) *fixture {
	t.Helper()
	f := &fixture{t: t, ns: controlplane.Namespace(t, plane.Config), scheme: runtime.NewScheme(), registry: newRegistry()}
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, eventsv1.AddToScheme, rbacv1.AddToScheme, v1alpha1.AddToScheme, metalv1alpha1.AddToScheme} {
		require.NoError(t, add(f.scheme))
	}
	var err error
	f.client, err = client.New(plane.Config, client.Options{Scheme: f.scheme})
	require.NoError(t, err)
	f.options = Options{
		Controllers: []string{ControllerHTTP, ControllerPXE}, Resolver: f.registry,
		ResolveInterval: time.Hour, RetryInterval: 50 * time.Millisecond, DiscoveryInterval: 100 * time.Millisecond,
	}
	f.operator = f.user(plane)
	t.Cleanup(f.clean)
	return f
}

// user may do what the markers in this package ask for.
func (f *fixture) user(plane *controlplane.ControlPlane) *rest.Config {
	f.t.Helper()
	name := "operator-" + f.ns
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"metal.ironcore.dev"}, Resources: []string{"servers", "serverbootconfigurations"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"metal.ironcore.dev"}, Resources: []string{"serverbootconfigurations/status"}, Verbs: []string{"get", "update", "patch"}},
		{APIGroups: []string{"boot.ironcore.dev"}, Resources: []string{"httpbootconfigs", "ipxebootconfigs"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}}
	f.create(role, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	})
	user, err := plane.AddUser(name)
	require.NoError(f.t, err)
	user.Wrap(func(next http.RoundTripper) http.RoundTripper { return counter{next, &f.requests} })
	return user
}

// counter counts what is asked of metal-operator's kinds, but for whether they
// are there.
type counter struct {
	http.RoundTripper
	n *atomic.Int64
}

func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/metal.ironcore.dev/v1alpha1/") {
		c.n.Add(1)
	}
	return c.RoundTripper.RoundTrip(r)
}

// clean removes what the next test's operator would look after.
func (f *fixture) clean() {
	ctx := context.Background()
	for _, o := range []client.Object{&metalv1alpha1.ServerBootConfiguration{}, &v1alpha1.HTTPBootConfig{}, &v1alpha1.IPXEBootConfig{}} {
		_ = f.client.DeleteAllOf(ctx, o, client.InNamespace(f.ns))
	}
	_ = f.client.DeleteAllOf(ctx, &metalv1alpha1.Server{}, client.MatchingLabels{"test": f.ns})
}

// run starts a manager, as a user with no more rights than it needs and with
// nothing but our own kinds in its scheme, and returns what ends it.
func (f *fixture) run(change ...func(*Options)) (stop func()) {
	f.t.Helper()
	o := f.options
	for _, c := range change {
		c(&o)
	}
	scheme := runtime.NewScheme()
	require.NoError(f.t, v1alpha1.AddToScheme(scheme))
	again := true
	mgr, err := ctrl.NewManager(f.operator, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Controller: ctrlconfig.Controller{SkipNameValidation: &again, CacheSyncTimeout: o.CacheSyncTimeout},
	})
	require.NoError(f.t, err)
	require.NoError(f.t, Setup(mgr, o))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		select {
		case err := <-done:
			f.t.Error("the manager ended by itself:", err)
			return
		default:
		}
		cancel()
		select {
		case err := <-done:
			if err != nil {
				f.t.Error("manager:", err)
			}
		case <-time.After(deadline):
			f.t.Error("the manager does not end")
		}
	})
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) create(all ...client.Object) {
	f.t.Helper()
	for _, o := range all {
		require.NoError(f.t, f.client.Create(f.t.Context(), o))
	}
}

func (f *fixture) name(s string) string { return f.ns + "-" + s }

// server makes a Server as metal-operator does: its status comes later.
func (f *fixture) server(name, uuid string, change ...func(*metalv1alpha1.Server)) *metalv1alpha1.Server {
	f.t.Helper()
	s := &metalv1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Name: f.name(name), Labels: map[string]string{"test": f.ns}}}
	s.Spec.SystemUUID = uuid
	f.create(s)
	f.status(s, func() {
		s.Status.State = metalv1alpha1.ServerStateReserved
		s.Status.NetworkInterfaces = []metalv1alpha1.NetworkInterface{{
			Name: "eth0", MACAddress: "52-54-00-AA-BB-01", IPs: []metalv1alpha1.IP{metalv1alpha1.NewIP(netip.MustParseAddr("10.0.0.5"))},
		}}
		for _, c := range change {
			c(s)
		}
	})
	return s
}

// configuration makes a ServerBootConfiguration for a Server of this fixture.
func (f *fixture) configuration(name, server, image string, change ...func(*metalv1alpha1.ServerBootConfiguration)) *metalv1alpha1.ServerBootConfiguration {
	f.t.Helper()
	c := &metalv1alpha1.ServerBootConfiguration{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name}}
	c.Spec.ServerRef.Name = f.name(server)
	c.Spec.Image = image
	for _, ch := range change {
		ch(c)
	}
	f.create(c)
	return c
}

func (f *fixture) refer(s *metalv1alpha1.Server, name string) {
	f.t.Helper()
	f.update(s, func() {
		s.Spec.BootConfigurationRef = &metalv1alpha1.ObjectReference{Namespace: f.ns, Name: name}
	})
}

func (f *fixture) reread(o client.Object) {
	f.t.Helper()
	require.NoError(f.t, f.client.Get(f.t.Context(), client.ObjectKeyFromObject(o), o))
}

// update changes an object, again while somebody else does so too.
func (f *fixture) update(o client.Object, change func()) {
	f.t.Helper()
	f.again(o, change, func() error { return f.client.Update(f.t.Context(), o) })
}

func (f *fixture) status(o client.Object, change func()) {
	f.t.Helper()
	f.again(o, change, func() error { return f.client.Status().Update(f.t.Context(), o) })
}

func (f *fixture) again(o client.Object, change func(), write func() error) {
	f.t.Helper()
	for {
		f.reread(o)
		change()
		err := write()
		if apierrors.IsConflict(err) {
			continue
		}
		require.NoError(f.t, err)
		return
	}
}

// poll waits for a condition.
func (f *fixture) poll(what func() string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatal(what())
		}
	}
}

// shows waits for a configuration's state and the reason and status of a
// condition, both for the present generation.
func (f *fixture) shows(c *metalv1alpha1.ServerBootConfiguration, state metalv1alpha1.ServerBootConfigurationState, condition string, status metav1.ConditionStatus, reason string) *metav1.Condition {
	f.t.Helper()
	var got *metav1.Condition
	f.poll(func() string {
		return fmt.Sprintf("%s never was %s with %s=%s/%s: %+v", c.Name, state, condition, status, reason, c.Status)
	}, func() bool {
		f.reread(c)
		got = meta.FindStatusCondition(c.Status.Conditions, condition)
		return c.Status.State == state && got != nil && got.Status == status && got.Reason == reason && got.ObservedGeneration == c.Generation
	})
	return got
}

func httpOf(c *metalv1alpha1.ServerBootConfiguration) *v1alpha1.HTTPBootConfig {
	return &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}}
}

func ipxeOf(c *metalv1alpha1.ServerBootConfiguration) *v1alpha1.IPXEBootConfig {
	return &v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}}
}

// made waits for a child and what is true of it.
func (f *fixture) made(c child, ok func() bool) {
	f.t.Helper()
	f.poll(func() string { return fmt.Sprintf("%s %s never was as it should: %+v", c.Kind(), c.GetName(), c) }, func() bool {
		return f.has(c) && ok()
	})
}

func (f *fixture) exists(c child) {
	f.t.Helper()
	f.made(c, func() bool { return true })
}

func (f *fixture) has(c child) bool {
	f.t.Helper()
	err := f.client.Get(f.t.Context(), client.ObjectKeyFromObject(c), c)
	if !apierrors.IsNotFound(err) {
		require.NoError(f.t, err)
	}
	return err == nil
}

func (f *fixture) gone(c child) {
	f.t.Helper()
	f.poll(func() string { return fmt.Sprintf("%s %s never went", c.Kind(), c.GetName()) }, func() bool { return !f.has(c) })
}

// says plays controller/bootconfig: it writes a child's status for a generation.
func (f *fixture) says(c child, generation int64, state v1alpha1.State, conditions ...metav1.Condition) {
	f.t.Helper()
	f.status(c, func() {
		s := c.ConfigStatus()
		s.State, s.ObservedGeneration = state, generation
		for _, cond := range conditions {
			cond.Message, cond.LastTransitionTime, cond.ObservedGeneration = "told by the child", metav1.Now(), generation
			meta.SetStatusCondition(&s.Conditions, cond)
		}
	})
}

func (f *fixture) ready(c child) {
	f.t.Helper()
	f.exists(c)
	f.says(c, c.GetGeneration(), v1alpha1.StateReady, metav1.Condition{Type: "Ready", Status: isTrue, Reason: "Ready"})
}

// quiet waits until an object has not been written to for a while.
func (f *fixture) quiet(o client.Object) {
	f.t.Helper()
	version, since := "", time.Now()
	f.poll(func() string { return o.GetName() + " never was left alone" }, func() bool {
		f.reread(o)
		if o.GetResourceVersion() != version {
			version, since = o.GetResourceVersion(), time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
}

// events returns the types of an object's events by reason.
func (f *fixture) events(name string) map[string]string {
	f.t.Helper()
	var list eventsv1.EventList
	require.NoError(f.t, f.client.List(f.t.Context(), &list, client.InNamespace(f.ns)))
	out := map[string]string{}
	for _, e := range list.Items {
		if e.Regarding.Name == name && e.Regarding.Kind == "ServerBootConfiguration" {
			out[e.Reason] = e.Type
		}
	}
	return out
}
