package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// What the chart and the kustomize tree call the operator.
const (
	nameLabel    = "app.kubernetes.io/name"
	operatorName = "boot-operator"
	netbootName  = "boot-operator-netboot"
	leaseName    = "boot-operator.boot.ironcore.dev" // --leader-election-id
)

// operatorProcess is a Deployment or a DaemonSet of the operator.
type operatorProcess struct {
	kind, namespace, name string
	ready, wanted         int32
	pod                   corev1.PodTemplateSpec
}

// args are the arguments of the operator's container.
func (p operatorProcess) args() []string {
	var all []string
	for _, c := range p.pod.Spec.Containers {
		all = append(all, c.Args...)
	}
	return all
}

// flag returns the value of a flag among the arguments; "" where it is not there.
func (p operatorProcess) flag(name string) string {
	for _, a := range p.args() {
		if value, found := strings.CutPrefix(a, "--"+name+"="); found {
			return value
		}
	}
	return ""
}

// isNetboot says whether it only offers boots.
func (p operatorProcess) isNetboot() bool { return p.pod.Labels[nameLabel] == netbootName }

// operators finds the operator's Deployments and DaemonSets.
func (f *fleet) operators(ctx context.Context, namespace string) ([]operatorProcess, error) {
	var deployments appsv1.DeploymentList
	var daemons appsv1.DaemonSetList
	for _, list := range []client.ObjectList{&deployments, &daemons} {
		if err := f.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, f.kindly(err, "list", "Deployments and DaemonSets")
		}
	}
	var all []operatorProcess
	add := func(p operatorProcess) {
		if name := p.pod.Labels[nameLabel]; name == operatorName || name == netbootName {
			all = append(all, p)
		}
	}
	for _, d := range deployments.Items {
		wanted := int32(1)
		if d.Spec.Replicas != nil {
			wanted = *d.Spec.Replicas
		}
		add(operatorProcess{"Deployment", d.Namespace, d.Name, d.Status.ReadyReplicas, wanted, d.Spec.Template})
	}
	for _, d := range daemons.Items {
		add(operatorProcess{"DaemonSet", d.Namespace, d.Name, d.Status.NumberReady, d.Status.DesiredNumberScheduled, d.Spec.Template})
	}
	return all, nil
}

// checkCluster looks at what is installed.
func checkCluster(ctx context.Context, d *doctor) []finding {
	if d.fleet == nil {
		return []finding{skip("no cluster: %v", d.noCluster)}
	}
	all := d.fleet.checkCRDs(ctx)
	processes, err := d.fleet.operators(ctx, d.flags.operator)
	if err != nil {
		return append(all, skip("whether an operator runs: %v", err))
	}
	d.operators = processes
	if len(processes) == 0 {
		all = append(all, warn("install the chart, or say where it is by --operator-namespace; one that runs outside of the cluster is not seen here",
			"No Deployment of the operator is found (Pods with the label %s=%s).", nameLabel, operatorName))
	}
	for _, p := range processes {
		all = append(all, p.replicas())
	}
	return append(append(all, d.fleet.checkLease(ctx, processes)...), d.fleet.checkServices(ctx, processes)...)
}

// replicas says whether the Pods of a process are ready.
func (p operatorProcess) replicas() finding {
	what := fmt.Sprintf("%s %s/%s: %d of %d replicas are ready", p.kind, p.namespace, p.name, p.ready, p.wanted)
	do := fmt.Sprintf("kubectl -n %s describe pods -l %s=%s; /readyz?verbose says which check fails", p.namespace, nameLabel, p.pod.Labels[nameLabel])
	switch {
	case p.ready == 0:
		return fail(do, "%s.", what)
	case p.ready < p.wanted:
		return warn(do, "%s.", what)
	}
	return ok("%s.", what)
}

// checkCRDs says whether the CRDs have every field that this version knows.
func (f *fleet) checkCRDs(ctx context.Context) []finding {
	var all []finding
	for name, kind := range map[string]any{"httpbootconfigs": v1alpha1.HTTPBootConfig{}, "ipxebootconfigs": v1alpha1.IPXEBootConfig{}} {
		all = append(all, f.checkCRD(ctx, name+"."+v1alpha1.GroupVersion.Group, kind))
	}
	slices.SortFunc(all, func(a, b finding) int { return strings.Compare(a.Says, b.Says) })
	return all
}

func (f *fleet) checkCRD(ctx context.Context, name string, kind any) finding {
	var crd unstructured.Unstructured
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	err := f.Get(ctx, client.ObjectKey{Name: name}, &crd)
	const do = "apply the CRDs of this version: charts/boot-operator with crds.install, or config/crd"
	switch {
	case apierrors.IsNotFound(err):
		return fail(do, "The CRD %s is not installed.", name)
	case apierrors.IsForbidden(err):
		return skip("the CRD %s: you may not read CustomResourceDefinitions, which takes a ClusterRole", name)
	case err != nil:
		return fail("check the kubeconfig, and that the API server can be reached from here", "Reading the CRD %s: %v.", name, err)
	}
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		version, is := v.(map[string]any)
		if !is || version["name"] != v1alpha1.GroupVersion.Version {
			continue
		}
		properties, _, _ := unstructured.NestedMap(version, "schema", "openAPIV3Schema")
		if missing := missingFields(properties, reflect.TypeOf(kind), ""); len(missing) > 0 {
			return fail(do, "The CRD %s is of another version: it lacks %s, which the API server would drop.", name, strings.Join(missing[:min(3, len(missing))], ", "))
		}
		return ok("The CRD %s is of this version.", name)
	}
	return fail(do, "The CRD %s does not serve %s.", name, v1alpha1.GroupVersion.Version)
}

