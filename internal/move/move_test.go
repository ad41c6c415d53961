package move

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
	"github.com/boot-operator/boot-operator/internal/observe"
)

func toMap(v any) (map[string]any, error) {
	return runtime.DefaultUnstructuredConverter.ToUnstructured(v)
}

// rack fills the source: both kinds, a Secret that two of them share, one that a
// config names twice, and a spent Once.
func rack(t *testing.T) *world {
	w := newWorld(t)
	w.create(w.source, newSecret("shared", "one"), newSecret("own", "two"), newSecret("script", "three"))
	w.create(w.source, httpConfig("a", 1, "shared"), httpConfig("b", 2, "shared"), ipxeConfig("a", 1, "own", "own", "script"))
	w.spend(w.source, "a", nil)
	return w
}

// arrived checks the end state of a rack's move.
func (w *world) arrived() {
	w.t.Helper()
	for name, content := range map[string]string{"shared": "one", "own": "two", "script": "three"} {
		require.Nil(w.t, w.has(w.source, kindSecret, name), name)
		var s corev1.Secret
		require.NoError(w.t, w.target.Get(w.t.Context(), types.NamespacedName{Namespace: w.namespace, Name: name}, &s))
		require.Equal(w.t, content, string(s.Data[v1alpha1.SecretKeyIgnition]))
		require.NotContains(w.t, s.Labels, MovingLabel)
	}
	for _, k := range []key{{kind: v1alpha1.KindHTTPBootConfig, name: "a"}, {kind: v1alpha1.KindHTTPBootConfig, name: "b"}, {kind: v1alpha1.KindIPXEBootConfig, name: "a"}} {
		require.Nil(w.t, w.has(w.source, k.kind, k.name), k)
		u := w.has(w.target, k.kind, k.name)
		require.NotNil(w.t, u, k)
		require.NotContains(w.t, u.GetAnnotations(), v1alpha1.PausedAnnotation)
		require.NotContains(w.t, u.GetAnnotations(), PausedBeforeAnnotation)
		require.Contains(w.t, u.GetAnnotations(), MovedFromAnnotation)
	}
	w.spent("a", 3)
	require.Nil(w.t, carried(w.has(w.target, v1alpha1.KindHTTPBootConfig, "b"), 1))
}

// spent checks what the target knows of a config's boots.
func (w *world) spent(name string, attempt int64) {
	w.t.Helper()
	cfg, err := typed(w.has(w.target, v1alpha1.KindHTTPBootConfig, name))
	require.NoError(w.t, err)
	a := claim.Attempt(cfg)
	require.True(w.t, a.Spent)
	require.Equal(w.t, attempt, a.Number)
	b := cfg.ConfigStatus().Boot
	require.Equal(w.t, cfg.GetGeneration(), b.OpenedGeneration)
	require.Equal(w.t, []string{"again", "10.9.0.9", "one"}, []string{b.Request, b.SecretAddress, b.Served.Delivery})
}

// Known defect 21: moves of this kind fail when two objects share one Secret.
func TestTwoObjectsThatShareASecretAreMoved(t *testing.T) {
	w := rack(t)
	report := w.move()
	w.arrived()
	count := 0
	for _, row := range report.Rows {
		if row.Name == "shared" {
			count++
			require.Equal(t, "once, for 2 configs", row.Note)
		}
	}
	require.Equal(t, 1, count)
	var ns corev1.Namespace
	require.NoError(t, w.target.Get(t.Context(), types.NamespacedName{Name: w.namespace}, &ns))
	require.Equal(t, "7", ns.Labels["rack"])
	require.Equal(t, map[string]string{"rack": "7"}, w.has(w.target, v1alpha1.KindHTTPBootConfig, "a").GetLabels())
	require.Empty(t, w.move().Rows, "a second move finds something to do")
}

