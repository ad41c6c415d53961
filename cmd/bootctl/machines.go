package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/timeline"
)

// maxEventsOf bounds how many events of one object are read.
const maxEventsOf = 500

// machineFlags are those of the verbs that are about machines of a cluster.
type machineFlags struct {
	cluster   clusterFlags
	namespace string
	all       bool
}

func (o *machineFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.cluster.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: as kubectl finds its own)")
	f.StringVar(&o.cluster.context, "context", "", "context in it (default: its current one)")
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace of the machines (default: that of the context)")
}

func (o *machineFlags) addAll(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "machines of all namespaces")
}

// fleet are the machines of a cluster, in one namespace or, where that is empty, in all.
type fleet struct {
	client.Client
	env       *environment
	config    *rest.Config
	namespace string
	// noHosts says why BareMetalHosts are left out: errNoHosts, or that they may not be
	// read; nil where they are read.
	noHosts error
	now     func() time.Time
}

// errNoHosts: the cluster has no BareMetalHosts.
var errNoHosts = errors.New("this cluster has no BareMetalHosts")

// connect connects to the cluster; nothing is asked of it yet.
func (o *machineFlags) connect(env *environment) (*fleet, error) {
	if o.all && o.namespace != "" {
		return nil, usageError{errors.New("--namespace and --all-namespaces exclude each other")}
	}
	config, namespace, err := o.cluster.load()
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	config.Timeout, config.WarningHandler = askTimeout, rest.NoWarnings{}
	scheme, err := machineScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	switch {
	case o.all:
		namespace = ""
	case o.namespace != "":
		namespace = o.namespace
	}
	return &fleet{Client: c, env: env, config: config, namespace: namespace, now: time.Now}, nil
}

func machineScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	var errs []error
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, coordinationv1.AddToScheme, v1alpha1.AddToScheme, metal3.AddToScheme} {
		errs = append(errs, add(scheme))
	}
	return scheme, errors.Join(errs...)
}

// where names the namespaces that are looked at.
func (f *fleet) where() string {
	if f.namespace == "" {
		return "all namespaces"
	}
	return "namespace " + f.namespace
}

// list reads all machines.
func (f *fleet) list(ctx context.Context) ([]timeline.Machine, error) { return f.listFrom(ctx, f) }

// listFrom reads all machines from a client or from a cache of it.
func (f *fleet) listFrom(ctx context.Context, r client.Reader) ([]timeline.Machine, error) {
	configs, err := listConfigs(ctx, r, f.namespace)
	if err != nil {
		return nil, f.kindly(err, "list", "HTTPBootConfigs and IPXEBootConfigs")
	}
	hosts, err := f.hosts(ctx, r)
	if err != nil {
		return nil, err
	}
	return timeline.Group(configs, hosts), nil
}

// listConfigs lists the configs of both kinds, also those that are being deleted.
func listConfigs(ctx context.Context, r client.Reader, namespace string) ([]v1alpha1.Config, error) {
	var https v1alpha1.HTTPBootConfigList
	var ipxes v1alpha1.IPXEBootConfigList
	for _, list := range []client.ObjectList{&https, &ipxes} {
		if err := r.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, err //nolint:wrapcheck // the caller says what it was
		}
	}
	configs := make([]v1alpha1.Config, 0, len(https.Items)+len(ipxes.Items))
	for i := range https.Items {
		configs = append(configs, &https.Items[i])
	}
	for i := range ipxes.Items {
		configs = append(configs, &ipxes.Items[i])
	}
	return configs, nil
}

// hosts lists BareMetalHosts. A cluster without them, and one that does not show them
// to everyone, is told of machines all the same.
func (f *fleet) hosts(ctx context.Context, r client.Reader) ([]*metal3.BareMetalHost, error) {
	if f.noHosts != nil {
		return nil, nil //nolint:nilerr // it was told before
	}
	var list metal3.BareMetalHostList
	err := r.List(ctx, &list, client.InNamespace(f.namespace))
	var discovery *apiutil.ErrResourceDiscoveryFailed
	switch {
	case err == nil:
	case meta.IsNoMatchError(err), errors.As(err, &discovery):
		f.noHosts = errNoHosts
		return nil, nil //nolint:nilerr // there are none
	case apierrors.IsForbidden(err):
		f.noHosts = f.kindly(err, "list", "BareMetalHosts")
		fmt.Fprintf(f.env.Err, "BareMetalHosts are left out: %v\n", f.noHosts)
		return nil, nil
	default:
		return nil, fmt.Errorf("listing BareMetalHosts in %s: %w", f.where(), err)
	}
	hosts := make([]*metal3.BareMetalHost, len(list.Items))
	for i := range list.Items {
		hosts[i] = &list.Items[i]
	}
	return hosts, nil
}

// kindly says what the API server refused, and who can help.
func (f *fleet) kindly(err error, verb, what string) error {
	var discovery *apiutil.ErrResourceDiscoveryFailed
	role := "view"
	if verb == "patch" {
		role = "edit"
	}
	switch {
	case apierrors.IsForbidden(err) && f.namespace == "":
		return refusedError{err, fmt.Sprintf("you may not %s %s in all namespaces: name one by -n, or ask for the ClusterRole %s to be bound to you by a ClusterRoleBinding", verb, what, role)}
	case apierrors.IsForbidden(err):
		return refusedError{err, fmt.Sprintf("you may not %s %s in namespace %s: ask for the ClusterRole %s to be bound to you there", verb, what, f.namespace, role)}
	case apierrors.IsUnauthorized(err):
		return refusedError{err, "the API server does not know you: the credentials of the kubeconfig are wrong, or have expired"}
	case meta.IsNoMatchError(err), errors.As(err, &discovery):
		return fmt.Errorf("this cluster has no %s (%s): install the operator, whose chart brings their CRDs", what, v1alpha1.GroupVersion)
	}
	return fmt.Errorf("to %s %s in %s: %w", verb, what, f.where(), err)
}

