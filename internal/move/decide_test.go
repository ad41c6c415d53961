package move

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/observe"
)

const thisMove = "move-11111111-22222222"

// object makes a config in memory.
func object(uid string, change ...func(*v1alpha1.HTTPBootConfig)) *unstructured.Unstructured {
	c := &v1alpha1.HTTPBootConfig{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindHTTPBootConfig},
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a", UID: types.UID(uid), Generation: 2, Labels: map[string]string{"rack": "7"}},
	}
	c.Spec.Image = "registry.example.com/os:1"
	for _, f := range change {
		f(c)
	}
	content, err := toMap(c)
	if err != nil {
		panic(err)
	}
	return &unstructured.Unstructured{Object: content}
}

func annotated(kv ...string) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Annotations = maps.Clone(c.Annotations)
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, kv[0], kv[1])
	}
}

func booted(attempt, openedGeneration int64) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Status.Boot = &v1alpha1.BootStatus{Attempt: attempt, OpenedGeneration: openedGeneration}
	}
}

func deleting(c *v1alpha1.HTTPBootConfig) {
	now := metav1.Now()
	c.DeletionTimestamp, c.Finalizers = &now, []string{"example.com/slow"}
}

func TestWhatIsDoneWithAConfigDependsOnBothClusters(t *testing.T) {
	mark, err := configMark(object("s", booted(1, 2)))
	require.NoError(t, err)
	paused := func(by string) func(*v1alpha1.HTTPBootConfig) { return annotated(v1alpha1.PausedAnnotation, by) }
	taken := annotated(MovedFromAnnotation, mark)
	image := func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = "other" }
	for name, c := range map[string]struct {
		source, target *unstructured.Unstructured
		want           stage
		problem        string
	}{
		"nothing there":                  {object("s"), nil, stageNew, ""},
		"paused by this move":            {object("s", paused(thisMove)), nil, stageNew, ""},
		"paused by a user":               {object("s", paused("maintenance")), nil, stageNew, ""},
		"paused by another move":         {object("s", paused("move-3-4")), nil, 0, "on the source is paused by another move, move-3-4"},
		"going away":                     {object("s", deleting), object("t"), stageSkipped, ""},
		"going away there":               {object("s"), object("t", deleting), 0, "is being deleted on the target"},
		"begun":                          {object("s"), object("t", paused(thisMove), image), stageBegun, ""},
		"begun by another":               {object("s"), object("t", paused("move-3-4")), 0, "on the target is paused by another move"},
		"taken over":                     {object("s", booted(1, 2)), object("t", taken), stageTaken, ""},
		"taken over and changed there":   {object("s", booted(1, 2)), object("t", taken, image), stageTaken, ""},
		"taken over and paused there":    {object("s", booted(1, 2)), object("t", taken, paused("maintenance")), stageTaken, ""},
		"taken over, spec changed here":  {object("s", booted(1, 2), image), object("t", taken), 0, "was changed on the source"},
		"taken over, booted here since":  {object("s", booted(2, 2)), object("t", taken), 0, "was changed on the source"},
		"taken over from a namesake":     {object("r", booted(1, 2)), object("t", taken), stageEqual, ""},
		"equal":                          {object("s"), object("t"), stageEqual, ""},
		"equal, booted here":             {object("s", booted(1, 2)), object("t"), stageEqual, ""},
		"equal, booted there":            {object("s"), object("t", booted(1, 2)), stageEqual, ""},
		"equal, booted on both alike":    {object("s", booted(1, 2)), object("t", booted(1, 2)), stageEqual, ""},
		"equal, booted on both":          {object("s", booted(1, 2)), object("t", booted(2, 2)), 0, "has boot attempts of its own"},
		"other spec":                     {object("s"), object("t", image), 0, "differs in spec.image"},
		"other label":                    {object("s"), object("t", func(c *v1alpha1.HTTPBootConfig) { c.Labels["rack"] = "8" }), 0, "has other labels: rack"},
		"other request to boot":          {object("s", annotated(v1alpha1.RequestBootAnnotation, "1")), object("t", annotated(v1alpha1.RequestBootAnnotation, "2")), 0, "has other annotations: " + v1alpha1.RequestBootAnnotation},
		"applied differently by kubectl": {object("s", annotated("kubectl.kubernetes.io/last-applied-configuration", "1")), object("t", annotated("kubectl.kubernetes.io/last-applied-configuration", "2")), stageEqual, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, problem := decide(c.source, c.target, thisMove)
			require.Contains(t, problem, c.problem)
			require.Equal(t, c.problem == "", problem == "", problem)
			if problem == "" {
				require.Equal(t, c.want, got)
			}
		})
	}
}