// missingFields lists the fields of a type that a schema does not have. Types of other
// API groups, such as conditions, are not looked into.
func missingFields(schema map[string]any, t reflect.Type, path string) []string {
	properties, _, _ := unstructured.NestedMap(schema, "properties")
	var missing []string
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "metadata" {
			continue
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		sub, there := properties[name].(map[string]any)
		if !there {
			missing = append(missing, at)
			continue
		}
		kind := field.Type
		for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
			if kind.Kind() == reflect.Slice {
				sub, _, _ = unstructured.NestedMap(sub, "items")
			}
			kind = kind.Elem()
		}
		if kind.Kind() == reflect.Struct && kind.PkgPath() == reflect.TypeFor[v1alpha1.BootStatus]().PkgPath() {
			missing = append(missing, missingFields(sub, kind, at)...)
		}
	}
	return missing
}

// checkLease says whether one of the replicas leads.
func (f *fleet) checkLease(ctx context.Context, processes []operatorProcess) []finding {
	var all []finding
	for _, p := range processes {
		if p.isNetboot() || !slices.ContainsFunc(p.args(), func(a string) bool { return a == "--leader-elect" || a == "--leader-elect=true" }) {
			continue
		}
		name := p.flag("leader-election-id")
		if name == "" {
			name = leaseName
		}
		all = append(all, f.checkLeaseOf(ctx, p.namespace, name))
	}
	return all
}

func (f *fleet) checkLeaseOf(ctx context.Context, namespace, name string) finding {
	var lease coordinationv1.Lease
	do := fmt.Sprintf("no status is written and no host is driven until one leads; machines boot on what they were given. See the log: kubectl -n %s logs -l %s=%s", namespace, nameLabel, operatorName)
	err := f.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &lease)
	switch {
	case apierrors.IsForbidden(err):
		return skip("who leads: you may not read Leases in namespace %s", namespace)
	case err != nil:
		return fail(do, "No replica leads: %v.", err)
	case lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" || lease.Spec.RenewTime == nil:
		return fail(do, "No replica leads: nobody holds the Lease %s/%s.", namespace, name)
	}
	patience := 15 * time.Second
	if s := lease.Spec.LeaseDurationSeconds; s != nil {
		patience = time.Duration(*s) * time.Second
	}
	if old := f.now().Sub(lease.Spec.RenewTime.Time); old > 2*patience {
		return fail(do, "No replica leads: %s has not renewed the Lease %s/%s for %s.", *lease.Spec.HolderIdentity, namespace, name, age(lease.Spec.RenewTime.Time, f.now()))
	}
	holder, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return ok("%s leads.", holder)
}

// checkServices says whether the operator sees the addresses of machines.
func (f *fleet) checkServices(ctx context.Context, processes []operatorProcess) []finding {
	var all []finding
	for _, p := range processes {
		if p.isNetboot() {
			continue
		}
		if p.pod.Spec.HostNetwork {
			all = append(all, ok("%s %s/%s is on the host's network: machines reach it at their own addresses.", p.kind, p.namespace, p.name))
			continue
		}
		var services corev1.ServiceList
		if err := f.List(ctx, &services, client.InNamespace(p.namespace)); err != nil {
			all = append(all, skip("how machines reach %s/%s: %v", p.namespace, p.name, f.kindly(err, "list", "Services")))
			continue
		}
		all = append(all, p.exposure(services.Items)...)
	}
	return all
}

// exposure looks at the Services through which machines reach a process.
func (p operatorProcess) exposure(services []corev1.Service) []finding {
	var all []finding
	for _, s := range services {
		boots := slices.ContainsFunc(s.Spec.Ports, func(port corev1.ServicePort) bool {
			return port.Name == "boot" || port.Name == "boot-tls" || port.TargetPort.StrVal == "boot"
		})
		if boots && len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.pod.Labels)) {
			all = append(all, p.serviceFinding(s))
		}
	}
	if len(all) == 0 {
		return []finding{warn("expose the ports boot and images by a Service of type LoadBalancer or NodePort, or use hostNetwork", "No Service leads machines to %s/%s.", p.namespace, p.name)}
	}
	return all
}

// serviceFinding says whether a Service keeps the addresses of clients, and each client
// at one replica.
func (p operatorProcess) serviceFinding(s corev1.Service) finding {
	name := fmt.Sprintf("Service %s/%s (%s)", s.Namespace, s.Name, s.Spec.Type)
	proxied := p.flag("proxy-protocol-from") != ""
	switch {
	case s.Spec.Type == corev1.ServiceTypeClusterIP && !proxied:
		return warn("service.type LoadBalancer or NodePort in the chart, or hostNetwork", "%s is reached from inside of the cluster only.", name)
	case s.Spec.Type == corev1.ServiceTypeClusterIP:
		return ok("%s is behind a balancer that speaks PROXY protocol.", name)
	case s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal && !proxied:
		return fail("set externalTrafficPolicy: Local (service.externalTrafficPolicy in the chart): a machine's address is its identity", "%s translates addresses: with externalTrafficPolicy %s machines arrive with a node's address.", name, s.Spec.ExternalTrafficPolicy)
	case s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP && p.wanted > 1:
		return warn("set sessionAffinity: ClientIP (service.sessionAffinity in the chart)", "%s sends one machine's requests to several replicas, which each pull what it boots, and learn of its attempt later.", name)
	}
	return ok("%s keeps the addresses of machines.", name)
}
