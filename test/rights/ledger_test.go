// Package rights runs the operator against a real API server with the rights that the
// chart grants and no others, and holds the API server's audit log against them:
// nothing is refused, and nothing is granted that is never used.
package rights

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// right is one thing that a role allows, as small as rules can be cut.
type right struct {
	// Role is the role that has the rule.
	Role string
	// Account is who has the right: <namespace>/<name>.
	Account string
	// Namespace is where; empty: everywhere.
	Namespace string
	Group     string
	// Resource is with its subresource: httpbootconfigs/status.
	Resource string
	// Name is of the one object that it is limited to; empty: any.
	Name string
	Verb string
}

func (r right) String() string {
	return fmt.Sprintf("%s may %s %s.%s %q in %q, of role %s", r.Account, r.Verb, r.Resource, r.Group, r.Name, r.Namespace, r.Role)
}

// allows says whether a request needs this right.
func (r right) allows(q request) bool {
	return r.Account == q.Account && r.Group == q.Group && r.Resource == q.Resource && r.Verb == q.Verb &&
		(r.Namespace == "" || r.Namespace == q.Namespace) && (r.Name == "" || r.Name == q.Name)
}

// request is what the audit log tells of one.
type request struct {
	Account, Group, Resource, Namespace, Name, Verb string
	// URI is for requests of no resource, and for people.
	URI     string
	Refused bool
}

// event is what is read of an audit.k8s.io/v1 Event.
type event struct {
	Verb       string `json:"verb"`
	RequestURI string `json:"requestURI"`
	User       struct {
		Username string `json:"username"`
	} `json:"user"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
		APIGroup    string `json:"apiGroup"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Annotations map[string]string `json:"annotations"`
}

const accountPrefix = "system:serviceaccount:"

// requestsIn reads what service accounts asked for from an audit log. A watch is in
// it twice, as it begins and as it ends.
func requestsIn(t *testing.T, log string) []request {
	t.Helper()
	f, err := os.Open(log) //nolint:gosec // a file of the test
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var all []request
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e event
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
		if strings.HasPrefix(e.User.Username, accountPrefix) {
			all = append(all, e.request())
		}
	}
	require.NoError(t, lines.Err())
	return all
}

func (e event) request() request {
	o := e.ObjectRef
	q := request{
		Account: strings.Replace(strings.TrimPrefix(e.User.Username, accountPrefix), ":", "/", 1), Verb: e.Verb, URI: e.RequestURI,
		Group: o.APIGroup, Resource: o.Resource, Namespace: o.Namespace, Name: o.Name,
		Refused: e.ResponseStatus.Code == 403 || e.Annotations["authorization.k8s.io/decision"] == "forbid",
	}
	if o.Subresource != "" {
		q.Resource += "/" + o.Subresource
	}
	return q
}

// refusals are the requests of an account that were refused.
func refusals(all []request, account string) (uris []string) {
	for _, q := range all {
		if q.Account == account && q.Refused {
			uris = append(uris, q.Verb+" "+q.URI)
		}
	}
	return uris
}

// rbac are the objects that grant rights.
type rbac struct {
	roles    map[string][]rbacv1.PolicyRule // by kind, namespace and name
	bindings []binding
}

type binding struct {
	namespace string
	role      rbacv1.RoleRef
	subjects  []rbacv1.Subject
}

// rbacOf takes roles and bindings from what was rendered.
func rbacOf(t *testing.T, objects []*unstructured.Unstructured) rbac {
	t.Helper()
	r := rbac{roles: map[string][]rbacv1.PolicyRule{}}
	for _, o := range objects {
		convert := func(into any) {
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true))
		}
		switch o.GetKind() {
		case "ClusterRole", "Role":
			var role rbacv1.ClusterRole
			convert(&role)
			r.roles[roleKey(o.GetKind(), o.GetNamespace(), o.GetName())] = role.Rules
		case "ClusterRoleBinding", "RoleBinding":
			var b rbacv1.RoleBinding
			convert(&b)
			r.bindings = append(r.bindings, binding{b.Namespace, b.RoleRef, b.Subjects})
		}
	}
	return r
}

