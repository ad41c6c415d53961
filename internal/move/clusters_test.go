package move

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// planes are the two API servers of this test binary.
var planes struct {
	once           sync.Once
	source, target *controlplane.ControlPlane
	err            error
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, plane := range []*controlplane.ControlPlane{planes.source, planes.target} {
		if plane != nil {
			_ = plane.Stop()
		}
	}
	os.Exit(code)
}

func launch() {
	ctx := context.Background()
	if planes.source, planes.err = controlplane.Launch(ctx, controlplane.Options{}); planes.err == nil {
		planes.target, planes.err = controlplane.Launch(ctx, controlplane.Options{})
	}
}

// world is both clusters, and a namespace that only the source has.
type world struct {
	t              *testing.T
	source, target client.Client
	namespace      string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	planes.once.Do(launch)
	require.NoError(t, planes.err)
	w := &world{t: t}
	var err error
	w.source, err = Connect(planes.source.Config)
	require.NoError(t, err)
	w.target, err = Connect(planes.target.Config)
	require.NoError(t, err)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "move-", Labels: map[string]string{"rack": "7"}}}
	require.NoError(t, w.source.Create(t.Context(), ns))
	w.namespace = ns.Name
	t.Cleanup(w.clear)
	return w
}

// clear deletes the configs: they claim machines in the eyes of other tests.
func (w *world) clear() {
	for _, c := range []client.Client{w.source, w.target} {
		for _, o := range []client.Object{&v1alpha1.HTTPBootConfig{}, &v1alpha1.IPXEBootConfig{}} {
			require.NoError(w.t, c.DeleteAllOf(context.Background(), o, client.InNamespace(w.namespace)))
		}
	}
}

func (w *world) options() Options {
	return Options{Source: w.source, Target: w.target, Namespaces: []string{w.namespace}}
}

// move moves, and must succeed.
func (w *world) move() *Report {
	w.t.Helper()
	report, err := Run(w.t.Context(), w.options())
	require.NoError(w.t, err)
	return report
}

// refused moves with these options and returns the problems.
func (w *world) refused(o Options) string {
	w.t.Helper()
	before := w.versions()
	_, err := Run(w.t.Context(), o)
	var r *Refused
	require.ErrorAs(w.t, err, &r)
	require.Equal(w.t, before, w.versions(), "something was written")
	return err.Error()
}

// create creates objects in the namespace of a cluster.
func (w *world) create(c client.Client, objects ...client.Object) {
	w.t.Helper()
	for _, o := range objects {
		o.SetNamespace(w.namespace)
		require.NoError(w.t, c.Create(w.t.Context(), o))
	}
}

// prepare gives the target the namespace.
func (w *world) prepare() {
	w.t.Helper()
	require.NoError(w.t, w.target.Create(w.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}))
}

// has returns an object, or nil.
func (w *world) has(c client.Client, kind, name string) *unstructured.Unstructured {
	w.t.Helper()
	u, err := cluster{c, "cluster"}.read(context.Background(), key{kind, w.namespace, name})
	require.NoError(w.t, err)
	return u
}

// versions are the resourceVersions of everything in the namespace on both, and
// of the namespaces themselves.
func (w *world) versions() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for name, c := range map[string]client.Client{"source": w.source, "target": w.target} {
		for _, kind := range []string{v1alpha1.KindHTTPBootConfig, v1alpha1.KindIPXEBootConfig, kindSecret} {
			_, err := cluster{c, name}.list(w.t.Context(), key{kind: kind}.gvk(), []string{w.namespace}, func(u *unstructured.Unstructured) {
				out[name+" "+keyOf(u).String()] = u.GetResourceVersion()
			})
			require.NoError(w.t, err)
		}
		_, err := cluster{c, name}.list(w.t.Context(), key{kind: "Namespace"}.gvk(), nil, func(u *unstructured.Unstructured) {
			if u.GetName() == w.namespace {
				out[name] = u.GetResourceVersion()
			}
		})
		require.NoError(w.t, err)
	}
	return out
}

func newSecret(name, content string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{v1alpha1.SecretKeyIgnition: []byte(content)}}
}