// refusedError says what the API server refused in words of ours.
type refusedError struct {
	err  error
	says string
}

func (e refusedError) Error() string { return e.says }
func (e refusedError) Unwrap() error { return e.err }

// choose returns the machines that were asked for: by names, and by the labels of one
// of their objects. All of them where nothing was asked for. A name that is nobody's is
// an error that names the most similar.
func choose(all []timeline.Machine, names []string, selector labels.Selector, where string) ([]timeline.Machine, error) {
	var chosen []timeline.Machine
	for _, m := range all {
		named := len(names) == 0 || slices.ContainsFunc(names, m.Is)
		if named && (selector == nil || selector.Empty() || hasLabels(m, selector)) {
			chosen = append(chosen, m)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(m timeline.Machine) bool { return m.Is(name) }) {
			return nil, noSuchMachine(name, all, where)
		}
	}
	return chosen, nil
}

func hasLabels(m timeline.Machine, selector labels.Selector) bool {
	if m.Host != nil && selector.Matches(labels.Set(m.Host.Labels)) {
		return true
	}
	return slices.ContainsFunc(m.Configs, func(c v1alpha1.Config) bool { return selector.Matches(labels.Set(c.GetLabels())) })
}

// noSuchMachine says which machines there are, the most similar first.
func noSuchMachine(name string, all []timeline.Machine, where string) error {
	text := fmt.Sprintf("%s has no machine %s (by name, UUID, MAC or IP address)", where, plain(cut(name, pageWidth)))
	if len(all) == 0 {
		return fmt.Errorf("%s, nor any other", text)
	}
	names := make([]string, len(all))
	for i, m := range all {
		names[i] = m.Name
	}
	slices.SortStableFunc(names, func(a, b string) int { return distance(a, name) - distance(b, name) })
	names = slices.Compact(names)
	more := ""
	if len(names) > maxNames {
		more = fmt.Sprintf(" and %d more", len(names)-maxNames)
		names = names[:maxNames]
	}
	return fmt.Errorf("%s; it has %s%s", text, strings.Join(names, ", "), more)
}

// find returns the one machine that was named, in the namespace or, where it is in none
// of its machines, in another one that may be read.
func (f *fleet) find(ctx context.Context, name string) (*timeline.Machine, error) {
	all, err := f.list(ctx)
	if err != nil {
		return nil, err
	}
	found := machinesNamed(all, name)
	if len(found) == 0 && f.namespace != "" {
		everywhere := *f
		everywhere.namespace = ""
		everywhere.env = &environment{Out: f.env.Out, Err: new(strings.Builder)} // who may not read them all is not told
		if others, err := everywhere.list(ctx); err == nil {
			found = machinesNamed(others, name)
		}
	}
	switch len(found) {
	case 0:
		return nil, noSuchMachine(name, all, f.where())
	case 1:
		return &found[0], nil
	}
	var where []string
	for _, m := range found {
		where = append(where, m.Namespace+"/"+m.Name)
	}
	return nil, fmt.Errorf("%s is several machines: %s; name one of them, and its namespace by -n", name, strings.Join(where, ", "))
}

// machinesNamed returns the machines with this name or, where none has it, this identity.
func machinesNamed(all []timeline.Machine, name string) []timeline.Machine {
	var byName, byIdentity []timeline.Machine
	for _, m := range all {
		switch {
		case m.Named(name):
			byName = append(byName, m)
		case m.Is(name):
			byIdentity = append(byIdentity, m)
		}
	}
	if len(byName) > 0 {
		return byName
	}
	return byIdentity
}

// events reads the events of a machine's objects into it.
func (f *fleet) events(ctx context.Context, m *timeline.Machine) error {
	for _, uid := range m.UIDs() {
		if uid == "" {
			continue
		}
		var list corev1.EventList
		selector := fields.OneTermEqualSelector("involvedObject.uid", string(uid))
		if err := f.List(ctx, &list, client.InNamespace(m.Namespace), client.MatchingFieldsSelector{Selector: selector}, client.Limit(maxEventsOf)); err != nil {
			return f.kindly(err, "list", "events")
		}
		for i := range list.Items {
			m.Events = append(m.Events, eventOf(&list.Items[i]))
		}
	}
	return nil
}

// eventOf reads an event of either API.
func eventOf(e *corev1.Event) timeline.Event {
	out := timeline.Event{
		Time: e.EventTime.Time, Object: e.InvolvedObject.Kind + " " + e.InvolvedObject.Name, Reason: e.Reason, Message: e.Message,
		Warning: e.Type == corev1.EventTypeWarning, Count: int(e.Count),
	}
	switch s := e.Series; {
	case s != nil:
		out.Time, out.Count = s.LastObservedTime.Time, int(s.Count)
	case out.Time.IsZero() && !e.LastTimestamp.IsZero():
		out.Time = e.LastTimestamp.Time
	case out.Time.IsZero():
		out.Time = e.CreationTimestamp.Time
	}
	return out
}
