package bootconfig

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/phase"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestMain(m *testing.M) { controlplane.Main(m) }

const (
	imageTag   = "registry.example.com/os/image:1"
	ukiDigest  = boot.Digest("sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	newDigest  = boot.Digest("sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
	deadline   = 20 * time.Second
	validJSON  = `{"ignition":{"version":"3.4.0"}}`
	brokenJSON = "{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":{\"files\":[{\"path\":\"relative\"}]}}"
)

// fakeStore is a registry and a store. Its knobs are what a reference is
// resolved to, what fails, and whether pulls hang.
type fakeStore struct {
	mu       sync.Mutex
	images   map[string]artifact.Image
	fails    map[string]error // by reference, URL or digest
	urls     map[string]boot.Digest
	has      map[boot.Digest]bool
	resolved map[string]int
	pulls    map[boot.Digest]int
	auths    []string
	hang     map[boot.Digest]chan struct{}
	gaveUp   int
}

func newStore() *fakeStore {
	s := &fakeStore{
		images: map[string]artifact.Image{}, fails: map[string]error{}, urls: map[string]boot.Digest{}, has: map[boot.Digest]bool{},
		resolved: map[string]int{}, pulls: map[boot.Digest]int{}, hang: map[boot.Digest]chan struct{}{},
	}
	s.publish(imageTag, ukiDigest)
	return s
}

// publish makes a reference an image with one UKI.
func (s *fakeStore) publish(reference string, d boot.Digest) {
	s.set(func() {
		source := "registry.example.com/os/image@" + string(d)
		s.images[reference] = artifact.Image{Source: source, Name: "registry.example.com/os/image", Artifacts: []boot.Artifact{{Role: boot.RoleUKI, Digest: d, Size: 4096, Source: source}}}
	})
}

func (s *fakeStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// hangPull makes pulls of d hang until the returned function is called.
func (s *fakeStore) hangPull(d boot.Digest) func() {
	c := make(chan struct{})
	s.set(func() { s.hang[d] = c })
	return sync.OnceFunc(func() { close(c) })
}

func (s *fakeStore) Resolve(_ context.Context, reference string, arch boot.Architecture, auth artifact.Credentials) (artifact.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resolved[reference]++
	s.auths = append(s.auths, auth.String())
	if err := s.fails[reference]; err != nil {
		return artifact.Image{}, fmt.Errorf("resolving %s for %s: %w", reference, arch, err)
	}
	return s.images[reference], nil
}

func (s *fakeStore) Pull(ctx context.Context, a boot.Artifact, _ artifact.Credentials) error {
	s.mu.Lock()
	hang := s.hang[a.Digest]
	s.mu.Unlock()
	if hang != nil {
		select {
		case <-ctx.Done():
			s.set(func() { s.gaveUp++ })
			return ctx.Err()
		case <-hang:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulls[a.Digest]++
	if err := s.fails[string(a.Digest)]; err != nil {
		return fmt.Errorf("pulling %s %s: %w", a.Role, a.Digest, err)
	}
	s.has[a.Digest] = true
	return nil
}

func (s *fakeStore) PullURL(_ context.Context, url string) (boot.Artifact, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resolved[url]++
	if err := s.fails[url]; err != nil {
		return boot.Artifact{}, err
	}
	d, ok := s.urls[url]
	if !ok {
		return boot.Artifact{}, fmt.Errorf("host of %s: %w", url, artifact.ErrNotAllowed)
	}
	s.has[d] = true
	return boot.Artifact{Role: boot.RoleUKI, Digest: d, Size: 10, Source: url}, nil
}

func (s *fakeStore) Has(d boot.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has[d]
}

func (s *fakeStore) count(reference string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resolved[reference]
}

// fakeClaims says who conflicts and who may not claim, by name.
type fakeClaims struct {
	mu        sync.Mutex
	loses     map[string]boot.Ref
	forbidden map[string]bool
	changed   chan event.GenericEvent
}

func (c *fakeClaims) MayClaim(namespace string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.forbidden[namespace]
}

func (c *fakeClaims) Conflict(cfg v1alpha1.Config) (boot.Ref, string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	with, ok := c.loses[cfg.GetName()]
	return with, "10.0.0.5", ok
}

// fakeOpener counts what is opened, by name.
type fakeOpener struct {
	mu     sync.Mutex
	opened map[string]int
	fail   error
	// coming is the next boot's attempt, until when that stands, or why there is none.
	coming int64
	until  time.Time
	spent  error
}

func (o *fakeOpener) ComingOf(v1alpha1.Config) (int64, time.Time, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.coming, o.until, o.spent
}

func (o *fakeOpener) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

func (o *fakeOpener) Open(_ context.Context, cfg v1alpha1.Config) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened[cfg.GetName()]++
	return o.fail
}

func (o *fakeOpener) count(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opened[name]
}

type fixture struct {
	t         *testing.T
	ns        string
	client    client.Client
	config    *rest.Config
	store     *fakeStore
	claims    *fakeClaims
	opener    *fakeOpener
	scheme    *runtime.Scheme
	bootstrap Options
}

// newFixture is a namespace of its own on a real API server. Nothing runs yet.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	admin := controlplane.Start(t)
	f := &fixture{
		t: t, ns: controlplane.Namespace(t, admin), store: newStore(), scheme: runtime.NewScheme(),
		claims: &fakeClaims{loses: map[string]boot.Ref{}, forbidden: map[string]bool{}, changed: make(chan event.GenericEvent, 8)},
		opener: &fakeOpener{opened: map[string]int{}},
	}
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, eventsv1.AddToScheme, rbacv1.AddToScheme, v1alpha1.AddToScheme} {
		require.NoError(t, add(f.scheme))
	}
	c, err := client.New(admin, client.Options{Scheme: f.scheme})
	require.NoError(t, err)
	f.client = c
	f.bootstrap = Options{
		Controllers: []string{ControllerHTTP, ControllerIPXE}, Store: f.store, Claims: f.claims, Attempts: f.opener,
		Changed: func() <-chan event.GenericEvent { return f.claims.changed },
		ArtifactURL: func(image string, a boot.Artifact) string {
			return "http://boot.example.com/" + image + "/" + a.Digest.Hex() + ".efi"
		},
		ResolveInterval: time.Hour, SecretPollPeriod: 200 * time.Millisecond,
	}
	f.config = f.operator(secretGet)
	return f
}

var (
	secretGet   = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}
	secretWatch = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list", "watch"}}
)

// operator returns the config of a user that may do what the markers in this
// package ask for, and this with Secrets.
func (f *fixture) operator(secrets rbacv1.PolicyRule) *rest.Config {
	f.t.Helper()
	name := "operator-" + f.ns + "-" + strings.Join(secrets.Verbs, "-")
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		secrets,
		{APIGroups: []string{"boot.ironcore.dev"}, Resources: []string{"httpbootconfigs", "ipxebootconfigs"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"boot.ironcore.dev"}, Resources: []string{"httpbootconfigs/status", "ipxebootconfigs/status"}, Verbs: []string{"get", "update", "patch"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}}
	require.NoError(f.t, f.client.Create(f.t.Context(), role))
	require.NoError(f.t, f.client.Create(f.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}))
	user, err := controlplane.Shared(f.t).AddUser(name)
	require.NoError(f.t, err)
	return user
}