// Nothing of a move may depend on what the process remembers: it dies at every
// one of its writes, before and after the API server has done it.
func TestAMoveThatIsKilledAnywhereIsFinishedByTheNext(t *testing.T) {
	for _, answer := range []bool{false, true} {
		for n := 1; ; n++ {
			w := rack(t)
			f := &fault{at: n, answer: answer}
			o := w.options()
			o.Source, o.Target = f.clients(t)
			_, err := Run(t.Context(), o)
			if !f.dead {
				require.NoError(t, err)
				require.Greater(t, n, 15, "the move has fewer writes than objects")
				w.arrived()
				w.clear()
				break
			}
			require.Error(t, err, "killed at write %d", n)
			w.safe(fmt.Sprintf("killed at write %d, done: %t", n, answer))
			w.move()
			w.arrived()
			w.clear()
		}
	}
}

// safe checks that nothing is lost, and that no machine has two clusters.
func (w *world) safe(when string) {
	w.t.Helper()
	for _, name := range []string{"shared", "own", "script"} {
		require.False(w.t, w.has(w.source, kindSecret, name) == nil && w.has(w.target, kindSecret, name) == nil, "%s: Secret %s is lost", when, name)
	}
	for _, k := range []key{{kind: v1alpha1.KindHTTPBootConfig, name: "a"}, {kind: v1alpha1.KindHTTPBootConfig, name: "b"}, {kind: v1alpha1.KindIPXEBootConfig, name: "a"}} {
		source, target := w.has(w.source, k.kind, k.name), w.has(w.target, k.kind, k.name)
		require.False(w.t, live(source) && live(target), "%s: %s is live on both", when, k)
		if source == nil {
			require.True(w.t, live(target), "%s: %s is lost", when, k)
		}
		if live(target) {
			for _, name := range secretsOf(target) {
				require.NotNil(w.t, w.has(w.target, kindSecret, name), "%s: %s is live without %s", when, k, name)
			}
			if k.kind == v1alpha1.KindHTTPBootConfig && k.name == "a" {
				w.spent("a", 3)
			}
		}
	}
}

func live(u *unstructured.Unstructured) bool {
	if u == nil {
		return false
	}
	_, paused := pausedBy(u)
	return !paused
}

func TestADryRunWritesNothing(t *testing.T) {
	w := rack(t)
	o := w.options()
	o.DryRun = true
	before := w.versions()
	report, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, before, w.versions())
	var text strings.Builder
	require.NoError(t, report.Print(&text))
	for _, line := range []string{
		"create  Namespace                        " + w.namespace,
		"move    Secret          " + w.namespace + "  shared",
		"move    HTTPBootConfig  " + w.namespace + "  b",
		"move    IPXEBootConfig  " + w.namespace + "  a",
	} {
		require.Contains(t, squeeze(text.String()), squeeze(line))
	}
	w.move()
	w.arrived()
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// The operator itself, on the target, must find nothing to open and nothing left
// to deliver.
func TestASpentOnceStaysSpent(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, httpConfig("a", 3, ""))
	u := w.has(w.source, v1alpha1.KindHTTPBootConfig, "a")
	for _, image := range []string{"registry.example.com/os:2", "registry.example.com/os:3"} {
		require.NoError(t, unstructured.SetNestedField(u.Object, image, "spec", "image"))
		require.NoError(t, w.source.Update(t.Context(), u))
	}
	require.EqualValues(t, 3, u.GetGeneration())
	w.spend(w.source, "a", nil)
	w.move()
	w.spent("a", 3)

	o, err := observe.New(observe.Options{Client: w.target, Reader: w.target, Dir: t.TempDir(), Logger: logr.Discard()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = o.Close() })
	target := w.has(w.target, v1alpha1.KindHTTPBootConfig, "a")
	require.EqualValues(t, 1, target.GetGeneration())
	cfg, err := typed(target)
	require.NoError(t, err)
	require.NoError(t, o.Open(t.Context(), cfg))
	require.Equal(t, target.GetResourceVersion(), w.has(w.target, v1alpha1.KindHTTPBootConfig, "a").GetResourceVersion(), "an attempt was opened")

	plan := &boot.Plan{Object: boot.Ref{Kind: cfg.Kind(), Namespace: w.namespace, Name: "a", UID: string(cfg.GetUID())}, Policy: boot.Once, Attempt: claim.Attempt(cfg)}
	err = o.Commit(t.Context(), plan, plan.Attempt, digest, netip.MustParseAddr("10.9.0.9"), "another")
	require.ErrorIs(t, err, boot.ErrSpent)

	// What the observer writes next replaces all of what it owns: it must own it.
	require.NoError(t, unstructured.SetNestedField(target.Object, "registry.example.com/os:4", "spec", "image"))
	require.NoError(t, w.target.Update(t.Context(), target))
	cfg, err = typed(target)
	require.NoError(t, err)
	require.NoError(t, o.Open(t.Context(), cfg))
	cfg, err = typed(w.has(w.target, v1alpha1.KindHTTPBootConfig, "a"))
	require.NoError(t, err)
	require.EqualValues(t, 4, cfg.ConfigStatus().Boot.Attempt)
	require.Empty(t, cfg.ConfigStatus().Boot.SecretAddress, "another manager holds on to it")
}