func roleKey(kind, namespace, name string) string {
	if kind == "ClusterRole" {
		namespace = ""
	}
	return kind + "/" + namespace + "/" + name
}

// rights are those of every account that a binding names.
func (r rbac) rights(t *testing.T) (all []right) {
	t.Helper()
	for _, b := range r.bindings {
		rules, ok := r.roles[roleKey(b.role.Kind, b.namespace, b.role.Name)]
		require.True(t, ok, "role %s is bound and not there", b.role.Name)
		for _, s := range b.subjects {
			of := right{Role: b.role.Name, Account: s.Namespace + "/" + s.Name, Namespace: b.namespace}
			for _, rule := range rules {
				all = append(all, of.cut(rule)...)
			}
		}
	}
	return all
}

// cut returns the rights of one rule.
func (r right) cut(rule rbacv1.PolicyRule) (all []right) {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	for _, r.Group = range rule.APIGroups {
		for _, r.Resource = range rule.Resources {
			for _, r.Name = range names {
				for _, r.Verb = range rule.Verbs {
					all = append(all, r)
				}
			}
		}
	}
	return all
}

// ledger notes which rights were granted in any of several runs, and which were used
// in one of them.
type ledger map[right]bool

// note takes in one run.
func (l ledger) note(granted []right, requests []request) {
	for _, r := range granted {
		l[r] = l[r] || slices.ContainsFunc(requests, func(q request) bool { return !q.Refused && r.allows(q) })
	}
}

// unused are the rights that nobody used.
func (l ledger) unused() (all []string) {
	for r, used := range l {
		if !used {
			all = append(all, r.String())
		}
	}
	slices.Sort(all)
	return all
}

func TestALedgerFindsWhatWasRefusedAndWhatWasNeverUsed(t *testing.T) {
	objects := []*unstructured.Unstructured{
		{Object: map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": map[string]any{"namespace": "a", "name": "r"},
			"rules": []any{map[string]any{
				"apiGroups": []any{""}, "resources": []any{"secrets", "pods/log"}, "verbs": []any{"get"}, "resourceNames": []any{"mine", "other"},
			}},
		}},
		{Object: map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": map[string]any{"namespace": "a", "name": "r"},
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "namespace": "a", "name": "me"}},
		}},
	}
	log := t.TempDir() + "/audit.log"
	line := func(user, namespace, name string, code int) string {
		return fmt.Sprintf(`{"verb":"get","requestURI":"/api/%s/%s","user":{"username":%q},"objectRef":{"resource":"secrets","namespace":%q,"name":%q},"responseStatus":{"code":%d}}`+"\n",
			namespace, name, user, namespace, name, code)
	}
	text := line("system:serviceaccount:a:me", "a", "mine", 200) + line("system:serviceaccount:a:you", "a", "other", 200) +
		line("system:serviceaccount:a:me", "b", "other", 403) + line("system:admin", "a", "other", 200)
	require.NoError(t, os.WriteFile(log, []byte(text), 0o600))

	requests := requestsIn(t, log)
	require.Equal(t, []string{"get /api/b/other"}, refusals(requests, "a/me"))
	l := ledger{}
	l.note(rbacOf(t, objects).rights(t), requests)
	require.Equal(t, []string{
		`a/me may get pods/log. "mine" in "a", of role r`, `a/me may get pods/log. "other" in "a", of role r`, `a/me may get secrets. "other" in "a", of role r`,
	}, l.unused(), "another's request, a refused one and an administrator's use no right")
	l.note(rbacOf(t, objects).rights(t), nil)
	require.Len(t, l.unused(), 3, "what one run used stays used")
}