// run starts the controllers, as a user with no more rights than they need, and
// returns what ends them.
func (f *fixture) run(change ...func(*Options)) (stop func()) {
	f.t.Helper()
	o := f.bootstrap
	for _, c := range change {
		c(&o)
	}
	again := true
	mgr, err := ctrl.NewManager(f.config, ctrl.Options{
		Scheme: f.scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Cache:      cache.Options{DefaultNamespaces: map[string]cache.Config{f.ns: {}}},
		Client:     client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		Controller: ctrlconfig.Controller{SkipNameValidation: &again},
	})
	require.NoError(f.t, err)
	require.NoError(f.t, Setup(mgr, o))
	return f.start(mgr)
}

func (f *fixture) start(mgr ctrl.Manager) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error("manager:", err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

// machine is a config that is ready as soon as its image is.
func (f *fixture) machine(name string, change ...func(*v1alpha1.HTTPBootConfig)) *v1alpha1.HTTPBootConfig {
	f.t.Helper()
	c := &v1alpha1.HTTPBootConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name},
		Spec:       v1alpha1.HTTPBootConfigSpec{NetworkIdentifiers: []string{"10.0.0.5"}, Image: imageTag},
	}
	for _, ch := range change {
		ch(c)
	}
	f.create(c)
	return c
}

