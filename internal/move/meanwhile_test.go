package move

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

// during calls do when the move begins a step.
func (w *world) during(step string, do func()) Options {
	o := w.options()
	o.Log = func(format string, args ...any) {
		if fmt.Sprintf(format, args...) == step {
			do()
		}
	}
	return o
}

func TestWhatArrivesAtTheSourceDuringTheMoveIsCarriedToo(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, httpConfig("a", 20, ""))
	w.spend(w.source, "a", func(s *v1alpha1.ConfigStatus) { s.Boot.SecretAddress = "" })
	_, err := Run(t.Context(), w.during("verifying the target", func() {
		w.spend(w.source, "a", nil)
		u := w.has(w.source, v1alpha1.KindHTTPBootConfig, "a")
		require.NoError(t, unstructured.SetNestedField(u.Object, "amd64", "spec", "architecture"))
		u.SetLabels(map[string]string{"late": "yes"})
		require.NoError(t, w.source.Update(t.Context(), u))
		w.spend(w.source, "a", nil)
	}))
	require.NoError(t, err)
	w.spent("a", 3)
	u := w.has(w.target, v1alpha1.KindHTTPBootConfig, "a")
	architecture, _, _ := unstructured.NestedString(u.Object, "spec", "architecture")
	require.Equal(t, "amd64", architecture)
	require.Equal(t, "yes", u.GetLabels()["late"])
}

func TestAConfigThatSomeoneResumesStopsTheMove(t *testing.T) {
	for name, side := range map[string]func(*world) cluster{
		"source": func(w *world) cluster { return cluster{w.source, "source"} },
		"target": func(w *world) cluster { return cluster{w.target, "target"} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.create(w.source, httpConfig("a", 21, ""))
			_, err := Run(t.Context(), w.during("verifying the target", func() {
				_, err := side(w).amend(t.Context(), key{v1alpha1.KindHTTPBootConfig, w.namespace, "a"}, func(u *unstructured.Unstructured) (bool, error) {
					resume(u)
					return true, nil
				})
				require.NoError(t, err)
			}))
			require.ErrorContains(t, err, "on the "+name+" was unpaused")
			require.NotNil(t, w.has(w.source, v1alpha1.KindHTTPBootConfig, "a"))
		})
	}
}

func TestASecretThatChangesDuringTheMoveIsNotLost(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, newSecret("s", "one"), httpConfig("a", 22, "s"))
	_, err := Run(t.Context(), w.during("verifying the target", func() {
		var s corev1.Secret
		require.NoError(t, w.source.Get(t.Context(), types.NamespacedName{Namespace: w.namespace, Name: "s"}, &s))
		s.Data[v1alpha1.SecretKeyIgnition] = []byte("newer")
		require.NoError(t, w.source.Update(t.Context(), &s))
	}))
	require.ErrorContains(t, err, "Secret "+w.namespace+"/s is not the same on both clusters any more")
	require.False(t, live(w.has(w.target, v1alpha1.KindHTTPBootConfig, "a")))
	require.NotNil(t, w.has(w.source, kindSecret, "s"))
}

func TestTheOperatorOfTheSourceIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, httpConfig("hears", 23, ""), httpConfig("new", 24, ""))
	ready := func(reason string) {
		var c v1alpha1.HTTPBootConfig
		require.NoError(t, w.source.Get(t.Context(), types.NamespacedName{Namespace: w.namespace, Name: "hears"}, &c))
		c.Status.State = v1alpha1.StateReady
		c.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, LastTransitionTime: metav1.Now()}}
		require.NoError(t, w.source.Status().Update(t.Context(), &c))
	}
	ready(v1alpha1.ReasonProgressing)
	o := w.during("waiting for the source's operator", func() { ready(v1alpha1.ReasonPaused) })
	o.Acknowledge = time.Minute
	report, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Empty(t, report.Warnings)
}

func TestAnOperatorThatDoesNotAnswerIsNoted(t *testing.T) {
	w := newWorld(t)
	c := httpConfig("deaf", 25, "")
	w.create(w.source, c)
	c.Status.State = v1alpha1.StateReady
	require.NoError(t, w.source.Status().Update(t.Context(), c))
	o := w.options()
	o.Acknowledge = 300 * time.Millisecond
	report, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(report.Warnings), "did not confirm within 300ms that it leaves 1 configs alone")
}

func TestATargetWithoutOurKindsIsRefused(t *testing.T) {
	w := newWorld(t)
	w.create(w.source, httpConfig("a", 26, ""))
	plane, err := controlplane.Launch(t.Context(), controlplane.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = plane.Stop() })
	o := w.options()
	o.Target, err = Connect(plane.Config)
	require.NoError(t, err)
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	crd.SetName("httpbootconfigs.boot.ironcore.dev")
	require.NoError(t, o.Target.Delete(t.Context(), crd))
	gone := func() bool {
		fresh, err := Connect(plane.Config)
		require.NoError(t, err)
		m := &mover{target: cluster{fresh, "target"}}
		served, err := m.targetServes(v1alpha1.KindHTTPBootConfig)
		return err == nil && !served
	}
	require.Eventually(t, gone, 30*time.Second, 100*time.Millisecond)
	o.Target, err = Connect(plane.Config)
	require.NoError(t, err)
	require.Contains(t, w.refused(o), "the target does not serve HTTPBootConfig: install the boot-operator's CustomResourceDefinitions there")
}