// A change of spec that opened no attempt on the source opens one on the target,
// whatever number the generation has there.
func TestAChangeThatOpenedNothingYetOpensAnAttemptOnTheTarget(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, httpConfig("a", 4, ""))
	w.spend(w.source, "a", nil) // for generation 1, which the target will have too
	u := w.has(w.source, v1alpha1.KindHTTPBootConfig, "a")
	require.NoError(t, unstructured.SetNestedField(u.Object, "registry.example.com/os:2", "spec", "image"))
	require.NoError(t, w.source.Update(t.Context(), u))
	w.move()
	boots, _, err := unstructured.NestedMap(w.has(w.target, v1alpha1.KindHTTPBootConfig, "a").Object, "status", "boot")
	require.NoError(t, err)
	require.EqualValues(t, 3, boots["attempt"])
	require.NotContains(t, boots, "openedGeneration")
}

func TestAMissingSecretIsToldBeforeAnythingIsWritten(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, httpConfig("a", 5, "nowhere"))
	text := w.refused(w.options())
	require.Contains(t, text, "Secret "+w.namespace+"/nowhere is missing on the source, and HTTPBootConfig "+w.namespace+"/a names it in spec.ignitionSecretRef")
}

func TestWhatTheTargetHasAlreadyIsNeverOverwritten(t *testing.T) {
	w := newWorld(t)
	w.prepare()
	w.create(w.source, newSecret("s", "one"), newSecret("equal", "same"), httpConfig("a", 6, "s"), httpConfig("equal", 7, "equal"), httpConfig("booted", 8, ""))
	other := httpConfig("a", 6, "s")
	other.Spec.Image = "registry.example.com/os:9"
	w.create(w.target, newSecret("s", "confidential"), newSecret("equal", "same"), other, httpConfig("equal", 7, "equal"), httpConfig("booted", 8, ""))
	w.spend(w.source, "booted", nil)
	w.spend(w.target, "booted", func(s *v1alpha1.ConfigStatus) { s.Boot.Attempt = 1 })
	text := w.refused(w.options())
	require.Contains(t, text, "HTTPBootConfig "+w.namespace+"/a exists on the target and differs in spec.image")
	require.Contains(t, text, "Secret "+w.namespace+"/s exists on the target with other content")
	require.Contains(t, text, "HTTPBootConfig "+w.namespace+"/booted exists on the target and has boot attempts of its own")
	require.NotContains(t, text, "/equal")
	require.NotContains(t, text, "confidential")
	require.NotContains(t, text, base64.StdEncoding.EncodeToString([]byte("confidential")))

	for _, o := range []client.Object{other, newSecret("s", ""), httpConfig("booted", 8, "")} {
		o.SetNamespace(w.namespace)
		require.NoError(t, w.target.Delete(t.Context(), o))
	}
	w.spend(w.source, "equal", nil)
	w.move()
	w.spent("equal", 3)
	require.True(t, live(w.has(w.target, v1alpha1.KindHTTPBootConfig, "equal")))
	require.Nil(t, w.has(w.source, v1alpha1.KindHTTPBootConfig, "equal"))
	require.Nil(t, w.has(w.source, kindSecret, "equal"))
}