func TestGenerationsMeanTheSameOnTheTarget(t *testing.T) {
	for name, c := range map[string]struct {
		source *unstructured.Unstructured
		want   any
	}{
		"never booted":              {object("s"), nil},
		"opened for the present":    {object("s", booted(4, 2)), map[string]any{"boot": map[string]any{"attempt": int64(4), "openedGeneration": int64(7)}}},
		"opened for an earlier one": {object("s", booted(4, 1)), map[string]any{"boot": map[string]any{"attempt": int64(4)}}},
		"by chance the target's":    {object("s", booted(4, 7)), map[string]any{"boot": map[string]any{"attempt": int64(4)}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := carried(c.source, 7)
			if c.want == nil {
				require.Nil(t, got)
				return
			}
			require.Equal(t, c.want, any(got))
		})
	}
}

func TestConditionsOfTheReconcilerStayBehind(t *testing.T) {
	source := object("s", booted(1, 2), func(c *v1alpha1.HTTPBootConfig) {
		c.Status.Conditions = []metav1.Condition{
			{Type: v1alpha1.ConditionReady, Status: "True", ObservedGeneration: 2},
			{Type: v1alpha1.ConditionUKIFetched, Status: "True", ObservedGeneration: 2},
			{Type: v1alpha1.ConditionIgnitionDataFetched, Status: "False", ObservedGeneration: 1},
		}
	})
	conditions, _ := carried(source, 7)["conditions"].([]any)
	require.Len(t, conditions, 2)
	first, _ := conditions[0].(map[string]any)
	second, _ := conditions[1].(map[string]any)
	require.Equal(t, []any{"UKIFetched", int64(7)}, []any{first["type"], first["observedGeneration"]})
	require.Equal(t, "IgnitionDataFetched", second["type"])
	require.NotContains(t, second, "observedGeneration")
}

// Fields of a version that this build does not know are carried, not dropped.
func TestSecretsOfUnknownFieldsAreFound(t *testing.T) {
	u := object("s", func(c *v1alpha1.HTTPBootConfig) { c.Spec.PullSecretRef = reference("pull") })
	require.NoError(t, unstructured.SetNestedField(u.Object, "later", "spec", "userDataSecretRef", "name"))
	require.NoError(t, unstructured.SetNestedField(u.Object, "", "spec", "ignitionSecretRef", "name"))
	require.Equal(t, map[string]string{"spec.pullSecretRef": "pull", "spec.userDataSecretRef": "later"}, secretsOf(u))
}

func TestACopyHoldsNothingOfItsCluster(t *testing.T) {
	source := object("s", booted(1, 2), annotated("note", "kept"), annotated(v1alpha1.PausedAnnotation, thisMove), annotated(MovedFromAnnotation, "x"), deleting)
	source.SetResourceVersion("5")
	require.Equal(t, map[string]any{
		"apiVersion": "boot.ironcore.dev/v1alpha1", "kind": "HTTPBootConfig",
		"metadata": map[string]any{"namespace": "n", "name": "a", "labels": map[string]any{"rack": "7"}, "annotations": map[string]any{"note": "kept"}},
		"spec":     source.Object["spec"],
	}, copyOf(source).Object)
}

func TestCovers(t *testing.T) {
	want := map[string]any{"a": "1", "m": map[string]any{"x": int64(1)}, "l": []any{"1"}}
	more := map[string]any{"a": "1", "m": map[string]any{"x": int64(1), "default": "y"}, "l": []any{"1"}, "b": "2"}
	require.True(t, covers(more, want))
	require.False(t, covers(want, more))
	require.False(t, covers(map[string]any{"a": "1", "m": map[string]any{"x": int64(1)}, "l": []any{"1", "2"}}, want))
	require.False(t, covers(map[string]any{"a": "1", "m": "text", "l": []any{"1"}}, want))
}

// What the observer owns is written here under its name: both must agree on what
// that is.
func TestWhatIsCarriedIsWhatTheObserverOwns(t *testing.T) {
	require.Equal(t, observe.FieldManager, observerManager)
	owned := func(path, variable string) []string {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		var out []string
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || spec.Names[0].Name != variable {
				return true
			}
			list, _ := spec.Values[0].(*ast.CompositeLit)
			for _, e := range list.Elts {
				selector, _ := e.(*ast.SelectorExpr)
				out = append(out, selector.Sel.Name)
			}
			return false
		})
		return out
	}
	theirs := owned("../observe/state.go", "owned")
	require.GreaterOrEqual(t, len(theirs), 4)
	require.ElementsMatch(t, theirs, owned("status.go", "observed"))
}