func reference(name string) *corev1.LocalObjectReference {
	return &corev1.LocalObjectReference{Name: name}
}

func httpConfig(name string, n int, ignition string) *v1alpha1.HTTPBootConfig {
	c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"rack": "7"}, Annotations: map[string]string{v1alpha1.RequestBootAnnotation: "again"}}}
	c.Spec = v1alpha1.HTTPBootConfigSpec{
		SystemUUID: fmt.Sprintf("00112233-4455-6677-8899-%012x", n), NetworkIdentifiers: []string{fmt.Sprintf("10.9.%d.%d", n/200, n%200+1)},
		Image: "registry.example.com/os:1", BootPolicy: v1alpha1.BootPolicyOnce,
	}
	if ignition != "" {
		c.Spec.IgnitionSecretRef = reference(ignition)
	}
	return c
}

func ipxeConfig(name string, n int, ignition, pull, script string) *v1alpha1.IPXEBootConfig {
	c := &v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.Spec = v1alpha1.IPXEBootConfigSpec{
		SystemUUID: fmt.Sprintf("00112233-4455-6677-8899-%012x", n), Image: "registry.example.com/os:1",
		IgnitionSecretRef: reference(ignition), PullSecretRef: reference(pull), IPXEScriptSecretRef: reference(script),
	}
	return c
}

// spend makes a status as an observer leaves it after the one delivery of an
// attempt that was opened for the present generation.
func (w *world) spend(c client.Client, name string, change func(*v1alpha1.ConfigStatus)) {
	w.t.Helper()
	u := w.has(c, v1alpha1.KindHTTPBootConfig, name)
	generation, now := u.GetGeneration(), metav1.NowMicro()
	status := v1alpha1.ConfigStatus{
		Boot: &v1alpha1.BootStatus{
			Attempt: 3, OpenedTime: &now, OpenedBy: "Requested", OpenedGeneration: generation, Request: "again", SecretAddress: "10.9.0.9",
			Served: &v1alpha1.BootServed{Attempt: 3, Digest: digest, Delivery: "one", Time: now},
			Stages: []v1alpha1.BootStage{{Name: "UKI", Attempt: 3, StartedTime: &now, CompletedTime: &now, Digest: digest}},
		},
		Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionUKIFetched, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonUKIDelivered, Message: "Delivered.", ObservedGeneration: generation, LastTransitionTime: metav1.Now()},
		},
	}
	if change != nil {
		change(&status)
	}
	content, err := toMap(&status)
	require.NoError(w.t, err)
	m := &mover{target: cluster{c, "cluster"}}
	require.NoError(w.t, m.applyStatus(w.t.Context(), u, content))
}

// fault is a process that dies at a write: before the request is sent, or before
// the answer arrives.
type fault struct {
	mu     sync.Mutex
	at     int
	method string // instead of a number: dies at the first of these
	answer bool
	writes int
	dead   bool
}

var errKilled = errors.New("killed")

func (f *fault) clients(t *testing.T) (source, target client.Client) {
	t.Helper()
	made := make([]client.Client, 0, 2)
	for _, plane := range []*controlplane.ControlPlane{planes.source, planes.target} {
		config := rest.CopyConfig(plane.Config)
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &faulty{f, next} })
		c, err := Connect(config)
		require.NoError(t, err)
		made = append(made, c)
	}
	return made[0], made[1]
}

// strike says whether this request is sent, and whether its answer arrives.
func (f *fault) strike(r *http.Request) (send, answer bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return false, false
	}
	if r.Method == http.MethodGet || r.URL.Query().Has("dryRun") {
		return true, true
	}
	f.writes++
	f.dead = f.writes == f.at || r.Method == f.method
	return !f.dead || f.answer, !f.dead
}

type faulty struct {
	*fault
	next http.RoundTripper
}

func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	send, answer := f.strike(r)
	if !send {
		return nil, errKilled
	}
	response, err := f.next.RoundTrip(r)
	if err == nil && !answer {
		_ = response.Body.Close()
		return nil, errKilled
	}
	return response, err
}