func TestOneMachineIsNotClaimedTwiceOnTheTarget(t *testing.T) {
	w := newWorld(t)
	w.prepare()
	swapped := httpConfig("other", 9, "")
	swapped.Spec.NetworkIdentifiers = nil
	swapped.Spec.SystemUUID = "33221100-5544-7766-8899-000000000009"
	w.create(w.source, httpConfig("a", 9, ""), httpConfig("b", 10, ""), httpConfig("c", 10, ""))
	w.create(w.target, swapped)
	text := w.refused(w.options())
	require.Contains(t, text, "HTTPBootConfig "+w.namespace+"/other on the target claims the UUID 00112233-4455-6677-8899-000000000009")
	require.Contains(t, text, "HTTPBootConfig "+w.namespace+"/b of the source both claim the UUID")
}

func TestOwnersAreFoundOnTheTarget(t *testing.T) {
	w := newWorld(t)
	w.prepare()
	owners := func(c client.Client) (*corev1.ConfigMap, *corev1.ConfigMap) {
		a, b := &corev1.ConfigMap{}, &corev1.ConfigMap{}
		a.Name, b.Name = "there", "only-here"
		w.create(c, a)
		if c == w.source {
			w.create(c, b)
		}
		return a, b
	}
	there, here := owners(w.source)
	onTarget, _ := owners(w.target)
	c := httpConfig("a", 11, "s")
	yes := true
	c.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: "there", UID: there.UID, Controller: &yes},
		{APIVersion: "v1", Kind: "ConfigMap", Name: "only-here", UID: here.UID},
	}
	w.create(w.source, c)
	s := newSecret("s", "one")
	s.OwnerReferences = []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindHTTPBootConfig, Name: "a", UID: c.UID}}
	w.create(w.source, s)

	o := w.options()
	o.RequireOwners = true
	text := w.refused(o)
	require.Contains(t, text, "HTTPBootConfig "+w.namespace+"/a is owned by ConfigMap only-here, which the target does not have")
	require.NotContains(t, text, "Secret", "its owner is moved too")

	report := w.move()
	require.Contains(t, fmt.Sprint(report.Rows), "loses its owner ConfigMap only-here")
	moved := w.has(w.target, v1alpha1.KindHTTPBootConfig, "a")
	require.Len(t, moved.GetOwnerReferences(), 1)
	require.Equal(t, onTarget.UID, moved.GetOwnerReferences()[0].UID)
	require.True(t, *moved.GetOwnerReferences()[0].Controller)
	secretOwners := w.has(w.target, kindSecret, "s").GetOwnerReferences()
	require.Len(t, secretOwners, 1)
	require.Equal(t, moved.GetUID(), secretOwners[0].UID)
	require.Nil(t, w.has(w.source, kindSecret, "s"))
}