func withIgnition(secret string) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: secret}
	}
}

func (f *fixture) create(o client.Object) {
	f.t.Helper()
	require.NoError(f.t, f.client.Create(f.t.Context(), o))
}

func (f *fixture) secret(name string, data map[string]string) *corev1.Secret {
	f.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name}, StringData: data}
	f.create(s)
	return s
}

func (f *fixture) reread(o client.Object) {
	f.t.Helper()
	require.NoError(f.t, f.client.Get(f.t.Context(), client.ObjectKeyFromObject(o), o))
}

func (f *fixture) update(o client.Object, change func()) {
	f.t.Helper()
	f.reread(o)
	change()
	require.NoError(f.t, f.client.Update(f.t.Context(), o))
}

// eventually waits until a config, as the API server has it, satisfies a
// condition, and says what it looks like if it never does.
func (f *fixture) eventually(cfg config, what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(20 * time.Millisecond) {
		f.reread(cfg)
		if ok() {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("%s never was %s: %+v", cfg.GetName(), what, *cfg.ConfigStatus())
		}
	}
}

// shows waits for a condition's status and reason, for the present spec.
func (f *fixture) shows(cfg config, condition string, status metav1.ConditionStatus, reason string) *metav1.Condition {
	f.t.Helper()
	var c *metav1.Condition
	f.eventually(cfg, fmt.Sprintf("%s=%s/%s", condition, status, reason), func() bool {
		c = meta.FindStatusCondition(cfg.ConfigStatus().Conditions, condition)
		return c != nil && c.Status == status && c.Reason == reason && c.ObservedGeneration == cfg.GetGeneration()
	})
	return c
}

func (f *fixture) ready(cfg config) {
	f.t.Helper()
	f.shows(cfg, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
}

// events returns the reasons of a config's events.
func (f *fixture) events(name string) map[string]string {
	f.t.Helper()
	var list eventsv1.EventList
	require.NoError(f.t, f.client.List(f.t.Context(), &list, client.InNamespace(f.ns)))
	out := map[string]string{}
	for _, e := range list.Items {
		if e.Regarding.Name == name {
			out[e.Reason] = e.Type
		}
	}
	return out
}

// reconciler returns one that is called by hand, and acts as the operator's user.
func (f *fixture) reconciler(o Options, kind newConfig) *reconciler {
	f.t.Helper()
	require.NoError(f.t, o.complete())
	c, err := client.New(f.config, client.Options{Scheme: f.scheme})
	require.NoError(f.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	nobody := func(configKey) {}
	s, err := newSecrets(c, nobody, o)
	require.NoError(f.t, err)
	r := &reconciler{
		Options: o, new: kind, reader: c, secrets: s, fetches: newFetches(o, s, nobody),
		status: phase.Status{Client: c, Recorder: events.NewFakeRecorder(1000), Clock: o.Clock, Written: &phase.Written{}},
	}
	go func() { _ = r.fetches.Start(ctx) }()
	return r
}

func request(c client.Object) ctrl.Request {
	return ctrl.Request{NamespacedName: client.ObjectKeyFromObject(c)}
}

func (f *fixture) reconcile(r *reconciler, c client.Object) ctrl.Result {
	f.t.Helper()
	result, err := r.Reconcile(f.t.Context(), request(c))
	require.NoError(f.t, err)
	return result
}