func TestASecretThatTheSourceStillNeedsStays(t *testing.T) {
	w := newWorld(t)
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "puller"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}}
	w.create(w.source, owner, account)
	owned := newSecret("owned", "one")
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID}}
	leaving := httpConfig("leaving", 12, "last")
	leaving.Finalizers = []string{"example.com/slow"}
	w.create(w.source, owned, newSecret("pull", "two"), newSecret("script", "three"), newSecret("last", "four"),
		ipxeConfig("a", 13, "owned", "pull", "script"), httpConfig("b", 14, "last"), leaving)
	require.NoError(t, w.source.Delete(t.Context(), leaving))

	report := w.move()
	for _, name := range []string{"owned", "pull", "script", "last"} {
		require.NotNil(t, w.has(w.target, kindSecret, name), name)
	}
	for _, name := range []string{"owned", "pull"} {
		require.NotContains(t, w.has(w.source, kindSecret, name).GetLabels(), MovingLabel)
	}
	require.Nil(t, w.has(w.source, kindSecret, "script"))
	require.Contains(t, fmt.Sprint(report.Rows), "ConfigMap owner owns it")
	require.Contains(t, fmt.Sprint(report.Rows), "ServiceAccount "+w.namespace+"/puller names it")
	require.Contains(t, fmt.Sprint(report.Rows), "is being deleted on the source and is not moved")
	require.Nil(t, w.has(w.target, v1alpha1.KindHTTPBootConfig, "leaving"))
	require.NotNil(t, w.has(w.source, kindSecret, "last"))

	u := w.has(w.source, v1alpha1.KindHTTPBootConfig, "leaving")
	u.SetFinalizers(nil)
	require.NoError(t, w.source.Update(t.Context(), u))
	w.move()
	require.Nil(t, w.has(w.source, kindSecret, "last"), "the next run does not finish")
}

func TestAConfigThatAUserPausedArrivesPaused(t *testing.T) {
	w := newWorld(t)
	c := httpConfig("a", 15, "")
	c.Annotations[v1alpha1.PausedAnnotation] = "maintenance"
	w.create(w.source, c)
	w.move()
	by, paused := pausedBy(w.has(w.target, v1alpha1.KindHTTPBootConfig, "a"))
	require.True(t, paused)
	require.Equal(t, "maintenance", by)
	require.Nil(t, w.has(w.source, v1alpha1.KindHTTPBootConfig, "a"))
}

// killAtTheFirstDeletion runs a move that ends after the target has taken over.
func (w *world) killAtTheFirstDeletion() {
	w.t.Helper()
	f := &fault{method: http.MethodDelete}
	o := w.options()
	o.Source, o.Target = f.clients(w.t)
	_, err := Run(w.t.Context(), o)
	require.ErrorContains(w.t, err, "deleting")
	require.True(w.t, f.dead)
}

// Between the hand-over and the deletion the source may still change. It is not
// deleted then.
func TestASourceThatChangedAfterTheHandOverIsNotDeleted(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, httpConfig("a", 16, ""))
	w.killAtTheFirstDeletion()
	u := w.has(w.source, v1alpha1.KindHTTPBootConfig, "a")
	require.True(t, live(w.has(w.target, v1alpha1.KindHTTPBootConfig, "a")))
	require.NoError(t, unstructured.SetNestedField(u.Object, "registry.example.com/os:2", "spec", "image"))
	require.NoError(t, w.source.Update(t.Context(), u))
	require.Contains(t, w.refused(w.options()), "was changed on the source (spec or status.boot) after the target had taken it over")
}

// What users do on the target after the hand-over is theirs.
func TestWhatTheTargetMadeOfItSinceDoesNotStopTheRest(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, newSecret("s", "one"), httpConfig("a", 17, "s"))
	w.killAtTheFirstDeletion()
	u := w.has(w.target, v1alpha1.KindHTTPBootConfig, "a")
	require.NoError(t, unstructured.SetNestedField(u.Object, "registry.example.com/os:2", "spec", "image"))
	require.NoError(t, w.target.Update(t.Context(), u))
	rotated := w.has(w.target, kindSecret, "s")
	require.NoError(t, unstructured.SetNestedField(rotated.Object, "dHdv", "data", v1alpha1.SecretKeyIgnition))
	require.NoError(t, w.target.Update(t.Context(), rotated))
	w.move()
	require.Nil(t, w.has(w.source, v1alpha1.KindHTTPBootConfig, "a"))
	require.Nil(t, w.has(w.source, kindSecret, "s"))
}

func TestOneClusterIsNotMovedToItself(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	o.Target = o.Source
	require.Contains(t, w.refused(o), "source and target are the same cluster")
}

func TestAMisspeltNamespaceIsNotAMoveThatIsDone(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	o.Namespaces = []string{"nowhere-at-all"}
	require.Contains(t, w.refused(o), "the source has no namespace nowhere-at-all")
}
